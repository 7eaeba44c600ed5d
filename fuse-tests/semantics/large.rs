//! The far ends: names, paths, sizes, and a directory of a million entries.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};

use rustix::fs::{FallocateFlags, Mode, OFlags, fallocate, mkdirat, openat};
use rustix::io::Errno;

use crate::place::across_a_remount;
use crate::support::command::{command, run};
use crate::support::extended;
use crate::support::mount::Mount;
use crate::support::volume::Volume;

/// > **Names** are bytes: 1 to 255 of them, any but `/` and NUL. No encoding, case or normalisation is assumed: `café` in
/// > one code point more or less, and `CAFÉ`, are three files.
#[test]
fn composed_and_decomposed_names_are_two_files() {
    let (composed, decomposed, upper) = ("caf\u{e9}", "cafe\u{301}", "CAF\u{c9}");
    let invalid = OsStr::from_bytes(b"caf\xe9");
    let longest = OsString::from("é".repeat(127) + "x");
    assert_eq!(longest.len(), 255);
    let all = [composed.as_ref(), decomposed.as_ref(), upper.as_ref(), invalid, longest.as_os_str()];
    across_a_remount(
        |root| {
            for name in all {
                let mut options = File::options();
                options.write(true).create_new(true).open(root.join(name)).unwrap();
                fs::write(root.join(name), name.as_bytes()).unwrap();
            }
        },
        |root| {
            assert_eq!(fs::read_dir(root).unwrap().count(), all.len());
            for name in all {
                assert_eq!(fs::read(root.join(name)).unwrap(), name.as_bytes());
            }
            let longer = fs::write(root.join("x".repeat(256)), "");
            assert_eq!(longer.unwrap_err().raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
        },
    );
}

/// > Paths are as long as the kernel takes them, 4,095 bytes at once and any length step by step, and as deep.
#[test]
fn long_and_deep_paths_reach_the_bucket_and_come_back() {
    // Sixteen names of 249 bytes and their slashes: 4,000 bytes below the mount.
    let long: PathBuf = (0..16).map(|number| format!("{number:0249}")).collect();
    assert_eq!(long.as_os_str().len(), 3_999);
    let deep: PathBuf = (0..100).map(|number| format!("level {number}")).collect();
    across_a_remount(
        |root| {
            // Only relative paths are short enough, with the mount point before them they would be too long.
            let at = |path: &Path| path.parent().unwrap().to_owned();
            let mut shell = command("sh", ["-ec", "mkdir -p \"$1\" && printf found > \"$2\"", "sh"]);
            shell.arg(at(&long)).arg(&long).current_dir(root);
            run(shell).ok();
            fs::create_dir_all(root.join(&deep)).unwrap();
            fs::write(root.join(&deep).join("file"), "deep").unwrap();
            // Beyond what one path can say.
            let mut dir = rustix::fs::open(root, OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            for _ in 0..30 {
                let name = "d".repeat(255);
                mkdirat(&dir, name.as_str(), Mode::RWXU).unwrap();
                dir = openat(&dir, name.as_str(), OFlags::RDONLY | OFlags::DIRECTORY, Mode::empty()).unwrap();
            }
            let made = openat(&dir, "bottom", OFlags::CREATE | OFlags::WRONLY, Mode::RUSR).unwrap();
            rustix::io::write(&made, b"at the bottom").unwrap();
        },
        |root| {
            let mut cat = command("cat", [long.as_os_str()]);
            cat.current_dir(root);
            assert_eq!(run(cat).ok().text(), "found");
            assert_eq!(fs::read_to_string(root.join(&deep).join("file")).unwrap(), "deep");
            let mut find = command("find", [".", "-name", "bottom", "-size", "13c"]);
            find.current_dir(root);
            assert_eq!(run(find).ok().text().trim().len(), 1 + 30 * 256 + "/bottom".len());
            run(command("rm", ["-r".as_ref(), root.join("d".repeat(255)).as_os_str()])).ok();
        },
    );
}

/// > **Sizes.** Files are at most 2^63 - 1 bytes, sparse ones too: the last byte can be written and read. What would go
/// > beyond is `EFBIG`, or `EINVAL` where the kernel refuses the offset before it asks.
#[test]
fn the_last_byte_of_the_largest_file_can_be_written() {
    const LAST: u64 = i64::MAX as u64 - 1;
    across_a_remount(
        |root| {
            let file =
                File::options().read(true).write(true).create(true).truncate(true).open(root.join("file"));
            let file = file.unwrap();
            file.write_all_at(b"x", LAST).unwrap();
            file.write_all_at(b"first", 0).unwrap();
            let beyond = |error: std::io::Error| error.raw_os_error();
            let past_the_end = file.write_at(b"x", LAST + 1).map_err(beyond);
            assert_eq!(past_the_end, Err(Some(Errno::INVAL.raw_os_error())));
            let longer = fallocate(&file, FallocateFlags::empty(), LAST, 2);
            assert_eq!(longer, Err(Errno::FBIG));
            let append = File::options().append(true).open(root.join("file")).unwrap();
            let appended = rustix::io::write(&append, b"x");
            assert_eq!(appended, Err(Errno::FBIG));
        },
        |root| {
            let file = File::open(root.join("file")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), LAST + 1);
            assert!(file.metadata().unwrap().blocks() * 512 <= 2 * 65_536);
            let mut back = [9; 3];
            file.read_exact_at(&mut back, LAST - 2).unwrap();
            assert_eq!(back, [0, 0, b'x']);
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(65_536)).unwrap();
            assert_eq!(data, LAST / 65_536 * 65_536);
        },
    );
}

