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

/// Who may use a file beside its owner and group, and who may use what is made in a directory.
const ACCESS_LIST: &[u8] = b"system.posix_acl_access";
const DEFAULT_LIST: &[u8] = b"system.posix_acl_default";
/// The bits of the group in a mode.
const GROUP: u16 = 0o070;

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
    let list = security.iter().find(|(name, _)| name == ACCESS_LIST);
    let mut mode = 0;
    if attr.kind != FileKind::Symlink {
        let lost;
        (mode, lost) = mode_of(file, attr, keep);
        // What the directory that it was made in gives to others by its default list.
        let inherited = [ACCESS_LIST, DEFAULT_LIST].into_iter();
        let is_kept = |name: &[u8]| !keep.xattrs || xattrs.iter().any(|(kept, _)| kept == name);
        for name in inherited.filter(|name| !is_kept(name)) {
            note(&name.escape_ascii().to_string(), remove_xattr(&way, name));
        }
        // Until the list is there, the group's bits of its mode would be those of its mask.
        let first = if list.is_some() { mode & !GROUP } else { mode };
        note("permissions", set_mode(&way, first));
        if let Some(why) = lost {
            note("setuid and setgid", Err(io::Error::other(why)));
        }
    }
    for (name, value) in &security {
        let set = set_xattr(&way, name, value);
        if set.is_err() && name == ACCESS_LIST {
            note("permissions", set_mode(&way, mode & (!GROUP | owning_group(value))));
        }
        note(&name.escape_ascii().to_string(), set);
    }
    if keep.times_and_mode {
        note("times", set_times(&way, attr.atime, attr.mtime));
    }
    problems
}

/// The mode that `file` is to have, and why that is without bits that it has in the volume. A program runs as its owner or
/// group only where these are those of the volume.
fn mode_of(file: BorrowedFd<'_>, attr: &Attr, keep: Keep) -> (u16, Option<&'static str>) {
    if !keep.times_and_mode {
        return (attr.perm & 0o777 & !keep.umask, None);
    }
    let is_same = fstat(file).is_ok_and(|about| (about.st_uid, about.st_gid) == (attr.uid, attr.gid));
    let kept = match attr.kind {
        _ if is_same => 0o6000,
        // There it says whose group is given to new files.
        FileKind::Directory => 0o2000,
        _ => 0,
    };
    let is_less = attr.perm & 0o6000 & !kept != 0;
    (attr.perm & (0o1777 | kept), is_less.then_some("its owner or group is another here"))
}

/// The bits of a mode that the owning group has by an access list; none by one that is no list.
fn owning_group(list: &[u8]) -> u16 {
    let entries = list.get(4..).unwrap_or_default().as_chunks::<8>().0;
    let of_group = entries.iter().find_map(|entry| match entry {
        [4, 0, bits, ..] => Some(u16::from(*bits & 7)),
        _ => None,
    });
    of_group.unwrap_or(0) << 3
}

fn set_mode(way: &Path, mode: u16) -> io::Result<()> {
    std::fs::set_permissions(way, Permissions::from_mode(u32::from(mode)))
}

fn remove_xattr(way: &Path, name: &[u8]) -> io::Result<()> {
    match rustix::fs::removexattr(way, OsStr::from_bytes(name)) {
        Err(Errno::NODATA | Errno::NOTSUP | Errno::ACCESS | Errno::INVAL) if !has_xattr(way, name) => Ok(()),
        other => Ok(other?),
    }
}

fn has_xattr(way: &Path, name: &[u8]) -> bool {
    rustix::fs::getxattr(way, OsStr::from_bytes(name), &mut [0_u8; 0]).is_ok()
}

