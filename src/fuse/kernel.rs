//! The system calls and the helper program by which a filesystem is attached to the tree and taken off it.

use std::ffi::CString;
use std::io::{self, ErrorKind, IoSliceMut};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{AtFlags, FlockOperation, Mode, OFlags, StatxFlags};
use rustix::io::Errno;
use rustix::mount::{MountFlags, UnmountFlags};
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags};

use super::{Device, MountError, MountOptions};
use crate::vfs::Atime;

const DEV_FUSE: &str = "/dev/fuse";
const FUSERMOUNT: &str = "fusermount3";
/// By what fusermount3 learns which descriptor to send the connection through.
const FUSERMOUNT_SOCKET: &str = "_FUSE_COMMFD";
const SUBTYPE: &str = "coffer";
/// Read-ahead of the mount. The kernel starts FUSE at 128 KiB, less than one request may carry (1 MiB).
const READ_AHEAD_KIB: u32 = 4096;
/// How often, and how far apart, a mount looks whether another one is under way at its place. Who has locked the directory for
/// another reason does not stop it.
const TURN_TRIES: u32 = 40;
const TURN_PAUSE: Duration = Duration::from_millis(50);
/// So often is asked for something that the kernel does not remember, so that each thread which reads requests has come to
/// one that is younger than what was sent.
const QUESTIONS: usize = 8;

/// The device that a connection is of, as soon as it is mounted; `None` before Linux 6.16, which does not tell.
pub(super) fn device_of_connection(connection: &OwnedFd) -> Option<Device> {
    let about = std::fs::read_to_string(format!("/proc/self/fdinfo/{}", connection.as_raw_fd())).ok()?;
    let minor = about.lines().find_map(|line| line.strip_prefix("fuse_connection:"))?;
    Some(Device { major: 0, minor: minor.trim().parse().ok()? })
}

/// Whether nothing is mounted any more that the connection is of.
pub(super) fn is_closed(connection: &OwnedFd) -> bool {
    let mut events = [PollFd::new(connection, PollFlags::empty())];
    poll(&mut events, Some(&Timespec::default())).is_ok() && events[0].revents().contains(PollFlags::ERR)
}

/// What shows at `point`, whichever mount was made last: one may have been moved over another. Sends no request to a mount
/// there. `None` if the way to it is closed.
pub(super) fn shown_at(point: &Path) -> Option<Device> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    device_of_root(&rustix::fs::open(point, flags, Mode::empty()).ok()?)
}

/// The device of an open directory, whatever user asks.
pub(super) fn device_of_root(root: &OwnedFd) -> Option<Device> {
    let how = AtFlags::EMPTY_PATH | AtFlags::STATX_DONT_SYNC;
    let found = rustix::fs::statx(root, c"", how, StatxFlags::empty()).ok()?;
    Some(Device { major: found.stx_dev_major, minor: found.stx_dev_minor })
}

/// Waits, but not for long, until nobody else is mounting at `point`, and keeps others from that as long as the lock lives: of
/// two mounts the second is to see the first.
pub(super) fn turn_at(point: &Path) -> Option<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let directory = rustix::fs::open(point, flags, Mode::empty()).ok()?;
    for _ in 0..TURN_TRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Err(Errno::WOULDBLOCK) => std::thread::sleep(TURN_PAUSE),
            Ok(()) => return Some(directory),
            Err(_) => break,
        }
    }
    None
}

/// Mounts at `point` and returns the connection.
pub(super) fn attach(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    if rustix::process::geteuid().is_root() {
        match attach_directly(point, options) {
            // Root without the capability, as in many containers; the helper may still be allowed to.
            Err(MountError::Io { source, .. }) if source.kind() == ErrorKind::PermissionDenied => {}
            result => return result,
        }
    }
    attach_by_helper(point, options)
}

fn attach_directly(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let fuse = open_fuse().map_err(MountError::NoFuse)?;
    let data = format!(
        "fd={},rootmode=40000,user_id={},group_id={},default_permissions{}",
        fuse.as_raw_fd(),
        rustix::process::getuid().as_raw(),
        rustix::process::getgid().as_raw(),
        if options.admits_others() { ",allow_other" } else { "" },
    );
    let io = |source: io::Error| MountError::Io { what: "mount", path: point.to_owned(), source };
    let data = CString::new(data).map_err(|_| io(ErrorKind::InvalidInput.into()))?;
    let kind = format!("fuse.{SUBTYPE}");
    rustix::mount::mount(options.source_name.as_str(), point, kind, mount_flags(options), data.as_c_str())
        .map_err(|errno| io(errno.into()))?;
    Ok(fuse)
}

fn open_fuse() -> io::Result<OwnedFd> {
    Ok(rustix::fs::open(DEV_FUSE, OFlags::RDWR | OFlags::CLOEXEC, Mode::empty())?)
}

/// Whether each thread can have a connection of its own, which takes opening the device once more.
pub(super) fn can_clone_connection() -> bool {
    open_fuse().is_ok()
}

fn mount_flags(options: &MountOptions) -> MountFlags {
    let mut flags = MountFlags::empty();
    flags.set(MountFlags::RDONLY, options.read_only);
    flags.set(MountFlags::NOSUID, !options.suid);
    flags.set(MountFlags::NODEV, !options.dev);
    flags.set(MountFlags::NOEXEC, !options.exec);
    flags.set(MountFlags::NOATIME, options.atime == Atime::Never);
    flags.set(MountFlags::SYNCHRONOUS, options.sync);
    flags
}

