//! Names in directories that are held open: whoever else can write below a copy's destination cannot have the copy go
//! elsewhere, or give to his own file what is meant for the copy.

use std::ffi::OsString;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, FileType, Mode, OFlags, RenameFlags, Stat, fstat, openat};
use rustix::io::Errno;

/// How directories are held.
const DIRECTORY: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::CLOEXEC);

/// What a file is, whatever it is called: device and inode.
pub type FileId = (u64, u64);

/// The directory that a copy is made in. What leads to it may go through links; below it no link is followed.
#[derive(Debug)]
pub struct Root {
    path: PathBuf,
    directory: Arc<OwnedFd>,
}

impl Root {
    /// Holds the directory at `path`, or the current one if that is empty.
    ///
    /// # Errors
    /// The system's.
    pub fn open(path: &Path) -> io::Result<Self> {
        let shown = if path.as_os_str().is_empty() { Path::new(".") } else { path };
        let directory = Arc::new(openat(CWD, shown, DIRECTORY, Mode::empty())?);
        Ok(Self { path: path.to_owned(), directory })
    }

    /// The directory at `path`, which begins with the root's.
    ///
    /// # Errors
    /// The system's, and `ELOOP` or `ENOTDIR` if a link is on the way.
    pub fn directory(&self, path: &Path) -> io::Result<Arc<OwnedFd>> {
        let mut reached = Arc::clone(&self.directory);
        for part in path.strip_prefix(&self.path).map_err(io::Error::other)?.components() {
            let Component::Normal(name) = part else { return Err(io::ErrorKind::InvalidInput.into()) };
            reached = Arc::new(openat(&reached, name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?);
        }
        Ok(reached)
    }

    /// The place at `path`, which begins with the root's; `None` for the root itself.
    ///
    /// # Errors
    /// As [`Root::directory`], of the directory that it is in.
    pub fn place(&self, path: &Path) -> io::Result<Option<Place>> {
        if path == self.path {
            return Ok(None);
        }
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Some(Place { directory: self.directory(above)?, name: name.to_owned() }))
    }
}

/// A name in a directory that is held open.
#[derive(Clone, Debug)]
pub struct Place {
    directory: Arc<OwnedFd>,
    name: OsString,
}

impl Place {
    /// The name `name` in `directory`.
    #[must_use]
    pub const fn within(directory: Arc<OwnedFd>, name: OsString) -> Self {
        Self { directory, name }
    }

    /// What `path` names; links on the way are followed.
    ///
    /// # Errors
    /// The system's, or that it has no last name.
    pub fn of(path: &Path) -> io::Result<Self> {
        let (Some(above), Some(name)) = (path.parent(), path.file_name()) else {
            return Err(io::ErrorKind::InvalidInput.into());
        };
        Ok(Self { directory: Root::open(above)?.directory, name: name.to_owned() })
    }

    /// Another name in the same directory.
    #[must_use]
    pub fn beside(&self, name: impl Into<OsString>) -> Self {
        Self { directory: Arc::clone(&self.directory), name: name.into() }
    }

    /// What is there, if anything is.
    ///
    /// # Errors
    /// The system's.
    pub fn about(&self) -> io::Result<Option<Stat>> {
        match rustix::fs::statat(&self.directory, &self.name, AtFlags::SYMLINK_NOFOLLOW) {
            Err(Errno::NOENT) => Ok(None),
            about => Ok(Some(about?)),
        }
    }

    /// Which file is there, if any.
    #[must_use]
    pub fn id(&self) -> Option<FileId> {
        self.about().ok().flatten().map(|about| id_in(&about))
    }

