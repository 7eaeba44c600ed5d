//! Opens what a URL names: the bucket, the header with what it asks for, and the tree of files.

use std::path::{Path, PathBuf};
use std::time::Duration;

use bytes::Bytes;
use clap::Args;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::factors::UnlockArgs;
use super::runtime::{self, Stop};
use super::stderr;
use super::store_options::ProviderArgs;
use super::tree::Tree;
use super::units::{parse_duration, parse_interval, parse_size};
use super::{budget, explain, logging, outage};
use crate::keys::{self, Factor, Fingerprint, Header, Slot};
use crate::store::fault::FaultPlan;
use crate::store::{self, Bucket, StoreOptions};
use crate::vault::{VaultError, header};
use crate::volume::{self, ExpectedCommit, OpenOptions, Opened, TrustOptions};

/// Memory for caches and buffers of commands that do not mount.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// A bucket and how to talk to it.
#[derive(Args, Clone, Debug)]
pub struct BucketArgs {
    /// Where the volume is: s3://BUCKET/PREFIX, az://, gs://, file:///DIR, a path, or memory:
    #[arg(value_name = "URL")]
    pub url: String,
    /// The store's address, if not the provider's own: https://HOST[:PORT]
    #[arg(
        long,
        value_name = "ADDRESS",
        env = "COFFER_ENDPOINT",
        hide_env_values = true,
        help_heading = "Store"
    )]
    pub endpoint: Option<String>,
    /// The store's region
    #[arg(long, value_name = "NAME", env = "COFFER_REGION", hide_env_values = true, help_heading = "Store")]
    pub region: Option<String>,
    /// How to speak to the store.
    #[command(flatten)]
    pub provider: ProviderArgs,
    /// Give up reading after this long without an answer
    #[arg(long, value_name = "TIME", env = "COFFER_READ_TIMEOUT", value_parser = parse_interval, default_value = "60s", hide_env_values = true, help_heading = "Store")]
    pub read_timeout: Duration,
    /// For developers: what shall go wrong with the store
    #[arg(long = "fault", value_name = "SPEC", hide = true)]
    pub faults: Option<FaultPlan>,
}

/// A volume to read, and how to unlock it.
#[derive(Args, Clone, Debug)]
pub struct SourceArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The keys.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What is known of the volume from elsewhere.
    #[command(flatten)]
    pub trust: TrustArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
    /// Memory for caches and buffers
    #[arg(long, value_name = "SIZE", env = "COFFER_MEMORY", value_parser = parse_size, hide_env_values = true, help_heading = "This machine")]
    pub memory: Option<u64>,
}

/// What is known of the volume from elsewhere.
#[derive(Args, Clone, Debug, Default)]
pub struct TrustArgs {
    /// The volume must have this fingerprint, as `coffer init` and `coffer fingerprint` show it
    #[arg(long, value_name = "WORDS", env = "COFFER_EXPECT", value_parser = parse_fingerprint, hide_env_values = true, help_heading = "Trust")]
    pub expect: Option<Fingerprint>,
    /// Its history must have this commit, as `coffer fingerprint --commit` shows it
    #[arg(long, value_name = "NUMBER:HASH", value_parser = ExpectedCommit::parse, help_heading = "Trust")]
    pub expect_commit: Option<ExpectedCommit>,
    /// Its newest commit must not be older than this; idle writers make none without --heartbeat
    #[arg(long, value_name = "TIME", env = "COFFER_MAX_STALENESS", value_parser = parse_duration, hide_env_values = true, help_heading = "Trust")]
    pub max_staleness: Option<Duration>,
}

impl TrustArgs {
    /// As the volume room knows it.
    #[must_use]
    pub fn options(&self) -> TrustOptions {
        let Self { expect, expect_commit, max_staleness } = self.clone();
        TrustOptions { expect, expect_commit, max_staleness, ..TrustOptions::default() }
    }
}

/// Reads a fingerprint.
///
/// # Errors
/// How it was mistyped.
pub fn parse_fingerprint(text: &str) -> Result<Fingerprint, String> {
    Fingerprint::parse(text).map_err(|error| error.to_string())
}

