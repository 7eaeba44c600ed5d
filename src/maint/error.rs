//! Why a volume could not be checked or repaired at all.

use crate::data::DataError;
use crate::meta::MetaError;
use crate::meta::engine::EngineError;
use crate::vault::VaultError;
use crate::volume::VolumeError;

/// Why a volume could not be checked or repaired at all. What a check finds is no error.
#[derive(Debug, thiserror::Error)]
pub enum MaintError {
    /// The records were replaced by newer ones again and again while they were read.
    #[error("the volume is being written faster than it can be checked; try again when it is quieter")]
    Moving,
    /// The volume could not be opened.
    #[error(transparent)]
    Volume(#[from] VolumeError),
    /// The records could not be read or written.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The bucket could not be listed or asked.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A segment could not be read at present.
    #[error(transparent)]
    Data(#[from] DataError),
}

impl From<EngineError> for MaintError {
    fn from(error: EngineError) -> Self {
        Self::Meta(error.into())
    }
}
