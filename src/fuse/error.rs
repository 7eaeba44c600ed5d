//! Why a volume could not be mounted or unmounted.

use std::io;
use std::path::PathBuf;

/// What went wrong at a mount point.
#[derive(Debug, thiserror::Error)]
pub enum MountError {
    /// There is no such directory.
    #[error("mount point {} does not exist", .0.display())]
    Missing(PathBuf),
    /// It is something else than a directory.
    #[error("mount point {} is not a directory", .0.display())]
    NotDirectory(PathBuf),
    /// It has entries, which the mount would hide.
    #[error("mount point {} is not empty (-o nonempty mounts over it)", .0.display())]
    NotEmpty(PathBuf),
    /// Something is mounted there.
    #[error("{source_name} is already mounted at {}", .path.display())]
    AlreadyMounted {
        /// The mount point.
        path: PathBuf,
        /// What the kernel calls the mounted thing.
        source_name: String,
    },
    /// The process behind a FUSE mount there is gone.
    #[error("a mount whose process has died is still at {path}; what it had not sent may be lost", path = .0.display())]
    Dead(PathBuf),
    /// The kernel has no FUSE, or it may not be used here.
    #[error("cannot open /dev/fuse (is the fuse module loaded?)")]
    NoFuse(#[source] io::Error),
    /// Mounting without being root needs this helper.
    #[error("cannot run fusermount3, which mounting needs without root (package fuse3)")]
    NoHelper(#[source] io::Error),
    /// The kernel or fusermount3 says no.
    #[error("mounting at {} was refused: {reason}", .path.display())]
    Refused {
        /// The mount point.
        path: PathBuf,
        /// The reason as it was given.
        reason: String,
    },
    /// A mount option is unknown or has no sense.
    #[error("mount option {0:?} is not supported")]
    BadOption(String),
    /// Files there are open, or a process has its working directory there.
    #[error("{} is in use; nothing was unmounted", .0.display())]
    Busy(PathBuf),
    /// Another filesystem is mounted inside this one.
    #[error("{} is mounted inside {}; unmount that first", .inside.display(), .path.display())]
    Holds {
        /// The mount point.
        path: PathBuf,
        /// Where the other one is mounted.
        inside: PathBuf,
    },
    /// It is mounted at other places as well, where it would live on.
    #[error("{} is also mounted at {}: unmount that first; nothing was unmounted", .path.display(), .other.display())]
    AlsoAt {
        /// The mount point.
        path: PathBuf,
        /// One of the others.
        other: PathBuf,
    },
    /// Another filesystem has been mounted over this one.
    #[error("another filesystem is mounted over {}; unmount that first", .0.display())]
    Covered(PathBuf),
    /// It was unmounted where this process can see it, and lives on elsewhere: a copy of the list of mounts, as
    /// containers have, still has it.
    #[error("{} was unmounted here, but {holder} still has it in another mount namespace", .path.display())]
    Elsewhere {
        /// The mount point.
        path: PathBuf,
        /// A process of that namespace.
        holder: String,
    },
    /// It was taken off the tree here, and the kernel has not let go of it: because it was taken away while it was in use, or
    /// because of a mount namespace of which nothing may be known.
    #[error("{} was unmounted here, but a file is open there still, or a mount namespace has it that may not be looked at", .0.display())]
    Lingers(PathBuf),
    /// Unmounting failed for another reason.
    #[error("unmounting {} failed: {reason}", .path.display())]
    NotUnmounted {
        /// The mount point.
        path: PathBuf,
        /// The reason as it was given.
        reason: String,
    },
    /// The conversation with the kernel broke.
    #[error("the kernel's FUSE connection failed: {0}")]
    Session(String),
    /// What programs wrote through maps could not be taken.
    #[error("what a program wrote to a file through a map could not be taken, and is lost")]
    LostPages {
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A system call failed.
    #[error("{what} failed at {}", .path.display())]
    Io {
        /// The call.
        what: &'static str,
        /// What it was about.
        path: PathBuf,
        /// Its error.
        #[source]
        source: io::Error,
    },
}
