//! What programs wrote stays what others read, whoever opens, lists or looks for holes meanwhile.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{Advice, CWD, Dir, RenameFlags, SeekFrom, fadvise, renameat_with, seek};

use crate::mapping::Mapping;
use crate::support::command::{run, wait_until};
use crate::support::extended;
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(20);

fn file_at(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(true).open(path).unwrap()
}

/// Counts in a file by reading the number and writing the next one, while others open, read and close it or look for holes in it.
fn count_among_readers(path: &Path) {
    let rounds = if extended() { 400_000 } else { 8000 };
    let (file, is_over) = (file_at(path), AtomicBool::new(false));
    file.write_all_at(&0_u64.to_be_bytes(), 0).unwrap();
    std::thread::scope(|scope| {
        for looks_for_holes in [false, false, true] {
            let is_over = &is_over;
            scope.spawn(move || {
                while !is_over.load(Ordering::Relaxed) {
                    let file = File::open(path).unwrap();
                    if looks_for_holes {
                        seek(&file, SeekFrom::Hole(0)).unwrap();
                    }
                    file.read_exact_at(&mut [0; 8], 0).unwrap();
                }
            });
        }
        let mut wrong = 0;
        for number in 0..rounds {
            let mut read = [0; 8];
            file.read_exact_at(&mut read, 0).unwrap();
            wrong += u32::from(u64::from_be_bytes(read) != number);
            file.write_all_at(&(number + 1).to_be_bytes(), 0).unwrap();
        }
        is_over.store(true, Ordering::Relaxed);
        assert_eq!(wrong, 0, "reads that gave what the number had been before the last write");
    });
    fadvise(&file, 0, None, Advice::DontNeed).unwrap();
    assert_eq!(fs::read(path).unwrap(), rounds.to_be_bytes());
}

/// > What a write has returned is what every later read gives, however the file is opened meanwhile, and by whom.
#[test]
fn a_write_that_has_returned_is_read_whoever_opens_the_file() {
    let volume = Volume::local();
    for options in ["relatime", "strictatime", "noatime"] {
        let mount = volume.mount_spec().args(&["-o", options]).mount();
        count_among_readers(&mount.path("counter"));
        mount.unmount();
    }
}

/// > What programs have written through maps the kernel hands over first; while there is no room for it, or others have the
/// > file open for writing, all of the file is data.
#[test]
fn all_of_a_file_is_data_that_others_have_open_for_writing() {
    const BLOCK: u64 = 65_536;
    let volume = Volume::local();
    let mount = volume.mount();
    let path = mount.path("file");
    let writer = file_at(&path);
    writer.set_len(4 * BLOCK).unwrap();
    let mapping = Mapping::of(&writer, 4 * BLOCK as usize).unwrap();
    mapping.write(3 * BLOCK as usize, b"x");
    let reader = File::open(&path).unwrap();
    let data = |file: &File| seek(file, SeekFrom::Data(0)).unwrap();
    assert_eq!((data(&reader), seek(&reader, SeekFrom::Hole(0)).unwrap()), (0, 4 * BLOCK));
    assert_eq!(data(&writer), 3 * BLOCK, "nobody else writes");
    mapping.write(BLOCK as usize, b"x");
    assert_eq!(data(&writer), BLOCK);
    assert_eq!(seek(&writer, SeekFrom::Hole(BLOCK)).unwrap(), 2 * BLOCK);
    mapping.write(0, b"x");
    drop((mapping, writer));
    wait_until("the writer is closed", PATIENCE, || seek(&reader, SeekFrom::Hole(0)) == Ok(2 * BLOCK));
    drop(reader);
    mount.unmount();
}

/// > `..` is listed as the parent that a directory has now.
#[test]
fn a_listing_shows_the_new_parent_of_a_directory_that_was_moved() {
    let volume = Volume::local();
    let mount = volume.mount();
    for dir in ["one/moved/below", "two/other"] {
        fs::create_dir_all(mount.path(dir)).unwrap();
    }
    let parent_of = |path: &str| {
        let listing = Dir::new(File::open(mount.path(path)).unwrap()).unwrap();
        let parent = listing.map(Result::unwrap).find(|entry| entry.file_name() == c"..");
        parent.expect("each listing has its parent").ino()
    };
    let ino = |path: &str| fs::metadata(mount.path(path)).unwrap().ino();
    for _ in 0..3 {
        assert_eq!(parent_of("one/moved"), ino("one"));
        assert_eq!(parent_of("two/other"), ino("two"));
    }
    fs::rename(mount.path("one/moved"), mount.path("two/moved")).unwrap();
    for _ in 0..3 {
        assert_eq!(parent_of("two/moved"), ino("two"));
    }
    let (one, other) = (mount.path("one/below"), mount.path("two/other"));
    fs::rename(mount.path("two/moved"), &one).unwrap();
    renameat_with(CWD, &one, CWD, &other, RenameFlags::EXCHANGE).unwrap();
    for _ in 0..3 {
        assert_eq!(parent_of("one/below"), ino("one"));
        assert_eq!(parent_of("two/other"), ino("two"));
    }
    mount.unmount();
}

/// > What the quota has no room for when the kernel sends it is lost, and told once: by `msync` or `fsync`, or by whoever syncs or
/// > unmounts first.
#[test]
fn what_was_written_through_a_map_beyond_the_quota_is_told_once_and_keeps_no_mount() {
    const MIB: u64 = 1 << 20;
    let volume = Volume::local_without_init();
    let mut init = volume.init_command();
    init.args(["--quota", "2M"]);
    run(init).ok();
    let mount = volume.mount();
    let file = file_at(&mount.path("file"));
    file.set_len(4 * MIB).unwrap();
    let mapping = Mapping::of(&file, 4 * MIB as usize).unwrap();
    mapping.write(0, &vec![1; 4 * MIB as usize]);
    drop((mapping, file));
    let told = volume.try_verb("umount", &mount.dir, &[]);
    assert_eq!(told.code(), 31, "{told}");
    assert!(told.stderr.contains("through a map") && told.stderr.contains("No space left"), "{told}");
    mount.wait_until_gone();
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap().len() as u64, 4 * MIB);
    mount.unmount();
}
