//! Locks of all three kinds between processes, and leases.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::Duration;

use crate::place::on_a_mount;
use crate::support::command::wait_until;

/// Obeys one command a line. `KIND share|own|free|wait FILE`; a file is opened once and kept open, until `close`.
const HOLDER: &str = r#"
import fcntl, os, signal, struct, sys
signal.signal(signal.SIGIO, lambda *_: print("broken", flush=True))
files = {}
def opened(path):
    if path not in files:
        files[path] = os.open(path, os.O_RDWR)
    return files[path]
def lock(kind, what, fd):
    wait = what == "wait"
    if kind == "flock":
        how = {"share": fcntl.LOCK_SH, "own": fcntl.LOCK_EX, "wait": fcntl.LOCK_EX, "free": fcntl.LOCK_UN}[what]
        return fcntl.flock(fd, how if wait else how | fcntl.LOCK_NB)
    if kind == "lease":
        how = {"share": fcntl.F_RDLCK, "own": fcntl.F_WRLCK, "free": fcntl.F_UNLCK}[what]
        return fcntl.fcntl(fd, fcntl.F_SETLEASE, how)
    how = {"share": fcntl.F_RDLCK, "own": fcntl.F_WRLCK, "wait": fcntl.F_WRLCK, "free": fcntl.F_UNLCK}[what]
    set, set_wait = (fcntl.F_SETLK, fcntl.F_SETLKW) if kind == "posix" else (37, 38)
    # l_type, l_whence, l_start, l_len, l_pid: ten bytes from the hundredth on
    fcntl.fcntl(fd, set_wait if wait else set, struct.pack("hhqqi4x", how, 0, 100, 10, 0))
for line in iter(sys.stdin.readline, ""):
    words = line.split()
    try:
        if words[0] == "close":
            os.close(files.pop(words[1]))
        elif words[0] == "write":
            os.write(opened(words[1]), b"x")
        elif words[0] == "open":
            os.close(os.open(words[1], os.O_WRONLY | os.O_NONBLOCK))
        elif words[0] == "read-only":
            files[words[1]] = os.open(words[1], os.O_RDONLY)
        else:
            lock(words[0], words[1], opened(words[2]))
        print("done", flush=True)
    except (BlockingIOError, PermissionError):
        print("refused", flush=True)
"#;

/// A process that locks and unlocks as it is told.
struct Holder {
    child: Child,
    orders: ChildStdin,
    answers: BufReader<ChildStdout>,
    file: PathBuf,
}

impl Holder {
    fn of(file: &Path) -> Holder {
        let mut python = Command::new("python3");
        python.args(["-c", HOLDER]).current_dir("/").stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = python.spawn().unwrap();
        let (orders, answers) = (child.stdin.take().unwrap(), child.stdout.take().unwrap());
        Holder { child, orders, answers: BufReader::new(answers), file: file.to_owned() }
    }

    fn order(&mut self, what: &str) {
        writeln!(self.orders, "{what} {}", self.file.display()).unwrap();
    }

    fn answer(&mut self) -> String {
        let mut answer = String::new();
        self.answers.read_line(&mut answer).unwrap();
        answer.trim().to_owned()
    }

    fn told(&mut self, what: &str) -> String {
        self.order(what);
        self.answer()
    }

    fn kill(mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }

    /// Whether somebody waits for a lock on the file: `/proc/locks` has it after an arrow.
    fn is_waiting(&self) -> bool {
        let about = fs::metadata(&self.file).unwrap();
        let (major, minor) = (rustix::fs::major(about.dev()), rustix::fs::minor(about.dev()));
        let file = format!(" {major:02x}:{minor:02x}:{} ", about.ino());
        let locks = fs::read_to_string("/proc/locks").unwrap();
        locks.lines().any(|line| line.contains("->") && line.contains(&file))
    }
}

impl Drop for Holder {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn with_file(check: impl FnOnce(&Path)) {
    on_a_mount(|root| {
        let file = root.join("file");
        fs::write(&file, "contents").unwrap();
        check(&file);
    });
}

/// > **Locks** (`flock`, POSIX and open file description locks of `fcntl`) are kept by the kernel of the machine: they hold
/// > between the processes of one mount, are shared, upgraded and waited for, and go with the descriptor or the process
/// > that holds them, however it ends.
#[test]
fn locks_of_each_kind_hold_upgrade_and_are_freed() {
    with_file(|file| {
        for kind in ["flock", "posix", "ofd"] {
            let (mut one, mut two) = (Holder::of(file), Holder::of(file));
            let order = |what: &str| format!("{kind} {what}");
            assert_eq!(one.told(&order("share")), "done", "{kind}");
            assert_eq!(two.told(&order("share")), "done", "{kind}: two share");
            assert_eq!(one.told(&order("own")), "refused", "{kind}: no upgrade while it is shared");
            assert_eq!(two.told(&order("free")), "done", "{kind}");
            // An upgrade that flock(2) refused has given the old lock up.
            assert_eq!(one.told(&order("own")), "done", "{kind}: an upgrade");
            assert_eq!(two.told(&order("share")), "refused", "{kind}");
            assert_eq!(one.told("close"), "done");
            assert_eq!(two.told(&order("own")), "done", "{kind}: closing frees");
            one.order(&order("wait"));
            wait_until("the kernel lists who waits", Duration::from_secs(20), || one.is_waiting());
            two.kill();
            assert_eq!(one.answer(), "done", "{kind}: SIGKILL frees");
            one.kill();
        }
    });
}

/// > They mean nothing to other machines, and bind nobody who does not ask: nothing is mandatory. One machine writes at a
/// > time anyway.
#[test]
fn a_lock_keeps_nobody_from_writing() {
    with_file(|file| {
        // What used to ask for mandatory locking: setgid without group execution.
        fs::set_permissions(file, std::os::unix::fs::PermissionsExt::from_mode(0o2644)).unwrap();
        let (mut one, mut two) = (Holder::of(file), Holder::of(file));
        assert_eq!(one.told("posix own"), "done");
        assert_eq!(two.told("write"), "done");
    });
}

/// > **Leases** (`F_SETLEASE`) are granted by the kernel, which asks no daemon: an opening through the same mount that would
/// > conflict breaks them.
#[test]
fn a_lease_is_granted_and_broken_by_an_opening() {
    with_file(|file| {
        let (mut one, mut two) = (Holder::of(file), Holder::of(file));
        assert_eq!(one.told("read-only"), "done");
        assert_eq!(one.told("lease share"), "done");
        assert_eq!(two.told("open"), "refused", "the opening must wait for the lease");
        assert_eq!(one.answer(), "broken");
        assert_eq!(one.told("lease free"), "done");
        assert_eq!(two.told("open"), "done");
    });
}
