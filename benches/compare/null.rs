//! A filesystem that stores nothing: attributes and names in memory, contents thrown away and read back as zeros.
//!
//! It asks of the kernel what Coffer asks, answers on the same threads, and tells the kernel to remember as much. So it
//! costs what the kernel and `fuser` cost, which no filesystem over them can do without.

use std::collections::{BTreeMap, HashMap};
use std::ffi::{OsStr, OsString};
use std::path::Path;
use std::sync::Mutex;
use std::time::{Duration, SystemTime};

use coffer::fuse::{MountOptions, mount_for_comparison, negotiate};
use fuser::{
    BsdFileFlags, Errno, FileAttr, FileHandle, FileType, Filesystem, FopenFlags, Generation, INodeNo,
    KernelConfig, LockOwner, OpenFlags, RenameFlags, ReplyAttr, ReplyCreate, ReplyData, ReplyDirectory,
    ReplyDirectoryPlus, ReplyEmpty, ReplyEntry, ReplyOpen, ReplyStatfs, ReplyWrite, Request, TimeOrNow,
    WriteFlags,
};

const TTL: Duration = Duration::from_secs(365 * 24 * 3600);
static ZEROS: [u8; 1 << 20] = [0; 1 << 20];

/// Mounts it at `point` and serves until it is unmounted. With `buffered`, writes pass the kernel's page cache.
pub(crate) fn serve(point: &Path, buffered: bool) {
    let options = MountOptions { source_name: "null".into(), allow_other: false, ..MountOptions::default() };
    let null = Null { tree: Mutex::new(Tree::new()), buffered };
    let mounted = mount_for_comparison(null, point, &options).expect("mount");
    let runtime = tokio::runtime::Builder::new_current_thread().build().expect("a runtime");
    runtime.block_on(mounted.ended()).expect("it ends when it is unmounted");
}

struct Null {
    tree: Mutex<Tree>,
    buffered: bool,
}

struct Tree {
    nodes: HashMap<u64, Node>,
    last: u64,
}

struct Node {
    attr: FileAttr,
    /// Of a directory; what a name is, and in which order names are listed.
    names: HashMap<OsString, u64>,
    order: BTreeMap<u64, OsString>,
}

impl Tree {
    fn new() -> Self {
        let mut tree = Tree { nodes: HashMap::new(), last: 0 };
        tree.make(FileType::Directory, 0o755, 0, 0);
        tree
    }

    fn make(&mut self, kind: FileType, mode: u32, uid: u32, gid: u32) -> FileAttr {
        self.last += 1;
        let now = SystemTime::now();
        let attr = FileAttr {
            ino: INodeNo(self.last),
            size: 0,
            blocks: 0,
            atime: now,
            mtime: now,
            ctime: now,
            crtime: now,
            kind,
            perm: (mode & 0o7777) as u16,
            nlink: 1,
            uid,
            gid,
            rdev: 0,
            blksize: 65536,
            flags: 0,
        };
        self.nodes.insert(self.last, Node { attr, names: HashMap::new(), order: BTreeMap::new() });
        attr
    }

    fn find(&self, dir: INodeNo, name: &OsStr) -> Option<FileAttr> {
        let ino = self.nodes.get(&dir.0)?.names.get(name)?;
        Some(self.nodes.get(ino)?.attr)
    }

    fn enter(&mut self, dir: INodeNo, name: &OsStr, ino: u64) {
        let dir = self.nodes.get_mut(&dir.0).expect("the kernel knows it");
        dir.names.insert(name.to_owned(), ino);
        dir.order.insert(ino, name.to_owned());
    }

    fn take(&mut self, dir: INodeNo, name: &OsStr) -> Option<u64> {
        let dir = self.nodes.get_mut(&dir.0)?;
        let ino = dir.names.remove(name)?;
        dir.order.remove(&ino);
        Some(ino)
    }
}

impl Null {
    fn tree(&self) -> std::sync::MutexGuard<'_, Tree> {
        self.tree.lock().expect("nobody panics with it")
    }

    fn add(&self, request: &Request, dir: INodeNo, name: &OsStr, kind: FileType, mode: u32) -> FileAttr {
        let mut tree = self.tree();
        let attr = tree.make(kind, mode, request.uid(), request.gid());
        tree.enter(dir, name, attr.ino.0);
        attr
    }

    fn how(&self, flags: OpenFlags) -> FopenFlags {
        if flags.0 & libc::O_ACCMODE == libc::O_WRONLY && !self.buffered {
            FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_DIRECT_IO
        } else {
            FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_KEEP_CACHE
        }
    }

    fn remove(&self, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        let mut tree = self.tree();
        match tree.take(dir, name) {
            Some(ino) => {
                tree.nodes.remove(&ino);
                reply.ok();
            }
            None => reply.error(Errno::ENOENT),
        }
    }
}

fn list(tree: &Tree, dir: INodeNo, after: u64, mut add: impl FnMut(u64, &OsStr, &FileAttr) -> bool) {
    let Some(node) = tree.nodes.get(&dir.0) else { return };
    for (ino, name) in node.order.range(after + 1..) {
        if add(*ino, name, &tree.nodes[ino].attr) {
            return;
        }
    }
}

impl Filesystem for Null {
    fn init(&mut self, _: &Request, config: &mut KernelConfig) -> std::io::Result<()> {
        negotiate(config, true);
        Ok(())
    }

