//! The working keys of one volume: the newest epoch seals, and those that are believed open.

use std::fmt;

use super::derive::{length, mac, object_key, working_key};
use super::head::{ObjectHead, ObjectKind, SUITE_AES_256_GCM};
use super::hedge::Hedge;
use super::label::Label;
use super::siv::Siv;
use super::{Key, ObjectKey, OpenError, cannot_fail, equal};
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

/// Working keys of one volume: the newest epoch seals; earlier ones open what they sealed, as far as that is still
/// believed; and some keys are those of the first epoch for good (`docs/FORMAT.md`, "Key epochs").
pub struct KeyRing {
    volume: VolumeId,
    newest: EpochKeys,
    earlier: Vec<EpochKeys>,
    /// The oldest epoch whose objects are believed.
    floor: Epoch,
    lifelong: Lifelong,
    cache: Key<32>,
    salt: Key<32>,
    hedge: Hedge,
}

/// Keys that are those of the first epoch for as long as the volume lives: what is made with them lies in sealed
/// objects, whose keys change, or hides names of the record engine's own.
pub(super) struct Lifelong {
    pub(super) name: Siv,
    pub(super) object_name: Siv,
    commit_mac: Key<32>,
}

impl Lifelong {
    fn of(volume: VolumeId, first: &Vmk) -> Self {
        Self {
            name: Siv::new(working_key(first, volume, Label::Name)),
            object_name: Siv::new(working_key(first, volume, Label::ObjectName)),
            commit_mac: working_key(first, volume, Label::CommitMac),
        }
    }
}

/// What opens in one epoch.
struct EpochKeys {
    epoch: Epoch,
    /// None where nothing in the bucket is believed that was sealed with them.
    stored: Option<StoredKeys>,
    rescue: Key<32>,
    header_mac: Key<32>,
    pin: Key<32>,
}

/// Of the objects in the bucket.
struct StoredKeys {
    content: Key<32>,
    meta: Key<32>,
    audit: Key<32>,
}

impl EpochKeys {
    fn new(volume: VolumeId, epoch: Epoch, vmk: &Vmk, is_believed: bool) -> Self {
        let key = |label| working_key::<32>(vmk, volume, label);
        let stored = is_believed.then(|| StoredKeys {
            content: key(Label::Content),
            meta: key(Label::Meta),
            audit: key(Label::Audit),
        });
        Self {
            epoch,
            stored,
            rescue: key(Label::Rescue),
            header_mac: key(Label::HeaderMac),
            pin: key(Label::Pin),
        }
    }

    /// The key of a kind of object; none if such objects of this epoch are not believed.
    const fn kind_key(&self, kind: ObjectKind) -> Option<&Key<32>> {
        match (kind, &self.stored) {
            (ObjectKind::Rescue, _) => Some(&self.rescue),
            (_, None) => None,
            (ObjectKind::Segment, Some(stored)) => Some(&stored.content),
            (ObjectKind::Meta, Some(stored)) => Some(&stored.meta),
            (ObjectKind::Audit, Some(stored)) => Some(&stored.audit),
        }
    }
}

impl KeyRing {
    /// The ring of `volume` with one epoch, at most [`Epoch::LAST`].
    #[must_use]
    pub fn new(volume: VolumeId, epoch: Epoch, vmk: &Vmk) -> Self {
        debug_assert!(epoch >= Epoch::FIRST && epoch <= Epoch::LAST);
        Self {
            volume,
            newest: EpochKeys::new(volume, epoch, vmk, true),
            earlier: Vec::new(),
            floor: epoch,
            lifelong: Lifelong::of(volume, vmk),
            cache: working_key(vmk, volume, Label::Cache),
            salt: working_key(vmk, volume, Label::Salt),
            hedge: Hedge::live(),
        }
    }

