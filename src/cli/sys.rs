//! The system calls of the command line that have no safe wrapper, and what guards the process's memory.
#![allow(unsafe_code)] // a few calls, each with its reason beside it

use std::fs::File;
use std::io;
use std::os::fd::{FromRawFd, RawFd};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Resource, Rlimit};

/// Which process this is after [`fork`].
#[derive(Debug)]
pub enum Forked {
    /// The process that was there before; holds the child's id.
    Parent(Pid),
    /// The new process.
    Child,
}

/// How long threads that have been joined may take to leave the kernel's list.
const THREADS_GONE: Duration = Duration::from_secs(10);

/// Splits the process in two.
///
/// # Errors
/// Refuses while more than one thread runs: the child would inherit locks whose holders are gone.
pub fn fork() -> io::Result<Forked> {
    let asked = Instant::now();
    // A thread is joined when its last instruction has run; on a busy machine the kernel lists it for
    // a while longer.
    while thread_count() != 1 {
        if asked.elapsed() > THREADS_GONE {
            let threads = thread_count();
            return Err(io::Error::other(format!(
                "cannot go to the background with {threads} threads running"
            )));
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    // SAFETY: with one thread no lock of the allocator or of the standard library is held across the call, so that
    // the child may run any code.
    match unsafe { libc::fork() } {
        -1 => Err(io::Error::last_os_error()),
        0 => Ok(Forked::Child),
        id => match Pid::from_raw(id) {
            Some(pid) => Ok(Forked::Parent(pid)),
            None => Err(io::Error::other("fork gave no process id")),
        },
    }
}

fn thread_count() -> usize {
    std::fs::read_dir("/proc/self/task").map_or(1, Iterator::count)
}

/// A handle of our own on the file descriptor `fd` that the caller's shell opened.
///
/// # Errors
/// When no such descriptor is open.
pub fn duplicate_fd(fd: RawFd) -> io::Result<File> {
    // SAFETY: fcntl only reads its integer arguments; a number that is no open descriptor gives EBADF.
    let copy = unsafe { libc::fcntl(fd, libc::F_DUPFD_CLOEXEC, 3) };
    if copy < 0 {
        return Err(io::Error::last_os_error());
    }
    // SAFETY: the kernel has just made `copy` for us and nobody else knows of it.
    Ok(unsafe { File::from_raw_fd(copy) })
}

/// Closes what other programs have left open for this one, except the three standard streams: whoever waits for the
/// last holder of a lock, or for a mount to be idle, would wait for this process. All that is opened here closes by itself
/// at an exec, and so none of it is what came through one.
pub fn close_inherited() {
    let Ok(list) = std::fs::read_dir("/proc/self/fd") else { return };
    let open: Vec<RawFd> = list.filter_map(|entry| entry.ok()?.file_name().to_str()?.parse().ok()).collect();
    for fd in open.into_iter().filter(|fd| *fd > 2) {
        // SAFETY: fcntl reads its integer arguments only; a descriptor that is closed by now gives -1.
        let flags = unsafe { libc::fcntl(fd, libc::F_GETFD) };
        if flags >= 0 && flags & libc::FD_CLOEXEC == 0 {
            // SAFETY: nobody here has a handle on it, because every handle is opened with FD_CLOEXEC.
            unsafe { libc::close(fd) };
        }
    }
}

/// Keeps keys out of core dumps and out of reach of other processes' debuggers, as far as the system allows.
pub fn protect_memory() {
    let none = Rlimit { current: Some(0), maximum: Some(0) };
    if let Err(error) = rustix::process::setrlimit(Resource::Core, none) {
        tracing::warn!(%error, "core dumps could not be switched off");
    }
    let config = rustix::process::DumpableBehavior::NotDumpable;
    if let Err(error) = rustix::process::set_dumpable_behavior(config) {
        tracing::warn!(%error, "debuggers could not be locked out");
    }
}

/// Has the kernel give memory in small pages only. The allocator asks for large ones, of which each that holds a block
/// or two would count as 2 MiB: half of what a small mount takes.
pub fn keep_pages_small() {
    // SAFETY: with this option prctl only reads its integer arguments.
    if unsafe { libc::prctl(libc::PR_SET_THP_DISABLE, 1, 0, 0, 0) } != 0 {
        tracing::debug!(error = %io::Error::last_os_error(), "the kernel may give large pages");
    }
}

/// Bytes of memory that this process takes, as the system counts them; none where it does not tell.
#[must_use]
pub fn resident_bytes() -> Option<u64> {
    let status = std::fs::read_to_string("/proc/self/status").ok()?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    Some(kib * 1024)
}

/// Allows as many open files as the hard limit does: every request in flight needs a socket or a file.
pub fn raise_file_limit() {
    let mut limit = rustix::process::getrlimit(Resource::Nofile);
    if limit.current == limit.maximum {
        return;
    }
    limit.current = limit.maximum;
    if let Err(error) = rustix::process::setrlimit(Resource::Nofile, limit) {
        tracing::debug!(%error, "the limit of open files stays as it is");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_takes_memory_and_the_system_says_how_much() {
        assert!(resident_bytes().is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)));
    }

    #[test]
    fn a_descriptor_that_is_not_open_is_an_error() {
        assert!(duplicate_fd(-1).is_err());
        assert!(duplicate_fd(1_000_000).is_err());
    }
}
