//! Access times under each mount option, and file handles that outlive what the kernel remembers.

use std::fs;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::Path;
use std::time::{Duration, SystemTime};

use crate::support::command::{command, run, wait_until};
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(20);
const DAY: Duration = Duration::from_secs(24 * 3600);

fn atime(path: &Path) -> (i64, i64) {
    let about = fs::symlink_metadata(path).unwrap();
    (about.atime(), about.atime_nsec())
}

fn mtime(path: &Path) -> (i64, i64) {
    let about = fs::symlink_metadata(path).unwrap();
    (about.mtime(), about.mtime_nsec())
}

/// Sets both times, as `touch -d` does.
fn set_times(path: &Path, atime: SystemTime, mtime: SystemTime) {
    let times = fs::FileTimes::new().set_accessed(atime).set_modified(mtime);
    fs::File::open(path).unwrap().set_times(times).unwrap();
}

/// Reads a file and waits for its access time to be later than `before`: the kernel shows it when it has told of the closing.
fn read_at(path: &Path, before: (i64, i64)) -> (i64, i64) {
    fs::read(path).unwrap();
    wait_until("the reading was noted", PATIENCE, || atime(path) > before);
    atime(path)
}

/// > `relatime` (the default: a read changes an access time that is not after the last change, or is a day old)
#[test]
fn reading_moves_an_access_time_that_is_not_after_the_last_change() {
    let volume = Volume::local();
    let mount = volume.mount();
    let file = mount.path("file");
    fs::write(&file, "one").unwrap();
    assert!(atime(&file) <= mtime(&file));
    let first = read_at(&file, mtime(&file));
    fs::read(&file).unwrap();
    assert_eq!(atime(&file), first, "a second read was noted too");
    fs::write(&file, "two").unwrap();
    read_at(&file, first);
    mount.unmount();
    let mount = volume.mount();
    assert!(atime(&mount.path("file")) > first, "the access time did not reach the bucket");
    mount.unmount();
}

/// > a read changes an access time that is not after the last change, or is a day old
#[test]
fn reading_moves_an_access_time_that_is_a_day_old() {
    let volume = Volume::local();
    let mount = volume.mount();
    let (file, now) = (mount.path("file"), SystemTime::now());
    fs::write(&file, "one").unwrap();
    fs::read(&file).unwrap();
    // Now the pages are in the kernel's cache, where a read would find them without asking anybody.
    set_times(&file, now - 2 * DAY, now - 3 * DAY);
    read_at(&file, atime(&file));
    mount.unmount();
}

/// > **Access times** follow the mount options
#[test]
fn with_noatime_reading_changes_nothing() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["-o", "noatime"]).mount();
    let file = mount.path("file");
    fs::write(&file, "one").unwrap();
    let before = atime(&file);
    fs::read(&file).unwrap();
    fs::read_dir(&mount.dir).unwrap().count();
    assert_eq!(atime(&file), before);
    mount.unmount();
}

/// > Under `strictatime` each opening followed by a read counts
#[test]
fn with_strictatime_every_opening_and_reading_counts() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["-o", "strictatime"]).mount();
    let file = mount.path("file");
    fs::write(&file, "one").unwrap();
    let mut last = atime(&file);
    for _ in 0..3 {
        fs::read(&file).unwrap();
        let now = atime(&file);
        assert!(now > last);
        last = now;
    }
    mount.unmount();
}

/// > `O_NOATIME` is honoured for files.
#[test]
fn a_file_opened_with_o_noatime_keeps_its_access_time() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["-o", "strictatime"]).mount();
    let file = mount.path("file");
    fs::write(&file, "one").unwrap();
    let before = atime(&file);
    let mut open = fs::OpenOptions::new().read(true).custom_flags(libc::O_NOATIME).open(&file).unwrap();
    std::io::copy(&mut open, &mut std::io::sink()).unwrap();
    drop(open);
    assert_eq!(atime(&file), before);
    mount.unmount();
}

/// > `nodiratime` leaves directories out
#[test]
fn symlinks_and_directories_have_access_times_too() {
    let volume = Volume::local();
    let mount = volume.mount();
    let (dir, link) = (mount.path("dir"), mount.path("link"));
    fs::create_dir(&dir).unwrap();
    std::os::unix::fs::symlink("dir", &link).unwrap();
    let before = (atime(&dir), atime(&link));
    fs::read_link(&link).unwrap();
    fs::read_dir(&dir).unwrap().count();
    assert!(atime(&dir) > before.0 && atime(&link) > before.1);
    mount.unmount();
    let mount = volume.mount_spec().args(&["-o", "strictatime,nodiratime"]).mount();
    let before = atime(&mount.path("dir"));
    fs::read_dir(mount.path("dir")).unwrap().count();
    assert_eq!(atime(&mount.path("dir")), before);
    mount.unmount();
}

