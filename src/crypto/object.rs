//! Seals and opens the pieces of one object with AES-256-GCM.

use std::fmt;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};

use super::{OpenError, cannot_fail};

pub use crate::base::TAG_BYTES;

/// The key of one sealed object. Nothing of the object's identity needs to be repeated with a piece: the
/// key is of this object only, and the nonce is the piece's number.
pub struct ObjectKey(LessSafeKey);

impl ObjectKey {
    pub(super) fn new(key: &[u8]) -> Self {
        let key = UnboundKey::new(&AES_256_GCM, key);
        Self(LessSafeKey::new(cannot_fail(key, "AES-256-GCM takes any 32 bytes as a key")))
    }

    /// Seals `piece` and appends its tag. A number is used once per object.
    pub fn seal_piece(&self, number: u64, last: bool, piece: &mut Vec<u8>) {
        let tag = self.seal_slice(number, last, piece);
        piece.extend_from_slice(&tag);
    }

    /// Seals `plain` in place and returns its tag. A number is used once per object.
    pub fn seal_slice(&self, number: u64, last: bool, plain: &mut [u8]) -> [u8; TAG_BYTES] {
        let tag = self.0.seal_in_place_separate_tag(nonce(number, last), Aad::empty(), plain);
        let tag = cannot_fail(tag, "AES-256-GCM seals any piece below 64 GiB");
        cannot_fail(tag.as_ref().try_into(), "a GCM tag has 16 bytes")
    }

    /// Opens a piece, tag at its end, in place and returns the plaintext. On error nothing of it is left in `sealed`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`] for altered bytes, another number, another last flag or another object's key.
    pub fn open_piece<'a>(
        &self,
        number: u64,
        last: bool,
        sealed: &'a mut [u8],
    ) -> Result<&'a mut [u8], OpenError> {
        self.0.open_in_place(nonce(number, last), Aad::empty(), sealed).map_err(|_| OpenError::Damaged)
    }

    /// As [`ObjectKey::open_piece`], into `plain`, which is as long as the plaintext, tag not counted. On error it is all
    /// zeros.
    ///
    /// # Errors
    /// As [`ObjectKey::open_piece`]; for pieces of another length as well.
    pub fn open_piece_into(
        &self,
        number: u64,
        last: bool,
        sealed: &[u8],
        plain: &mut [u8],
    ) -> Result<(), OpenError> {
        let opened = match sealed.split_last_chunk::<TAG_BYTES>() {
            Some((sealed, tag)) if sealed.len() == plain.len() => {
                let nonce = nonce(number, last);
                self.0.open_separate_gather(nonce, Aad::empty(), sealed, tag, plain).is_ok()
            }
            _ => false,
        };
        if !opened {
            plain.fill(0);
            return Err(OpenError::Damaged);
        }
        Ok(())
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("ObjectKey(..)")
    }
}

/// Three zero bytes, the last-piece flag, the piece's number big-endian.
fn nonce(number: u64, last: bool) -> Nonce {
    let [a, b, c, d, e, f, g, h] = number.to_be_bytes();
    Nonce::assume_unique_for_key([0, 0, 0, u8::from(last), a, b, c, d, e, f, g, h])
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Test case 14 of the GCM submission (McGrew and Viega): zero key, zero nonce, one zero block.
    #[test]
    fn gcm_gives_what_its_authors_say() {
        let mut piece = vec![0; 16];
        ObjectKey::new(&[0; 32]).seal_piece(0, false, &mut piece);
        let text = data_encoding::HEXLOWER.encode(&piece);
        assert_eq!(text, "cea7403d4d606b6e074ec5d3baf39d18d0d1c8a799996bf0265b98b5d48ab919");
    }

    #[test]
    fn b2_a_piece_opens_only_at_its_number_with_its_flag_under_its_key() {
        let key = ObjectKey::new(&[1; 32]);
        let mut sealed = b"block".to_vec();
        key.seal_piece(7, false, &mut sealed);
        assert_eq!(sealed.len(), 5 + TAG_BYTES);
        let open = |key: &ObjectKey, number, last, bytes: &[u8]| {
            let opened = key.open_piece(number, last, &mut bytes.to_vec()).map(|plain| plain.to_vec());
            let mut plain = vec![7; bytes.len().saturating_sub(TAG_BYTES)];
            match key.open_piece_into(number, last, bytes, &mut plain) {
                Ok(()) => assert_eq!(opened.as_ref(), Ok(&plain)),
                Err(error) => assert_eq!(opened, Err(error)),
            }
            opened
        };
        assert_eq!(open(&key, 7, false, &sealed), Ok(b"block".to_vec()));
        assert_eq!(open(&key, 8, false, &sealed), Err(OpenError::Damaged));
        assert_eq!(open(&key, 7, true, &sealed), Err(OpenError::Damaged));
        assert_eq!(open(&ObjectKey::new(&[2; 32]), 7, false, &sealed), Err(OpenError::Damaged));
        for short in 0..sealed.len() {
            assert_eq!(open(&key, 7, false, &sealed[..short]), Err(OpenError::Damaged));
        }
        for bit in 0..8 * sealed.len() {
            let mut bytes = sealed.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(open(&key, 7, false, &bytes), Err(OpenError::Damaged));
        }
    }

    #[test]
    fn b9_a_refused_piece_leaves_no_plaintext_behind() {
        let key = ObjectKey::new(&[1; 32]);
        let mut sealed = vec![b'p'; 4096];
        key.seal_piece(0, true, &mut sealed);
        *sealed.last_mut().unwrap() ^= 1;
        assert_eq!(key.open_piece(0, true, &mut sealed), Err(OpenError::Damaged));
        assert!(!sealed.windows(8).any(|bytes| bytes == b"pppppppp"));

        let mut sealed = vec![b'p'; 4096];
        key.seal_piece(0, true, &mut sealed);
        for (altered, len) in [(true, 4096), (false, 4095), (false, 4097)] {
            let (mut sealed, mut plain) = (sealed.clone(), vec![1; len]);
            *sealed.last_mut().unwrap() ^= u8::from(altered);
            assert_eq!(key.open_piece_into(0, true, &sealed, &mut plain), Err(OpenError::Damaged));
            assert_eq!(plain, vec![0; len]);
        }
    }
}
