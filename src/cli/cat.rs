//! `coffer cat`: prints files of a volume without mounting it.

use std::ffi::OsString;
use std::io::{self, Write};
use std::os::unix::ffi::OsStrExt;

use super::error::{CommandResult, stdout_error};
use super::ls::no_empty_path;
use super::open::{SourceArgs, with_tree};
use super::tree::{PathErrors, Tree, path_error};
use crate::base::FileKind;
use crate::vfs::{Attr, Handle, VfsError};

/// Shown at the end of `coffer cat --help`.
pub const EXAMPLES: &str = "\
Examples:
  coffer cat s3://bucket/home notes.txt
  coffer cat /srv/volume backup.tar | tar t";

/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// Arguments of `coffer cat`.
#[derive(clap::Args, Debug)]
pub struct CatArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Files in the volume, printed one after the other
    #[arg(value_name = "PATH", required = true)]
    pub paths: Vec<OsString>,
}

/// Prints.
///
/// # Errors
/// When the volume cannot be opened, a file not be read, or standard output not be written.
pub fn run(args: &CatArgs) -> CommandResult {
    no_empty_path(&args.paths)?;
    with_tree(&args.source, async |tree| {
        let mut errors = PathErrors::default();
        for path in &args.paths {
            if let Err(error) = print_file(&tree, path.as_bytes()).await {
                errors.note(error, args.paths.len())?;
            }
        }
        errors.end()
    })
}

async fn print_file(tree: &Tree, path: &[u8]) -> CommandResult {
    let attr = tree.resolve(path, true).await?;
    if attr.kind != FileKind::Regular {
        let is_directory = attr.kind == FileKind::Directory;
        let error = if is_directory { VfsError::IsDirectory } else { VfsError::NotSupported };
        return Err(path_error(path, &error));
    }
    let handle = tree.vfs.open(attr.ino, false, false).await.map_err(|e| path_error(path, &e))?;
    let printed = print(tree, path, &attr, handle).await;
    tree.vfs.release(handle);
    printed
}

async fn print(tree: &Tree, path: &[u8], attr: &Attr, handle: Handle) -> CommandResult {
    let mut offset = 0;
    while offset < attr.size {
        let read = tree.vfs.read(handle, attr.ino, offset, CHUNK_BYTES).await;
        let bytes = read.map_err(|e| path_error(path, &e))?;
        if bytes.is_empty() {
            return Err(path_error(path, &VfsError::GoneOn));
        }
        tokio::task::block_in_place(|| io::stdout().lock().write_all(&bytes))
            .map_err(|e| stdout_error(&e))?;
        offset += bytes.len() as u64;
    }
    io::stdout().lock().flush().map_err(|e| stdout_error(&e))
}
