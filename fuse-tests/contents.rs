//! File contents: holes, appends, mappings, deleted files.

use std::fs::{self, File, OpenOptions};
use std::io::{Read, Seek, SeekFrom, Write};
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::{FallocateFlags, OFlags, fallocate};

use crate::mapping::Mapping;
use crate::place::{across_a_remount, on_a_mount};

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;
const GIB: u64 = 1024 * MIB;

pub(crate) fn read_write(path: &Path) -> File {
    OpenOptions::new().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

pub(crate) fn noise(len: usize, seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// > **Unlinked files** live on while they are open.
#[test]
fn a_deleted_file_lives_as_long_as_it_is_open() {
    on_a_mount(|root| {
        fs::create_dir(root.join("dir")).unwrap();
        let path = root.join("dir/file");
        let mut file = read_write(&path);
        let data = noise(300_000, 1);
        file.write_all(&data).unwrap();
        fs::remove_file(&path).unwrap();
        fs::remove_dir(root.join("dir")).unwrap();
        assert_eq!(file.metadata().unwrap().nlink(), 0);
        file.write_all(b"and more").unwrap();
        file.sync_all().unwrap();
        let mut back = Vec::new();
        file.rewind().unwrap();
        file.read_to_end(&mut back).unwrap();
        assert!(back[..300_000] == data && back[300_000..] == *b"and more");
        assert!(!path.exists());
    });
}

/// > A file that is replaced or removed while it is open lives on for those who have it open
#[test]
fn a_replaced_file_lives_as_long_as_it_is_open() {
    on_a_mount(|root| {
        fs::write(root.join("old"), "old").unwrap();
        let old = File::open(root.join("old")).unwrap();
        fs::write(root.join("new"), "new").unwrap();
        fs::rename(root.join("new"), root.join("old")).unwrap();
        assert_eq!(std::io::read_to_string(&old).unwrap(), "old");
        assert_eq!(old.metadata().unwrap().nlink(), 0);
        assert_eq!(fs::read(root.join("old")).unwrap(), b"new");
    });
}

#[test]
fn appends_through_many_descriptors_lose_nothing() {
    across_a_remount(
        |root| {
            let path = root.join("log");
            std::thread::scope(|scope| {
                for writer in 0..4u8 {
                    let path = &path;
                    scope.spawn(move || {
                        let mut log = OpenOptions::new().append(true).create(true).open(path).unwrap();
                        for line in 0..500 {
                            log.write_all(format!("{writer} {line:04} of many\n").as_bytes()).unwrap();
                        }
                    });
                }
            });
        },
        |root| {
            let log = fs::read_to_string(root.join("log")).unwrap();
            assert_eq!(log.lines().count(), 2_000);
            for writer in 0..4u8 {
                let own = log.lines().filter(|line| line.starts_with(&format!("{writer} ")));
                let wanted = (0..500).map(|line| format!("{writer} {line:04} of many"));
                assert!(own.eq(wanted), "the lines of writer {writer} are torn or out of order");
            }
        },
    );
}

#[test]
fn what_is_cut_off_never_comes_back() {
    across_a_remount(
        |root| {
            let file = read_write(&root.join("file"));
            file.write_all_at(&noise(200_000, 2), 0).unwrap();
            file.set_len(70_001).unwrap();
            file.set_len(150_000).unwrap();
            fs::write(root.join("truncated"), noise(100_000, 3)).unwrap();
            drop(OpenOptions::new().write(true).truncate(true).open(root.join("truncated")).unwrap());
        },
        |root| {
            let back = fs::read(root.join("file")).unwrap();
            assert_eq!(back.len(), 150_000);
            assert!(back[..70_001] == noise(200_000, 2)[..70_001]);
            assert!(back[70_001..].iter().all(|byte| *byte == 0));
            assert_eq!(fs::read(root.join("truncated")).unwrap(), b"");
        },
    );
}

/// > **`mmap`** works, shared and private.
#[test]
fn a_shared_mapping_and_the_file_are_one() {
    const LEN: usize = 200_000;
    across_a_remount(
        |root| {
            let file = read_write(&root.join("mapped"));
            file.write_all_at(&noise(LEN, 4), 0).unwrap();
            let mapping = Mapping::of(&file, LEN).unwrap();
            assert!(mapping.read(0, LEN) == noise(LEN, 4), "the mapping shows what was written before");
            mapping.write(65_000, b"through the mapping");
            mapping.sync();
            let mut back = [0; 19];
            file.read_exact_at(&mut back, 65_000).unwrap();
            assert_eq!(&back, b"through the mapping");
            file.write_all_at(b"through the file", 130_000).unwrap();
            assert_eq!(mapping.read(130_000, 16), b"through the file");
            // Never synced: closing must do.
            mapping.write(199_000, b"late");
        },
        |root| {
            let mut wanted = noise(LEN, 4);
            wanted[65_000..65_019].copy_from_slice(b"through the mapping");
            wanted[130_000..130_016].copy_from_slice(b"through the file");
            wanted[199_000..199_004].copy_from_slice(b"late");
            assert!(fs::read(root.join("mapped")).unwrap() == wanted);
        },
    );
}

#[test]
fn space_is_promised_punched_and_zeroed() {
    let file_of = |root: &Path| read_write(&root.join("file"));
    across_a_remount(
        |root| {
            let file = file_of(root);
            file.write_all_at(&noise(1_000_000, 5), 0).unwrap();
            let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
            fallocate(&file, hole, 100_000, 500_000).unwrap();
            file.sync_all().unwrap();
            assert!(file.metadata().unwrap().blocks() * 512 < 700_000, "the punched space is still counted");
            fallocate(&file, FallocateFlags::KEEP_SIZE, 1_000_000, 1_000_000).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1_000_000);
            fallocate(&file, FallocateFlags::empty(), 0, 1_100_000).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 1_100_000);
            match fallocate(&file, FallocateFlags::ZERO_RANGE, 700_000, 1_000) {
                Ok(()) => {}
                Err(rustix::io::Errno::OPNOTSUPP) => file.write_all_at(&[0; 1_000], 700_000).unwrap(),
                Err(error) => panic!("zero range: {error}"),
            }
        },
        |root| {
            let mut wanted = noise(1_000_000, 5);
            wanted[100_000..600_000].fill(0);
            wanted[700_000..701_000].fill(0);
            wanted.resize(1_100_000, 0);
            assert!(fs::read(root.join("file")).unwrap() == wanted);
        },
    );
}

