//! Why a header does not unlock or change.

use super::frame::HEADER_BYTES_MAX;
use super::header::{EPOCHS_MAX, LABEL_BYTES_MAX, SLOTS_MAX};
use super::recovery::RecoveryCodeError;
use crate::crypto::KdfError;

/// What went wrong with a header, a slot or a factor.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// The bytes do not start as a header does.
    #[error("this is not a Coffer volume header")]
    NotAHeader,
    /// A later version of Coffer wrote the header.
    #[error("the volume has {found}; this version of Coffer knows {supported}")]
    NewerFormat {
        /// The version or feature found.
        found: String,
        /// What is known.
        supported: String,
    },
    /// More bytes than any header has.
    #[error("the volume header claims {bytes} bytes; the most is {HEADER_BYTES_MAX}")]
    TooLarge {
        /// Bytes found or claimed.
        bytes: u64,
    },
    /// Altered, cut short, or put together wrongly.
    #[error("the volume header is damaged: {what}")]
    Damaged {
        /// The part that is wrong.
        what: String,
    },
    /// A slot asks for a key derivation outside of the accepted window, or memory lacks for it.
    #[error("the passphrase cannot be stretched: {0}")]
    KdfOutOfRange(#[from] KdfError),
    /// None of the slots that take such factors opens.
    #[error("no slot opens with this: it is wrong, or the slot was changed or removed")]
    WrongKey,
    /// No slot takes these kinds of factor.
    #[error("no slot takes {given}; the slots take: {slots}")]
    NoSlotForFactors {
        /// The kinds of factor that were given.
        given: String,
        /// The kinds that the slots take.
        slots: String,
    },
    /// The slot that was named takes other kinds of factor.
    #[error("slot {slot} takes {takes}, and {given} was given")]
    SlotTakesOther {
        /// The slot.
        slot: u32,
        /// The kinds of factor that were given.
        given: String,
        /// The kinds that it takes.
        takes: String,
    },
    /// More slots take these factors than are tried without being told which.
    #[error("none of the first {tried} slots opens with this; {untried} more were not tried: name the slot")]
    TooManySlots {
        /// Slots tried.
        tried: usize,
        /// Slots left.
        untried: usize,
    },
    /// Only an admin slot may change the header.
    #[error("this slot opens the volume but may not change its slots: unlock with an admin slot")]
    NotAdmin,
    /// Without an admin slot nobody could ever change the header again.
    #[error("the last admin slot cannot be removed: add another first")]
    LastAdminSlot,
    /// The header has no such slot.
    #[error("the volume has no slot {0}")]
    NoSuchSlot(u32),
    /// Two slots that open with the same would make removing or changing one of them a promise that is not kept.
    #[error("slot {0} opens with the same already")]
    OpensAlready(u32),
    /// No room for another slot.
    #[error("all {SLOTS_MAX} slots are in use: remove one first")]
    SlotsFull,
    /// A slot needs at least one factor and takes at most eight.
    #[error("a slot takes 1 to 8 factors")]
    FactorCount,
    /// An empty passphrase or key file.
    #[error("the {what} is empty")]
    Empty {
        /// `passphrase` or `key file`.
        what: &'static str,
    },
    /// A key file beyond the limit.
    #[error("the key file has {bytes} bytes; the most is 1 MiB")]
    KeyFileTooLarge {
        /// Its size.
        bytes: usize,
    },
    /// A recovery code that was mistyped, whatever the volume.
    #[error("the recovery code is mistyped: {0}")]
    BadRecoveryCode(#[from] RecoveryCodeError),
    /// A slot's label that could not be shown.
    #[error("a slot's label has 1 to {LABEL_BYTES_MAX} bytes and no control characters")]
    BadLabel,
    /// No room for another key epoch.
    #[error("the volume's key has been rotated {} times, and cannot be once more", EPOCHS_MAX - 1)]
    EpochsFull,
    /// The objects of an earlier epoch are still believed.
    #[error("a rotation of the volume's key is unfinished")]
    Rotating,
    /// Another header of this volume, or an older one.
    #[error("this is not the header that follows: {what}")]
    NotTheNext {
        /// What does not fit.
        what: &'static str,
    },
}

impl KeyError {
    pub(super) fn damaged(what: impl Into<String>) -> Self {
        Self::Damaged { what: what.into() }
    }
}
