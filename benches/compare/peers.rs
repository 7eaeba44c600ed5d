//! The filesystems that people use for this today, each set up as its own documents advise, over the same store.
//!
//! What does not make them comparable is said: rclone and gocryptfs over it store neither owners nor hard links, and
//! JuiceFS keeps all names and attributes in a database on this machine, so that it asks the store for contents only.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use super::ground::{Daemon, Ground, Site, Subject};
use crate::support::command::{Finished, command, run, run_within, wait_until};
use crate::support::servers::tool;

/// Any peer may take this long until everything is in the store; a hang is what it ends.
const SETTLED_WITHIN: Duration = Duration::from_secs(3000);

/// What is the same for all: an account at the store, and a place for secrets and databases.
struct Account {
    endpoint: String,
    key: String,
    secret: String,
    dir: tempfile::TempDir,
}

impl Account {
    fn new(ground: &Ground) -> Self {
        let env = |wanted: &str| {
            let found = ground.server.env.iter().find(|(name, _)| *name == wanted);
            found.map(|(_, value)| value.clone()).expect("the server has an account")
        };
        Self {
            endpoint: ground.endpoint(),
            key: env("AWS_ACCESS_KEY_ID"),
            secret: env("AWS_SECRET_ACCESS_KEY"),
            dir: tempfile::tempdir().expect("a directory"),
        }
    }

    fn new_dir(&self) -> PathBuf {
        tempfile::tempdir_in(&self.dir).expect("a directory").keep()
    }
}

/// `rclone mount`, with a cache of whole files on disk; encrypted by rclone, or not.
pub(crate) struct Rclone {
    account: Account,
    remote: String,
    env: Vec<(String, String)>,
}

impl Rclone {
    /// Over its own encryption (`crypt`).
    pub(crate) fn crypt(ground: &Ground) -> Self {
        let mut rclone = Self::plain(ground);
        let mut obscure =
            command(tool("peers/bin/rclone").to_str().expect("a path"), ["obscure", "of a benchmark"]);
        obscure.envs(rclone.env.iter().cloned());
        let password = run(obscure).ok().text().trim().to_owned();
        let plain = std::mem::replace(&mut rclone.remote, "crypt:".into());
        rclone.set("CRYPT_TYPE", "crypt");
        rclone.set("CRYPT_REMOTE", &plain);
        rclone.set("CRYPT_PASSWORD", &password);
        rclone
    }

    /// As something to put another encryption over.
    fn plain(ground: &Ground) -> Self {
        let account = Account::new(ground);
        let remote = format!("s3:coffer/{}", ground.prefix());
        let mut rclone = Self { account, remote, env: Vec::new() };
        let (endpoint, key, secret) =
            (rclone.account.endpoint.clone(), rclone.account.key.clone(), rclone.account.secret.clone());
        rclone.set("S3_TYPE", "s3");
        rclone.set("S3_PROVIDER", "SeaweedFS");
        rclone.set("S3_ENDPOINT", &endpoint);
        rclone.set("S3_ACCESS_KEY_ID", &key);
        rclone.set("S3_SECRET_ACCESS_KEY", &secret);
        rclone.set("S3_REGION", "us-east-1");
        let config = rclone.account.dir.path().join("rclone.conf");
        fs::write(&config, "").expect("an empty configuration");
        rclone.env.push(("RCLONE_CONFIG".into(), config.to_string_lossy().into_owned()));
        rclone
    }

    fn set(&mut self, name: &str, value: &str) {
        self.env.push((format!("RCLONE_CONFIG_{name}"), value.to_owned()));
    }
}

impl Subject for Rclone {
    fn name(&self) -> String {
        "rclone crypt".into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        let (place, cache) = (self.account.new_dir(), self.account.new_dir());
        let socket = cache.join("rc");
        let mut rclone = Command::new(tool("peers/bin/rclone"));
        rclone.args(["mount", &self.remote]).arg(&place).arg("--cache-dir").arg(&cache);
        rclone.args([
            "--vfs-cache-mode",
            "full",
            "--vfs-write-back",
            "1s",
            "--vfs-links",
            "--transfers",
            "16",
        ]);
        rclone.args(["--rc", "--rc-no-auth"]).arg(format!("--rc-addr=unix://{}", socket.display()));
        rclone.envs(self.env.iter().cloned());
        let daemon = Daemon::start(rclone, &place);
        let settle = || wait_until("rclone has uploaded everything", SETTLED_WITHIN, || is_uploaded(&socket));
        work(&Site::new(&place, daemon.pids(), &settle));
        settle();
        daemon.unmount();
        fs::remove_dir_all(&cache).expect("remove its cache");
    }
}

fn is_uploaded(socket: &Path) -> bool {
    let mut curl = command("curl", ["-sS", "--fail", "-X", "POST", "--unix-socket"]);
    curl.arg(socket).arg("http://rclone/vfs/stats");
    let stats: serde_json::Value = serde_json::from_str(&run(curl).ok().text()).expect("JSON");
    ["uploadsInProgress", "uploadsQueued"].iter().all(|of| stats["diskCache"][of] == 0)
}

