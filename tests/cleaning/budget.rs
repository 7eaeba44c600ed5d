//! What a mount does by itself, and at what pace. Under virtual time, so that hours of it pass at once.

use std::sync::Arc;
use std::time::Duration;

use coffer::base::Ino;
use coffer::store::Bucket;
use coffer::vfs::VfsOptions;
use coffer::volume::{self, OpenOptions, Opened};

use crate::world::{
    BLOCK, GRACE, Workload, World, contents, factors, make, pattern, small_segments, sparse_file,
};

/// Mounts as a user does: with the housekeeping.
async fn mount_automatic(world: &mut World) -> (Bucket, Opened) {
    world.vfs.clean.is_automatic = true;
    let options = OpenOptions {
        vfs: world.vfs.clone(),
        clock: Arc::clone(&world.clock) as _,
        entropy: Arc::clone(&world.entropy),
        ..OpenOptions::default()
    };
    let bucket = world.bucket();
    let opened = volume::open(bucket.clone(), &factors(), options).await.unwrap();
    (bucket, opened)
}

async fn pass(world: &World, time: Duration) {
    world.clock.advance(time);
    tokio::time::sleep(time).await;
}

#[tokio::test(start_paused = true)]
async fn a_mount_cleans_by_itself_within_its_budget_and_is_then_silent() {
    let mut world = World::new(small_segments()).await;
    world.vfs.clean.bytes_per_second = 10_000;
    let (bucket, opened) = mount_automatic(&mut world).await;
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    let (before, stored) = (world.segments().await.values().sum::<u64>(), opened.vfs.status().stored_bytes);
    let round_bytes = 2 * world.vfs.segment_room_bytes as u64;
    for second in 1..=300 {
        pass(&world, Duration::from_secs(1)).await;
        let cleaned = opened.vfs.status().cleaned;
        let bytes = cleaned.read_bytes + cleaned.written_bytes;
        assert!(bytes <= round_bytes + second * 10_000, "{bytes} bytes in {second} seconds");
    }
    assert!(opened.vfs.status().cleaned.rewritten_count > 0);
    for _ in 0..360 {
        pass(&world, Duration::from_secs(10)).await;
    }
    let after: u64 = world.segments().await.values().sum();
    assert!(
        after * 10 < stored * 12 && before > stored * 14 / 10,
        "{before} bytes, then {after} for {stored}"
    );

    let requests = bucket.meter().snapshot();
    for _ in 0..360 {
        pass(&world, Duration::from_secs(10)).await;
    }
    let now = bucket.meter().snapshot();
    let asked = now.requests() - requests.requests();
    println!("the hour after: {asked} requests");
    assert!(asked <= 4 * 60, "{asked} requests in an hour");
    assert_eq!(now.get_bytes, requests.get_bytes, "nothing is read");
    assert!(contents(&opened.vfs, ino).await == data);
}

#[tokio::test(start_paused = true)]
async fn deleting_merging_and_rewriting_ask_for_no_more_requests_than_the_budget() {
    const EACH_SECOND: u64 = 4;
    // Between two rests: a batch is deleted, or one round is done.
    const AT_ONCE: u64 = 64 + 16;
    // A segment for each block.
    let options = VfsOptions { segment_room_bytes: BLOCK + 1024, ..small_segments() };
    let mut world = World::new(options).await;
    world.vfs.clean.requests_per_second = EACH_SECOND;
    let (bucket, opened) = mount_automatic(&mut world).await;
    let vfs = &opened.vfs;
    let (ino, _) = sparse_file(vfs, "a", 100).await;
    make(vfs, "b", &pattern(1, 400 * BLOCK)).await;
    vfs.sync_all().await.unwrap();
    vfs.unlink(Ino::ROOT, b"b").await.unwrap();
    vfs.write(ino, 0, &pattern(2, 50 * BLOCK), true).await.unwrap();
    vfs.sync_all().await.unwrap();
    let made = world.segments().await.len();
    assert!(made >= 500, "{made} segments");

    let before = bucket.meter().snapshot().requests();
    world.clock.advance(GRACE);
    let mut longest = 0;
    for second in 0.. {
        pass(&world, Duration::from_secs(1)).await;
        let asked = bucket.meter().snapshot().requests() - before;
        assert!(asked <= AT_ONCE + (second + 1) * EACH_SECOND, "{asked} requests in {second} seconds");
        longest = second;
        if world.segments().await.len() <= 110 {
            break;
        }
        assert!(second < 3600, "{} segments are still there", world.segments().await.len());
    }
    println!("{made} segments are gone after {longest} seconds");
    opened.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn once_idle_the_bucket_of_a_mount_holds_at_most_three_tenths_more_than_what_lives() {
    let mut world = World::new(VfsOptions::default()).await;
    let (_, opened) = mount_automatic(&mut world).await;
    let vfs = &opened.vfs;
    let mut workload = Workload::begin(vfs, 43, 300, 640).await;
    workload.overwrite(vfs, 2500).await;
    let size = async || world.objects("").await.values().sum::<u64>();
    let before = size().await;
    for _ in 0..720 {
        pass(&world, Duration::from_secs(10)).await;
    }
    let (after, live) = (size().await, vfs.status().stored_bytes);
    println!("the whole bucket: {before} bytes, two hours later {after} for {live} live ones");
    assert!(after * 10 <= live * 13, "{after} bytes in the bucket, {live} live");
    workload.compare(vfs).await;
    opened.close().await.unwrap();
}
