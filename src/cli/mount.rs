//! `coffer mount`: its arguments, and the way to the background.

use std::path::PathBuf;
use std::time::Duration;

use super::daemon::{self, Readiness, Side};
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::factors::UnlockArgs;
use super::logging::{Log, LogArgs};
use super::mount_options::MountOptions;
use super::open::{BucketArgs, StateArgs, TrustArgs, obtain, parse_fingerprint};
use super::remount::Remount;
use super::serve::{self, Plan};
use super::stderr;
use super::units::{parse_duration, parse_interval, parse_size, parse_timetable};
use super::{budget, cover, explain, runtime, supervisor, sys};
use crate::control::Registry;
use crate::crypto::after_fork;
use crate::fuse;
use crate::keys::Factor;
use crate::store::Timetable;
use crate::volume::{ExpectedCommit, OpenOptions, TrustOptions};

/// What mounts in the background log to, in the state directory.
const LOG_NAME: &str = "mount.log";

/// Shown at the end of `coffer mount --help`.
pub const EXAMPLES: &str = "\
Returns when the mount is ready and goes on in the background; the files there are then used like \
any others. What is written is in the bucket a few seconds later, or at once after fsync or `coffer sync`. `coffer \
umount`, SIGTERM and Ctrl-C save everything before the process ends, and so does umount for a mount of fstab if its helper is \
installed; else umount, and fusermount3 -u, say that the mount is busy until everything is saved.

URL may be the name of a volume in a configuration file, and DIR then its mountpoint: `coffer config --help`.

Options of -o, as mount(8) has them: ro, rw, allow_other, allow_root, nonempty, suid, nosuid, dev, nodev, \
exec, noexec, relatime, strictatime, noatime, nodiratime, sync, async, fsname=NAME; and of its own, nohold (do not be busy for what is not saved). Those \
for others (x-*, _netdev, nofail, user, ...) are ignored. \
For fstab, the long options above can be given there as well: passphrase-file=FILE, \
key-file=FILE, cache-size=SIZE, state-dir=DIR, ...

Examples:
  coffer mount s3://bucket/home ~/vault
  coffer mount --read-only /srv/volume /mnt
  coffer mount --expect 'shoot order arrow mad rhythm lyrics catalog drift lion woman panic bargain' s3://bucket/home ~/vault
  coffer mount --read-only --forensic /srv/volume /mnt
  coffer mount --http 127.0.0.1:9400 s3://bucket/home ~/vault
  coffer mount -f -v --passphrase-command 'pass show vault' s3://bucket/home ~/vault

In /etc/fstab, with links /sbin/mount.coffer and /sbin/umount.fuse.coffer to coffer:
  s3://bucket/home  /vault  coffer  passphrase-file=/etc/vault.pass,allow_other,_netdev,nofail  0 0";

