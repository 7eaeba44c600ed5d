//! Why a mount could not be reached, or did not do what it was asked.

use std::io;
use std::path::PathBuf;

use super::MountEntry;
use super::protocol::Failure;

/// What went wrong between a command and a mount.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Neither `XDG_RUNTIME_DIR` nor a home directory is set.
    #[error("no directory for sockets: neither XDG_RUNTIME_DIR nor HOME is set")]
    NoRuntimeDir,
    /// The directory is somebody else's.
    #[error("{} belongs to another user, so it is not used for sockets", .0.display())]
    UnsafeDir(PathBuf),
    /// A socket's path may have 107 bytes.
    #[error("the path of socket {} is too long; set XDG_RUNTIME_DIR to a shorter one", .0.display())]
    PathTooLong(PathBuf),
    /// No volume is mounted there, as far as the registry knows.
    #[error("no volume is mounted at {}", .0.display())]
    NotMounted(PathBuf),
    /// A volume is mounted there by another user.
    #[error("the volume at {} is mounted by another user (uid {uid})", .point.display())]
    OfAnother {
        /// Where.
        point: PathBuf,
        /// By whom.
        uid: u32,
    },
    /// A volume is mounted there by this user, and is in no registry that is known.
    #[error("a volume is mounted at {}, but its control socket is not where this process looks", .0.display())]
    Unknown(PathBuf),
    /// The mount's process does not answer.
    #[error("the process that serves {} is gone", .0.display())]
    Gone(PathBuf),
    /// The mount is still listed, and nobody serves it any more.
    #[error("the process that served {} has died ({pid}); what it had not sent may be lost", .point.display())]
    Died {
        /// The mount point.
        point: PathBuf,
        /// The number that the process had.
        pid: u32,
        /// What it served.
        url: String,
    },
    /// The socket is served by somebody who is neither this user nor root.
    #[error("the socket of {} is served by another user (uid {uid})", .point.display())]
    Stranger {
        /// The mount point.
        point: PathBuf,
        /// Whose process answers.
        uid: u32,
    },
    /// The mount hung up, or said something that is not of the protocol.
    #[error("the mount at {} ended the conversation: {why}", .point.display())]
    Broken {
        /// The mount point.
        point: PathBuf,
        /// What happened.
        why: String,
    },
    /// The mount refused or failed.
    #[error("{}", .0.message)]
    Failed(Failure),
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

impl ControlError {
    /// That the process of a mount has died.
    #[must_use]
    pub fn died(entry: MountEntry) -> Self {
        Self::Died { point: entry.mountpoint, pid: entry.pid, url: entry.url }
    }

    pub(super) fn io(what: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Self {
        let path = path.into();
        move |source| Self::Io { what, path, source }
    }
}
