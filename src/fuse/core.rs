//! What every operation shares: the `vfs`, how long the kernel may remember, what was agreed with it at the start.

use std::sync::Arc;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use fuser::{
    Errno, FopenFlags, Generation, INodeNo, InitFlags, KernelConfig, Notifier, OpenFlags, ReplyEntry,
    WriteFlags,
};

use super::convert::{Refusal, file_attr};
use super::dirs::Fit;
use super::listing::Listings;
use super::opens::{Kept, Opens};
use super::pages::Pages;
use super::permission::{PlainDirs, SetIds};
use crate::base::Ino;
use crate::vfs::{Attr, Drops, Vfs, VfsError};

/// Nothing but this mount changes the volume, so the kernel may remember names and attributes for good (a year).
const TTL_WRITER: Duration = Duration::from_secs(365 * 24 * 3600);
/// Attributes of a file with contents that are not committed.
const TTL_UNSETTLED: Duration = Duration::from_secs(1);

/// Largest write in one request; larger ones measured no faster.
const WRITE_BYTES_MAX: u32 = 1024 * 1024;
/// Read-ahead and other background requests that may be under way at once. Writes from maps are among them, which wait
/// while there is no room: they must not take the place of reads.
const BACKGROUND_MAX: u16 = u16::MAX;

/// Asked for if the kernel has them. `EXPORT_SUPPORT` promises that `.` and `..` can be looked up: file handles then
/// outlive what the kernel remembers, as NFS needs. Locks are left out: without the flags the kernel keeps them itself,
/// which is right for one mount. So is the writeback cache: it made streams 1.5 times dearer.
/// With `ATOMIC_O_TRUNC` the kernel has a file emptied before it finds that it is a program that runs. `SETXATTR_EXT` would make
/// `fuser` 0.18.0 panic.
const WANTED: [InitFlags; 8] = [
    InitFlags::FUSE_ASYNC_DIO,
    InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP,
    InitFlags::FUSE_DONT_MASK,
    InitFlags::FUSE_DO_READDIRPLUS,
    InitFlags::FUSE_EXPORT_SUPPORT,
    InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    InitFlags::FUSE_PARALLEL_DIROPS,
    InitFlags::FUSE_POSIX_ACL,
];
const WANTED_BY_WRITER: [InitFlags; 2] =
    [InitFlags::FUSE_CACHE_SYMLINKS, InitFlags::FUSE_EXPLICIT_INVAL_DATA];
const WANTED_BY_FOLLOWER: [InitFlags; 1] = [InitFlags::FUSE_AUTO_INVAL_DATA];

/// Until when the kernel may remember what an operation tells it, which is known before the operation reads: the writer
/// tells what stays true, a follower what is true until it goes to a newer commit.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Lease(Option<Duration>);

/// The state of one mount.
pub(super) struct Core {
    pub(super) vfs: Arc<Vfs>,
    /// Whether this mount is the only one that writes; otherwise it follows one.
    pub(super) writer: bool,
    /// Whether `fuser` refuses some users whom the kernel lets in. What the kernel remembers it shows to all of them.
    pub(super) filters: bool,
    pub(super) fit: Fit,
    pub(super) listings: Listings,
    pub(super) opens: Opens,
    pub(super) plain: PlainDirs,
    set_ids: SetIds,
    kernel_says_kill: AtomicBool,
    notifier: OnceLock<Notifier>,
    pub(super) pages: Pages,
}

/// What a mount asks of the kernel. Public so that a filesystem to compare with can ask for the same.
#[doc(hidden)]
pub fn negotiate(config: &mut KernelConfig, writer: bool) {
    let more: &[InitFlags] = if writer { &WANTED_BY_WRITER } else { &WANTED_BY_FOLLOWER };
    for flag in WANTED.iter().chain(more) {
        if config.add_capabilities(*flag).is_err() {
            tracing::debug!(?flag, "this kernel does without");
        }
    }
    // Each of these returns an error only for values outside bounds that these constants are within.
    let _ = config.set_max_write(WRITE_BYTES_MAX);
    let _ = config.set_max_background(BACKGROUND_MAX);
}