fn attach_by_helper(point: &Path, options: &MountOptions) -> Result<OwnedFd, MountError> {
    let refused = |reason: String| MountError::Refused { path: point.to_owned(), reason };
    let (ours, theirs) = UnixStream::pair().map_err(MountError::NoHelper)?;
    let words = options.words().join(",");
    let source = escape_comma(&options.source_name);
    // The socket is the child's standard input, descriptor 0: so it is inherited, and no other descriptor is.
    let child = Command::new(FUSERMOUNT)
        .arg("-o")
        .arg(format!("{words},fsname={source},subtype={SUBTYPE}"))
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C")
        .env(FUSERMOUNT_SOCKET, "0")
        .stdin(Stdio::from(OwnedFd::from(theirs)))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(MountError::NoHelper)?;
    let fuse = receive_descriptor(&ours);
    let output = child.wait_with_output().map_err(MountError::NoHelper)?;
    match fuse {
        Ok(Some(fuse)) => Ok(fuse),
        Ok(None) => Err(refused(last_line(&output.stderr))),
        Err(error) => Err(refused(error.to_string())),
    }
}

/// `None`: the other side closed the socket without sending one.
fn receive_descriptor(socket: &UnixStream) -> io::Result<Option<OwnedFd>> {
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(1))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut byte = [0];
    let mut buffers = [IoSliceMut::new(&mut byte)];
    rustix::io::retry_on_intr(|| {
        rustix::net::recvmsg(socket.as_fd(), &mut buffers, &mut control, RecvFlags::CMSG_CLOEXEC)
    })?;
    let descriptor = control.drain().find_map(|message| match message {
        RecvAncillaryMessage::ScmRights(mut descriptors) => descriptors.next(),
        _ => None,
    });
    Ok(descriptor)
}

/// fusermount3 splits its options at commas that no backslash precedes.
fn escape_comma(text: &str) -> String {
    text.replace('\\', "\\\\").replace(',', "\\,")
}

fn last_line(output: &[u8]) -> String {
    let text = String::from_utf8_lossy(output);
    let line = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no reason given");
    line.trim().strip_prefix("fusermount3: ").unwrap_or(line).to_owned()
}

/// Takes off what is mounted at `point`; `detach` does so even while it is in use.
pub(super) fn detach(point: &Path, detach: bool) -> Result<(), MountError> {
    let flags = if detach { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    match rustix::mount::unmount(point, flags | UnmountFlags::NOFOLLOW) {
        Ok(()) => Ok(()),
        Err(Errno::BUSY) => Err(MountError::Busy(point.to_owned())),
        Err(Errno::PERM) => detach_by_helper(point, detach),
        Err(errno) => Err(MountError::NotUnmounted { path: point.to_owned(), reason: errno.to_string() }),
    }
}

fn detach_by_helper(point: &Path, detach: bool) -> Result<(), MountError> {
    let output = Command::new(FUSERMOUNT)
        .arg(if detach { "-uz" } else { "-u" })
        .arg("--")
        .arg(point)
        .env("LC_ALL", "C")
        .stdin(Stdio::null())
        .output()
        .map_err(MountError::NoHelper)?;
    if output.status.success() {
        return Ok(());
    }
    let reason = last_line(&output.stderr);
    if reason.contains("busy") {
        return Err(MountError::Busy(point.to_owned()));
    }
    Err(MountError::NotUnmounted { path: point.to_owned(), reason })
}

/// Lets the kernel read far ahead. Only root may set it; without, streams have fewer requests under way.
pub(super) fn raise_read_ahead(device: Device) {
    let path = format!("/sys/class/bdi/{device}/read_ahead_kb");
    if let Err(error) = std::fs::write(&path, READ_AHEAD_KIB.to_string()) {
        tracing::debug!(path, %error, "read-ahead stays at the kernel's default");
    }
}

/// Makes the kernel send what it holds of files that were written through memory maps. A mount that has left the tree,
/// or is covered, cannot be reached any more and is passed over.
///
/// The kernel does not wait until it is answered. But what is asked for after that comes after it.
pub(super) fn flush_pages(point: &Path, device: Device) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let Ok(root) = rustix::fs::open(point, flags, Mode::empty()) else {
        return Ok(());
    };
    let number = rustix::fs::fstat(&root)?.st_dev;
    if (rustix::fs::major(number), rustix::fs::minor(number)) == (device.major, device.minor) {
        rustix::fs::syncfs(&root)?;
        for _ in 0..QUESTIONS {
            rustix::fs::fstatfs(&root)?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_source_with_commas_stays_one_option() {
        assert_eq!(escape_comma("s3://b/a,ro\\x"), "s3://b/a\\,ro\\\\x");
    }

    #[test]
    fn the_helpers_last_word_is_the_reason() {
        assert_eq!(
            last_line(b"x\nfusermount3: failed to unmount /m: Device or resource busy\n\n"),
            "failed to unmount /m: Device or resource busy"
        );
        assert_eq!(last_line(b""), "no reason given");
    }

    #[test]
    fn options_become_the_kernels_flags() {
        let mut options = MountOptions::default();
        assert_eq!(mount_flags(&options), MountFlags::NOSUID | MountFlags::NODEV);
        options.apply("ro,suid,dev,noexec,noatime,sync").unwrap();
        let flags = MountFlags::RDONLY | MountFlags::NOEXEC | MountFlags::NOATIME | MountFlags::SYNCHRONOUS;
        assert_eq!(mount_flags(&options), flags);
    }
}
