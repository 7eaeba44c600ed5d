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
    /// The server that holds the bucket, unless that is a local directory.
    pub(crate) server: Option<Server>,
    dirs: AtomicU32,
    dir: tempfile::TempDir,
}

impl Volume {
    /// A volume in a local directory.
    pub(crate) fn local() -> Volume {
        Volume::create(None, &[])
    }

    /// A volume in a local directory, initialised with more arguments.
    pub(crate) fn local_with(init_args: &[&str]) -> Volume {
        Volume::create(None, init_args)
    }

    /// A volume in a bucket of `server`.
    pub(crate) fn on(server: Server) -> Volume {
        Volume::create(Some(server), &[])
    }

    fn create(server: Option<Server>, init_args: &[&str]) -> Volume {
        let volume = Volume::without_init(server);
        let mut init = volume.coffer(["init", &volume.url, "--passphrase-file"]);
        init.arg(volume.passphrase_file()).args(["--kdf-log-n", "15"]).args(init_args);
        run(init).ok();
        volume
    }

    /// Everything that a volume needs, but no volume yet.
    pub(crate) fn without_init(server: Option<Server>) -> Volume {
        let dir = tempfile::Builder::new().prefix("coffer-").tempdir().expect("a temporary directory");
        for name in ["bucket", "run"] {
            let path = dir.path().join(name);
            std::fs::create_dir(&path).expect("a directory");
            rustix::fs::chmod(&path, rustix::fs::Mode::RWXU).expect("chmod");
        }
        let url = match &server {
            Some(server) => server.url.clone(),
            None => dir.path().join("bucket").to_string_lossy().into_owned(),
        };
        let passphrase = format!("correct horse {:016x}", rand::random::<u64>());
        let volume = Volume { url, passphrase, server, dirs: AtomicU32::new(0), dir };
        std::fs::write(volume.passphrase_file(), format!("{}\n", volume.passphrase))
            .expect("the passphrase file");
        rustix::fs::chmod(volume.passphrase_file(), rustix::fs::Mode::RUSR).expect("chmod");
        volume
    }

    /// The directory that is the bucket, of a local volume.
    pub(crate) fn bucket(&self) -> PathBuf {
        assert!(self.server.is_none(), "the bucket is not a local directory");
        self.dir.path().join("bucket")
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

    /// A `coffer` command with the environment of this volume and nobody else's.
    pub(crate) fn coffer<S: AsRef<OsStr>>(&self, args: impl IntoIterator<Item = S>) -> Command {
        let mut coffer = command(COFFER, args);
        coffer.env("XDG_RUNTIME_DIR", self.dir.path().join("run"));
        coffer.env("XDG_STATE_HOME", self.dir.path().join("home")).env("HOME", self.dir.path().join("home"));
        coffer.env("RUST_BACKTRACE", "1").env_remove("RUST_LOG");
        if let Some(server) = &self.server {
            coffer.envs(server.env.iter().map(|(name, value)| (name, value)));
        }
        coffer
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
