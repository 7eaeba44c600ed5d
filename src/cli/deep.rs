//! Ways to local files that lie deeper than a path may be long, or in a tree that others may change meanwhile.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Longest path that is used as it is. Linux ends at 4,095 bytes; names beside the file need room as well.
const PATH_BYTES_MAX: usize = 3072;

/// A path that leads to a file and is short enough for every call. It does as long as this lives.
#[derive(Debug)]
pub struct Near {
    path: PathBuf,
    /// The directory that the path goes through, if it does.
    _directory: Option<Arc<OwnedFd>>,
}

/// A directory below which files are found without going through a symbolic link: whoever puts one in a directory's place
/// leads nobody elsewhere.
#[derive(Clone, Debug)]
pub struct Top {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

impl Near {
    /// A way to what `path` names; its last name is kept and not followed.
    ///
    /// # Errors
    /// The system's, if a directory on the way cannot be opened.
    pub fn of(path: &Path) -> io::Result<Self> {
        let as_it_is = || Self { path: path.to_owned(), _directory: None };
        if path.as_os_str().len() <= PATH_BYTES_MAX {
            return Ok(as_it_is());
        }
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else { return Ok(as_it_is()) };
        Ok(Self::through(open(parent)?.into(), Path::new(name)))
    }

    fn through(directory: Arc<OwnedFd>, name: &Path) -> Self {
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Self { path, _directory: Some(directory) }
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Top {
    /// The directory at `path`; links that lead there are followed.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { path: path.to_owned(), directory: open(path)?.into() })
    }

    /// A way to the file at `path`, which begins with that of the top. It is not followed itself.
    ///
    /// # Errors
    /// The system's: something else than a directory is on the way.
    pub fn file(&self, path: &Path) -> io::Result<Near> {
        let (Some(parent), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Near::through(self.open_below(parent)?, Path::new(name)))
    }

    /// A way to the directory at `path`, which begins with that of the top.
    ///
    /// # Errors
    /// The system's: something else than a directory is there, or on the way.
    pub fn directory(&self, path: &Path) -> io::Result<Near> {
        Ok(Near::through(self.open_below(path)?, Path::new(".")))
    }

    fn open_below(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        let way = path.strip_prefix(&self.path).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut reached = Arc::clone(&self.directory);
        for name in way.components() {
            let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::CLOEXEC;
            reached = openat(&reached, name.as_os_str(), flags, Mode::empty())?.into();
        }
        Ok(reached)
    }
}

/// Opens a directory in steps, each from the one before.
fn open(directory: &Path) -> io::Result<OwnedFd> {
    let mut reached: Option<OwnedFd> = None;
    let mut step = PathBuf::new();
    for part in directory.components() {
        if step.as_os_str().len() + part.as_os_str().len() >= PATH_BYTES_MAX {
            reached = Some(open_step(reached.as_ref(), &step)?);
            step = PathBuf::new();
        }
        step.push(part);
    }
    open_step(reached.as_ref(), &step)
}

fn open_step(from: Option<&OwnedFd>, step: &Path) -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(match from {
        Some(from) => openat(from, step, flags, Mode::empty()),
        None => openat(CWD, step, flags, Mode::empty()),
    }?)
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    #[test]
    fn files_are_made_and_read_below_any_depth() {
        let top = tempfile::tempdir().unwrap();
        let mut path = top.path().to_owned();
        for level in 0..200 {
            path.push(format!("{level:060}"));
            fs::create_dir(Near::of(&path).unwrap().path()).unwrap();
        }
        assert!(path.as_os_str().len() > 12_000);
        assert!(fs::create_dir(path.join("x")).is_err(), "the test needs a path that is too long");
        let file = path.join("file");
        fs::write(Near::of(&file).unwrap().path(), "deep").unwrap();
        let link = path.join("link");
        std::os::unix::fs::symlink("file", Near::of(&link).unwrap().path()).unwrap();
        let near = Near::of(&link).unwrap();
        assert!(fs::symlink_metadata(near.path()).unwrap().is_symlink());
        assert_eq!(fs::read(near.path()).unwrap(), b"deep");
        assert_eq!(fs::read_dir(Near::of(&path).unwrap().path()).unwrap().count(), 2);
    }

    #[test]
    fn who_puts_a_link_in_a_directorys_place_leads_nobody_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let (tree, secret) = (dir.path().join("tree"), dir.path().join("secret"));
        for place in [tree.join("a/b"), secret.join("b")] {
            fs::create_dir_all(&place).unwrap();
            fs::write(place.join("file"), place.to_str().unwrap()).unwrap();
        }
        std::os::unix::fs::symlink(&tree, dir.path().join("link")).unwrap();
        let root = dir.path().join("link");
        let top = Top::open(&root).unwrap();
        let read = || fs::read_to_string(top.file(&root.join("a/b/file"))?.path());
        let list =
            |path: &str| Ok::<_, io::Error>(fs::read_dir(top.directory(&root.join(path))?.path())?.count());
        assert_eq!(read().unwrap(), tree.join("a/b").to_str().unwrap());
        assert_eq!((list("").unwrap(), list("a").unwrap(), list("a/b").unwrap()), (1, 1, 1));
        fs::rename(tree.join("a"), tree.join("was a")).unwrap();
        std::os::unix::fs::symlink(&secret, tree.join("a")).unwrap();
        assert!(read().is_err() && list("a").is_err() && list("a/b").is_err());
        assert_eq!(list("").unwrap(), 2);
        assert!(top.file(&dir.path().join("secret/b/file")).is_err(), "it is not below");
    }

    #[test]
    fn a_short_path_is_used_as_it_is_and_a_way_that_is_not_there_is_an_error() {
        let short = Path::new("a/../b");
        assert_eq!(Near::of(short).unwrap().path(), short);
        let missing = Path::new("/no/such/place").join("x/".repeat(3000));
        assert_eq!(Near::of(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
