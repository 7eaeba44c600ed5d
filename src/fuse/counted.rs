//! Counts the kernel's requests by their kind, and passes them on.

use std::ffi::OsStr;
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, FileHandle, Filesystem, INodeNo, IoctlFlags, KernelConfig,
    LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags, ReplyAttr, ReplyCreate,
    ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyIoctl, ReplyLseek, ReplyOpen,
    ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow, WriteFlags,
};

/// How often each kind of request has come. Clones count together.
#[derive(Clone, Debug)]
pub struct Operations(Arc<[AtomicU64; NAMES.len()]>);

impl Default for Operations {
    fn default() -> Self {
        Self(Arc::new(std::array::from_fn(|_| AtomicU64::new(0))))
    }
}

impl Operations {
    fn count(&self, operation: Operation) {
        if let Some(count) = self.0.get(operation as usize) {
            count.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// The kinds by their names, and how often each has come.
    #[must_use]
    pub fn counts(&self) -> Vec<(&'static str, u64)> {
        NAMES.into_iter().zip(self.0.iter().map(|count| count.load(Ordering::Relaxed))).collect()
    }
}

/// A filesystem whose requests are counted.
pub(super) struct Counted<F>(pub(super) F, pub(super) Operations);

macro_rules! counted {
    ($($name:ident ( $($argument:ident: $kind:ty),* ))*) => {
        #[allow(non_camel_case_types)] // they are the names of the methods
        #[derive(Clone, Copy)]
        enum Operation { $($name),* }

        const NAMES: [&str; [$(stringify!($name)),*].len()] = [$(stringify!($name)),*];

        impl<F: Filesystem> Filesystem for Counted<F> {
            fn init(&mut self, request: &Request, config: &mut KernelConfig) -> io::Result<()> {
                self.0.init(request, config)
            }

            fn destroy(&mut self) {
                self.0.destroy();
            }

            $(fn $name(&self, $($argument: $kind),*) {
                self.1.count(Operation::$name);
                self.0.$name($($argument),*);
            })*
        }
    };
}

counted! {
    lookup(r: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEntry)
    forget(r: &Request, node: INodeNo, count: u64)
    getattr(r: &Request, node: INodeNo, handle: Option<FileHandle>, reply: ReplyAttr)
    setattr(
        r: &Request, node: INodeNo, mode: Option<u32>, uid: Option<u32>, gid: Option<u32>, size: Option<u64>,
        atime: Option<TimeOrNow>, mtime: Option<TimeOrNow>, ctime: Option<SystemTime>, handle: Option<FileHandle>,
        crtime: Option<SystemTime>, chgtime: Option<SystemTime>, bkuptime: Option<SystemTime>,
        flags: Option<BsdFileFlags>, reply: ReplyAttr
    )
    readlink(r: &Request, node: INodeNo, reply: ReplyData)
    mknod(r: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, rdev: u32, reply: ReplyEntry)
    mkdir(r: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry)
    symlink(r: &Request, dir: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry)
    unlink(r: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty)
    rmdir(r: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty)
    rename(
        r: &Request, dir: INodeNo, name: &OsStr, new_dir: INodeNo, new_name: &OsStr, flags: RenameFlags,
        reply: ReplyEmpty
    )
    link(r: &Request, node: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry)
    open(r: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen)
    create(r: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, flags: i32, reply: ReplyCreate)
    read(
        r: &Request, node: INodeNo, handle: FileHandle, offset: u64, bytes: u32, flags: OpenFlags,
        owner: Option<LockOwner>, reply: ReplyData
    )
    write(
        r: &Request, node: INodeNo, handle: FileHandle, offset: u64, data: &[u8], write_flags: WriteFlags,
        flags: OpenFlags, owner: Option<LockOwner>, reply: ReplyWrite
    )
    flush(r: &Request, node: INodeNo, handle: FileHandle, owner: LockOwner, reply: ReplyEmpty)
    release(
        r: &Request, node: INodeNo, handle: FileHandle, flags: OpenFlags, owner: Option<LockOwner>, flush: bool,
        reply: ReplyEmpty
    )
    fsync(r: &Request, node: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty)
    opendir(r: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen)
    releasedir(r: &Request, node: INodeNo, listing: FileHandle, flags: OpenFlags, reply: ReplyEmpty)
    readdir(r: &Request, dir: INodeNo, listing: FileHandle, cookie: u64, reply: ReplyDirectory)
    readdirplus(r: &Request, dir: INodeNo, listing: FileHandle, cookie: u64, reply: ReplyDirectoryPlus)
    fsyncdir(r: &Request, dir: INodeNo, handle: FileHandle, data_only: bool, reply: ReplyEmpty)
    statfs(r: &Request, node: INodeNo, reply: ReplyStatfs)
    setxattr(
        r: &Request, node: INodeNo, name: &OsStr, value: &[u8], flags: i32, position: u32, reply: ReplyEmpty
    )
    getxattr(r: &Request, node: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr)
    listxattr(r: &Request, node: INodeNo, room: u32, reply: ReplyXattr)
    removexattr(r: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty)
    access(r: &Request, node: INodeNo, mask: AccessFlags, reply: ReplyEmpty)
    fallocate(
        r: &Request, node: INodeNo, handle: FileHandle, offset: u64, bytes: u64, mode: i32, reply: ReplyEmpty
    )
    lseek(r: &Request, node: INodeNo, handle: FileHandle, offset: i64, whence: i32, reply: ReplyLseek)
    copy_file_range(
        r: &Request, from: INodeNo, from_handle: FileHandle, from_offset: u64, to: INodeNo, to_handle: FileHandle,
        to_offset: u64, bytes: u64, flags: CopyFileRangeFlags, reply: ReplyWrite
    )
    ioctl(
        r: &Request, node: INodeNo, handle: FileHandle, flags: IoctlFlags, command: u32, input: &[u8],
        output_bytes: u32, reply: ReplyIoctl
    )
    poll(
        r: &Request, node: INodeNo, handle: FileHandle, notifier: PollNotifier, events: PollEvents,
        flags: PollFlags, reply: ReplyPoll
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_is_counted_under_its_own_name() {
        let operations = Operations::default();
        operations.clone().count(Operation::lookup);
        operations.count(Operation::poll);
        operations.count(Operation::poll);
        let counts = operations.counts();
        let of = |name: &str| counts.iter().find(|(known, _)| *known == name).map(|(_, count)| *count);
        assert_eq!((of("lookup"), of("poll"), of("read"), of("none")), (Some(1), Some(2), Some(0), None));
    }
}