    fn lookup(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEntry) {
        match self.tree().find(dir, name) {
            Some(attr) => reply.entry(&TTL, &attr, Generation(0)),
            None => {
                let nothing = FileAttr { ino: INodeNo(0), ..Tree::new().nodes[&1].attr };
                reply.entry(&TTL, &nothing, Generation(0));
            }
        }
    }

    fn getattr(&self, _: &Request, ino: INodeNo, _: Option<FileHandle>, reply: ReplyAttr) {
        match self.tree().nodes.get(&ino.0) {
            Some(node) => reply.attr(&TTL, &node.attr),
            None => reply.error(Errno::ENOENT),
        }
    }

    fn setattr(
        &self,
        _: &Request,
        ino: INodeNo,
        mode: Option<u32>,
        uid: Option<u32>,
        gid: Option<u32>,
        size: Option<u64>,
        _: Option<TimeOrNow>,
        mtime: Option<TimeOrNow>,
        _: Option<SystemTime>,
        _: Option<FileHandle>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<SystemTime>,
        _: Option<BsdFileFlags>,
        reply: ReplyAttr,
    ) {
        let mut tree = self.tree();
        let Some(node) = tree.nodes.get_mut(&ino.0) else { return reply.error(Errno::ENOENT) };
        let attr = &mut node.attr;
        attr.perm = mode.map_or(attr.perm, |mode| (mode & 0o7777) as u16);
        (attr.uid, attr.gid) = (uid.unwrap_or(attr.uid), gid.unwrap_or(attr.gid));
        attr.size = size.unwrap_or(attr.size);
        if let Some(TimeOrNow::SpecificTime(time)) = mtime {
            attr.mtime = time;
        }
        reply.attr(&TTL, attr);
    }

    fn mkdir(&self, request: &Request, dir: INodeNo, name: &OsStr, mode: u32, _: u32, reply: ReplyEntry) {
        reply.entry(&TTL, &self.add(request, dir, name, FileType::Directory, mode), Generation(0));
    }

    fn unlink(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(dir, name, reply);
    }

    fn rmdir(&self, _: &Request, dir: INodeNo, name: &OsStr, reply: ReplyEmpty) {
        self.remove(dir, name, reply);
    }

    fn rename(
        &self,
        _: &Request,
        dir: INodeNo,
        name: &OsStr,
        to: INodeNo,
        new: &OsStr,
        _: RenameFlags,
        reply: ReplyEmpty,
    ) {
        let mut tree = self.tree();
        let Some(ino) = tree.take(dir, name) else { return reply.error(Errno::ENOENT) };
        tree.take(to, new);
        tree.enter(to, new, ino);
        reply.ok();
    }

    fn open(&self, _: &Request, _: INodeNo, flags: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), self.how(flags));
    }

    fn create(
        &self,
        request: &Request,
        dir: INodeNo,
        name: &OsStr,
        mode: u32,
        _: u32,
        flags: i32,
        reply: ReplyCreate,
    ) {
        let attr = self.add(request, dir, name, FileType::RegularFile, mode);
        reply.created(&TTL, &attr, Generation(0), FileHandle(0), self.how(OpenFlags(flags)));
    }

    fn read(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        size: u32,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyData,
    ) {
        let end = self.tree().nodes.get(&ino.0).map_or(0, |node| node.attr.size);
        let there = end.saturating_sub(offset).min(u64::from(size)) as usize;
        reply.data(&ZEROS[..there.min(ZEROS.len())]);
    }

    fn write(
        &self,
        _: &Request,
        ino: INodeNo,
        _: FileHandle,
        offset: u64,
        data: &[u8],
        _: WriteFlags,
        _: OpenFlags,
        _: Option<LockOwner>,
        reply: ReplyWrite,
    ) {
        if let Some(node) = self.tree().nodes.get_mut(&ino.0) {
            node.attr.size = node.attr.size.max(offset + data.len() as u64);
            node.attr.mtime = SystemTime::now();
        }
        reply.written(data.len() as u32);
    }

    fn release(
        &self,
        _: &Request,
        _: INodeNo,
        _: FileHandle,
        _: OpenFlags,
        _: Option<LockOwner>,
        _: bool,
        reply: ReplyEmpty,
    ) {
        reply.ok();
    }

    fn fsync(&self, _: &Request, _: INodeNo, _: FileHandle, _: bool, reply: ReplyEmpty) {
        reply.ok();
    }

    fn opendir(&self, _: &Request, _: INodeNo, _: OpenFlags, reply: ReplyOpen) {
        reply.opened(FileHandle(0), FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE);
    }

    fn releasedir(&self, _: &Request, _: INodeNo, _: FileHandle, _: OpenFlags, reply: ReplyEmpty) {
        reply.ok();
    }

    fn readdir(&self, _: &Request, dir: INodeNo, _: FileHandle, after: u64, mut reply: ReplyDirectory) {
        list(&self.tree(), dir, after, |ino, name, attr| reply.add(INodeNo(ino), ino, attr.kind, name));
        reply.ok();
    }

    fn readdirplus(
        &self,
        _: &Request,
        dir: INodeNo,
        _: FileHandle,
        after: u64,
        mut reply: ReplyDirectoryPlus,
    ) {
        list(&self.tree(), dir, after, |ino, name, attr| {
            reply.add(INodeNo(ino), ino, name, &TTL, attr, Generation(0))
        });
        reply.ok();
    }

    fn statfs(&self, _: &Request, _: INodeNo, reply: ReplyStatfs) {
        reply.statfs(1 << 40, 1 << 40, 1 << 40, 1 << 40, 1 << 40, 4096, 255, 4096);
    }
}
