//! The key of a slot, from its factors, and what it wraps (`docs/FORMAT.md`, "Slots").

use zeroize::Zeroizing;

use super::derive::{
    factor_digest, length_prefixed, slot_commitment, slot_key as derive_slot_key, slot_wrap_key,
};
use super::label::Label;
use super::siv::Siv;
use super::{Epoch, KdfError, Key, OpenError, ScryptParams, Secret, equal};
use crate::base::VolumeId;

/// Bytes of a wrapped 32-byte key: SIV tag and ciphertext.
pub const WRAPPED_BYTES: usize = 48;

/// What kind of secret a factor is. The number enters the slot's key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum FactorKind {
    /// Stretched by scrypt.
    Passphrase = 1,
    /// The bytes of a file.
    KeyFile = 2,
    /// 160 random bits, printed once.
    RecoveryCode = 3,
}

/// One factor: its kind and its secret, a recovery code as its 20 bytes.
pub type FactorSecret<'a> = (FactorKind, &'a Secret);

/// Everything about a slot that its key is bound to. To change any of it is to make another key.
#[derive(Clone, Copy, Debug)]
pub struct SlotContext<'a> {
    /// The volume.
    pub volume: VolumeId,
    /// Epoch of the volume key that the slot wraps.
    pub epoch: Epoch,
    /// Number of the slot in its header.
    pub slot: u32,
    /// 1: opens the data; 2: may change the header too.
    pub role: u8,
    /// Drawn anew whenever something is wrapped.
    pub salt: &'a [u8; 32],
    /// The cost of its passphrases, if it has any.
    pub kdf: Option<ScryptParams>,
    /// Who signs this header. Bound here so that nobody who merely reads the volume can put his own in its place.
    pub admin_public_key: &'a [u8; 32],
}

impl SlotContext<'_> {
    pub(super) fn bytes(&self) -> Vec<u8> {
        let (n, r, p) = self.kdf.map_or((0, 0, 0), |kdf| (kdf.n(), kdf.r(), kdf.p()));
        length_prefixed(&[
            &self.volume.0,
            &self.epoch.0.to_be_bytes(),
            &self.slot.to_be_bytes(),
            &[self.role],
            self.salt,
            &n.to_be_bytes(),
            &r.to_be_bytes(),
            &p.to_be_bytes(),
            self.admin_public_key,
        ])
    }
}

/// The key of one slot: it shows its commitment, wraps and unwraps.
pub struct SlotKey {
    wrap: Siv,
    commitment: [u8; 32],
    context: Vec<u8>,
}

