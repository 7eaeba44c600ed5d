//! Attributes: reading them, changing them, and the volume's totals.

use std::sync::Arc;

use crate::base::{BLOCK_BYTES, FILE_BYTES_MAX, FileKind, Ino, Time};
use crate::meta::Inode;

use super::txn::{Halt, Txn};
use super::{Attr, Caller, SetAttr, SetTime, StatFs, Vfs, VfsError};

/// Setuid and setgid.
const SETUID: u16 = 0o4000;
const SETGID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;
/// Bytes that a volume without a quota says it has (1 PiB): a bucket has no end.
const ENDLESS_BYTES: u64 = 1 << 50;
/// Inodes that a volume says it has.
const ENDLESS_FILES: u64 = 1 << 40;

/// Takes setuid away, and setgid where it means a group and not mandatory locking, as Linux does
/// when contents or owner change.
pub(super) fn drop_privileges(inode: &mut Inode) {
    if inode.kind != FileKind::Regular {
        return;
    }
    inode.perm &= !SETUID;
    if inode.perm & GROUP_EXECUTE != 0 {
        inode.perm &= !SETGID;
    }
}

impl Vfs {
    /// The attributes of `ino`.
    ///
    /// # Errors
    /// [`VfsError::NoEntry`] if there is no such inode.
    pub async fn getattr(&self, ino: Ino) -> Result<Attr, VfsError> {
        self.read_txn(|txn| {
            let inode = txn.inode(ino)?;
            Ok(Attr::of(ino, &inode, txn.pending_of(ino)))
        })
        .await
    }

    /// Changes attributes.
    ///
    /// # Errors
    /// [`VfsError::FileTooBig`] and [`VfsError::IsDirectory`] for a size that cannot be.
    pub async fn setattr(&self, caller: &Caller, ino: Ino, set: &SetAttr) -> Result<Attr, VfsError> {
        let change = |txn: &mut Txn| set_attributes(self, txn, caller, ino, set);
        match set.size {
            Some(_) => self.remove(change).await,
            None => self.update(change).await,
        }
    }

    /// Space and inodes of the volume.
    ///
    /// # Errors
    /// None at present.
    pub async fn statfs(&self) -> Result<StatFs, VfsError> {
        let state = self.state.lock();
        let block_bytes = BLOCK_BYTES as u64;
        let used = state.used_bytes();
        let all = match state.quota_bytes {
            0 => ENDLESS_BYTES.max(used),
            quota => quota.max(used),
        };
        let files = state.superblock.files.saturating_add_signed(state.files_delta);
        Ok(StatFs {
            block_bytes: BLOCK_BYTES as u32,
            blocks: all / block_bytes,
            blocks_free: (all - used) / block_bytes,
            files: ENDLESS_FILES,
            files_free: ENDLESS_FILES.saturating_sub(files),
        })
    }
}

/// Changes attributes of `ino`. Nothing may fail after it.
pub(super) fn set_attributes(
    vfs: &Vfs,
    txn: &mut Txn,
    caller: &Caller,
    ino: Ino,
    set: &SetAttr,
) -> Result<Attr, Halt> {
    if set.size.is_some_and(|size| size > FILE_BYTES_MAX) {
        return Err(VfsError::FileTooBig.into());
    }
    let mut inode = txn.inode(ino)?;
    let now = txn.now;
    let size_before = inode.size;
    let mut is_written = set.is_size_only();
    let change = Arc::make_mut(&mut inode);
    if let Some(size) = set.size {
        match change.kind {
            FileKind::Regular => {}
            FileKind::Directory => return Err(VfsError::IsDirectory.into()),
            _ => return Err(VfsError::InvalidInput.into()),
        }
        change.size = size;
        change.mtime = now;
        if caller.uid != 0 {
            drop_privileges(change);
        }
        is_written &= !vfs.take_capabilities(txn, ino, change)?;
    }
    if set.uid.is_some() || set.gid.is_some() {
        change.uid = set.uid.unwrap_or(change.uid);
        change.gid = set.gid.unwrap_or(change.gid);
        drop_privileges(change);
    }
    if let Some(perm) = set.perm {
        change.perm = perm & 0o7777;
    }
    set_time(&mut change.atime, set.atime, now);
    set_time(&mut change.mtime, set.mtime, now);
    change.ctime = set.ctime.unwrap_or(now);
    match is_written {
        true => txn.put_written(ino, Arc::clone(&inode)),
        false => txn.put_inode(ino, Arc::clone(&inode)),
    }
    if let Some(size) = set.size {
        txn.dirty().truncate(ino, size_before, size);
    }
    Ok(Attr::of(ino, &inode, txn.pending_of(ino)))
}

fn set_time(time: &mut Time, set: Option<SetTime>, now: Time) {
    match set {
        Some(SetTime::Now) => *time = now,
        Some(SetTime::At(at)) => *time = at,
        None => {}
    }
}
