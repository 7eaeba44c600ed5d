//! Small files read one after the other: what they cost in round trips one after the other. Time is simulated, so it is a count.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::store::fault::{FaultPlan, FaultStore};
use coffer::vfs::{Handle, Vfs};
use coffer::volume::{self, OpenOptions};
use object_store::memory::InMemory;
use rand::SeedableRng;
use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use tokio::time::Instant;

use in_memory::{CALLER, World, factors, spec};

const ROUND_TRIP: Duration = Duration::from_millis(30);
const FILE_COUNT: usize = 10_000;
const FILE_BYTES: usize = 4096;

/// A volume of small files, ten directories of a thousand, behind a wire with a latency and no other limit.
async fn distant() -> World {
    let (plan, clock) = (FaultPlan::default(), Arc::new(SystemClock::default()));
    let faults = FaultStore::new(Arc::new(InMemory::new()), plan, clock.clone());
    let world = World(Arc::new(faults.clone()));
    volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let (opened, _) = world.open(OpenOptions::default()).await;
    let mut dir = Ino::ROOT;
    for number in 0..FILE_COUNT {
        if number % 1000 == 0 {
            let name = format!("dir{}", number / 1000);
            dir = opened.vfs.mkdir(&CALLER, Ino::ROOT, name.as_bytes(), 0o755).await.unwrap().ino;
        }
        let name = format!("file{number}");
        let file = opened.vfs.create(&CALLER, dir, name.as_bytes(), 0o644, true).await.unwrap();
        opened.vfs.write(file.ino, 0, &vec![number as u8; FILE_BYTES], true).await.unwrap();
        opened.vfs.forget(file.ino, 1);
    }
    opened.close().await.unwrap();
    faults.set_plan(FaultPlan { latency: ROUND_TRIP, ..FaultPlan::default() });
    world
}

/// All files, in the order in which they were made, with their attributes in memory.
async fn list(vfs: &Vfs) -> Vec<Ino> {
    let mut files = Vec::new();
    for (dir, _) in vfs.readdir_plus(Ino::ROOT, 0, 64).await.unwrap() {
        if dir.name.starts_with(b"dir") {
            let entries = vfs.readdir_plus(dir.ino, 0, 2000).await.unwrap();
            files.extend(entries.iter().filter(|(e, _)| e.name.starts_with(b"file")).map(|(e, _)| e.ino));
        }
    }
    files.sort_unstable();
    assert_eq!(files.len(), FILE_COUNT);
    files
}

/// Round trips, one after the other, for reading `files`.
async fn round_trips(vfs: &Vfs, files: &[Ino]) -> f64 {
    let start = Instant::now();
    for ino in files {
        let bytes = vfs.read(Handle(0), *ino, 0, FILE_BYTES).await.unwrap();
        assert_eq!(bytes.len(), FILE_BYTES);
    }
    start.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64()
}

/// Forty megabytes are twenty neighbourhoods. One is waited for, then the second, the next two, four, eight, and the rest: no time passes
/// here but that of round trips.
#[tokio::test(start_paused = true)]
async fn who_reads_files_in_the_order_in_which_they_were_made_waits_for_few_of_them() {
    let world = distant().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let files = list(&opened.vfs).await;
    let before = bucket.meter().snapshot().gets;
    let waited = round_trips(&opened.vfs, &files).await;
    let gets = bucket.meter().snapshot().gets - before;
    println!("{FILE_COUNT} files in {waited} round trips and {gets} GETs");
    assert!(waited <= 5.5, "{waited} round trips");
    assert!(gets <= 24, "{gets} GETs: each neighbourhood is fetched once");
    opened.close().await.unwrap();
}

/// The records that tell where the blocks of a large file are, one for each segment, are read ahead as well.
#[tokio::test(start_paused = true)]
async fn who_streams_a_large_file_waits_for_few_round_trips() {
    const BYTES: u64 = 200 << 20;
    const READ: u64 = 1 << 20;
    let (plan, clock) = (FaultPlan::default(), Arc::new(SystemClock::default()));
    let faults = FaultStore::new(Arc::new(InMemory::new()), plan, clock.clone());
    let world = World(Arc::new(faults.clone()));
    volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let (opened, _) = world.open(OpenOptions::default()).await;
    let file = opened.vfs.create(&CALLER, Ino::ROOT, b"file", 0o644, true).await.unwrap();
    for offset in (0..BYTES).step_by(READ as usize) {
        opened.vfs.write(file.ino, offset, &[7; READ as usize], true).await.unwrap();
    }
    opened.close().await.unwrap();
    faults.set_plan(FaultPlan { latency: ROUND_TRIP, ..FaultPlan::default() });

    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let ino = opened.vfs.lookup(Ino::ROOT, b"file").await.unwrap().ino;
    let handle = opened.vfs.open(ino, false, false).await.unwrap();
    let (before, start) = (bucket.meter().snapshot().gets, Instant::now());
    for offset in (0..BYTES).step_by(READ as usize) {
        assert_eq!(opened.vfs.read(handle, ino, offset, READ as usize).await.unwrap().len() as u64, READ);
    }
    let waited = start.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
    let gets = bucket.meter().snapshot().gets - before;
    println!("{} MiB in {waited} round trips and {gets} GETs", BYTES >> 20);
    assert!(waited <= 12.5, "{waited} round trips");
    assert!(gets <= 64, "{gets} GETs for 26 segments, of two each");
    opened.close().await.unwrap();
}

/// Who jumps about is not given what he does not ask for.
#[tokio::test(start_paused = true)]
async fn who_reads_a_few_files_here_and_there_causes_no_more_fetches_than_reads() {
    let world = distant().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let mut files = list(&opened.vfs).await;
    files.reverse();
    let every: Vec<Ino> = files.into_iter().step_by(1000).collect();
    let before = bucket.meter().snapshot().gets;
    round_trips(&opened.vfs, &every).await;
    let gets = bucket.meter().snapshot().gets - before;
    assert!(gets <= every.len() as u64, "{gets} GETs for {} files", every.len());
    opened.close().await.unwrap();
}

/// As `cp -r` and `tar` read: in the order of a listing, which says nothing about where files are.
#[tokio::test(start_paused = true)]
async fn in_any_order_each_neighbourhood_is_fetched_about_once() {
    let world = distant().await;
    let (opened, bucket) = world.open(OpenOptions::default()).await;
    let mut files = list(&opened.vfs).await;
    let mut rng = SmallRng::seed_from_u64(7);
    files.chunks_mut(1000).for_each(|dir| dir.shuffle(&mut rng));
    let before = bucket.meter().snapshot().gets;
    let waited = round_trips(&opened.vfs, &files).await;
    let gets = bucket.meter().snapshot().gets - before;
    println!("{FILE_COUNT} shuffled files in {waited} round trips and {gets} GETs");
    assert!(waited <= 11.5, "{waited} round trips");
    assert!(gets <= 24, "{gets} GETs");
    opened.close().await.unwrap();
}
