//! Runs programs with a deadline and keeps what they said.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{Read, Seek};
use std::os::unix::process::CommandExt;
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

/// Long enough for the slowest single program of a test on a busy machine; a hang is what it ends.
pub(crate) const DEADLINE: Duration = Duration::from_secs(240);

/// What a finished program left behind.
pub(crate) struct Finished {
    /// The program and its arguments, for messages.
    pub(crate) line: String,
    pub(crate) status: ExitStatus,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Finished {
    /// The exit code; panics if a signal ended the program.
    pub(crate) fn code(&self) -> i32 {
        self.status.code().unwrap_or_else(|| panic!("{self} was ended by a signal: {}", self.status))
    }

    /// Standard output as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.stdout).into_owned()
    }

    /// Itself, if the program succeeded; panics with all it said if not.
    pub(crate) fn ok(self) -> Finished {
        assert!(self.status.success(), "{self}");
        self
    }
}

impl std::fmt::Display for Finished {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(
            f,
            "`{}` ended with {}\n--- stdout\n{}\n--- stderr\n{}",
            self.line,
            self.status,
            tail(&String::from_utf8_lossy(&self.stdout), 60),
            tail(&self.stderr, 60)
        )
    }
}

/// The last `lines` lines of `text`.
pub(crate) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    let from = all.len().saturating_sub(lines);
    all[from..].join("\n")
}

/// `program` with arguments, ready for [`run`].
pub(crate) fn command<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Command {
    let mut command = Command::new(program);
    command.args(args);
    command
}

/// Runs to the end and asks for success.
pub(crate) fn run_ok<S: AsRef<OsStr>>(program: &str, args: impl IntoIterator<Item = S>) -> Finished {
    run(command(program, args)).ok()
}

/// A shell script that stops at its first failure, run in `dir`.
pub(crate) fn shell(dir: &std::path::Path, script: &str) -> Finished {
    let mut command = command("bash", ["-euo", "pipefail", "-c", script]);
    command.current_dir(dir);
    run(command).ok()
}

/// Runs to the end, or kills the whole process group after [`DEADLINE`] and panics.
pub(crate) fn run(command: Command) -> Finished {
    run_within(command, DEADLINE)
}

/// Runs to the end, or kills the whole process group after `limit` and panics.
///
/// Output goes to files and not to pipes: a daemon that stays behind holding its standard output must not look like a
/// program that has not ended.
pub(crate) fn run_within(mut command: Command, limit: Duration) -> Finished {
    let line = describe(&command);
    let mut stdout = tempfile::tempfile().expect("a temporary file");
    let mut stderr = tempfile::tempfile().expect("a temporary file");
    command
        .stdin(Stdio::null())
        .stdout(stdout.try_clone().expect("dup"))
        .stderr(stderr.try_clone().expect("dup"))
        .process_group(0);
    let mut child = command.spawn().unwrap_or_else(|error| panic!("`{line}` does not start: {error}"));
    let (status, timed_out) = wait_within(&mut child, limit);
    let finished =
        Finished { line, status, stdout: read_all(&mut stdout), stderr: lossy(read_all(&mut stderr)) };
    assert!(!timed_out, "not finished after {limit:?}: {finished}");
    finished
}

/// Waits for `child`; past `limit` kills its process group. Says whether it had to.
pub(crate) fn wait_within(child: &mut Child, limit: Duration) -> (ExitStatus, bool) {
    let group = rustix::process::Pid::from_child(child);
    let (done, watch) = mpsc::channel::<()>();
    let watchdog = std::thread::spawn(move || {
        let late = matches!(watch.recv_timeout(limit), Err(mpsc::RecvTimeoutError::Timeout));
        if late {
            let _ = rustix::process::kill_process_group(group, rustix::process::Signal::KILL);
        }
        late
    });
    let status = child.wait().expect("wait for the child");
    drop(done);
    (status, watchdog.join().expect("the watchdog does not panic"))
}

/// Asks `condition` again and again until it is true; panics with `what` past `limit`.
pub(crate) fn wait_until(what: &str, limit: Duration, mut condition: impl FnMut() -> bool) {
    let start = Instant::now();
    while !condition() {
        assert!(start.elapsed() < limit, "not within {limit:?}: {what}");
        // Other processes cannot be awaited but by asking.
        std::thread::sleep(Duration::from_millis(20));
    }
}

fn describe(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    words.map(|word| word.to_string_lossy()).collect::<Vec<_>>().join(" ")
}

fn read_all(file: &mut File) -> Vec<u8> {
    let mut bytes = Vec::new();
    file.rewind().expect("rewind");
    file.read_to_end(&mut bytes).expect("read what was said");
    bytes
}

fn lossy(bytes: Vec<u8>) -> String {
    String::from_utf8_lossy(&bytes).into_owned()
}
