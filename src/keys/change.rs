//! Changes the slots of an unlocked volume: every change is a new header, signed by the admin key.

use super::frame::{self, Frame};
use super::header::{Role, SLOTS_MAX, Slot, is_label};
use super::slot::{self, Keys, Wanted};
use super::unlock::opened_by;
use super::{Factor, Header, KeyError, Unlocked};
use crate::base::{Entropy, Time};
use crate::crypto::{AdminKey, KdfCost, KeyRing, SIGNATURE_BYTES, ScryptParams};

/// What is to be said of a slot that is added.
#[derive(Debug)]
pub struct NewSlot<'a> {
    /// What its owner calls it.
    pub label: &'a str,
    /// What it may do.
    pub role: Role,
    /// The factors it takes, in order.
    pub factors: &'a [Factor],
    /// How its passphrases are stretched.
    pub kdf_cost: KdfCost,
}

/// Signs in the admin's name, if the slot that was opened is an admin's.
#[derive(Debug)]
pub struct Signer(Option<AdminKey>);

impl Signer {
    /// Whether it can sign.
    #[must_use]
    pub const fn is_admin(&self) -> bool {
        self.0.is_some()
    }

    /// Signs that a rollback, told by `parts`, is accepted.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`]: only an admin slot holds the key.
    pub fn sign_acceptance(&self, parts: &[&[u8]]) -> Result<[u8; SIGNATURE_BYTES], KeyError> {
        Ok(self.0.as_ref().ok_or(KeyError::NotAdmin)?.sign_acceptance(parts))
    }
}

/// None of these changes `self`: each gives the bytes of the header that follows, to be stored under
/// its revision and then taken over by [`Unlocked::adopt`].
impl Unlocked {
    /// The slots, in the order in which they are tried.
    #[must_use]
    pub fn slots(&self) -> &[Slot] {
        &self.header.slots
    }

    /// Adds a slot. Its number is one above the highest in use.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`], [`KeyError::SlotsFull`], [`KeyError::BadLabel`], [`KeyError::OpensAlready`], or factors
    /// that cannot make a slot.
    pub fn add_slot(&self, new: &NewSlot<'_>, entropy: &dyn Entropy, now: Time) -> Result<Vec<u8>, KeyError> {
        let keys = self.keys()?;
        if self.header.slots.len() >= SLOTS_MAX {
            return Err(KeyError::SlotsFull);
        }
        if !is_label(new.label) {
            return Err(KeyError::BadLabel);
        }
        let highest = self.header.slots.iter().map(|slot| slot.id).max().unwrap_or_default();
        let id = highest.checked_add(1).ok_or(KeyError::SlotsFull)?;
        let NewSlot { label, role, factors, kdf_cost } = *new;
        self.nothing_else_opens_with(factors, None)?;
        let kdf_floor = floor_of(&self.header.slots, kdf_cost);
        let wanted = Wanted { id, label, role, factors, kdf_cost, kdf_floor };
        let slot = slot::make(keys, &wanted, entropy, now)?;
        self.follow(keys.admin, |slots| slots.push(slot))
    }

    /// Removes a slot. Who knew the volume key goes on knowing it: this is no new key epoch.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`], [`KeyError::NoSuchSlot`], [`KeyError::LastAdminSlot`].
    pub fn remove_slot(&self, id: u32) -> Result<Vec<u8>, KeyError> {
        let keys = self.keys()?;
        let slot = self.header.slot(id).ok_or(KeyError::NoSuchSlot(id))?;
        let admins = self.header.slots.iter().filter(|slot| slot.role == Role::Admin).count();
        if slot.role == Role::Admin && admins == 1 {
            return Err(KeyError::LastAdminSlot);
        }
        self.follow(keys.admin, |slots| slots.retain(|slot| slot.id != id))
    }

    /// Gives a slot other factors; label and role stay. Passphrases are never stretched less than before.
    ///
    /// # Errors
    /// [`KeyError::NotAdmin`], [`KeyError::NoSuchSlot`], [`KeyError::OpensAlready`] for another slot, or factors that
    /// cannot make a slot.
    pub fn change_factors(
        &self,
        id: u32,
        factors: &[Factor],
        kdf_cost: KdfCost,
        entropy: &dyn Entropy,
        now: Time,
    ) -> Result<Vec<u8>, KeyError> {
        let keys = self.keys()?;
        let old = self.header.slot(id).ok_or(KeyError::NoSuchSlot(id))?;
        self.nothing_else_opens_with(factors, Some(id))?;
        let kdf_floor = old.params()?;
        let wanted = Wanted { id, label: &old.label, role: old.role, factors, kdf_cost, kdf_floor };
        let new = slot::make(keys, &wanted, entropy, now)?;
        self.follow(keys.admin, |slots| {
            slots.iter_mut().filter(|slot| slot.id == id).for_each(|slot| *slot = new.clone());
        })
    }

