//! Key epochs: a new volume key and a new admin key, the succession that leads to them, and what is kept of those
//! before. (`docs/FORMAT.md`, "Key epochs")

use super::change::floor_of;
use super::factor::is_same;
use super::header::{EPOCHS_MAX, EarlierEpoch, Hex, KEY_EPOCHS, Role};
use super::slot::{self, Keys, Wanted};
use super::unlock::UNLOCK_STACK_BYTES;
use super::{Factor, Header, Identity, KeyError, Unlocked, frame};
use crate::base::{Entropy, Time, VolumeId};
use crate::crypto::{
    AdminKey, AdminPublicKey, Epoch, KdfCost, Key, KeyRing, Vmk, equal, scrub_stack, unwrap_earlier,
    verify_succession, vmk_commitment, wrap_earlier,
};

/// The least cost: slots that are made anew are stretched as they were.
const LEAST: KdfCost = KdfCost::Fixed { log_n: 15 };

impl Header {
    /// The oldest epoch whose objects are believed.
    #[must_use]
    pub fn floor(&self) -> Epoch {
        Epoch(self.floor.unwrap_or(self.epoch))
    }

    /// Whether the key was rotated, and objects of the epoch before are still believed.
    #[must_use]
    pub fn is_rotating(&self) -> bool {
        self.floor().0 < self.epoch
    }

    /// Whether this header is of the volume `seen`, whose newest header had `revision`, or follows from it by an
    /// unbroken succession.
    #[must_use]
    pub fn follows_from(&self, seen: &Identity, revision: u64) -> bool {
        let is_seen = |earlier: &EarlierEpoch| {
            (&earlier.admin_public_key.0, &earlier.vmk_commitment.0)
                == (&seen.admin_public_key, &seen.vmk_commitment)
                && earlier.next_revision > revision
        };
        self.volume == seen.volume && (self.identity() == *seen || self.earlier.iter().any(is_seen))
    }

    /// The admin keys whose word counts: this epoch's, and while a rotation is unfinished those it takes the place of.
    pub fn admin_keys(&self) -> impl Iterator<Item = &AdminPublicKey> {
        let before = usize::try_from(self.floor().0.saturating_sub(1)).unwrap_or(usize::MAX);
        let earlier = self.earlier.iter().skip(before).map(|earlier| &earlier.admin_public_key.0);
        earlier.chain(std::iter::once(&self.admin_public_key.0))
    }

    /// What the limits say of epochs. Nothing is computed.
    pub(super) fn check_epochs(&self) -> Result<(), KeyError> {
        let damaged = |what: &str| Err(KeyError::damaged(what));
        if self.features.is_empty() {
            return match (&self.floor, self.earlier.len()) {
                (None, 0) => Ok(()),
                _ => damaged("it has earlier key epochs and does not announce them"),
            };
        }
        if self.features.len() > 1 {
            return damaged("it announces a feature twice");
        }
        let count = u32::try_from(self.earlier.len()).unwrap_or(u32::MAX);
        if !(2..=EPOCHS_MAX).contains(&self.epoch) || count != self.epoch - 1 {
            return damaged("its number of key epochs");
        }
        if !self.floor.is_some_and(|floor| (1..=self.epoch).contains(&floor)) {
            return damaged("its oldest key epoch");
        }
        let revisions = self.earlier.iter().map(|earlier| earlier.next_revision);
        let is_ascending = revisions.clone().is_sorted_by(|a, b| a < b);
        let is_within = revisions.clone().all(|revision| (2..=self.revision).contains(&revision));
        if is_ascending && is_within { Ok(()) } else { damaged("the revisions of its key epochs") }
    }

    /// Whether each admin key has named the next.
    pub(super) fn check_succession(&self) -> Result<(), KeyError> {
        let next = self.earlier.iter().skip(1).map(|next| (&next.admin_public_key.0, &next.vmk_commitment.0));
        let next = next.chain(std::iter::once((&self.admin_public_key.0, &self.vmk_commitment.0)));
        for ((epoch, earlier), (admin, commitment)) in (1..).zip(&self.earlier).zip(next) {
            let succession = Succession {
                volume: self.volume,
                old_admin: &earlier.admin_public_key.0,
                new_admin: admin,
                epoch: Epoch(epoch + 1),
                revision: earlier.next_revision,
                commitment,
            };
            if !succession.is_signed(&earlier.succession.0) {
                return Err(KeyError::damaged(format!(
                    "the admin key of epoch {epoch} has not named the next"
                )));
            }
        }
        Ok(())
    }

