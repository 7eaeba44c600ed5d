//! What can go wrong with sealed objects.

use std::fmt;

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
        matches!(self, Self::Damaged(_) | Self::Missing(_))
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
