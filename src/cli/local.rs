//! Attributes of local files: given to them as files of the volume have them, or read to be kept there.

use std::ffi::OsStr;
use std::fs::{Metadata, Permissions};
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Gid, Mode, Timespec, Timestamps, Uid, XattrFlags, chownat, fstat};
use rustix::io::Errno;

use super::place::Place;
use crate::base::{FileKind, Time};
use crate::vfs::Attr;

/// The longest list of names of attributes, and the longest value, that Linux has.
const XATTR_BYTES_MAX: usize = 64 * 1024;

/// Which attributes a copy keeps.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Keep {
    /// Access and modification times, permissions; without it, files get their permissions less the umask.
    pub times_and_mode: bool,
    /// The umask of this process.
    pub umask: u16,
    /// Owner and group; only the superuser can give files away.
    pub owner: bool,
    /// Extended attributes and ACLs.
    pub xattrs: bool,
}

impl Keep {
    /// Contents, and what cp(1) keeps of the permissions.
    #[must_use]
    pub fn contents() -> Self {
        let umask = rustix::process::umask(Mode::from_raw_mode(0o077));
        rustix::process::umask(umask);
        let umask = u16::try_from(umask.as_raw_mode()).unwrap_or(0o077);
        Self { times_and_mode: false, umask, owner: false, xattrs: false }
    }

    /// All that the calling user is able to set.
    #[must_use]
    pub fn everything() -> Self {
        let owner = rustix::process::geteuid().is_root();
        Self { times_and_mode: true, owner, xattrs: true, ..Self::contents() }
    }
}

/// An extended attribute: name and value.
pub type Xattr = (Vec<u8>, Vec<u8>);

/// Sets the attributes of `file` to `attr` and `xattrs` as far as `keep` says. It may be held for nothing else (`O_PATH`); what
/// its path leads to by now is left alone. Returns one sentence for each attribute that could not be set.
pub fn apply(file: BorrowedFd<'_>, attr: &Attr, xattrs: &[Xattr], keep: Keep) -> Vec<String> {
    let mut problems = Vec::new();
    let mut note = |what: &str, result: io::Result<()>| {
        if let Err(error) = result {
            problems.push(format!("{what}: {error}"));
        }
    };
    match fstat(file) {
        Ok(about) if kind_of_mode(about.st_mode) == attr.kind => {}
        Ok(_) => return vec!["its attributes: a file of another kind is in its place".to_owned()],
        Err(error) => return vec![format!("its attributes: {error}")],
    }
    // Most calls take no descriptor of this kind, and all of them take this way to it.
    let way = Path::new("/proc/self/fd").join(file.as_raw_fd().to_string());
    // A change of owner clears setuid bits and capabilities, and a changed mode rewrites an ACL's mask: hence the order.
    if keep.owner {
        note("owner", set_owner(file, attr));
    }
    let (plain, security): (Vec<&Xattr>, Vec<&Xattr>) =
        xattrs.iter().filter(|_| keep.xattrs).partition(|(name, _)| name.starts_with(b"user."));
    for (name, value) in plain {
        note(&name.escape_ascii().to_string(), set_xattr(&way, name, value));
    }
    if attr.kind != FileKind::Symlink {
        let mode = match (keep.times_and_mode, keep.owner) {
            (true, true) => attr.perm,
            (true, false) => attr.perm & 0o1777,
            (false, _) => attr.perm & 0o777 & !keep.umask,
        };
        note("permissions", std::fs::set_permissions(&way, Permissions::from_mode(u32::from(mode))));
    }
    for (name, value) in security {
        note(&name.escape_ascii().to_string(), set_xattr(&way, name, value));
    }
    if keep.times_and_mode {
        note("times", set_times(&way, attr.atime, attr.mtime));
    }
    problems
}

fn set_owner(file: BorrowedFd<'_>, attr: &Attr) -> io::Result<()> {
    let (uid, gid) = (Uid::from_raw(attr.uid), Gid::from_raw(attr.gid));
    Ok(chownat(file, "", Some(uid), Some(gid), AtFlags::EMPTY_PATH)?)
}