    /// The volume keys of earlier epochs.
    pub(super) fn earlier_keys(&self, vmk: &Vmk) -> Result<Vec<(Epoch, Vmk)>, KeyError> {
        let newest = (Epoch(self.epoch), vmk);
        let open = |(epoch, earlier): (u32, &EarlierEpoch)| {
            let epoch = Epoch(epoch);
            let key = unwrap_earlier(newest, self.volume, epoch, &earlier.wrapped_vmk.0);
            let key = key.map_err(|_| KeyError::damaged(format!("its key of epoch {}", epoch.0)))?;
            let commitment = vmk_commitment(&key, self.volume, epoch);
            match equal(&commitment, &earlier.vmk_commitment.0) {
                true => Ok((epoch, key)),
                false => Err(KeyError::damaged(format!("its key of epoch {} is another", epoch.0))),
            }
        };
        (1..).zip(&self.earlier).map(open).collect()
    }
}

/// What one admin key says of the next.
struct Succession<'a> {
    volume: VolumeId,
    old_admin: &'a AdminPublicKey,
    new_admin: &'a AdminPublicKey,
    /// The epoch that begins.
    epoch: Epoch,
    /// The revision of the header that begins it.
    revision: u64,
    /// To its volume key.
    commitment: &'a [u8; 32],
}

impl Succession<'_> {
    fn with<T>(&self, use_parts: impl FnOnce(&[&[u8]]) -> T) -> T {
        let (epoch, revision) = (self.epoch.0.to_be_bytes(), self.revision.to_be_bytes());
        use_parts(&[&self.volume.0, self.old_admin, self.new_admin, &epoch, &revision, self.commitment])
    }

    fn is_signed(&self, signature: &[u8]) -> bool {
        self.with(|parts| verify_succession(self.old_admin, parts, signature))
    }
}

/// A header that begins a key epoch.
#[derive(Debug)]
pub struct NextEpoch {
    /// To be stored under its revision.
    pub bytes: Vec<u8>,
    /// What it says.
    pub header: Header,
    /// The working keys from then on.
    pub ring: KeyRing,
}

/// Neither of these changes `self`.
impl Unlocked {
    /// The header of a new key epoch, with a new volume key and a new admin key. Of the slots those stay for which
    /// `kept` has factors, which may be others than before; all others are gone. Passphrases are stretched as before,
    /// those of slots that had none by `kdf_cost`.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`], [`KeyError::Rotating`], [`KeyError::EpochsFull`], [`KeyError::LastAdminSlot`] if none
    /// would be left, [`KeyError::NoSuchSlot`], [`KeyError::OpensAlready`] for two that would open with the same, or
    /// factors that cannot make a slot.
    pub fn next_epoch(
        &self,
        kept: &[(u32, &[Factor])],
        kdf_cost: KdfCost,
        entropy: &dyn Entropy,
        now: Time,
    ) -> Result<NextEpoch, KeyError> {
        let admin = self.admin.as_ref().ok_or(KeyError::NotAdmin)?;
        let old = &self.header;
        if old.is_rotating() {
            return Err(KeyError::Rotating);
        }
        if old.epoch >= EPOCHS_MAX {
            return Err(KeyError::EpochsFull);
        }
        let (epoch, vmk, new_admin) = (Epoch(old.epoch + 1), Key::random(entropy), AdminKey::random(entropy));
        let keys = Keys { volume: self.volume, epoch, vmk: &vmk, admin: &new_admin };
        let mut slots = Vec::with_capacity(kept.len());
        for (place, (id, factors)) in kept.iter().enumerate() {
            for (before, same) in kept.iter().take(place) {
                if is_same(factors, same)? {
                    return Err(KeyError::OpensAlready(*before));
                }
            }
            let slot = old.slot(*id).ok_or(KeyError::NoSuchSlot(*id))?;
            let (kdf_cost, kdf_floor) = match slot.params()? {
                None => (kdf_cost, floor_of(&old.slots, kdf_cost)),
                before => (LEAST, before),
            };
            let wanted =
                Wanted { id: *id, label: &slot.label, role: slot.role, factors, kdf_cost, kdf_floor };
            slots.push(slot::make(keys, &wanted, entropy, now)?);
        }
        if !slots.iter().any(|slot| slot.role == Role::Admin) {
            return Err(KeyError::LastAdminSlot);
        }
        slots.sort_by_key(|slot| slot.id);
        let revision =
            old.revision.checked_add(1).ok_or(KeyError::NotTheNext { what: "revisions ran out" })?;
        let commitment = vmk_commitment(&vmk, self.volume, epoch);
        let (volume, old_admin, new_public) = (self.volume, admin.public(), new_admin.public());
        let succession =
            Succession { volume, old_admin, new_admin: new_public, epoch, revision, commitment: &commitment };
        let before = old.earlier_keys(&self.vmk)?;
        let wrap = |epoch: Epoch, key: &Vmk| Hex(wrap_earlier((keys.epoch, &vmk), volume, (epoch, key)));
        let mut earlier = old.earlier.clone();
        for (entry, (epoch, key)) in earlier.iter_mut().zip(&before) {
            entry.wrapped_vmk = wrap(*epoch, key);
        }
        earlier.push(EarlierEpoch {
            admin_public_key: Hex(*old_admin),
            vmk_commitment: old.vmk_commitment,
            wrapped_vmk: wrap(self.epoch, &self.vmk),
            next_revision: revision,
            succession: Hex(succession.with(|parts| admin.sign_succession(parts))),
        });
        let header = Header {
            features: vec![KEY_EPOCHS.to_owned()],
            epoch: epoch.0,
            revision,
            admin_public_key: Hex(*new_public),
            vmk_commitment: Hex(commitment),
            floor: Some(old.epoch),
            earlier,
            slots,
            ..old.clone()
        };
        let ring =
            KeyRing::new(volume, epoch, &vmk).with_earlier(&header.earlier_keys(&vmk)?, header.floor());
        let bytes = frame::write(&header, &ring, &new_admin)?;
        scrub_stack::<UNLOCK_STACK_BYTES>();
        Ok(NextEpoch { bytes, header, ring })
    }