impl Core {
    pub(super) fn new(vfs: Arc<Vfs>, writer: bool, filters: bool) -> Self {
        Self {
            vfs,
            filters,
            writer,
            fit: Fit::default(),
            listings: Listings::default(),
            opens: Opens::default(),
            plain: PlainDirs::default(),
            set_ids: SetIds::default(),
            kernel_says_kill: AtomicBool::new(false),
            notifier: OnceLock::new(),
            pages: Pages::default(),
        }
    }

    /// Agrees with the kernel on what both can do.
    pub(super) fn negotiate(&self, config: &mut KernelConfig) {
        negotiate(config, self.writer);
        let kill = config.capabilities().contains(InitFlags::FUSE_HANDLE_KILLPRIV_V2);
        self.kernel_says_kill.store(kill, Ordering::Release);
        if !config.capabilities().contains(InitFlags::FUSE_DIRECT_IO_ALLOW_MMAP) {
            self.opens.map_cached_only();
        }
    }

    pub(super) fn set_notifier(&self, notifier: Notifier) {
        // Set once, before the first request is read.
        let _ = self.notifier.set(notifier);
    }

    pub(super) fn notifier(&self) -> Option<&Notifier> {
        self.notifier.get()
    }

    /// To be asked before the operation reads.
    pub(super) fn lease(&self) -> Lease {
        match (self.filters, self.writer) {
            (true, _) => Lease(Some(Duration::ZERO)),
            (false, true) => Lease(None),
            (false, false) => Lease(Some(self.vfs.lease())),
        }
    }

    /// For attributes: `ttl`, or less if they change by themselves.
    pub(super) fn attr_ttl(attr: &Attr, ttl: Duration) -> Duration {
        if attr.is_unsettled { ttl.min(TTL_UNSETTLED) } else { ttl }
    }

    /// How long the kernel may remember what the writer has just done.
    pub(super) fn ttl_done(&self) -> Duration {
        self.ttl(self.lease())
    }

    /// What is left of a lease.
    pub(super) fn ttl(&self, lease: Lease) -> Duration {
        lease.0.map_or(TTL_WRITER, |until| self.vfs.lease_left(until))
    }

    /// Looks a name up. That there is none is an answer here, for the kernel to remember.
    pub(super) async fn find(&self, dir: Ino, name: &[u8]) -> Result<Option<Attr>, VfsError> {
        match self.vfs.lookup(dir, name).await {
            Ok(attr) => Ok(Some(attr)),
            Err(VfsError::NoEntry) if self.writer => Ok(None),
            // A follower's directory may have gone meanwhile, which says nothing about the name.
            Err(VfsError::NoEntry) => self.vfs.getattr(dir).await.map(|_| None),
            Err(error) => Err(error),
        }
    }

    /// Why an operation on an inode failed that the kernel knows. To a follower's kernel, that there is none (any more)
    /// means that names may lead elsewhere by now: it looks them up again, and tells the caller only of what is open.
    pub(super) fn about_inode(&self, error: VfsError) -> Refusal {
        match error {
            VfsError::NoEntry if !self.writer => Refusal(Errno::ESTALE),
            error => error.into(),
        }
    }

    /// Attributes on their way to the kernel.
    pub(super) fn tell(&self, attr: &Attr) -> fuser::FileAttr {
        self.set_ids.note(attr);
        let mut told = file_attr(attr);
        if told.blocks == 0 && told.size > 0 && self.opens.may_be_mapped(attr.ino) {
            // Some programs read nothing where nothing is stored.
            told.blocks = 1;
        }
        told
    }

    /// Answers with a name and the attributes of what has it.
    pub(super) fn known(&self, reply: ReplyEntry, attr: &Attr, ttl: Duration) {
        reply.entry_with_ttls(&Self::attr_ttl(attr, ttl), &ttl, &self.tell(attr), Generation(0));
    }

    /// Answers with a new name, which only a writer has.
    pub(super) fn entry(&self, reply: ReplyEntry, attr: &Attr) {
        self.known(reply, attr, self.ttl_done());
    }

    /// Opens a listing, and says what the kernel may keep of it. Whom `fuser` refuses the kernel would show what it keeps.
    pub(super) fn begin_listing(&self, dir: Ino) -> (u64, FopenFlags) {
        let may_be_kept = self.writer && !self.filters;
        let flags = match self.opens.list(dir) {
            Kept::Nothing => FopenFlags::empty(),
            _ if !may_be_kept => FopenFlags::empty(),
            Kept::Anew => FopenFlags::FOPEN_CACHE_DIR,
            Kept::All => FopenFlags::FOPEN_CACHE_DIR | FopenFlags::FOPEN_KEEP_CACHE,
        };
        (self.listings.open(), flags)
    }

