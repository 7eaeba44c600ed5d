//! Why the tree's records could not be read or written.

use super::Key;
use super::engine::EngineError;

/// Why the tree's records could not be read or written.
#[derive(Clone, Debug, thiserror::Error)]
pub enum MetaError {
    /// A record is not of this format.
    #[error("metadata record {key:?} cannot be read: {why}")]
    Record {
        /// Its key.
        key: Key,
        /// What is wrong.
        why: String,
    },
    /// A record that another one promises is not there.
    #[error("metadata record {0:?} is missing")]
    Missing(Key),
    /// A record has a value that cannot be.
    #[error("metadata record {key:?} is inconsistent: {why}")]
    Inconsistent {
        /// Its key.
        key: Key,
        /// What is wrong.
        why: &'static str,
    },
    /// A record does not fit the format.
    #[error("a metadata record cannot be encoded: {0}")]
    Encode(String),
    /// The engine failed.
    #[error(transparent)]
    Engine(#[from] EngineError),
}

impl MetaError {
    /// Whether what the bucket holds, not whether it answers, is at fault.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Record { .. }
                | Self::Missing(_)
                | Self::Inconsistent { .. }
                | Self::Engine(EngineError::Damaged(_) | EngineError::Missing)
        )
    }
}
