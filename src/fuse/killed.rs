//! Notices that the process behind a waiting request has been killed.
//!
//! A process inside a FUSE request cannot die before the request is answered, and `fuser` 0.18.0 does not pass
//! on the kernel's INTERRUPT. So a request that has waited for a while looks in `/proc` whether its caller is
//! only waiting to die. Signals that have a handler do not count: a local filesystem never shows them `EINTR`.

use std::time::Duration;

/// How often a waiting request looks. The first look comes after one such time too, so that only
/// requests that really wait ever read `/proc`.
const LOOK_EVERY: Duration = Duration::from_millis(500);

/// Returns once the thread `pid` has a pending `SIGKILL`; never returns if that cannot be told.
///
/// The kernel turns every signal whose default action is fatal and that is not handled into a `SIGKILL` to each
/// thread, so Ctrl-C on a plain program shows here too.
pub(super) async fn killed(pid: u32) {
    // 0: the kernel itself, or a process that this pid namespace cannot see.
    if pid == 0 {
        return std::future::pending().await;
    }
    let path = format!("/proc/{pid}/status");
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        match std::fs::read(&path) {
            Ok(status) if kill_is_pending(&status) => return,
            Ok(_) => {}
            Err(_) => return std::future::pending().await,
        }
    }
}

/// Whether `SigPnd` or `ShdPnd` (proc_pid_status(5)) holds `SIGKILL`.
fn kill_is_pending(status: &[u8]) -> bool {
    String::from_utf8_lossy(status)
        .lines()
        .filter_map(|line| line.strip_prefix("SigPnd:").or_else(|| line.strip_prefix("ShdPnd:")))
        .filter_map(|mask| u64::from_str_radix(mask.trim(), 16).ok())
        .any(|mask| mask & (1 << (libc::SIGKILL - 1)) != 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_pending_kill_ends_a_wait() {
        let status = |thread: u64, group: u64| {
            format!("Name:\tgit\nThreads:\t1\nSigPnd:\t{thread:016x}\nShdPnd:\t{group:016x}\nSigBlk:\t0\n")
        };
        let bit = |signal: i32| 1 << (signal - 1);
        assert!(kill_is_pending(status(bit(libc::SIGKILL), 0).as_bytes()));
        assert!(kill_is_pending(status(0, bit(libc::SIGKILL) | bit(libc::SIGCHLD)).as_bytes()));
        assert!(!kill_is_pending(
            status(bit(libc::SIGINT), bit(libc::SIGCHLD) | bit(libc::SIGALRM)).as_bytes()
        ));
        assert!(!kill_is_pending(b"SigPnd:\tnonsense\n"));
        assert!(!kill_is_pending(b"\xff\xfe"));
    }

    #[test]
    fn a_living_process_has_no_pending_kill() {
        assert!(!kill_is_pending(&std::fs::read("/proc/self/status").unwrap()));
    }
}
