//! Finds what lies below the directory of a bucket, and enters no symbolic link on the way: whoever owns the bucket can put
//! some there, and would have us read, write and delete elsewhere. The bucket itself may be reached by links.

use std::io;
use std::os::fd::OwnedFd;
use std::path::Path as FilePath;

use object_store::path::{DELIMITER, Path};
use rustix::fs::{CWD, Mode, OFlags};
use rustix::io::Errno;

/// How a directory on the way is opened.
const ON_THE_WAY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// The directory that holds the object at `location`, and the object's name in it.
pub(super) fn parent<'a>(root: &FilePath, location: &'a Path) -> io::Result<(OwnedFd, &'a str)> {
    walk(root, location, |_, _| Err(Errno::NOENT.into()))
}

/// The same; directories that are missing are made.
pub(super) fn made_parent<'a>(root: &FilePath, location: &'a Path) -> io::Result<(OwnedFd, &'a str)> {
    walk(root, location, |directory, name| {
        match rustix::fs::mkdirat(directory, name, Mode::RWXU | Mode::RWXG | Mode::RWXO) {
            Err(Errno::EXIST) => Ok(()),
            Err(error) => Err(error.into()),
            Ok(()) => sync(directory),
        }
    })
}

fn walk<'a>(
    root: &FilePath,
    location: &'a Path,
    missing: impl Fn(&OwnedFd, &str) -> io::Result<()>,
) -> io::Result<(OwnedFd, &'a str)> {
    let mut directory = rustix::fs::openat(CWD, root, ON_THE_WAY, Mode::empty())?;
    let (way, name) = location.as_ref().rsplit_once(DELIMITER).unwrap_or(("", location.as_ref()));
    for part in way.split(DELIMITER).filter(|part| !part.is_empty()) {
        directory = match enter(&directory, part) {
            Err(Errno::NOENT) => {
                missing(&directory, part)?;
                enter(&directory, part)?
            }
            entered => entered?,
        };
    }
    Ok((directory, name))
}

fn enter(directory: &OwnedFd, name: &str) -> rustix::io::Result<OwnedFd> {
    rustix::fs::openat(directory, name, ON_THE_WAY | OFlags::NOFOLLOW, Mode::empty())
}

/// Has what was changed in a directory on the disk.
pub(super) fn sync(directory: &OwnedFd) -> io::Result<()> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::fsync(rustix::fs::openat(directory, ".", flags, Mode::empty())?)?)
}

/// Whether `prefix` or something on the way to it is a link.
pub(super) fn leads_through_a_link(root: &FilePath, prefix: &Path) -> bool {
    let mut path = root.to_owned();
    prefix.parts().any(|part| {
        path.push(part.as_ref());
        path.is_symlink()
    })
}
