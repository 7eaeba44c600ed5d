//! Files that are open while what is around them changes: replaced, unmounted lazily, written by several at once.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, Write};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::place::{across_a_remount, on_a_mount};
use crate::support::command::run_ok;
use crate::support::volume::Volume;

fn direct(path: &Path) -> File {
    let mut options = OpenOptions::new();
    options.read(true).write(true).create(true).custom_flags(OFlags::DIRECT.bits().cast_signed());
    options.open(path).unwrap()
}

/// > A file that is replaced or removed while it is open lives on for those who have it open, and a name is at no moment
/// > without a file.
#[test]
fn whoever_opens_a_name_that_is_replaced_over_and_over_finds_a_whole_file() {
    on_a_mount(|root| {
        let name = root.join("name");
        let contents = |version: u32| version.to_le_bytes().repeat(25_000);
        fs::write(&name, contents(0)).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for version in 1..300 {
                    fs::write(root.join("new"), contents(version)).unwrap();
                    fs::rename(root.join("new"), &name).unwrap();
                }
                done.store(true, Ordering::SeqCst);
            });
            let mut held = File::open(&name).unwrap();
            let mut opened = 0;
            while !done.load(Ordering::SeqCst) || opened == 0 {
                let found = fs::read(&name).expect("the name was there all the time");
                assert!(found.len() == 100_000 && found.chunks(4).all(|word| word == &found[..4]));
                opened += 1;
            }
            let mut back = Vec::new();
            held.read_to_end(&mut back).unwrap();
            assert!(back == contents(u32::from_le_bytes(back[..4].try_into().unwrap())));
            println!("opened {opened} times");
        });
    });
}

fn use_across(volume: &Volume, detach: impl FnOnce(&Path)) {
    let mount = volume.mount();
    let mut log = OpenOptions::new().read(true).append(true).create(true).open(mount.path("log")).unwrap();
    log.write_all(b"before, ").unwrap();
    let unlinked = direct(&mount.path("unlinked"));
    fs::remove_file(mount.path("unlinked")).unwrap();
    detach(&mount.dir);
    assert!(!mount.is_mounted());
    log.write_all(b"after").unwrap();
    let mut back = String::new();
    log.rewind().unwrap();
    log.read_to_string(&mut back).unwrap();
    assert_eq!(back, "before, after");
    unlinked.write_all_at(b"nobody sees it", 0).unwrap();
    log.sync_all().unwrap();
    log.write_all(b", and last").unwrap();
    drop((log, unlinked));
    mount.wait_until_gone();
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("log")).unwrap(), "before, after, and last");
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 1);
    mount.unmount();
}

/// > Open files go on working after either, and what is written to them is saved.
#[test]
fn open_files_work_and_are_saved_after_a_lazy_unmount() {
    let volume = Volume::local();
    use_across(&volume, |dir| {
        volume.try_verb("umount", dir, &["--lazy"]).ok();
    });
    let volume = Volume::local();
    use_across(&volume, |dir| {
        run_ok("fusermount3", ["-u".as_ref(), "-z".as_ref(), dir.as_os_str()]);
    });
}

/// > **Atomicity.** Coffer applies a write request (at most 1 MiB; the kernel splits larger writes) whole or not at all.
#[test]
fn a_direct_read_sees_a_write_whole_or_not_at_all() {
    const LEN: usize = 512 * 1024;
    on_a_mount(|root| {
        let path = root.join("file");
        direct(&path).write_all_at(&[0; LEN], 0).unwrap();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let file = direct(&path);
                for version in 1..200u8 {
                    assert_eq!(file.write_at(&[version; LEN], 0).unwrap(), LEN);
                }
                done.store(true, Ordering::SeqCst);
            });
            let (file, mut back) = (direct(&path), vec![0; LEN]);
            let mut seen = 0;
            while !done.load(Ordering::SeqCst) || seen == 0 {
                assert_eq!(file.read_at(&mut back, 0).unwrap(), LEN);
                assert!(back.iter().all(|byte| *byte == back[0]), "a part of a write was seen");
                seen += 1;
            }
            println!("{seen} reads");
        });
    });
}