    /// The header after which objects of earlier epochs are not believed any more.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`]; [`KeyError::NotTheNext`] if no rotation is under way.
    pub fn end_rotation(&self) -> Result<Vec<u8>, KeyError> {
        let admin = self.admin.as_ref().ok_or(KeyError::NotAdmin)?;
        if !self.header.is_rotating() {
            return Err(KeyError::NotTheNext { what: "no rotation of the key is under way" });
        }
        let revision = self.header.revision.checked_add(1);
        let revision = revision.ok_or(KeyError::NotTheNext { what: "revisions ran out" })?;
        let floor = Some(self.header.epoch);
        frame::write(&Header { revision, floor, ..self.header.clone() }, &self.ring, admin)
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLOOR, NOW, key_file, passphrase, volume};
    use super::super::{NewSlot, SLOTS_MAX, describe, is_genuine, unlock};
    use super::*;
    use crate::crypto::{MacLabel, ObjectKind, OpenError};

    /// The header after a rotation in which only the owner's slot stays, before the floor is raised and after.
    fn rotated(owner: &Unlocked, entropy: &dyn Entropy) -> (Vec<u8>, Vec<u8>) {
        let begun = owner.next_epoch(&[(0, &key_file("owner"))], FLOOR, entropy, NOW).unwrap().bytes;
        let unlocked = unlock(&begun, &key_file("owner")).unwrap();
        let ended = unlocked.end_rotation().unwrap();
        (begun, ended)
    }

