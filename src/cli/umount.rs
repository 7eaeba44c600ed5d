//! `coffer umount`: unmounts after everything is in the bucket.

use std::fs;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, PidfdFlags, pidfd_open};

use super::client::{ask, mounts};
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::runtime;
use super::stderr;
use crate::control::{self, Client, ControlError, MountEntry, Registry, Request};
use crate::fuse::{device_of, is_dead, mount_point_of, other_places};

/// Shown at the end of `coffer umount --help`.
pub const EXAMPLES: &str = "\
Returns when everything is in the bucket and the mount's process has ended. Ctrl-C ends the waiting, not the saving; \
`coffer status` tells how far it is.

Examples:
  coffer umount ~/vault
  coffer umount --lazy ~/vault";

/// How long the process may take to end once it has said that all is done.
const FAREWELL: Duration = Duration::from_secs(10);

/// Arguments of `coffer umount`.
#[derive(clap::Args, Debug)]
pub struct UmountArgs {
    /// Mount points
    #[arg(value_name = "DIR", required = true)]
    pub points: Vec<PathBuf>,
    /// Take the mount away even while files are open there; it ends when the last is closed
    #[arg(short, long)]
    pub lazy: bool,
    /// For umount(8): the mount may be another user's
    #[arg(long, hide = true)]
    pub helper: bool,
}

/// Unmounts.
///
/// # Errors
/// When no volume is mounted there, files are in use, or something could not be saved.
pub fn run(args: &UmountArgs) -> CommandResult {
    // A dead mount need not be one that the registry knows; one that is running need not be asked.
    let serves = |point: &Path| Registry::of_user().is_ok_and(|registry| registry.find(point).is_ok());
    let (dead, living): (Vec<_>, Vec<_>) =
        args.points.iter().cloned().partition(|point| !serves(point) && is_dead(point));
    let unmounted = if living.is_empty() { Ok(()) } else { unmount_living(&living, args) };
    let mut errors: Vec<CommandError> = dead.iter().map(|point| remove_dead(point)).collect();
    errors.extend(unmounted.err());
    let last = errors.pop();
    for error in errors {
        stderr::line(format_args!("error: {error}"));
    }
    last.map_or(Ok(()), Err)
}

fn unmount_living(points: &[PathBuf], args: &UmountArgs) -> CommandResult {
    let entries = match mounts(points) {
        Err(error) if args.helper && error.exit() == Exit::NotMounted => return plainly(points, args.lazy),
        entries => entries?,
    };
    for (point, entry) in points.iter().zip(&entries) {
        refuse_inside(point, entry)?;
    }
    runtime::block_on(async {
        for (point, entry) in points.iter().zip(&entries) {
            match copy_of(point, entry) {
                Some((copy, other)) => unmount_copy(&copy, &other, args.lazy)?,
                None => unmount(entry, args.lazy).await?,
            }
        }
        Ok(())
    })
}

/// Where `point` is, and another place of the same mount, if the mount does not end with it: as after `mount --bind`.
fn copy_of(point: &Path, entry: &MountEntry) -> Option<(PathBuf, PathBuf)> {
    let full = point.canonicalize().ok().filter(|full| *full != entry.mountpoint)?;
    is_of(&full, entry).then_some(())?;
    let other = other_places(&full).into_iter().next()?;
    Some((full, other))
}

/// Whether what is at `full` is of this mount, whatever its path.
fn is_of(full: &Path, entry: &MountEntry) -> bool {
    device_of(full).is_some_and(|device| device.to_string() == entry.device)
}

fn unmount_copy(copy: &Path, other: &Path, lazy: bool) -> CommandResult {
    let how = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    rustix::mount::unmount(copy, how | UnmountFlags::NOFOLLOW).map_err(|error| {
        CommandError::new(Exit::NotUnmounted, format!("cannot unmount {}: {error}", copy.display()))
    })?;
    stderr::line(format_args!(
        "{}: unmounted; the volume is still mounted at {}",
        copy.display(),
        other.display()
    ));
    Ok(())
}

/// As umount(8), takes no path inside a mount for the mount itself. What cannot be looked at is no such path: a mount point
/// may be closed to this user.
fn refuse_inside(point: &Path, entry: &MountEntry) -> CommandResult {
    let Ok(full) = point.canonicalize() else { return Ok(()) };
    let mounted = match mount_point_of(&full) {
        Some(place) if is_of(&full, entry) => place,
        _ => entry.mountpoint.clone(),
    };
    match full != mounted && full.starts_with(&mounted) {
        true => {
            let message = format!("{} is not a mount point", point.display());
            Err(CommandError::new(Exit::NotMounted, message)
                .hint(format!("it lies in {}, where a volume is mounted", mounted.display())))
        }
        false => Ok(()),
    }
}

