//! A ciphertext that two keys open: what AES-GCM alone does not prevent, and the commitment does.

use aes::Aes256;
use aes::cipher::{BlockCipherEncrypt, KeyInit};
use coffer::base::VolumeId;
use coffer::base::{OsEntropy, SeededEntropy};
use coffer::crypto::{Epoch, Key, KeyRing, ObjectHead, ObjectKind};

/// An element of GF(2^128) as GCM writes it: the first bit is the coefficient of 1.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
struct Element(u128);

impl Element {
    const ONE: Self = Self(1 << 127);

    fn of(block: [u8; 16]) -> Self {
        Self(u128::from_be_bytes(block))
    }

    fn plus(self, other: Self) -> Self {
        Self(self.0 ^ other.0)
    }

    fn times(self, other: Self) -> Self {
        let (mut product, mut shifted) = (0, self.0);
        for bit in (0..128).rev() {
            if other.0 >> bit & 1 == 1 {
                product ^= shifted;
            }
            let carry = shifted & 1;
            shifted = shifted >> 1 ^ if carry == 1 { 0xE1 << 120 } else { 0 };
        }
        Self(product)
    }

    fn power(self, exponent: u128) -> Self {
        (0..128).rev().fold(Self::ONE, |power, bit| {
            let squared = power.times(power);
            if exponent >> bit & 1 == 1 { squared.times(self) } else { squared }
        })
    }

    /// Its inverse: the group has 2^128 - 1 elements.
    fn inverse(self) -> Self {
        self.power(u128::MAX - 1)
    }
}

fn encrypt(key: &[u8; 32], block: [u8; 16]) -> Element {
    let mut block = block.into();
    Aes256::new(&(*key).into()).encrypt_block(&mut block);
    Element::of(block.into())
}

/// GCM's tag of a ciphertext of whole blocks, without associated data, under a nonce of 12 zero bytes.
fn tag(key: &[u8; 32], blocks: &[Element]) -> Element {
    let hash_key = encrypt(key, [0; 16]);
    let length = Element(128 * blocks.len() as u128);
    let hash =
        blocks.iter().chain([&length]).fold(Element(0), |hash, block| hash.plus(*block).times(hash_key));
    let mut first = [0; 16];
    first[15] = 1;
    hash.plus(encrypt(key, first))
}

/// Ciphertext and tag that open under both keys. The last block solves the one linear equation that the two tags
/// are equal.
fn collide(keys: [&[u8; 32]; 2], blocks: usize) -> Vec<u8> {
    let mut text = vec![Element(0x0123_4567_89AB_CDEF); blocks];
    text[blocks - 1] = Element(0);
    let [one, two] = keys.map(|key| tag(key, &text));
    // The last block is multiplied by the square of the hash key in each tag.
    let [a, b] = keys.map(|key| encrypt(key, [0; 16]).power(2));
    text[blocks - 1] = one.plus(two).times(a.plus(b).inverse());
    let tags = keys.map(|key| tag(key, &text));
    assert_eq!(tags[0], tags[1]);
    text.iter().chain([&tags[0]]).flat_map(|element| element.0.to_be_bytes()).collect()
}

#[test]
fn a5_a_ciphertext_that_opens_under_two_keys_is_refused_at_its_commitment() {
    use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
    let keys = [[0x11; 32], [0x22; 32]];
    let both = collide([&keys[0], &keys[1]], 4);
    let opened = keys.map(|key| {
        let key = LessSafeKey::new(UnboundKey::new(&AES_256_GCM, &key).unwrap());
        let mut bytes = both.clone();
        key.open_in_place(Nonce::assume_unique_for_key([0; 12]), Aad::empty(), &mut bytes).unwrap().to_vec()
    });
    assert_ne!(opened[0], opened[1], "GCM itself opens it under both, to different plaintexts");

    // An object is opened only by a key that its head commits to, and a head commits to one.
    let ring = |seed| KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::random(&SeededEntropy::new(seed)));
    let (one, two) = (ring(1), ring(2));
    for kind in [ObjectKind::Segment, ObjectKind::Meta] {
        let (head, _) = one.new_object(kind, b"name", &OsEntropy);
        let object = [&head.encode()[..], &both].concat();
        let head = ObjectHead::decode(&object).unwrap();
        assert!(one.open_object(kind, b"name", &head).is_ok());
        assert!(two.open_object(kind, b"name", &head).is_err(), "the collision is never given to the cipher");
        assert!(one.open_object(kind, b"other", &head).is_err());
    }
}

/// What wraps keys in a slot is AES-SIV, for which nobody knows how to make such a text; what GCM would open under the
/// keys of two slots, neither takes, and neither is asked to before its commitment.
#[test]
fn a5_a_slot_whose_wrapped_key_gcm_would_open_under_two_keys_is_refused_by_both() {
    use coffer::crypto::{FactorKind, Secret, SlotContext, slot_key};
    let context = SlotContext {
        volume: VolumeId([1; 16]),
        epoch: Epoch::FIRST,
        slot: 0,
        role: 2,
        salt: &[3; 32],
        kdf: None,
        admin_public_key: &[4; 32],
    };
    let secrets = [Secret::from("one passphrase"), Secret::from("another passphrase")];
    let keys = secrets.each_ref().map(|secret| slot_key(&[(FactorKind::KeyFile, secret)], &context).unwrap());
    let digest = |secret: &Secret| {
        let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"coffer/1/key-file");
        aws_lc_rs::hmac::sign(&key, secret.expose())
    };
    // Any keys that follow from the factors serve: GCM binds its text to none of them.
    let gcm_keys = secrets.each_ref().map(|secret| <[u8; 32]>::try_from(digest(secret).as_ref()).unwrap());
    let blob: [u8; 48] = collide([&gcm_keys[0], &gcm_keys[1]], 2).try_into().unwrap();
    for (key, other) in [(&keys[0], &keys[1]), (&keys[1], &keys[0])] {
        assert!(key.commits_to(&key.commitment()) && !key.commits_to(&other.commitment()));
        assert!(key.unwrap("vmk", &blob).is_err() && key.unwrap("admin-key", &blob).is_err());
    }
}