    #[test]
    fn a_new_epoch_has_other_keys_and_opens_what_is_older_until_its_floor_is_raised() {
        let (first, code, owner, entropy) = volume(1);
        let (begun, ended) = rotated(&owner, &entropy);
        assert!(matches!(unlock(&begun, &[code.factor()]), Err(KeyError::NoSlotForFactors { .. })));
        let [old, middle, new] =
            [&first, &begun, &ended].map(|bytes| unlock(bytes, &key_file("owner")).unwrap());
        assert_eq!((middle.header.revision, new.header.revision), (2, 3));
        assert!(!old.header.is_rotating() && middle.header.is_rotating() && !new.header.is_rotating());
        assert_ne!(middle.header.identity().fingerprint(), old.header.identity().fingerprint());
        assert_eq!(middle.header.identity(), new.header.identity());
        let (head, _) = old.ring.new_object(ObjectKind::Segment, b"x", &entropy);
        assert!(middle.ring.open_object(ObjectKind::Segment, b"x", &head).is_ok());
        let refused = new.ring.open_object(ObjectKind::Segment, b"x", &head).map(drop);
        assert_eq!(refused, Err(OpenError::OldEpoch { found: 1, floor: 2 }));
        let (head, _) = middle.ring.new_object(ObjectKind::Segment, b"x", &entropy);
        assert!(new.ring.open_object(ObjectKind::Segment, b"x", &head).is_ok());
        let chain = |unlocked: &Unlocked| unlocked.ring.mac(MacLabel::Commit, &[b"x"]);
        assert!(chain(&old) == chain(&middle) && chain(&old) == chain(&new));
        for bytes in [&first, &begun, &ended] {
            assert!(is_genuine(bytes, &new.ring));
        }
        let again = middle.next_epoch(&[(0, &key_file("owner"))], FLOOR, &entropy, NOW).map(drop);
        assert_eq!(again, Err(KeyError::Rotating));
        assert!(matches!(new.end_rotation(), Err(KeyError::NotTheNext { .. })));
    }

    #[test]
    fn a_header_follows_from_what_was_seen_by_an_unbroken_succession_only() {
        let (first, _, owner, entropy) = volume(1);
        let (_, second) = rotated(&owner, &entropy);
        let unlocked = unlock(&second, &key_file("owner")).unwrap();
        let (_, third) = rotated(&unlocked, &entropy);
        let [old, middle, new] = [&first, &second, &third].map(|bytes| describe(bytes).unwrap());
        assert_eq!((new.epoch, new.earlier.len(), new.revision), (3, 2, 5));
        assert!(new.follows_from(&old.identity(), 1) && new.follows_from(&middle.identity(), 3));
        assert!(!old.follows_from(&new.identity(), 5) && !middle.follows_from(&new.identity(), 5));
        assert!(!new.follows_from(&old.identity(), 2), "then the old key signed a header after it had ended");
        // Another continuation by whoever holds the first admin key.
        let (_, _, again, _) = volume(1);
        let (_, forged) = rotated(&again, &crate::base::SeededEntropy::new(77));
        let forged = describe(&forged).unwrap();
        assert!(forged.follows_from(&old.identity(), 1), "who saw the old key only cannot know better");
        assert!(!forged.follows_from(&middle.identity(), 3) && !forged.follows_from(&new.identity(), 5));
    }

    #[test]
    fn a_succession_that_the_old_admin_key_has_not_signed_is_damage() {
        let (_, _, owner, entropy) = volume(1);
        let (_, ended) = rotated(&owner, &entropy);
        let unlocked = unlock(&ended, &key_file("owner")).unwrap();
        let (_, _, stranger, _) = volume(2);
        let with = |change: &dyn Fn(&mut Header)| {
            let mut header = unlocked.header.clone();
            change(&mut header);
            let bytes = frame::write(&header, &unlocked.ring, unlocked.admin.as_ref().unwrap()).unwrap();
            assert!(matches!(unlock(&bytes, &key_file("owner")), Err(KeyError::Damaged { .. })));
            assert!(matches!(describe(&bytes), Err(KeyError::Damaged { .. })));
        };
        with(&|header| header.earlier[0].succession.0[3] ^= 1);
        with(&|header| header.earlier[0].admin_public_key = stranger.header.admin_public_key);
        with(&|header| header.earlier[0].next_revision = 3);
        with(&|header| header.revision = 1);
        with(&|header| header.floor = Some(0));
        with(&|header| header.floor = Some(3));
        with(&|header| header.floor = None);
        with(&|header| header.features.clear());
        with(&|header| header.features = vec![KEY_EPOCHS.to_owned(); 2]);
        with(&|header| header.earlier.clear());
        with(&|header| header.epoch = 3);
        // What only a key shows.
        let mut header = unlocked.header.clone();
        header.earlier[0].wrapped_vmk.0[20] ^= 1;
        let bytes = frame::write(&header, &unlocked.ring, unlocked.admin.as_ref().unwrap()).unwrap();
        assert!(describe(&bytes).is_ok());
        assert!(matches!(unlock(&bytes, &key_file("owner")), Err(KeyError::Damaged { .. })));
    }

