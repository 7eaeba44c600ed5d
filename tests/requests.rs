//! What the work of a drive costs in requests. Counted, not timed: a change that costs one more shows.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::time::Duration;

use coffer::base::Ino;
use coffer::store::{Bucket, MeterSnapshot};
use coffer::vfs::{Handle, Vfs};
use coffer::volume::OpenOptions;

use in_memory::{CALLER, World};

const FILE_COUNT: usize = 10_000;
const FILE_BYTES: usize = 4096;

fn since(bucket: &Bucket, before: &MeterSnapshot) -> (u64, u64) {
    let now = bucket.meter().snapshot();
    (now.puts - before.puts, now.gets - before.gets)
}

async fn make_tree(vfs: &Vfs) {
    for number in 0..FILE_COUNT {
        if number % 100 == 0 {
            let name = format!("dir{}", number / 100);
            let dir = vfs.mkdir(&CALLER, Ino::ROOT, name.as_bytes(), 0o755).await.unwrap();
            vfs.forget(dir.ino, 1);
        }
        let dir = vfs.lookup(Ino::ROOT, format!("dir{}", number / 100).as_bytes()).await.unwrap();
        let file =
            vfs.create(&CALLER, dir.ino, format!("file{number}").as_bytes(), 0o644, true).await.unwrap();
        let bytes = vec![(number % 251) as u8; FILE_BYTES];
        vfs.write(file.ino, 0, &bytes, true).await.unwrap();
        vfs.forget(file.ino, 1);
        vfs.forget(dir.ino, 1);
    }
}