/// The file has been open for reading and writing before, as by whoever made it.
///
/// > **Shared maps.** What is written through a map and by `write(2)` is one file, but for this: where a descriptor that
/// > only writes was open before any that also reads, its bytes go past the kernel's pages, and a program that at that moment
#[test]
fn what_is_written_beside_a_map_is_not_put_back() {
    const ROUNDS: u64 = 3000;
    on_a_mount(|root| {
        let path = root.join("file");
        let both =
            || OpenOptions::new().read(true).write(true).create(true).truncate(false).open(&path).unwrap();
        both().set_len(4096).unwrap();
        let only_writes = OpenOptions::new().write(true).open(&path).unwrap();
        let mapped = both();
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let map = Mapping::of(&mapped, 4096).unwrap();
                for number in (0_u64..).take_while(|_| !done.load(Ordering::Relaxed)) {
                    map.write(1024, &number.to_le_bytes());
                    if number % 64 == 0 {
                        map.sync();
                    }
                }
            });
            for number in 1..=ROUNDS {
                only_writes.write_all_at(&number.to_le_bytes(), 8).unwrap();
                let mut back = [0; 8];
                mapped.read_exact_at(&mut back, 8).unwrap();
                if u64::from_le_bytes(back) != number {
                    done.store(true, Ordering::Relaxed);
                    panic!("{number} was written, {} is there", u64::from_le_bytes(back));
                }
            }
            done.store(true, Ordering::Relaxed);
        });
    });
}

/// > **`O_DIRECT`** passes the kernel's cache by, takes any offset, length and memory, and promises no durability, as
/// > anywhere. Through both ways at once a file is one.
#[test]
fn direct_reads_and_writes_of_any_alignment_agree_with_cached_ones() {
    across_a_remount(
        |root| {
            let (path, mut wanted) = (root.join("file"), vec![7; 300_000]);
            let (through, cached) = (direct(&path), OpenOptions::new().read(true).write(true).open(&path));
            let cached = cached.unwrap();
            cached.write_all_at(&wanted, 0).unwrap();
            for (at, len) in [(1, 1), (511, 4097), (65_535, 2), (100_001, 131_073)] {
                through.write_all_at(&vec![9; len], at).unwrap();
                wanted[at as usize..at as usize + len].fill(9);
                let mut back = vec![0; len + 2];
                cached.read_exact_at(&mut back, at - 1).unwrap();
                assert_eq!(back, wanted[at as usize - 1..at as usize + len + 1], "{len} bytes at {at}");
                cached.write_all_at(&[5; 3], at).unwrap();
                wanted[at as usize..at as usize + 3].fill(5);
                through.read_exact_at(&mut back[..3], at).unwrap();
                assert_eq!(back[..3], [5; 3]);
            }
        },
        |root| {
            let back = fs::read(root.join("file")).unwrap();
            assert_eq!((back.len(), back[0], back[511], back[65_536]), (300_000, 7, 5, 5));
        },
    );
}

/// > **`O_TMPFILE`** is `EOPNOTSUPP`: the library used here has no such request. Programs that use it fall back to a named
/// > file.
#[test]
fn a_file_without_a_name_cannot_be_made() {
    on_a_mount(|root| {
        let mut options = OpenOptions::new();
        let made = options.write(true).custom_flags(OFlags::TMPFILE.bits().cast_signed()).open(root);
        assert_eq!(made.unwrap_err().raw_os_error(), Some(Errno::OPNOTSUPP.raw_os_error()));
        let file = tempfile::tempfile_in(root).unwrap();
        file.write_all_at(b"by way of a name", 0).unwrap();
        assert_eq!(fs::read_dir(root).unwrap().count(), 0);
    });
}
