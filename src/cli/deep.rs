//! Ways to local files that lie deeper than a path may be long.

use std::io;
use std::os::fd::{AsRawFd, OwnedFd};
use std::path::{Path, PathBuf};

use rustix::fs::{CWD, Mode, OFlags, openat};

/// Longest path that is used as it is. Linux ends at 4,095 bytes; names beside the file need room as well.
const PATH_BYTES_MAX: usize = 3072;

/// A path that leads to a file and is short enough for every call. It does as long as this lives.
#[derive(Debug)]
pub struct Near {
    path: PathBuf,
    /// The file's directory, if the path goes through it.
    _directory: Option<OwnedFd>,
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
        let directory = open(parent)?;
        let path = Path::new("/proc/self/fd").join(directory.as_raw_fd().to_string()).join(name);
        Ok(Self { path, _directory: Some(directory) })
    }

    /// The path.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
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
    fn a_short_path_is_used_as_it_is_and_a_way_that_is_not_there_is_an_error() {
        let short = Path::new("a/../b");
        assert_eq!(Near::of(short).unwrap().path(), short);
        let missing = Path::new("/no/such/place").join("x/".repeat(3000));
        assert_eq!(Near::of(&missing).unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
