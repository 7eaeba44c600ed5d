//! Secret bytes: wiped when dropped, never printed, compared in constant time.

use std::fmt;

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

use crate::base::Entropy;

/// A key of `N` bytes. Boxed, so that moving it leaves no copy behind.
#[derive(ZeroizeOnDrop)]
pub struct Key<const N: usize>(Box<[u8; N]>);

impl<const N: usize> Key<N> {
    /// Takes `bytes` and wipes the caller's copy.
    #[must_use]
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let key = Self(Box::new(*bytes));
        bytes.zeroize();
        key
    }

    /// A key from its bytes, for those who hold them anyway.
    #[must_use]
    pub fn from_bytes(mut bytes: [u8; N]) -> Self {
        Self::take(&mut bytes)
    }

    /// Draws a new key.
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self::filled(|bytes| entropy.fill(bytes))
    }

    /// A key whose bytes `fill` writes in place.
    pub(crate) fn filled(fill: impl FnOnce(&mut [u8; N])) -> Self {
        let mut key = Self(Box::new([0; N]));
        fill(&mut key.0);
        key
    }

    /// The key's bytes. Whoever copies them must wipe the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        &self.0
    }
}

impl<const N: usize> fmt::Debug for Key<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key<{N}>(..)")
    }
}

/// Secret bytes of any length: a passphrase, a key file, a recovery code as it was typed.
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes over `bytes`; nothing is copied.
    #[must_use]
    pub fn new(bytes: Vec<u8>) -> Self {
        Self(Zeroizing::new(bytes))
    }

    /// The bytes. Whoever copies them must wipe the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::new(text.as_bytes().to_vec())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}

/// Whether `a` and `b` are equal, in time that depends on their lengths only.
#[must_use]
pub fn equal(a: &[u8], b: &[u8]) -> bool {
    verify_slices_are_equal(a, b).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_secret_cannot_be_printed() {
        let shown = format!("{:?} {:?}", Key::from_bytes([0x41; 4]), Secret::from("AAAA"));
        assert_eq!(shown, "Key<4>(..) Secret(..)");
    }

    #[test]
    fn taking_a_key_wipes_the_copy_it_came_from() {
        let mut bytes = [7; 32];
        let key = Key::take(&mut bytes);
        assert_eq!((bytes, *key.expose()), ([0; 32], [7; 32]));
    }

    #[test]
    fn equality_is_of_content_and_length() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }
}