#[test]
fn holes_are_found_and_cost_nothing() {
    across_a_remount(
        |root| {
            let file = read_write(&root.join("sparse"));
            file.write_all_at(&[1; 4096], 10 * MIB).unwrap();
            file.set_len(20 * MIB).unwrap();
        },
        |root| {
            let mut file = File::open(root.join("sparse")).unwrap();
            let data = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)).unwrap();
            assert!(data <= 10 * MIB && data > 9 * MIB, "data begins at {data}");
            let hole = rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(10 * MIB)).unwrap();
            assert!((10 * MIB + 4096..11 * MIB).contains(&hole), "the data ends at {hole}");
            let none = rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(hole));
            assert_eq!(none, Err(rustix::io::Errno::NXIO));
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(0)), Ok(0));
            assert!(file.metadata().unwrap().blocks() * 512 <= MIB);
            file.seek(SeekFrom::Start(10 * MIB - 1)).unwrap();
            let mut around = [9; 3];
            file.read_exact(&mut around).unwrap();
            assert_eq!(around, [0, 1, 1]);
        },
    );
}

#[test]
fn a_file_beyond_four_gib_keeps_both_ends() {
    let ends = [(0, 6), (4 * GIB - 100, 7), (6 * GIB + 12_345, 8)];
    across_a_remount(
        |root| {
            let file = read_write(&root.join("huge"));
            for (at, seed) in ends {
                file.write_all_at(&noise(70_000, seed), at).unwrap();
            }
        },
        |root| {
            let file = File::open(root.join("huge")).unwrap();
            assert_eq!(file.metadata().unwrap().len(), 6 * GIB + 12_345 + 70_000);
            assert!(file.metadata().unwrap().blocks() * 512 < MIB, "holes take space");
            for (at, seed) in ends {
                let mut back = vec![0; 70_000];
                file.read_exact_at(&mut back, at).unwrap();
                assert!(back == noise(70_000, seed), "at {at}");
            }
            let mut middle = vec![1; 100_000];
            file.read_exact_at(&mut middle, 2 * GIB).unwrap();
            assert!(middle.iter().all(|byte| *byte == 0));
        },
    );
}

#[test]
fn direct_and_synchronous_writes_are_ordinary_writes() {
    across_a_remount(
        |root| {
            for (name, flags) in
                [("direct", OFlags::DIRECT), ("sync", OFlags::SYNC), ("dsync", OFlags::DSYNC)]
            {
                let flags = flags.bits().cast_signed();
                let mut options = OpenOptions::new();
                let file =
                    options.write(true).create(true).custom_flags(flags).open(root.join(name)).unwrap();
                // O_DIRECT wants memory at a multiple of the block size.
                let mut memory = vec![0; 8192 + 4096];
                let start = memory.as_ptr().align_offset(4096);
                let aligned = &mut memory[start..start + 8192];
                aligned.copy_from_slice(&noise(8192, 9));
                file.write_all_at(aligned, 0).unwrap();
            }
        },
        |root| {
            for name in ["direct", "sync", "dsync"] {
                assert!(fs::read(root.join(name)).unwrap() == noise(8192, 9), "{name}");
            }
        },
    );
}

/// > What is not committed, not aligned, or a part of a block within the target goes through memory
#[test]
fn a_range_is_copied_within_the_volume() {
    across_a_remount(
        |root| {
            let from = read_write(&root.join("from"));
            from.write_all_at(&noise(500_000, 10), 0).unwrap();
            let to = read_write(&root.join("to"));
            let (mut from_at, mut to_at) = (100_001, 5);
            while from_at < 400_001 {
                let left = 400_001 - from_at as usize;
                let copied =
                    rustix::fs::copy_file_range(&from, Some(&mut from_at), &to, Some(&mut to_at), left);
                assert!(copied.unwrap() > 0);
            }
            from.write_all_at(&[0; 300_000], 100_000).unwrap();
        },
        |root| {
            let back = fs::read(root.join("to")).unwrap();
            assert_eq!(back.len(), 300_005);
            assert!(back[5..] == noise(500_000, 10)[100_001..400_001]);
        },
    );
}
