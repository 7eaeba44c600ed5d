//! The kernel's requests, one method each: unpack, call the `vfs`, pack the answer.

use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::time::SystemTime;

use fuser::{
    AccessFlags, BsdFileFlags, CopyFileRangeFlags, Errno, FileHandle, Filesystem, Generation, INodeNo,
    IoctlFlags, KernelConfig, LockOwner, OpenFlags, PollEvents, PollFlags, PollNotifier, RenameFlags,
    ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory, ReplyDirectoryPlus, ReplyEmpty, ReplyEntry,
    ReplyIoctl, ReplyLseek, ReplyOpen, ReplyPoll, ReplyStatfs, ReplyWrite, ReplyXattr, Request, TimeOrNow,
    WriteFlags,
};

use super::births::{self, Kind};
use super::bridge::{Bridge, caller, owned};
use super::convert::{
    absent, answer_statfs, ino, node_kind, perm, rename_mode, seek_for, set_time, time_from_kernel,
    xattr_mode,
};
use super::core::Core;
use super::{dirs, xattrs};
use crate::vfs::{Handle, SetAttr};

/// Most bytes one `copy_file_range` answer can count, in whole pages.
const COPY_BYTES_MAX: u64 = 0xFFFF_F000;

impl Filesystem for Bridge {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> io::Result<()> {
        self.0.core.negotiate(config);
        Ok(())
    }

    fn lookup(&self, request: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (ino(dir), owned(name));
        self.ask(
            request,
            reply,
            |core| async move { core.find(dir, &name).await },
            |core, reply, found, ttl| match found {
                Some(attr) => core.known(reply, &attr, ttl),
                None => reply.entry(&ttl, &absent(), Generation(0)),
            },
        );
    }

    fn forget(&self, _: &Request, node: INodeNo, count: u64) {
        self.0.core.opens.forgotten(ino(node));
        self.0.core.vfs.forget(ino(node), count);
    }

    fn getattr(&self, request: &Request, node: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        self.ask(
            request,
            reply,
            |core| async move { core.vfs.getattr(ino(node)).await },
            |core, reply, attr, ttl| reply.attr(&Core::attr_ttl(&attr, ttl), &core.tell(&attr)),
        );
    }

    fn setattr(
        &self,
        request: &Request,
        node: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        atime: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        ctime: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let caller = caller(request, 0);
        let set = SetAttr {
            perm: mode.map(perm),
            uid,
            gid,
            size,
            atime: atime.map(set_time),
            mtime: mtime.map(set_time),
            ctime: ctime.map(time_from_kernel),
        };
        self.steps(
            (request.pid(), size.is_some()),
            reply,
            move |core| async move { core.set_attr(&caller, ino(node), &set).await },
            |core, reply, attr| reply.attr(&Core::attr_ttl(&attr, core.ttl_done()), &core.tell(&attr)),
        );
    }

    fn readlink(&self, request: &Request, node: INodeNo, reply: ReplyData) {
        self.ask(
            request,
            reply,
            |core| async move { core.vfs.readlink(ino(node)).await },
            move |core, reply, target, _| {
                core.vfs.touch(ino(node));
                reply.data(&target);
            },
        );
    }

    fn mknod(
        &self,
        request: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        rdev: u32,
        reply: ReplyEntry,
    ) {
        let Some(kind) = node_kind(mode) else {
            return reply.error(Errno::EINVAL);
        };
        self.make(caller(request, umask), dir, name, perm(mode), Kind::Node(kind, rdev), reply);
    }

    fn mkdir(&self, request: &Request, dir: INodeNo, name: &OsStr, mode: u32, umask: u32, reply: ReplyEntry) {
        self.make(caller(request, umask), dir, name, perm(mode), Kind::Directory, reply);
    }

    fn symlink(&self, request: &Request, dir: INodeNo, name: &OsStr, target: &Path, reply: ReplyEntry) {
        let kind = Kind::Symlink(target.as_os_str().as_bytes().to_vec());
        self.make(caller(request, 0), dir, name, 0o777, kind, reply);
    }

    fn unlink(&self, request: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (ino(dir), owned(name));
        self.act(request, reply, |core| async move { core.vfs.unlink(dir, &name).await });
    }

    fn rmdir(&self, request: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let (dir, name) = (ino(dir), owned(name));
        self.act(request, reply, |core| async move { core.vfs.rmdir(dir, &name).await });
    }

