//! Reads the kernel's list of mounts (`/proc/self/mountinfo`, proc_pid_mountinfo(5)).

use std::ffi::OsString;
use std::fmt;
use std::io;
use std::os::unix::ffi::OsStringExt;
use std::path::{Path, PathBuf};

use super::kernel;

const MOUNTINFO: &str = "/proc/self/mountinfo";
/// The type that our mounts have.
const KIND: &[u8] = b"fuse.coffer";

/// The number of a mounted filesystem's device: unique as long as it is mounted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Device {
    /// Major number; 0 for filesystems without a block device.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

impl fmt::Display for Device {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.major, self.minor)
    }
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mount {
    pub(super) device: Device,
    pub(super) point: PathBuf,
    pub(super) source: String,
    /// The user who has mounted it, if it is one of ours.
    owner: Option<u32>,
    /// Options of the mount, and behind a comma those of the filesystem.
    options: String,
}

/// What is visible at `point`, which must be an absolute path without symbolic links: the last mount there.
pub(super) fn mounted_at(point: &Path) -> std::io::Result<Option<Mount>> {
    let list = std::fs::read(MOUNTINFO)?;
    Ok(topmost(&list, point))
}

/// All places where this process can see a filesystem, those of copies and of parts of it among them, in the order in which
/// they were mounted.
pub(super) fn places_of(device: Device) -> std::io::Result<Vec<PathBuf>> {
    Ok(places(&std::fs::read(MOUNTINFO)?, device))
}

/// Where another filesystem is mounted inside the one at `point`; the last if there are several, which has to go first.
pub(super) fn mounted_inside(point: &Path) -> Option<PathBuf> {
    inside(&std::fs::read(MOUNTINFO).ok()?, point)
}

/// Where the filesystem is mounted that holds `path`, which must be absolute and without symbolic links.
#[must_use]
pub fn mount_point_of(path: &Path) -> Option<PathBuf> {
    innermost(&std::fs::read(MOUNTINFO).ok()?, path)
}

/// The user who has mounted the volume that holds `path`, which must be as for [`mount_point_of`]; `None` if no volume does.
#[must_use]
pub fn owner_of(path: &Path) -> Option<u32> {
    around(&std::fs::read(MOUNTINFO).ok()?, path)?.owner
}

/// The device of the volume that holds `path`, which must be as for [`mount_point_of`]; `None` if no volume does. Of several
/// mounts at one place, the one that shows, which need not be the last of the list.
#[must_use]
pub fn device_of(path: &Path) -> Option<Device> {
    let list = std::fs::read(MOUNTINFO).ok()?;
    let mount = around(&list, path)?;
    let shown = kernel::shown_at(&mount.point).unwrap_or(mount.device);
    is_volume(&list, shown).then_some(shown)
}

fn is_volume(list: &[u8], device: Device) -> bool {
    let mut mounts = list.split(|byte| *byte == b'\n').filter_map(parse);
    mounts.any(|mount| mount.device == device && mount.owner.is_some())
}

/// The options by which the kernel lists what is mounted at `point`, parted by commas; none if nothing is.
#[must_use]
pub fn listed_options(point: &Path) -> String {
    mounted_at(point).ok().flatten().map(|mount| mount.options).unwrap_or_default()
}

/// Where else than at `point` the filesystem is mounted that is mounted there; nowhere if none is.
#[must_use]
pub fn other_places(point: &Path) -> Vec<PathBuf> {
    let list = std::fs::read(MOUNTINFO).unwrap_or_default();
    let Some(mount) = topmost(&list, point) else { return Vec::new() };
    places(&list, mount.device).into_iter().filter(|place| place != point).collect()
}

fn places(list: &[u8], device: Device) -> Vec<PathBuf> {
    let mounts = list.split(|byte| *byte == b'\n').filter_map(parse);
    mounts.filter(|mount| mount.device == device).map(|mount| mount.point).collect()
}