/// gocryptfs over a mount of rclone's.
pub(crate) struct Gocryptfs {
    below: Rclone,
    passphrase: PathBuf,
}

impl Gocryptfs {
    pub(crate) fn new(ground: &Ground) -> Self {
        let below = Rclone::plain(ground);
        let passphrase = below.account.dir.path().join("passphrase");
        fs::write(&passphrase, "of a benchmark\n").expect("a passphrase");
        let gocryptfs = Self { below, passphrase };
        gocryptfs.below.mounted(&mut |site| {
            fs::create_dir(site.path("sealed")).expect("mkdir");
            gocryptfs_init(&gocryptfs.passphrase, &site.path("sealed"));
        });
        gocryptfs
    }
}

/// Makes a gocryptfs in an empty directory, at its least cost of stretching.
fn gocryptfs_init(passphrase: &Path, sealed: &Path) {
    let mut init = command("gocryptfs", ["-init", "-q", "-scryptn", "10", "-passfile"]);
    init.arg(passphrase).arg(sealed);
    run(init).ok();
}

/// Mounts a gocryptfs.
fn gocryptfs_mount(passphrase: &Path, sealed: &Path, place: &Path) -> Daemon {
    let mut mount = Command::new("gocryptfs");
    mount.args(["-q", "-fg", "-passfile"]).arg(passphrase).arg(sealed).arg(place);
    Daemon::start(mount, place)
}

impl Subject for Gocryptfs {
    fn name(&self) -> String {
        "gocryptfs over rclone".into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        self.below.mounted(&mut |below| {
            let place = self.below.account.new_dir();
            let daemon = gocryptfs_mount(&self.passphrase, &below.path("sealed"), &place);
            let pids = below.daemons.iter().copied().chain(daemon.pids()).collect();
            work(&Site::new(&place, pids, &|| below.settle()));
            daemon.unmount();
        });
    }
}

/// gocryptfs over a local directory, for what encryption costs without a store.
pub(crate) struct LocalGocryptfs {
    dir: tempfile::TempDir,
}

impl LocalGocryptfs {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().expect("a directory");
        fs::write(dir.path().join("passphrase"), "of a benchmark\n").expect("a passphrase");
        for name in ["sealed", "mounted"] {
            fs::create_dir(dir.path().join(name)).expect("mkdir");
        }
        gocryptfs_init(&dir.path().join("passphrase"), &dir.path().join("sealed"));
        Self { dir }
    }
}

impl Subject for LocalGocryptfs {
    fn name(&self) -> String {
        "gocryptfs, local".into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        let below = |name: &str| self.dir.path().join(name);
        let daemon = gocryptfs_mount(&below("passphrase"), &below("sealed"), &below("mounted"));
        work(&Site::new(&below("mounted"), daemon.pids(), &|| {}));
        daemon.unmount();
    }
}

/// JuiceFS with encryption, and its names in a SQLite database on this machine.
pub(crate) struct Juicefs {
    account: Account,
    database: String,
}

impl Juicefs {
    const PASSPHRASE: (&'static str, &'static str) = ("JFS_RSA_PASSPHRASE", "of a benchmark");

    pub(crate) fn new(ground: &Ground) -> Self {
        let account = Account::new(ground);
        let key = account.dir.path().join("key.pem");
        let mut openssl =
            command("openssl", ["genrsa", "-aes256", "-passout", "pass:of a benchmark", "-out"]);
        openssl.arg(&key).arg("2048");
        run(openssl).ok();
        let database = format!("sqlite3://{}/names.db", account.dir.path().display());
        let mut format = juicefs(["format", "--storage", "s3", "--no-update", "--trash-days", "0"]);
        format.args(["--bucket", &format!("{}/coffer", account.endpoint)]);
        format.args(["--access-key", &account.key, "--secret-key", &account.secret]);
        format.arg("--encrypt-rsa-key").arg(&key).arg(&database).arg(ground.prefix());
        run(format).ok();
        Self { account, database }
    }
}

fn juicefs<const N: usize>(args: [&str; N]) -> Command {
    let mut juicefs = Command::new(tool("peers/bin/juicefs"));
    juicefs.args(args).env(Juicefs::PASSPHRASE.0, Juicefs::PASSPHRASE.1);
    juicefs
}

impl Subject for Juicefs {
    fn name(&self) -> String {
        "juicefs, names local".into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        let (place, cache) = (self.account.new_dir(), self.account.new_dir());
        let mut mount = juicefs(["mount", "--no-usage-report", "--backup-meta", "0"]);
        mount.arg("--cache-dir").arg(&cache).arg(&self.database).arg(&place);
        let daemon = Daemon::start(mount, &place);
        // Closing a file waits until it is uploaded; nothing is left to wait for.
        work(&Site::new(&place, daemon.pids(), &|| {}));
        daemon.unmount();
        fs::remove_dir_all(&cache).expect("remove its cache");
    }
}

/// Runs `program` to its end, however slow the filesystem under it is.
pub(crate) fn patiently(program: Command) -> Finished {
    run_within(program, SETTLED_WITHIN)
}
