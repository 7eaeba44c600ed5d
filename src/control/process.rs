//! Whether a process lives, as proc_pid_stat(5) has it.

use std::fs;
use std::path::Path;

/// Where the start of a process is among the fields behind its name, of which the state is the first.
const START: usize = 19;

/// When a process was started; 0 if there is none.
pub(super) fn started(pid: u32) -> u64 {
    look(pid).map_or(0, |(_, started)| started)
}

/// Whether there is such a process and it has not ended: where nobody fetches the dead, their numbers stay. A number is given
/// to others again: `since` tells which is meant, unless it is 0.
pub(super) fn is_running(pid: u32, since: u64) -> bool {
    look(pid).is_some_and(|(state, started)| !matches!(state, 'Z' | 'X') && (since == 0 || since == started))
}

/// The state of a process, and when it was started.
fn look(pid: u32) -> Option<(char, u64)> {
    let status = fs::read_to_string(Path::new("/proc").join(pid.to_string()).join("stat")).ok()?;
    // The program's name, in brackets before it, may hold anything.
    let fields: Vec<&str> = status.rsplit_once(") ")?.1.split_ascii_whitespace().collect();
    Some((fields.first()?.chars().next()?, fields.get(START)?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_process_that_has_ended_and_was_not_fetched_is_not_running() {
        assert!(is_running(std::process::id(), 0));
        let mut child = std::process::Command::new("true").spawn().unwrap();
        let pid = child.id();
        let flags = rustix::process::WaitIdOptions::EXITED | rustix::process::WaitIdOptions::NOWAIT;
        let id = rustix::process::WaitId::Pid(rustix::process::Pid::from_child(&child));
        rustix::process::waitid(id, flags).unwrap();
        assert!(Path::new("/proc").join(pid.to_string()).exists());
        assert!(!is_running(pid, 0));
        child.wait().unwrap();
    }

    #[test]
    fn who_has_the_number_of_one_that_has_ended_is_another() {
        let own = std::process::id();
        let start = started(own);
        assert!(start > 0 && is_running(own, start));
        assert!(!is_running(own, start - 1) && !is_running(own, start + 1));
        assert_eq!(started(u32::MAX), 0);
    }
}