/// What is said when this machine sees a volume for the first time, or remembers less of it than it did; nothing
/// otherwise.
#[must_use]
pub fn greeting(opened: &Opened, trust: &TrustOptions) -> String {
    if opened.is_copy {
        return "The state folder is an old copy: this machine has made commits that it does not remember, \
                and goes on as another one\n"
            .to_owned();
    }
    match opened.is_first_contact && trust.expect.is_none() {
        true => format!(
            "First contact with this volume; whether it is the right one, its fingerprint tells:\n  {}\n",
            opened.identity.fingerprint()
        ),
        false => String::new(),
    }
}

/// Where this machine remembers the volumes it has seen.
#[derive(Args, Clone, Debug, Default)]
pub struct StateArgs {
    /// Where this machine remembers the last state it saw of each volume, to notice a rollback
    #[arg(
        long,
        value_name = "DIR",
        env = "COFFER_STATE_DIR",
        hide_env_values = true,
        help_heading = "This machine"
    )]
    pub state_dir: Option<PathBuf>,
}

impl StateArgs {
    /// The directory: as given, or the user's own by the XDG rules, or the system's for a superuser without a home.
    ///
    /// # Errors
    /// When there is no home to put it in, it cannot be created, or others can write to it.
    pub fn directory(&self) -> CommandResult<PathBuf> {
        let dir = self.place()?;
        private_dir(&dir).map_err(|e| {
            CommandError::new(
                Exit::StateDir,
                format!("cannot use the state directory {}: {e}", dir.display()),
            )
            .hint("give another one with --state-dir DIR")
            .maybe_hint(foreign_home())
        })?;
        Ok(dir)
    }

    /// Where it is, or would be.
    ///
    /// # Errors
    /// When there is no home to put it in.
    pub fn place(&self) -> CommandResult<PathBuf> {
        let absolute =
            |name: &str| std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute());
        match (&self.state_dir, absolute("XDG_STATE_HOME"), absolute("HOME")) {
            (Some(dir), _, _) => logging::absolute(dir),
            (None, Some(state), _) => Ok(state.join("coffer")),
            (None, None, Some(home)) => Ok(home.join(".local/state/coffer")),
            (None, None, None) if rustix::process::geteuid().is_root() => {
                Ok(PathBuf::from("/var/lib/coffer"))
            }
            (None, None, None) => {
                Err(CommandError::new(Exit::StateDir, "there is no home directory to keep state in")
                    .hint("give --state-dir DIR"))
            }
        }
    }
}

/// What is said where a program that changes users has left the home of the user before.
fn foreign_home() -> Option<String> {
    use std::os::unix::fs::MetadataExt;
    let home = std::env::var_os("HOME").map(PathBuf::from)?;
    let owner = std::fs::metadata(&home).ok()?.uid();
    let is_foreign = owner != rustix::process::geteuid().as_raw();
    is_foreign.then(|| format!("HOME is {}, which is another user's; `sudo -H` sets it", home.display()))
}

/// Makes sure of a directory that nobody else can put files into.
fn private_dir(dir: &Path) -> std::io::Result<()> {
    use std::os::unix::fs::{DirBuilderExt, MetadataExt};
    std::fs::DirBuilder::new().recursive(true).mode(0o700).create(dir)?;
    let about = std::fs::metadata(dir)?;
    if about.uid() != rustix::process::geteuid().as_raw() {
        return Err(std::io::Error::other(format!("it belongs to another user (uid {})", about.uid())));
    }
    if about.mode() & 0o022 != 0 {
        let mode = about.mode() & 0o777;
        return Err(std::io::Error::other(format!("other users can write to it (mode {mode:03o})")));
    }
    let probe = dir.join(format!(".probe-{}", std::process::id()));
    std::fs::write(&probe, b"")?;
    std::fs::remove_file(&probe)
}

