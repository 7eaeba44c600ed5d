//! What it takes to mount a volume of many files: round trips one after the other. Time is simulated, so it is a count.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::store::fault::{FaultPlan, FaultStore};
use coffer::volume::{self, OpenOptions};
use object_store::memory::InMemory;
use tokio::time::Instant;

use in_memory::{CALLER, World, factors, spec};

const ROUND_TRIP: Duration = Duration::from_millis(30);
const FILE_COUNT: usize = 40_000;

/// A volume of many files, in tables of an eighth of the usual size: as many as eight times as many files make of usual ones. They are
/// larger than what a first look into an object brings along, as the usual ones are.
#[tokio::test(start_paused = true)]
async fn a_volume_of_many_files_is_mounted_in_few_round_trips() {
    let (plan, clock) = (FaultPlan::default(), Arc::new(SystemClock::default()));
    let faults = FaultStore::new(Arc::new(InMemory::new()), plan, clock.clone());
    let world = World(Arc::new(faults.clone()));
    volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    let state = tempfile::tempdir().unwrap();
    let options = || OpenOptions {
        state_dir: Some(state.path().to_owned()),
        table_write_bytes: 16 << 20,
        ..OpenOptions::default()
    };
    let (opened, _) = world.open(options()).await;
    let mut dir = Ino::ROOT;
    for number in 0..FILE_COUNT {
        if number % 1000 == 0 {
            opened.vfs.sync_all().await.unwrap();
            let name = format!("dir{}", number / 1000);
            dir = opened.vfs.mkdir(&CALLER, Ino::ROOT, name.as_bytes(), 0o755).await.unwrap().ino;
        }
        let name = format!("file{number}");
        let file = opened.vfs.create(&CALLER, dir, name.as_bytes(), 0o644, true).await.unwrap();
        opened.vfs.forget(file.ino, 1);
    }
    opened.close().await.unwrap();
    for (is_reader, trips_max) in [(false, 10), (false, 10), (true, 5)] {
        let mut options = options();
        options.vfs.read_only = is_reader;
        faults.set_plan(FaultPlan { latency: ROUND_TRIP, ..FaultPlan::default() });
        let start = Instant::now();
        let (opened, bucket) = world.open(options).await;
        let trips = start.elapsed().as_millis() / ROUND_TRIP.as_millis();
        let done = bucket.meter().snapshot();
        println!("mounted, to read only: {is_reader}, in {trips} round trips, {} requests", done.requests());
        assert!(trips <= trips_max, "{trips} round trips");
        assert!(done.requests() <= 50, "{} requests", done.requests());
        faults.set_plan(FaultPlan::default());
        opened.close().await.unwrap();
    }
}
