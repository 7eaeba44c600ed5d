//! What callers and the filesystem say to each other: attributes, callers, directory entries.

use serde::Serialize;

use crate::base::{FileKind, Ino, Time};
use crate::meta::Inode;

/// Who asks.
#[derive(Clone, Copy, Debug, Default)]
pub struct Caller {
    /// User id.
    pub uid: u32,
    /// Group id.
    pub gid: u32,
    /// Process id, 0 if unknown.
    pub pid: u32,
    /// File mode creation mask.
    pub umask: u32,
}

/// The attributes of an inode, as `stat(2)` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Attr {
    /// Inode number.
    pub ino: Ino,
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub perm: u16,
    /// Hard links.
    pub nlink: u32,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Device number of a device file.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Allocated units of 512 bytes.
    pub blocks: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
    /// Whether `blocks` will be another number after the next commit.
    pub is_unsettled: bool,
}

impl Attr {
    /// `pending` is what is about to be added to what is stored of it, if anything of it changes.
    pub(super) fn of(ino: Ino, inode: &Inode, pending: Option<u64>) -> Self {
        Self {
            ino,
            kind: inode.kind,
            perm: inode.perm,
            nlink: inode.nlink,
            uid: inode.uid,
            gid: inode.gid,
            rdev: inode.rdev,
            size: inode.size,
            blocks: inode.allocated.saturating_add(pending.unwrap_or(0)).div_ceil(512),
            atime: inode.atime,
            mtime: inode.mtime,
            ctime: inode.ctime,
            btime: inode.btime,
            is_unsettled: pending.is_some(),
        }
    }
}

/// A time to be set.
#[derive(Clone, Copy, Debug)]
pub enum SetTime {
    /// The time of the call.
    Now,
    /// This time.
    At(Time),
}

/// Attributes to be changed; `None` leaves one as it is.
#[derive(Clone, Copy, Debug, Default)]
pub struct SetAttr {
    /// Permission bits (`07777`).
    pub perm: Option<u16>,
    /// Owner.
    pub uid: Option<u32>,
    /// Group.
    pub gid: Option<u32>,
    /// Bytes.
    pub size: Option<u64>,
    /// Last access.
    pub atime: Option<SetTime>,
    /// Last change of the contents.
    pub mtime: Option<SetTime>,
    /// Last change of the inode.
    pub ctime: Option<Time>,
}

impl SetAttr {
    /// Whether the size is all that is changed, besides the times that tell of it.
    pub(super) fn is_size_only(&self) -> bool {
        let Self { perm, uid, gid, size, atime, mtime, ctime: _ } = self;
        size.is_some() && (perm, uid, gid).eq(&(&None, &None, &None)) && atime.is_none() && mtime.is_none()
    }
}

/// How `rename` treats what already has the new name.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenameMode {
    /// Replace it.
    Replace,
    /// Fail with [`Exists`](super::VfsError::Exists).
    NoReplace,
    /// Swap the two.
    Exchange,
}

/// How `set_xattr` treats what is already there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum XattrMode {
    /// Create or replace.
    Set,
    /// Fail if there is one.
    Create,
    /// Fail if there is none.
    Replace,
}

/// What `seek` looks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeekFor {
    /// The next byte that is stored.
    Data,
    /// The next byte that is not.
    Hole,
}

/// One name in a directory listing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirEntry {
    /// The inode it names.
    pub ino: Ino,
    /// What that is.
    pub kind: FileKind,
    /// The name; also `.` and `..`.
    pub name: Vec<u8>,
    /// Where a listing goes on after this entry. Stays valid while the directory changes.
    pub next: u64,
}

/// An open file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Handle(pub u64);

/// Space and inodes, as `statvfs(3)` has them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct StatFs {
    /// Bytes per block.
    pub block_bytes: u32,
    /// Blocks in all.
    pub blocks: u64,
    /// Blocks free.
    pub blocks_free: u64,
    /// Inodes in all.
    pub files: u64,
    /// Inodes free.
    pub files_free: u64,
}
