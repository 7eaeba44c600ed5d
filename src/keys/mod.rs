//! The volume header: its slots, unlocking and changing them.
//!
//! The header is the only object of a volume that stands in the clear. It tells who may unlock the volume
//! and how, and nothing about what is in it. `docs/FORMAT.md`, "Volume header" and "Slots".

mod change;
mod epochs;
mod error;
mod factor;
mod fingerprint;
mod frame;
mod header;
mod recovery;
mod slot;
mod unlock;

pub use change::{NewSlot, Signer};
pub use epochs::NextEpoch;
pub use error::KeyError;
pub use factor::{Factor, KEY_FILE_BYTES_MAX};
pub use fingerprint::{Fingerprint, FingerprintError, Identity};
pub use frame::HEADER_BYTES_MAX;
pub use header::{
    Compression, EPOCHS_MAX, EarlierEpoch, FORMAT_VERSION, FactorName, Header, Hex, Kdf, LABEL_BYTES_MAX,
    Role, SLOTS_MAX, Slot,
};
pub use recovery::{RecoveryCode, RecoveryCodeError};
pub use unlock::{
    KDF_RUNS_MAX, NewVolume, Unlocked, create, describe, is_genuine, unlock, unlock_by, unlock_slot,
};

pub use crate::crypto::{KdfCost, Secret};

#[cfg(test)]
mod testing;
