//! The life of a mount: checks its place, mounts, serves, and notices its end, whoever brings it about.

use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use fuser::{Config, Filesystem, INodeNo, Notifier, Session};
use rustix::io::Errno;
use tokio::runtime::Handle;
use tokio::sync::watch;

use super::bridge::Bridge;
use super::core::Core;
use super::counted::{Counted, Operations};
use super::hold::Hold;
use super::serve::Desk;
use super::{Device, MountError, MountOptions, kernel, mountinfo};
use crate::base::Ino;
use crate::vfs::Vfs;

/// Threads that read requests. A third has never paid: what waits, waits on the runtime.
const THREADS_MAX: usize = 2;

/// A program that is just ending, or a path that is just being looked up, keeps a mount busy for a moment: not a reason to
/// refuse. So often, and so far apart, it is tried.
const UNMOUNT_TRIES: u32 = 10;
const UNMOUNT_PAUSE: Duration = Duration::from_millis(50);

/// The kernel lets go of what is unmounted at once, unless it is mounted elsewhere: after so long it is looked for.
const FAREWELL_CHECK: Duration = Duration::from_secs(1);
const FAREWELL_MAX: Duration = Duration::from_secs(20);
/// How long the end of a mount waits for what it leaves behind to be removed.
const REMOVAL_MAX: Duration = Duration::from_secs(5);

/// How to unmount.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Unmount {
    /// Only if nothing there is in use; after that, nothing can be.
    WhenIdle,
    /// Take it off the tree now; it ends when the last open file is closed.
    Detach,
}

/// A mounted volume. Clones are the same mount; dropping all of them does not unmount.
#[derive(Clone, Debug)]
pub struct Mounted {
    point: Arc<Path>,
    device: Device,
    /// The kernel has let go of it, or has been let go.
    is_over: Arc<AtomicBool>,
    connection: Arc<OwnedFd>,
    end: watch::Receiver<Option<Result<(), String>>>,
    notifier: Notifier,
    hold: Option<Arc<Hold>>,
    operations: Operations,
}

/// Mounts `vfs` at `mountpoint` and begins to serve it; operations that must wait do so on `runtime`.
///
/// When this returns, the mount answers. After its end (see [`Mounted::ended`]) the caller shuts the `vfs` down.
///
/// # Errors
/// Says what is wrong with the mount point, or why the kernel or its helper refuses.
pub fn mount(
    vfs: Arc<Vfs>,
    mountpoint: &Path,
    options: &MountOptions,
    runtime: &Handle,
) -> Result<Mounted, MountError> {
    let _turn = turn_at(mountpoint);
    let point = check_mount_point(mountpoint, options.nonempty)?;
    let core = Arc::new(Core::new(vfs, !options.read_only, options.filters()));
    let bridge = Bridge(Desk::new(Arc::clone(&core), runtime.clone()));
    let operations = Operations::default();
    let counted = Counted(bridge, operations.clone());
    let mounted = attach(counted, &point, options, |notifier| core.set_notifier(notifier))?;
    let hold = options.hold.then(|| take_hold(&core, &mounted, runtime)).flatten();
    Ok(Mounted { hold, operations, ..mounted })
}

/// The turn to mount at `point`, unless something is mounted there already, which might not answer.
fn turn_at(point: &Path) -> Option<OwnedFd> {
    let point = point.canonicalize().ok()?;
    let is_free = mountinfo::mounted_at(&point).is_ok_and(|mount| mount.is_none());
    is_free.then(|| kernel::turn_at(&point)).flatten()
}

/// Mounts any filesystem the way a volume is mounted, so that the two can be compared.
///
/// # Errors
/// As [`mount`].
#[doc(hidden)]
pub fn mount_for_comparison(
    filesystem: impl Filesystem,
    mountpoint: &Path,
    options: &MountOptions,
) -> Result<Mounted, MountError> {
    attach(filesystem, &check_mount_point(mountpoint, options.nonempty)?, options, |_| {})
}

