//! The user's running mounts: one small file each, saying where its socket is.

use std::env;
use std::fs::{self, DirBuilder, OpenOptions, Permissions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use serde::{Deserialize, Serialize};

use super::meant::meant;
use super::process::is_running;
use super::{ControlError, path_text};
use crate::fuse::{device_of, is_dead};

/// Longest entry that is read; more cannot be one of ours.
const ENTRY_BYTES_MAX: u64 = 64 * 1024;
/// Entries looked at; more mounts than this one user does not have.
const ENTRIES_MAX: usize = 4096;
/// What `sockaddr_un` has room for, with its final NUL.
const SOCKET_PATH_BYTES_MAX: usize = 107;

/// A running mount.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct MountEntry {
    /// Where it is mounted.
    #[serde(with = "path_text")]
    pub mountpoint: PathBuf,
    /// The number of its device, by which it is known wherever it was moved or is mounted as well; empty if it was written
    /// by an older process.
    #[serde(default)]
    pub device: String,
    /// Its bucket, without credentials.
    pub url: String,
    /// Its volume's id.
    pub volume: String,
    /// Its volume's fingerprint in words; empty if it was written by an older process.
    #[serde(default)]
    pub fingerprint: String,
    /// The process that serves it.
    pub pid: u32,
    /// When that was started, in the unit of proc_pid_stat(5), by which it is told from others that have had its number;
    /// filled in by `Server::start`. 0: not known.
    #[serde(default)]
    pub started: u64,
    /// It is mounted no more, and its last changes are being saved.
    #[serde(default)]
    pub ended: bool,
    /// When it was mounted, in seconds since 1970.
    pub since: i64,
    /// Its socket; filled in by [`Registry::publish`].
    #[serde(with = "path_text")]
    pub socket: PathBuf,
}

impl MountEntry {
    /// Whether both are of one place and one device, so that what shows there may be either.
    pub(super) fn is_at_place_of(&self, other: &Self) -> bool {
        self.mountpoint == other.mountpoint && self.device == other.device
    }

    /// Whether it is what the kernel's list has at its place. Asks nobody.
    fn shows(&self) -> bool {
        self.device.is_empty()
            || device_of(&self.mountpoint).is_some_and(|device| device.to_string() == self.device)
    }
}

/// The directory that holds the entries.
#[derive(Clone, Debug)]
pub struct Registry(PathBuf);

impl Registry {
    /// The registry of the user who runs this process: `/run/coffer` for root, else `$XDG_RUNTIME_DIR/coffer`, else
    /// `coffer/run` in the state directory.
    ///
    /// # Errors
    /// [`ControlError::NoRuntimeDir`], [`ControlError::UnsafeDir`], or the system's.
    pub fn of_user() -> Result<Self, ControlError> {
        let root = rustix::process::geteuid().is_root();
        let dir = places(root, variable).into_iter().next();
        Self::at(dir.ok_or(ControlError::NoRuntimeDir)?)
    }