impl BucketArgs {
    /// The URL with a bare path made absolute, so that it stays true when the process leaves its directory.
    ///
    /// # Errors
    /// When the URL is empty or has a scheme only in the way of other programs, a word names nothing that there is, or
    /// the current directory is gone.
    pub fn absolute_url(&self) -> CommandResult<String> {
        if self.url.is_empty() {
            return Err(CommandError::usage("the URL is empty"));
        }
        if let Some((scheme, rest)) = scheme_of(&self.url) {
            // Those that may stand without `//` the store room reads.
            if rest.starts_with("//") || matches!(scheme, "memory" | "file") {
                return Ok(self.url.clone());
            }
            return Err(CommandError::usage(format!(
                "`{scheme}:` has no `//` after it: a bucket is s3://BUCKET/PREFIX, az://CONTAINER/PREFIX or \
                 gs://BUCKET/PREFIX"
            ))
            .hint("a directory of that name is written with ./ before it"));
        }
        if !self.url.contains('/') && !Path::new(&self.url).exists() {
            let message = format!(
                "`{}` does not exist: it is neither the name of a volume nor a directory here",
                self.url
            );
            return Err(CommandError::new(Exit::BucketMissing, message).hint(format!(
                "`coffer config list` lists the volumes that have a name; for a directory that `coffer init` \
                 is to make write ./{}",
                self.url
            )));
        }
        let path = logging::absolute(self.url.as_ref())?;
        path.into_os_string()
            .into_string()
            .map_err(|_| CommandError::usage("the path of the volume is not UTF-8; use another one"))
    }

    /// Opens the bucket.
    ///
    /// # Errors
    /// When the URL is no bucket's, or the store cannot be set up.
    pub fn open(&self) -> CommandResult<Bucket> {
        self.open_with(false)
    }

    /// Opens the bucket; makes the directory of a local one if `create`.
    ///
    /// # Errors
    /// As [`Self::open`].
    pub fn open_with(&self, create: bool) -> CommandResult<Bucket> {
        store::open(&self.absolute_url()?, &self.store_options(create)?).map_err(|e| explain::store(&e))
    }

    /// The files that let us into the bucket, each with what it is.
    ///
    /// # Errors
    /// When the URL is no bucket's.
    pub fn files(&self) -> CommandResult<Vec<(&'static str, PathBuf)>> {
        let (url, options) = (self.absolute_url()?, self.store_options(false)?);
        store::files(&url, &options).map_err(|e| explain::store(&e))
    }

    fn store_options(&self, create: bool) -> CommandResult<StoreOptions> {
        let mut options = StoreOptions {
            endpoint: self.endpoint.clone(),
            region: self.region.clone(),
            read_timeout: self.read_timeout,
            create,
            faults: self.faults.clone(),
            ..StoreOptions::default()
        };
        self.provider.apply(&mut options)?;
        Ok(options)
    }

    /// Reads the newest header: which one it is, and its bytes.
    ///
    /// # Errors
    /// When there is none, or the bucket cannot be read.
    pub async fn read_header(&self, bucket: &Bucket) -> CommandResult<(u64, Bytes)> {
        header::read_newest(bucket).await.map_err(|e| explain::vault(&e, bucket.display_url()))
    }
}

/// What may be a scheme, and what follows its colon; `None` for a path.
fn scheme_of(url: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = url.split_once(':')?;
    let is_scheme = scheme.starts_with(|c: char| c.is_ascii_alphabetic())
        && scheme.chars().all(|c| c.is_ascii_alphanumeric() || "+-._".contains(c));
    is_scheme.then_some((scheme, rest))
}

/// As [`obtain`], for those who read the header again.
///
/// # Errors
/// As [`obtain`].
pub fn obtain_factors(
    bucket: &BucketArgs,
    unlock: &UnlockArgs,
    state: &StateArgs,
) -> CommandResult<Vec<Factor>> {
    obtain(bucket, unlock, state).map(|(factors, _)| factors)
}

/// Looks at the header before asking for anything, then obtains what unlocks it. Gives the header as well: its number, and its
/// bytes. Leaves no thread behind.
///
/// # Errors
/// When there is no volume, its header cannot be read, or a factor cannot be had.
pub fn obtain(
    bucket: &BucketArgs,
    unlock: &UnlockArgs,
    state: &StateArgs,
) -> CommandResult<(Vec<Factor>, (u64, Bytes))> {
    let (header, read) = newest_header(bucket, state)?;
    let is_tried = |slot: &&Slot| unlock.key_slot.is_none_or(|only| slot.id == only);
    let slots: Vec<_> = header.slots.iter().filter(is_tried).map(|slot| slot.factors.clone()).collect();
    if let (Some(slot), true) = (unlock.key_slot, slots.is_empty()) {
        return Err(CommandError::new(Exit::WrongKey, format!("the volume has no key {slot}"))
            .hint("`coffer key list URL` shows the keys and their numbers"));
    }
    Ok((unlock.obtain(&slots)?, read))
}