/// `before` is called before the first request is read.
fn attach(
    filesystem: impl Filesystem,
    point: &Path,
    options: &MountOptions,
    before: impl FnOnce(Notifier),
) -> Result<Mounted, MountError> {
    let connection = kernel::attach(point, options)?;
    // Of the connection rather than of the place: somebody may have mounted over it at once.
    let told = kernel::device_of_connection(&connection);
    let listed = || mountinfo::mounted_at(point).ok().flatten().map(|mount| mount.device);
    let Some(device) = told.or_else(listed) else {
        return Err(MountError::Session("the mount vanished at once".into()));
    };
    let begun = begin(filesystem, connection, options, (point, device), before);
    if begun.is_err() && is_at(point, device) {
        // Nobody answers there, so nobody can use it.
        let _ = kernel::detach(point, true);
    }
    begun
}

fn begin(
    filesystem: impl Filesystem,
    connection: OwnedFd,
    options: &MountOptions,
    (point, device): (&Path, Device),
    before: impl FnOnce(Notifier),
) -> Result<Mounted, MountError> {
    let mut config = Config::default();
    config.acl = options.acl();
    config.n_threads = Some(thread::available_parallelism().map_or(1, |n| n.get().min(THREADS_MAX)));
    config.clone_fd = kernel::can_clone_connection();
    let failed = |error: io::Error| MountError::Session(error.to_string());
    // Not `Session::new`: its mount would be undone on drop without a look at what is mounted there by then.
    let kept = Arc::new(connection.try_clone().map_err(failed)?);
    let session = Session::from_fd(filesystem, connection, options.acl(), config).map_err(failed)?;
    let notifier = session.notifier();
    before(notifier.clone());
    kernel::raise_read_ahead(device);
    let (tell, end) = watch::channel(None);
    let is_over = Arc::new(AtomicBool::new(false));
    let ended = Arc::clone(&is_over);
    thread::Builder::new()
        .name("fuse".into())
        .spawn(move || {
            let result = session.run().map_err(|error| error.to_string());
            ended.store(true, Ordering::Release);
            remove_dead_mount_soon(device, result.is_err());
            tell.send_replace(Some(result));
        })
        .map_err(failed)?;
    let operations = Operations::default();
    Ok(Mounted {
        point: point.into(),
        device,
        is_over,
        connection: kept,
        end,
        notifier,
        hold: None,
        operations,
    })
}

fn take_hold(core: &Core, mounted: &Mounted, runtime: &Handle) -> Option<Arc<Hold>> {
    let hold = Arc::new(Hold::new(&mounted.point, mounted.device, runtime.clone())?);
    let told = Arc::clone(&hold);
    core.vfs.watch_safety(Box::new(move |is_safe| told.tell(is_safe)));
    Some(hold)
}

/// As [`remove_dead_mount`], but does not wait for long: what has been given its number by now may be asked, and hang.
fn remove_dead_mount_soon(device: Device, is_ours: bool) {
    let (tell, done) = std::sync::mpsc::channel();
    let remove = move || {
        remove_dead_mount(device, is_ours);
        let _ = tell.send(());
    };
    if thread::Builder::new().name("fuse-end".into()).spawn(remove).is_ok() {
        let _ = done.recv_timeout(REMOVAL_MAX);
    }
}

/// When the session is over, a mount still there is dead: every access would fail with `ENOTCONN`. Where it does not, the
/// mount has gone, and another has been given its number; unless it `is_ours`, because the kernel has not let go of it, and
/// whoever asks there would wait for ever.
fn remove_dead_mount(device: Device, is_ours: bool) {
    let places = mountinfo::places_of(device).unwrap_or_default();
    let dead = places.iter().filter(|point| is_at(point, device) && (is_ours || is_dead(point)));
    for error in dead.filter_map(|point| kernel::detach(point, true).err()) {
        tracing::warn!(%error, "the mount has ended but is still listed");
    }
}