    /// Where it is.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.0
    }

    /// The other registries of this user: of sessions, and of what runs outside of one (`sudo -u`, timers). Nothing is made
    /// there or changed that is not closed to others already.
    pub(super) fn others_of_user() -> Vec<Self> {
        let user = rustix::process::geteuid();
        let session = format!("/run/user/{}/coffer", user.as_raw()).into();
        let mut dirs = places(user.is_root(), variable);
        let first = (!dirs.is_empty()).then(|| dirs.remove(0));
        if !user.is_root() {
            dirs.push(session);
        }
        dirs.retain(|dir| Some(dir) != first.as_ref() && is_closed(dir, user.as_raw()));
        dirs.dedup();
        dirs.into_iter().map(Self).collect()
    }

    /// A registry in `dir`, which is made if it is not there, and closed to other users.
    ///
    /// # Errors
    /// [`ControlError::UnsafeDir`] if it belongs to another user or is no directory, or the system's.
    pub fn at(dir: PathBuf) -> Result<Self, ControlError> {
        DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&dir)
            .map_err(ControlError::io("creating the directory for sockets", &dir))?;
        let found = fs::symlink_metadata(&dir).map_err(ControlError::io("looking at the directory", &dir))?;
        if !found.is_dir() || found.uid() != rustix::process::geteuid().as_raw() {
            return Err(ControlError::UnsafeDir(dir));
        }
        if found.mode() & 0o077 != 0 {
            fs::set_permissions(&dir, Permissions::from_mode(0o700))
                .map_err(ControlError::io("closing the directory to others", &dir))?;
        }
        Ok(Self(dir))
    }

    /// The running mounts. Entries of which nothing is left are removed on the way.
    #[must_use]
    pub fn entries(&self) -> Vec<MountEntry> {
        self.look().0
    }

    /// The running mounts, and those that are still listed though their process has died.
    #[must_use]
    pub fn look(&self) -> (Vec<MountEntry>, Vec<MountEntry>) {
        let Ok(files) = fs::read_dir(&self.0) else {
            return (Vec::new(), Vec::new());
        };
        let paths = files.take(ENTRIES_MAX).filter_map(|file| Some(file.ok()?.path()));
        let ours = paths
            .filter(|path| path.extension().is_some_and(|extension| extension == "json"))
            .filter_map(|path| Some((self.known(&path)?, path)));
        // The number may be one of another pid namespace: of a container with which this directory is shared.
        let (running, ended): (Vec<_>, Vec<_>) = ours
            .partition(|(entry, _)| is_running(entry.pid, entry.started) || is_listened_to(&entry.socket));
        let running: Vec<_> = running.into_iter().map(|(entry, _)| entry).collect();
        // Asked only where no process of ours would have to answer.
        let is_left = |entry: &MountEntry| {
            running.iter().all(|other| !other.is_at_place_of(entry))
                && entry.shows()
                && is_dead(&entry.mountpoint)
        };
        let (dead, gone): (Vec<_>, Vec<_>) = ended.into_iter().partition(|(entry, _)| is_left(entry));
        gone.iter().for_each(|(_, path)| remove(path));
        (running, dead.into_iter().map(|(entry, _)| entry).collect())
    }

    /// The mount at `path`, or the one that `path` is in. A mount point itself is not touched if its directory already
    /// tells which it is.
    ///
    /// # Errors
    /// [`ControlError::NotMounted`], [`ControlError::Died`].
    pub fn find(&self, path: &Path) -> Result<MountEntry, ControlError> {
        let (running, dead) = self.look();
        match meant(&running, &dead, path) {
            Ok(entry) => Ok(entry.clone()),
            Err(Some(dead)) => Err(ControlError::died(dead.clone())),
            Err(None) => Err(ControlError::NotMounted(path.to_owned())),
        }
    }

    fn known(&self, path: &Path) -> Option<MountEntry> {
        let entry = read(path)?;
        // Nothing outside the directory is believed, or removed; nor what others put here before it was closed to them.
        if entry.socket == path.with_extension("sock") && is_own(path) && is_own(&entry.socket) {
            return Some(entry);
        }
        remove(path);
        None
    }

    /// Picks the place of a new mount's socket. Nothing is there when this returns.
    pub(super) fn new_socket(&self, pid: u32) -> Result<PathBuf, ControlError> {
        static MOUNTS: AtomicU64 = AtomicU64::new(0);
        let socket = loop {
            let number = MOUNTS.fetch_add(1, Ordering::Relaxed);
            let socket = self.0.join(format!("{pid}-{number}.sock"));
            if socket.as_os_str().len() > SOCKET_PATH_BYTES_MAX {
                return Err(ControlError::PathTooLong(socket));
            }
            // A process of another pid namespace may have the same number.
            if !is_listened_to(&socket) {
                break socket;
            }
        };
        // A process that had this number before may have left one.
        match fs::remove_file(&socket) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(ControlError::io("removing an old socket", &socket)(error))
            }
            _ => Ok(socket),
        }
    }

    /// Makes a mount known whose socket is listening.
    pub(super) fn publish(&self, entry: &MountEntry) -> Result<Published, ControlError> {
        self.write(entry).map(Published)
    }

    /// Writes, or writes anew, what is known of a mount, and says where.
    pub(super) fn write(&self, entry: &MountEntry) -> Result<PathBuf, ControlError> {
        let path = entry.socket.with_extension("json");
        let draft = entry.socket.with_extension("new");
        let failed = |source| ControlError::io("writing the mount's entry", &path)(source);
        let text = serde_json::to_vec(entry).map_err(|error| failed(error.into()))?;
        let write = || {
            let mut file =
                OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&draft)?;
            file.write_all(&text)?;
            fs::rename(&draft, &path)
        };
        write().map_err(failed)?;
        Ok(path)
    }
}

/// A mount that is known; dropping this makes it unknown again, and removes its socket.
#[derive(Debug)]
pub(super) struct Published(PathBuf);

impl Drop for Published {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.0);
        let _ = fs::remove_file(self.0.with_extension("sock"));
    }
}

