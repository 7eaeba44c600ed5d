//! Notices that the process behind a waiting request has been killed, or asked to end.
//!
//! A process inside a FUSE request cannot die before the request is answered, and `fuser` 0.18.0 does not pass
//! on the kernel's INTERRUPT. So a request that has waited for a while looks in `/proc` whether its caller is
//! only waiting to die. Signals that have a handler do not count at first: a local filesystem never shows them `EINTR`. But
//! where the bucket is out of reach for long, the handlers of those that ask a program to end get their turn.

use std::time::Duration;

/// How often a waiting request looks. The first look comes after one such time too, so that only
/// requests that really wait ever read `/proc`.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// Looks after which a request is taken to wait for an outage, and not only for a slow bucket.
const LOOKS_PATIENT: u32 = 10;

/// What asks a program to end, which it may do in its own way: Ctrl-C, Ctrl-\\, hanging up, `kill`.
const REQUESTS_TO_END: u64 = bit(libc::SIGINT) | bit(libc::SIGQUIT) | bit(libc::SIGHUP) | bit(libc::SIGTERM);

const fn bit(signal: i32) -> u64 {
    1 << (signal - 1)
}

/// Returns once the thread `pid` has a pending `SIGKILL`, or, after five seconds, a pending signal that asks it to
/// end and that it handles; never returns if that cannot be told.
///
/// The kernel turns every signal whose default action is fatal and that is not handled into a `SIGKILL` to each
/// thread, so Ctrl-C on a plain program shows here too.
pub(super) async fn killed(pid: u32) {
    // 0: the kernel itself, or a process that this pid namespace cannot see.
    if pid == 0 {
        return std::future::pending().await;
    }
    let path = format!("/proc/{pid}/status");
    let mut looks: u32 = 0;
    loop {
        tokio::time::sleep(LOOK_EVERY).await;
        looks = looks.saturating_add(1);
        match std::fs::read(&path) {
            Ok(status) => {
                let signals = Signals::parse(&status);
                if signals.kill() || (looks > LOOKS_PATIENT && signals.end()) {
                    return;
                }
            }
            Err(_) => return std::future::pending().await,
        }
    }
}

/// The signal masks of a thread, as proc_pid_status(5) shows them.
#[derive(Debug, Default)]
struct Signals {
    pending: u64,
    blocked: u64,
    caught: u64,
}

impl Signals {
    fn parse(status: &[u8]) -> Self {
        let mut signals = Self::default();
        for line in String::from_utf8_lossy(status).lines() {
            let Some((name, mask)) = line.split_once(':') else { continue };
            let Ok(mask) = u64::from_str_radix(mask.trim(), 16) else { continue };
            match name {
                "SigPnd" | "ShdPnd" => signals.pending |= mask,
                "SigBlk" => signals.blocked = mask,
                "SigCgt" => signals.caught = mask,
                _ => {}
            }
        }
        signals
    }

    const fn kill(&self) -> bool {
        self.pending & bit(libc::SIGKILL) != 0
    }

    const fn end(&self) -> bool {
        self.pending & !self.blocked & self.caught & REQUESTS_TO_END != 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(thread: u64, group: u64, blocked: u64, caught: u64) -> Signals {
        let text = format!(
            "Name:\tgit\nThreads:\t1\nSigPnd:\t{thread:016x}\nShdPnd:\t{group:016x}\nSigBlk:\t{blocked:016x}\n\
             SigIgn:\tffffffffffffffff\nSigCgt:\t{caught:016x}\n"
        );
        Signals::parse(text.as_bytes())
    }

    #[test]
    fn a_pending_kill_ends_a_wait() {
        assert!(status(bit(libc::SIGKILL), 0, 0, 0).kill());
        assert!(status(0, bit(libc::SIGKILL) | bit(libc::SIGCHLD), 0, 0).kill());
        assert!(!status(bit(libc::SIGINT), bit(libc::SIGCHLD) | bit(libc::SIGALRM), 0, 0).kill());
        for nonsense in [&b"SigPnd:\tnonsense\n"[..], b"\xff\xfe", b""] {
            let signals = Signals::parse(nonsense);
            assert!(!signals.kill() && !signals.end());
        }
    }

    #[test]
    fn only_a_handled_request_to_end_ends_a_long_one() {
        let (int, alarm) = (bit(libc::SIGINT), bit(libc::SIGALRM));
        assert!(status(0, int, 0, int).end());
        assert!(!status(0, int, int, int).end(), "a blocked signal has no turn");
        assert!(!status(0, int, 0, 0).end(), "an ignored signal asks for nothing");
        assert!(!status(alarm, alarm, 0, alarm).end());
    }

    #[test]
    fn a_living_process_has_no_pending_kill() {
        assert!(!Signals::parse(&std::fs::read("/proc/self/status").unwrap()).kill());
    }
}
