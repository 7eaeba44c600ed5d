//! `coffer fingerprint`: what tells a volume, and its newest commit, to be compared on another machine.

use std::io::{self, Write};
use std::path::Path;

use serde_json::Value;

use super::client::{ask, mounts};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::{SourceArgs, describe, obtain_factors};
use super::{budget, explain, runtime};
use crate::control::{MountEntry, Request};
use crate::volume::{self, ExpectedCommit, OpenOptions};

/// Shown at the end of `coffer fingerprint --help`.
pub const EXAMPLES: &str = "\
Twelve words that no other volume has. Write them down where the volume was made, and give them to --expect where it is \
opened for the first time: then no store can show another volume in its place. They hold no secret, and no key is needed to \
show them. With --commit, which needs a key, a second line tells the newest commit; given to --expect-commit on another \
machine, it shows there that the store holds back nothing that was committed here.

Examples:
  coffer fingerprint s3://bucket/home
  coffer fingerprint --commit s3://bucket/home
  coffer fingerprint ~/vault";

/// Memory for caches and buffers.
const MEMORY_BYTES: u64 = 128 * 1024 * 1024;

/// Arguments of `coffer fingerprint`.
#[derive(clap::Args, Debug)]
pub struct FingerprintArgs {
    /// The volume, or where it is mounted.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tell the newest commit too
    #[arg(long)]
    pub commit: bool,
}

/// Shows it.
///
/// # Errors
/// There is no volume, or it cannot be opened.
pub fn run(args: &FingerprintArgs) -> CommandResult {
    let (words, commit) = match mounted(args)? {
        Some(entry) => of_mount(&entry, args.commit)?,
        None => {
            let words =
                describe(&args.source.bucket, &args.source.state)?.identity().fingerprint().to_string();
            (words, args.commit.then(|| newest(args)).transpose()?)
        }
    };
    let text = commit.map_or_else(|| format!("{words}\n"), |commit| format!("{words}\n{commit}\n"));
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

/// The mount that is meant by its directory.
fn mounted(args: &FingerprintArgs) -> CommandResult<Option<MountEntry>> {
    let Ok(here) = Path::new(&args.source.bucket.url).canonicalize() else { return Ok(None) };
    Ok(mounts(&[])?.into_iter().find(|entry| entry.mountpoint == here))
}

/// What a mount says of itself.
fn of_mount(entry: &MountEntry, with_commit: bool) -> CommandResult<(String, Option<String>)> {
    let silent = || {
        let why = format!("the mount at {} does not tell its fingerprint", entry.mountpoint.display());
        CommandError::new(Exit::Failure, why).hint("ask with the volume's URL instead")
    };
    if entry.fingerprint.is_empty() {
        return Err(silent());
    }
    if !with_commit {
        return Ok((entry.fingerprint.clone(), None));
    }
    let answer = runtime::block_on(async { ask(entry, &Request::Status).await })?;
    let number = answer.pointer("/volume/commit").and_then(Value::as_u64);
    let hash = answer.pointer("/volume/head").and_then(Value::as_str);
    let (number, hash) = number.zip(hash).ok_or_else(silent)?;
    Ok((entry.fingerprint.clone(), Some(format!("{number}:{hash}"))))
}

fn newest(args: &FingerprintArgs) -> CommandResult<String> {
    let factors = obtain_factors(&args.source.bucket, &args.source.unlock, &args.source.state)?;
    let state_dir = Some(args.source.state.directory()?);
    runtime::block_on(async {
        let bucket = args.source.bucket.open()?;
        let (trust, key_slot) = (args.source.trust.options(), args.source.unlock.key_slot);
        let mut options = OpenOptions { state_dir, key_slot, trust, ..OpenOptions::default() };
        options.vfs.read_only = true;
        budget::apply(&mut options, Some(args.source.memory.unwrap_or(MEMORY_BYTES)), None, None)?;
        let opened =
            volume::open(bucket, &factors, options).await.map_err(|e| explain::volume(&e, &factors))?;
        let (number, hash) = opened.vfs.head();
        if let Err(error) = opened.close().await {
            tracing::debug!(%error, "closing after reading");
        }
        Ok(ExpectedCommit::show(number, &hash))
    })
}