/// Removes an entry and its socket.
fn remove(path: &Path) {
    let _ = fs::remove_file(path.with_extension("sock"));
    let _ = fs::remove_file(path);
}

/// Whether it is there and belongs to the user of this process.
fn is_own(path: &Path) -> bool {
    let own = rustix::process::geteuid().as_raw();
    fs::symlink_metadata(path).is_ok_and(|about| about.uid() == own)
}

/// Whether somebody listens at the socket. Waits for nobody: one that has stopped and many want to speak to counts.
fn is_listened_to(socket: &Path) -> bool {
    use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, connect, socket_with};
    let flags = SocketFlags::NONBLOCK | SocketFlags::CLOEXEC;
    let Ok(address) = SocketAddrUnix::new(socket) else { return false };
    socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)
        .is_ok_and(|ours| matches!(connect(&ours, &address), Ok(()) | Err(rustix::io::Errno::AGAIN)))
}

/// Whether a directory belongs to this user and nobody else can look into it.
fn is_closed(dir: &Path, user: u32) -> bool {
    fs::symlink_metadata(dir)
        .is_ok_and(|about| about.is_dir() && about.uid() == user && about.mode() & 0o077 == 0)
}

fn read(path: &Path) -> Option<MountEntry> {
    let mut text = Vec::new();
    let file =
        OpenOptions::new().read(true).custom_flags(libc::O_NOFOLLOW | libc::O_NONBLOCK).open(path).ok()?;
    file.take(ENTRY_BYTES_MAX + 1).read_to_end(&mut text).ok()?;
    if text.len() as u64 > ENTRY_BYTES_MAX {
        return None;
    }
    serde_json::from_slice(&text).ok()
}

fn variable(name: &str) -> Option<PathBuf> {
    env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
}

