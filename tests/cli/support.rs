//! A bench with one volume, and the command run against it.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;

use coffer::base::{OsEntropy, SystemClock};
use coffer::cli::exit::Exit;
use coffer::keys::{Factor, Secret};
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::meta::{Key, Record, Superblock, decode, encode};
use coffer::store::{self, StoreOptions};
use coffer::vault::Vault;
use coffer::vfs::Vfs;
use coffer::volume::{self, OpenOptions};
use tempfile::TempDir;

pub(crate) const PASSPHRASE: &str = "correct horse battery staple";

/// A temporary directory with files for secrets, a home of its own, and room for a volume.
pub(crate) struct Bench {
    dir: TempDir,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let bench = Self { dir: tempfile::tempdir().unwrap() };
        fs::create_dir(bench.path("home")).unwrap();
        bench.secret("right", PASSPHRASE);
        bench.secret("wrong", "incorrect horse battery staple");
        bench
    }

    /// A bench whose volume is there already.
    pub(crate) fn with_volume() -> Self {
        let bench = Self::new();
        bench.run(&["init", "--kdf-log-n", "15", "--passphrase-file", "right", "./vol"]).ok();
        bench
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that only its owner can read.
    pub(crate) fn secret(&self, name: &str, content: &str) {
        fs::write(self.path(name), content).unwrap();
        fs::set_permissions(self.path(name), fs::Permissions::from_mode(0o600)).unwrap();
    }

    /// The command, run in the bench's directory with none of the tester's environment, and without a terminal.
    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("setsid");
        command.arg("--wait").arg(env!("CARGO_BIN_EXE_coffer")).args(args);
        command.current_dir(self.dir.path()).stdin(Stdio::null());
        command.env_clear().env("HOME", self.path("home")).env("TZ", "UTC").env("PATH", "/usr/bin:/bin");
        command
    }

    pub(crate) fn run(&self, args: &[&str]) -> Ended {
        Ended::of(self.command(args).output().unwrap())
    }

    /// Runs the command with a store that takes headers and never says so, and kills it when `object` is there.
    pub(crate) fn run_until_stored(&self, args: &[&str], object: &str) {
        let mut command = self.command(args);
        let mut child = command.args(["--fault", "silent=1:put:header"]).spawn().unwrap();
        while !self.path(object).exists() {
            assert!(child.try_wait().unwrap().is_none(), "it has ended");
            std::thread::yield_now();
        }
        child.kill().unwrap();
        child.wait().unwrap();
    }

    /// `command` on the bench's volume, unlocked with the right passphrase; `rest` follows the URL.
    pub(crate) fn on_volume(&self, command: &str, rest: &[&str]) -> Ended {
        self.run(&[&[command, "--passphrase-file", "right", "vol"], rest].concat())
    }

    /// Opens the volume for writing in this process, lets `work` change it, and closes it.
    pub(crate) fn change<T>(&self, work: impl AsyncFnOnce(&Arc<Vfs>) -> T) -> T {
        runtime().block_on(async {
            let opened = self.open_for_writing().await;
            let result = work(&opened.vfs).await;
            opened.close().await.unwrap();
            result
        })
    }

    /// As [`Bench::change`], with these options.
    pub(crate) fn change_with<T>(&self, options: OpenOptions, work: impl AsyncFnOnce(&Arc<Vfs>) -> T) -> T {
        runtime().block_on(async {
            let opened = self.open_with(options).await;
            let result = work(&opened.vfs).await;
            opened.close().await.unwrap();
            result
        })
    }

    async fn open_with(&self, options: OpenOptions) -> volume::Opened {
        let url = self.path("vol").display().to_string();
        let bucket = store::open(&url, &StoreOptions::default()).unwrap();
        let factors = [Factor::Passphrase(Secret::new(PASSPHRASE.into()))];
        volume::open(bucket, &factors, options).await.unwrap()
    }

    pub(crate) async fn open_for_writing(&self) -> volume::Opened {
        let state_dir = Some(self.path("home/.local/state/coffer"));
        self.open_with(OpenOptions { state_dir, ..OpenOptions::default() }).await
    }

    /// Makes the superblock say one file too many.
    pub(crate) fn miscount_files(&self) {
        runtime().block_on(async {
            let bucket =
                store::open(&self.path("vol").display().to_string(), &StoreOptions::default()).unwrap();
            let factors = [Factor::Passphrase(Secret::new(PASSPHRASE.into()))];
            let unlocked = volume::unlock(&bucket, &factors).await.unwrap();
            let vault = Vault::new(bucket, Arc::new(unlocked.ring), Arc::new(OsEntropy));
            let clock = Arc::new(SystemClock::default());
            let (mode, options) = (EngineMode::Writer, EngineOptions::default());
            let engine = Engine::open(vault.meta_store(1 << 20), mode, options, clock).await.unwrap();
            let bytes = engine.get(&Key::Super.encode()).await.unwrap().unwrap();
            let Record::Super(superblock) = decode(&Key::Super, &bytes).unwrap() else { unreachable!() };
            let wrong = Superblock { files: superblock.files + 1, ..(*superblock).clone() };
            let bytes = encode(&Record::Super(Arc::new(wrong))).unwrap();
            engine.write_durable(vec![(Key::Super.encode(), Some(bytes))]).await.unwrap();
            engine.close().await.unwrap();
        });
    }

    /// The files below a directory of the volume as it lies on disk.
    pub(crate) fn objects(&self, below: &str) -> Vec<PathBuf> {
        let mut found = Vec::new();
        let mut waiting = vec![self.path("vol").join(below)];
        while let Some(dir) = waiting.pop() {
            for entry in fs::read_dir(dir).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() { waiting.push(path) } else { found.push(path) }
            }
        }
        found.sort();
        found
    }
}

pub(crate) fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap()
}

pub(crate) fn flip_byte(path: &Path, at: usize) {
    let mut bytes = fs::read(path).unwrap();
    bytes[at] ^= 1;
    fs::write(path, bytes).unwrap();
}

/// How a run of the command ended.
#[derive(Debug)]
pub(crate) struct Ended {
    pub(crate) code: i32,
    pub(crate) stdout: Vec<u8>,
    pub(crate) stderr: String,
}

impl Ended {
    pub(crate) fn of(output: Output) -> Self {
        let stderr = String::from_utf8_lossy(&output.stderr).into_owned();
        Self { code: output.status.code().unwrap(), stdout: output.stdout, stderr }
    }

    /// It succeeded; gives its standard output.
    #[track_caller]
    pub(crate) fn ok(self) -> String {
        assert_eq!(self.code, 0, "{}", self.stderr);
        String::from_utf8(self.stdout).unwrap()
    }

    /// It failed with this exit, in one sentence that says `words`, and printed nothing else.
    #[track_caller]
    pub(crate) fn refused(&self, exit: Exit, words: &str) {
        assert_eq!(self.code, i32::from(exit.code()), "{}", self.stderr);
        assert!(self.stderr.contains(words), "{words:?} is not in: {}", self.stderr);
        let errors = self.stderr.lines().filter(|line| line.starts_with("error: ")).count();
        assert_eq!(errors, 1, "{}", self.stderr);
        assert_eq!(String::from_utf8_lossy(&self.stdout), "");
        assert!(!self.stderr.contains(PASSPHRASE), "{}", self.stderr);
        crate::snapshot::compare(self.code, &self.stderr);
    }
}
