//! The admin key: an Ed25519 key that signs volume headers, rollbacks that are accepted, and the key that follows it.

use aws_lc_rs::signature::{ED25519, Ed25519KeyPair, KeyPair, UnparsedPublicKey};

use super::derive::length_prefixed;
use super::label::Label;
use super::{Key, cannot_fail};
use crate::base::Entropy;

/// Bytes of a signature.
pub const SIGNATURE_BYTES: usize = 64;

/// The public half of a volume's admin key.
pub type AdminPublicKey = [u8; 32];

/// The private half: who holds it may change the header.
#[derive(Debug)]
pub struct AdminKey {
    seed: Key<32>,
    public: AdminPublicKey,
}

impl AdminKey {
    /// Draws a new key.
    pub fn random(entropy: &dyn Entropy) -> Self {
        Self::from_seed(Key::random(entropy))
    }

    /// The key that grows from `seed` (RFC 8032).
    #[must_use]
    pub fn from_seed(seed: Key<32>) -> Self {
        let mut public = [0; 32];
        let pair = pair(&seed);
        public.iter_mut().zip(pair.public_key().as_ref()).for_each(|(to, from)| *to = *from);
        Self { seed, public }
    }

    /// What a slot wraps.
    #[must_use]
    pub const fn seed(&self) -> &Key<32> {
        &self.seed
    }

    /// The public half.
    #[must_use]
    pub const fn public(&self) -> &AdminPublicKey {
        &self.public
    }

    /// Signs the bytes of a header.
    #[must_use]
    pub fn sign_header(&self, bytes: &[u8]) -> [u8; SIGNATURE_BYTES] {
        self.sign(&message(Label::HeaderSignature, &[bytes]))
    }

    /// Signs that a rollback is accepted, told by `parts`.
    #[must_use]
    pub fn sign_acceptance(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
        self.sign(&message(Label::Acceptance, parts))
    }

    /// Signs that another key takes this one's place, told by `parts`.
    #[must_use]
    pub fn sign_succession(&self, parts: &[&[u8]]) -> [u8; SIGNATURE_BYTES] {
        self.sign(&message(Label::Succession, parts))
    }

    fn sign(&self, message: &[u8]) -> [u8; SIGNATURE_BYTES] {
        let signature = pair(&self.seed).sign(message);
        cannot_fail(signature.as_ref().try_into(), "an Ed25519 signature has 64 bytes")
    }
}

/// Whether `signature` is that of `key`'s holder over the bytes of a header.
#[must_use]
pub fn verify_header(key: &AdminPublicKey, bytes: &[u8], signature: &[u8]) -> bool {
    verify(key, &message(Label::HeaderSignature, &[bytes]), signature)
}

/// Whether `signature` is that of `key`'s holder over the rollback told by `parts`.
#[must_use]
pub fn verify_acceptance(key: &AdminPublicKey, parts: &[&[u8]], signature: &[u8]) -> bool {
    verify(key, &message(Label::Acceptance, parts), signature)
}

/// Whether `signature` is that of `key`'s holder over the succession told by `parts`.
#[must_use]
pub fn verify_succession(key: &AdminPublicKey, parts: &[&[u8]], signature: &[u8]) -> bool {
    verify(key, &message(Label::Succession, parts), signature)
}

fn verify(key: &AdminPublicKey, message: &[u8], signature: &[u8]) -> bool {
    UnparsedPublicKey::new(&ED25519, key).verify(message, signature).is_ok()
}

fn pair(seed: &Key<32>) -> Ed25519KeyPair {
    cannot_fail(Ed25519KeyPair::from_seed_unchecked(seed.expose()), "any 32 bytes are an Ed25519 seed")
}

/// The label keeps this signature from passing for one over anything else.
fn message(label: Label, parts: &[&[u8]]) -> Vec<u8> {
    [label.bytes(), &length_prefixed(parts)].concat()
}

#[cfg(test)]
mod tests {
    use data_encoding::HEXLOWER;

    use super::*;

    #[test]
    fn ed25519_gives_what_rfc_8032_says() {
        // Section 7.1, test 1: the empty message.
        let seed =
            HEXLOWER.decode(b"9d61b19deffd5a60ba844af492ec2cc44449c5697b326919703bac031cae7f60").unwrap();
        let key = AdminKey::from_seed(Key::from_bytes(seed.try_into().unwrap()));
        assert_eq!(
            HEXLOWER.encode(key.public()),
            "d75a980182b10ab7d54bfed3c964073a0ee172f3daa62325af021a68f707511a"
        );
        assert_eq!(
            HEXLOWER.encode(pair(&key.seed).sign(b"").as_ref()),
            "e5564300c360ac729086e2cc806e828a84877f1eb8e5d974d873e065224901555fb8821590a33bacc61e39701cf9b46bd25bf5f0595bbe24655141438e7a100b"
        );
    }

    #[test]
    fn a_signature_is_of_one_key_and_one_text() {
        let key = AdminKey::from_seed(Key::from_bytes([1; 32]));
        let other = AdminKey::from_seed(Key::from_bytes([2; 32]));
        let signature = key.sign_header(b"header");
        assert!(verify_header(key.public(), b"header", &signature));
        assert!(!verify_header(key.public(), b"headex", &signature));
        assert!(!verify_header(other.public(), b"header", &signature));
        assert!(!verify_header(key.public(), b"header", &signature[..63]));
    }

    #[test]
    fn a_signed_header_is_no_accepted_rollback_and_a_rollback_no_other() {
        let key = AdminKey::from_seed(Key::from_bytes([1; 32]));
        let header = key.sign_header(b"x");
        assert!(!verify_acceptance(key.public(), &[b"x"], &header));
        let accepted = key.sign_acceptance(&[b"ab", b"c"]);
        assert!(verify_acceptance(key.public(), &[b"ab", b"c"], &accepted));
        assert!(!verify_acceptance(key.public(), &[b"a", b"bc"], &accepted));
        assert!(!verify_header(key.public(), b"ab", &accepted));
        let succession = key.sign_succession(&[b"ab", b"c"]);
        assert!(verify_succession(key.public(), &[b"ab", b"c"], &succession));
        assert!(!verify_succession(key.public(), &[b"ab", b"c"], &accepted));
        assert!(!verify_acceptance(key.public(), &[b"ab", b"c"], &succession));
    }
}