    /// Adds all earlier epochs, from the first on. Objects in the bucket open from epoch `floor` on.
    #[must_use]
    pub fn with_earlier(mut self, earlier: &[(Epoch, Vmk)], floor: Epoch) -> Self {
        if let Some((_, first)) = earlier.first() {
            self.lifelong = Lifelong::of(self.volume, first);
        }
        let keys = |(epoch, vmk): &(Epoch, Vmk)| EpochKeys::new(self.volume, *epoch, vmk, *epoch >= floor);
        self.earlier = earlier.iter().map(keys).collect();
        self.floor = floor;
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

    /// The oldest epoch whose objects in the bucket are believed.
    #[must_use]
    pub const fn floor(&self) -> Epoch {
        self.floor
    }

    /// Whether what names this epoch in its head is sealed with the newest key.
    #[must_use]
    pub fn is_newest(&self, epoch: u16) -> bool {
        self.newest.epoch.short() == epoch
    }

    /// Head and key of a new object called `name`.
    pub fn new_object(
        &self,
        kind: ObjectKind,
        name: &[u8],
        entropy: &dyn Entropy,
    ) -> (ObjectHead, ObjectKey) {
        let salt = self.hedge.salt(&self.salt, entropy, &[&[kind as u8], name]);
        let epoch = self.newest.epoch.short();
        let key =
            cannot_fail(self.newest.kind_key(kind).ok_or(()), "the newest epoch has a key for all kinds");
        let (key, commitment) = self.object(key, epoch, kind, name, &salt);
        (ObjectHead { kind, suite: SUITE_AES_256_GCM, epoch, salt, commitment }, key)
    }

    /// The key of the object called `name`, if `head` was made for it. The commitment is compared, in
    /// constant time, before the key is handed out.
    ///
    /// # Errors
    /// Another kind or an unknown suite; an epoch that is newer than these keys, or whose objects are not believed any
    /// more; [`OpenError::WrongKey`] for another volume, name, salt or key.
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
        let (found, newest) = (head.epoch, self.newest.epoch.short());
        if found > newest {
            return Err(OpenError::NewerEpoch { found, newest });
        }
        let keys = self.epochs().find(|keys| keys.epoch.short() == found);
        let keys = keys.ok_or(OpenError::UnknownEpoch(found))?;
        let kind_key = keys.kind_key(kind).ok_or(OpenError::OldEpoch { found, floor: self.floor.short() })?;
        let (key, commitment) = self.object(kind_key, found, kind, name, &head.salt);
        if equal(&commitment, &head.commitment) { Ok(key) } else { Err(OpenError::WrongKey) }
    }

    /// The newest epoch's key for what this device keeps on its own disk.
    #[must_use]
    pub const fn cache_key(&self) -> &Key<32> {
        &self.cache
    }

    /// HMAC-SHA-256 of `parts`, each behind its length, under the volume's present key for such MACs.
    #[must_use]
    pub fn mac(&self, label: MacLabel, parts: &[&[u8]]) -> [u8; 32] {
        mac_of(self.mac_key(&self.newest, label), parts)
    }

    /// Whether `found` is the MAC of `parts` under the volume's present key, compared in constant time.
    #[must_use]
    pub fn verify_mac(&self, label: MacLabel, parts: &[&[u8]], found: &[u8]) -> bool {
        equal(&self.mac(label, parts), found)
    }

    /// As [`KeyRing::verify_mac`], under the keys of `epoch`; false if that is none.
    #[must_use]
    pub fn verify_mac_of(&self, epoch: Epoch, label: MacLabel, parts: &[&[u8]], found: &[u8]) -> bool {
        let keys = self.epochs().find(|keys| keys.epoch == epoch);
        keys.is_some_and(|keys| equal(&mac_of(self.mac_key(keys, label), parts), found))
    }

    /// As [`KeyRing::verify_mac`], under the keys of any epoch: for what this machine has kept from earlier ones.
    #[must_use]
    pub fn verify_mac_of_any(&self, label: MacLabel, parts: &[&[u8]], found: &[u8]) -> bool {
        self.epochs().any(|keys| equal(&mac_of(self.mac_key(keys, label), parts), found))
    }

    const fn mac_key<'a>(&'a self, keys: &'a EpochKeys, label: MacLabel) -> &'a Key<32> {
        match label {
            MacLabel::Header => &keys.header_mac,
            MacLabel::Commit => &self.lifelong.commit_mac,
            MacLabel::Pin => &keys.pin,
        }
    }

    /// The keys that never change.
    pub(super) const fn lifelong(&self) -> &Lifelong {
        &self.lifelong
    }

    /// All epochs, newest first.
    fn epochs(&self) -> impl Iterator<Item = &EpochKeys> {
        std::iter::once(&self.newest).chain(self.earlier.iter().rev())
    }

    fn object(
        &self,
        kind_key: &Key<32>,
        epoch: u16,
        kind: ObjectKind,
        name: &[u8],
        salt: &[u8; 24],
    ) -> (ObjectKey, [u8; 32]) {
        let okm = object_key(kind_key, salt, (SUITE_AES_256_GCM, epoch, kind as u8), self.volume, name);
        let (key, rest) = okm.expose().split_at(32);
        let mut commitment = [0; 32];
        commitment.iter_mut().zip(rest).for_each(|(to, from)| *to = *from);
        (ObjectKey::new(key), commitment)
    }
}

