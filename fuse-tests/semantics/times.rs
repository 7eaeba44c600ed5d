//! Times and link counts: what changes which, inode numbers, and the birth time that cannot be shown.

use std::fs::{self, File};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, RenameFlags, StatxFlags, renameat_with, statx};

use crate::place::{Place, on_a_mount};
use crate::support::command::wait_until;

/// `mtime` and `ctime`, in nanoseconds.
fn times(path: &Path) -> (i128, i128) {
    let about = fs::symlink_metadata(path).unwrap();
    let nanos = |secs: i64, nanos: i64| i128::from(secs) * 1_000_000_000 + i128::from(nanos);
    (nanos(about.mtime(), about.mtime_nsec()), nanos(about.ctime(), about.ctime_nsec()))
}

/// What changes, by `act`, of each of `paths`: `m`, `c`, both or nothing.
fn changes(paths: &[&Path], act: impl FnOnce()) -> Vec<String> {
    let before: Vec<_> = paths.iter().map(|path| times(path)).collect();
    // The clock that times are taken from must have moved on.
    let start = std::time::SystemTime::now();
    wait_until("the clock moves", std::time::Duration::from_secs(5), || {
        start.elapsed().is_ok_and(|passed| passed.as_millis() > 0)
    });
    act();
    let after = paths.iter().map(|path| times(path));
    before
        .into_iter()
        .zip(after)
        .map(|(before, after)| {
            assert!(after.0 >= before.0 && after.1 >= before.1, "a time went backward");
            let (m, c) = (after.0 > before.0, after.1 > before.1);
            format!("{}{}", if m { "m" } else { "" }, if c { "c" } else { "" })
        })
        .collect()
}

/// > **Times of directories.** Making, removing or renaming an entry changes `mtime` and `ctime` of its directory, of both
/// > if it moves between two; what is done to a file changes nothing of the directory. A new or lost hard link and a new
/// > name change the `ctime` of the file.
#[test]
fn entries_that_come_go_and_move_show_in_the_times_of_their_directories() {
    on_a_mount(|root| {
        let (one, two, file) = (root.join("one"), root.join("two"), root.join("one/file"));
        fs::create_dir(&one).unwrap();
        fs::create_dir(&two).unwrap();
        let dirs = [one.as_path(), two.as_path(), root];
        let make = |what: &str, act: &dyn Fn()| {
            assert_eq!(changes(&dirs, act), ["mc", "", ""], "making {what}");
        };
        make("a file", &|| drop(File::create(&file).unwrap()));
        make("a directory", &|| fs::create_dir(one.join("dir")).unwrap());
        make("a symbolic link", &|| symlink("x", one.join("symlink")).unwrap());
        make("a hard link", &|| fs::hard_link(&file, one.join("link")).unwrap());
        make("no hard link", &|| fs::remove_file(one.join("link")).unwrap());
        make("no directory", &|| fs::remove_dir(one.join("dir")).unwrap());
        make("another name", &|| fs::rename(one.join("symlink"), one.join("renamed")).unwrap());
        let (kept, moved) = (one.join("renamed"), two.join("moved"));
        assert_eq!(changes(&dirs, || fs::rename(&kept, &moved).unwrap()), ["mc", "mc", ""]);
        let swap = || renameat_with(CWD, &file, CWD, &moved, RenameFlags::EXCHANGE).unwrap();
        assert_eq!(changes(&dirs, swap), ["mc", "mc", ""]);
        assert_eq!(changes(&dirs, || fs::write(&moved, "x").unwrap()), ["", "", ""]);

        let link = two.join("link");
        assert_eq!(changes(&[&moved], || fs::hard_link(&moved, &link).unwrap()), ["c"]);
        assert_eq!(changes(&[&moved], || fs::remove_file(&link).unwrap()), ["c"]);
        let again = two.join("again");
        let before = times(&moved);
        fs::rename(&moved, &again).unwrap();
        assert!(times(&again).0 == before.0 && times(&again).1 > before.1);
    });
}

/// > A directory's `st_nlink` is 2 and one for each subdirectory, its `st_size` 0.
#[test]
fn a_directory_counts_its_subdirectories() {
    on_a_mount(|root| {
        let links = |path: &str| fs::metadata(root.join(path)).unwrap().nlink();
        for dir in ["a", "b", "a/x", "a/y", "b/x"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("a/file"), "").unwrap();
        assert_eq!((links(""), links("a"), links("b")), (4, 4, 3));
        fs::rename(root.join("a/x"), root.join("b/moved")).unwrap();
        assert_eq!((links("a"), links("b")), (3, 4));
        fs::rename(root.join("b/moved"), root.join("b/x")).unwrap();
        assert_eq!(links("b"), 3, "one replaced the other");
        let (file, dir) = (root.join("a/file"), root.join("b/x"));
        renameat_with(CWD, &file, CWD, &dir, RenameFlags::EXCHANGE).unwrap();
        assert_eq!((links("a"), links("b")), (4, 2));
        let open = File::open(root.join("a/y")).unwrap();
        fs::remove_dir(root.join("a/y")).unwrap();
        assert_eq!((links("a"), open.metadata().unwrap().nlink()), (3, 0));
        assert_eq!(fs::metadata(root.join("a")).unwrap().len(), 0);
    });
}

/// > **Birth time** is stored, but `statx` does not show it: the library does not carry it.
#[test]
fn statx_shows_no_birth_time_rather_than_a_wrong_one() {
    on_a_mount(|root| {
        fs::write(root.join("file"), "x").unwrap();
        let about = statx(CWD, root.join("file"), AtFlags::empty(), StatxFlags::ALL).unwrap();
        assert_eq!(about.stx_mask & StatxFlags::BTIME.bits(), 0);
        assert_eq!(about.stx_mask & StatxFlags::BASIC_STATS.bits(), StatxFlags::BASIC_STATS.bits());
    });
}

/// > **Inode numbers** are never used again, even after deletion, and stay the same across mounts.
#[test]
fn inode_numbers_stay_and_are_used_once() {
    let place = Place::new();
    let number = |path: &Path| fs::symlink_metadata(path).unwrap().ino();
    let (first, gone) = place.mounted(|root| {
        for name in ["dir", "file", "gone"] {
            fs::create_dir(root.join(name)).unwrap();
        }
        let gone = number(&root.join("gone"));
        fs::remove_dir(root.join("gone")).unwrap();
        ([number(root), number(&root.join("dir")), number(&root.join("file"))], gone)
    });
    place.mounted(|root| {
        fs::rename(root.join("dir"), root.join("renamed")).unwrap();
        assert_eq!([number(root), number(&root.join("renamed")), number(&root.join("file"))], first);
        for count in 0..200 {
            let name = root.join(count.to_string());
            fs::write(&name, "").unwrap();
            assert!(!first.contains(&number(&name)) && number(&name) != gone);
            fs::remove_file(&name).unwrap();
        }
    });
}