fn set_owner(file: BorrowedFd<'_>, attr: &Attr) -> io::Result<()> {
    // The last number is nobody's: it would mean to leave it.
    let uid = (attr.uid != u32::MAX).then(|| Uid::from_raw(attr.uid));
    let gid = (attr.gid != u32::MAX).then(|| Gid::from_raw(attr.gid));
    Ok(chownat(file, "", uid, gid, AtFlags::EMPTY_PATH)?)
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
            uid: rustix::process::geteuid().as_raw(),
            gid: rustix::process::getegid().as_raw(),
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
        assert_eq!(about.mode() & 0o7777, 0o6751);
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
            assert_eq!(mode_of(name), 0o6751);
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

    #[test]
    fn what_runs_as_somebody_does_so_only_as_whom_the_volume_says() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        let keep = Keep { owner: false, ..Keep::everything() };
        for (name, kind, mode) in
            [("file", FileKind::Regular, 0o751), ("directory", FileKind::Directory, 0o2751)]
        {
            let foreign = Attr { uid: attr(kind).uid + 1, ..attr(kind) };
            let problems = dress(&path(name), &foreign, keep);
            assert_eq!(problems, ["setuid and setgid: its owner or group is another here"]);
            assert_eq!(std::fs::metadata(path(name)).unwrap().mode() & 0o7777, mode, "{name}");
            let plain = Attr { perm: 0o640, ..foreign };
            assert_eq!(dress(&path(name), &plain, keep), Vec::<String>::new());
        }
    }

    /// A list that gives the user 12345 all that its mask has, and the owning group nothing.
    fn list(others: &[(u8, u8)]) -> Vec<u8> {
        let entries = [&[(1, 6), (2, 6), (4, 0), (0x10, 6)][..], others].concat();
        let mut list = vec![2, 0, 0, 0];
        for (tag, bits) in entries {
            list.extend([tag, 0, bits, 0]);
            list.extend(if tag == 2 { 12345_u32 } else { u32::MAX }.to_le_bytes());
        }
        list
    }

    #[test]
    fn nobody_has_access_by_a_list_that_the_volume_does_not_have() {
        let dir = tempfile::tempdir().unwrap();
        let list = list(&[(0x20, 0)]);
        set_xattr(dir.path(), DEFAULT_LIST, &list).expect("the test needs a filesystem with access lists");
        let keep = Keep { owner: false, ..Keep::everything() };
        let path = |name: &str| dir.path().join(name);
        std::fs::write(path("file"), "x").unwrap();
        std::fs::create_dir(path("directory")).unwrap();
        for (name, kind) in [("file", FileKind::Regular), ("directory", FileKind::Directory)] {
            assert!(has_xattr(&path(name), ACCESS_LIST));
            let private = Attr { perm: 0o670, ..attr(kind) };
            assert_eq!(dress(&path(name), &private, keep), Vec::<String>::new());
            assert!(!has_xattr(&path(name), ACCESS_LIST) && !has_xattr(&path(name), DEFAULT_LIST), "{name}");
            assert_eq!(std::fs::metadata(path(name)).unwrap().mode() & 0o777, 0o670);
        }
        let file = Place::of(&path("file")).unwrap().hold().unwrap();
        let shared = Attr { perm: 0o660, ..attr(FileKind::Regular) };
        let kept = [(ACCESS_LIST.to_vec(), list)];
        assert_eq!(apply(file.as_fd(), &shared, &kept, keep), Vec::<String>::new());
        assert_eq!(xattrs(&path("file")).unwrap(), kept);
    }

    #[test]
    fn where_a_list_cannot_be_set_the_group_has_no_more_than_by_the_list() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("file");
        std::fs::write(&path, "x").unwrap();
        let file = Place::of(&path).unwrap().hold().unwrap();
        let keep = Keep { owner: false, ..Keep::everything() };
        let shared = Attr { perm: 0o660, ..attr(FileKind::Regular) };
        // Without an entry for all others it is refused, as every list is elsewhere.
        let problems = apply(file.as_fd(), &shared, &[(ACCESS_LIST.to_vec(), list(&[]))], keep);
        assert!(
            matches!(&problems[..], [one] if one.starts_with("system.posix_acl_access: ")),
            "{problems:?}"
        );
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }
}
