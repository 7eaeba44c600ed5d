//! How the kernel is made to send what it keeps of a file that a program wrote to through a map.

use std::sync::Arc;
use std::time::Duration;

use fuser::INodeNo;
use tokio::sync::Semaphore;

use super::core::Core;
use crate::base::Ino;

/// How many threads may wait at once for the kernel to send pages. It has them wait for answers from this process, which need
/// threads of the same pool: so they are far fewer than that has.
const FLUSHES_MAX: usize = 2;
/// How long anybody waits for that.
const FLUSH_PATIENCE: Duration = Duration::from_secs(5);

/// Who asks the kernel for pages.
#[derive(Debug)]
pub(super) struct Pages(Arc<Semaphore>);

impl Default for Pages {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(FLUSHES_MAX)))
    }
}

impl Core {
    /// Has the kernel send what it keeps of a file's pages that were written to through maps, and forget them. Says whether it
    /// has: not while there is no room for them, for whose answer the kernel waits; and not while anybody has the file open for
    /// writing by another handle than this. What he writes is in its page before we are told of it: if that is forgotten in
    /// between, and somebody reads, he brings back what was there before.
    pub(super) async fn send_pages(&self, ino: Ino, handle: u64) -> bool {
        if self.opens.may_be_written_by_others(ino, handle) {
            return false;
        }
        let Some(notifier) = self.notifier().cloned() else { return true };
        let turns = Arc::clone(&self.pages.0);
        // It sends them by requests of its own, which other threads answer meanwhile.
        let sending = async move {
            let turn = turns.acquire_owned().await;
            let send = move || {
                let sent = notifier.inval_inode(INodeNo(ino.0), 0, 0);
                drop(turn);
                sent
            };
            tokio::task::spawn_blocking(send).await
        };
        match tokio::time::timeout(FLUSH_PATIENCE, sending).await {
            Ok(Ok(Ok(()))) => self.opens.flushed(ino),
            Ok(Ok(Err(error))) => tracing::debug!(%ino, %error, "the kernel keeps no pages of it"),
            Ok(Err(error)) => tracing::warn!(%ino, %error, "the kernel was not asked for a file's pages"),
            Err(_) => return false,
        }
        true
    }
}