/// Reads every file of every directory, as `tar` does: list, then open and read one by one.
async fn read_tree(vfs: &Vfs) -> usize {
    let mut found = 0;
    let mut cookie = 0;
    loop {
        let dirs = vfs.readdir_plus(Ino::ROOT, cookie, 64).await.unwrap();
        let Some((last, _)) = dirs.last() else { return found };
        cookie = last.next;
        for (dir, _) in dirs.iter().filter(|(dir, _)| dir.name.starts_with(b"dir")) {
            let mut files = vfs.readdir_plus(dir.ino, 0, 1000).await.unwrap();
            files.sort_by_key(|(file, _)| file.ino);
            for (file, attr) in files.iter().filter(|(file, _)| file.name.starts_with(b"file")) {
                let bytes = vfs.read(Handle(0), file.ino, 0, attr.size as usize).await.unwrap();
                assert_eq!(bytes.len(), FILE_BYTES);
                found += 1;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_thousand_small_files_take_few_requests_in_and_out() {
    let world = World::new().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let before = bucket.meter().snapshot();
    make_tree(&opened.vfs).await;
    opened.vfs.sync_all().await.unwrap();
    let (puts, gets) = since(&bucket, &before);
    println!("10,000 files of 4 KiB in and synced: {puts} PUTs, {gets} GETs");
    assert!(puts <= 60, "{puts} PUTs");

    let before = bucket.meter().snapshot();
    for (entry, _) in opened.vfs.readdir_plus(Ino::ROOT, 0, 200).await.unwrap() {
        opened.vfs.getattr(entry.ino).await.unwrap();
    }
    let after = bucket.meter().snapshot();
    assert_eq!(after.requests(), before.requests(), "stat of a warm tree");
    opened.close().await.unwrap();

    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let before = MeterSnapshot::default();
    println!("mounted: {} GETs", since(&bucket, &before).1);
    assert_eq!(read_tree(&opened.vfs).await, FILE_COUNT);
    let (_, gets) = since(&bucket, &before);
    println!("mounted cold and read back: {gets} GETs");
    assert!(gets <= 140, "{gets} GETs: how many depends on which of those under way are joined");
    opened.close().await.unwrap();
}

/// Of these, the proof that the store refuses to overwrite is one PUT and one GET, for writers only.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn mounting_takes_few_requests() {
    let world = World::new().await;
    for _ in 0..2 {
        let (opened, bucket) = world.open(OpenOptions::default()).await;
        let counted = since(&bucket, &MeterSnapshot::default());
        println!("mounted for writing: {} PUTs, {} GETs", counted.0, counted.1);
        assert_eq!(counted.0, 4, "PUTs: the proof, a manifest, a fence, the commit that says who holds it");
        opened.close().await.unwrap();
    }
    let mut reading = OpenOptions::default();
    reading.vfs.read_only = true;
    let (opened, bucket) = world.open(reading).await;
    assert_eq!(since(&bucket, &MeterSnapshot::default()).0, 0, "a reader writes nothing");
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_small_fsync_is_one_put() {
    let world = World::new().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let file = opened.vfs.create(&CALLER, Ino::ROOT, b"log", 0o644, true).await.unwrap();
    opened.vfs.fsync(file.ino, false).await.unwrap();
    for round in 0..20u64 {
        let before = bucket.meter().snapshot();
        opened.vfs.write(file.ino, round * 100, &[7; 100], true).await.unwrap();
        opened.vfs.fsync(file.ino, false).await.unwrap();
        let (puts, gets) = since(&bucket, &before);
        assert_eq!((puts, gets), (1, 0), "round {round}");
    }
    opened.vfs.write(file.ino, 1 << 20, &[7; 1 << 20], true).await.unwrap();
    let before = bucket.meter().snapshot();
    opened.vfs.fsync(file.ino, false).await.unwrap();
    let (puts, _) = since(&bucket, &before);
    assert!(puts <= 2, "a larger fsync: {puts} PUTs");
    opened.close().await.unwrap();
}

/// Under virtual time, so that an hour of it passes at once.
#[tokio::test(start_paused = true)]
async fn an_idle_mount_is_all_but_silent() {
    let world = World::new().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let file = opened.vfs.create(&CALLER, Ino::ROOT, b"f", 0o644, true).await.unwrap();
    opened.vfs.write(file.ino, 0, &[7; 10_000], true).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    tokio::time::sleep(Duration::from_secs(30)).await;
    let before = bucket.meter().snapshot();
    tokio::time::sleep(Duration::from_secs(3600)).await;
    let requests = bucket.meter().snapshot().requests() - before.requests();
    println!("an idle hour: {requests} requests");
    assert!(requests <= 4 * 60, "{requests} requests in an hour");
    opened.close().await.unwrap();
}

/// A block that lies in a record goes through memory, and its neighbours in segments do not.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_block_in_a_record_keeps_no_other_from_being_shared() {
    const BLOCK: u64 = 65_536;
    let world = World::new().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let vfs = &opened.vfs;
    let from = vfs.create(&CALLER, Ino::ROOT, b"from", 0o644, true).await.unwrap().ino;
    let to = vfs.create(&CALLER, Ino::ROOT, b"to", 0o644, true).await.unwrap().ino;
    vfs.write(from, 0, &[1; 32 * BLOCK as usize], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    vfs.write(from, 3 * BLOCK, &[2; BLOCK as usize], true).await.unwrap();
    vfs.fsync(from, true).await.unwrap();
    let before = bucket.meter().snapshot();
    let mut steps = Vec::new();
    let mut at = 0;
    while at < 32 * BLOCK {
        let copied = vfs.copy_file_range(from, at, to, at, 32 * BLOCK - at).await.unwrap();
        steps.push(copied / BLOCK);
        at += copied;
    }
    assert_eq!(steps, [3, 1, 28], "blocks in each step");
    assert_eq!(since(&bucket, &before), (0, 0));
    let mut wanted = vec![1; 32 * BLOCK as usize];
    wanted[3 * BLOCK as usize..4 * BLOCK as usize].fill(2);
    assert!(vfs.read(Handle(0), to, 0, wanted.len()).await.unwrap() == wanted);
    opened.close().await.unwrap();
}