fn mac_of(key: &Key<32>, parts: &[&[u8]]) -> [u8; 32] {
    let lengths: Vec<_> = parts.iter().map(|part| length(part)).collect();
    let tag = mac(key.expose(), lengths.iter().zip(parts).flat_map(|(length, part)| [&length[..], part]));
    let mut out = [0; 32];
    out.iter_mut().zip(tag.as_ref()).for_each(|(to, from)| *to = *from);
    out
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
        let after = after.with_earlier(&[(Epoch(1), old)], Epoch(1));
        assert!(after.open_object(ObjectKind::Segment, b"x", &head).is_ok());
        let (newer, _) = after.new_object(ObjectKind::Segment, b"x", &OsEntropy);
        assert!(newer.epoch == 2 && after.is_newest(2) && !after.is_newest(1));
        // An old object relabelled with the new epoch is not the new epoch's.
        let relabelled = ObjectHead { epoch: 2, ..head };
        assert!(after.open_object(ObjectKind::Segment, b"x", &relabelled).is_err());
        let refused = before.open_object(ObjectKind::Segment, b"x", &newer).map(drop);
        assert_eq!(refused, Err(OpenError::NewerEpoch { found: 2, newest: 1 }));
    }

    #[test]
    fn below_the_floor_nothing_of_the_bucket_opens_and_what_this_machine_has_kept_does() {
        let vmk = |byte| Key::from_bytes([byte; 32]);
        let first = KeyRing::new(VOLUME, Epoch(1), &vmk(1));
        let ring = KeyRing::new(VOLUME, Epoch(3), &vmk(3))
            .with_earlier(&[(Epoch(1), vmk(1)), (Epoch(2), vmk(2))], Epoch(2));
        for kind in [ObjectKind::Segment, ObjectKind::Meta, ObjectKind::Audit] {
            let (head, _) = first.new_object(kind, b"x", &OsEntropy);
            let refused = ring.open_object(kind, b"x", &head).map(drop);
            assert_eq!(refused, Err(OpenError::OldEpoch { found: 1, floor: 2 }));
            let second = KeyRing::new(VOLUME, Epoch(2), &vmk(2)).new_object(kind, b"x", &OsEntropy).0;
            assert!(ring.open_object(kind, b"x", &second).is_ok());
        }
        let (head, _) = first.new_object(ObjectKind::Rescue, b"x", &OsEntropy);
        assert!(ring.open_object(ObjectKind::Rescue, b"x", &head).is_ok());
        let parts: &[&[u8]] = &[b"a pin"];
        let pin = first.mac(MacLabel::Pin, parts);
        assert!(
            ring.verify_mac_of_any(MacLabel::Pin, parts, &pin)
                && !ring.verify_mac(MacLabel::Pin, parts, &pin)
        );
        let header = first.mac(MacLabel::Header, parts);
        assert!(ring.verify_mac_of(Epoch(1), MacLabel::Header, parts, &header));
        assert!(!ring.verify_mac_of(Epoch(2), MacLabel::Header, parts, &header));
        assert!(!ring.verify_mac_of(Epoch(4), MacLabel::Header, parts, &header));
    }

    #[test]
    fn names_paths_and_the_chain_of_commits_keep_the_first_key() {
        let (old, new) = (Key::from_bytes([1; 32]), Key::from_bytes([2; 32]));
        let first = KeyRing::new(VOLUME, Epoch(1), &old);
        let alone = KeyRing::new(VOLUME, Epoch(2), &new);
        let ring = KeyRing::new(VOLUME, Epoch(2), &new).with_earlier(&[(Epoch(1), old)], Epoch(2));
        let name = crate::base::Name::new(b"a name").unwrap();
        let sealed = |ring: &KeyRing| ring.seal_name(crate::base::Ino(1), &name);
        assert!(sealed(&ring) == sealed(&first) && sealed(&ring) != sealed(&alone));
        assert_eq!(ring.seal_component("", "db"), first.seal_component("", "db"));
        let mac = |ring: &KeyRing, label| ring.mac(label, &[b"x"]);
        assert_eq!(mac(&ring, MacLabel::Commit), mac(&first, MacLabel::Commit));
        for label in [MacLabel::Header, MacLabel::Pin] {
            assert!(mac(&ring, label) == mac(&alone, label) && mac(&ring, label) != mac(&first, label));
        }
        assert_eq!(ring.cache_key().expose(), alone.cache_key().expose());
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
