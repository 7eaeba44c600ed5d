//! File names: 1 to 255 bytes, any byte but NUL and `/`.

use std::fmt;

/// Longest name in bytes, as `NAME_MAX` on Linux.
pub const NAME_BYTES_MAX: usize = 255;

/// A checked file name. Names are bytes: no encoding, case or normalisation is assumed.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name(Box<[u8]>);

/// Why bytes are not a name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NameError {
    /// No bytes at all.
    #[error("a file name cannot be empty")]
    Empty,
    /// More than [`NAME_BYTES_MAX`].
    #[error("a file name cannot be longer than {NAME_BYTES_MAX} bytes")]
    TooLong,
    /// `.`, `..`, or a name with `/` or NUL in it.
    #[error("a file name cannot be `.` or `..`, nor contain `/` or NUL")]
    Reserved,
}

impl Name {
    /// Checks `bytes`.
    ///
    /// # Errors
    /// Says which rule the bytes break.
    pub fn new(bytes: &[u8]) -> Result<Self, NameError> {
        match bytes {
            [] => Err(NameError::Empty),
            _ if bytes.len() > NAME_BYTES_MAX => Err(NameError::TooLong),
            b"." | b".." => Err(NameError::Reserved),
            _ if bytes.iter().any(|b| matches!(b, 0 | b'/')) => Err(NameError::Reserved),
            _ => Ok(Self(bytes.into())),
        }
    }

    /// The name's bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "\"{}\"", self.0.escape_ascii())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn c11_names_of_1_to_255_bytes_are_names() {
        assert!(Name::new(b"a").is_ok());
        assert!(Name::new(&[0xFF; 255]).is_ok());
        assert!(Name::new(b"...").is_ok());
        assert_eq!(Name::new(b""), Err(NameError::Empty));
        assert_eq!(Name::new(&[b'a'; 256]), Err(NameError::TooLong));
        for reserved in [&b"."[..], b"..", b"a/b", b"a\0b"] {
            assert_eq!(Name::new(reserved), Err(NameError::Reserved));
        }
    }
}
