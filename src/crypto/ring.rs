//! The working keys of one volume: the newest epoch seals, every known epoch opens.

use std::fmt;

use super::derive::{length, mac, object_key, working_key};
use super::head::{ObjectHead, ObjectKind, SUITE_AES_256_GCM};
use super::hedge::Hedge;
use super::label::Label;
use super::siv::Siv;
use super::{Key, ObjectKey, OpenError, equal};
use crate::base::{Entropy, VolumeId};

/// The volume master key of one epoch.
pub type Vmk = Key<32>;

/// A generation of the volume key, counted from 1. Objects name theirs in 16 bits: 65,535 is the last.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(pub u32);

impl Epoch {
    /// The epoch of a new volume.
    pub const FIRST: Self = Self(1);
    /// The last epoch that an object can name.
    pub const LAST: Self = Self(u16::MAX as u32);

    /// As an object's head names it.
    pub(super) fn short(self) -> u16 {
        u16::try_from(self.0).unwrap_or(u16::MAX)
    }
}

/// Which key a MAC is made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MacLabel {
    /// The volume header.
    Header,
    /// Commit records.
    Commit,
    /// This device's local pin.
    Pin,
}

/// Working keys of one volume: the newest epoch plus retired ones, which only open what they sealed.
pub struct KeyRing {
    volume: VolumeId,
    newest: EpochKeys,
    retired: Vec<EpochKeys>,
    hedge: Hedge,
}

pub(super) struct EpochKeys {
    epoch: Epoch,
    content: Key<32>,
    meta: Key<32>,
    audit: Key<32>,
    rescue: Key<32>,
    cache: Key<32>,
    salt: Key<32>,
    header_mac: Key<32>,
    commit_mac: Key<32>,
    pin: Key<32>,
    pub(super) name: Siv,
    pub(super) object_name: Siv,
}

impl EpochKeys {
    fn new(volume: VolumeId, epoch: Epoch, vmk: &Vmk) -> Self {
        let key = |label| working_key::<32>(vmk, volume, label);
        Self {
            epoch,
            content: key(Label::Content),
            meta: key(Label::Meta),
            audit: key(Label::Audit),
            rescue: key(Label::Rescue),
            cache: key(Label::Cache),
            salt: key(Label::Salt),
            header_mac: key(Label::HeaderMac),
            commit_mac: key(Label::CommitMac),
            pin: key(Label::Pin),
            name: Siv::new(working_key(vmk, volume, Label::Name)),
            object_name: Siv::new(working_key(vmk, volume, Label::ObjectName)),
        }
    }

    const fn kind_key(&self, kind: ObjectKind) -> &Key<32> {
        match kind {
            ObjectKind::Segment => &self.content,
            ObjectKind::Meta => &self.meta,
            ObjectKind::Audit => &self.audit,
            ObjectKind::Rescue => &self.rescue,
        }
    }
}

impl KeyRing {
    /// The ring of `volume` with one epoch, at most [`Epoch::LAST`].
    #[must_use]
    pub fn new(volume: VolumeId, epoch: Epoch, vmk: &Vmk) -> Self {
        debug_assert!(epoch >= Epoch::FIRST && epoch <= Epoch::LAST);
        Self { volume, newest: EpochKeys::new(volume, epoch, vmk), retired: Vec::new(), hedge: Hedge::live() }
    }

    /// Adds older epochs, which open but never seal.
    #[must_use]
    pub fn with_retired(mut self, retired: &[(Epoch, Vmk)]) -> Self {
        let keys = retired.iter().map(|(epoch, vmk)| EpochKeys::new(self.volume, *epoch, vmk));
        self.retired.extend(keys);
        self
    }

    /// Makes salts follow from the given entropy alone. For tests and simulation: it takes away
    /// what keeps keys apart when the randomness repeats.
    #[must_use]
    pub fn with_repeating_salts(mut self, process: [u8; 16]) -> Self {
        self.hedge = Hedge::repeating(process);
        self
    }