fn set_xattr(way: &Path, name: &[u8], value: &[u8]) -> io::Result<()> {
    Ok(rustix::fs::setxattr(way, OsStr::from_bytes(name), value, XattrFlags::empty())?)
}

fn set_times(way: &Path, atime: Time, mtime: Time) -> io::Result<()> {
    let at = |time: Time| Timespec { tv_sec: time.secs, tv_nsec: time.nanos.into() };
    let times = Timestamps { last_access: at(atime), last_modification: at(mtime) };
    Ok(rustix::fs::utimensat(CWD, way, &times, AtFlags::empty())?)
}

/// Creates a pipe, socket or device file that only its owner may use until its attributes are applied.
///
/// # Errors
/// When the system refuses: devices are for the superuser.
pub fn make_special(place: &Place, kind: FileKind, rdev: u32) -> io::Result<()> {
    let kind = match kind {
        FileKind::Fifo => FileType::Fifo,
        FileKind::Socket => FileType::Socket,
        FileKind::CharDevice => FileType::CharacterDevice,
        FileKind::BlockDevice => FileType::BlockDevice,
        FileKind::Regular | FileKind::Directory | FileKind::Symlink => {
            return Err(io::Error::from(io::ErrorKind::InvalidInput));
        }
    };
    place.make_special(kind, decode_rdev(rdev))
}

/// A device number from the 32 bits that FUSE and the kernel's `new_encode_dev` use.
fn decode_rdev(rdev: u32) -> u64 {
    let major = (rdev >> 8) & 0xFFF;
    let minor = (rdev & 0xFF) | ((rdev >> 12) & 0xF_FF00);
    rustix::fs::makedev(major, minor)
}

/// The device number as FUSE and the kernel's `new_encode_dev` have it.
#[must_use]
pub fn encode_rdev(rdev: u64) -> u32 {
    let (major, minor) = (rustix::fs::major(rdev), rustix::fs::minor(rdev));
    (minor & 0xFF) | ((major & 0xFFF) << 8) | ((minor & !0xFF) << 12)
}

/// What kind of file a local one is.
#[must_use]
pub fn kind_of(about: &Metadata) -> FileKind {
    kind_of_mode(about.mode())
}

/// What kind of file has this mode.
#[must_use]
pub const fn kind_of_mode(mode: u32) -> FileKind {
    match FileType::from_raw_mode(mode) {
        FileType::Directory => FileKind::Directory,
        FileType::Symlink => FileKind::Symlink,
        FileType::Fifo => FileKind::Fifo,
        FileType::Socket => FileKind::Socket,
        FileType::CharacterDevice => FileKind::CharDevice,
        FileType::BlockDevice => FileKind::BlockDevice,
        FileType::RegularFile | FileType::Unknown => FileKind::Regular,
    }
}