    #[test]
    fn slots_stay_with_their_factors_or_others_and_one_admin_at_least() {
        let (_, _, mut owner, entropy) = volume(1);
        for (label, role) in [("reader", Role::Data), ("friend", Role::Admin)] {
            let factors = passphrase(label);
            let new = NewSlot { label, role, factors: &factors, kdf_cost: KdfCost::Fixed { log_n: 16 } };
            owner.adopt(&owner.add_slot(&new, &entropy, NOW).unwrap()).unwrap();
        }
        let kept: [(u32, &[Factor]); 2] = [(2, &passphrase("reader")), (3, &passphrase("another"))];
        let begun = owner.next_epoch(&kept, FLOOR, &entropy, NOW).unwrap().bytes;
        let ids = |header: &Header| header.slots.iter().map(|slot| slot.id).collect::<Vec<_>>();
        assert_eq!(ids(&describe(&begun).unwrap()), [2, 3]);
        let reader = unlock(&begun, &passphrase("reader")).unwrap();
        assert_eq!(
            (reader.slot, reader.role, reader.header.slots[0].kdf.unwrap().n),
            (2, Role::Data, 1 << 16)
        );
        assert_eq!(reader.next_epoch(&kept, FLOOR, &entropy, NOW).map(drop), Err(KeyError::NotAdmin));
        assert_eq!(reader.end_rotation(), Err(KeyError::NotAdmin));
        assert_eq!(unlock(&begun, &passphrase("another")).unwrap().role, Role::Admin);
        assert_eq!(unlock(&begun, &passphrase("friend")).map(drop), Err(KeyError::WrongKey));
        let refused =
            |id, factors: &[Factor]| owner.next_epoch(&[(id, factors)], FLOOR, &entropy, NOW).map(drop);
        assert_eq!(refused(2, &passphrase("reader")), Err(KeyError::LastAdminSlot));
        assert_eq!(refused(9, &key_file("x")), Err(KeyError::NoSuchSlot(9)));
        let same: [(u32, &[Factor]); 3] =
            [(0, &key_file("one")), (2, &passphrase("same")), (3, &passphrase("same"))];
        assert_eq!(owner.next_epoch(&same, FLOOR, &entropy, NOW).map(drop), Err(KeyError::OpensAlready(2)));
        assert!(owner.next_epoch(&same[..2], FLOOR, &entropy, NOW).is_ok());
        // A passphrase where there was none is stretched no less than any, unless its cost was chosen.
        for (cost, n) in [(KdfCost::Calibrated, 1 << 16), (FLOOR, 1 << 15)] {
            let begun = owner.next_epoch(&[(0, &passphrase("instead"))], cost, &entropy, NOW).unwrap();
            let kdf = begun.header.slots[0].kdf.unwrap();
            assert!(kdf.n >= n && (cost == KdfCost::Calibrated || kdf.n == n), "{kdf:?}");
        }
    }

    #[test]
    fn there_is_room_for_48_epochs_beside_32_slots_with_full_labels_and_no_more() {
        let (_, _, mut owner, entropy) = volume(1);
        let label = "l".repeat(64);
        let many: Vec<Vec<_>> =
            (0..SLOTS_MAX).map(|n| (0..8).flat_map(|_| key_file(&format!("many {n}"))).collect()).collect();
        while owner.slots().len() < SLOTS_MAX {
            let factors = &many[owner.slots().len()];
            let full = NewSlot { label: &label, role: Role::Admin, factors, kdf_cost: FLOOR };
            owner.adopt(&owner.add_slot(&full, &entropy, NOW).unwrap()).unwrap();
        }
        let mut bytes = Vec::new();
        while owner.header.epoch < EPOCHS_MAX {
            let owners = key_file("owner");
            let others =
                owner.slots().iter().zip(&many).skip(2).map(|(slot, factors)| (slot.id, &factors[..]));
            let kept: Vec<_> = [(0, &owners[..]), (1, &many[1])].into_iter().chain(others).collect();
            let begun = owner.next_epoch(&kept, FLOOR, &entropy, NOW).unwrap();
            let begun = unlock(&begun.bytes, &owners).unwrap();
            bytes = begun.end_rotation().unwrap();
            owner = unlock(&bytes, &owners).unwrap();
        }
        println!("{} bytes", bytes.len());
        assert_eq!((owner.slots().len(), owner.header.earlier.len()), (32, 47));
        let refused = owner.next_epoch(&[(0, &key_file("owner"))], FLOOR, &entropy, NOW).map(drop);
        assert_eq!(refused, Err(KeyError::EpochsFull));
    }
}
