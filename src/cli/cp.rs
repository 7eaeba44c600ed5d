//! `coffer cp`: copies files out of a volume without mounting it.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::extract::{ExtractOptions, Extraction, destination, root_of};
use super::local::Keep;
use super::ls::{no_empty_path, printable};
use super::open::{SourceArgs, with_tree_calmly};
use super::stderr;
use super::tree::Tree;
use crate::base::FileKind;
use crate::vfs::Attr;

/// Shown at the end of `coffer cp --help`.
pub const EXAMPLES: &str = "\
Every SOURCE is a path in the volume; DEST is a local path. Existing files are replaced, \
each in one step; what is no regular file is not. To copy a tree with owners, extended attributes and ACLs, use `coffer export`.

Examples:
  coffer cp s3://bucket/home letters/2024.pdf .
  coffer cp -r s3://bucket/home photos documents /mnt/restore/";

/// Arguments of `coffer cp`.
#[derive(clap::Args, Debug)]
pub struct CpArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Paths in the volume, then the local file or directory to copy to
    #[arg(value_name = "SOURCE... DEST", required = true, num_args = 2..)]
    pub paths: Vec<OsString>,
    /// Copy directories and all that is in them
    #[arg(short, long)]
    pub recursive: bool,
    /// Keep times and permissions
    #[arg(short, long)]
    pub preserve: bool,
    /// Files copied at the same time
    #[arg(long, value_name = "N", default_value_t = 8, value_parser = clap::value_parser!(u8).range(1..=64))]
    pub jobs: u8,
}

/// How to go on after a stop.
const AGAIN: &str = "the same command begins anew and replaces what is there";

/// What is said after a second Ctrl-C.
fn abrupt() -> CommandError {
    let message = "ended at once: names that begin with .coffer-partial- are files that are not whole";
    CommandError::new(Exit::Interrupted, message).hint(AGAIN)
}

/// Copies.
///
/// # Errors
/// When the volume cannot be opened or any file was not copied.
pub fn run(args: &CpArgs) -> CommandResult {
    no_empty_path(&args.paths)?;
    let Some((dest, sources)) = args.paths.split_last() else {
        return Err(CommandError::usage("cp needs a source and a destination"));
    };
    let dest = destination(Path::new(dest))?;
    let into = dest.is_dir();
    if !into && dest.symlink_metadata().is_ok_and(|there| !there.is_file()) {
        let message =
            format!("{} is no regular file, and would be lost", printable(dest.as_os_str().as_bytes()));
        return Err(CommandError::new(Exit::LocalWrite, message)
            .hint("`coffer cat` writes what is in a file to standard output"));
    }
    if !into && sources.len() > 1 {
        let message =
            format!("{} is not a directory, so that only one file can be copied there", dest.display());
        return Err(CommandError::usage(message));
    }
    let parent = dest.parent().filter(|parent| !parent.as_os_str().is_empty());
    if let Some(parent) = parent.filter(|parent| !into && !parent.is_dir()) {
        return Err(CommandError::new(Exit::LocalWrite, format!("no directory {}", parent.display())));
    }
    let root = root_of(&dest)?;
    with_tree_calmly(&args.source, abrupt(), async |tree, stop| {
        let keep = Keep { times_and_mode: args.preserve, ..Keep::contents() };
        let options = ExtractOptions { work: "copy", keep, replace: true, jobs: args.jobs.into(), stop };
        let mut extraction = Extraction::new(tree.clone(), root, options);
        for source in sources {
            match find(&tree, source, args.recursive).await {
                Ok(attr) => {
                    let to = match last_name(source) {
                        Some(name) if into => dest.join(name),
                        _ => dest.clone(),
                    };
                    extraction.copy(attr, to).await;
                }
                Err(error) if sources.len() == 1 => return Err(error),
                Err(error) => extraction.leave_out(&error),
            }
        }
        let summary = extraction.finish(AGAIN).await?;
        stderr::line(format_args!("copied {summary}"));
        Ok(())
    })
}

/// What is to be copied.
async fn find(tree: &Tree, source: &OsStr, is_recursive: bool) -> CommandResult<Attr> {
    let attr = tree.resolve(source.as_bytes(), !is_recursive).await?;
    if attr.kind == FileKind::Directory && !is_recursive {
        let message = format!("{} is a directory", printable(source.as_bytes()));
        return Err(CommandError::new(Exit::NoSuchPath, message).hint("copy directories with -r"));
    }
    Ok(attr)
}

/// The last name on a path of the volume; `None` for its root.
fn last_name(path: &OsStr) -> Option<&OsStr> {
    let names = path.as_bytes().split(|byte| *byte == b'/').rev();
    names.into_iter().find(|name| !matches!(*name, b"" | b"." | b"..")).map(OsStr::from_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_named_after_the_last_name_of_its_path() {
        assert_eq!(last_name(OsStr::new("/a/b/")), Some(OsStr::new("b")));
        assert_eq!(last_name(OsStr::new("b")), Some(OsStr::new("b")));
        assert_eq!(last_name(OsStr::new("/")), None);
    }
}
