//! The directory of a bucket, and whether it is still that.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use object_store::{Error as RawError, Result as RawResult};
use parking_lot::Mutex;

/// What is in every bucket that was mounted for writing, and in no two the same, below its directory.
const MARK: &str = "probe/kept";
/// Longer ones are none.
const MARK_BYTES_MAX: u64 = 256;

/// A directory by path and identity. A disk that was unplugged may come back as another device: then what lies in the
/// directory tells.
#[derive(Debug)]
pub(super) struct Root {
    path: PathBuf,
    identity: Mutex<Identity>,
}

#[derive(Debug)]
struct Identity {
    device: u64,
    ino: u64,
    /// What was found under [`MARK`]; looked for until there is something.
    mark: Option<Vec<u8>>,
}

impl Root {
    pub(super) fn at(path: &Path) -> io::Result<Self> {
        let metadata = fs::metadata(path)?;
        let mark = mark_in(path);
        let identity = Identity { device: metadata.dev(), ino: metadata.ino(), mark };
        Ok(Self { path: path.to_owned(), identity: Mutex::new(identity) })
    }

    pub(super) fn path(&self) -> &Path {
        &self.path
    }

    /// Fails unless the directory is where it was, and is the same.
    pub(super) fn check(&self) -> RawResult<()> {
        if self.is_there() {
            return Ok(());
        }
        // Not `NotFound`: the objects are not gone, the way to them is.
        let source = io::Error::other(format!("the directory {} has gone away", self.path.display()));
        Err(RawError::Generic { store: "local directory", source: Box::new(source) })
    }

    fn is_there(&self) -> bool {
        let Ok(metadata) = fs::metadata(&self.path) else { return false };
        let mut identity = self.identity.lock();
        let is_same = (metadata.dev(), metadata.ino()) == (identity.device, identity.ino);
        if is_same {
            if identity.mark.is_none() {
                identity.mark = mark_in(&self.path);
            }
            return true;
        }
        if identity.mark.is_none() || mark_in(&self.path) != identity.mark {
            return false;
        }
        tracing::warn!(path = %self.path.display(), "the directory is on another device now, with the same bucket in it");
        (identity.device, identity.ino) = (metadata.dev(), metadata.ino());
        true
    }
}

fn mark_in(directory: &Path) -> Option<Vec<u8>> {
    let path = directory.join(MARK);
    let metadata = fs::symlink_metadata(&path).ok()?;
    (metadata.is_file() && (1..=MARK_BYTES_MAX).contains(&metadata.len())).then(|| fs::read(path).ok())?
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bucket(at: &Path, mark: Option<&[u8]>) {
        fs::create_dir_all(at.join("probe")).unwrap();
        if let Some(mark) = mark {
            fs::write(at.join(MARK), mark).unwrap();
        }
    }

    #[test]
    fn a_directory_that_comes_back_as_another_is_the_same_if_its_mark_is() {
        let folder = tempfile::tempdir().unwrap();
        let (at, away) = (folder.path().join("bucket"), folder.path().join("away"));
        for (before, after, is_same) in [
            (Some(&b"one"[..]), Some(&b"one"[..]), true),
            (Some(b"one"), Some(b"two"), false),
            (Some(b"one"), None, false),
            (None, Some(b"one"), false),
            (None, None, false),
        ] {
            bucket(&at, before);
            let root = Root::at(&at).unwrap();
            root.check().unwrap();
            fs::rename(&at, &away).unwrap();
            root.check().unwrap_err();
            bucket(&at, after);
            assert_eq!(root.check().is_ok(), is_same, "{before:?} {after:?}");
            fs::remove_dir_all(&at).unwrap();
            root.check().unwrap_err();
            fs::rename(&away, &at).unwrap();
            assert_eq!(root.check().is_ok(), !is_same || before == after, "the first one is back");
            fs::remove_dir_all(&at).unwrap();
        }
    }

    #[test]
    fn a_mark_that_is_made_later_is_found() {
        let folder = tempfile::tempdir().unwrap();
        let (at, away) = (folder.path().join("bucket"), folder.path().join("away"));
        bucket(&at, None);
        let root = Root::at(&at).unwrap();
        fs::write(at.join(MARK), b"one").unwrap();
        root.check().unwrap();
        fs::rename(&at, &away).unwrap();
        bucket(&at, Some(b"one"));
        root.check().unwrap();
    }
}
