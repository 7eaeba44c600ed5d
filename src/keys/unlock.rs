//! Makes a volume's first header, unlocks a header, describes one without a key.

use super::factor::{Factors, in_words};
use super::frame::{self, Frame};
use super::header::{Compression, FORMAT_VERSION, FactorName, Hex, Role, Slot};
use super::recovery::RecoveryCode;
use super::slot::{self, Keys, SlotContents, Wanted};
use super::{Factor, Header, KeyError};
use crate::base::{BLOCK_BYTES, Entropy, Time, VolumeId};
use crate::crypto::{AdminKey, Epoch, KdfCost, Key, KeyRing, Vmk, scrub_stack, vmk_commitment};

/// Most runs of scrypt in one attempt to unlock.
pub const KDF_RUNS_MAX: usize = 8;
/// More stack than unlocking takes.
pub(super) const UNLOCK_STACK_BYTES: usize = 64 * 1024;

/// What is chosen when a volume is made.
#[derive(Clone, Copy, Debug)]
pub struct NewVolume {
    /// Whether blocks are compressed before they are sealed.
    pub compression: Compression,
    /// How the first slot's passphrases are stretched.
    pub kdf_cost: KdfCost,
}

/// An unlocked volume: its working keys, and what is needed to change its slots.
#[derive(Debug)]
pub struct Unlocked {
    /// The volume.
    pub volume: VolumeId,
    /// Epoch of the volume key.
    pub epoch: Epoch,
    /// The working keys.
    pub ring: KeyRing,
    /// The slot that opened.
    pub slot: u32,
    /// What that slot may do.
    pub role: Role,
    /// What the header says.
    pub header: Header,
    pub(super) vmk: Vmk,
    pub(super) admin: Option<AdminKey>,
}

/// Makes a new volume with two admin slots: slot 0 for `factors`, slot 1 for a new recovery code.
/// Gives the bytes of its first header, revision 1, which are to become `header/1`.
///
/// # Errors
/// Factors that cannot make a slot; a cost outside of the accepted window.
pub fn create(
    spec: &NewVolume,
    factors: &[Factor],
    entropy: &dyn Entropy,
    now: Time,
) -> Result<(Vec<u8>, RecoveryCode, Unlocked), KeyError> {
    let (volume, epoch) = (VolumeId::random(entropy), Epoch::FIRST);
    let vmk: Vmk = Key::random(entropy);
    let admin = AdminKey::random(entropy);
    let recovery = RecoveryCode::random(entropy);
    let keys = Keys { volume, epoch, vmk: &vmk, admin: &admin };
    let slot = |id, label, factors: &[Factor]| {
        let kdf_cost = spec.kdf_cost;
        let wanted = Wanted { id, label, role: Role::Admin, factors, kdf_cost, kdf_floor: None };
        slot::make(keys, &wanted, entropy, now)
    };
    let slots = vec![slot(0, "first", factors)?, slot(1, "recovery", &[recovery.factor()])?];
    let header = Header {
        format: FORMAT_VERSION,
        features: Vec::new(),
        volume,
        epoch: epoch.0,
        revision: 1,
        created_unix_secs: now.secs,
        compression: spec.compression,
        block_bytes: BLOCK_BYTES as u32,
        admin_public_key: Hex(*admin.public()),
        vmk_commitment: Hex(vmk_commitment(&vmk, volume, epoch)),
        floor: None,
        earlier: Vec::new(),
        slots,
    };
    let ring = KeyRing::new(volume, epoch, &vmk);
    let bytes = frame::write(&header, &ring, &admin)?;
    scrub_stack::<UNLOCK_STACK_BYTES>();
    let unlocked =
        Unlocked { volume, epoch, ring, slot: 0, role: Role::Admin, header, vmk, admin: Some(admin) };
    Ok((bytes, recovery, unlocked))
}