    /// Makes a file that only its owner may use.
    ///
    /// # Errors
    /// The system's, and that something is there.
    pub fn create(&self) -> io::Result<File> {
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, &self.name, flags, Mode::RUSR | Mode::WUSR)?.into())
    }

    /// Makes a symbolic link.
    ///
    /// # Errors
    /// The system's, and that something is there.
    pub fn symlink(&self, target: &Path) -> io::Result<()> {
        Ok(rustix::fs::symlinkat(target, &self.directory, &self.name)?)
    }

    /// Makes a pipe, socket or device that only its owner may use.
    ///
    /// # Errors
    /// The system's, and that something is there.
    pub fn make_special(&self, kind: FileType, device: u64) -> io::Result<()> {
        Ok(rustix::fs::mknodat(&self.directory, &self.name, kind, Mode::RUSR | Mode::WUSR, device)?)
    }

    /// Makes a directory that only its owner may use, or takes the one that is there, and holds it. Links are made by whoever
    /// can write to the volume, so that one in its place is not followed: it goes if `replace`. Says whether it is new.
    ///
    /// # Errors
    /// The system's; [`io::ErrorKind::AlreadyExists`] for what stays in its place.
    pub fn make_directory(&self, replace: bool) -> io::Result<(bool, Arc<OwnedFd>)> {
        let make = || rustix::fs::mkdirat(&self.directory, &self.name, Mode::RWXU);
        let mut made = make();
        if made == Err(Errno::EXIST) && replace && self.has(FileType::Symlink)? {
            self.remove()?;
            made = make();
        }
        match made {
            Err(Errno::EXIST) if self.has(FileType::Directory)? => {}
            Err(Errno::EXIST) => {
                let why = "what is in its place is not a directory";
                return Err(io::Error::new(io::ErrorKind::AlreadyExists, why));
            }
            made => made?,
        }
        let held = openat(&self.directory, &self.name, DIRECTORY | OFlags::NOFOLLOW, Mode::empty())?;
        Ok((made.is_ok(), Arc::new(held)))
    }

    fn has(&self, kind: FileType) -> io::Result<bool> {
        Ok(self.about()?.is_some_and(|about| FileType::from_raw_mode(about.st_mode) == kind))
    }

    /// Holds whatever is there, to be dressed and not to be read.
    ///
    /// # Errors
    /// The system's.
    pub fn hold(&self) -> io::Result<OwnedFd> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        Ok(openat(&self.directory, &self.name, flags, Mode::empty())?)
    }

    /// Makes this a further name of the file at `first`.
    ///
    /// # Errors
    /// The system's, and that something is there.
    pub fn link(&self, first: &Self) -> io::Result<()> {
        let flags = AtFlags::empty();
        Ok(rustix::fs::linkat(&first.directory, &first.name, &self.directory, &self.name, flags)?)
    }

    /// Moves what is here to `to`, in place of what is there if `replace`.
    ///
    /// # Errors
    /// The system's.
    pub fn rename(&self, to: &Self, replace: bool) -> io::Result<()> {
        let rename = || rustix::fs::renameat(&self.directory, &self.name, &to.directory, &to.name);
        if replace {
            return Ok(rename()?);
        }
        let flags = RenameFlags::NOREPLACE;
        match rustix::fs::renameat_with(&self.directory, &self.name, &to.directory, &to.name, flags) {
            // Some network filesystems know no such rename.
            Err(Errno::INVAL | Errno::NOSYS) if to.about()?.is_none() => Ok(rename()?),
            other => Ok(other?),
        }
    }

    /// Removes what is here, if it is no directory.
    ///
    /// # Errors
    /// The system's.
    pub fn remove(&self) -> io::Result<()> {
        Ok(rustix::fs::unlinkat(&self.directory, &self.name, AtFlags::empty())?)
    }
}

/// A file that is not whole yet, under a name for the time until it is; removed when dropped before.
#[derive(Debug)]
pub struct Partial(pub Place);

impl Partial {
    /// Gives the file its name, which is the one that is held as `made`.
    ///
    /// # Errors
    /// The system's, or that another file has taken its place.
    pub fn become_whole(self, made: impl AsFd, to: &Place, replace: bool) -> io::Result<()> {
        if self.0.id() != Some(id_of(made)?) {
            return Err(io::Error::other("somebody has put another file in its place"));
        }
        self.0.rename(to, replace)
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a successful rename there is nothing left to remove.
        let _ = self.0.remove();
    }
}

/// Which file is held.
///
/// # Errors
/// The system's.
pub fn id_of(file: impl AsFd) -> io::Result<FileId> {
    Ok(id_in(&fstat(file)?))
}

/// Which file it is about.
#[must_use]
pub const fn id_in(about: &Stat) -> FileId {
    (about.st_dev, about.st_ino)
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_is_held_is_found_wherever_its_path_leads_by_now() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        fs::create_dir_all(path("root/below")).unwrap();
        fs::create_dir(path("victim")).unwrap();
        let root = Root::open(&path("root")).unwrap();
        assert!(root.place(&path("root")).unwrap().is_none());
        let place = root.place(&path("root/below/file")).unwrap().unwrap();
        fs::rename(path("root/below"), path("moved")).unwrap();
        symlink(path("victim"), path("root/below")).unwrap();
        place.create().unwrap();
        assert!(path("moved/file").exists());
        assert_eq!(fs::read_dir(path("victim")).unwrap().count(), 0);
        for way in [&path("root/below"), &path("root/below/file"), &path("root/../victim"), &path("victim")] {
            assert!(root.directory(way).is_err(), "{way:?}");
        }
        let (is_new, _) = root.place(&path("root/below")).unwrap().unwrap().make_directory(true).unwrap();
        assert!(is_new && !path("root/below").is_symlink());
    }

    #[test]
    fn what_somebody_has_put_in_the_place_of_a_copy_is_given_no_name_and_no_attributes() {
        let dir = tempfile::tempdir().unwrap();
        let place = |name: &str| Place::of(&dir.path().join(name)).unwrap();
        let partial = Partial(place("partial"));
        let made = partial.0.create().unwrap();
        fs::remove_file(dir.path().join("partial")).unwrap();
        fs::write(dir.path().join("partial"), "theirs").unwrap();
        let their_mode = fs::metadata(dir.path().join("partial")).unwrap().mode();
        made.set_permissions(std::os::unix::fs::PermissionsExt::from_mode(0o4755)).unwrap();
        let partial_mode = fs::metadata(dir.path().join("partial")).unwrap().mode();
        assert_eq!(partial_mode, their_mode);
        assert!(partial.become_whole(&made, &place("whole"), true).is_err());
        assert!(!dir.path().join("whole").exists());
    }
}