/// Checks that a volume can be mounted at `path`, and gives the absolute path without symbolic links. What is true now
/// may not be a moment later: [`mount`] checks again.
///
/// # Errors
/// Says what is wrong with it.
pub fn check_mount_point(path: &Path, nonempty: bool) -> Result<PathBuf, MountError> {
    let explain = |source: io::Error| match source.raw_os_error() {
        Some(libc::ENOENT) => MountError::Missing(path.to_owned()),
        Some(libc::ENOTDIR) => MountError::NotDirectory(path.to_owned()),
        Some(libc::ENOTCONN) => MountError::Dead(path.to_owned()),
        _ => MountError::Io { what: "looking at the mount point", path: path.to_owned(), source },
    };
    let point = path.canonicalize().map_err(explain)?;
    if !point.metadata().map_err(explain)?.is_dir() {
        return Err(MountError::NotDirectory(point));
    }
    if let Some(mount) = mountinfo::mounted_at(&point).map_err(explain)? {
        if is_dead(&point) {
            return Err(MountError::Dead(point));
        }
        return Err(MountError::AlreadyMounted { path: point, source_name: mount.source });
    }
    if !nonempty && point.read_dir().map_err(explain)?.next().is_some() {
        return Err(MountError::NotEmpty(point));
    }
    Ok(point)
}

/// Whether the process of the FUSE mount at `point` has died. Its attributes, its opening and its list the kernel answers
/// for as long as it remembers them; how much room there is it always asks. A mount that lives is asked, and waited for.
#[must_use]
pub fn is_dead(point: &Path) -> bool {
    rustix::fs::statvfs(point).is_err_and(|error| error == Errno::NOTCONN)
}

impl Mounted {
    /// Where it was mounted: an absolute path without symbolic links.
    #[must_use]
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// How often the kernel has asked for what.
    #[must_use]
    pub const fn operations(&self) -> &Operations {
        &self.operations
    }

    /// The device number by which `stat` and the list of mounts know it.
    #[must_use]
    pub const fn device(&self) -> Device {
        self.device
    }

    /// Whether the kernel has let go of the mount: its device's number may be another's then.
    fn is_over(&self) -> bool {
        self.is_over.load(Ordering::Acquire) || kernel::is_closed(&self.connection)
    }

    /// Returns when the kernel has let go of the mount, whoever unmounted it.
    ///
    /// # Errors
    /// [`MountError::Session`] if it did so because the connection broke.
    pub async fn ended(&self) -> Result<(), MountError> {
        let mut end = self.end.clone();
        let result = match end.wait_for(Option::is_some).await {
            Ok(result) => result.clone(),
            Err(_) => Some(Err("its thread died".to_owned())),
        };
        result.unwrap_or(Ok(())).map_err(MountError::Session)
    }

    /// Unmounts, unless somebody else already has; what is not in the bucket yet is the caller's care. Never touches another filesystem mounted at the same place.
    ///
    /// With [`Unmount::WhenIdle`], returns when the mount has ended.
    ///
    /// # Errors
    /// [`MountError::Busy`], [`MountError::Holds`], [`MountError::AlsoAt`] or [`MountError::Covered`] if it cannot be done
    /// now; then it stays mounted and served.
    /// [`MountError::Elsewhere`] or [`MountError::Lingers`] if it could be done only here; then it is served on.
    pub async fn unmount(&self, how: Unmount) -> Result<(), MountError> {
        let mut tries = 1;
        while let Err(error) = self.try_unmount(how).await {
            if tries == UNMOUNT_TRIES || !matches!(error, MountError::Busy(_)) {
                return Err(error);
            }
            tries += 1;
            tokio::time::sleep(UNMOUNT_PAUSE).await;
        }
        match how {
            Unmount::WhenIdle => self.gone().await,
            Unmount::Detach => Ok(()),
        }
    }

