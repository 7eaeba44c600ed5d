//! What can go wrong between a file's blocks and the segments that hold them.

use std::sync::Arc;

use crate::base::{BLOCK_BYTES, ExtentError, SegmentId};
use crate::vault::VaultError;

/// An error of the data room. Cheap to clone, because all who wait for one fetch get the same.
#[derive(Clone, Debug, thiserror::Error)]
pub enum DataError {
    /// The bytes in the bucket are not those that were sealed.
    #[error("segment {segment} is damaged at byte {pos}: {why}")]
    Damaged {
        /// The segment.
        segment: SegmentId,
        /// Where in the segment object.
        pos: u32,
        /// Which check failed.
        why: &'static str,
    },
    /// The segment is not in the bucket.
    #[error("segment {segment} is missing from the bucket")]
    Missing {
        /// The segment.
        segment: SegmentId,
    },
    /// The segment cannot be fetched now; it may be later.
    #[error("segment {segment} cannot be read now")]
    Unavailable {
        /// The segment.
        segment: SegmentId,
        /// What the vault said; `None` when the fetch itself was stopped.
        source: Option<Arc<VaultError>>,
    },
    /// A block's contents have an impossible length.
    #[error("a block of {bytes} bytes is not between 1 and {BLOCK_BYTES}")]
    BlockLength {
        /// Its length.
        bytes: usize,
    },
    /// The segment under construction takes no more.
    #[error("segment {segment} is full")]
    SegmentFull {
        /// The segment.
        segment: SegmentId,
    },
    /// A decoded extent record breaks a rule of docs/FORMAT.md.
    #[error(transparent)]
    Extents(#[from] ExtentError),
}

impl DataError {
    pub(super) fn from_vault(segment: SegmentId, error: VaultError) -> Self {
        match error {
            VaultError::Missing(_) => Self::Missing { segment },
            VaultError::OldKey { .. } => {
                Self::Damaged { segment, pos: 0, why: "it is sealed with a key that was rotated away" }
            }
            VaultError::NewKey { .. } => {
                Self::Damaged { segment, pos: 0, why: "it is sealed with a newer key than those at hand" }
            }
            other if other.is_damage() => {
                Self::Damaged { segment, pos: 0, why: "the object is not what its record says" }
            }
            other => Self::Unavailable { segment, source: Some(Arc::new(other)) },
        }
    }
}
