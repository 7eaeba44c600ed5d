//! Turns `fuser`'s vocabulary into ours and back: attributes, kinds, times, flags, errors.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use fuser::{Errno, FileAttr, FileType, INodeNo, RenameFlags, ReplyStatfs, TimeOrNow};

use crate::base::{BLOCK_BYTES, FileKind, Ino, NAME_BYTES_MAX, Time};
use crate::vfs::{Attr, RenameMode, SeekFor, SetTime, StatFs, VfsError, XattrMode};

/// What `stat` reports as the best size for reads and writes.
///
/// One block: stdio and most copying tools take it as their buffer size, and with direct I/O each of their
/// writes is one request, so 4 KiB would cost sixteen requests where 64 KiB costs one.
const BLKSIZE: u32 = BLOCK_BYTES as u32;

/// Permission bits with setuid, setgid and sticky.
const PERM_MASK: u32 = 0o7777;

/// A refused operation, as the number the caller will see.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Refusal(pub(super) Errno);

impl From<VfsError> for Refusal {
    fn from(error: VfsError) -> Self {
        Self(Errno::from_i32(error.errno()))
    }
}

pub(super) fn file_attr(attr: &Attr) -> FileAttr {
    FileAttr {
        ino: INodeNo(attr.ino.0),
        size: attr.size,
        blocks: attr.blocks,
        atime: attr.atime.to_system(),
        mtime: attr.mtime.to_system(),
        ctime: attr.ctime.to_system(),
        crtime: attr.btime.to_system(),
        kind: file_type(attr.kind),
        perm: attr.perm,
        nlink: attr.nlink,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        blksize: BLKSIZE,
        flags: 0,
    }
}

/// The attributes of a name that does not exist: inode 0 is what lets the kernel remember the absence.
pub(super) fn absent() -> FileAttr {
    FileAttr {
        ino: INodeNo(0),
        size: 0,
        blocks: 0,
        atime: UNIX_EPOCH,
        mtime: UNIX_EPOCH,
        ctime: UNIX_EPOCH,
        crtime: UNIX_EPOCH,
        kind: FileType::RegularFile,
        perm: 0,
        nlink: 0,
        uid: 0,
        gid: 0,
        rdev: 0,
        blksize: BLKSIZE,
        flags: 0,
    }
}

pub(super) const fn file_type(kind: FileKind) -> FileType {
    match kind {
        FileKind::Regular => FileType::RegularFile,
        FileKind::Directory => FileType::Directory,
        FileKind::Symlink => FileType::Symlink,
        FileKind::Fifo => FileType::NamedPipe,
        FileKind::CharDevice => FileType::CharDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Socket => FileType::Socket,
    }
}

/// What `mknod(2)` asks for in `mode`; no type at all means a regular file. `None`: nothing it can make.
pub(super) const fn node_kind(mode: u32) -> Option<FileKind> {
    match mode & libc::S_IFMT {
        0 | libc::S_IFREG => Some(FileKind::Regular),
        libc::S_IFIFO => Some(FileKind::Fifo),
        libc::S_IFCHR => Some(FileKind::CharDevice),
        libc::S_IFBLK => Some(FileKind::BlockDevice),
        libc::S_IFSOCK => Some(FileKind::Socket),
        _ => None,
    }
}

/// From where `lseek(2)` looks for what.
pub(super) fn seek_for(offset: i64, whence: i32) -> Result<(u64, SeekFor), Errno> {
    let what = match whence {
        libc::SEEK_DATA => SeekFor::Data,
        libc::SEEK_HOLE => SeekFor::Hole,
        _ => return Err(Errno::EINVAL),
    };
    u64::try_from(offset).map(|offset| (offset, what)).map_err(|_| Errno::ENXIO)
}

pub(super) fn answer_statfs(reply: ReplyStatfs, about: &StatFs) {
    let (block, name) = (about.block_bytes, NAME_BYTES_MAX as u32);
    let (free, files_free) = (about.blocks_free, about.files_free);
    reply.statfs(about.blocks, free, free, about.files, files_free, block, name, block);
}

pub(super) const fn perm(mode: u32) -> u16 {
    (mode & PERM_MASK) as u16
}

pub(super) const fn ino(ino: INodeNo) -> Ino {
    Ino(ino.0)
}

