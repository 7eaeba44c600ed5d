//! What cleaning gives back and what it costs, by count.

use std::sync::Arc;
use std::time::Duration;

use coffer::base::Ino;
use coffer::keys::Compression;
use coffer::vfs::{CleanOptions, Reclaimed, VfsOptions};
use coffer::volume::{self, OpenOptions};

use crate::world::{
    BLOCK, GRACE, Workload, World, contents, factors, make, pattern, small_segments, sparse_file,
};

#[tokio::test]
async fn after_random_overwrites_the_whole_bucket_holds_at_most_three_tenths_more_than_what_lives() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let mut workload = Workload::begin(vfs, 42, 300, 640).await;
    workload.overwrite(vfs, 2500).await;
    let before: u64 = world.segments().await.values().sum();

    let dead = vfs.reclaimable().await.unwrap().dead.bytes;
    let done = vfs.reclaim().await.unwrap();
    assert_eq!(done.deleted, Default::default(), "readers elsewhere have time to follow");
    world.clock.advance(GRACE);
    let deleted = vfs.reclaim().await.unwrap();
    assert_eq!(deleted.rewritten, Default::default(), "once is enough");
    assert_eq!(deleted.waiting, Default::default());

    let after: u64 = world.segments().await.values().sum();
    let freed_by_rewriting = before + done.rewritten.bytes - after;
    println!(
        "segments: {before} bytes before, {dead} of them dead, {after} after, {} rewritten",
        done.rewritten.bytes
    );
    let freed_by_rewriting = freed_by_rewriting - dead;
    assert!(done.rewritten.bytes <= 4 * freed_by_rewriting, "every byte gained costs at most four written");

    // Old manifests stay for an hour.
    world.clock.advance(Duration::from_secs(3600));
    vfs.tidy_records().await.unwrap();
    let all: u64 = world.objects("").await.values().sum();
    let live = vfs.status().stored_bytes;
    println!("the whole bucket: {all} bytes for {live} live ones");
    assert!(all * 10 <= live * 13, "{all} bytes in the bucket, {live} live");
    workload.compare(vfs).await;
    opened.close().await.unwrap();

    let opened = world.mount().await;
    workload.compare(&opened.vfs).await;
    opened.close().await.unwrap();
}

#[tokio::test]
async fn segments_of_many_small_commits_are_merged() {
    let clean = CleanOptions { slack_bytes: 0, ..CleanOptions::default() };
    let vfs = VfsOptions { inline_commit_bytes: 0, clean, ..VfsOptions::default() };
    let world = World::new(vfs).await;
    let opened = world.mount().await;
    let mut files = Vec::new();
    for number in 0..200u64 {
        let data = pattern(number, 5000 + number as usize);
        files.push((make(&opened.vfs, &format!("file{number}"), &data).await, data));
        opened.vfs.sync_all().await.unwrap();
    }
    assert!(world.segments().await.len() >= 200);
    let done = opened.vfs.reclaim().await.unwrap();
    assert!(done.rewritten.bytes < 3 * 200 * 5200, "{} bytes written", done.rewritten.bytes);
    world.clock.advance(GRACE);
    opened.vfs.reclaim().await.unwrap();
    let left = world.segments().await.len();
    assert!(left <= 30, "{left} segments left");
    for (ino, data) in &files {
        assert!(contents(&opened.vfs, *ino).await == *data);
    }
    // Files written together lie together: all of them are a few reads, not one for each.
    opened.close().await.unwrap();
    let bucket = world.bucket();
    let options = OpenOptions {
        vfs: world.vfs.clone(),
        clock: Arc::clone(&world.clock) as _,
        ..OpenOptions::default()
    };
    let opened = volume::open(bucket.clone(), &factors(), options).await.unwrap();
    let before = bucket.meter().snapshot().gets;
    for (ino, data) in &files {
        assert!(contents(&opened.vfs, *ino).await == *data);
    }
    let gets = bucket.meter().snapshot().gets - before;
    println!("200 files of 5 KB: {gets} GETs");
    assert!(gets <= 30, "{gets} GETs");
}

#[tokio::test]
async fn a_clean_volume_is_not_touched() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 300 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let (before, commit) = (world.segments().await, opened.vfs.head().0);
    assert_eq!(opened.vfs.reclaim().await.unwrap(), Reclaimed::default());
    assert_eq!((world.segments().await, opened.vfs.head().0), (before, commit), "not even a commit was made");
}

