//! `coffer export`: copies a tree out of a volume, faithful in every attribute.

use std::ffi::OsString;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::extract::{ExtractOptions, Extraction, destination, root_of};
use super::local::Keep;
use super::ls::{no_empty_path, printable};
use super::open::{SourceArgs, with_tree_calmly};
use super::stderr;
use crate::base::{FileKind, Ino};

/// Shown at the end of `coffer export --help`.
pub const EXAMPLES: &str = "\
DIR must be new or empty. Times, permissions, hard and symbolic links, holes, extended attributes, \
ACLs, pipes and sockets are kept; owners and devices too when run as root. What cannot be kept is said, file by file.

Ctrl-C stops it and leaves files that are whole.

Examples:
  coffer export s3://bucket/home / /mnt/restore
  coffer export /srv/volume /projects/thesis ./thesis";

/// Arguments of `coffer export`.
#[derive(clap::Args, Debug)]
pub struct ExportArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// The directory in the volume
    #[arg(value_name = "PATH")]
    pub path: OsString,
    /// The local directory that takes its place: new or empty
    #[arg(value_name = "DIR")]
    pub dir: PathBuf,
    /// Files copied at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// How to go on after a stop.
const AGAIN: &str = "begin anew with a new or empty directory";

/// What is said after a second Ctrl-C.
fn abrupt() -> CommandError {
    let message = "ended at once: names that begin with .coffer-partial- are files that are not whole";
    CommandError::new(Exit::Interrupted, message).hint(AGAIN)
}

/// Exports.
///
/// # Errors
/// When the volume cannot be opened, the directory is in use, or any file was not copied.
pub fn run(args: &ExportArgs) -> CommandResult {
    no_empty_path(std::slice::from_ref(&args.path))?;
    check_destination(&args.dir)?;
    let dir = destination(&args.dir)?;
    let root = root_of(&dir)?;
    with_tree_calmly(&args.source, abrupt(), async |tree, stop| {
        let path = args.path.as_bytes();
        let attr = tree.resolve(path, true).await?;
        if attr.kind != FileKind::Directory {
            let message = format!("{} is not a directory", printable(path));
            return Err(CommandError::new(Exit::NoSuchPath, message)
                .hint("copy single files with `coffer cp URL PATH DEST`"));
        }
        let options = ExtractOptions {
            work: "export",
            keep: Keep::everything(),
            replace: false,
            jobs: args.jobs.into(),
            stop,
        };
        let stored = tree.vfs.status().stored_bytes;
        let mut extraction = Extraction::new(tree, root, options);
        if attr.ino == Ino::ROOT {
            extraction.expect(stored);
        }
        extraction.copy(attr, dir).await;
        let summary = extraction.finish(AGAIN).await?;
        stderr::line(format_args!("exported {summary}"));
        Ok(())
    })
}

/// Refuses a directory in which something might be overwritten.
///
/// # Errors
/// It is not empty, or cannot be made.
pub fn check_destination(dir: &Path) -> CommandResult {
    match std::fs::read_dir(dir) {
        Ok(mut entries) => match entries.next() {
            None => Ok(()),
            Some(_) => Err(CommandError::new(Exit::LocalWrite, format!("{} is not empty", dir.display()))
                .hint("name a new or empty directory, so that nothing is overwritten")),
        },
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            let parent = dir.parent().filter(|parent| !parent.as_os_str().is_empty());
            match parent {
                Some(parent) if !parent.is_dir() => {
                    Err(CommandError::new(Exit::LocalWrite, format!("no directory {}", parent.display())))
                }
                _ => Ok(()),
            }
        }
        Err(error) => Err(CommandError::writing(dir, &error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_with_anything_in_it_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        assert!(check_destination(dir.path()).is_ok());
        assert!(check_destination(&dir.path().join("new")).is_ok());
        assert!(check_destination(&dir.path().join("no/parent")).is_err());
        std::fs::write(dir.path().join("f"), "").unwrap();
        assert_eq!(check_destination(dir.path()).unwrap_err().exit(), Exit::LocalWrite);
        assert!(check_destination(&dir.path().join("f")).is_err());
    }
}