/// Undoes what `fuser` 0.18.0 does to a time the kernel sent.
///
/// The kernel means `secs + nanos`, nanos counting forward; `fuser` computes `-(|secs| + nanos)` for negative
/// seconds. That is wrong but loses nothing, so the kernel's two numbers can be had back.
pub(super) fn time_from_kernel(time: SystemTime) -> Time {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => Time { secs: clamped(after), nanos: after.subsec_nanos() },
        Err(error) => {
            let before = error.duration();
            Time { secs: -clamped(before), nanos: before.subsec_nanos() }
        }
    }
}

fn clamped(duration: Duration) -> i64 {
    i64::try_from(duration.as_secs()).unwrap_or(i64::MAX)
}

pub(super) fn set_time(time: TimeOrNow) -> SetTime {
    match time {
        TimeOrNow::Now => SetTime::Now,
        TimeOrNow::SpecificTime(time) => SetTime::At(time_from_kernel(time)),
    }
}

/// `RENAME_WHITEOUT` and combinations are not for us: `None`.
pub(super) fn rename_mode(flags: RenameFlags) -> Option<RenameMode> {
    if flags.is_empty() {
        Some(RenameMode::Replace)
    } else if flags == RenameFlags::RENAME_NOREPLACE {
        Some(RenameMode::NoReplace)
    } else if flags == RenameFlags::RENAME_EXCHANGE {
        Some(RenameMode::Exchange)
    } else {
        None
    }
}

pub(super) const fn xattr_mode(flags: i32) -> Option<XattrMode> {
    match flags {
        0 => Some(XattrMode::Set),
        libc::XATTR_CREATE => Some(XattrMode::Create),
        libc::XATTR_REPLACE => Some(XattrMode::Replace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `fuser` 0.18.0 makes of the kernel's numbers (`src/time.rs`).
    fn as_fuser_reads(secs: i64, nanos: u32) -> SystemTime {
        if secs >= 0 {
            UNIX_EPOCH + Duration::new(secs.unsigned_abs(), nanos)
        } else {
            UNIX_EPOCH - Duration::new(secs.unsigned_abs(), nanos)
        }
    }

    #[test]
    fn every_time_the_kernel_sends_arrives_as_it_was_meant() {
        for (secs, nanos) in [
            (0, 0),
            (0, 1),
            (1, 999_999_999),
            (-1, 0),
            (-1, 1),
            (-1, 500_000_000),
            (-2_000_000_000, 999_999_999),
            (4_000_000_000, 7),
        ] {
            assert_eq!(time_from_kernel(as_fuser_reads(secs, nanos)), Time { secs, nanos });
        }
    }

    #[test]
    fn mknod_makes_what_its_mode_says_and_nothing_else() {
        assert_eq!(node_kind(0o644), Some(FileKind::Regular));
        assert_eq!(node_kind(libc::S_IFREG | 0o644), Some(FileKind::Regular));
        assert_eq!(node_kind(libc::S_IFIFO), Some(FileKind::Fifo));
        assert_eq!(node_kind(libc::S_IFCHR), Some(FileKind::CharDevice));
        assert_eq!(node_kind(libc::S_IFBLK), Some(FileKind::BlockDevice));
        assert_eq!(node_kind(libc::S_IFSOCK), Some(FileKind::Socket));
        assert_eq!(node_kind(libc::S_IFDIR), None);
        assert_eq!(node_kind(libc::S_IFLNK), None);
        assert_eq!(perm(libc::S_IFREG | 0o6755), 0o6755);
    }

    #[test]
    fn rename_flags_we_do_not_know_are_refused() {
        assert!(matches!(rename_mode(RenameFlags::empty()), Some(RenameMode::Replace)));
        assert!(matches!(rename_mode(RenameFlags::RENAME_NOREPLACE), Some(RenameMode::NoReplace)));
        assert!(matches!(rename_mode(RenameFlags::RENAME_EXCHANGE), Some(RenameMode::Exchange)));
        assert!(rename_mode(RenameFlags::RENAME_WHITEOUT).is_none());
        assert!(rename_mode(RenameFlags::RENAME_NOREPLACE | RenameFlags::RENAME_EXCHANGE).is_none());
        assert!(rename_mode(RenameFlags::from_bits_retain(1 << 9)).is_none());
    }

    #[test]
    fn a_missing_name_is_remembered_as_inode_zero() {
        assert_eq!(absent().ino, INodeNo(0));
    }
}
