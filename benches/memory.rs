//! What a mount holds in memory, against the number of its files and its `--memory`: a table of measured RSS.
//!
//! `cargo bench --bench memory -- [--files N]... [--memory SIZE]... [--stream MIB] [--dir DIR]`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

const COFFER: &str = env!("CARGO_BIN_EXE_coffer");
/// What a mount may take beyond its `--memory`: the program itself, threads, the records engine.
const BEYOND_BYTES: u64 = 150 << 20;
const MIB: u64 = 1 << 20;
/// Files of one directory.
const DIRECTORY_FILES: usize = 1000;
/// Programs that use the mount at once.
const USERS: usize = 4;

struct Asked {
    files: Vec<usize>,
    memory: Vec<String>,
    stream_bytes: u64,
    dir: PathBuf,
}

fn asked() -> Asked {
    let mut asked = Asked { files: vec![], memory: vec![], stream_bytes: 1 << 30, dir: std::env::temp_dir() };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--files" => asked.files.push(value.parse().expect("a number of files")),
            "--memory" => asked.memory.push(value),
            "--stream" => asked.stream_bytes = value.parse::<u64>().expect("MiB") * MIB,
            "--dir" => asked.dir = value.into(),
            _ => panic!("{word}: not an argument of this benchmark"),
        }
    }
    if asked.files.is_empty() {
        asked.files = vec![10_000, 100_000];
    }
    if asked.memory.is_empty() {
        asked.memory = vec!["256MiB".into(), "default".into()];
    }
    asked
}

fn main() {
    let asked = asked();
    let mut summary = Vec::new();
    println!(
        "{:>9}  {:>8}  {:<12} {:>9} {:>9} {:>8}",
        "files", "memory", "stage", "rss MiB", "peak MiB", "s"
    );
    for memory in &asked.memory {
        for files in &asked.files {
            let peak = Session::start(&asked, memory, *files).run(asked.stream_bytes);
            summary.push((*files, memory, peak));
        }
    }
    println!("\n{:>9}  {:>8}  {:>9}", "files", "memory", "peak MiB");
    let mut has_passed = true;
    for (files, memory, peak) in summary {
        let limit = limit_of(memory) + BEYOND_BYTES;
        has_passed &= peak <= limit;
        let verdict = if peak <= limit { "" } else { "  over!" };
        println!("{files:>9}  {memory:>8}  {:>9}{verdict}", peak / MIB);
    }
    assert!(has_passed, "a mount took more than its --memory and {} MiB", BEYOND_BYTES / MIB);
}

/// What `--memory` allows; the default is as `coffer mount --help` says.
fn limit_of(memory: &str) -> u64 {
    match memory.trim_end_matches("MiB").parse::<u64>() {
        Ok(mib) => mib * MIB,
        Err(_) => 1024 * MIB,
    }
}

/// One volume, mounted with one limit.
struct Session {
    dir: PathBuf,
    memory: String,
    files: usize,
    pid: u32,
    peak: u64,
    mounts: u32,
}

impl Session {
    fn start(asked: &Asked, memory: &str, files: usize) -> Self {
        let dir = asked.dir.join(format!("coffer-memory-{}-{files}-{memory}", std::process::id()));
        for name in ["bucket", "drive", "run", "state"] {
            fs::create_dir_all(dir.join(name)).expect("a directory");
        }
        let passphrase = dir.join("passphrase");
        fs::write(&passphrase, "of a benchmark\n").expect("the passphrase");
        fs::set_permissions(&passphrase, fs::Permissions::from_mode(0o400)).expect("it is private");
        let mut session = Self { dir, memory: memory.to_owned(), files, pid: 0, peak: 0, mounts: 0 };
        session.coffer(&["init", "bucket", "--passphrase-file", "passphrase", "--kdf-log-n", "15"]);
        session.mount();
        session
    }

    fn coffer(&self, args: &[&str]) {
        let mut coffer = Command::new(COFFER);
        coffer.args(args).current_dir(&self.dir).env("XDG_RUNTIME_DIR", self.dir.join("run"));
        coffer.env("HOME", &self.dir).env("XDG_STATE_HOME", self.dir.join("state"));
        let done = coffer.output().expect("coffer runs");
        assert!(done.status.success(), "{args:?}: {}", String::from_utf8_lossy(&done.stderr));
    }

