//! Makes one slot and opens one slot.

use super::factor::Factors;
use super::header::{FactorName, Hex, Kdf, Role, Slot};
use super::{Factor, Header, KeyError};
use crate::base::{Entropy, Time, VolumeId};
use crate::crypto::{
    AdminKey, AdminPublicKey, Epoch, KdfCost, Key, ScryptParams, SlotContext, SlotKey, Vmk, equal, slot_key,
    vmk_commitment,
};

const WRAPS_VMK: &str = "vmk";
const WRAPS_ADMIN_KEY: &str = "admin-key";

/// What a slot opens to.
pub(super) struct SlotContents {
    pub(super) vmk: Vmk,
    pub(super) admin: Option<AdminKey>,
}

/// The volume that slots are made for.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a> {
    pub(super) volume: VolumeId,
    pub(super) epoch: Epoch,
    pub(super) vmk: &'a Vmk,
    pub(super) admin: &'a AdminKey,
}

/// What is to be said of a new slot.
pub(super) struct Wanted<'a> {
    pub(super) id: u32,
    pub(super) label: &'a str,
    pub(super) role: Role,
    pub(super) factors: &'a [Factor],
    pub(super) kdf_cost: KdfCost,
    /// The new slot's passphrases are stretched no less than this.
    pub(super) kdf_floor: Option<ScryptParams>,
}

/// Makes a slot with a salt of its own.
pub(super) fn make(
    keys: Keys<'_>,
    wanted: &Wanted<'_>,
    entropy: &dyn Entropy,
    now: Time,
) -> Result<Slot, KeyError> {
    let checked = Factors::new(wanted.factors)?;
    let factors: Vec<_> = wanted.factors.iter().map(Factor::name).collect();
    let kdf = if factors.contains(&FactorName::Passphrase) {
        let params = wanted.kdf_cost.resolve()?;
        Some(wanted.kdf_floor.map_or(params, |floor| params.at_least(floor)))
    } else {
        None
    };
    let mut salt = [0; 32];
    entropy.fill(&mut salt);
    let key = slot_key(
        &checked.secrets(),
        &SlotContext {
            volume: keys.volume,
            epoch: keys.epoch,
            slot: wanted.id,
            role: wanted.role as u8,
            salt: &salt,
            kdf,
            admin_public_key: keys.admin.public(),
        },
    )?;
    let wrapped_admin_key =
        (wanted.role == Role::Admin).then(|| Hex(key.wrap(WRAPS_ADMIN_KEY, keys.admin.seed())));
    Ok(Slot {
        id: wanted.id,
        label: wanted.label.to_owned(),
        role: wanted.role,
        factors,
        kdf: kdf.map(Kdf::of),
        salt: Hex(salt),
        commitment: Hex(key.commitment()),
        wrapped_vmk: Hex(key.wrap(WRAPS_VMK, keys.vmk)),
        wrapped_admin_key,
        created_unix_secs: now.secs,
    })
}

/// Opens `slot` of `header`; `None` if the factors are not its own.
pub(super) fn open(
    header: &Header,
    slot: &Slot,
    factors: &Factors<'_>,
) -> Result<Option<SlotContents>, KeyError> {
    let key = slot_key(
        &factors.secrets(),
        &SlotContext {
            volume: header.volume,
            epoch: Epoch(header.epoch),
            slot: slot.id,
            role: slot.role as u8,
            salt: &slot.salt.0,
            kdf: slot.params()?,
            admin_public_key: &header.admin_public_key.0,
        },
    )?;
    if !key.commits_to(&slot.commitment.0) {
        return Ok(None);
    }
    let vmk = unwrap(&key, WRAPS_VMK, &slot.wrapped_vmk, slot.id)?;
    let commitment = vmk_commitment(&vmk, header.volume, Epoch(header.epoch));
    if !equal(&commitment, &header.vmk_commitment.0) {
        return Err(KeyError::damaged(format!("slot {} holds another volume's key", slot.id)));
    }
    let admin = match &slot.wrapped_admin_key {
        None => None,
        Some(wrapped) => {
            let admin = AdminKey::from_seed(unwrap(&key, WRAPS_ADMIN_KEY, wrapped, slot.id)?);
            Some(check_admin(admin, &header.admin_public_key.0, slot.id)?)
        }
    };
    Ok(Some(SlotContents { vmk, admin }))
}

fn unwrap(
    key: &SlotKey,
    what: &str,
    wrapped: &Hex<{ crate::crypto::WRAPPED_BYTES }>,
    slot: u32,
) -> Result<Key<32>, KeyError> {
    key.unwrap(what, &wrapped.0).map_err(|_| KeyError::damaged(format!("slot {slot}: its wrapped {what}")))
}

fn check_admin(admin: AdminKey, public: &AdminPublicKey, slot: u32) -> Result<AdminKey, KeyError> {
    if admin.public() == public {
        Ok(admin)
    } else {
        Err(KeyError::damaged(format!("slot {slot} holds another volume's admin key")))
    }
}