fn inside(list: &[u8], point: &Path) -> Option<PathBuf> {
    let mut mounts = list.split(|byte| *byte == b'\n').filter_map(parse);
    let is_inside = |mount: &Mount| mount.point != point && mount.point.starts_with(point);
    mounts.rfind(is_inside).map(|mount| mount.point)
}

fn innermost(list: &[u8], path: &Path) -> Option<PathBuf> {
    around(list, path).map(|mount| mount.point)
}

/// Of several mounts at one point, the last.
fn around(list: &[u8], path: &Path) -> Option<Mount> {
    let mounts = list.split(|byte| *byte == b'\n').filter_map(parse);
    mounts.filter(|mount| path.starts_with(&mount.point)).max_by_key(|mount| mount.point.components().count())
}

/// A process in whose mount namespace, which is another than ours, a filesystem is mounted; `None` if there is none that may
/// be looked at.
pub(super) fn holder(device: Device) -> Option<String> {
    let has_it = |list: Vec<u8>| !places(&list, device).is_empty();
    let ours = std::fs::read_link("/proc/self/ns/mnt").ok();
    std::fs::read_dir("/proc").ok()?.flatten().find_map(|entry| {
        let (path, pid) = (entry.path(), entry.file_name().into_string().ok()?.parse::<u32>().ok()?);
        // Of those that may not be looked at nothing is known.
        if std::fs::read_link(path.join("ns/mnt")).ok().is_none_or(|theirs| Some(theirs) == ours) {
            return None;
        }
        let list = std::fs::read(path.join("mountinfo")).ok()?;
        let name = std::fs::read_to_string(path.join("comm")).unwrap_or_default();
        has_it(list).then(|| format!("process {pid} ({})", name.trim_end()))
    })
}

fn topmost(list: &[u8], point: &Path) -> Option<Mount> {
    list.split(|byte| *byte == b'\n').filter_map(parse).rfind(|mount| mount.point == point)
}

fn parse(line: &[u8]) -> Option<Mount> {
    let mut fields = line.split(|byte| *byte == b' ');
    let device = std::str::from_utf8(fields.nth(2)?).ok()?;
    let (major, minor) = device.split_once(':')?;
    let device = Device { major: major.parse().ok()?, minor: minor.parse().ok()? };
    let point = PathBuf::from(OsString::from_vec(unescape(fields.nth(1)?)));
    let own = String::from_utf8_lossy(fields.next()?);
    // Optional fields of any number end with a lone dash; then come type, source and options.
    let mut fields = fields.skip_while(|field| *field != b"-").skip(1);
    let (kind, source) = (fields.next()?, fields.next()?);
    let options = std::str::from_utf8(fields.next().unwrap_or_default()).unwrap_or_default();
    let owner = options.split(',').find_map(|option| option.strip_prefix("user_id=")?.parse().ok());
    let owner = owner.filter(|_| kind == KIND);
    let source = String::from_utf8_lossy(&unescape(source)).into_owned();
    Some(Mount { device, point, source, owner, options: format!("{own},{options}") })
}

/// Undoes the kernel's `\ooo` for space, tab, newline and backslash.
fn unescape(field: &[u8]) -> Vec<u8> {
    let mut plain = Vec::with_capacity(field.len());
    let mut rest = field;
    while let Some((&byte, tail)) = rest.split_first() {
        rest = tail;
        match (byte, tail) {
            (b'\\', [a @ b'0'..=b'3', b @ b'0'..=b'7', c @ b'0'..=b'7', after @ ..]) => {
                plain.push((a - b'0') * 64 + (b - b'0') * 8 + (c - b'0'));
                rest = after;
            }
            _ => plain.push(byte),
        }
    }
    plain
}