    fn mount(&mut self) {
        let (drive, memory) = (self.dir.join("drive"), self.memory.clone());
        let place = drive.to_string_lossy();
        let mut args = vec!["mount", "bucket", &place, "--passphrase-file", "passphrase"];
        if memory != "default" {
            args.extend(["--memory", &memory]);
        }
        self.coffer(&args);
        self.pid = daemon_of(&drive);
        self.mounts += 1;
        self.tell("mount", Instant::now());
    }

    fn unmount(&self) {
        self.coffer(&["umount", "drive"]);
        while Path::new(&format!("/proc/{}", self.pid)).exists() {
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn run(mut self, stream_bytes: u64) -> u64 {
        self.stage("create", |session| {
            session.each(|path, number| fs::write(path, contents(number)).unwrap())
        });
        self.stage("sync", |session| session.coffer(&["sync", "drive"]));
        self.stage("stat", |session| session.each(|path, _| assert!(fs::metadata(path).unwrap().is_file())));
        self.stage("read", |session| {
            session.each(|path, number| assert!(fs::read(path).unwrap() == contents(number)))
        });
        self.stage("rename", |session| session.each(|path, _| fs::rename(path, renamed(path)).unwrap()));
        self.stage("overwrite", |session| {
            session.each(|path, number| fs::write(renamed(path), contents(number)).unwrap());
        });
        let stream = self.dir.join("drive/stream");
        self.stage("stream in", |_| stream_in(&stream, stream_bytes));
        self.stage("stream out", |_| stream_out(&stream, stream_bytes));
        self.unmount();
        self.mount();
        self.stage("cold list", |session| {
            let listed =
                Command::new("ls").args(["-lRU", "--"]).arg(session.dir.join("drive")).output().unwrap();
            assert!(listed.status.success());
        });
        self.stage("cold read", |session| {
            session.each(|path, number| assert!(fs::read(renamed(path)).unwrap() == contents(number)));
        });
        self.stage("cold out", |_| stream_out(&stream, stream_bytes));
        self.stage("remove", |session| session.each(|path, _| fs::remove_file(renamed(path)).unwrap()));
        self.stage("sync", |session| session.coffer(&["sync", "drive"]));
        self.unmount();
        fs::remove_dir_all(&self.dir).expect("the volume is removed");
        self.peak
    }

    fn stage(&mut self, name: &str, work: impl FnOnce(&Self)) {
        // From here on, the peak is that of this stage.
        fs::write(format!("/proc/{}/clear_refs", self.pid), "5")
            .expect("resetting the peak takes a superuser");
        let begun = Instant::now();
        work(self);
        self.tell(name, begun);
    }

    fn tell(&mut self, stage: &str, begun: Instant) {
        let (rss, peak) = (self.kib("VmRSS:") * 1024, self.kib("VmHWM:") * 1024);
        self.peak = self.peak.max(peak);
        let (files, memory, seconds) = (self.files, &self.memory, begun.elapsed().as_secs());
        println!("{files:>9}  {memory:>8}  {stage:<12} {:>9} {:>9} {seconds:>8}", rss / MIB, peak / MIB);
    }

    fn kib(&self, what: &str) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid)).expect("the mount lives");
        let line = status.lines().find(|line| line.starts_with(what)).expect("a line of the status");
        line.split_whitespace().nth(1).unwrap().parse().unwrap()
    }

    /// Calls `work` with each file's path and number, from several threads.
    fn each(&self, work: impl Fn(&Path, usize) + Sync) {
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

fn renamed(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Up to 4 KiB, which differ from file to file; a quarter is small enough to stay in records.
fn contents(number: usize) -> Vec<u8> {
    let bytes = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    bytes.iter().copied().cycle().take(1 + (number * 577) % 4096).collect()
}

fn stream_in(path: &Path, bytes: u64) {
    let mut file = File::create(path).expect("a file");
    let piece: Vec<u8> = (0..MIB as u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for _ in 0..bytes / MIB {
        file.write_all(&piece).expect("written");
    }
    file.sync_all().expect("synced");
}

fn stream_out(path: &Path, bytes: u64) {
    let (mut file, mut piece) = (File::open(path).expect("a file"), vec![0; MIB as usize]);
    let mut found = 0;
    loop {
        match file.read(&mut piece).expect("read") {
            0 => break,
            len => found += len as u64,
        }
    }
    assert_eq!(found, bytes / MIB * MIB);
}

/// The process that serves the mount: its arguments name the place.
fn daemon_of(drive: &Path) -> u32 {
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