/// Unlocks a header with the first slot that opens.
///
/// # Errors
/// Damage, a newer format and a wrong key are told apart; see [`KeyError`].
pub fn unlock(bytes: &[u8], factors: &[Factor]) -> Result<Unlocked, KeyError> {
    let frame = Frame::read(bytes)?;
    let checked = Factors::new(factors)?;
    let names: Vec<_> = factors.iter().map(Factor::name).collect();
    let fitting: Vec<&Slot> = frame.header.slots.iter().filter(|slot| slot.factors == names).collect();
    if fitting.is_empty() {
        return Err(no_slot_for(&names, &frame.header));
    }
    let tries = tries(&names, fitting.len());
    for slot in fitting.iter().take(tries) {
        if let Some(contents) = slot::open(&frame.header, slot, &checked)? {
            let unlocked = finish(&frame, slot, contents);
            scrub_stack::<UNLOCK_STACK_BYTES>();
            return unlocked;
        }
    }
    if fitting.len() > tries {
        return Err(KeyError::TooManySlots { tried: tries, untried: fitting.len() - tries });
    }
    Err(KeyError::WrongKey)
}

/// Unlocks one slot of a header if one is named, or else the first that opens.
///
/// # Errors
/// As [`unlock_slot`] and [`unlock`].
pub fn unlock_by(bytes: &[u8], factors: &[Factor], slot: Option<u32>) -> Result<Unlocked, KeyError> {
    match slot {
        Some(id) => unlock_slot(bytes, factors, id),
        None => unlock(bytes, factors),
    }
}

/// The first slot beside `except` that opens with `factors`. All are tried: `header` is one that was unlocked, so that an
/// admin has chosen what that costs.
pub(super) fn opened_by(
    header: &Header,
    factors: &[Factor],
    except: Option<u32>,
) -> Result<Option<u32>, KeyError> {
    let checked = Factors::new(factors)?;
    let names: Vec<_> = factors.iter().map(Factor::name).collect();
    for slot in header.slots.iter().filter(|slot| slot.factors == names && Some(slot.id) != except) {
        if slot::open(header, slot, &checked)?.is_some() {
            return Ok(Some(slot.id));
        }
    }
    Ok(None)
}

/// How many of `fitting` slots are tried, each of which stretches all passphrases anew.
fn tries(names: &[FactorName], fitting: usize) -> usize {
    let runs_each = names.iter().filter(|name| **name == FactorName::Passphrase).count();
    KDF_RUNS_MAX.checked_div(runs_each).unwrap_or(fitting)
}

/// Unlocks one slot of a header.
///
/// # Errors
/// As [`unlock`]; [`KeyError::NoSuchSlot`], [`KeyError::SlotTakesOther`].
pub fn unlock_slot(bytes: &[u8], factors: &[Factor], id: u32) -> Result<Unlocked, KeyError> {
    let frame = Frame::read(bytes)?;
    let checked = Factors::new(factors)?;
    let names: Vec<_> = factors.iter().map(Factor::name).collect();
    let slot = frame.header.slot(id).ok_or(KeyError::NoSuchSlot(id))?;
    if slot.factors != names {
        let (given, takes) = (in_words(&names), in_words(&slot.factors));
        return Err(KeyError::SlotTakesOther { slot: id, given, takes });
    }
    let contents = slot::open(&frame.header, slot, &checked)?;
    let contents = contents.ok_or(KeyError::WrongKey)?;
    let unlocked = finish(&frame, slot, contents);
    scrub_stack::<UNLOCK_STACK_BYTES>();
    unlocked
}

/// What a header says, without a key. Its signature is checked; that it is the volume's own header only a key can tell.
///
/// # Errors
/// Damage and a newer format.
pub fn describe(bytes: &[u8]) -> Result<Header, KeyError> {
    Frame::read(bytes).map(|frame| frame.header)
}

/// Whether a header is the volume's own: only who knows the volume key can have made it.
#[must_use]
pub fn is_genuine(bytes: &[u8], ring: &KeyRing) -> bool {
    Frame::read(bytes).is_ok_and(|frame| frame.verify(ring).is_ok())
}

fn finish(frame: &Frame<'_>, slot: &Slot, contents: SlotContents) -> Result<Unlocked, KeyError> {
    let header = frame.header.clone();
    let (volume, epoch) = (header.volume, Epoch(header.epoch));
    let ring = KeyRing::new(volume, epoch, &contents.vmk);
    frame.verify(&ring)?;
    let ring = match header.earlier_keys(&contents.vmk)? {
        earlier if earlier.is_empty() => ring,
        earlier => ring.with_earlier(&earlier, header.floor()),
    };
    let (slot, role) = (slot.id, slot.role);
    Ok(Unlocked { volume, epoch, ring, slot, role, header, vmk: contents.vmk, admin: contents.admin })
}

