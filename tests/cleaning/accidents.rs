//! Damage, crashes and unmounts in the middle of cleaning.

use std::sync::Arc;

use coffer::vfs::Handle;
use object_store::ObjectStoreExt;
use object_store::path::Path;

use crate::world::{BLOCK, DAY, Workload, World, contents, make, small_segments, sparse_file};

#[tokio::test]
async fn a_damaged_block_is_left_where_it_is_and_told_of() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let (hurt, _) = sparse_file(vfs, "hurt", 8).await;
    let first = world.segments().await;
    let (well, data) = sparse_file(vfs, "well", 32).await;
    for path in first.keys() {
        let mut bytes = world.store.inner.get(path).await.unwrap().bytes().await.unwrap().to_vec();
        // In every block.
        (100..bytes.len()).step_by(BLOCK / 2).for_each(|at| bytes[at] ^= 1);
        world.store.inner.put(path, bytes.into()).await.unwrap();
    }
    for _ in 0..2 {
        let done = vfs.reclaim().await.unwrap();
        assert!(done.damaged_count > 0, "{done:?}");
        world.clock.advance(DAY * 2);
    }
    let left = world.segments().await;
    assert!(first.keys().any(|path| left.contains_key(path)), "what may still be mended is kept");
    assert!(contents(vfs, well).await == data);
    assert!(vfs.status().is_safe);
    opened.close().await.unwrap();
    let opened = world.mount().await;
    let read = opened.vfs.read(Handle(0), hurt, 3 * BLOCK as u64, BLOCK).await;
    assert!(read.is_err(), "nothing else is taken for it");
    assert!(contents(&opened.vfs, well).await == data);
}

#[tokio::test]
async fn a_segment_that_is_missing_stops_nothing() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    sparse_file(vfs, "hurt", 8).await;
    let first = world.segments().await;
    let (well, data) = sparse_file(vfs, "well", 32).await;
    for path in first.keys() {
        world.store.inner.delete(path).await.unwrap();
    }
    let done = vfs.reclaim().await.unwrap();
    assert!(done.damaged_count > 0 && done.rewritten.count > 0, "{done:?}");
    assert!(contents(vfs, well).await == data);
}

/// Cleaning is cut off after each of its requests in turn.
#[test]
fn a_crash_after_any_request_of_cleaning_loses_nothing() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut cut_count, mut is_done) = (0, false);
    while !is_done {
        let preparing = runtime();
        let (world, mut workload) = preparing.block_on(async {
            let world = World::new(small_segments()).await;
            let opened = world.mount().await;
            let mut workload = Workload::begin(&opened.vfs, 7, 6, 24).await;
            workload.overwrite(&opened.vfs, 40).await;
            opened.close().await.unwrap();
            (world, workload)
        });
        preparing.shutdown_background();
        let cut = runtime();
        is_done = cut.block_on(async {
            let opened = world.mount().await;
            world.store.requests.allow(cut_count);
            let cleaning = opened.vfs.reclaim();
            tokio::select! {
                done = cleaning => {
                    assert!(done.unwrap().rewritten.count > 2);
                    true
                }
                () = world.store.requests.used_up() => false,
            }
        });
        cut.shutdown_background();
        world.store.requests.allow(u64::MAX / 2);
        let after = runtime();
        after.block_on(async {
            let opened = world.mount().await;
            workload.compare(&opened.vfs).await;
            workload.overwrite(&opened.vfs, 10).await;
            opened.vfs.reclaim().await.unwrap();
            world.clock.advance(DAY);
            opened.vfs.reclaim().await.unwrap();
            workload.compare(&opened.vfs).await;
            let plan = opened.vfs.reclaimable().await.unwrap();
            assert_eq!(
                (plan.leftovers.count, plan.noted_leftovers.count, plan.dead.count),
                (0, 0, 0),
                "{plan:?}"
            );
            opened.close().await.unwrap();
        });
        after.shutdown_background();
        cut_count += 1;
    }
    println!("cleaning was cut off at each of {cut_count} requests");
    assert!(cut_count > 10);
}

#[tokio::test]
async fn an_unmount_in_the_middle_of_cleaning_leaves_nothing_unknown() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    world.store.segment_puts.shut();
    let cleaner = Arc::clone(&opened.vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.segment_puts.met().await;
    opened.close().await.unwrap();
    world.store.segment_puts.open();
    assert!(cleaning.await.unwrap().is_err());
    let opened = world.mount().await;
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert_eq!((plan.leftovers.count, plan.noted_leftovers.count), (0, 1), "{plan:?}");
    assert!(contents(&opened.vfs, ino).await == data);
    opened.close().await.unwrap();
}

/// The bucket does not list until the mount that came after the crash has gone as well, in an orderly way.
#[tokio::test(start_paused = true)]
async fn what_a_crash_left_is_found_also_if_the_next_mount_ends_before_it_has_looked() {
    let world = World::new(small_segments()).await;
    let crashed = world.mount().await;
    let ino = make(&crashed.vfs, "a", &[1; 100]).await;
    crashed.vfs.sync_all().await.unwrap();
    drop(crashed);
    let left = Path::from("d/00/00000000000000000000000000");
    world.store.inner.put(&left, vec![1; 1000].into()).await.unwrap();

    world.store.listings.shut();
    let hurried = world.mount().await;
    world.store.listings.met().await;
    hurried.close().await.unwrap();
    world.store.listings.open();

    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert_eq!((plan.leftovers.count, plan.noted_leftovers.count), (0, 1), "{plan:?}");
    world.clock.advance(DAY);
    opened.vfs.reclaim().await.unwrap();
    assert!(!world.segments().await.contains_key(&left), "its room is given back");
    assert_eq!(contents(&opened.vfs, ino).await, [1; 100]);
    opened.close().await.unwrap();
}
