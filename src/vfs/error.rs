//! Why an operation failed, and the errno of each reason.

use crate::base::NameError;
use crate::data::DataError;
use crate::meta::MetaError;
use crate::meta::engine::EngineError;

/// Why an operation failed.
#[derive(Clone, Debug, thiserror::Error)]
pub enum VfsError {
    /// `ENOENT`.
    #[error("no such file or directory")]
    NoEntry,
    /// `EEXIST`.
    #[error("it exists already")]
    Exists,
    /// `ENOTEMPTY`.
    #[error("the directory is not empty")]
    NotEmpty,
    /// `ENOTDIR`.
    #[error("not a directory")]
    NotDirectory,
    /// `EISDIR`.
    #[error("it is a directory")]
    IsDirectory,
    /// `ENAMETOOLONG`.
    #[error("the name is longer than 255 bytes")]
    NameTooLong,
    /// `EINVAL`.
    #[error("invalid argument")]
    InvalidInput,
    /// `EMLINK`.
    #[error("too many hard links")]
    TooManyLinks,
    /// `ENOSPC`.
    #[error("the volume's quota is used up")]
    NoSpace,
    /// `EROFS`.
    #[error("the filesystem is read-only")]
    ReadOnly,
    /// `EROFS`: another process has taken the volume over.
    #[error("another writer has taken this volume over; this mount is read-only now")]
    Fenced,
    /// `EFBIG`.
    #[error("the file would be too large")]
    FileTooBig,
    /// `ENODATA`.
    #[error("no such attribute")]
    NoAttribute,
    /// `E2BIG`.
    #[error("the attribute is too large")]
    TooBig,
    /// `ERANGE`.
    #[error("the attribute's name is too long")]
    Range,
    /// `ENXIO`: no data or hole after this offset.
    #[error("no data after this offset")]
    NoData,
    /// `EOPNOTSUPP`.
    #[error("not supported")]
    NotSupported,
    /// `EPERM`.
    #[error("not permitted")]
    NotPermitted,
    /// `EBADF`.
    #[error("bad file handle")]
    BadHandle,
    /// `EIO`: a stored block cannot be read.
    #[error(transparent)]
    Data(#[from] DataError),
    /// `EIO`: a record cannot be read or written.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// `EIO`: an earlier write of this file could not be stored.
    #[error("an earlier write to this file could not be stored: {0}")]
    LostWrite(String),
    /// `EIO`: everything is in the bucket but writes to so many files, which could not be stored.
    #[error("writes to {files} could not be stored, the first because {why}")]
    LostWrites {
        /// How many, in words.
        files: String,
        /// Why, for one of them.
        why: String,
    },
    /// `EIO`: everything is in the bucket, and this machine could not note that it has seen it.
    #[error(
        "everything is in the bucket, but the last commit could not be noted on this machine ({0}): an older state of the \
         volume would not be noticed here"
    )]
    Unnoted(String),
    /// `EIO`: the bucket takes longer than the caller shall wait. Nothing is lost, and it goes on.
    #[error("not in the bucket within {0:?}; saving goes on")]
    NotYet(std::time::Duration),
    /// `EKEYREVOKED`: the volume's key was rotated, and what was written since then does not open here.
    #[error("the volume has a new key since this mount began; mount it again")]
    NewKey,
    /// `ESTALE`: of the commit that a reader stays at, this has been removed meanwhile.
    #[error("it changed while the volume was being read, and what it was is not kept any more")]
    GoneOn,
    /// `EIO`: segments that are sealed with an older key cannot be sealed anew.
    #[error(
        "{segments} cannot be sealed with the new key, because something in them is damaged or missing: {first}"
    )]
    NotRenewed {
        /// How many, in words.
        segments: String,
        /// One of them.
        first: String,
    },
    /// `EIO`: the filesystem has been shut down.
    #[error("the filesystem is shut down")]
    ShutDown,
}

impl VfsError {
    /// Whether waiting may cure it: the bucket is out of reach, or refuses us for now.
    #[must_use]
    pub const fn is_passing(&self) -> bool {
        matches!(
            self,
            Self::Data(DataError::Unavailable { .. })
                | Self::Meta(MetaError::Engine(EngineError::Unavailable(_) | EngineError::Denied(_)))
        )
    }

    /// Whether what was asked for is damaged or missing in the bucket.
    #[must_use]
    pub const fn is_damage(&self) -> bool {
        matches!(
            self,
            Self::Data(DataError::Damaged { .. } | DataError::Missing { .. } | DataError::Extents(_))
                | Self::Meta(
                    MetaError::Record { .. }
                        | MetaError::Missing(_)
                        | MetaError::Inconsistent { .. }
                        | MetaError::Engine(EngineError::Damaged(_))
                )
        )
    }

    /// The error number of `errno(3)`.
    #[must_use]
    pub const fn errno(&self) -> i32 {
        match self {
            Self::NoEntry => libc::ENOENT,
            Self::Exists => libc::EEXIST,
            Self::NotEmpty => libc::ENOTEMPTY,
            Self::NotDirectory => libc::ENOTDIR,
            Self::IsDirectory => libc::EISDIR,
            Self::NameTooLong => libc::ENAMETOOLONG,
            Self::InvalidInput => libc::EINVAL,
            Self::TooManyLinks => libc::EMLINK,
            Self::NoSpace => libc::ENOSPC,
            Self::ReadOnly | Self::Fenced => libc::EROFS,
            Self::FileTooBig => libc::EFBIG,
            Self::NoAttribute => libc::ENODATA,
            Self::TooBig => libc::E2BIG,
            Self::Range => libc::ERANGE,
            Self::NoData => libc::ENXIO,
            Self::NotSupported => libc::EOPNOTSUPP,
            Self::NotPermitted => libc::EPERM,
            Self::BadHandle => libc::EBADF,
            Self::NewKey | Self::Meta(MetaError::Engine(EngineError::NewKey)) => libc::EKEYREVOKED,
            Self::GoneOn => libc::ESTALE,
            Self::Data(_)
            | Self::Meta(_)
            | Self::LostWrite(_)
            | Self::LostWrites { .. }
            | Self::Unnoted(_)
            | Self::NotYet(_)
            | Self::NotRenewed { .. }
            | Self::ShutDown => libc::EIO,
        }
    }
}

impl From<NameError> for VfsError {
    fn from(error: NameError) -> Self {
        match error {
            NameError::TooLong => Self::NameTooLong,
            NameError::Empty => Self::NoEntry,
            NameError::Reserved => Self::InvalidInput,
        }
    }
}