    fn rename(
        &self,
        request: &Request,
        dir: INodeNo,
        name: &OsStr,
        new_dir: INodeNo,
        new_name: &OsStr,
        flags: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = rename_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (from, name, to, new_name) = (ino(dir), owned(name), ino(new_dir), owned(new_name));
        self.act(request, reply, |core| async move {
            let renamed = core.vfs.rename(from, &name, to, &new_name, mode).await;
            renamed.map(|adopted| core.opens.adopted(adopted))
        });
    }

    fn link(&self, request: &Request, node: INodeNo, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        let (dir, name) = (ino(dir), owned(name));
        self.call(
            request,
            reply,
            |core| async move { core.vfs.link(ino(node), dir, &name).await },
            |core, reply, attr| core.entry(reply, &attr),
        );
    }

    fn open(&self, request: &Request, node: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        self.call(
            request,
            reply,
            move |core| async move { births::open(&core, ino(node), flags, false, true).await },
            move |core, reply, opened| core.opened(reply, ino(node), flags, opened),
        );
    }

    fn create(
        &self,
        request: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        umask: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let caller = caller(request, umask);
        let (dir, name) = (ino(dir), owned(name));
        self.steps(
            (request.pid(), false),
            reply,
            move |core| async move {
                births::create(&core, caller, dir, &name, perm(mode), OpenFlags(flags)).await
            },
            |core, reply, (attr, Handle(handle), flags)| {
                let ttl = Core::attr_ttl(&attr, core.ttl_done());
                reply.created(&ttl, &core.tell(&attr), Generation(0), FileHandle(handle), flags);
            },
        );
    }

    fn read(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        bytes: u32,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        self.ask(
            request,
            reply,
            |core| async move { core.vfs.read(Handle(handle.0), ino(node), offset, bytes as usize).await },
            move |core, reply, data, _| core.answer_read(reply, ino(node), offset, flags, &data),
        );
    }

    fn write(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: u64,
        data: &[u8],
        write_flags: WriteFlags,
        flags: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        let terms = self.0.core.terms(request.uid(), write_flags, handle.0, flags);
        self.store(request, ino(node), offset, data, terms, reply);
    }

    /// Never sent to kernels that know NOFLUSH; to the others, this answer is the last they ask for.
    fn flush(&self, _: &Request, _: INodeNo, _: FileHandle, _: LockOwner, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        handle: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        self.0.core.close(handle.0);
        reply.ok();
    }

    fn fsync(&self, request: &Request, node: INodeNo, _: FileHandle, data_only: bool, reply: ReplyEmpty) {
        self.act(request, reply, |core| async move { core.vfs.fsync(ino(node), data_only).await });
    }

    fn opendir(&self, _: &Request, dir: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        let (listing, flags) = self.0.core.begin_listing(ino(dir));
        reply.opened(FileHandle(listing), flags);
    }

    fn releasedir(&self, _: &Request, dir: INodeNo, listing: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        self.0.core.end_listing(ino(dir), listing.0);
        reply.ok();
    }

    fn readdir(
        &self,
        request: &Request,
        dir: INodeNo,
        listing: FileHandle,
        cookie: u64,
        reply: ReplyDirectory,
    ) {
        let max = self.0.core.fit.ask();
        if !self.0.core.writer {
            return self.page(request, (listing.0, ino(dir)), cookie, reply, dirs::fill_page);
        }
        self.call(
            request,
            reply,
            |core| async move { core.vfs.readdir(ino(dir), cookie, max).await },
            move |core, reply, entries| {
                core.vfs.touch(ino(dir));
                dirs::fill(&core.fit, reply, &entries);
            },
        );
    }

    fn readdirplus(
        &self,
        request: &Request,
        dir: INodeNo,
        listing: FileHandle,
        cookie: u64,
        reply: ReplyDirectoryPlus,
    ) {
        let max = self.0.core.fit.ask();
        if !self.0.core.writer {
            return self.page(request, (listing.0, ino(dir)), cookie, reply, dirs::fill_page_plus);
        }
        self.call(
            request,
            reply,
            |core| async move { core.vfs.readdir_plus(ino(dir), cookie, max).await },
            move |core, reply, entries| {
                core.vfs.touch(ino(dir));
                dirs::fill_plus(core, reply, &entries);
            },
        );
    }

