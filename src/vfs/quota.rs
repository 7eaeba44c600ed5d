//! What a quota has room for. It counts what is stored and what is unsent, so that what an uncommitted change gives back counts until
//! it is committed: whom it refuses for that waits for the commit.

use futures::FutureExt;

use crate::base::{BLOCK_LEN, Ino};
use crate::meta::Inode;

use super::locate::{self, Located};
use super::txn::{Halt, Txn};
use super::{Vfs, VfsError};

impl Vfs {
    /// Sets what the volume may hold from now on, in plaintext bytes; 0 for no limit. Returns when the bucket has that. What is stored
    /// stays, also if it is more.
    ///
    /// # Errors
    /// [`VfsError::ReadOnly`], [`VfsError::Fenced`] and [`VfsError::ShutDown`]; or why it could not be committed.
    pub async fn set_quota(&self, bytes: u64) -> Result<(), VfsError> {
        {
            let mut state = self.state.lock();
            state.check_writable()?;
            state.quota_bytes = bytes;
        }
        self.commit(true, true).await?;
        let state = self.state.lock();
        match state.superblock.quota_bytes == bytes {
            true => Ok(()),
            // The mount ended, or somebody else has set another.
            false => state.check_writable(),
        }
    }

    /// Runs `op` and applies its changes, a second time after a commit if the quota has no room for them and something is to
    /// be committed.
    pub(super) async fn update_within_quota<T>(
        &self,
        mut op: impl FnMut(&mut Txn) -> Result<T, Halt> + Send,
    ) -> Result<T, VfsError> {
        match self.update(&mut op).await {
            Err(VfsError::NoSpace) if self.state.lock().latest_group().is_some() => {
                // Boxed, so that nobody has room for it who never waits.
                self.settle_space().boxed().await?;
                self.update(op).await
            }
            result => result,
        }
    }

    /// Returns when all changes so far are committed.
    async fn settle_space(&self) -> Result<(), VfsError> {
        let (group, _waiter) = {
            let mut state = self.state.lock();
            let Some(group) = state.latest_group() else { return Ok(()) };
            (group, self.wait_in(&mut state, None))
        };
        self.wait_for_commit(group).await
    }
}

/// Fails if the quota has no room for `len` bytes at `offset`, of which those that lie over stored ones need none.
pub(super) fn check_write(txn: &mut Txn, ino: Ino, inode: &Inode, offset: u64, len: u64) -> Result<(), Halt> {
    // Where blocks are is looked up only if it matters.
    if txn.state().check_quota(len).is_ok() {
        return Ok(());
    }
    let (mut at, end, mut added) = (offset, offset.saturating_add(len), len);
    while at < end.min(inode.size) {
        let index = at / BLOCK_LEN;
        let begin = index * BLOCK_LEN;
        let stored = match locate::current(txn, ino, inode, index)? {
            Located::Hole => 0,
            Located::Bytes(bytes) => bytes.len() as u64,
            Located::Stored(stored) => u64::from(stored.place.piece.plain),
        };
        let covered_end = (begin + stored).min(end);
        added = added.saturating_sub(covered_end.saturating_sub(at));
        at = begin + BLOCK_LEN;
    }
    Ok(txn.state().check_quota(added)?)
}