/// Where a user's registries may be; a new mount goes into the first.
fn places(root: bool, variable: impl Fn(&str) -> Option<PathBuf>) -> Vec<PathBuf> {
    if root {
        return vec![PathBuf::from("/run/coffer")];
    }
    let session = variable("XDG_RUNTIME_DIR").map(|dir| dir.join("coffer"));
    let state = variable("XDG_STATE_HOME").or_else(|| Some(variable("HOME")?.join(".local/state")));
    session.into_iter().chain(state.map(|dir| dir.join("coffer/run"))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(registry: &Registry, mountpoint: &Path, pid: u32) -> MountEntry {
        MountEntry {
            mountpoint: mountpoint.into(),
            device: String::new(),
            url: "memory:".into(),
            volume: "v".into(),
            fingerprint: String::new(),
            pid,
            started: 0,
            ended: false,
            since: 0,
            socket: registry.new_socket(pid).unwrap(),
        }
    }

    fn registry() -> (tempfile::TempDir, Registry) {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("run")).unwrap();
        (dir, registry)
    }

    #[test]
    fn sockets_live_where_the_user_keeps_such_things() {
        let set = |pairs: &'static [(&str, &str)]| {
            move |name: &str| {
                pairs.iter().find(|(key, _)| *key == name).map(|(_, value)| PathBuf::from(value))
            }
        };
        let runtime = set(&[("XDG_RUNTIME_DIR", "/run/user/7"), ("HOME", "/h")]);
        let place = |root, of: &dyn Fn(&str) -> Option<PathBuf>| {
            let places = places(root, of);
            places.iter().map(|dir| dir.display().to_string()).collect::<Vec<_>>()
        };
        assert_eq!(place(false, &runtime), ["/run/user/7/coffer", "/h/.local/state/coffer/run"]);
        assert_eq!(place(true, &runtime), ["/run/coffer"]);
        assert_eq!(place(false, &set(&[("HOME", "/h")])), ["/h/.local/state/coffer/run"]);
        assert_eq!(place(false, &set(&[("XDG_STATE_HOME", "/s"), ("HOME", "/h")])), ["/s/coffer/run"]);
        assert!(place(false, &set(&[])).is_empty());
    }

    #[test]
    fn a_mount_is_found_by_any_way_to_its_place() {
        let (dir, registry) = registry();
        let point = dir.path().canonicalize().unwrap().join("drive");
        fs::create_dir(&point).unwrap();
        std::os::unix::fs::symlink(&point, dir.path().join("link")).unwrap();
        let entry = entry(&registry, &point, std::process::id());
        fs::write(&entry.socket, b"").unwrap();
        let published = registry.publish(&entry).unwrap();
        for way in [point.clone(), point.join("../drive"), dir.path().join("link"), dir.path().join("drive/")]
        {
            assert_eq!(registry.find(&way).unwrap(), entry, "{}", way.display());
        }
        assert!(matches!(registry.find(dir.path()), Err(ControlError::NotMounted(_))));
        drop(published);
        assert_eq!(registry.entries(), []);
        assert!(!entry.socket.exists());
    }

    #[test]
    fn what_a_dead_process_left_is_cleaned_up() {
        let (_dir, registry) = registry();
        let mut child = std::process::Command::new("true").spawn().unwrap();
        child.wait().unwrap();
        let dead = entry(&registry, Path::new("/a"), child.id());
        fs::write(&dead.socket, b"").unwrap();
        std::mem::forget(registry.publish(&dead).unwrap());
        let unheard = entry(&registry, Path::new("/b"), std::process::id());
        std::mem::forget(registry.publish(&unheard).unwrap());
        assert_eq!(registry.entries(), []);
        assert_eq!(fs::read_dir(&registry.0).unwrap().count(), 0);
    }

    #[test]
    fn a_process_of_another_pid_namespace_is_known_by_its_socket() {
        let (_dir, registry) = registry();
        // No process has this number here.
        let elsewhere = entry(&registry, Path::new("/a"), u32::MAX);
        let listener = std::os::unix::net::UnixListener::bind(&elsewhere.socket).unwrap();
        std::mem::forget(registry.publish(&elsewhere).unwrap());
        assert_eq!(registry.entries(), std::slice::from_ref(&elsewhere));
        // Nor does one that has it there, too, take its socket away.
        assert_ne!(registry.new_socket(u32::MAX).unwrap(), elsewhere.socket);
        assert!(elsewhere.socket.exists());
        drop(listener);
        assert_eq!(registry.entries(), []);
    }

    #[test]
    fn an_entry_cannot_point_outside_nor_have_strangers_files_removed() {
        let (dir, registry) = registry();
        let victim = dir.path().join("victim");
        fs::write(&victim, b"precious").unwrap();
        let mut entry = entry(&registry, Path::new("/a"), std::process::id());
        let path = entry.socket.with_extension("json");
        entry.socket = victim.clone();
        fs::write(&path, serde_json::to_vec(&entry).unwrap()).unwrap();
        fs::write(registry.0.join("junk.json"), vec![b'['; 100_000]).unwrap();
        fs::create_dir(registry.0.join("dir.json")).unwrap();
        assert_eq!(registry.entries(), []);
        assert!(victim.exists());
    }

    #[test]
    fn a_socket_that_another_user_left_is_passed_over() {
        if !rustix::process::geteuid().is_root() {
            return println!("only root can give a file away");
        }
        for foreign in ["sock", "json"] {
            let (_dir, registry) = registry();
            let entry = entry(&registry, Path::new("/a"), std::process::id());
            fs::write(&entry.socket, b"").unwrap();
            let _published = registry.publish(&entry).unwrap();
            assert_eq!(registry.entries(), std::slice::from_ref(&entry));
            std::os::unix::fs::chown(entry.socket.with_extension(foreign), Some(65_534), None).unwrap();
            assert_eq!(registry.entries(), [], "{foreign}");
        }
    }

    #[test]
    fn the_directory_is_closed_to_others() {
        let dir = tempfile::tempdir().unwrap();
        let run = dir.path().join("run");
        fs::create_dir(&run).unwrap();
        fs::set_permissions(&run, Permissions::from_mode(0o755)).unwrap();
        Registry::at(run.clone()).unwrap();
        assert_eq!(fs::metadata(&run).unwrap().mode() & 0o777, 0o700);
        let link = dir.path().join("link");
        std::os::unix::fs::symlink(&run, &link).unwrap();
        assert!(matches!(Registry::at(link), Err(ControlError::UnsafeDir(_))));
    }

    #[test]
    fn a_mount_point_of_any_bytes_survives() {
        use std::os::unix::ffi::OsStringExt;
        let (_dir, registry) = registry();
        let odd = PathBuf::from(std::ffi::OsString::from_vec(b"/mnt/\xff\"\n".to_vec()));
        let entry = entry(&registry, &odd, std::process::id());
        fs::write(&entry.socket, b"").unwrap();
        let _published = registry.publish(&entry).unwrap();
        assert_eq!(registry.entries(), [entry]);
    }

    #[test]
    fn a_socket_path_that_the_system_cannot_hold_is_refused() {
        let dir = tempfile::tempdir().unwrap();
        let registry = Registry::at(dir.path().join("x".repeat(100))).unwrap();
        assert!(matches!(registry.new_socket(1), Err(ControlError::PathTooLong(_))));
    }
}
