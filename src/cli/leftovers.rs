//! What an import calls files until they are whole, and what becomes of those that a killed one has left in the volume.

use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tokio::task::block_in_place;

use super::tree::Tree;
use crate::base::{FileKind, Ino};
use crate::vfs::VfsError;

/// How the names begin. Device and inode of the local file follow, so that the next run finds and replaces what this one leaves
/// behind.
const PREFIX: &str = ".coffer-import-";
/// Entries asked for at a time.
const PAGE_ENTRIES: usize = 1024;

/// What a file is called until it is whole.
#[must_use]
pub fn name_of(about: &Metadata) -> Vec<u8> {
    format!("{PREFIX}{:x}-{:x}", about.dev(), about.ino()).into_bytes()
}

/// Whether a name is one of [`name_of`].
fn is_partial(name: &[u8]) -> bool {
    let Some(numbers) = name.strip_prefix(PREFIX.as_bytes()) else { return false };
    let is_number =
        |text: &[u8]| !text.is_empty() && text.iter().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
    let mut parts = numbers.split(|byte| *byte == b'-');
    parts.next().is_some_and(is_number) && parts.next().is_some_and(is_number) && parts.next().is_none()
}

/// Removes from the directory `dir` of the volume what runs that were killed have left there: names of that kind which the
/// local directory `from`, by a short path, does not have itself. To be called when no file is on its way to it.
///
/// # Errors
/// When the directory cannot be read, or an entry not be removed.
pub async fn remove(tree: &Tree, from: &Path, dir: Ino) -> Result<(), VfsError> {
    let mut left = Vec::new();
    let mut cookie = 0;
    loop {
        let entries = tree.vfs.readdir(dir, cookie, PAGE_ENTRIES).await?;
        let Some(last) = entries.last() else { break };
        cookie = last.next;
        let partial = entries.into_iter().filter(|entry| is_partial(&entry.name));
        left.extend(partial.filter(|entry| entry.kind != FileKind::Directory).map(|entry| entry.name));
    }
    for name in left {
        let is_own = || from.join(std::ffi::OsStr::from_bytes(&name)).symlink_metadata().is_ok();
        if !block_in_place(is_own) {
            tree.vfs.unlink(dir, &name).await?;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_for_the_meantime_are_told_from_others() {
        assert!(is_partial(b".coffer-import-fd01-a2") && is_partial(b".coffer-import-0-0"));
        for other in [
            "",
            ".coffer-import-",
            ".coffer-import-1",
            ".coffer-import-1-",
            ".coffer-import-1-2-3",
            "x.coffer-import-1-2",
        ] {
            assert!(!is_partial(other.as_bytes()), "{other}");
        }
        assert!(!is_partial(b".coffer-import-fd01-A2") && !is_partial(b".coffer-import-notes-of-mine"));
        let about = std::fs::metadata("/").unwrap();
        assert!(is_partial(&name_of(&about)));
    }
}
