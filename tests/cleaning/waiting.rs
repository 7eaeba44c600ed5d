//! What is deleted, when, and upon whose word.

use std::sync::Arc;
use std::time::Duration;

use coffer::vfs::VfsOptions;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::world::{BLOCK, DAY, GRACE, World, contents, make, pattern, small_segments, sparse_file};

#[tokio::test]
async fn a_dead_segment_waits_for_readers_also_from_one_mount_to_the_next() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let old = world.segments().await;
    opened.vfs.write(ino, 0, &pattern(2, 4 * BLOCK), true).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    let is_there = async || world.segments().await.keys().any(|path| old.contains_key(path));
    world.clock.advance(GRACE - Duration::from_secs(1));
    assert_eq!(opened.vfs.reclaim().await.unwrap().deleted.count, 0);
    opened.close().await.unwrap();
    assert!(is_there().await);

    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    assert_eq!(opened.vfs.reclaim().await.unwrap().deleted.count, 0);
    opened.close().await.unwrap();
    assert!(is_there().await);

    world.clock.advance(Duration::from_secs(1));
    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    assert!(!is_there().await, "its time had come between two mounts");
}

/// An object lock, a missing permission, `chattr +i`: one such segment had kept all others in the bucket.
#[tokio::test]
async fn a_segment_that_may_not_be_deleted_keeps_no_other_and_is_tried_ever_more_seldom() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    for name in ["a", "b"] {
        make(vfs, name, &pattern(1, 4 * BLOCK)).await;
        vfs.sync_all().await.unwrap();
    }
    let [locked, other] = &world.segments().await.into_keys().collect::<Vec<_>>()[..] else {
        panic!("two segments");
    };
    world.store.lock(vec![locked.clone()]);
    for name in ["a", "b"] {
        vfs.unlink(coffer::base::Ino::ROOT, name.as_bytes()).await.unwrap();
    }
    vfs.sync_all().await.unwrap();
    let refusals = || world.store.refusals.load(std::sync::atomic::Ordering::SeqCst);
    let mut pauses = GRACE;
    for count in 1..=3 {
        world.clock.advance(pauses - Duration::from_secs(1));
        vfs.reclaim().await.unwrap();
        assert_eq!(refusals(), count - 1, "it is too early");
        world.clock.advance(Duration::from_secs(1));
        let reclaim = tokio::time::timeout(Duration::from_secs(20), vfs.reclaim());
        let done = reclaim.await.expect("it hangs").unwrap();
        assert_eq!((done.waiting.count, refusals()), (1, count));
        assert_eq!(vfs.outage(), None);
        pauses = Duration::from_secs(60) * (1 << (count - 1));
    }
    let left = world.segments().await;
    assert!(left.contains_key(locked) && !left.contains_key(other), "{left:?}");
    world.store.lock(Vec::new());
    world.clock.advance(pauses);
    assert_eq!(vfs.reclaim().await.unwrap().deleted.count, 1);
    opened.close().await.unwrap();
}

#[tokio::test]
async fn d9_what_only_a_listing_shows_waits_a_day_and_is_deleted_by_its_record() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.close().await.unwrap();
    let name = Path::from("d/00/00000000000000000000000000");
    world.store.inner.put(&name, vec![1; 1000].into()).await.unwrap();
    let is_there = async || world.segments().await.contains_key(&name);

    let opened = world.mount().await;
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!((done.leftovers.count, done.leftovers.bytes, done.deleted.count), (1, 1000, 0));
    world.clock.advance(DAY - Duration::from_secs(1));
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!((done.leftovers.count, done.deleted.count), (0, 0), "it is noted once");
    opened.close().await.unwrap();
    assert!(is_there().await);

    world.clock.advance(Duration::from_secs(1));
    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    assert!(!is_there().await);
    let plan = world.mount().await.vfs.reclaimable().await.unwrap();
    assert_eq!((plan.noted_leftovers.count, plan.segments.count), (0, 1));
}

#[tokio::test]
async fn what_a_killed_write_left_in_a_directory_goes_when_nobody_has_written_to_it_for_a_day() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::in_directory(VfsOptions::default(), folder.path().to_owned()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let list = opened.vfs.reclaimable().await.unwrap();
    assert_eq!((list.segments.count, list.leftovers.count), (1, 0));

    let below = |path: &std::path::Path| std::fs::read_dir(path).unwrap().next().unwrap().unwrap().path();
    let segment = below(&below(&folder.path().join("d"))).to_str().unwrap().to_owned();
    let stranger = segment.replace(&segment[segment.len() - 26..], "stranger#1");
    for (path, age) in [
        (format!("{segment}#1"), DAY),
        (format!("{segment}#2"), DAY - Duration::from_secs(3600)),
        (stranger.clone(), DAY),
    ] {
        std::fs::write(&path, [0; 1000]).unwrap();
        let file = std::fs::File::options().write(true).open(&path).unwrap();
        file.set_modified(std::time::SystemTime::now() - age).unwrap();
    }
    assert_eq!(opened.vfs.reclaimable().await.unwrap().leftovers.count, 2, "what is no segment is not ours");
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!((done.deleted.count, done.deleted.bytes), (1, 1000));
    assert_eq!((done.leftovers.count, done.leftovers.bytes), (1, 1000), "as the plan has it");
    let is_there = |path: &str| std::path::Path::new(path).exists();
    assert!(!is_there(&format!("{segment}#1")));
    assert!(is_there(&format!("{segment}#2")) && is_there(&stranger) && is_there(&segment));
    assert_eq!(contents(&opened.vfs, ino).await, pattern(1, 4 * BLOCK));
    opened.close().await.unwrap();
}