    /// Closes it.
    pub(super) fn end_listing(&self, dir: Ino, listing: u64) {
        self.opens.listed(dir);
        self.listings.close(listing);
    }

    /// What a write takes, and what must be durable before it returns.
    pub(super) fn terms(
        &self,
        uid: u32,
        flags: WriteFlags,
        handle: u64,
        opened: OpenFlags,
    ) -> (Drops, Option<bool>) {
        (self.drops(uid, flags), durability(opened, || self.opens.is_direct(handle)))
    }

    /// What a write takes of setuid, setgid and capabilities. From the kernel's own pages come only writes through maps.
    fn drops(&self, uid: u32, flags: WriteFlags) -> Drops {
        let is_privileged = if self.kernel_says_kill.load(Ordering::Acquire) {
            !flags.contains(WriteFlags::FUSE_WRITE_KILL_SUIDGID)
        } else {
            uid == 0
        };
        match is_privileged {
            _ if flags.contains(WriteFlags::FUSE_WRITE_CACHE) => Drops::Nothing,
            true => Drops::Capabilities,
            false => Drops::All,
        }
    }

    /// After a write that may have cleared set-id bits: makes the kernel ask for the mode again.
    pub(super) fn set_ids_cleared(&self, ino: Ino) {
        if self.set_ids.may_hold(ino)
            && let Some(notifier) = self.notifier.get()
            && let Err(error) = notifier.inval_inode(INodeNo(ino.0), -1, 0)
        {
            tracing::warn!(%ino, %error, "the kernel may honour a set-id bit that a write has cleared");
        }
    }
}

/// Whether a file is open for writing only.
pub(super) fn writes_only(flags: OpenFlags) -> bool {
    flags.0 & libc::O_ACCMODE == libc::O_WRONLY
}

/// Whether a file is open for writing.
pub(super) fn writes(flags: OpenFlags) -> bool {
    matches!(flags.0 & libc::O_ACCMODE, libc::O_WRONLY | libc::O_RDWR)
}

/// What must be durable before a write returns. `None`: nothing. `Some(true)`: the data, as `O_DSYNC` asks;
/// `Some(false)`: the attributes too, as `O_SYNC` does.
///
/// The kernel follows a cached write by an FSYNC of its own, a direct one by nothing, nor one with `O_DIRECT` that is not
/// waited for (`io_submit(2)`); it passes on here what `pwritev2(2)` and the `sync` mount option ask for as if the file had
/// been opened so.
fn durability(flags: OpenFlags, is_direct: impl FnOnce() -> bool) -> Option<bool> {
    if flags.0 & libc::O_DSYNC == 0 {
        return None;
    }
    let is_followed = !writes_only(flags) && flags.0 & libc::O_DIRECT == 0 && !is_direct();
    // `O_SYNC` is `O_DSYNC` and a bit more.
    (!is_followed).then_some(flags.0 & libc::O_SYNC != libc::O_SYNC)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_direct_write_that_must_be_durable_is_known_by_its_flags() {
        let of = |flags| durability(OpenFlags(flags), || false);
        assert_eq!(of(libc::O_WRONLY), None);
        assert_eq!(of(libc::O_WRONLY | libc::O_DSYNC), Some(true));
        assert_eq!(of(libc::O_WRONLY | libc::O_SYNC), Some(false));
        assert_eq!(of(libc::O_RDWR | libc::O_SYNC), None);
        assert_eq!(of(libc::O_RDWR | libc::O_DIRECT | libc::O_SYNC), Some(false));
        assert_eq!(durability(OpenFlags(libc::O_RDWR | libc::O_DSYNC), || true), Some(true));
        assert_eq!(durability(OpenFlags(libc::O_RDWR), || true), None);
    }

    #[test]
    fn only_writing_opens_write() {
        assert!(!writes(OpenFlags(libc::O_RDONLY)));
        assert!(writes(OpenFlags(libc::O_WRONLY | libc::O_APPEND)) && writes(OpenFlags(libc::O_RDWR)));
        assert!(writes_only(OpenFlags(libc::O_WRONLY)) && !writes_only(OpenFlags(libc::O_RDWR)));
    }
}
