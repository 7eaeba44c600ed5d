//! What can go wrong with sealed objects.

use std::fmt;

use crate::crypto::OpenError;
use crate::store::StoreError;

/// Why a sealed object could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum VaultError {
    /// The object was altered, truncated, swapped or moved.
    #[error("the object {0}")]
    Damaged(Damage),
    /// An object that must be there is not.
    #[error("the object {0} is missing")]
    Missing(String),
    /// The object is sealed with a key that came after those at hand.
    #[error(
        "the volume has a new key since it was opened here: {object} is of key epoch {found}, and {newest} was the newest"
    )]
    NewKey {
        /// The object's path in the bucket.
        object: String,
        /// Its key epoch.
        found: u16,
        /// The newest epoch at hand.
        newest: u16,
    },
    /// The object is sealed with a key that was rotated away: it was put there by somebody who had it, or put back.
    #[error(
        "the object {object} is sealed with the key of epoch {found}, which was rotated away; {floor} is expected"
    )]
    OldKey {
        /// The object's path in the bucket.
        object: String,
        /// Its key epoch.
        found: u16,
        /// The oldest epoch that is believed.
        floor: u16,
    },
    /// The bucket holds no volume.
    #[error("there is no volume header")]
    NoHeader,
    /// The bucket failed, or refuses; a name that is taken is [`StoreError::AlreadyExists`].
    #[error(transparent)]
    Store(StoreError),
}

/// Which object is damaged, and how it shows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The object's path in the bucket.
    pub object: String,
    /// What does not fit.
    pub what: String,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} is damaged: {}", self.object, self.what)
    }
}

impl VaultError {
    /// Whether the bucket's content, not its availability, is at fault.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(self, Self::Damaged(_) | Self::Missing(_) | Self::OldKey { .. })
    }

    /// Whether asking again may give something else.
    #[must_use]
    pub const fn is_final(&self) -> bool {
        self.is_damage() || matches!(self, Self::NewKey { .. })
    }

    /// What it means that `object` does not open.
    pub(super) fn refused(object: &str, error: OpenError) -> Self {
        let object = object.to_owned();
        match error {
            OpenError::NewerEpoch { found, newest } => Self::NewKey { object, found, newest },
            OpenError::OldEpoch { found, floor } => Self::OldKey { object, found, floor },
            error => Self::damaged(&object, error),
        }
    }

    pub(super) fn damaged(object: &str, what: impl fmt::Display) -> Self {
        Self::Damaged(Damage { object: object.to_owned(), what: what.to_string() })
    }
}

impl From<StoreError> for VaultError {
    fn from(error: StoreError) -> Self {
        match error {
            StoreError::NotFound { object } => Self::Missing(object),
            StoreError::Unfit { object, what } => Self::Damaged(Damage { object, what }),
            other => Self::Store(other),
        }
    }
}