/// Arguments of `coffer mount`.
#[derive(clap::Args, Clone, Debug)]
pub struct MountArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// An empty directory
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Stay in the foreground
    #[arg(short, long)]
    pub foreground: bool,
    /// Only read; follow what another mount writes
    #[arg(long, conflicts_with = "takeover")]
    pub read_only: bool,
    /// Take the volume over from a mount that is gone or out of reach; if it still lives, it turns read-only
    #[arg(long)]
    pub takeover: bool,
    /// Mount options, as mount(8) has them
    #[arg(short = 'o', long = "options", value_name = "LIST", action = clap::ArgAction::Append)]
    pub options: Vec<String>,
    /// The keys.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// Memory for caches, unsent data and buffers together, at least 64MiB; the program comes on top [default: 1GiB]
    #[arg(long, value_name = "SIZE", env = "COFFER_MEMORY", value_parser = parse_size, hide_env_values = true, help_heading = "This machine")]
    pub memory: Option<u64>,
    /// Part of it that holds blocks read before
    #[arg(long, value_name = "SIZE", env = "COFFER_CACHE_SIZE", value_parser = parse_size, hide_env_values = true, help_heading = "This machine")]
    pub cache_size: Option<u64>,
    /// Part of it that holds what is written and not in the bucket yet; writers wait beyond it
    #[arg(long, value_name = "SIZE", env = "COFFER_DIRTY_LIMIT", value_parser = parse_size, hide_env_values = true, help_heading = "This machine")]
    pub dirty_limit: Option<u64>,
    /// Changes wait no longer than this before they are sent
    #[arg(long, value_name = "TIME", env = "COFFER_COMMIT_AGE", default_value = "5s", value_parser = parse_duration, hide_env_values = true, help_heading = "This machine")]
    pub commit_age: Option<Duration>,
    /// With --read-only, nothing shown is older than this while the bucket answers
    #[arg(long, value_name = "TIME", env = "COFFER_POLL_INTERVAL", default_value = "5s", value_parser = parse_duration, hide_env_values = true, help_heading = "This machine")]
    pub poll_interval: Option<Duration>,
    /// fsync fails with EIO if the bucket takes longer; saving goes on [default: wait without end]
    #[arg(long, value_name = "TIME", env = "COFFER_FSYNC_TIMEOUT", value_parser = parse_duration, hide_env_values = true, help_heading = "This machine")]
    pub fsync_timeout: Option<Duration>,
    /// Commit this often even where nothing changes, so that others see that the newest state is new
    #[arg(long, value_name = "TIME", env = "COFFER_HEARTBEAT", value_parser = parse_interval, hide_env_values = true, help_heading = "This machine")]
    pub heartbeat: Option<Duration>,
    /// Send no faster than so many bytes a second; `coffer limit` changes it, and its help tells of timetables
    #[arg(long, value_name = "RATE", env = "COFFER_UPLOAD_LIMIT", value_parser = parse_timetable, hide_env_values = true, help_heading = "This machine")]
    pub upload_limit: Option<Timetable>,
    /// Receive no faster
    #[arg(long, value_name = "RATE", env = "COFFER_DOWNLOAD_LIMIT", value_parser = parse_timetable, hide_env_values = true, help_heading = "This machine")]
    pub download_limit: Option<Timetable>,
    /// Show figures at this address of the machine: a page, /metrics for Prometheus, /status.json
    #[arg(
        long,
        value_name = "ADDRESS:PORT",
        env = "COFFER_HTTP",
        hide_env_values = true,
        help_heading = "This machine"
    )]
    pub http: Option<String>,
    /// With --http, also at an address that other machines can reach: whoever does sees the figures
    #[arg(long, requires = "http", help_heading = "This machine")]
    pub http_anywhere: bool,
    /// Refuse to mount if the system does not let keys be locked in memory: they could be swapped out
    #[arg(long, help_heading = "This machine")]
    pub require_locked_keys: bool,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
    /// What is known of the volume from elsewhere.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// Go on from an older or another state than this machine has seen; needs an admin key, which signs it
    #[arg(long, conflicts_with = "read_only", help_heading = "Trust")]
    pub accept_rollback: bool,
    /// With --read-only, show what the bucket offers, whatever was seen before, and remember nothing of it
    #[arg(long, requires = "read_only", help_heading = "Trust")]
    pub forensic: bool,
    /// For mount(8): do everything but mount.
    #[arg(long, hide = true)]
    pub fake: bool,
    /// For mount(8): be lenient, do not write mtab.
    #[arg(short = 's', hide = true)]
    pub sloppy: bool,
    /// For mount(8): do not write mtab.
    #[arg(short = 'n', hide = true)]
    pub no_mtab: bool,
}

/// Mounts.
///
/// # Errors
/// When the volume cannot be opened or mounted; in the foreground, also when it ends badly.
pub fn run(mut args: MountArgs, log: &LogArgs) -> CommandResult {
    if let Some(remount) = Remount::parse(&args.options) {
        return if args.fake { Ok(()) } else { remount.run(&args.dir) };
    }
    let mut options = MountOptions::parse(&args.options)?;
    let mut log = log.clone();
    for (name, value) in &options.settings {
        let is_of_log = log.set(name, value);
        if !is_of_log.map_err(|why| CommandError::usage(format!("-o {name}: {why}")))? {
            args.set(name, value)?;
        }
    }
    options.kernel.read_only |= args.read_only;
    if options.kernel.read_only && args.takeover {
        return Err(CommandError::usage("a read-only mount has nothing to take over"));
    }
    let state_dir = args.state.directory()?;
    let log = log.start(Some(&state_dir.join(LOG_NAME)), !args.foreground)?;
    let point =
        fuse::check_mount_point(&args.dir, options.kernel.nonempty).map_err(|e| explain::mount(&e))?;
    cover::refuse("state folder", &state_dir, &args.dir).map_err(|error| error.hint(OTHER_STATE))?;
    if let Ok(sockets) = Registry::of_user() {
        cover::refuse("folder of its control socket", sockets.dir(), &args.dir)?;
    }
    args.bucket.url = args.bucket.absolute_url()?;
    for (what, path) in args.bucket.files()? {
        cover::refuse(what, &path, &args.dir).map_err(|error| error.hint(OTHER_FILES))?;
    }
    if args.fake {
        return Ok(());
    }
    let (factors, header) = obtain(&args.bucket, &args.unlock, &args.state)?;
    sys::raise_file_limit();
    let foreground = args.foreground;
    let plan = Plan {
        options: OpenOptions { header: Some(header), ..args.open_options(state_dir, &options.kernel)? },
        args,
        kernel: options.kernel,
        point,
        factors,
    };
    if foreground {
        return runtime::block_on_patiently(serve::run(plan, Front::Terminal(log)));
    }
    match daemon::split()? {
        Side::Front(child) => {
            drop(plan);
            match child.wait() {
                Exit::Success => Ok(()),
                exit => Err(CommandError::silent(exit)),
            }
        }
        Side::Back(readiness) => background(plan, readiness, log),
    }
}