fn no_slot_for(names: &[FactorName], header: &Header) -> KeyError {
    let mut takes: Vec<_> = header.slots.iter().map(|slot| in_words(&slot.factors)).collect();
    takes.sort();
    takes.dedup();
    KeyError::NoSlotForFactors { given: in_words(names), slots: takes.join(", ") }
}

#[cfg(test)]
mod tests {
    use super::super::testing::{FLOOR, NOW, SPEC, key_file, passphrase, volume};
    use super::super::{NewSlot, Secret};
    use super::*;
    use crate::base::{OsEntropy, SeededEntropy};
    use crate::crypto::MacLabel;

    fn refusal(bytes: &[u8], factors: &[Factor]) -> KeyError {
        unlock(bytes, factors).map(drop).unwrap_err()
    }

    #[test]
    fn the_passphrase_and_the_recovery_code_open_what_was_made_and_nothing_else_does() {
        let entropy = SeededEntropy::new(1);
        let (bytes, code, made) = create(&SPEC, &passphrase("pass"), &entropy, NOW).unwrap();
        let fingerprint = |unlocked: &Unlocked| unlocked.ring.mac(MacLabel::Commit, &[b"x"]);
        let sloppy = code.reveal().to_lowercase().replace('-', " ");
        for (slot, factors) in [(0, &passphrase("pass")), (1, &[Factor::RecoveryCode((&*sloppy).into())])] {
            let unlocked = unlock(&bytes, factors).unwrap();
            assert_eq!((unlocked.slot, unlocked.role), (slot, Role::Admin));
            assert_eq!((unlocked.volume, &unlocked.header), (made.volume, &made.header));
            assert_eq!(fingerprint(&unlocked), fingerprint(&made));
        }
        assert_eq!(refusal(&bytes, &passphrase("Pass")), KeyError::WrongKey);
        let other = RecoveryCode::random(&OsEntropy);
        assert_eq!(refusal(&bytes, &[other.factor()]), KeyError::WrongKey);
        let none = refusal(&bytes, &key_file("x"));
        let (given, slots) = ("key file".to_owned(), "passphrase, recovery code".to_owned());
        assert_eq!(none, KeyError::NoSlotForFactors { given, slots });
        let mistyped = [Factor::RecoveryCode(Secret::from(code.reveal().replace('-', "").get(1..).unwrap()))];
        assert!(matches!(refusal(&bytes, &mistyped), KeyError::BadRecoveryCode(_)));
    }

    #[test]
    fn several_factors_open_only_together_and_in_order() {
        let both = |file, pass| [key_file(file), passphrase(pass)].into_iter().flatten().collect::<Vec<_>>();
        let (bytes, ..) = create(&SPEC, &both("file", "pass"), &SeededEntropy::new(1), NOW).unwrap();
        assert!(unlock(&bytes, &both("file", "pass")).is_ok());
        assert_eq!(refusal(&bytes, &both("file", "word")), KeyError::WrongKey);
        assert_eq!(refusal(&bytes, &both("pile", "pass")), KeyError::WrongKey);
        let mut turned = both("file", "pass");
        turned.reverse();
        for factors in [turned, key_file("file").into(), passphrase("pass").into()] {
            assert!(matches!(refusal(&bytes, &factors), KeyError::NoSlotForFactors { .. }));
        }
    }

    #[test]
    fn a_header_is_described_without_a_key_and_says_nothing_secret() {
        let (bytes, _, made, _) = volume(1);
        assert_eq!(describe(&bytes).unwrap(), made.header);
        for secret in [made.vmk.expose(), made.admin.as_ref().unwrap().seed().expose()] {
            let digits = data_encoding::HEXLOWER.encode(secret);
            assert!(!bytes.windows(32).any(|window| window == secret));
            assert!(!bytes.windows(64).any(|window| window == digits.as_bytes()));
        }
        let shown = format!("{made:?}");
        assert!(shown.contains("vmk: Key<32>(..)") && shown.contains("seed: Key<32>(..)"), "{shown}");
    }