/// The owner of a store hides the newest records, so that a writer takes the segments of the newer
/// state for leftovers and deletes what the store itself may not.
#[tokio::test]
async fn after_a_rollback_that_nobody_noticed_the_newer_segments_stay_for_a_day() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let old = world.store.all_of("m").await;
    let newer = make(&opened.vfs, "b", &pattern(2, 4 * BLOCK)).await;
    opened.close().await.unwrap();
    let new = world.store.all_of("m").await;

    world.store.put_back("m", &old).await;
    let opened = world.mount().await;
    opened.vfs.sweep(true).await.unwrap();
    world.clock.advance(DAY / 2);
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();

    world.store.put_back("m", &new).await;
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, newer).await == pattern(2, 4 * BLOCK), "there was time to notice");
}

#[tokio::test]
async fn d9_a_listing_of_lies_deletes_nothing_that_is_in_use() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let known = world.segments().await.into_keys().next().unwrap();
    world.store.lie(vec![
        known.clone(),
        known,
        Path::from("d/0v/0vvvvvvvvvvvvvvvvvvvvvvvvv"),
        Path::from("d/zz"),
    ]);
    for _ in 0..3 {
        opened.vfs.sweep(true).await.unwrap();
        opened.vfs.reclaim().await.unwrap();
        world.clock.advance(DAY);
    }
    assert!(contents(&opened.vfs, ino).await == pattern(1, 4 * BLOCK));
    opened.close().await.unwrap();
}

/// Whether the engine needs an object is told by its manifest. A listing that says that everything is ages old, and in
/// it what never was, is no reason to delete what the records are in.
#[tokio::test]
async fn a_listing_of_lies_about_the_records_deletes_nothing_that_they_need() {
    let world = World::new(VfsOptions::default()).await;
    let (mut files, mut collected) = (Vec::new(), 0);
    for round in 0..4 {
        let opened = world.mount().await;
        let (name, data) = (format!("round{round}"), pattern(round, 4 * BLOCK));
        files.push((make(&opened.vfs, &name, &data).await, data));
        opened.vfs.sync_all().await.unwrap();
        let mut lies: Vec<Path> = world.store.all_of("m").await.into_iter().map(|(path, _)| path).collect();
        assert!(lies.len() > 5, "{lies:?}");
        lies.push(Path::from("m/0v0v0v0v0v0v0v0v0v0v0v0v0v"));
        world.store.lie(lies.clone());
        for _ in 0..2 {
            opened.vfs.sweep(true).await.unwrap();
            opened.vfs.tidy_records().await.unwrap();
            opened.vfs.reclaim().await.unwrap();
            world.clock.advance(DAY);
        }
        let kept = world.objects("m").await;
        collected += lies.iter().filter(|name| !kept.contains_key(*name)).count() - 1;
        // What a crash would leave opens, and so does what an unmount does.
        let crashed = world.store.all_of("m").await;
        opened.close().await.unwrap();
        let closed = world.store.all_of("m").await;
        for records in [crashed, closed] {
            world.store.put_back("m", &records).await;
            let opened = world.mount().await;
            for (ino, data) in &files {
                assert!(contents(&opened.vfs, *ino).await == *data, "round {round}: {ino}");
            }
            opened.close().await.unwrap();
        }
        world.store.lie(Vec::new());
    }
    assert!(collected > 10, "{collected} were garbage and believed to be old");
}

#[tokio::test]
async fn a_listing_in_the_middle_of_cleaning_takes_nothing_for_a_leftover() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    world.store.segment_acks.shut();
    let cleaner = Arc::clone(&opened.vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.segment_acks.met().await;
    opened.vfs.sweep(true).await.unwrap();
    world.store.segment_acks.open();
    assert!(cleaning.await.unwrap().unwrap().rewritten.count > 0);
    let noted = opened.vfs.status().waiting.count;
    assert_eq!(noted, opened.vfs.reclaimable().await.unwrap().dead.count, "only dead ones wait");
    world.clock.advance(DAY);
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, ino).await == data);
}
