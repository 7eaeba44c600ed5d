//! `coffer sync`: waits until everything written so far is in the bucket.

use std::path::PathBuf;

use super::client::{ask, mounts};
use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::runtime;
use super::stderr;
use crate::control::Request;

/// Shown at the end of `coffer sync --help`.
pub const EXAMPLES: &str = "\
sync(1) cannot reach a filesystem like this one; this does what it promises. Without DIR, all of your mounts are synced. \
During an outage it waits; Ctrl-C ends the waiting, not the saving.

Examples:
  coffer sync
  coffer sync ~/vault/projects";

/// Arguments of `coffer sync`.
#[derive(clap::Args, Debug)]
pub struct SyncArgs {
    /// Mount points, or anything inside a mount
    #[arg(value_name = "DIR")]
    pub points: Vec<PathBuf>,
}

/// Syncs.
///
/// # Errors
/// When a mount does not answer, or something could not be saved.
pub fn run(args: &SyncArgs) -> CommandResult {
    let entries = mounts(&args.points)?;
    if entries.is_empty() {
        return Err(CommandError::new(Exit::NotMounted, "no volume is mounted"));
    }
    runtime::block_on(async {
        for entry in &entries {
            ask(entry, &Request::Sync).await?;
            stderr::line(format_args!("{}: everything is in the bucket", entry.mountpoint.display()));
        }
        Ok(())
    })
}