    #[test]
    fn no_more_than_8_passphrases_are_stretched_unless_the_slot_is_named() {
        let entropy = SeededEntropy::new(1);
        let (_, _, mut made) = create(&SPEC, &key_file("owner"), &entropy, NOW).unwrap();
        let mut bytes = Vec::new();
        for id in 2..=10 {
            let factors = &passphrase(&format!("pass {id}"));
            let slot = NewSlot { label: "one of many", role: Role::Data, factors, kdf_cost: FLOOR };
            bytes = made.add_slot(&slot, &entropy, NOW).unwrap();
            made.adopt(&bytes).unwrap();
        }
        assert_eq!(unlock(&bytes, &passphrase("pass 9")).unwrap().slot, 9);
        assert_eq!(refusal(&bytes, &passphrase("pass 10")), KeyError::TooManySlots { tried: 8, untried: 1 });
        assert_eq!(unlock_slot(&bytes, &passphrase("pass 10"), 10).unwrap().slot, 10);
        let refused = |id| unlock_slot(&bytes, &passphrase("pass 10"), id).map(drop).unwrap_err();
        assert_eq!(refused(9), KeyError::WrongKey);
        assert_eq!(refused(11), KeyError::NoSuchSlot(11));
        let (given, takes) = ("passphrase".to_owned(), "key file".to_owned());
        assert_eq!(refused(0), KeyError::SlotTakesOther { slot: 0, given, takes });
    }

    /// Who may only read the volume knows its key, and so can make a MAC; he must not be able to become its admin.
    #[test]
    fn a1_a_reader_of_the_volume_cannot_put_his_own_admin_key_into_the_header() {
        let (_, _, made, entropy) = volume(1);
        let (thief, mut header) = (AdminKey::random(&entropy), made.header.clone());
        header.admin_public_key = Hex(*thief.public());
        let forged = frame::write(&header, &made.ring, &thief).unwrap();
        assert!(describe(&forged).is_ok());
        assert_eq!(refusal(&forged, &key_file("owner")), KeyError::WrongKey);
        // Nor can he sign as somebody else.
        let forged = frame::write(&made.header, &made.ring, &thief).unwrap();
        assert!(matches!(refusal(&forged, &key_file("owner")), KeyError::Damaged { .. }));
    }

    /// All of these are signed and MACed by the admin himself: only the slot's own checks are left.
    #[test]
    fn a_slot_is_refused_at_its_commitment_or_where_it_holds_foreign_keys() {
        let (_, _, made, _) = volume(1);
        let (_, _, other, _) = volume(2);
        let admin = made.admin.as_ref().unwrap();
        let with = |change: &dyn Fn(&mut Header)| {
            let mut header = made.header.clone();
            change(&mut header);
            refusal(&frame::write(&header, &made.ring, admin).unwrap(), &key_file("owner"))
        };
        assert_eq!(with(&|header| header.slots[0].commitment.0[31] ^= 1), KeyError::WrongKey);
        assert_eq!(with(&|header| header.slots[0].salt.0[0] ^= 1), KeyError::WrongKey);
        assert_eq!(with(&|header| header.slots[0].id = 7), KeyError::WrongKey);
        assert_eq!(with(&|header| header.epoch = 2), KeyError::WrongKey);
        assert_eq!(with(&|header| header.slots[0] = other.header.slots[0].clone()), KeyError::WrongKey);
        for change in [
            (&|header: &mut Header| header.slots[0].wrapped_vmk.0[40] ^= 1) as &dyn Fn(&mut Header),
            &|header| header.slots[0].wrapped_admin_key = Some(header.slots[0].wrapped_vmk),
            &|header| header.vmk_commitment.0[0] ^= 1,
        ] {
            assert!(matches!(with(change), KeyError::Damaged { .. }));
        }
        let wrong_mac = frame::write(&made.header, &other.ring, admin).unwrap();
        let damage = KeyError::damaged("its MAC does not match");
        assert_eq!(refusal(&wrong_mac, &key_file("owner")), damage);
    }
}
