//! What a sealed name says, kept beside it in memory once it has been opened.

use std::fmt;
use std::sync::OnceLock;

use bincode::de::{BorrowDecoder, Decoder};
use bincode::enc::Encoder;
use bincode::error::{DecodeError, EncodeError};
use bincode::{BorrowDecode, Decode, Encode};

use crate::base::Name;

/// The name of an entry in plaintext, or nothing yet. It is no part of the record: it is not stored, and two entries are
/// equal whatever is known of their names.
#[derive(Clone, Default)]
pub struct Opened(OnceLock<Name>);

impl Opened {
    /// The name; what `open` says of it if it was never asked for before.
    ///
    /// # Errors
    /// Those of `open`.
    pub fn get_or_open<E>(&self, open: impl FnOnce() -> Result<Name, E>) -> Result<&Name, E> {
        if let Some(name) = self.0.get() {
            return Ok(name);
        }
        let name = open()?;
        Ok(self.0.get_or_init(|| name))
    }
}

impl From<Name> for Opened {
    fn from(name: Name) -> Self {
        Self(OnceLock::from(name))
    }
}

impl PartialEq for Opened {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Opened {}

impl fmt::Debug for Opened {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opened(..)")
    }
}

impl Encode for Opened {
    fn encode<E: Encoder>(&self, _: &mut E) -> Result<(), EncodeError> {
        Ok(())
    }
}

impl<C> Decode<C> for Opened {
    fn decode<D: Decoder<Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Self::default())
    }
}

impl<'de, C> BorrowDecode<'de, C> for Opened {
    fn borrow_decode<D: BorrowDecoder<'de, Context = C>>(_: &mut D) -> Result<Self, DecodeError> {
        Ok(Self::default())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_opened_once_and_a_failure_is_not_remembered() {
        let opened = Opened::default();
        assert_eq!(opened.get_or_open(|| Err("damaged")), Err("damaged"));
        let name = Name::new(b"letter.txt").unwrap();
        assert_eq!(opened.get_or_open(|| Ok::<_, &str>(name.clone())), Ok(&name));
        assert_eq!(opened.get_or_open(|| Err("asked again")), Ok(&name));
    }
}