    fn fsyncdir(
        &self,
        request: &Request,
        dir: INodeNo,
        handle: FileHandle,
        data_only: bool,
        reply: ReplyEmpty,
    ) {
        self.fsync(request, dir, handle, data_only, reply);
    }

    fn statfs(&self, request: &Request, _: INodeNo, reply: ReplyStatfs) {
        self.call(
            request,
            reply,
            |core| async move { core.vfs.statfs().await },
            |_, reply, about| answer_statfs(reply, &about),
        );
    }

    fn setxattr(
        &self,
        request: &Request,
        node: INodeNo,
        name: &OsStr,
        value: &[u8],
        flags: i32,
        _: u32,
        reply: ReplyEmpty,
    ) {
        let Some(mode) = xattr_mode(flags) else {
            return reply.error(Errno::EINVAL);
        };
        let (caller, name, value) = (caller(request, 0), owned(name), value.to_vec());
        self.steps(
            (request.pid(), false),
            reply,
            move |core| async move { xattrs::set(&core, &caller, ino(node), &name, &value, mode).await },
            |_, reply, ()| reply.ok(),
        );
    }

    fn getxattr(&self, request: &Request, node: INodeNo, name: &OsStr, room: u32, reply: ReplyXattr) {
        let name = owned(name);
        self.ask(
            request,
            reply,
            |core| async move { xattrs::get(&core, ino(node), &name).await },
            move |_, reply, value, _| xattrs::answer(reply, room, &value),
        );
    }

    fn listxattr(&self, request: &Request, node: INodeNo, room: u32, reply: ReplyXattr) {
        self.ask(
            request,
            reply,
            |core| xattrs::list(core, ino(node), request.uid()),
            move |_, reply, names, _| xattrs::answer(reply, room, &names),
        );
    }

    fn removexattr(&self, request: &Request, node: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let name = owned(name);
        self.steps(
            (request.pid(), false),
            reply,
            move |core| async move { xattrs::remove(&core, ino(node), &name).await },
            |_, reply, ()| reply.ok(),
        );
    }

    /// The kernel checks permissions itself (`default_permissions`) and never asks again.
    fn access(&self, _: &Request, _: INodeNo, _: AccessFlags, reply: ReplyEmpty) {
        reply.error(Errno::ENOSYS);
    }

    fn fallocate(
        &self,
        request: &Request,
        node: INodeNo,
        _: FileHandle,
        offset: u64,
        bytes: u64,
        mode: i32,
        reply: ReplyEmpty,
    ) {
        self.act(
            request,
            reply,
            |core| async move { core.vfs.fallocate(ino(node), mode, offset, bytes).await },
        );
    }

    fn lseek(
        &self,
        request: &Request,
        node: INodeNo,
        handle: FileHandle,
        offset: i64,
        whence: i32,
        reply: ReplyLseek,
    ) {
        let (offset, what) = match seek_for(offset, whence) {
            Ok(sought) => sought,
            Err(error) => return reply.error(error),
        };
        self.ask(
            request,
            reply,
            |core| async move { births::seek(&core, (ino(node), handle.0), offset, what).await },
            |_, reply, found, _| reply.offset(i64::try_from(found).unwrap_or(i64::MAX)),
        );
    }

    fn copy_file_range(
        &self,
        request: &Request,
        from: INodeNo,
        _: FileHandle,
        from_offset: u64,
        to: INodeNo,
        _: FileHandle,
        to_offset: u64,
        bytes: u64,
        flags: CopyFileRangeFlags,
        reply: ReplyWrite,
    ) {
        if !flags.is_empty() {
            return reply.error(Errno::EINVAL);
        }
        let bytes = bytes.min(COPY_BYTES_MAX);
        self.call(
            request,
            reply,
            |core| async move {
                core.vfs.copy_file_range(ino(from), from_offset, ino(to), to_offset, bytes).await
            },
            |_, reply, copied| reply.written(u32::try_from(copied).unwrap_or(u32::MAX)),
        );
    }

    fn ioctl(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: IoctlFlags,
        _: u32,
        _: &[u8],
        _: u32,
        reply: ReplyIoctl,
    ) {
        reply.error(Errno::ENOTTY);
    }

    /// Files are always ready; the kernel knows this after the first answer.
    fn poll(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: PollNotifier,
        _: PollEvents,
        _: PollFlags,
        reply: ReplyPoll,
    ) {
        reply.error(Errno::ENOSYS);
    }
}