const OTHER_STATE: &str = "choose another directory, or keep the state elsewhere with --state-dir DIR";
const OTHER_FILES: &str = "choose another directory, or keep what lets us into the bucket elsewhere and say where: --ca-file, \
AWS_CONFIG_FILE, AWS_SHARED_CREDENTIALS_FILE, or the variable that names the file";

fn background(mut plan: Plan, readiness: Readiness, log: Log) -> CommandResult {
    // Not dumpable is inherited by fork, but what keeps memory private is worth being sure of.
    sys::protect_memory();
    // Locks on memory are not inherited.
    after_fork();
    plan.factors = plan.factors.into_iter().map(Factor::moved).collect();
    let front = Front::Waiting(Some(readiness), log);
    runtime::block_on_patiently(serve::run(plan, front))
}

/// Who is told that the mount is ready.
#[derive(Debug)]
pub enum Front {
    /// The user, on standard error.
    Terminal(Log),
    /// The process that waits in the foreground.
    Waiting(Option<Readiness>, Log),
}

impl Front {
    /// Where the mount logs to.
    #[must_use]
    pub const fn log(&self) -> &Log {
        match self {
            Self::Terminal(log) | Self::Waiting(_, log) => log,
        }
    }

    /// Tells that the mount is ready.
    ///
    /// # Errors
    /// When the waiting process has gone: nobody knows of this mount then.
    pub fn ready(&mut self, message: &str) -> CommandResult {
        match self {
            Self::Terminal(_) => {
                stderr::text(message);
                supervisor::ready(message.trim_end());
                Ok(())
            }
            Self::Waiting(readiness, log) => match readiness.take() {
                Some(readiness) => readiness.ready(message, log).map_err(|error| {
                    CommandError::new(Exit::Failure, format!("cannot go to the background: {error}"))
                }),
                None => Ok(()),
            },
        }
    }

    /// Tells of an error: to the process that waits, if one still does.
    #[must_use]
    pub fn failed(&mut self, error: CommandError) -> CommandError {
        match self {
            Self::Terminal(_) => error,
            Self::Waiting(readiness, _) => match readiness.take() {
                Some(readiness) => {
                    let exit = error.exit();
                    readiness.failed(&error);
                    CommandError::silent(exit)
                }
                None => {
                    tracing::error!("{error}");
                    CommandError::silent(error.exit())
                }
            },
        }
    }
}

