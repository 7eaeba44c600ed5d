//! Credentials from a program of the user's: `credential_process`.
//!
//! <https://docs.aws.amazon.com/sdkref/latest/guide/feature-process-credentials.html>

use std::fs::File;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, WaitOptions, getpgrp, kill_process_group, waitpid};
use serde_json::Value;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;
use tokio::signal::unix::{SignalKind, signal};

use super::{Answer, Failure, from_json};

/// Longest that the program may take: some ask a person.
const PATIENCE: Duration = Duration::from_secs(60);
/// Most that it may say.
const OUTPUT_BYTES_MAX: u64 = 64 * 1024;
const ORIGIN: &str = "credential_process";

/// Runs `command` in a shell, as AWS's own tools do. What it says beside its answer is not kept: it may be a secret. No
/// thread waits for it, and where nobody waits any more it is ended, with whatever it has started.
pub(super) async fn run(command: &str) -> Result<Answer, Failure> {
    let failed = |why: String| Failure::Unreachable(format!("{ORIGIN} {why}"));
    let asked = tokio::time::timeout(PATIENCE, ask(command)).await;
    let asked = asked.map_err(|_| failed(format!("did not answer within {} s", PATIENCE.as_secs())))?;
    match asked.map_err(|error| failed(format!("cannot be run: {error}")))? {
        (status, text) if status.success() => read(&text),
        (status, _) => Err(failed(format!("ended with {status}"))),
    }
}

/// How the program ended, and what it has said.
async fn ask(command: &str) -> io::Result<(ExitStatus, Vec<u8>)> {
    let mut shell = Command::new("sh");
    shell.arg("-c").arg(command).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
    // Before it is started, so that its end is not missed.
    let mut any_ended = signal(SignalKind::child())?;
    let mut program = Program::start(shell)?;
    let stdout = program.child.stdout.take().ok_or(io::ErrorKind::BrokenPipe)?;
    let mut text = Vec::new();
    let stdout = Receiver::from_owned_fd(OwnedFd::from(stdout))?;
    stdout.take(OUTPUT_BYTES_MAX).read_to_end(&mut text).await?;
    loop {
        if let Some(status) = program.child.try_wait()? {
            program.is_over = true;
            return Ok((status, text));
        }
        any_ended.recv().await;
    }
}

fn read(text: &[u8]) -> Result<Answer, Failure> {
    // The reader's own words would quote what it found.
    let json: Value =
        serde_json::from_slice(text).map_err(|_| Failure::Refused(format!("{ORIGIN} did not write JSON")))?;
    match json.get("Version").and_then(Value::as_u64) {
        Some(1) => from_json(&json, "SessionToken", ORIGIN),
        _ => Err(Failure::Refused(format!("{ORIGIN} wrote another version than 1"))),
    }
}

/// The program while it is waited for. Dropped before its end, it is killed with all that it has started.
struct Program {
    child: Child,
    is_group: bool,
    /// It has ended and been waited for: its number may be another's.
    is_over: bool,
}

impl Program {
    /// Starts it in a process group of its own; but not where we have the terminal: there it could ask nobody.
    fn start(mut command: Command) -> io::Result<Self> {
        let is_group = !has_terminal();
        if is_group {
            command.process_group(0);
        }
        Ok(Self { child: command.spawn()?, is_group, is_over: false })
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        if self.is_over {
            return;
        }
        let pid = Pid::from_child(&self.child);
        if self.is_group {
            let _ = kill_process_group(pid, Signal::KILL);
        }
        let _ = self.child.kill();
        // It may take a moment to be gone, which nobody here is to wait for.
        let reaper = std::thread::Builder::new().name("credentials".to_owned());
        let _ = reaper.spawn(move || waitpid(Some(pid), WaitOptions::empty()));
    }
}

/// Whether this process is in the foreground of a terminal.
fn has_terminal() -> bool {
    let terminal = File::open("/dev/tty").ok();
    terminal.is_some_and(|tty| rustix::termios::tcgetpgrp(tty).is_ok_and(|group| group == getpgrp()))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[tokio::test]
    async fn what_a_program_writes_is_read_and_never_repeated() {
        let whole = r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"hunter2","Expiration":"2030-01-01T00:00:00Z"}'"#;
        let answer = run(whole).await.map_err(|_| "failed").unwrap();
        assert_eq!((answer.credential.key_id.as_str(), answer.credential.token), ("A", None));
        assert!(answer.expires.is_some());
        for wrong in [
            "echo hunter2",
            "echo hunter2 >&2; exit 3",
            r#"echo '{"Version":2,"AccessKeyId":"hunter2"}'"#,
            r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"","SessionToken":"hunter2"}'"#,
            r#"printf '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","SessionToken":"hunter2\\n"}'"#,
            r#"echo '{"Version":1,"AccessKeyId":"A","SecretAccessKey":"s","Expiration":"hunter2"}'"#,
        ] {
            let failure = run(wrong).await.err().unwrap();
            assert!(!format!("{failure:?}").contains("hunter2"), "{failure:?}");
        }
    }

    /// Whether there is such a process that has not ended.
    fn lives(pid: &str) -> bool {
        let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.rsplit_once(") ").is_some_and(|(_, rest)| !rest.starts_with('Z'))
    }

    async fn until(what: &str, is_so: impl Fn() -> bool) {
        for _ in 0..3000 {
            if is_so() {
                return;
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        panic!("never: {what}");
    }

    #[tokio::test]
    async fn a_program_that_nobody_waits_for_is_ended_with_all_that_it_has_started() {
        if has_terminal() {
            return println!("in the foreground of a terminal it has no group of its own");
        }
        // The helper holds the pipe, whatever becomes of the shell.
        for last in ["wait", "exit"] {
            let dir = tempfile::tempdir().unwrap();
            let (shell, helper) = (dir.path().join("shell"), dir.path().join("helper"));
            let command = format!(
                "sleep 600 & echo $! >'{}'; echo $$ >'{}'; {last}",
                helper.display(),
                shell.display()
            );
            let asking = tokio::spawn(async move { run(&command).await.is_ok() });
            let pid = |path: &Path| std::fs::read_to_string(path).unwrap_or_default().trim().to_owned();
            until("it is started", || !pid(&shell).is_empty()).await;
            let (shell, helper) = (pid(&shell), pid(&helper));
            assert!(lives(&helper));
            until("the shell has done its part", || lives(&shell) == (last == "wait")).await;
            asking.abort();
            until("both are gone", || !lives(&shell) && !lives(&helper)).await;
            let stays = Path::new("/proc").join(shell);
            until("nothing of it is left to be waited for", || !stays.exists()).await;
        }
    }

    #[test]
    fn programs_that_hang_take_no_thread_from_anybody() {
        let mut builder = tokio::runtime::Builder::new_current_thread();
        let runtime = builder.max_blocking_threads(1).enable_all().build().unwrap();
        let is_served = runtime.block_on(async {
            let hanging: Vec<_> = (0..3).map(|_| tokio::spawn(run("sleep 600"))).collect();
            tokio::task::yield_now().await;
            assert!(hanging.iter().all(|it| !it.is_finished()));
            let other = tokio::task::spawn_blocking(|| ());
            tokio::time::timeout(Duration::from_secs(30), other).await.is_ok()
        });
        runtime.shutdown_background();
        assert!(is_served);
    }
}
