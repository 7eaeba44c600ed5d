//! Files that a write leaves half done when its process ends: `OBJECT#N`, which no listing shows.

use std::io;
use std::path::Path as FilePath;
use std::time::{Duration, SystemTime};

use object_store::path::Path;
use walkdir::WalkDir;

use super::walk::is_staged;
use super::write;

/// Most that are looked at in one go; the rest is for the next.
const LISTED_MAX: usize = 65_536;

/// A file that a write has left, or is about to make an object.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Staged {
    /// Its path in the bucket.
    pub path: String,
    /// The object that it was to become.
    pub object: String,
    /// Its length.
    pub bytes: u64,
    /// Since when it was not written to.
    pub age: Duration,
}

/// All in the bucket at `root`, with their ages by the clock of this machine. No link is followed: what is behind it is not
/// the bucket's.
pub(in crate::store) fn list(root: &FilePath) -> io::Result<Vec<Staged>> {
    let now = SystemTime::now();
    let walk = WalkDir::new(root).min_depth(1).into_iter();
    // What cannot be looked at stays.
    let files = walk.filter_map(Result::ok).filter(|entry| entry.file_type().is_file());
    let staged = files.filter_map(|entry| {
        let path = entry.path().strip_prefix(root).ok()?.to_str()?;
        let (object, _) =
            path.rsplit_once('#').filter(|_| entry.file_name().to_str().is_some_and(is_staged))?;
        Path::parse(path).ok()?;
        let metadata = entry.metadata().ok()?;
        // One from the future is as good as new.
        let age = now.duration_since(metadata.modified().ok()?).unwrap_or_default();
        Some(Staged { path: path.to_owned(), object: object.to_owned(), bytes: metadata.len(), age })
    });
    Ok(staged.take(LISTED_MAX).collect())
}

/// Removes one; that it is gone already is success.
pub(in crate::store) fn remove(root: &FilePath, staged: &Staged) -> io::Result<()> {
    let location = Path::parse(&staged.path).map_err(io::Error::other)?;
    match write::remove(root, &location) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_write_leaves_is_seen_and_its_age_is_that_of_its_last_byte() {
        let folder = tempfile::tempdir().unwrap();
        let below = folder.path().join("d/ab");
        std::fs::create_dir_all(&below).unwrap();
        for name in ["abcd", "abcd#1", "abcd#x", "abcd#", "old#12"] {
            std::fs::write(below.join(name), b"12345").unwrap();
        }
        std::fs::create_dir(below.join("folder#1")).unwrap();
        let old = std::fs::File::options().write(true).open(below.join("old#12")).unwrap();
        old.set_modified(SystemTime::now() - Duration::from_secs(7200)).unwrap();
        let mut seen = list(folder.path()).unwrap();
        seen.sort_unstable_by(|a, b| a.path.cmp(&b.path));
        let [new, old] = &seen[..] else { panic!("{seen:?}") };
        assert_eq!((&*new.path, &*new.object, new.bytes), ("d/ab/abcd#1", "d/ab/abcd", 5));
        assert!(new.age < Duration::from_secs(3600), "{new:?}");
        assert_eq!(&*old.object, "d/ab/old");
        assert!(old.age >= Duration::from_secs(7200), "{old:?}");
        for staged in &seen {
            remove(folder.path(), staged).unwrap();
            remove(folder.path(), staged).unwrap();
        }
        assert!(list(folder.path()).unwrap().is_empty() && below.join("abcd").exists());
    }
}
