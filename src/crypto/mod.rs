//! Primitives bound to this format: derivation, name sealing, object sealing. Knows no files.
//!
//! Every key has one purpose and one label ([`label`]); every derivation is in [`derive`]; what they
//! make is written down in `docs/FORMAT.md`, and `tests/vectors/reference.py` makes it a second time.

mod derive;
mod earlier;
mod error;
mod head;
mod hedge;
mod kdf;
mod label;
mod memory;
mod names;
mod object;
mod ring;
mod secret;
mod sign;
mod siv;
mod slot;

pub use derive::{fingerprint, recovery_checksum, vmk_commitment};
pub use earlier::{unwrap_earlier, wrap_earlier};
pub use error::OpenError;
pub use head::{HEAD_BYTES, ObjectHead, ObjectKind, SUITE_AES_256_GCM};
pub use kdf::{KdfCost, KdfError, ScryptParams};
pub use memory::{after_fork, unlocked_because};
pub use names::SealedName;
pub use object::{ObjectKey, TAG_BYTES};
pub use ring::{Epoch, KeyRing, MacLabel, Vmk};
pub use secret::{Key, Secret, equal};
pub use sign::{
    AdminKey, AdminPublicKey, SIGNATURE_BYTES, verify_acceptance, verify_header, verify_succession,
};
pub use slot::{FactorKind, FactorSecret, SlotContext, SlotKey, WRAPPED_BYTES, slot_key};

pub(crate) use memory::scrub_stack;

/// Unwraps what fails only if the cryptographic library breaks its own contract.
#[allow(clippy::panic)] // going on would store plaintext or a key that nobody can derive again
fn cannot_fail<T, E>(result: Result<T, E>, what: &str) -> T {
    result.unwrap_or_else(|_| panic!("{what}"))
}
