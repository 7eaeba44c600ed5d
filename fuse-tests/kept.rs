//! What the kernel keeps of files and directories, where two programs use them at once or one asks what is stored.

use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::{FallocateFlags, SeekFrom, copy_file_range, fallocate, seek};

use crate::mapping::Mapping;
use crate::support::command::wait_until;
use crate::support::volume::Volume;

/// Until what is committed is told: a second, and what a busy machine adds.
const TOLD: Duration = Duration::from_secs(60);

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn blocks(path: &Path) -> u64 {
    fs::metadata(path).unwrap().blocks()
}

/// `tar -S` takes a file with no blocks for one hole, and archives zeros.
#[test]
fn what_is_stored_is_never_told_to_be_nothing_and_is_told_right_after_the_commit() {
    const LEN: usize = 9_000_000;
    let stored = (LEN as u64).div_ceil(512);
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let (first, shared) = (mount.path("first"), mount.path("shared"));
    fs::write(&first, noise(1, LEN)).unwrap();
    assert_eq!(blocks(&first), stored, "what is written is told at once");
    mount.sync();
    wait_until("the commit is told", TOLD, || blocks(&first) == stored);

    let (from, to) = (File::open(&first).unwrap(), File::create(&shared).unwrap());
    let mut left = LEN;
    while left > 0 {
        left -= copy_file_range(&from, None, &to, None, left).unwrap();
    }
    drop(to);
    assert_eq!(blocks(&shared), stored, "blocks that are shared are told, too");
    mount.sync();
    wait_until("the commit of the copy is told", TOLD, || blocks(&shared) == stored);

    let file = OpenOptions::new().write(true).open(&first).unwrap();
    fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, 0, 4 << 20).unwrap();
    blocks(&first);
    mount.sync();
    wait_until("the hole is told", TOLD, || blocks(&first) == stored - (4 << 20) / 512);
    file.set_len(0).unwrap();
    blocks(&first);
    mount.sync();
    wait_until("that it is empty is told", TOLD, || blocks(&first) == 0);
    drop((from, file));
    mount.unmount();
}

/// The kernel looks whether the listing that it keeps is of the present directory where a listing begins, and not where
/// one goes on.
#[test]
fn a_listing_that_is_made_beside_another_lacks_nothing() {
    let volume = Volume::local();
    let mount = volume.mount();
    let dir = mount.path("dir");
    fs::create_dir(&dir).unwrap();
    let names = |from: u32, to: u32| (from..to).map(|n| OsString::from(format!("{n:0>100}")));
    let make = |from, to| names(from, to).for_each(|name| drop(File::create(dir.join(name)).unwrap()));
    make(0, 2000);
    let mut first = fs::read_dir(&dir).unwrap();
    first.next();
    make(2000, 2200);
    for name in names(0, 100) {
        fs::remove_file(dir.join(name)).unwrap();
    }
    let mut second = fs::read_dir(&dir).unwrap();
    let mut seen: BTreeSet<_> = second.next().into_iter().map(|entry| entry.unwrap().file_name()).collect();
    assert!(first.count() >= 1899);
    seen.extend(second.map(|entry| entry.unwrap().file_name()));
    assert!(seen == names(100, 2200).collect(), "{} of 2,100 were listed", seen.len());
    mount.unmount();
}

/// As `tail -f` and whoever else follows a log.
#[test]
fn who_reads_what_another_appends_reads_no_zeros() {
    const LINES: usize = 30_000;
    let volume = Volume::local();
    let mount = volume.mount();
    let path = mount.path("log");
    for begins_with_reader in [true, false] {
        let mut log = File::create(&path).unwrap();
        let open = || File::open(&path).unwrap();
        let early = begins_with_reader.then(open);
        if begins_with_reader {
            log = OpenOptions::new().append(true).open(&path).unwrap();
        }
        let reader = early.unwrap_or_else(open);
        let is_done = AtomicBool::new(false);
        let zeros = std::thread::scope(|scope| {
            let follower = scope.spawn(|| {
                let (mut at, mut zeros, mut buffer) = (0, 0, vec![0; 8192]);
                loop {
                    let is_last = is_done.load(Ordering::Acquire);
                    let read = reader.read_at(&mut buffer, at).unwrap();
                    zeros += buffer[..read].iter().filter(|byte| **byte == 0).count();
                    at += read as u64;
                    if read == 0 && is_last {
                        return zeros;
                    }
                }
            });
            for n in 0..LINES {
                writeln!(log, "line {n} of what a program writes into its log").unwrap();
            }
            is_done.store(true, Ordering::Release);
            follower.join().unwrap()
        });
        assert_eq!(zeros, 0, "where the reader began first: {begins_with_reader}");
    }
    mount.unmount();
}

/// As a linker leaves a program, and a database its file while it runs: `cp` and `tar -S` ask where the data is.
#[test]
fn what_was_written_through_a_map_is_data() {
    const LEN: usize = 1 << 20;
    let volume = Volume::local();
    let mount = volume.mount();
    for is_open in [true, false] {
        let path = mount.path(format!("mapped-{is_open}"));
        let file = OpenOptions::new().read(true).write(true).create_new(true).open(&path).unwrap();
        file.set_len(LEN as u64).unwrap();
        let map = Mapping::of(&file, LEN).unwrap();
        map.write(300_000, b"hello");
        let kept = is_open.then_some((file, map));
        assert!(blocks(&path) > 0);
        let reader = File::open(&path).unwrap();
        let data = seek(&reader, SeekFrom::Data(0)).unwrap();
        let first = if is_open { 0 } else { 300_000 - 65_536 };
        assert!((first..=300_000).contains(&data), "{data}");
        let copy = mount.path(format!("copy-{is_open}"));
        let copied = std::process::Command::new("cp").arg("--sparse=auto").arg(&path).arg(&copy).status();
        assert!(copied.unwrap().success());
        assert!(fs::read(&copy).unwrap() == fs::read(&path).unwrap());
        assert_eq!(&fs::read(&copy).unwrap()[300_000..300_005], b"hello");
        drop(kept);
    }
    mount.unmount();
}