    /// Takes over a newer header of the same volume key, once it is stored.
    ///
    /// # Errors
    /// Damage; [`KeyError::NotTheNext`] for another volume, epoch or admin key, or an older header.
    pub fn adopt(&mut self, bytes: &[u8]) -> Result<(), KeyError> {
        let frame = Frame::read(bytes)?;
        let (old, new) = (&self.header, &frame.header);
        let refuse = |what| Err(KeyError::NotTheNext { what });
        if (new.volume, new.epoch) != (old.volume, old.epoch) {
            return refuse("it is of another volume or key epoch");
        }
        if new.admin_public_key != old.admin_public_key {
            return refuse("another admin key signed it");
        }
        if new.revision <= old.revision {
            return refuse("it is no newer than the one at hand");
        }
        frame.verify(&self.ring)?;
        self.header = frame.header;
        Ok(())
    }

    /// What the header says, the working keys, and what the slot is able to sign.
    #[must_use]
    pub fn into_parts(self) -> (Header, KeyRing, Signer) {
        (self.header, self.ring, Signer(self.admin))
    }

    fn nothing_else_opens_with(&self, factors: &[Factor], except: Option<u32>) -> Result<(), KeyError> {
        opened_by(&self.header, factors, except)?.map_or(Ok(()), |slot| Err(KeyError::OpensAlready(slot)))
    }

    fn keys(&self) -> Result<Keys<'_>, KeyError> {
        let admin = self.admin.as_ref().ok_or(KeyError::NotAdmin)?;
        Ok(Keys { volume: self.volume, epoch: self.epoch, vmk: &self.vmk, admin })
    }

    fn follow(&self, admin: &AdminKey, change: impl FnOnce(&mut Vec<Slot>)) -> Result<Vec<u8>, KeyError> {
        let mut header = self.header.clone();
        change(&mut header.slots);
        header.revision =
            header.revision.checked_add(1).ok_or(KeyError::NotTheNext { what: "revisions ran out" })?;
        frame::write(&header, &self.ring, admin)
    }
}

