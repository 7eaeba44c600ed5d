//! The memory of a process, by the kernel's account.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, ExitStatus};

/// A line of `/proc/PID/status`, in bytes.
pub(crate) fn bytes(pid: u32, what: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).expect("the process lives");
    let line = status.lines().find(|line| line.starts_with(what)).expect("a line of the status");
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() * 1024
}

/// From here on, the peak of the process is that of what it does next.
pub(crate) fn forget_peak(pid: u32) {
    fs::write(format!("/proc/{pid}/clear_refs"), "5").expect("resetting the peak takes a superuser");
}

/// Runs a command to its end. How that was, and the most memory that it had, in bytes.
#[allow(unsafe_code, clippy::zombie_processes)] // wait4 waits, and tells what std does not
pub(crate) fn peak_of(mut command: Command) -> (ExitStatus, u64) {
    // Until the program begins, the new process is this one, and its peak counts as well.
    forget_peak(std::process::id());
    let child = command.spawn().expect("the command runs");
    let (mut status, mut usage) = (0, unsafe { std::mem::zeroed::<libc::rusage>() });
    let id = i32::try_from(child.id()).unwrap();
    // SAFETY: both places are ours and of the right type.
    assert_eq!(unsafe { libc::wait4(id, &raw mut status, 0, &raw mut usage) }, id);
    (ExitStatus::from_raw(status), usage.ru_maxrss.unsigned_abs() * 1024)
}

/// The process that serves the mount: its arguments name the place.
pub(crate) fn daemon_of(drive: &Path) -> u32 {
    let serves = |pid: &u32| {
        let words = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut words = words.split(|byte| *byte == 0);
        words.next().is_some_and(|word| word.ends_with(b"coffer"))
            && words.any(|word| word == drive.as_os_str().as_bytes())
    };
    let processes = fs::read_dir("/proc").expect("/proc").flatten();
    let mut pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok());
    pids.find(serves).unwrap_or_else(|| panic!("nobody serves {}", drive.display()))
}