/// What the header says without a key.
///
/// # Errors
/// When there is no volume, or none any more where the state folder knows of one, or its header cannot be read.
pub fn describe(args: &BucketArgs, state: &StateArgs) -> CommandResult<Header> {
    newest_header(args, state).map(|(header, _)| header)
}

fn newest_header(args: &BucketArgs, state: &StateArgs) -> CommandResult<(Header, (u64, Bytes))> {
    runtime::block_on_alone(async {
        let bucket = args.open()?;
        let read = outage::told(&bucket, header::read_newest(&bucket)).await;
        let (number, bytes) = read.map_err(|error| match (error, state.place()) {
            (VaultError::NoHeader, Ok(state)) => {
                explain::volume(&volume::without_header(&bucket, Some(&state)), &[])
            }
            (error, _) => explain::vault(&error, bucket.display_url()),
        })?;
        let described = keys::describe(&bytes);
        let described = described.and_then(|header| header.check_number(number).map(|()| header));
        let header = described.map_err(|e| explain::keys(&e, &[]))?;
        Ok((header, (number, bytes)))
    })
}

/// Opens a volume for reading, runs `work` on its tree, and closes it.
///
/// # Errors
/// When the volume cannot be opened; those of `work`.
pub fn with_tree(source: &SourceArgs, work: impl AsyncFnOnce(Tree) -> CommandResult) -> CommandResult {
    let reading = Reading::prepare(source)?;
    runtime::block_on(reading.run(source, work))
}

/// The same for work that stops at the first Ctrl-C by itself, and that the second ends with `abrupt`.
///
/// # Errors
/// As [`with_tree`].
pub fn with_tree_calmly(
    source: &SourceArgs,
    abrupt: CommandError,
    work: impl AsyncFnOnce(Tree, Stop) -> CommandResult,
) -> CommandResult {
    let reading = Reading::prepare(source)?;
    runtime::block_on_calmly(abrupt, async |stop| {
        reading.run(source, async |tree| work(tree, stop).await).await
    })
}

/// What is obtained before there are threads.
struct Reading {
    factors: Vec<Factor>,
    header: (u64, Bytes),
    state_dir: PathBuf,
}

impl Reading {
    fn prepare(source: &SourceArgs) -> CommandResult<Self> {
        let (factors, header) = obtain(&source.bucket, &source.unlock, &source.state)?;
        Ok(Self { factors, header, state_dir: source.state.directory()? })
    }

    async fn run(self, source: &SourceArgs, work: impl AsyncFnOnce(Tree) -> CommandResult) -> CommandResult {
        let Self { factors, header, state_dir } = self;
        let memory = source.memory.unwrap_or(MEMORY_BYTES);
        let bucket = source.bucket.open()?;
        let trust = source.trust.options();
        let (state_dir, header, key_slot) = (Some(state_dir), Some(header), source.unlock.key_slot);
        let mut options = OpenOptions { state_dir, header, key_slot, trust, ..OpenOptions::default() };
        options.vfs.read_only = true;
        // What a writer does meanwhile is not mixed in.
        options.vfs.stays = true;
        budget::apply(&mut options, Some(memory), None, None)?;
        let trust = options.trust.clone();
        let opening = volume::open(bucket.clone(), &factors, options);
        let opened = outage::told(&bucket, opening).await.map_err(|e| explain::volume(&e, &factors))?;
        drop(factors);
        stderr::text(greeting(&opened, &trust));
        let result = outage::told(&bucket, work(Tree { vfs: opened.vfs.clone() })).await;
        if let Err(error) = opened.close().await {
            tracing::debug!(%error, "closing after reading");
        }
        result
    }
}
