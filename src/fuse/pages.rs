//! How the kernel is made to send what it keeps of files that programs wrote to through maps.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use fuser::INodeNo;
use rustix::io::Errno;
use tokio::sync::Semaphore;

use super::core::Core;
use super::{Device, kernel, mountinfo};
use crate::base::Ino;

/// How many threads may wait at once for the kernel to send pages. It has them wait for answers from this process, which need
/// threads of the same pool: so they are far fewer than that has.
const FLUSHES_MAX: usize = 2;
/// How long anybody waits for that.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Where a mount is.
#[derive(Clone, Debug)]
pub(super) struct Home {
    pub(super) point: Arc<Path>,
    pub(super) device: Device,
}

impl Home {
    /// Has the kernel send the pages of all files, and keep them. Says whether it has: not if nothing of the mount can be reached.
    /// Waits for the answers of this very process.
    pub(super) fn send_all(&self) -> io::Result<bool> {
        let place = mountinfo::place_of(&self.point, self.device).ok().flatten();
        kernel::flush_pages(&place.unwrap_or_else(|| PathBuf::from(&*self.point)), self.device)
    }
}

/// Whether an error of [`Home::send_all`] tells of pages that could not be sent and are gone, rather than of the mount.
pub(super) fn is_of_lost_pages(error: &io::Error) -> bool {
    let lost = [Errno::NOSPC, Errno::DQUOT, Errno::IO, Errno::FBIG].map(Errno::raw_os_error);
    error.raw_os_error().is_some_and(|errno| lost.contains(&errno))
}

/// Who asks the kernel for pages.
#[derive(Debug)]
pub(super) struct Pages {
    home: OnceLock<Home>,
    turns: Arc<Semaphore>,
}

impl Default for Pages {
    fn default() -> Self {
        Self { home: OnceLock::new(), turns: Arc::new(Semaphore::new(FLUSHES_MAX)) }
    }
}

impl Pages {
    /// Set once the mount has a place.
    pub(super) fn set_home(&self, home: Home) {
        let _ = self.home.set(home);
    }
}

impl Core {
    /// Has the kernel send what it keeps of a file's pages that were written to through maps. Says whether it has: not
    /// while there is no room for them, for whose answer the kernel waits.
    ///
    /// It sends and forgets the pages of one file, or sends those of all and forgets none. The former is not for a file that may be being written
    /// to: what a program writes is in its page before we are told of it, and who reads in between brings back what was there before.
    pub(super) async fn send_pages(&self, ino: Ino) -> bool {
        let Some(notifier) = self.notifier().cloned() else { return true };
        let home = self.pages.home.get().cloned();
        let may_be_written = self.opens.may_be_written(ino);
        let turns = Arc::clone(&self.pages.turns);
        // It sends them by requests of its own, which other threads answer meanwhile.
        let sending = async move {
            let turn = turns.acquire_owned().await;
            let send = move || {
                let sent = match home {
                    Some(home) if may_be_written => home.send_all(),
                    _ if may_be_written => Ok(false),
                    _ => match notifier.inval_inode(INodeNo(ino.0), 0, 0) {
                        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(true),
                        sent => sent.map(|()| true),
                    },
                };
                drop(turn);
                sent
            };
            tokio::task::spawn_blocking(send).await
        };
        match tokio::time::timeout(FLUSH_PATIENCE, sending).await {
            Ok(Ok(Ok(true))) => self.opens.flushed(ino),
            Ok(Ok(Err(error))) => tracing::debug!(%ino, %error, "the kernel did not send all pages"),
            Ok(Err(error)) => tracing::warn!(%ino, %error, "the kernel was not asked for a file's pages"),
            Ok(Ok(Ok(false))) | Err(_) => return false,
        }
        true
    }
}