#[tokio::test]
async fn the_plan_names_what_is_then_done() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    sparse_file(&opened.vfs, "a", 64).await;
    let before = world.segments().await;
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert!(plan.sparse.count >= 4 && plan.requests > 0, "{plan:?}");
    assert_eq!(plan.segments.count + plan.dead.count, before.len() as u64);
    assert_eq!(world.segments().await, before, "nothing was changed");
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!(done.rewritten.count, plan.sparse.count + plan.tiny.count);
    assert_eq!(opened.vfs.reclaimable().await.unwrap().sparse, Default::default());
}

#[tokio::test]
async fn a_bucket_that_could_not_be_listed_whole_is_told() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    for breaks in [false, true, false] {
        world.store.breaks_listings.store(breaks, std::sync::atomic::Ordering::SeqCst);
        assert_eq!(opened.vfs.reclaimable().await.unwrap().is_cut, breaks);
        assert_eq!(opened.vfs.reclaim().await.unwrap().is_cut, breaks);
    }
    opened.close().await.unwrap();
}

#[tokio::test]
async fn what_was_freed_since_the_last_commit_counts() {
    for is_planned in [true, false] {
        let world = World::new(small_segments()).await;
        let opened = world.mount().await;
        let vfs = &opened.vfs;
        let (ino, mut data) = (make(vfs, "a", &pattern(1, 64 * BLOCK)).await, pattern(1, 64 * BLOCK));
        vfs.sync_all().await.unwrap();
        for block in (0..64).filter(|block| block % 4 != 3) {
            vfs.write(ino, (block * BLOCK) as u64, &[7; BLOCK], true).await.unwrap();
            data[block * BLOCK..][..BLOCK].fill(7);
        }
        if is_planned {
            let plan = vfs.reclaimable().await.unwrap();
            assert!(plan.sparse.count >= 4, "{plan:?}");
        } else {
            let done = vfs.reclaim().await.unwrap();
            assert!(done.rewritten.count >= 4, "{done:?}");
        }
        assert!(contents(vfs, ino).await == data);
        opened.close().await.unwrap();
    }
}

#[tokio::test]
async fn a_later_mount_tells_how_many_bytes_wait_and_go_as_the_plan_does() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 40 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    opened.vfs.unlink(Ino::ROOT, b"a").await.unwrap();
    opened.close().await.unwrap();

    let opened = world.mount().await;
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert!(plan.dead.bytes > 40 * BLOCK as u64, "{plan:?}");
    assert_eq!(opened.vfs.reclaim().await.unwrap().waiting, plan.dead);
    world.clock.advance(GRACE);
    assert_eq!(opened.vfs.reclaim().await.unwrap().deleted, plan.dead);
    opened.close().await.unwrap();
}

#[tokio::test]
async fn compressed_blocks_are_moved_as_they_are() {
    let world = World::with(small_segments(), Compression::Zstd).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let text = b"compresses well, and is not the same everywhere ".repeat(1400);
    let mut files = Vec::new();
    for number in 0..400u32 {
        let data: Vec<u8> = [&number.to_le_bytes()[..], &text[..BLOCK - 4]].concat();
        files.push((make(vfs, &format!("file{number}"), &data).await, data));
    }
    vfs.sync_all().await.unwrap();
    for number in (0..400).filter(|number| number % 3 != 0) {
        vfs.unlink(Ino::ROOT, format!("file{number}").as_bytes()).await.unwrap();
    }
    vfs.sync_all().await.unwrap();
    let before: u64 = world.segments().await.values().sum();
    let done = vfs.reclaim().await.unwrap();
    world.clock.advance(GRACE);
    vfs.reclaim().await.unwrap();
    let after: u64 = world.segments().await.values().sum();
    assert!(done.rewritten.count > 0 && after < before, "{done:?}: {before} to {after} bytes");
    for (ino, data) in files.iter().step_by(3) {
        assert!(contents(vfs, *ino).await == *data);
    }
}

#[tokio::test]
async fn what_a_cleaning_reads_and_writes_is_foretold() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    sparse_file(vfs, "a", 64).await;
    assert_eq!(vfs.to_clean_bytes(), None);
    vfs.reclaim().await.unwrap();
    let (done, foretold) = (vfs.cleaned_bytes(), vfs.to_clean_bytes().unwrap());
    // Sixteen blocks are alive where most is dead, each read and written; heads and footers are not foretold.
    assert!(done >= 32 * BLOCK as u64 && done.abs_diff(foretold) < done / 10, "{done} of {foretold}");
    vfs.reclaim().await.unwrap();
    assert_eq!((vfs.cleaned_bytes(), vfs.to_clean_bytes()), (done, None), "nothing more is to be done");
    opened.close().await.unwrap();
}