/// Reading is no change that anybody has to wait for: neither `coffer status` nor an unmount by others does.
///
/// > It reaches the bucket with the next commit that has another reason, at unmount at the latest: by itself it is nothing
/// > unsaved.
#[test]
fn an_access_time_alone_is_nothing_unsaved() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), "one").unwrap();
    mount.sync();
    fs::read(mount.path("file")).unwrap();
    assert_eq!(mount.status()["is_safe"], true);
    let unmounted = run(command("fusermount3", ["-u".as_ref(), mount.dir.as_os_str()]));
    assert!(unmounted.status.success(), "{unmounted}");
    mount.wait_until_gone();
}

/// `name_to_handle_at(2)` in one mount, `open_by_handle_at(2)` in the next: what an NFS server does across its restart.
const HANDLES: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
what, mount, path = sys.argv[1:4]
class Handle(ctypes.Structure):
    _fields_ = [("bytes", ctypes.c_uint), ("kind", ctypes.c_int), ("data", ctypes.c_ubyte * 128)]
handle = Handle(bytes=128)
if what == "take":
    number = ctypes.c_int()
    if libc.name_to_handle_at(-100, os.path.join(mount, path).encode(), ctypes.byref(handle), ctypes.byref(number), 0):
        sys.exit("name_to_handle_at: " + os.strerror(ctypes.get_errno()))
    print(handle.kind, bytes(handle.data[:handle.bytes]).hex())
else:
    kind, data = sys.argv[4:6]
    data = bytes.fromhex(data)
    handle.bytes, handle.kind = len(data), int(kind)
    ctypes.memmove(handle.data, data, len(data))
    root = os.open(mount, os.O_RDONLY)
    opened = libc.open_by_handle_at(root, ctypes.byref(handle), os.O_RDONLY)
    if opened < 0:
        sys.exit("open_by_handle_at: " + os.strerror(ctypes.get_errno()))
    print(os.listdir(opened)[0] if os.path.isdir(f"/proc/self/fd/{opened}") else os.read(opened, 100).decode())
    if os.path.isdir(f"/proc/self/fd/{opened}"):
        print(os.readlink(f"/proc/self/fd/{opened}"))
"#;

fn handles(words: &[&str]) -> String {
    let mut python = command("python3", ["-c", HANDLES]);
    python.args(words);
    run(python).ok().text()
}

/// > **File handles** (`name_to_handle_at(2)`) mean the same file after a remount, and are stale (`ESTALE`) when it is
/// > gone
#[test]
fn a_file_handle_means_the_same_file_after_a_remount() {
    if !crate::support::tree::is_root() {
        return println!("only root can open by handle");
    }
    let volume = Volume::local();
    let mount = volume.mount();
    fs::create_dir_all(mount.path("a/b/c")).unwrap();
    fs::write(mount.path("a/b/c/file"), "contents").unwrap();
    fs::write(mount.path("a/gone"), "x").unwrap();
    let take = |path: &str| handles(&["take", mount.dir.to_str().unwrap(), path]);
    let (file, dir, gone) = (take("a/b/c/file"), take("a/b/c"), take("a/gone"));
    fs::rename(mount.path("a/b"), mount.path("moved")).unwrap();
    fs::remove_file(mount.path("a/gone")).unwrap();
    mount.unmount();
    let mount = volume.mount();
    let root = mount.dir.to_str().unwrap();
    let open = |handle: &str| {
        let (kind, data) = handle.trim().split_once(' ').unwrap();
        let mut python = command("python3", ["-c", HANDLES, "open", root, "-", kind, data]);
        python.current_dir("/");
        run(python)
    };
    assert_eq!(open(&file).ok().text().trim(), "contents");
    let found = open(&dir).ok().text();
    assert_eq!(found.lines().collect::<Vec<_>>(), ["file", &format!("{root}/moved/c")]);
    let stale = open(&gone);
    assert!(stale.stderr.contains("Stale file handle"), "{stale}");
    mount.unmount();
}
