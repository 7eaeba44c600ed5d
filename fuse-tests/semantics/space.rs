//! Space: every mode of `fallocate`, holes, what `st_blocks` tells, and copies that share what is stored.

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::{FallocateFlags, fallocate};
use rustix::io::Errno;

use crate::place::on_a_mount;
use crate::support::command::{command, run, wait_until};
use crate::support::mount::Mount;
use crate::support::volume::Volume;

const BLOCK: u64 = 65_536;
const MIB: u64 = 1024 * 1024;
const GIB: u64 = 1024 * MIB;

fn file_at(path: &Path) -> File {
    File::options().read(true).write(true).create(true).truncate(false).open(path).unwrap()
}

/// > Mode 0 lengthens the file; `KEEP_SIZE` only sets the times; both fail with `ENOSPC` if the quota could not hold the
/// > range. `PUNCH_HOLE | KEEP_SIZE` and `ZERO_RANGE` make whole blocks holes and zero the rest. `COLLAPSE_RANGE`,
/// > `INSERT_RANGE` and `UNSHARE_RANGE` are `EOPNOTSUPP`.
#[test]
fn each_mode_of_fallocate_does_what_it_says_or_is_refused() {
    const KEEP: FallocateFlags = FallocateFlags::KEEP_SIZE;
    const PUNCH: FallocateFlags = FallocateFlags::PUNCH_HOLE;
    const ZERO: FallocateFlags = FallocateFlags::ZERO_RANGE;
    on_a_mount(|root| {
        let written = vec![1; 4 * BLOCK as usize];
        let (at, len) = (BLOCK / 2, 2 * BLOCK);
        let try_mode = |mode: FallocateFlags, at: u64, len: u64| {
            let file = file_at(&root.join("file"));
            file.set_len(0).unwrap();
            file.write_all_at(&written, 0).unwrap();
            fallocate(&file, mode, at, len).map(|()| {
                let back = fs::read(root.join("file")).unwrap();
                let zeroed = back.iter().filter(|byte| **byte == 0).count() as u64;
                (back.len() as u64, zeroed)
            })
        };
        let (size, end) = (4 * BLOCK, 4 * BLOCK);
        assert_eq!(try_mode(FallocateFlags::empty(), at, len), Ok((size, 0)), "what is there stays");
        assert_eq!(try_mode(FallocateFlags::empty(), end, len), Ok((size + len, len)));
        assert_eq!(try_mode(KEEP, end, len), Ok((size, 0)));
        assert_eq!(try_mode(PUNCH | KEEP, at, len), Ok((size, len)));
        assert_eq!(try_mode(PUNCH | KEEP, end, len), Ok((size, 0)));
        assert_eq!(try_mode(ZERO, at, len), Ok((size, len)));
        assert_eq!(try_mode(ZERO, end - 10, 20), Ok((size + 10, 20)));
        assert_eq!(try_mode(ZERO | KEEP, end - 10, 20), Ok((size, 10)));
        for mode in [
            PUNCH,
            FallocateFlags::COLLAPSE_RANGE,
            FallocateFlags::INSERT_RANGE,
            FallocateFlags::UNSHARE_RANGE,
        ] {
            assert_eq!(try_mode(mode, BLOCK, BLOCK), Err(Errno::OPNOTSUPP), "{mode:?}");
        }
        assert_eq!(try_mode(FallocateFlags::empty(), 0, 0), Err(Errno::INVAL));
        assert_eq!(try_mode(FallocateFlags::empty(), i64::MAX as u64, 1), Err(Errno::FBIG));
    });
    let volume = Volume::local_without_init();
    let mut init = volume.init_command();
    init.args(["--quota", "10M"]);
    run(init).ok();
    let mount = volume.mount();
    let file = file_at(&mount.path("file"));
    for mode in [FallocateFlags::empty(), KEEP] {
        assert_eq!(fallocate(&file, mode, 0, 20 * MIB), Err(Errno::NOSPC));
    }
    fallocate(&file, FallocateFlags::empty(), 0, MIB).unwrap();
    assert_eq!(mount.status()["mounts"][0]["volume"]["stored_bytes"], 0, "space was set aside");
    drop(file);
    mount.unmount();
}