/// Asks the kernel, which asks nobody: a mount of another user is busy then as long as anything is not in the bucket.
fn plainly(points: &[PathBuf], lazy: bool) -> CommandResult {
    let how = if lazy { UnmountFlags::DETACH } else { UnmountFlags::empty() };
    for point in points {
        rustix::mount::unmount(point, how | UnmountFlags::NOFOLLOW).map_err(|error| {
            use rustix::io::Errno;
            let point = point.display();
            if matches!(error, Errno::INVAL | Errno::NOENT) {
                return CommandError::new(Exit::NotMounted, format!("nothing is mounted at {point}"));
            }
            CommandError::new(Exit::NotUnmounted, format!("cannot unmount {point}: {error}"))
                .hint("it is another user's; `coffer umount`, run by its owner, saves everything first")
        })?;
    }
    Ok(())
}

/// Takes a mount off the tree whose process has died. It answers nobody, so nothing is lost by that.
fn remove_dead(point: &Path) -> CommandError {
    let removed = match rustix::mount::unmount(point, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
        Err(rustix::io::Errno::PERM) => Command::new("fusermount3")
            .arg("-uz")
            .arg("--")
            .arg(point)
            .status()
            .is_ok_and(|end| end.success()),
        // By force it may have gone already.
        other => other.is_ok() || mount_point_of(point).is_none_or(|mounted| mounted != point),
    };
    died(point, if removed { "the mount was removed" } else { "the mount could not be removed" })
}

fn died(point: &Path, done: &str) -> CommandError {
    let point = point.display();
    let message =
        format!("the process that served {point} has died, and what it had not sent may be lost; {done}");
    CommandError::new(Exit::NotUnmounted, message)
        .hint("all up to its last commit is in the bucket; mount again to see it")
}

/// Ends a mount whose process was killed while the kernel held one of its threads, which waits for answers that nobody gives
/// any more: they never come, and the connection is closed by nobody, until the kernel is told so.
///
/// Its device's number may be another's as soon as it is not mounted any more: then there is nothing to be ended.
fn end_dying(entry: &MountEntry, process: io::Result<OwnedFd>) -> CommandError {
    if !is_of(&entry.mountpoint, entry) || is_anothers(entry) {
        return died(&entry.mountpoint, "it is not mounted any more");
    }
    if let Err(error) = close_connection(entry) {
        // By force it closes the connection, also where the mount is in use; for root only.
        let forced = rustix::mount::unmount(&entry.mountpoint, UnmountFlags::FORCE | UnmountFlags::NOFOLLOW);
        tracing::debug!(%error, ?forced, device = entry.device, "there is no way to close the connection alone");
    }
    // The lock on the volume goes with it.
    let _ = process.map(|process| has_ended(&process));
    remove_dead(&entry.mountpoint)
}

/// Whether a mount that lives has been given the number of its device.
fn is_anothers(entry: &MountEntry) -> bool {
    let running = control::mounts().unwrap_or_default();
    running.iter().any(|other| other.socket != entry.socket && other.device == entry.device && !other.ended)
}

/// Has every request to the mount fail, also those that wait (`Documentation/filesystems/fuse.rst`, "Aborting a filesystem
/// connection").
fn close_connection(entry: &MountEntry) -> io::Result<()> {
    let (_, minor) = entry.device.split_once(':').ok_or(io::ErrorKind::InvalidInput)?;
    fs::write(Path::new("/sys/fs/fuse/connections").join(minor).join("abort"), "1")
}

async fn unmount(entry: &MountEntry, lazy: bool) -> CommandResult {
    let process = watch(entry);
    if let Err(ControlError::Died { .. }) = Client::connect(entry).await {
        return Err(tokio::task::block_in_place(|| end_dying(entry, process)));
    }
    let answer = ask(entry, &Request::Unmount { detach: lazy }).await?;
    let point = entry.mountpoint.display();
    if answer.get("detached").and_then(serde_json::Value::as_bool) == Some(true) {
        stderr::line(format_args!(
            "{point}: taken away; everything so far is in the bucket, and it ends when nobody uses it"
        ));
        return Ok(());
    }
    // Until then it holds the volume's lock, and mounting again would be refused.
    if let Ok(process) = process
        && !tokio::task::block_in_place(|| has_ended(&process))
    {
        tracing::warn!(pid = entry.pid, "the mount's process has not ended yet");
    }
    stderr::line(format_args!("{point}: unmounted; everything is in the bucket"));
    Ok(())
}

/// A descriptor that becomes readable when the mount's process ends.
fn watch(entry: &MountEntry) -> io::Result<OwnedFd> {
    let pid = i32::try_from(entry.pid).ok().and_then(Pid::from_raw);
    Ok(pidfd_open(pid.ok_or(io::ErrorKind::InvalidInput)?, PidfdFlags::empty())?)
}

fn has_ended(process: &OwnedFd) -> bool {
    let mut events = [PollFd::new(process, PollFlags::IN)];
    let timeout = Timespec { tv_sec: FAREWELL.as_secs().cast_signed(), tv_nsec: 0 };
    poll(&mut events, Some(&timeout)).is_ok_and(|ready| ready > 0)
}