    /// Waits for the end of a mount that is unmounted here, unless another mount namespace keeps it.
    async fn gone(&self) -> Result<(), MountError> {
        let mut waited = Duration::ZERO;
        // How the session ended is told by `ended`; here it only matters that it has.
        while tokio::time::timeout(FAREWELL_CHECK, self.ended()).await.is_err() {
            waited += FAREWELL_CHECK;
            let device = self.device;
            let holder = blocking(move || Ok(mountinfo::holder(device))).await?;
            let path = || self.point.to_path_buf();
            match holder {
                Some(holder) => return Err(MountError::Elsewhere { path: path(), holder }),
                None if waited > FAREWELL_MAX => return Err(MountError::Lingers(path())),
                None => {}
            }
        }
        Ok(())
    }

    /// The hold is let go for the try only: whoever else unmounts meanwhile shall be refused.
    async fn try_unmount(&self, how: Unmount) -> Result<(), MountError> {
        if self.is_over() {
            return Ok(());
        }
        let (point, device) = (Arc::clone(&self.point), self.device);
        self.waive_hold(true).await;
        let this = self.clone();
        let unmounted = blocking(move || unmount(&point, device, how, &|| this.is_over())).await;
        if unmounted.is_err() {
            self.waive_hold(false).await;
        }
        unmounted
    }

    /// Makes the kernel hand over what programs wrote through memory maps and it has not sent yet. Does nothing if
    /// the mount is not reachable at its place any more.
    ///
    /// # Errors
    /// [`MountError::LostPages`] if some could not be taken, of which the kernel tells once; [`MountError::Io`] with the system's reason.
    pub async fn flush_pages(&self) -> Result<(), MountError> {
        if self.is_over() {
            return Ok(());
        }
        let (point, device) = (Arc::clone(&self.point), self.device);
        blocking(move || {
            let place = mountinfo::place_of(&point, device).ok().flatten();
            let place = place.unwrap_or_else(|| point.to_path_buf());
            kernel::flush_pages(&place, device).map_err(|source| match Errno::from_io_error(&source) {
                Some(Errno::NOSPC | Errno::DQUOT | Errno::IO | Errno::FBIG) => {
                    MountError::LostPages { source }
                }
                _ => MountError::Io { what: "syncing the mount", path: point.to_path_buf(), source },
            })
        })
        .await
    }

    /// Waits until the mount is not kept busy any more by changes that have reached the bucket.
    pub async fn let_go(&self) {
        if let Some(hold) = &self.hold {
            hold.closed().await;
        }
    }

    async fn waive_hold(&self, is_waived: bool) {
        if let Some(hold) = &self.hold {
            hold.waive(is_waived);
            hold.closed().await;
        }
    }

    /// A way to make the kernel forget what it remembers.
    #[must_use]
    pub fn kernel_cache(&self) -> KernelCache {
        KernelCache(self.notifier.clone())
    }
}

fn unmount(point: &Path, device: Device, how: Unmount, is_over: &dyn Fn() -> bool) -> Result<(), MountError> {
    let io = |source| MountError::Io { what: "reading the list of mounts", path: point.into(), source };
    let Some(place) = mountinfo::place_of(point, device).map_err(io)? else { return Ok(()) };
    if how == Unmount::WhenIdle
        && let Some(other) = mountinfo::other_places(&place).into_iter().next()
        && is_at(&place, device)
    {
        return Err(MountError::AlsoAt { path: place, other });
    }
    if !is_at(&place, device) {
        // Unless somebody else has unmounted it since.
        let is_gone = !mountinfo::places_of(device).map_err(io)?.contains(&place);
        return if is_gone { Ok(()) } else { Err(MountError::Covered(place)) };
    }
    // Looked at last: what has its number by now is another's.
    if is_over() {
        return Ok(());
    }
    kernel::detach(&place, how == Unmount::Detach).map_err(|error| match error {
        MountError::Busy(path) => match mountinfo::mounted_inside(&place) {
            Some(inside) => MountError::Holds { path, inside },
            None => MountError::Busy(path),
        },
        error => error,
    })
}

