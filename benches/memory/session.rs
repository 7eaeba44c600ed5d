//! One volume in a local directory, mounted with one limit, whose processes are measured.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use super::MIB;
use super::process::{bytes, daemon_of, forget_peak, peak_of};

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");
/// Files of one directory.
const DIRECTORY_FILES: usize = 1000;
/// Programs that use the mount at once.
const USERS: usize = 4;
/// What the peaks of the mount are called.
pub(crate) const MOUNT: &str = "mount";

pub(crate) struct Session {
    dir: PathBuf,
    memory: String,
    files: usize,
    pid: u32,
    /// The most that each kind of process had, in bytes.
    pub(crate) peaks: BTreeMap<&'static str, u64>,
}

impl Session {
    /// A new volume, mounted.
    pub(crate) fn start(dir: &Path, memory: &str, files: usize) -> Self {
        let dir = dir.join(format!("coffer-memory-{}-{files}-{memory}", std::process::id()));
        for name in ["bucket", "drive", "run", "state"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        let passphrase = dir.join("passphrase");
        fs::write(&passphrase, "of a benchmark\n").expect("the passphrase");
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o400)).expect("it is private");
        let mut session = Self { dir, memory: memory.to_owned(), files, pid: 0, peaks: BTreeMap::new() };
        session.coffer(&["init", "./bucket", "--passphrase-file", "passphrase", "--kdf-log-n", "15"]);
        session.mount();
        session
    }

    /// Removes the volume, which is not mounted.
    pub(crate) fn end(self) -> BTreeMap<&'static str, u64> {
        fs::remove_dir_all(&self.dir).expect("the volume is removed");
        self.peaks
    }

    /// A place below the mount.
    pub(crate) fn drive(&self, name: &str) -> PathBuf {
        self.dir.join("drive").join(name)
    }

    pub(crate) fn bucket(&self) -> PathBuf {
        self.dir.join("bucket")
    }

    fn command(&self, args: &[&str]) -> Command {
        let mut coffer = Command::new(COFFER);
        coffer.args(args).current_dir(&self.dir).env("XDG_RUNTIME_DIR", self.dir.join("run"));
        coffer.env("HOME", &self.dir).env("XDG_STATE_HOME", self.dir.join("state"));
        coffer
    }

    /// Runs `coffer`; what it printed.
    pub(crate) fn coffer(&self, args: &[&str]) -> String {
        let done = self.command(args).output().expect("coffer runs");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
        String::from_utf8_lossy(&done.stdout).into_owned()
    }

    /// Runs `coffer` on the volume, which is not mounted, and measures it under the name `who`. It ends with one of `exits`.
    pub(crate) fn measured(&mut self, who: &'static str, args: &[&str], exits: &[i32]) {
        let begun = Instant::now();
        let mut all = args.to_vec();
        all.extend(["bucket", "--passphrase-file", "passphrase"]);
        if self.memory != "default" {
            all.extend(["--memory", &self.memory]);
        }
        let mut command = self.command(&all);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let (status, peak) = peak_of(command);
        assert!(status.code().is_some_and(|code| exits.contains(&code)), "{args:?}: {status}");
        self.note(who, peak);
        self.row(&args.join(" "), None, peak, begun);
    }

    pub(crate) fn mount(&mut self) {
        let begun = Instant::now();
        let (drive, memory) = (self.dir.join("drive"), self.memory.clone());
        let place = drive.to_string_lossy();
        let mut args = vec!["mount", "bucket", &place, "--passphrase-file", "passphrase"];
        if memory != "default" {
            args.extend(["--memory", &memory]);
        }
        self.coffer(&args);
        self.pid = daemon_of(&drive);
        self.tell("mount", begun);
    }

    pub(crate) fn unmount(&self) {
        self.coffer(&["umount", "drive"]);
        while Path::new(&format!("/proc/{}", self.pid)).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Measures the mount while `work` is done.
    pub(crate) fn stage<T>(&mut self, name: &str, work: impl FnOnce(&Self) -> T) -> T {
        forget_peak(self.pid);
        let begun = Instant::now();
        let done = work(self);
        self.tell(name, begun);
        done
    }

    fn tell(&mut self, stage: &str, begun: Instant) {
        let (rss, peak) = (bytes(self.pid, "VmRSS:"), bytes(self.pid, "VmHWM:"));
        self.note(MOUNT, peak);
        self.row(stage, Some(rss), peak, begun);
    }

    fn note(&mut self, who: &'static str, peak: u64) {
        let most = self.peaks.entry(who).or_default();
        *most = peak.max(*most);
    }

    fn row(&self, stage: &str, rss: Option<u64>, peak: u64, begun: Instant) {
        let (files, memory, seconds) = (self.files, &self.memory, begun.elapsed().as_secs());
        let rss = rss.map_or(String::new(), |rss| (rss / MIB).to_string());
        println!("{files:>9}  {memory:>8}  {stage:<24} {rss:>9} {:>9} {seconds:>8}", peak / MIB);
    }

    /// Calls `work` with each file's path and number, from several threads.
    pub(crate) fn each(&self, work: impl Fn(&Path, usize) + Sync) {
        let drive = self.dir.join("drive");
        std::thread::scope(|scope| {
            for user in 0..USERS {
                let (drive, work) = (&drive, &work);
                scope.spawn(move || {
                    for directory in (user..self.files.div_ceil(DIRECTORY_FILES)).step_by(USERS) {
                        let path = drive.join(format!("d{directory}"));
                        let _ = fs::create_dir(&path);
                        let first = directory * DIRECTORY_FILES;
                        for number in first..(first + DIRECTORY_FILES).min(self.files) {
                            work(&path.join(format!("file-{number}")), number);
                        }
                    }
                });
            }
        });
    }
}
