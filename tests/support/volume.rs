//! A volume of its own for each test: bucket, passphrase, state directories and runtime directory.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use super::command::{Finished, command, run};
use super::mount::{Mount, MountSpec};
use super::servers::Server;

/// The `coffer` under test.
pub(crate) const COFFER: &str = env!("CARGO_BIN_EXE_coffer");

/// A fresh volume and what is needed to reach it.
pub(crate) struct Volume {
    /// Where the bucket is.
    pub(crate) url: String,
    /// The passphrase itself, which must turn up nowhere.
    pub(crate) passphrase: String,
    /// What `coffer` needs in its environment to reach the bucket.
    env: Vec<(&'static str, String)>,
    dirs: AtomicU32,
    dir: tempfile::TempDir,
}

impl Volume {
    /// A volume in a local directory.
    pub(crate) fn local() -> Volume {
        Volume::local_without_init().init()
    }

    /// A volume in the bucket of `server`.
    pub(crate) fn on(server: &Server) -> Volume {
        Volume::at(server, &server.url)
    }

    /// A volume at another URL of `server`.
    pub(crate) fn at(server: &Server, url: &str) -> Volume {
        Volume::at_without_init(server, url).init()
    }

    /// The same, with no volume there yet.
    pub(crate) fn at_without_init(server: &Server, url: &str) -> Volume {
        let mut volume = Volume::local_without_init();
        url.clone_into(&mut volume.url);
        volume.env.clone_from(&server.env);
        volume
    }

    fn init(self) -> Volume {
        run(self.init_command()).ok();
        self
    }

    /// `coffer init` of this volume, at the least cost that the format allows.
    pub(crate) fn init_command(&self) -> Command {
        let mut init = self.coffer(["init", &self.url, "--passphrase-file"]);
        init.arg(self.passphrase_file()).args(["--kdf-log-n", "15"]);
        init
    }

    /// A local directory with everything that a volume needs, but no volume yet.
    pub(crate) fn local_without_init() -> Volume {
        let dir = tempfile::Builder::new().prefix("coffer-").tempdir().expect("a temporary directory");
        for name in ["bucket", "run"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("a directory");
            rustix::fs::chmod(&path, rustix::fs::Mode::RWXU).expect("chmod");
        }
        let url = dir.path().join("bucket").to_string_lossy().into_owned();
        let passphrase = format!("correct horse {:016x}", rand::random::<u64>());
        let volume = Volume { url, passphrase, env: Vec::new(), dirs: AtomicU32::new(0), dir };
        std::fs::write(volume.passphrase_file(), format!("{}\n", volume.passphrase))
            .expect("the passphrase file");
        rustix::fs::chmod(volume.passphrase_file(), rustix::fs::Mode::RUSR).expect("chmod");
        volume
    }

    /// The directory that is the bucket, of a local volume.
    pub(crate) fn bucket(&self) -> PathBuf {
        assert!(self.env.is_empty(), "the bucket is not a local directory");
        self.dir.path().join("bucket")
    }

    /// Opens the way to the mount points to other users.
    pub(crate) fn let_others_through(&self) {
        rustix::fs::chmod(self.dir.path(), rustix::fs::Mode::from_raw_mode(0o711)).expect("chmod");
    }

    /// The file that holds the passphrase.
    pub(crate) fn passphrase_file(&self) -> PathBuf {
        self.dir.path().join("passphrase")
    }

    /// A directory that did not exist before, for whatever the test needs.
    pub(crate) fn new_dir(&self, what: &str) -> PathBuf {
        let number = self.dirs.fetch_add(1, Ordering::Relaxed);
        let path = self.dir.path().join(format!("{what}{number}"));
        std::fs::create_dir(&path).expect("a new directory");
        path
    }

    /// The same, belonging to another user.
    pub(crate) fn new_dir_of(&self, uid: u32, what: &str) -> PathBuf {
        let path = self.new_dir(what);
        std::os::unix::fs::chown(&path, Some(uid), None).expect("chown");
        path
    }

    /// A `coffer` command with the environment of this volume and nobody else's.
    pub(crate) fn coffer<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        self.program(COFFER, args)
    }

    /// Any program, with the environment that `coffer` gets.
    pub(crate) fn program<S: AsRef<OsStr>>(
        &self,
        program: &str,
        args: impl IntoIterator<Item = S>,
    ) -> Command {
        let mut program = command(program, args);
        program.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        program.env("XDG_STATE_HOME", self.dir.path().join("home")).env("HOME", self.dir.path().join("home"));
        program.env_remove("RUST_BACKTRACE").env_remove("RUST_LOG");
        program.envs(self.env.iter().map(|(name, value)| (name, value)));
        program
    }

    /// Runs `coffer VERB DIR ...`, whatever comes of it.
    pub(crate) fn try_verb(&self, verb: &str, dir: &Path, args: &[&str]) -> Finished {
        let mut coffer = self.coffer([verb]);
        coffer.arg(dir).args(args);
        run(coffer)
    }

    /// Mounts with no local state: whatever the mount shows comes from the bucket.
    pub(crate) fn mount(&self) -> Mount<'_> {
        self.mount_spec().mount()
    }

    /// How to mount it, to be changed before it is done.
    pub(crate) fn mount_spec(&self) -> MountSpec<'_> {
        MountSpec::new(self)
    }
}