impl MountArgs {
    /// Takes a long flag from `-o name=value`.
    fn set(&mut self, name: &str, value: &str) -> CommandResult {
        let wrong = |why: String| CommandError::usage(format!("-o {name}: {why}"));
        if value.is_empty() != matches!(name, "require-locked-keys" | "unsigned-payload") {
            return Err(wrong(if value.is_empty() { "needs =VALUE" } else { "takes no value" }.into()));
        }
        let size = || parse_size(value).map(Some).map_err(&wrong);
        let path = || Some(PathBuf::from(value));
        match name {
            "passphrase-file" => self.unlock.passphrase_file = path(),
            "passphrase-command" => self.unlock.passphrase_command = Some(value.to_owned()),
            "key-file" => self.unlock.key_file = path(),
            "recovery-code-file" => self.unlock.recovery_code_file = path(),
            "key-slot" => {
                self.unlock.key_slot =
                    Some(value.parse().map_err(|_| wrong("is no number of a key".into()))?);
            }
            "cache-size" => self.cache_size = size()?,
            "memory" => self.memory = size()?,
            "dirty-limit" => self.dirty_limit = size()?,
            "commit-age" => self.commit_age = Some(parse_duration(value).map_err(wrong)?),
            "poll-interval" => self.poll_interval = Some(parse_duration(value).map_err(wrong)?),
            "fsync-timeout" => self.fsync_timeout = Some(parse_duration(value).map_err(wrong)?),
            "upload-limit" => self.upload_limit = Some(parse_timetable(value).map_err(wrong)?),
            "download-limit" => self.download_limit = Some(parse_timetable(value).map_err(wrong)?),
            "http" => self.http = Some(value.to_owned()),
            "heartbeat" => self.heartbeat = Some(parse_interval(value).map_err(wrong)?),
            "expect" => self.trust.expect = Some(parse_fingerprint(value).map_err(wrong)?),
            "expect-commit" => {
                self.trust.expect_commit = Some(ExpectedCommit::parse(value).map_err(wrong)?);
            }
            "max-staleness" => self.trust.max_staleness = Some(parse_duration(value).map_err(wrong)?),
            "state-dir" => self.state.state_dir = path(),
            "endpoint" => self.bucket.endpoint = Some(value.to_owned()),
            "region" => self.bucket.region = Some(value.to_owned()),
            "read-timeout" => self.bucket.read_timeout = parse_interval(value).map_err(wrong)?,
            "require-locked-keys" => self.require_locked_keys = true,
            other if self.bucket.provider.set(other, value).map_err(&wrong)? => {}
            _ => return Err(wrong("is not a setting".into())),
        }
        Ok(())
    }

    fn open_options(&self, state_dir: PathBuf, kernel: &fuse::MountOptions) -> CommandResult<OpenOptions> {
        let state_dir = Some(state_dir);
        let trust = TrustOptions {
            accept_rollback: self.accept_rollback,
            forensic: self.forensic,
            ..self.trust.options()
        };
        let (takeover, key_slot) = (self.takeover, self.unlock.key_slot);
        let mut options = OpenOptions { takeover, key_slot, state_dir, trust, ..OpenOptions::default() };
        options.vfs.heartbeat = self.heartbeat;
        options.vfs.max_staleness = self.trust.max_staleness;
        options.vfs.read_only = kernel.read_only;
        options.vfs.fsync_timeout = self.fsync_timeout;
        options.vfs.atime = kernel.atime;
        options.vfs.directory_atime = kernel.directory_atime;
        options.vfs.poll_interval = self.poll_interval.unwrap_or(options.vfs.poll_interval);
        options.vfs.commit_age = self.commit_age.unwrap_or(options.vfs.commit_age);
        budget::apply(&mut options, self.memory, self.cache_size, self.dirty_limit)?;
        Ok(options)
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};
    use crate::cli::mount_options::SETTINGS;

    const TWELVE: &str = "zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo zoo wrong";

    fn mount_args(words: &[&str]) -> MountArgs {
        let all = ["coffer", "mount", "/v", "/m"].iter().chain(words);
        match Cli::try_parse_from(all).unwrap().command {
            Command::Mount(args) => *args,
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_setting_that_fstab_may_give_is_taken() {
        for name in SETTINGS {
            let value = match name {
                "require-locked-keys" | "unsigned-payload" => "",
                "addressing" => "virtual",
                "key-slot" => "9",
                "log-to" => "journal",
                "log-format" => "json",
                "expect" => TWELVE,
                "expect-commit" => "7:00112233445566778899aabbccddeeff",
                "cache-size" | "memory" | "dirty-limit" | "upload-limit" | "download-limit" => "64M",
                "heartbeat" | "max-staleness" => "3s",
                "commit-age" | "poll-interval" | "fsync-timeout" | "read-timeout" => "3s",
                _ => "/x",
            };
            let (mut log, mut args) = (LogArgs::default(), mount_args(&[]));
            let before = format!("{log:?} {args:?}");
            let mut set = |value: &str| match log.set(name, value) {
                Ok(false) => args.set(name, value).map_err(|e| e.to_string()),
                other => other.map(|_| ()),
            };
            set(value).unwrap();
            assert!(set(if value.is_empty() { "yes" } else { "" }).is_err(), "{name}");
            assert_ne!(format!("{log:?} {args:?}"), before, "{name}");
        }
    }

    #[test]
    fn the_flags_of_mount_8_are_understood() {
        let args = mount_args(&["-s", "-n", "-v", "-o", "rw,nodev", "-o", "noatime"]);
        assert_eq!(args.options, ["rw,nodev", "noatime"]);
    }
}
