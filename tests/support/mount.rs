//! A mounted volume that is never left behind, even by a test that failed or a daemon that hangs.

use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::mpsc;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::process::{Pid, PidfdFlags, Signal, pidfd_open};

use super::command::{Finished, command, run, run_within, tail, wait_until};
use super::extended;
use super::volume::{COFFER, Volume};

/// No test keeps one mount longer; past it the daemon is killed, which frees whoever waits for it in the kernel.
const MOUNT_LIMIT: Duration = Duration::from_secs(600);
/// The same for the longer variants.
const MOUNT_LIMIT_EXTENDED: Duration = Duration::from_secs(4 * 3600);
/// How long a daemon may take to be gone after the mount is.
const GONE_WITHIN: Duration = Duration::from_secs(60);

/// What to mount with.
pub(crate) struct MountSpec<'v> {
    volume: &'v Volume,
    dir: PathBuf,
    state_dir: PathBuf,
    args: Vec<String>,
    wrapper: Option<&'static str>,
}

impl<'v> MountSpec<'v> {
    pub(crate) fn new(volume: &'v Volume) -> MountSpec<'v> {
        let (dir, state_dir) = (volume.new_dir("mnt"), volume.new_dir("state"));
        MountSpec { volume, dir, state_dir, args: Vec::new(), wrapper: None }
    }

    /// Adds arguments of `coffer mount`.
    pub(crate) fn args(mut self, args: &[&str]) -> Self {
        self.args.extend(args.iter().map(|&arg| arg.to_owned()));
        self
    }

    /// Lets a shell script run the command that it finds in its arguments.
    pub(crate) fn wrapped_in(mut self, script: &'static str) -> Self {
        self.wrapper = Some(script);
        self
    }

    /// Takes the state of an earlier mount along.
    pub(crate) fn state_dir(mut self, state_dir: &Path) -> Self {
        self.state_dir = state_dir.to_owned();
        self
    }

    /// Mounts, and asks for success.
    pub(crate) fn mount(self) -> Mount<'v> {
        self.try_mount().unwrap_or_else(|refused| panic!("no mount: {refused}"))
    }

    /// Mounts, or hands back what the refusal said.
    pub(crate) fn try_mount(self) -> Result<Mount<'v>, Finished> {
        let log = self.state_dir.with_extension("log");
        let mut coffer = match self.wrapper {
            None => self.volume.coffer(["mount"]),
            Some(script) => self.volume.program("sh", ["-c", script, "sh", COFFER, "mount"]),
        };
        coffer
            .arg(&self.volume.url)
            .arg(&self.dir)
            .arg("--passphrase-file")
            .arg(self.volume.passphrase_file());
        coffer.arg("--state-dir").arg(&self.state_dir).arg("--log-file").arg(&log).args(&self.args);
        let (alive, watch) = mpsc::channel();
        let mut mount = Mount {
            volume: self.volume,
            dir: self.dir,
            state_dir: self.state_dir,
            log,
            told: String::new(),
            processes: Vec::new(),
            alive: Some(alive),
        };
        let finished = run(coffer);
        mount.told.clone_from(&finished.stderr);
        if !finished.status.success() {
            assert!(!mount.is_mounted(), "mount failed and mounted all the same: {finished}");
            mount.alive = None;
            return Err(finished);
        }
        assert!(mount.is_mounted(), "mount returned before it was ready: {finished}");
        mount.processes =
            mount.daemons().iter().filter_map(|&pid| pidfd_open(pid, PidfdFlags::empty()).ok()).collect();
        let dir = mount.dir.clone();
        let limit = if extended() { MOUNT_LIMIT_EXTENDED } else { MOUNT_LIMIT };
        std::thread::spawn(move || {
            if let Err(mpsc::RecvTimeoutError::Timeout) = watch.recv_timeout(limit) {
                eprintln!("a mount lasted longer than {limit:?}: killing its daemon");
                kill_all(&dir);
            }
        });
        Ok(mount)
    }
}

/// A mounted volume.
pub(crate) struct Mount<'v> {
    volume: &'v Volume,
    /// The mount point.
    pub(crate) dir: PathBuf,
    /// Where the mount keeps its local state.
    pub(crate) state_dir: PathBuf,
    /// Where the daemon logs to.
    pub(crate) log: PathBuf,
    /// What the command said on standard error.
    pub(crate) told: String,
    /// Become readable as each process that served it at first ends.
    processes: Vec<OwnedFd>,
    /// Dropped when the mount is gone, which calls the watchdog off.
    alive: Option<mpsc::Sender<()>>,
}

