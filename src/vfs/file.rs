//! Open files: opening, writing, making durable.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::{FILE_BYTES_MAX, FileKind, Ino};
use crate::data::ReadAhead;

use super::metadata::{drop_privileges, set_attributes};
use super::quota;
use super::room::Need;
use super::state::Phase;
use super::txn::{Halt, Txn};
use super::{Caller, Handle, SetAttr, Vfs, VfsError};

/// What a write takes of the privileges that a file gives to the program in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Drops {
    /// Setuid, setgid and capabilities, because somebody without privileges writes.
    All,
    /// Capabilities: they belong to what the program was, whoever changes it.
    Capabilities,
    /// Nothing, because the kernel hands over what was written through a map, perhaps before they were given.
    Nothing,
}

/// What is remembered of an open file.
pub(super) struct OpenFile {
    pub(super) ino: Ino,
    pub(super) ahead: ReadAhead,
}

impl Vfs {
    /// Opens a file. The handle holds a reference to it.
    ///
    /// # Errors
    /// [`VfsError::IsDirectory`] for a directory.
    pub async fn open(&self, ino: Ino, write: bool, truncate: bool) -> Result<Handle, VfsError> {
        if write || truncate {
            self.state.lock().check_writable()?;
        }
        let refer = |txn: &mut Txn| -> Result<(), Halt> {
            match txn.inode(ino)?.kind {
                FileKind::Directory => Err(VfsError::IsDirectory.into()),
                FileKind::Regular => {
                    if truncate {
                        let set = SetAttr { size: Some(0), ..SetAttr::default() };
                        set_attributes(self, txn, &Caller::default(), ino, &set)?;
                    }
                    txn.refer(ino);
                    Ok(())
                }
                _ => Err(VfsError::InvalidInput.into()),
            }
        };
        // The reference is taken last and given to the handle without waiting: nobody can go away
        // between the two.
        match truncate {
            true => self.remove(refer).await?,
            false => self.read_txn(refer).await?,
        }
        let number = self.next_handle.fetch_add(1, Ordering::Relaxed);
        let ahead = ReadAhead::new(self.options.read_ahead_bytes);
        self.handles.lock().insert(number, OpenFile { ino, ahead });
        Ok(Handle(number))
    }

    /// Closes a file.
    pub fn release(&self, handle: Handle) {
        let closed = self.handles.lock().remove(&handle.0);
        if let Some(open) = closed {
            self.forget(open.ino, 1);
        }
    }

    /// Writes `data` at `offset` of `ino`, all of it or nothing, for somebody who may leave setuid and setgid or not.
    ///
    /// # Errors
    /// Those of [`Vfs::write_dropping`].
    pub fn write(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        is_privileged: bool,
    ) -> impl Future<Output = Result<usize, VfsError>> {
        let drops = if is_privileged { Drops::Capabilities } else { Drops::All };
        self.write_dropping(ino, offset, data, drops)
    }

    /// Writes `data` at `offset` of `ino`, all of it or nothing.
    ///
    /// # Errors
    /// [`VfsError::FileTooBig`], [`VfsError::NoSpace`], and why an earlier write was lost.
    pub async fn write_dropping(
        &self,
        ino: Ino,
        offset: u64,
        data: &[u8],
        drops: Drops,
    ) -> Result<usize, VfsError> {
        let end = offset.checked_add(data.len() as u64).filter(|end| *end <= FILE_BYTES_MAX);
        let end = end.ok_or(VfsError::FileTooBig)?;
        if data.is_empty() {
            return Ok(0);
        }
        self.wait_for_room(Need::Bytes(data.len())).await?;
        self.update_within_quota(|txn| {
            let mut inode = txn.regular(ino)?;
            quota::check_write(txn, ino, &inode, offset, data.len() as u64)?;
            let (size, now) = (inode.size, txn.now);
            let change = Arc::make_mut(&mut inode);
            change.size = size.max(end);
            change.mtime = now;
            change.ctime = now;
            if drops == Drops::All {
                drop_privileges(change);
            }
            match drops {
                Drops::Nothing => txn.put_written(ino, inode),
                Drops::All | Drops::Capabilities => self.put_changed(txn, ino, inode)?,
            }
            txn.dirty().write(ino, offset, data, size);
            Ok(())
        })
        .await?;
        self.send_full_blocks();
        Ok(data.len())
    }

    /// Returns when all changes to `ino` so far are in the bucket.
    ///
    /// # Errors
    /// Why they cannot be; [`VfsError::NotYet`] if they are not after `fsync_timeout`.
    pub async fn fsync(&self, ino: Ino, _data_only: bool) -> Result<(), VfsError> {
        let begun = self.clock.elapsed();
        let result = self.make_durable(ino).await;
        self.fsync_times.add(self.clock.elapsed().saturating_sub(begun));
        result
    }

    async fn make_durable(&self, ino: Ino) -> Result<(), VfsError> {
        let waiting = {
            let mut state = self.state.lock();
            if let Some(why) = state.lost.remove(&ino) {
                return Err(VfsError::LostWrite(why));
            }
            state.group_of(ino).map(|group| (group, self.wait_in(&mut state, Some(ino))))
        };
        match waiting {
            Some((group, _waiter)) => {
                self.wait_with_limit(group).await?;
                match self.state.lock().lost.remove(&ino) {
                    Some(why) => Err(VfsError::LostWrite(why)),
                    None => Ok(()),
                }
            }
            None => Ok(()),
        }
    }

    async fn wait_with_limit(&self, group: u64) -> Result<(), VfsError> {
        let Some(limit) = self.options.fsync_timeout else { return self.wait_for_commit(group).await };
        match tokio::time::timeout(limit, self.wait_for_commit(group)).await {
            Ok(result) => result,
            Err(_) => {
                tracing::warn!(
                    ?limit,
                    "fsync was not done in time and failed; what it waited for is still being saved"
                );
                Err(VfsError::NotYet(limit))
            }
        }
    }

    /// Returns when all changes so far are in the bucket.
    ///
    /// # Errors
    /// Why they cannot be.
    pub async fn sync_all(&self) -> Result<(), VfsError> {
        let (group, _waiter) = {
            let mut state = self.state.lock();
            match state.latest_group() {
                Some(group) => (group, self.wait_in(&mut state, None)),
                None => return state.nothing_lost(),
            }
        };
        self.wait_for_commit(group).await?;
        self.state.lock().nothing_lost()
    }

    pub(super) async fn wait_for_commit(&self, group: u64) -> Result<(), VfsError> {
        self.signals.wanted.notify_one();
        loop {
            let progressed = self.signals.progressed.notified();
            tokio::pin!(progressed);
            progressed.as_mut().enable();
            let seen = *self.signals.progress.lock();
            if seen.committed >= group {
                return Ok(());
            }
            match seen.phase {
                Phase::Writable => {}
                Phase::ReadOnly => return Err(VfsError::ReadOnly),
                Phase::Fenced => return Err(VfsError::Fenced),
                Phase::ShutDown => return Err(VfsError::ShutDown),
            }
            if let Some(why) = self.state.lock().stuck.clone().filter(|_| seen.is_stuck) {
                return Err(why);
            }
            progressed.await;
        }
    }
}