    /// The volume these keys are of.
    #[must_use]
    pub const fn volume(&self) -> VolumeId {
        self.volume
    }

    /// The epoch that seals.
    #[must_use]
    pub const fn epoch(&self) -> Epoch {
        self.newest.epoch
    }

    /// Head and key of a new object called `name`.
    pub fn new_object(
        &self,
        kind: ObjectKind,
        name: &[u8],
        entropy: &dyn Entropy,
    ) -> (ObjectHead, ObjectKey) {
        let salt = self.hedge.salt(&self.newest.salt, entropy, &[&[kind as u8], name]);
        let epoch = self.newest.epoch.short();
        let (key, commitment) = self.object(&self.newest, kind, name, &salt);
        (ObjectHead { kind, suite: SUITE_AES_256_GCM, epoch, salt, commitment }, key)
    }

    /// The key of the object called `name`, if `head` was made for it. The commitment is compared, in
    /// constant time, before the key is handed out.
    ///
    /// # Errors
    /// Another kind, an unknown suite or epoch; [`OpenError::WrongKey`] for another volume, name, salt or key.
    pub fn open_object(
        &self,
        kind: ObjectKind,
        name: &[u8],
        head: &ObjectHead,
    ) -> Result<ObjectKey, OpenError> {
        if head.kind != kind {
            return Err(OpenError::WrongKind { found: head.kind as u8 });
        }
        if head.suite != SUITE_AES_256_GCM {
            return Err(OpenError::UnknownSuite(head.suite));
        }
        let keys = self.epochs().find(|keys| keys.epoch.short() == head.epoch);
        let keys = keys.ok_or(OpenError::UnknownEpoch(head.epoch))?;
        let (key, commitment) = self.object(keys, kind, name, &head.salt);
        if equal(&commitment, &head.commitment) { Ok(key) } else { Err(OpenError::WrongKey) }
    }

    /// The newest epoch's key for what this device keeps on its own disk.
    #[must_use]
    pub const fn cache_key(&self) -> &Key<32> {
        &self.newest.cache
    }

    /// HMAC-SHA-256 of `parts`, each behind its length, under one of the newest epoch's MAC keys.
    #[must_use]
    pub fn mac(&self, label: MacLabel, parts: &[&[u8]]) -> [u8; 32] {
        let key = match label {
            MacLabel::Header => &self.newest.header_mac,
            MacLabel::Commit => &self.newest.commit_mac,
            MacLabel::Pin => &self.newest.pin,
        };
        let lengths: Vec<_> = parts.iter().map(|part| length(part)).collect();
        let tag = mac(key.expose(), lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]));
        let mut out = [0; 32];
        out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
        out
    }

    /// Whether `found` is the MAC of `parts`, compared in constant time.
    #[must_use]
    pub fn verify_mac(&self, label: MacLabel, parts: &[&[u8]], found: &[u8]) -> bool {
        equal(&self.mac(label, parts), found)
    }

    /// The newest epoch's keys.
    pub(super) const fn newest(&self) -> &EpochKeys {
        &self.newest
    }

    /// All epochs, newest first.
    pub(super) fn epochs(&self) -> impl Iterator<Item = &EpochKeys> {
        std::iter::once(&self.newest).chain(&self.retired)
    }

    fn object(
        &self,
        keys: &EpochKeys,
        kind: ObjectKind,
        name: &[u8],
        salt: &[u8; 24],
    ) -> (ObjectKey, [u8; 32]) {
        let binding = (SUITE_AES_256_GCM, keys.epoch.short(), kind as u8);
        let okm = object_key(keys.kind_key(kind), salt, binding, self.volume, name);
        let (key, rest) = okm.expose().split_at(32);
        let mut commitment = [0; 32];
        commitment.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        (ObjectKey::new(key), commitment)
    }
}