impl Mount<'_> {
    /// A path below the mount point.
    pub(crate) fn path(&self, below: impl AsRef<Path>) -> PathBuf {
        self.dir.join(below)
    }

    /// `coffer umount`, which returns when everything is in the bucket; then the daemon must be gone by itself.
    pub(crate) fn unmount(self) {
        let finished = self.volume.try_verb("umount", &self.dir, &[]);
        assert!(finished.status.success(), "{finished}\n{}", self.said());
        assert!(!self.is_mounted(), "still mounted after {finished}");
        self.wait_until_gone();
    }

    /// `coffer sync`.
    pub(crate) fn sync(&self) {
        let finished = self.volume.try_verb("sync", &self.dir, &[]);
        assert!(finished.status.success(), "{finished}\n{}", self.said());
    }

    /// What `coffer status --json` says.
    pub(crate) fn status(&self) -> serde_json::Value {
        let finished = self.volume.try_verb("status", &self.dir, &["--json"]);
        serde_json::from_slice(&finished.stdout).unwrap_or_else(|error| panic!("{error}: {finished}"))
    }

    /// The processes that serve this mount: those with its directory among their arguments.
    pub(crate) fn daemons(&self) -> Vec<Pid> {
        daemons_of(&self.dir)
    }

    /// Sends `signal` to the daemon.
    pub(crate) fn signal(&self, signal: Signal) {
        let daemons = self.daemons();
        assert!(!daemons.is_empty(), "no daemon serves {}", self.dir.display());
        for daemon in daemons {
            let _ = rustix::process::kill_process(daemon, signal);
        }
    }

    /// `kill -9`, then clears away the dead mount: what a crash leaves to the next mount.
    pub(crate) fn crash(mut self) {
        self.signal(Signal::KILL);
        self.wait_until_gone();
        lazy_unmount(&self.dir);
        self.alive = None;
    }

    /// Ends the mount in whatever way works, when how it ends is not the question.
    pub(crate) fn end(mut self) {
        self.tear_down();
        self.alive = None;
    }

    /// Politely first; but nothing may keep the machine from being left clean. What the polite way said, if it failed.
    fn tear_down(&self) -> Option<String> {
        let mut umount: Command = self.volume.coffer(["umount"]);
        umount.arg(&self.dir);
        let limit = Duration::from_secs(30);
        let polite = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| run_within(umount, limit)));
        if !self.is_mounted() && self.daemons().is_empty() {
            return None;
        }
        kill_all(&self.dir);
        lazy_unmount(&self.dir);
        Some(polite.map_or_else(|_| "coffer umount hangs".to_owned(), |finished| finished.to_string()))
    }

    /// Waits until no process serves the mount. One that is ending has no arguments any more while its sockets are still
    /// open, so that it is not enough to find none with the directory among them.
    pub(crate) fn wait_until_gone(&self) {
        let limit = Timespec::try_from(GONE_WITHIN).expect("a minute");
        for process in &self.processes {
            let ended = poll(&mut [PollFd::new(process, PollFlags::IN)], Some(&limit)).expect("poll");
            assert_eq!(ended, 1, "not within {GONE_WITHIN:?}: the daemon ends\n{}", self.said());
        }
        wait_until("the daemon ends", GONE_WITHIN, || self.daemons().is_empty());
    }

    /// Whether the kernel lists the mount. Asks nothing of the mount itself, which may hang.
    pub(crate) fn is_mounted(&self) -> bool {
        is_mount_point(&self.dir)
    }

    /// The end of the daemon's log.
    pub(crate) fn said(&self) -> String {
        let log = std::fs::read_to_string(&self.log).unwrap_or_default();
        format!("--- the daemon's log\n{}", tail(&log, 80))
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        if self.alive.is_none() || (!self.is_mounted() && self.daemons().is_empty()) {
            return;
        }
        if std::thread::panicking() {
            eprintln!("{}", self.said());
        }
        if let (Some(said), false) = (self.tear_down(), std::thread::panicking()) {
            panic!("the mount had to be torn down: {said}\n{}", self.said());
        }
    }
}

fn kill_all(dir: &Path) {
    for daemon in daemons_of(dir) {
        let _ = rustix::process::kill_process(daemon, Signal::KILL);
    }
}

fn lazy_unmount(dir: &Path) {
    let mut fusermount = command("fusermount3", ["-u", "-z"]);
    fusermount.arg(dir);
    run_within(fusermount, Duration::from_secs(20));
}

fn is_mount_point(dir: &Path) -> bool {
    let mounts = std::fs::read("/proc/self/mountinfo").expect("mountinfo");
    let dir = dir.as_os_str().as_bytes();
    mounts.split(|&byte| byte == b'\n').any(|line| line.split(|&byte| byte == b' ').nth(4) == Some(dir))
}

fn daemons_of(dir: &Path) -> Vec<Pid> {
    let own = rustix::process::getpid();
    let processes = std::fs::read_dir("/proc").expect("/proc").flatten();
    let pids = processes.filter_map(|entry| entry.file_name().to_str()?.parse().ok().and_then(Pid::from_raw));
    pids.filter(|&pid| pid != own && serves(pid, dir)).collect()
}

fn serves(pid: Pid, dir: &Path) -> bool {
    let Ok(arguments) = std::fs::read(format!("/proc/{}/cmdline", pid.as_raw_nonzero())) else {
        return false;
    };
    let mut arguments = arguments.split(|&byte| byte == 0);
    let program = arguments.next().unwrap_or_default();
    program.ends_with(b"coffer") && arguments.any(|argument| argument == dir.as_os_str().as_bytes())
}
