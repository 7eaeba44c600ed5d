//! `coffer import`: copies a local tree into a volume without mounting it, and goes on where an earlier run ended.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::insert::{InsertOptions, Insertion};
use super::ls::no_empty_path;
use super::open::{SourceArgs, greeting, obtain_factors};
use super::runtime::{self, Stop};
use super::stderr;
use super::tree::Tree;
use super::{budget, explain};
use crate::volume::{self, OpenOptions};

/// Shown at the end of `coffer import --help`.
pub const EXAMPLES: &str = "\
What is in DIR is in PATH afterwards, as rsync -aHAX would have it: times, permissions, owners, hard and symbolic links, \
holes, extended attributes, ACLs, pipes, sockets and devices. A file that is there already with the same size and \
modification time is not read again, so that a run that was broken off is taken up by the same command. Nothing that is \
only in PATH is removed, but a file gives way to a directory of its name, and an empty directory to a file. A file has its name only when it is whole.

Ctrl-C stops it: what is whole is brought into the bucket, and the volume is let go. The same command goes on from there.

Nobody else may be writing to the volume meanwhile; a mount of it can be written to through its directory.

Examples:
  coffer import s3://bucket/home ~/documents /documents
  coffer import s3://bucket/home notes.txt /documents/
  coffer import --jobs 32 /srv/volume /home /";

/// Arguments of `coffer import`.
#[derive(clap::Args, Debug)]
pub struct ImportArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The local directory whose contents are copied, or a file
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// The directory in the volume that takes them; made if it is not there. For a file also its new name
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// Files copied at the same time
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// Imports.
///
/// # Errors
/// When the volume cannot be opened for writing, the directory cannot be read, or any file was not copied.
pub fn run(args: &ImportArgs) -> CommandResult {
    no_empty_path(std::slice::from_ref(&args.path))?;
    let is_directory = is_directory(&args.dir).map_err(|e| CommandError::reading(&args.dir, &e))?;
    let factors = obtain_factors(&args.source.bucket, &args.source.unlock, &args.source.state)?;
    let state_dir = args.source.state.directory()?;
    runtime::block_on_calmly(abrupt(), async |stop| {
        let bucket = args.source.bucket.open()?;
        let trust = args.source.trust.options();
        let mut options = OpenOptions {
            state_dir: Some(state_dir),
            key_slot: args.source.unlock.key_slot,
            trust: trust.clone(),
            ..OpenOptions::default()
        };
        budget::apply(&mut options, args.source.memory, None, None)?;
        let opened =
            volume::open(bucket, &factors, options).await.map_err(|e| explain::volume(&e, &factors))?;
        drop(factors);
        stderr::text(greeting(&opened, &trust));
        let copied = import(args, is_directory, Tree { vfs: opened.vfs.clone() }, stop).await;
        // What was copied counts, whatever became of the rest.
        let closed = opened.close().await.map_err(|e| explain::volume(&e, &[]));
        let summary = copied?;
        closed?;
        stderr::line(format_args!("imported {summary}"));
        Ok(())
    })
}

/// What is said after a second Ctrl-C.
fn abrupt() -> CommandError {
    let message = "ended at once: what was not in the bucket yet is not in the volume";
    CommandError::new(Exit::Interrupted, message).hint(
        "the same command goes on from there; until then, other machines need `coffer mount --takeover`",
    )
}

/// Whether it is a directory that can be read, or leads to one, and no file.
fn is_directory(from: &Path) -> std::io::Result<bool> {
    match from.metadata() {
        Ok(about) if about.is_dir() => std::fs::read_dir(from).map(|_| true),
        _ => from.symlink_metadata().map(|_| false),
    }
}

async fn import(args: &ImportArgs, is_directory: bool, tree: Tree, stop: Stop) -> CommandResult<String> {
    let mut insertion = Insertion::new(tree, InsertOptions { jobs: args.jobs.into(), stop });
    if is_directory {
        let top = insertion.directory(args.path.as_bytes()).await?;
        insertion.copy(&args.dir, top).await;
    } else {
        insertion.copy_alone(&args.dir, args.path.as_bytes()).await?;
    }
    insertion.finish().await
}
