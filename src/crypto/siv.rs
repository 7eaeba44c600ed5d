//! AES-256-SIV (RFC 5297) with the tag kept apart from the ciphertext.

use aes_siv::KeyInit;
use aes_siv::siv::Aes256Siv;

use super::{Key, OpenError, cannot_fail, scrub_stack};

/// More stack than a call takes: without optimisation, every step of it copies the schedule.
const CALL_STACK_BYTES: usize = if cfg!(debug_assertions) { 64 * 1024 } else { 8 * 1024 };

/// One SIV key. Its key schedule is made for each call and wiped after it: kept, it would lie in memory that is not
/// locked, and the crate makes half of it anew in any case.
pub(super) struct Siv(Key<64>);

impl Siv {
    pub(super) const fn new(key: Key<64>) -> Self {
        Self(key)
    }

    /// Tag and ciphertext of `plain` under the list `ad`.
    pub(super) fn seal(&self, ad: &[&[u8]], plain: &[u8]) -> ([u8; 16], Vec<u8>) {
        let mut bytes = plain.to_vec();
        let tag = self.run(|siv| siv.encrypt_inout_detached(ad, bytes.as_mut_slice().into()));
        (cannot_fail(tag, "SIV refuses only more than 126 parts of associated data").into(), bytes)
    }

    /// The plaintext of `bytes`, if `tag` is its tag under the list `ad`.
    pub(super) fn open(&self, ad: &[&[u8]], tag: [u8; 16], bytes: &[u8]) -> Result<Vec<u8>, OpenError> {
        let mut plain = bytes.to_vec();
        self.run(|siv| siv.decrypt_inout_detached(ad, plain.as_mut_slice().into(), &tag.into()))
            .map_err(|_| OpenError::Damaged)?;
        Ok(plain)
    }

    fn run<R>(&self, call: impl FnOnce(&mut Aes256Siv) -> R) -> R {
        let result = self.run_below(call);
        // The crate wipes what it holds, but not what it has moved.
        scrub_stack::<CALL_STACK_BYTES>();
        result
    }

    /// In a stack frame of its own, to be scrubbed.
    #[inline(never)]
    fn run_below<R>(&self, call: impl FnOnce(&mut Aes256Siv) -> R) -> R {
        call(&mut Aes256Siv::new(self.0.expose().into()))
    }
}

#[cfg(test)]
mod tests {
    use aes_siv::siv::Aes128Siv;
    use data_encoding::HEXLOWER;

    use super::*;

    fn hex(text: &str) -> Vec<u8> {
        HEXLOWER.decode(text.as_bytes()).unwrap()
    }

    /// The RFC has vectors for 256-bit keys only: they check the crate's S2V and CTR, which AES-256-SIV shares.
    #[test]
    fn siv_gives_what_rfc_5297_says() {
        for (key, ad, plain, tag, cipher) in [
            (
                "fffefdfcfbfaf9f8f7f6f5f4f3f2f1f0f0f1f2f3f4f5f6f7f8f9fafbfcfdfeff",
                vec!["101112131415161718191a1b1c1d1e1f2021222324252627"],
                "112233445566778899aabbccddee",
                "85632d07c6e8f37f950acd320a2ecc93",
                "40c02b9690c4dc04daef7f6afe5c",
            ),
            (
                "7f7e7d7c7b7a79787776757473727170404142434445464748494a4b4c4d4e4f",
                vec![
                    "00112233445566778899aabbccddeeffdeaddadadeaddadaffeeddccbbaa99887766554433221100",
                    "102030405060708090a0",
                    "09f911029d74e35bd84156c5635688c0",
                ],
                "7468697320697320736f6d6520706c61696e7465787420746f20656e6372797074207573696e67205349562d414553",
                "7bdb6e3b432667eb06f4d14bff2fbd0f",
                "cb900f2fddbe404326601965c889bf17dba77ceb094fa663b7a3f748ba8af829ea64ad544a272e9c485b62a3fd5c0d",
            ),
        ] {
            let mut siv = Aes128Siv::new_from_slice(&hex(key)).unwrap();
            let ad: Vec<_> = ad.into_iter().map(hex).collect();
            let mut bytes = hex(plain);
            let got = siv.encrypt_inout_detached(&ad, bytes.as_mut_slice().into()).unwrap();
            assert_eq!((got.to_vec(), bytes.clone()), (hex(tag), hex(cipher)));
            siv.decrypt_inout_detached(&ad, bytes.as_mut_slice().into(), &got).unwrap();
            assert_eq!(bytes, hex(plain));
        }
    }

    #[test]
    fn any_altered_bit_is_refused() {
        let siv = Siv::new(Key::from_bytes([9; 64]));
        let (tag, bytes) = siv.seal(&[b"one", b"two"], b"a name");
        assert_eq!(siv.open(&[b"one", b"tw"], tag, &bytes), Err(OpenError::Damaged));
        assert_eq!(siv.open(&[b"one"], tag, &bytes), Err(OpenError::Damaged));
        assert_eq!(siv.open(&[b"one", b"two"], tag, &bytes[1..]), Err(OpenError::Damaged));
        for bit in 0..8 * (16 + bytes.len()) {
            let (mut tag, mut bytes) = (tag, bytes.clone());
            match bit / 8 {
                at @ 0..16 => tag[at] ^= 1 << (bit % 8),
                at => bytes[at - 16] ^= 1 << (bit % 8),
            }
            assert_eq!(siv.open(&[b"one", b"two"], tag, &bytes), Err(OpenError::Damaged));
        }
    }
}