/// > **Holes.** A hole is a block of 64 KiB that was never written, or was punched or cut off. `SEEK_DATA` and `SEEK_HOLE`
/// > tell blocks, not bytes. Written zeros are data.
#[test]
fn data_and_holes_are_told_in_blocks() {
    on_a_mount(|root| {
        let file = file_at(&root.join("file"));
        file.write_all_at(&[0; 10], 5 * BLOCK + 100).unwrap();
        file.write_all_at(&[1; 3 * BLOCK as usize], 10 * BLOCK).unwrap();
        let hole = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
        fallocate(&file, hole, 11 * BLOCK, BLOCK).unwrap();
        file.set_len(20 * BLOCK).unwrap();
        for stage in ["in memory", "stored"] {
            let data = |at| rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(at));
            let hole = |at| rustix::fs::seek(&file, rustix::fs::SeekFrom::Hole(at));
            assert_eq!(data(0), Ok(5 * BLOCK), "{stage}");
            assert_eq!(data(5 * BLOCK + 200), Ok(5 * BLOCK + 200), "{stage}: a block is data as a whole");
            assert_eq!(hole(5 * BLOCK), Ok(6 * BLOCK), "{stage}");
            assert_eq!(data(6 * BLOCK), Ok(10 * BLOCK), "{stage}");
            assert_eq!(hole(10 * BLOCK), Ok(11 * BLOCK), "{stage}");
            assert_eq!(data(11 * BLOCK), Ok(12 * BLOCK), "{stage}");
            assert_eq!(hole(12 * BLOCK), Ok(13 * BLOCK), "{stage}");
            assert_eq!(data(13 * BLOCK), Err(Errno::NXIO), "{stage}");
            assert_eq!(hole(19 * BLOCK + 7), Ok(19 * BLOCK + 7), "{stage}");
            assert_eq!(hole(20 * BLOCK), Err(Errno::NXIO), "{stage}: the end");
            file.sync_all().unwrap();
        }
    });
}

/// A guest's disk trims in pieces of 4 KiB.
///
/// > **Holes.** A hole is a block of 64 KiB that was never written, or was punched or cut off.
#[test]
fn to_punch_a_part_of_a_hole_stores_nothing() {
    on_a_mount(|root| {
        let file = file_at(&root.join("file"));
        file.set_len(16 * BLOCK).unwrap();
        file.write_all_at(&[1; 100], 8 * BLOCK).unwrap();
        let punch = |from, len| {
            fallocate(&file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, from, len).unwrap();
        };
        for part in 0..16 {
            punch(part * BLOCK + 4096, 4096);
        }
        punch(2 * BLOCK + 100, BLOCK);
        punch(7 * BLOCK + 5, BLOCK);
        for _ in ["in memory", "stored"] {
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(0)), Ok(8 * BLOCK));
            assert_eq!(rustix::fs::seek(&file, rustix::fs::SeekFrom::Data(9 * BLOCK)), Err(Errno::NXIO));
            let mut bytes = [7; 100];
            file.read_exact_at(&mut bytes, 8 * BLOCK).unwrap();
            assert_eq!((bytes[..5].to_vec(), bytes[5..].to_vec()), (vec![0; 5], vec![1; 95]));
            file.sync_all().unwrap();
        }
    });
}

