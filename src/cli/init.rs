//! `coffer init`: creates a volume, never over an existing one, and shows its recovery code once.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::ValueEnum;

use super::code_file::{self, CodeFile, hand_over};
use super::error::CommandResult;
use super::factors::FirstKeyArgs;
use super::open::{BucketArgs, StateArgs};
use super::stderr;
use super::units::parse_size;
use super::{explain, runtime};
use crate::base::{OsEntropy, SystemClock};
use crate::keys::{Compression, KdfCost, NewVolume};
use crate::store::Bucket;
use crate::vault::header;
use crate::volume::{self, Created, NewVolumeSpec, VolumeError};

/// Shown at the end of `coffer init --help`.
pub const EXAMPLES: &str = "\
The recovery code opens the volume if passphrase or key file are lost. It is printed once, on standard output, and \
stored nowhere else.

Examples:
  coffer init s3://my-bucket/home
  coffer init --passphrase-file /etc/coffer/vault.pass --save-recovery-code code.txt /srv/volume
  head -c 64 /dev/urandom > vault.key; chmod 600 vault.key
  coffer init --key-file vault.key --passphrase az://container/vault";

/// Arguments of `coffer init`.
#[derive(clap::Args, Debug)]
pub struct InitArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// The first key.
    #[command(flatten)]
    pub key: FirstKeyArgs,
    /// Compress blocks before they are sealed; then stored sizes tell the provider a little about contents
    #[arg(long, value_enum, default_value_t = CompressionArg::None, env = "COFFER_COMPRESSION", hide_env_values = true, help_heading = "Volume")]
    pub compression: CompressionArg,
    /// Refuse to store more than this [default: no limit]
    #[arg(long, value_name = "SIZE", value_parser = parse_size, help_heading = "Volume")]
    pub quota: Option<u64>,
    /// Make it where this machine has seen another volume, of which nothing is left there
    #[arg(long, help_heading = "Volume")]
    pub anew: bool,
    /// Write the recovery code to this new file instead of standard output
    #[arg(long, value_name = "FILE", help_heading = "Volume")]
    pub save_recovery_code: Option<PathBuf>,
    /// How costly a guess at the passphrase is.
    #[command(flatten)]
    pub cost: CostArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
}

/// How costly it is to try a passphrase.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
pub struct CostArgs {
    /// Stretch passphrases with scrypt at N = 2^LOG_N (15 to 20) instead of about a second on this machine;
    /// less than 17 is for tests
    #[arg(long, value_name = "LOG_N", value_parser = clap::value_parser!(u8).range(15..=20), hide_short_help = true, help_heading = "Volume")]
    pub kdf_log_n: Option<u8>,
}

impl CostArgs {
    /// The cost as the keys room knows it.
    #[must_use]
    pub fn cost(self) -> KdfCost {
        self.kdf_log_n.map_or(KdfCost::Calibrated, |log_n| KdfCost::Fixed { log_n })
    }
}

/// How blocks are compressed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum CompressionArg {
    /// Not at all: strictest, and fastest to write
    None,
    /// LZ4: fast
    Lz4,
    /// Zstandard: smaller
    Zstd,
}

/// Creates the volume.
///
/// # Errors
/// When one is there already, the bucket cannot hold one, or no key can be had.
pub fn run(args: &InitArgs) -> CommandResult {
    code_file::refuse_existing(args.save_recovery_code.as_deref())?;
    runtime::block_on_alone(async {
        let bucket = open(args)?;
        refuse_existing(&bucket, args).await?;
        bucket.probe().await.map_err(|e| explain::store(&e))
    })?;
    let factors = args.key.obtain()?;
    let code_file = CodeFile::create(args.save_recovery_code.as_deref())?;
    let (identity, url) = runtime::block_on(async {
        let bucket = open(args)?;
        let url = bucket.display_url().to_owned();
        let spec = NewVolumeSpec {
            header: NewVolume { compression: args.compression.into(), kdf_cost: args.cost.cost() },
            quota_bytes: args.quota.unwrap_or(0),
            owner: (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw()),
        };
        let clock = Arc::new(SystemClock::default());
        let prepared = volume::prepare(&bucket, &spec, &factors, Arc::new(OsEntropy), clock);
        let prepared = prepared.await.map_err(|e| explain::volume(&e, &factors))?;
        let handed = match hand_over(prepared.recovery_code(), code_file, "the volume is there") {
            Ok(handed) => handed,
            Err(error) => {
                prepared.abandon().await;
                return Err(error);
            }
        };
        let created = match prepared.finish().await {
            Ok(created) => created,
            Err(error) => {
                let is_another = matches!(error, VolumeError::Exists { .. });
                return Err(handed.after(explain::volume(&error, &factors), is_another, &url));
            }
        };
        remember(args, &created, &bucket);
        Ok((created.identity, url))
    })?;
    stderr::line(format_args!("Created the volume {} at {url}", identity.volume));
    stderr::line(format_args!(
        "Its fingerprint, for `--expect` on other machines:\n  {}",
        identity.fingerprint()
    ));
    if url == "memory:" {
        stderr::line("It was in this process's memory and is gone now.");
    } else {
        stderr::line(format_args!("Mount it with: coffer mount {url} DIR"));
    }
    Ok(())
}

fn open(args: &InitArgs) -> CommandResult<Bucket> {
    // The directory itself may be new; one that is missing above it looks like a disk that is not mounted.
    let url = args.bucket.absolute_url()?;
    let local = Path::new(url.strip_prefix("file://").unwrap_or(&url));
    let create = local.is_absolute() && local.parent().is_some_and(Path::is_dir);
    args.bucket.open_with(create)
}

/// Has this machine know the volume. Where that cannot be, the first mount makes its acquaintance.
fn remember(args: &InitArgs, created: &Created, bucket: &Bucket) {
    let noted = args.state.directory().map_err(|e| e.to_string()).and_then(|state| {
        created.remember(bucket, &state, &OsEntropy).map_err(|e| super::error::sentence(&e))
    });
    if let Err(why) = noted {
        stderr::line(format_args!("This machine cannot remember the volume: {why}"));
    }
}

async fn refuse_existing(bucket: &Bucket, args: &InitArgs) -> CommandResult {
    let url = bucket.display_url();
    if header::exists(bucket).await.map_err(|e| explain::vault(&e, url))? {
        return Err(explain::volume_exists(url));
    }
    // Where nothing is remembered, or not to be read, nothing speaks against it.
    let state = args.state.place().ok().filter(|_| !args.anew);
    match volume::without_header(bucket, state.as_deref()) {
        gone @ VolumeError::HeaderGone { .. } => Err(explain::volume(&gone, &[])),
        _ => Ok(()),
    }
}

impl From<CompressionArg> for Compression {
    fn from(arg: CompressionArg) -> Self {
        match arg {
            CompressionArg::None => Self::None,
            CompressionArg::Lz4 => Self::Lz4,
            CompressionArg::Zstd => Self::Zstd,
        }
    }
}