/// What a new slot is stretched by at the least: as much as the least of those there are, so that a slow machine
/// does not make guessing cheaper; unless the cost was chosen.
pub(super) fn floor_of(slots: &[Slot], cost: KdfCost) -> Option<ScryptParams> {
    match cost {
        KdfCost::Calibrated => {
            let all = slots.iter().filter_map(|slot| slot.params().ok().flatten());
            all.min_by_key(|params| params.n().saturating_mul(params.p().into()))
        }
        KdfCost::Fixed { .. } => None,
    }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLOOR, NOW, SPEC, key_file, passphrase, volume};
    use super::super::{RecoveryCode, create, describe, unlock};
    use super::*;
    use crate::base::SeededEntropy;

    fn reader<'a>(factors: &'a [Factor]) -> NewSlot<'a> {
        NewSlot { label: "reader", role: Role::Data, factors, kdf_cost: FLOOR }
    }

    #[test]
    fn slots_come_and_go_and_each_change_counts_up() {
        let (first, code, mut owner, entropy) = volume(1);
        let second = owner.add_slot(&reader(&key_file("reader")), &entropy, NOW).unwrap();
        assert_eq!(owner.header, describe(&first).unwrap(), "nothing changes before it is stored");
        owner.adopt(&second).unwrap();
        let unlocked = unlock(&second, &key_file("reader")).unwrap();
        assert_eq!((unlocked.slot, unlocked.role, unlocked.header.revision), (2, Role::Data, 2));

        let third = owner.remove_slot(2).unwrap();
        owner.adopt(&third).unwrap();
        assert_eq!(owner.header.revision, 3);
        assert_eq!(owner.slots().iter().map(|slot| slot.id).collect::<Vec<_>>(), [0, 1]);
        assert_eq!(unlock(&third, &key_file("reader")).map(drop), Err(KeyError::WrongKey));
        assert!(unlock(&third, &key_file("owner")).is_ok() && unlock(&third, &[code.factor()]).is_ok());
        assert_eq!(owner.remove_slot(2), Err(KeyError::NoSuchSlot(2)));
    }

    #[test]
    fn only_an_admin_slot_changes_the_header() {
        let (_, _, owner, entropy) = volume(1);
        let bytes = owner.add_slot(&reader(&key_file("reader")), &entropy, NOW).unwrap();
        let unlocked = unlock(&bytes, &key_file("reader")).unwrap();
        assert!(unlocked.admin.is_none());
        let added = unlocked.add_slot(&reader(&key_file("friend")), &entropy, NOW);
        let changed = unlocked.change_factors(2, &key_file("mine"), FLOOR, &entropy, NOW);
        assert_eq!(added, Err(KeyError::NotAdmin));
        assert_eq!(changed, Err(KeyError::NotAdmin));
        assert_eq!(unlocked.remove_slot(0), Err(KeyError::NotAdmin));
        let code = [RecoveryCode::random(&entropy).factor()];
        assert_eq!(unlocked.add_slot(&reader(&code), &entropy, NOW), Err(KeyError::NotAdmin));
        // No code stands between: the key is not in the slot.
        assert!(unlocked.slots().iter().all(|s| s.wrapped_admin_key.is_some() == (s.role == Role::Admin)));
    }

    #[test]
    fn the_last_admin_slot_stays() {
        let (_, _, mut owner, entropy) = volume(1);
        owner.adopt(&owner.remove_slot(1).unwrap()).unwrap();
        assert_eq!(owner.remove_slot(0), Err(KeyError::LastAdminSlot));
        owner.adopt(&owner.add_slot(&reader(&key_file("reader")), &entropy, NOW).unwrap()).unwrap();
        assert_eq!(owner.remove_slot(0), Err(KeyError::LastAdminSlot), "a data slot is no replacement");
        let second = key_file("second");
        let second = NewSlot { role: Role::Admin, ..reader(&second) };
        owner.adopt(&owner.add_slot(&second, &entropy, NOW).unwrap()).unwrap();
        assert!(owner.remove_slot(0).is_ok());
    }

    #[test]
    fn there_is_room_for_32_slots_with_full_labels_and_no_more() {
        let (_, _, mut owner, entropy) = volume(1);
        let label = "l".repeat(64);
        let factors =
            |slot: usize| (0..8).flat_map(|_| key_file(&format!("many {slot}"))).collect::<Vec<_>>();
        let mut bytes = Vec::new();
        while owner.slots().len() < SLOTS_MAX {
            let factors = factors(owner.slots().len());
            let full = NewSlot { label: &label, role: Role::Admin, factors: &factors, kdf_cost: FLOOR };
            bytes = owner.add_slot(&full, &entropy, NOW).unwrap();
            owner.adopt(&bytes).unwrap();
        }
        println!("{} bytes", bytes.len());
        let factors = factors(SLOTS_MAX);
        assert_eq!(owner.add_slot(&reader(&factors), &entropy, NOW), Err(KeyError::SlotsFull));
        for label in ["", "two\nlines", &"l".repeat(65)] {
            let new = NewSlot { label, ..reader(&factors) };
            owner.adopt(&owner.remove_slot(owner.slots().last().unwrap().id).unwrap()).unwrap();
            assert_eq!(owner.add_slot(&new, &entropy, NOW), Err(KeyError::BadLabel));
        }
    }

    #[test]
    fn no_two_slots_open_with_the_same() {
        let entropy = SeededEntropy::new(1);
        let (_, _, mut owner) = create(&SPEC, &passphrase("first"), &entropy, NOW).unwrap();
        let add = |owner: &Unlocked, factors: &[Factor]| owner.add_slot(&reader(factors), &entropy, NOW);
        owner.adopt(&add(&owner, &passphrase("second")).unwrap()).unwrap();
        owner.adopt(&add(&owner, &key_file("second")).unwrap()).unwrap();
        assert_eq!(add(&owner, &passphrase("first")), Err(KeyError::OpensAlready(0)));
        assert_eq!(add(&owner, &passphrase("second")), Err(KeyError::OpensAlready(2)));
        assert_eq!(add(&owner, &key_file("second")), Err(KeyError::OpensAlready(3)));
        let change = |id, new: &str| owner.change_factors(id, &passphrase(new), FLOOR, &entropy, NOW);
        assert_eq!(change(0, "second"), Err(KeyError::OpensAlready(2)));
        assert!(change(2, "second").is_ok(), "a slot may be stretched anew");
        assert!(change(0, "third").is_ok());
    }

    #[test]
    fn no_two_slots_open_with_the_same_however_many_there_are() {
        let (_, _, mut owner, entropy) = volume(1);
        for id in 2..=10 {
            let factors = passphrase(&format!("pass {id}"));
            owner.adopt(&owner.add_slot(&reader(&factors), &entropy, NOW).unwrap()).unwrap();
        }
        let ninth = passphrase("pass 10");
        assert_eq!(owner.add_slot(&reader(&ninth), &entropy, NOW), Err(KeyError::OpensAlready(10)));
        let changed = owner.change_factors(2, &ninth, FLOOR, &entropy, NOW);
        assert_eq!(changed, Err(KeyError::OpensAlready(10)));
    }

    #[test]
    fn a_changed_passphrase_opens_the_same_volume_and_is_stretched_no_less() {
        let entropy = SeededEntropy::new(1);
        let spec = super::super::NewVolume { kdf_cost: KdfCost::Fixed { log_n: 16 }, ..SPEC };
        let (first, _, owner) = create(&spec, &passphrase("old"), &entropy, NOW).unwrap();
        let second = owner.change_factors(0, &passphrase("new"), FLOOR, &entropy, NOW).unwrap();
        let unlocked = unlock(&second, &passphrase("new")).unwrap();
        assert_eq!((unlocked.volume, unlocked.slot, unlocked.role), (owner.volume, 0, Role::Admin));
        assert_eq!(unlocked.header.slots[0].kdf.unwrap().n, 1 << 16);
        assert_ne!(unlocked.header.slots[0].salt, owner.header.slots[0].salt);
        assert_eq!(unlock(&second, &passphrase("old")).map(drop), Err(KeyError::WrongKey));
        assert!(unlock(&first, &passphrase("old")).is_ok());
        let refused = owner.change_factors(9, &passphrase("new"), FLOOR, &entropy, NOW);
        assert_eq!(refused, Err(KeyError::NoSuchSlot(9)));
        let refused = owner.change_factors(0, &passphrase(""), FLOOR, &entropy, NOW);
        assert_eq!(refused, Err(KeyError::Empty { what: "passphrase" }));
    }

    #[test]
    fn a_new_slot_is_stretched_no_less_than_the_least_unless_its_cost_was_chosen() {
        let entropy = SeededEntropy::new(1);
        let spec = super::super::NewVolume { kdf_cost: KdfCost::Fixed { log_n: 16 }, ..SPEC };
        let (_, _, mut owner) = create(&spec, &passphrase("first"), &entropy, NOW).unwrap();
        let least = |owner: &Unlocked, cost| floor_of(owner.slots(), cost).map(|params| params.n());
        assert_eq!(least(&owner, KdfCost::Calibrated), Some(1 << 16));
        let factors = passphrase("second");
        let bytes = owner.add_slot(&reader(&factors), &entropy, NOW).unwrap();
        owner.adopt(&bytes).unwrap();
        assert_eq!(owner.slots()[2].kdf.unwrap().n, 1 << 15, "it was chosen");
        assert_eq!(least(&owner, KdfCost::Calibrated), Some(1 << 15));
        assert_eq!(least(&owner, FLOOR), None);
        let (_, _, by_file, _) = volume(1);
        assert_eq!(least(&by_file, KdfCost::Calibrated), None);
    }

    #[test]
    fn only_the_header_that_follows_is_adopted() {
        let (first, _, mut owner, _) = volume(1);
        let (foreign, ..) = volume(2);
        let second = owner.remove_slot(1).unwrap();
        owner.adopt(&second).unwrap();
        for bytes in [&first, &second, &foreign] {
            assert!(matches!(owner.adopt(bytes), Err(KeyError::NotTheNext { .. })));
        }
        let (_, _, stranger, _) = volume(3);
        let mut header = owner.header.clone();
        header.revision = 9;
        header.admin_public_key = stranger.header.admin_public_key;
        let signed = frame::write(&header, &owner.ring, stranger.admin.as_ref().unwrap()).unwrap();
        assert!(matches!(owner.adopt(&signed), Err(KeyError::NotTheNext { .. })));
    }
}