impl fmt::Debug for KeyRing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("KeyRing").field("volume", &self.volume).field("epoch", &self.epoch()).finish()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{OsEntropy, SeededEntropy};

    const VOLUME: VolumeId = VolumeId([0xA0; 16]);

    fn ring() -> KeyRing {
        KeyRing::new(VOLUME, Epoch(1), &Key::from_bytes([1; 32]))
    }

    #[test]
    fn an_object_opens_only_under_its_volume_kind_and_name() {
        let ring = ring();
        let (head, key) = ring.new_object(ObjectKind::Segment, b"d/00/a", &OsEntropy);
        let mut piece = b"plain".to_vec();
        key.seal_piece(0, true, &mut piece);
        let opened = ring.open_object(ObjectKind::Segment, b"d/00/a", &head).unwrap();
        assert_eq!(opened.open_piece(0, true, &mut piece).unwrap(), b"plain");

        let open = |kind, name: &[u8]| ring.open_object(kind, name, &head).map(drop);
        assert_eq!(open(ObjectKind::Segment, b"d/00/b"), Err(OpenError::WrongKey));
        assert_eq!(open(ObjectKind::Meta, b"d/00/a"), Err(OpenError::WrongKind { found: 1 }));
        let moved = ObjectHead { kind: ObjectKind::Meta, ..head };
        let refused = ring.open_object(ObjectKind::Meta, b"d/00/a", &moved).map(drop);
        assert_eq!(refused, Err(OpenError::WrongKey));
        let foreign = KeyRing::new(VolumeId([0xA1; 16]), Epoch(1), &Key::from_bytes([1; 32]));
        let refused = foreign.open_object(ObjectKind::Segment, b"d/00/a", &head).map(drop);
        assert_eq!(refused, Err(OpenError::WrongKey));
    }

    #[test]
    fn any_altered_bit_of_a_head_is_refused() {
        let ring = ring();
        let (head, _) = ring.new_object(ObjectKind::Meta, b"m/x", &SeededEntropy::new(1));
        for bit in 0..8 * crate::crypto::HEAD_BYTES {
            let mut bytes = head.encode();
            bytes[bit / 8] ^= 1 << (bit % 8);
            let opened =
                ObjectHead::decode(&bytes).and_then(|head| ring.open_object(ObjectKind::Meta, b"m/x", &head));
            assert!(opened.is_err(), "bit {bit}");
        }
    }

    #[test]
    fn a_retired_epoch_opens_and_an_unknown_one_is_named() {
        let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let before = KeyRing::new(VOLUME, Epoch(1), &old);
        let (head, _) = before.new_object(ObjectKind::Segment, b"x", &OsEntropy);
        let after = KeyRing::new(VOLUME, Epoch(2), &new);
        let refused = after.open_object(ObjectKind::Segment, b"x", &head).map(drop);
        assert_eq!(refused, Err(OpenError::UnknownEpoch(1)));
        let after = after.with_retired(&[(Epoch(1), old)]);
        assert!(after.open_object(ObjectKind::Segment, b"x", &head).is_ok());
        assert_eq!(after.new_object(ObjectKind::Segment, b"x", &OsEntropy).0.epoch, 2);
        // An old object relabelled with the new epoch is not the new epoch's.
        let relabelled = ObjectHead { epoch: 2, ..head };
        assert!(after.open_object(ObjectKind::Segment, b"x", &relabelled).is_err());
    }

    #[test]
    fn macs_differ_by_label_and_by_the_borders_between_parts() {
        let ring = ring();
        let mac = ring.mac(MacLabel::Commit, &[b"ab", b"c"]);
        assert!(ring.verify_mac(MacLabel::Commit, &[b"ab", b"c"], &mac));
        assert!(!ring.verify_mac(MacLabel::Commit, &[b"a", b"bc"], &mac));
        assert!(!ring.verify_mac(MacLabel::Pin, &[b"ab", b"c"], &mac));
        assert!(!ring.verify_mac(MacLabel::Header, &[b"ab", b"c"], &mac));
        assert!(!ring.verify_mac(MacLabel::Commit, &[b"ab", b"c"], &mac[..31]));
    }
}