/// Most memory that the daemon ever had, in bytes.
fn peak_memory(mount: &Mount<'_>) -> u64 {
    let pid = mount.daemons()[0].as_raw_nonzero();
    let status = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024
}

/// > A directory of a million entries is listed in bounded memory.
#[test]
fn a_huge_directory_is_listed_in_bounded_memory() {
    // A million entries with their inodes are about half a gigabyte where nothing is let go.
    let (entries, most) = if extended() { (1_000_000, 256 << 20) } else { (20_000, 128 << 20) };
    let volume = Volume::local();
    let mount = volume.mount();
    fs::create_dir(mount.path("dir")).unwrap();
    for number in 0..entries {
        File::create(mount.path(format!("dir/entry {number} of a huge directory"))).unwrap();
    }
    mount.unmount();
    for mode in ["--takeover", "--read-only"] {
        let mount = volume.mount_spec().args(&["--memory", "64M", mode]).mount();
        let before = peak_memory(&mount);
        let mut listed = 0;
        for entry in fs::read_dir(mount.path("dir")).unwrap() {
            assert!(entry.unwrap().file_name().as_bytes().starts_with(b"entry "));
            listed += 1;
        }
        assert_eq!(listed, entries);
        let grown = peak_memory(&mount) - before;
        println!("{mode}: {entries} entries listed with {} MiB more", grown >> 20);
        assert!(grown < most, "{mode}: the daemon grew by {grown} bytes");
        mount.unmount();
    }
}

/// > A position taken from `telldir` stays valid while entries come and go; entries that are neither added nor removed
/// > meanwhile are shown exactly once.
#[test]
fn a_position_in_a_listing_stays_valid_while_the_directory_changes() {
    const TELL: &str = r#"
import ctypes, os, sys
libc = ctypes.CDLL(None, use_errno=True)
libc.opendir.restype = ctypes.c_void_p
libc.telldir.restype = ctypes.c_long
class Dirent(ctypes.Structure):
    _fields_ = [("ino", ctypes.c_ulong), ("off", ctypes.c_long), ("reclen", ctypes.c_ushort), ("kind", ctypes.c_ubyte), ("name", ctypes.c_char * 256)]
libc.readdir.restype = ctypes.POINTER(Dirent)
libc.readdir.argtypes = libc.telldir.argtypes = [ctypes.c_void_p]
libc.seekdir.argtypes = [ctypes.c_void_p, ctypes.c_long]
listing = libc.opendir(sys.argv[1].encode())
def rest(count=None):
    names = []
    while count is None or len(names) < count:
        entry = libc.readdir(listing)
        if not entry: break
        names.append(entry.contents.name)
    return names
first = rest(700)
place = libc.telldir(listing)
then = rest()
assert len(first) + len(then) == 3002, (len(first), len(then))
at = lambda name: os.path.join(sys.argv[1].encode(), name)
gone = set(then[::3]) - {b".", b".."}
for name in gone: os.remove(at(name))
for name in first[::2]:
    if name not in (b".", b".."): os.remove(at(name))
new = {b"new %d" % n for n in range(1500)}
for name in new: open(at(name), "w").close()
libc.seekdir(listing, place)
again = rest()
assert len(set(again)) == len(again), "twice"
# Of what came or went the kernel may show what it remembers.
stayed = [name for name in then if name not in gone]
assert [name for name in again if name in stayed] == stayed
assert not set(again) & set(first)
if sys.argv[2] == "exactly":
    assert not set(again) & gone and set(again) & new
"#;
    // With `allow_root` the kernel remembers no listings, and every position is asked for.
    for (options, how) in [("rw", "roughly"), ("allow_root", "exactly")] {
        let volume = Volume::local();
        let mount = volume.mount_spec().args(&["-o", options]).mount();
        let dir = mount.path("dir");
        fs::create_dir(&dir).unwrap();
        for number in 0..3000 {
            File::create(dir.join(format!("entry {number}"))).unwrap();
        }
        run(command("python3", ["-c".as_ref(), TELL.as_ref(), dir.as_os_str(), how.as_ref()])).ok();
        mount.unmount();
    }
}