/// Every extended attribute of a local file, ACLs among them, in the order of their names.
///
/// # Errors
/// The system's. A filesystem that has none has none to copy.
pub fn xattrs(path: &Path) -> io::Result<Vec<Xattr>> {
    let mut names = vec![0; XATTR_BYTES_MAX];
    let length = match rustix::fs::llistxattr(path, &mut names) {
        Err(Errno::NOTSUP) => 0,
        other => other?,
    };
    names.truncate(length);
    let mut all = Vec::new();
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        let mut value = vec![0; XATTR_BYTES_MAX];
        match rustix::fs::lgetxattr(path, OsStr::from_bytes(name), &mut value) {
            Ok(length) => {
                value.truncate(length);
                all.push((name.to_vec(), value));
            }
            // It went away meanwhile.
            Err(Errno::NODATA) => {}
            Err(error) => return Err(error.into()),
        }
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::os::unix::fs::{FileTypeExt, MetadataExt};

    use super::*;
    use crate::base::Ino;

    fn dress(path: &Path, attr: &Attr, keep: Keep) -> Vec<String> {
        let file = Place::of(path).unwrap().hold().unwrap();
        apply(file.as_fd(), attr, &[], keep)
    }

    fn attr(kind: FileKind) -> Attr {
        let time = Time { secs: -5, nanos: 7 };
        Attr {
            ino: Ino(9),
            kind,
            perm: 0o6751,
            nlink: 1,
            uid: 1,
            gid: 1,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: Time { secs: 1_000, nanos: 999_999_999 },
            ctime: time,
            btime: time,
            is_unsettled: false,
        }
    }

    #[test]
    fn mode_and_times_are_kept_to_the_nanosecond_and_before_1970() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let keep = Keep { owner: false, ..Keep::everything() };
        assert_eq!(dress(&path, &attr(FileKind::Regular), keep), Vec::<String>::new());
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!((about.atime(), about.atime_nsec()), (-5, 7));
        assert_eq!((about.mtime(), about.mtime_nsec()), (1_000, 999_999_999));
        assert_eq!(about.mode() & 0o7777, 0o751, "a file that changes hands loses its setuid bits");
    }

    #[test]
    fn a_plain_copy_has_its_permissions_less_the_umask() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, "x").unwrap();
        let keep = Keep { umask: 0o027, ..Keep::contents() };
        assert_eq!(dress(&path, &attr(FileKind::Regular), keep), Vec::<String>::new());
        let about = std::fs::metadata(&path).unwrap();
        assert_eq!(about.mode() & 0o7777, 0o750);
        assert_ne!(about.mtime(), 1_000);
    }

    #[test]
    fn the_times_of_a_link_are_its_own() {
        let dir = tempfile::tempdir().unwrap();
        let target = dir.path().join("t");
        std::fs::write(&target, "x").unwrap();
        let link = dir.path().join("l");
        std::os::unix::fs::symlink(&target, &link).unwrap();
        let keep = Keep { owner: false, ..Keep::everything() };
        assert_eq!(dress(&link, &attr(FileKind::Symlink), keep), Vec::<String>::new());
        assert_eq!(std::fs::symlink_metadata(&link).unwrap().mtime(), 1_000);
        assert_ne!(std::fs::metadata(&target).unwrap().mtime(), 1_000);
    }

    #[test]
    fn a_mode_is_set_whatever_the_kind_but_not_through_a_link() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        let mode_of = |name| std::fs::metadata(path(name)).unwrap().mode() & 0o7777;
        std::fs::write(path("closed"), "x").unwrap();
        std::fs::set_permissions(path("closed"), Permissions::from_mode(0o0)).unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        make_special(&Place::of(&path("pipe")).unwrap(), FileKind::Fifo, 0).unwrap();
        let keep = Keep { owner: false, ..Keep::everything() };
        let kinds =
            [("closed", FileKind::Regular), ("directory", FileKind::Directory), ("pipe", FileKind::Fifo)];
        for (name, kind) in kinds {
            assert_eq!(dress(&path(name), &attr(kind), keep), Vec::<String>::new());
            assert_eq!(mode_of(name), 0o751);
            std::fs::set_permissions(path(name), Permissions::from_mode(0o700)).unwrap();
            std::os::unix::fs::symlink(path(name), path("link")).unwrap();
            let problems = dress(&path("link"), &attr(kind), keep);
            assert!(matches!(&problems[..], [one] if one.starts_with("its attributes: ")), "{problems:?}");
            assert_eq!(mode_of(name), 0o700);
            std::fs::remove_file(path("link")).unwrap();
        }
    }

    #[test]
    fn pipes_are_made_and_device_numbers_are_decoded() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("p");
        make_special(&Place::of(&path).unwrap(), FileKind::Fifo, 0).unwrap();
        assert!(std::fs::metadata(&path).unwrap().file_type().is_fifo());
        assert_eq!(decode_rdev(0x0801), rustix::fs::makedev(8, 1));
        assert_eq!(decode_rdev(0x1230_0845), rustix::fs::makedev(8, 0x12345));
        for rdev in [0x0801, 0x1230_0845, 0] {
            assert_eq!(encode_rdev(decode_rdev(rdev)), rdev);
        }
    }
}
