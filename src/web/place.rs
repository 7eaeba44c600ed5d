//! Where figures are shown: an address of this machine that others cannot reach, unless somebody says otherwise.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// An address and port to listen at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place(SocketAddr);

/// Why a place is not used.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum PlaceError {
    /// It cannot be read.
    #[error("{0:?} is not a place to listen at; write it like 127.0.0.1:9400, localhost:9400 or 9400")]
    Unreadable(String),
    /// Others could reach it.
    #[error("{0} can be reached by others; figures are shown at a loopback address, such as 127.0.0.1:9400")]
    Reachable(SocketAddr),
}

impl Place {
    /// Reads `127.0.0.1:9400`, `[::1]:9400`, `localhost:9400` or `9400`; the last two are at 127.0.0.1.
    ///
    /// # Errors
    /// [`PlaceError::Unreadable`].
    pub fn parse(text: &str) -> Result<Self, PlaceError> {
        let port = text.strip_prefix("localhost:").unwrap_or(text);
        if let Ok(port) = port.parse() {
            return Ok(Self(SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), port)));
        }
        text.parse().map(Self).map_err(|_| PlaceError::Unreadable(text.to_owned()))
    }

    /// The address, if it is a loopback one or `anywhere` allows others.
    ///
    /// # Errors
    /// [`PlaceError::Reachable`].
    pub const fn address(self, anywhere: bool) -> Result<SocketAddr, PlaceError> {
        if anywhere || self.0.ip().is_loopback() { Ok(self.0) } else { Err(PlaceError::Reachable(self.0)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_place_that_others_can_reach_must_be_asked_for() {
        for (text, address) in [
            ("9400", "127.0.0.1:9400"),
            ("localhost:80", "127.0.0.1:80"),
            ("127.9.9.9:1", "127.9.9.9:1"),
            ("[::1]:9400", "[::1]:9400"),
        ] {
            assert_eq!(Place::parse(text).unwrap().address(false), Ok(address.parse().unwrap()), "{text}");
        }
        for text in ["0.0.0.0:9400", "[::]:9400", "192.0.2.1:80", "[::ffff:127.0.0.1]:80"] {
            let place = Place::parse(text).unwrap();
            assert!(matches!(place.address(false), Err(PlaceError::Reachable(_))), "{text}");
            assert!(place.address(true).is_ok(), "{text}");
        }
        for text in ["", ":9400", "example.com:80", "127.0.0.1", "127.0.0.1:99999", "localhost", "-1"] {
            assert!(Place::parse(text).is_err(), "{text}");
        }
    }
}