/// Whether it is what shows at `point`. Where that cannot be looked at, the last mount of the list is taken for it.
fn is_at(point: &Path, device: Device) -> bool {
    let listed = || mountinfo::mounted_at(point).ok().flatten().map(|mount| mount.device);
    kernel::shown_at(point).or_else(listed) == Some(device)
}

/// The calls made here end in requests to this very process, so they must not hold up a runtime thread.
async fn blocking<T: Send + 'static>(
    call: impl FnOnce() -> Result<T, MountError> + Send + 'static,
) -> Result<T, MountError> {
    match tokio::task::spawn_blocking(call).await {
        Ok(result) => result,
        Err(error) => Err(MountError::Session(error.to_string())),
    }
}

/// What the kernel remembers of a mount. For a volume that changes other than through this mount.
///
/// Must not be called from within an operation: the kernel may wait for that operation first.
#[derive(Clone, Debug)]
pub struct KernelCache(Notifier);

impl KernelCache {
    /// Forgets attributes and cached contents of `ino`.
    ///
    /// # Errors
    /// The kernel's; not having heard of `ino` is none.
    pub fn forget_inode(&self, ino: Ino) -> io::Result<()> {
        self.0.inval_inode(INodeNo(ino.0), 0, 0)
    }

    /// Forgets what `name` in `dir` is, or that there is no such name.
    ///
    /// # Errors
    /// The kernel's; not having heard of the name is none.
    pub fn forget_name(&self, dir: Ino, name: &[u8]) -> io::Result<()> {
        use std::os::unix::ffi::OsStrExt;
        self.0.inval_entry(INodeNo(dir.0), std::ffi::OsStr::from_bytes(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bad_mount_point_is_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        std::fs::write(&file, b"x").unwrap();
        assert!(matches!(check_mount_point(&dir.path().join("no"), false), Err(MountError::Missing(_))));
        assert!(matches!(check_mount_point(&file, false), Err(MountError::NotDirectory(_))));
        assert!(matches!(check_mount_point(&file.join("below"), false), Err(MountError::NotDirectory(_))));
        assert!(matches!(check_mount_point(dir.path(), false), Err(MountError::NotEmpty(_))));
        assert!(check_mount_point(dir.path(), true).is_ok());
        std::fs::remove_file(&file).unwrap();
        assert_eq!(check_mount_point(dir.path(), false).unwrap(), dir.path().canonicalize().unwrap());
        assert!(matches!(check_mount_point(Path::new("/"), true), Err(MountError::AlreadyMounted { .. })));
    }

    #[test]
    fn a_mount_that_lives_is_not_removed_for_having_the_number_of_a_dead_one() {
        struct Nothing;
        impl Filesystem for Nothing {}
        let dir = tempfile::tempdir().unwrap();
        let mounted = mount_for_comparison(Nothing, dir.path(), &MountOptions::default()).unwrap();
        assert_eq!(mountinfo::mounted_at(mounted.point()).unwrap().unwrap().device, mounted.device());
        assert!(!mounted.is_over());
        remove_dead_mount(mounted.device(), false);
        assert!(is_at(mounted.point(), mounted.device()), "it was removed");
        remove_dead_mount(mounted.device(), true);
        assert!(!is_at(mounted.point(), mounted.device()), "it was left");
        assert!(kernel::is_closed(&mounted.connection), "before any thread of ours has heard of it");
        futures::executor::block_on(mounted.ended()).unwrap();
        assert!(!is_at(mounted.point(), mounted.device()));
    }

    #[test]
    fn unmounting_never_touches_a_stranger() {
        let stranger = Device { major: 0, minor: u32::MAX };
        assert!(unmount(Path::new("/"), stranger, Unmount::WhenIdle, &|| false).is_ok());
        assert!(mountinfo::mounted_at(Path::new("/")).unwrap().is_some());
    }
}
