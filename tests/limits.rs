//! Arguments at and beyond every limit: the right errno, and nothing changed.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;

use coffer::base::{FileKind, Ino, OsEntropy, SystemClock};
use coffer::vfs::{Handle, SetAttr, Vfs, VfsError, VfsOptions, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions};
use object_store::memory::InMemory;

use in_memory::{CALLER, World, factors, spec};

fn errno<T>(result: Result<T, VfsError>) -> i32 {
    result.err().map_or(0, |error| error.errno())
}

async fn make(vfs: &Vfs, name: &[u8]) -> Ino {
    vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap().ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn names_of_every_length_and_kind_are_taken_or_refused() {
    let (opened, _) = World::new().await.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let create = |name: Vec<u8>| async move { vfs.create(&CALLER, Ino::ROOT, &name, 0o644, true).await };
    assert_eq!(errno(create(vec![]).await), libc::ENOENT);
    assert_eq!(errno(create(vec![b'n'; 256]).await), libc::ENAMETOOLONG);
    assert_eq!(errno(create(vec![b'n'; 5000]).await), libc::ENAMETOOLONG);
    assert_eq!(errno(create(b"a/b".to_vec()).await), libc::EINVAL);
    assert_eq!(errno(create(b"a\0b".to_vec()).await), libc::EINVAL);
    assert_eq!(errno(create(vec![0xFF; 255]).await), 0);
    assert_eq!(vfs.readdir(Ino::ROOT, 0, 100).await.unwrap().len(), 3);

    let file = make(vfs, b"file").await;
    assert_eq!(errno(vfs.lookup(file, b"below").await), libc::ENOTDIR);
    assert_eq!(errno(vfs.create(&CALLER, file, b"below", 0o644, true).await), libc::ENOTDIR);
    assert_eq!(errno(vfs.readdir(file, 0, 10).await), libc::ENOTDIR);
    assert_eq!(errno(vfs.lookup(Ino(999), b"x").await), libc::ENOENT);
    assert_eq!(errno(vfs.symlink(&CALLER, Ino::ROOT, b"link", &[b'x'; 4096]).await), libc::ENAMETOOLONG);
    assert_eq!(errno(vfs.symlink(&CALLER, Ino::ROOT, b"link", b"").await), libc::ENOENT);
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn offsets_up_to_the_largest_work_and_those_beyond_are_refused() {
    let world = World::new().await;
    let (opened, _) = world.open(OpenOptions::default()).await;
    let file = make(&opened.vfs, b"file").await;
    let last = i64::MAX as u64 - 1;
    assert_eq!(opened.vfs.write(file, last, b"x", true).await.unwrap(), 1);
    for offset in [last + 1, 1 << 63, u64::MAX] {
        assert_eq!(errno(opened.vfs.write(file, offset, b"xy", true).await), libc::EFBIG);
        assert_eq!(opened.vfs.read(Handle(0), file, offset, 10).await.unwrap(), b"");
    }
    let grow = SetAttr { size: Some(1 << 63), ..SetAttr::default() };
    assert_eq!(errno(opened.vfs.setattr(&CALLER, file, &grow).await), libc::EFBIG);
    assert_eq!(errno(opened.vfs.fallocate(file, 0, 1 << 62, 1 << 62).await), libc::EFBIG);
    assert_eq!(errno(opened.vfs.fallocate(file, 0, 0, 0).await), libc::EINVAL);
    assert_eq!(errno(opened.vfs.copy_file_range(file, 0, file, last, 100).await), libc::EFBIG);
    opened.close().await.unwrap();

    let (opened, _) = world.open(OpenOptions::default()).await;
    let found = opened.vfs.lookup(Ino::ROOT, b"file").await.unwrap();
    assert_eq!(found.size, i64::MAX as u64);
    assert_eq!(opened.vfs.read(Handle(0), found.ino, last - 1, 10).await.unwrap(), b"\0x");
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    assert_eq!(opened.vfs.setattr(&CALLER, found.ino, &cut).await.unwrap().size, 0);
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_full_quota_refuses_more_and_gives_room_again() {
    let world = World(Arc::new(InMemory::new()));
    let quota = NewVolumeSpec { quota_bytes: 1 << 20, ..spec() };
    let clock = Arc::new(SystemClock::default());
    volume::create(&world.bucket(), &quota, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let (opened, _) = world.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let file = make(vfs, b"file").await;
    vfs.write(file, 0, &[7; 1_000_000], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    assert_eq!(errno(vfs.write(file, 1_000_000, &[7; 100_000], true).await), libc::ENOSPC);
    assert_eq!(errno(vfs.fallocate(file, 0, 0, 4 << 20).await), libc::ENOSPC);
    let copy = make(vfs, b"copy").await;
    assert_eq!(errno(vfs.copy_file_range(file, 0, copy, 0, 1_000_000).await), libc::ENOSPC);
    assert_eq!(vfs.getattr(file).await.unwrap().size, 1_000_000);
    assert_eq!(vfs.read(Handle(0), file, 0, 2_000_000).await.unwrap(), [7; 1_000_000]);
    let space = vfs.statfs().await.unwrap();
    assert_eq!(space.blocks, 16);
    assert!(space.blocks_free <= 1);

    vfs.unlink(Ino::ROOT, b"file").await.unwrap();
    vfs.forget(file, 1);
    vfs.sync_all().await.unwrap();
    assert_eq!(vfs.statfs().await.unwrap().blocks_free, 16);
    vfs.write(copy, 0, &[8; 900_000], true).await.unwrap();
    opened.close().await.unwrap();
}

/// Whoever opens the volume after that keeps to it, and so does who follows it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_is_set_at_any_time_and_stays_with_the_volume() {
    let world = World::new().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let file = make(vfs, b"file").await;
    vfs.write(file, 0, &[7; 1_000_000], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    let before = bucket.meter().snapshot().puts;
    vfs.set_quota(1 << 20).await.unwrap();
    assert_eq!(bucket.meter().snapshot().puts - before, 1, "it is one commit, and in the bucket");
    assert_eq!(errno(vfs.write(file, 1_000_000, &[7; 100_000], true).await), libc::ENOSPC);
    assert_eq!(vfs.statfs().await.unwrap().blocks, 16);

    let read_only = VfsOptions { read_only: true, ..VfsOptions::default() };
    let (reader, _) = world.open(OpenOptions { vfs: read_only, ..OpenOptions::default() }).await;
    assert_eq!(reader.vfs.status().quota_bytes, 1 << 20);
    assert_eq!(errno(reader.vfs.set_quota(0).await), libc::EROFS);
    // Less than is stored: that stays, and nothing comes to it.
    vfs.set_quota(1000).await.unwrap();
    assert_eq!(errno(vfs.write(file, 1_000_000, b"more", true).await), libc::ENOSPC);
    assert_eq!(vfs.read(Handle(0), file, 999_999, 2).await.unwrap(), [7]);
    assert!(reader.vfs.follow().await.unwrap());
    assert_eq!(reader.vfs.status().quota_bytes, 1000);
    reader.close().await.unwrap();
    opened.close().await.unwrap();

    let (opened, _) = world.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let file = vfs.lookup(Ino::ROOT, b"file").await.unwrap().ino;
    assert_eq!(errno(vfs.write(file, 1_000_000, b"more", true).await), libc::ENOSPC);
    vfs.set_quota(0).await.unwrap();
    vfs.write(file, 1_000_000, &[7; 3_000_000], true).await.unwrap();
    opened.close().await.unwrap();
}

/// Nothing is committed here but by whoever needs the room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn at_a_full_quota_what_is_there_can_be_written_over_and_what_was_removed_makes_room_at_once() {
    const QUOTA: usize = 1 << 20;
    let world = World(Arc::new(InMemory::new()));
    let quota = NewVolumeSpec { quota_bytes: QUOTA as u64, ..spec() };
    let clock = Arc::new(SystemClock::default());
    volume::create(&world.bucket(), &quota, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let vfs = VfsOptions { commit_age: std::time::Duration::from_secs(3600), ..VfsOptions::default() };
    let (opened, _) = world.open(OpenOptions { vfs, ..OpenOptions::default() }).await;
    let vfs = &opened.vfs;
    let (small, large) = (make(vfs, b"small").await, make(vfs, b"large").await);
    vfs.write(small, 0, &[1; 100], true).await.unwrap();
    vfs.write(large, 0, &[2; QUOTA - 100], true).await.unwrap();
    // A third time over what is not committed yet, and with no regard for where blocks end.
    for round in 3..6 {
        vfs.write(small, 0, &[round; 100], true).await.unwrap();
        for at in (0..QUOTA - 100).step_by(100_000) {
            let len = (QUOTA - 100 - at).min(100_000);
            vfs.write(large, at as u64, &vec![round; len], true).await.unwrap();
        }
    }
    assert_eq!(vfs.read(Handle(0), large, 0, QUOTA).await.unwrap(), [5; QUOTA - 100]);
    assert_eq!(errno(vfs.write(large, QUOTA as u64 - 101, &[6; 2], true).await), libc::ENOSPC);
    let longer = SetAttr { size: Some(4 << 20), ..SetAttr::default() };
    vfs.setattr(&CALLER, large, &longer).await.unwrap();
    assert_eq!(errno(vfs.write(large, 2 << 20, &[6; 2], true).await), libc::ENOSPC, "into a hole");
    assert_eq!(errno(vfs.write(large, QUOTA as u64 - 101, &[6; 2], true).await), libc::ENOSPC, "half of it");

    vfs.unlink(Ino::ROOT, b"large").await.unwrap();
    vfs.forget(large, 1);
    let next = make(vfs, b"next").await;
    vfs.write(next, 0, &[7; QUOTA - 100], true).await.unwrap();
    let shorter = SetAttr { size: Some(0), ..SetAttr::default() };
    vfs.setattr(&CALLER, next, &shorter).await.unwrap();
    vfs.fallocate(next, 0, 0, QUOTA as u64 - 100).await.unwrap();
    assert_eq!(errno(vfs.fallocate(next, 0, 0, QUOTA as u64 * 3).await), libc::ENOSPC);
    opened.close().await.unwrap();
}

/// What is in the bucket and not committed is neither dirty nor stored, and counts all the same.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_quota_counts_what_is_uploaded_and_not_committed() {
    const MIB: usize = 1 << 20;
    let world = World(Arc::new(InMemory::new()));
    let quota = NewVolumeSpec { quota_bytes: 10 << 20, ..spec() };
    let clock = Arc::new(SystemClock::default());
    volume::create(&world.bucket(), &quota, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let vfs = VfsOptions { commit_age: std::time::Duration::from_secs(3600), ..VfsOptions::default() };
    let (opened, _) = world.open(OpenOptions { vfs, ..OpenOptions::default() }).await;
    let vfs = &opened.vfs;
    let file = make(vfs, b"file").await;
    for part in 0..9 {
        vfs.write(file, (part * MIB) as u64, &[7; MIB], true).await.unwrap();
    }
    while vfs.dirty_bytes() > 2 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    assert_eq!(errno(vfs.write(file, 9 * MIB as u64, &[7; 2 * MIB], true).await), libc::ENOSPC);
    vfs.write(file, 9 * MIB as u64, &[7; MIB], true).await.unwrap();
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn attributes_keep_to_the_limits_of_linux() {
    let (opened, _) = World::new().await.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let file = make(vfs, b"file").await;
    let set =
        |name: Vec<u8>, value: Vec<u8>, mode| async move { vfs.set_xattr(file, &name, &value, mode).await };
    assert_eq!(errno(set(b"user.big".to_vec(), vec![1; 65_537], XattrMode::Set).await), libc::E2BIG);
    assert_eq!(errno(set(b"user.big".to_vec(), vec![1; 65_536], XattrMode::Set).await), 0);
    assert_eq!(errno(set(vec![b'n'; 256], vec![], XattrMode::Set).await), libc::ERANGE);
    assert_eq!(errno(set(b"user.big".to_vec(), vec![], XattrMode::Create).await), libc::EEXIST);
    assert_eq!(errno(set(b"user.none".to_vec(), vec![], XattrMode::Replace).await), libc::ENODATA);
    assert_eq!(errno(vfs.get_xattr(file, b"user.none").await), libc::ENODATA);
    vfs.sync_all().await.unwrap();
    assert_eq!(vfs.get_xattr(file, b"user.big").await.unwrap(), vec![1; 65_536]);
    assert_eq!(vfs.list_xattr(file).await.unwrap(), b"user.big\0");
    assert_eq!(errno(vfs.mknod(&CALLER, Ino::ROOT, b"d", FileKind::Directory, 0, 0).await), libc::EINVAL);
    opened.close().await.unwrap();
}

/// Writers wait at the dirty limit, and every one of them gets on.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn writers_wait_at_the_limit_and_lose_nothing() {
    let world = World::new().await;
    let limit = 1 << 20;
    let vfs = VfsOptions { dirty_bytes_max: limit, ..VfsOptions::default() };
    let (opened, _) = world.open(OpenOptions { vfs, ..OpenOptions::default() }).await;
    let mut writers = Vec::new();
    for number in 0..8u8 {
        let vfs = Arc::clone(&opened.vfs);
        writers.push(tokio::spawn(async move {
            let file = make(&vfs, &[b'0' + number]).await;
            for block in 0..40u64 {
                vfs.write(file, block * 100_000, &[number + 1; 100_000], true).await.unwrap();
                // One write that finds room may pass the limit beside each other one.
                assert!(vfs.dirty_bytes() <= (limit + 8 * 200_000) as u64, "{} bytes", vfs.dirty_bytes());
            }
        }));
    }
    for writer in writers {
        writer.await.unwrap();
    }
    opened.close().await.unwrap();
    let (opened, _) = world.open(OpenOptions::default()).await;
    for number in 0..8u8 {
        let file = opened.vfs.lookup(Ino::ROOT, &[b'0' + number]).await.unwrap();
        assert_eq!(file.size, 4_000_000);
        let bytes = opened.vfs.read(Handle(0), file.ino, 0, 4_000_000).await.unwrap();
        assert!(bytes.iter().all(|byte| *byte == number + 1));
    }
    opened.close().await.unwrap();
}