/// > **`st_blocks`** counts stored plaintext in units of 512, with what is not committed yet; a block that is being
/// > overwritten counts twice until a second after the commit. It says nothing of compression. `st_blksize` is 65,536.
#[test]
fn blocks_count_plaintext_before_and_after_a_commit() {
    on_a_mount(|root| {
        let file = file_at(&root.join("file"));
        let blocks = || file.metadata().unwrap().blocks() * 512;
        file.write_all_at(&vec![0; 4 * BLOCK as usize], 0).unwrap();
        assert_eq!(blocks(), 4 * BLOCK);
        file.sync_all().unwrap();
        assert_eq!(blocks(), 4 * BLOCK, "four blocks of zeros");
        file.write_all_at(&vec![1; BLOCK as usize], 0).unwrap();
        assert_eq!(blocks(), 5 * BLOCK);
        file.sync_all().unwrap();
        wait_until("the kernel asks again", Duration::from_secs(20), || blocks() == 4 * BLOCK);
        file.set_len(100 * BLOCK).unwrap();
        assert_eq!((blocks(), file.metadata().unwrap().blksize()), (4 * BLOCK, BLOCK));
    });
}

fn copy(from: &File, from_at: u64, to: &File, to_at: u64, len: u64) -> rustix::io::Result<()> {
    let (mut from_at, mut to_at) = (from_at, to_at);
    let end = from_at + len;
    while from_at < end {
        let left = (end - from_at) as usize;
        let copied = rustix::fs::copy_file_range(from, Some(&mut from_at), to, Some(&mut to_at), left)?;
        assert!(copied > 0, "the copy ends early");
    }
    Ok(())
}

/// PUT requests, and the bytes they carried.
fn sent(mount: &Mount<'_>) -> (u64, u64) {
    let store = &mount.status()["mounts"][0]["store"];
    (store["puts"].as_u64().unwrap(), store["put_bytes"].as_u64().unwrap())
}

/// > **`copy_file_range`** shares stored blocks where both offsets are multiples of 64 KiB, up to 256 MiB in one call,
/// > without touching the bucket. What is not committed, not aligned, or a part of a block within the target goes
/// > through memory, up to 1 MiB in one call; so do the last few blocks of an `fsync`, which lie in records for a
/// > while. It may copy less than asked for. Overlapping ranges of one file are `EINVAL`. `FICLONE` and `chattr` are
/// > refused.
#[test]
fn a_copy_of_a_gibibyte_sends_no_contents() {
    const FIRST: u64 = 64 * MIB;
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1s"]).mount();
    let from = file_at(&mount.path("from"));
    let mut noise = vec![0; FIRST as usize];
    SmallRng::seed_from_u64(1).fill_bytes(&mut noise);
    from.write_all_at(&noise, 0).unwrap();
    // By age: a commit that somebody waits for may leave the last block in a record.
    wait_until("everything is committed", Duration::from_secs(60), || mount.status()["is_safe"] == true);
    let before = sent(&mount);
    assert!(before.1 >= FIRST);
    let mut len = FIRST;
    while len < GIB {
        copy(&from, 0, &from, len, len).unwrap();
        len *= 2;
    }
    let to = file_at(&mount.path("to"));
    copy(&from, 0, &to, 0, GIB).unwrap();
    mount.sync();
    let after = sent(&mount);
    println!("{} PUTs of {} bytes", after.0 - before.0, after.1 - before.1);
    assert!(after.1 - before.1 < MIB, "contents were sent");
    assert!(after.0 - before.0 < 16, "more than a few commits of records");
    assert_eq!(to.metadata().unwrap().len(), GIB);

    // A change to the one is none to the other.
    from.write_all_at(b"changed", 0).unwrap();
    let mut back = vec![0; 100_000];
    for at in [0, 3 * FIRST - 50_000, GIB - 100_000] {
        to.read_exact_at(&mut back, at).unwrap();
        let wanted = noise.iter().cycle().skip((at % FIRST) as usize);
        assert!(back.iter().eq(wanted.take(back.len())), "at {at}");
    }
    assert_eq!(copy(&to, 0, &to, 5, 10), Err(Errno::INVAL));
    drop((from, to));
    let (one, two) = (mount.path("to"), mount.path("clone"));
    let reflink = command("cp", ["--reflink=always".as_ref(), one.as_os_str(), two.as_os_str()]);
    for refused in [reflink, command("chattr", ["+i".as_ref(), one.as_os_str()])] {
        let refused = run(refused);
        assert!(refused.stderr.contains("not supported"), "{refused}");
    }
    mount.unmount();
}