/// Derives a slot's key from its factors, in order. Runs scrypt once for each passphrase.
///
/// # Errors
/// [`KdfError::NoMemory`]; a passphrase where the slot names no cost is [`KdfError::OutOfRange`].
pub fn slot_key(factors: &[FactorSecret<'_>], slot: &SlotContext<'_>) -> Result<SlotKey, KdfError> {
    let mut list = Zeroizing::new(Vec::with_capacity(factors.len() * 33));
    for (position, (kind, secret)) in (0_u8..).zip(factors) {
        let digest = match kind {
            FactorKind::Passphrase => {
                let no_cost = KdfError::OutOfRange { parameter: "N", found: 0, accepted: "given" };
                slot.kdf.ok_or(no_cost)?.stretch(secret, &[&slot.salt[..], &[position]].concat())?
            }
            FactorKind::KeyFile => factor_digest(Label::KeyFile, secret.expose()),
            FactorKind::RecoveryCode => factor_digest(Label::RecoveryCode, secret.expose()),
        };
        list.push(*kind as u8);
        list.extend_from_slice(digest.expose());
    }
    let key = derive_slot_key(&list, slot);
    Ok(SlotKey {
        wrap: Siv::new(slot_wrap_key(&key, slot.salt)),
        commitment: slot_commitment(&key, slot.salt),
        context: slot.bytes(),
    })
}

impl SlotKey {
    /// The commitment to state beside what is wrapped.
    #[must_use]
    pub const fn commitment(&self) -> [u8; 32] {
        self.commitment
    }

    /// Whether this is the key that `commitment` was stated for, compared in constant time. To be asked
    /// before anything is unwrapped.
    #[must_use]
    pub fn commits_to(&self, commitment: &[u8; 32]) -> bool {
        equal(&self.commitment, commitment)
    }

    /// Wraps `key`. `what` keeps one wrapped key from passing for another.
    #[must_use]
    pub fn wrap(&self, what: &str, key: &Key<32>) -> [u8; WRAPPED_BYTES] {
        let (tag, bytes) = self.wrap.seal(&self.associated(what), key.expose());
        let mut out = [0; WRAPPED_BYTES];
        out.iter_mut().zip(tag.iter().chain(&bytes)).for_each(|(to, from)| *to = *from);
        out
    }

    /// Unwraps what [`SlotKey::wrap`] gave for the same `what`.
    ///
    /// # Errors
    /// [`OpenError::Damaged`].
    pub fn unwrap(&self, what: &str, wrapped: &[u8; WRAPPED_BYTES]) -> Result<Key<32>, OpenError> {
        let (tag, bytes) = wrapped.split_first_chunk::<16>().ok_or(OpenError::Damaged)?;
        let plain = Zeroizing::new(self.wrap.open(&self.associated(what), *tag, bytes)?);
        let plain: &[u8; 32] = plain.as_slice().try_into().map_err(|_| OpenError::Damaged)?;
        Ok(Key::filled(|out| *out = *plain))
    }

    fn associated<'a>(&'a self, what: &'a str) -> [&'a [u8]; 3] {
        [Label::SlotWrap.bytes(), what.as_bytes(), &self.context]
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    const SLOT: SlotContext<'_> = SlotContext {
        volume: VolumeId([1; 16]),
        epoch: Epoch(1),
        slot: 0,
        role: 2,
        salt: &[2; 32],
        kdf: None,
        admin_public_key: &[3; 32],
    };

    fn key_of(factors: &[FactorSecret<'_>], slot: &SlotContext<'_>) -> SlotKey {
        slot_key(factors, slot).unwrap()
    }

    #[test]
    fn a_slot_key_binds_its_factors_their_order_and_its_whole_context() {
        let (a, b) = (Secret::from("a"), Secret::from("b"));
        let file = |secret| (FactorKind::KeyFile, secret);
        let lists: [Vec<FactorSecret<'_>>; 5] = [
            vec![file(&a)],
            vec![file(&b)],
            vec![file(&a), file(&b)],
            vec![file(&b), file(&a)],
            vec![(FactorKind::RecoveryCode, &a)],
        ];
        let slots = [
            SlotContext { volume: VolumeId([9; 16]), ..SLOT },
            SlotContext { epoch: Epoch(2), ..SLOT },
            SlotContext { slot: 1, ..SLOT },
            SlotContext { role: 1, ..SLOT },
            SlotContext { salt: &[9; 32], ..SLOT },
            SlotContext { kdf: Some(ScryptParams::FLOOR), ..SLOT },
            SlotContext { admin_public_key: &[9; 32], ..SLOT },
        ];
        let keys = lists.iter().map(|factors| key_of(factors, &SLOT));
        let keys = keys.chain(slots.iter().map(|slot| key_of(&lists[0], slot)));
        let commitments: HashSet<_> = keys.map(|key| key.commitment()).collect();
        assert_eq!(commitments.len(), lists.len() + slots.len());
    }

    #[test]
    fn a_wrapped_key_opens_by_its_slot_for_its_purpose() {
        let secret = Secret::from("a");
        let key = key_of(&[(FactorKind::KeyFile, &secret)], &SLOT);
        let wrapped = key.wrap("vmk", &Key::from_bytes([5; 32]));
        assert_eq!(key.unwrap("vmk", &wrapped).unwrap().expose(), &[5; 32]);
        assert!(key.unwrap("admin-key", &wrapped).is_err());
        let other = key_of(&[(FactorKind::KeyFile, &secret)], &SlotContext { slot: 1, ..SLOT });
        assert!(!other.commits_to(&key.commitment()));
        assert!(other.unwrap("vmk", &wrapped).is_err());
    }

    #[test]
    fn a_passphrase_needs_a_cost() {
        let secret = Secret::from("a");
        assert!(slot_key(&[(FactorKind::Passphrase, &secret)], &SLOT).is_err());
    }
}