/// Where a mount is now: at `point`, or where it or a directory above it was moved.
pub(super) fn place_of(point: &Path, device: Device) -> io::Result<Option<PathBuf>> {
    let places = places_of(device)?;
    let at_point = places.iter().find(|place| *place == point).cloned();
    Ok(at_point.or_else(|| places.into_iter().next()))
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIST: &[u8] = b"\
22 1 254:0 / / rw,relatime shared:1 - ext4 /dev/vda rw\n\
40 22 0:52 / /mnt/a\\040b rw,nosuid,nodev shared:9 master:2 - fuse.coffer s3://one rw,user_id=0\n\
41 22 0:53 / /mnt/a\\040b rw - fuse.coffer two\\040words rw\n\
42 22 0:54 / /mnt/a rw - tmpfs tmpfs rw\n\
broken line\n";

    #[test]
    fn the_last_mount_at_a_point_is_the_one_that_shows() {
        let mount = topmost(LIST, Path::new("/mnt/a b")).unwrap();
        assert_eq!(mount.device, Device { major: 0, minor: 53 });
        assert_eq!(mount.source, "two words");
        assert_eq!(topmost(LIST, Path::new("/mnt/a")).unwrap().source, "tmpfs");
        assert_eq!(topmost(LIST, Path::new("/mnt")), None);
    }

    #[test]
    fn what_lies_inside_a_mount_belongs_to_the_innermost() {
        let holds = |path: &str| innermost(LIST, Path::new(path));
        assert_eq!(holds("/mnt/a b/c/d"), Some("/mnt/a b".into()));
        assert_eq!(holds("/mnt/a/b"), Some("/mnt/a".into()));
        assert_eq!(holds("/mnt/ab"), Some("/".into()), "no path inside /mnt/a");
    }

    #[test]
    fn a_filesystem_is_found_wherever_it_is_mounted_and_what_is_mounted_inside_it() {
        let list = [LIST, b"43 22 0:52 /part /b\\040c rw - fuse.coffer s3://one rw,user_id=0\n"].concat();
        let device = Device { major: 0, minor: 52 };
        assert_eq!(places(&list, device), [Path::new("/mnt/a b"), Path::new("/b c")]);
        assert_eq!(inside(&list, Path::new("/mnt")), Some("/mnt/a".into()));
        assert_eq!(inside(&list, Path::new("/mnt/a")), None, "not /mnt/a b");
    }

    #[test]
    fn whose_a_mount_is_says_its_option_user_id() {
        let first = LIST.split(|b| *b == b'\n').nth(1).unwrap();
        assert_eq!(around(first, Path::new("/mnt/a b/c")).unwrap().owner, Some(0));
        assert_eq!(
            around(LIST, Path::new("/mnt/a b/c")).unwrap().source,
            "two words",
            "the last at its point"
        );
        let other = b"43 22 0:55 / /o rw - fuse.sshfs x rw,user_id=1000,group_id=0\n";
        assert_eq!(around(other, Path::new("/o")).unwrap().owner, None);
    }

    #[test]
    fn optional_fields_are_stepped_over() {
        let line = LIST.split(|b| *b == b'\n').nth(1).unwrap();
        let mount = parse(line).unwrap();
        assert_eq!(mount.source, "s3://one");
        assert_eq!(mount.options, "rw,nosuid,nodev,rw,user_id=0");
        assert_eq!(parse(b""), None);
        assert_eq!(parse(b"1 2 x:y / /p rw - t s o"), None);
    }

    #[test]
    fn escapes_are_undone_and_other_backslashes_kept() {
        assert_eq!(unescape(b"a\\134b\\011c"), b"a\\b\tc");
        assert_eq!(unescape(b"end\\"), b"end\\");
        assert_eq!(unescape(b"\\999\\40"), b"\\999\\40");
    }

    #[test]
    fn this_machine_has_a_root() {
        assert!(mounted_at(Path::new("/")).unwrap().is_some());
        assert!(mounted_at(Path::new("/no/such/mount/point")).unwrap().is_none());
    }
}
