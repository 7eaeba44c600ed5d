//! Secret bytes: in memory of their own, wiped when dropped, never printed, compared in constant time.

use std::fmt;
use std::io::{self, Read};

use aws_lc_rs::constant_time::verify_slices_are_equal;
use zeroize::Zeroize;

use super::cannot_fail;
use super::memory::Guarded;
use crate::base::Entropy;

/// What a secret of unknown length gets first.
const FIRST_BYTES: usize = 4096;

/// A key of `N` bytes. Moving it leaves no copy behind.
pub struct Key<const N: usize>(Guarded);

impl<const N: usize> Key<N> {
    /// Takes `bytes` and wipes the caller's copy.
    #[must_use]
    pub fn take(bytes: &mut [u8; N]) -> Self {
        let key = Self::filled(|place| *place = *bytes);
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
        let mut key = Self(Guarded::zeroed(N));
        fill(cannot_fail(
            key.0.bytes_mut().first_chunk_mut().ok_or(()),
            "a key has as many bytes as asked for",
        ));
        key
    }

    /// The key's bytes. Whoever copies them must wipe the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8; N] {
        cannot_fail(self.0.bytes().first_chunk().ok_or(()), "a key has as many bytes as asked for")
    }
}

impl<const N: usize> fmt::Debug for Key<N> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Key<{N}>(..)")
    }
}

/// Secret bytes of any length: a passphrase, a key file, a recovery code as it was typed.
pub struct Secret(Guarded);

impl Secret {
    /// Takes `bytes` and wipes the caller's copy.
    #[must_use]
    pub fn new(mut bytes: Vec<u8>) -> Self {
        let secret = Self::copy_of(&bytes);
        bytes.zeroize();
        secret
    }

    /// A secret from its bytes, for those who hold them anyway.
    #[must_use]
    pub fn copy_of(bytes: &[u8]) -> Self {
        let mut secret = Guarded::zeroed(bytes.len());
        secret.bytes_mut().copy_from_slice(bytes);
        Self(secret)
    }

    /// Reads `source` to its end. No copy is left anywhere else in this process.
    ///
    /// # Errors
    /// Those of `source`; more than `bytes_max` bytes.
    pub fn read(mut source: impl Read, bytes_max: usize) -> io::Result<Self> {
        let mut secret = Guarded::zeroed(FIRST_BYTES);
        let mut len = 0;
        loop {
            if len == secret.bytes().len() {
                let mut larger = Guarded::zeroed(2 * len);
                larger.bytes_mut().iter_mut().zip(secret.bytes()).for_each(|(to, from)| *to = *from);
                secret = larger;
            }
            match source.read(secret.bytes_mut().get_mut(len..).unwrap_or_default()) {
                Ok(0) => break,
                Ok(count) => len += count,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
            }
            if len > bytes_max {
                return Err(io::Error::other(format!("it is longer than {bytes_max} bytes")));
            }
        }
        secret.truncate(len);
        Ok(Self(secret))
    }

    /// Without one newline at its end.
    #[must_use]
    pub fn without_newline(mut self) -> Self {
        if let Some((b'\n', rest)) = self.expose().split_last() {
            self.0.truncate(rest.len());
        }
        self
    }

    /// The same in new memory. A forked process calls it for what it has inherited, which is not locked.
    #[must_use]
    pub fn moved(self) -> Self {
        Self::copy_of(self.expose())
    }

    /// The bytes. Whoever copies them must wipe the copy.
    #[must_use]
    pub fn expose(&self) -> &[u8] {
        self.0.bytes()
    }
}

impl From<&str> for Secret {
    fn from(text: &str) -> Self {
        Self::copy_of(text.as_bytes())
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
    fn a_secret_is_read_to_its_end_or_refused_for_its_length() {
        for len in [0, 1, FIRST_BYTES - 1, FIRST_BYTES, FIRST_BYTES + 1, 5 * FIRST_BYTES] {
            let bytes = vec![9; len];
            assert_eq!(Secret::read(&bytes[..], len).unwrap().expose(), bytes);
            assert_eq!(Secret::read(&bytes[..], len).unwrap().moved().expose(), bytes);
            assert!(len == 0 || Secret::read(&bytes[..], len - 1).is_err());
        }
    }

    #[test]
    fn one_newline_at_the_end_goes() {
        for (read, left) in [("a\n", "a"), ("a\n\n", "a\n"), ("\n", ""), ("", ""), ("a\nb", "a\nb")] {
            assert_eq!(Secret::from(read).without_newline().expose(), left.as_bytes());
        }
    }

    #[test]
    fn equality_is_of_content_and_length() {
        assert!(equal(b"abc", b"abc"));
        assert!(!equal(b"abc", b"abd"));
        assert!(!equal(b"abc", b"ab"));
    }
}
