//! What an outage of hours does, in simulated time.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer::base::{Clock, Ino, OsEntropy, Time};
use coffer::cli::figures::Figures;
use coffer::cli::report::{self, Report};
use coffer::store::fault::{FaultPlan, FaultStore, Outage};
use coffer::vfs::{Handle, Vfs, VfsOptions};
use coffer::volume::{self, Budget, OpenOptions};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use in_memory::{CALLER, World, factors, spec};

const MIB: usize = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);
/// A moment in 2023.
const START: Duration = Duration::from_secs(1_700_000_000);

/// Tokio's paused clock, as everybody's.
struct Simulated(Instant);

impl Clock for Simulated {
    fn now(&self) -> Time {
        let now = START + self.elapsed();
        Time { secs: now.as_secs() as i64, nanos: now.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// A new volume in `inner`, and the way to it that can have faults.
async fn behind_faults(inner: Arc<dyn ObjectStore>) -> (FaultStore, World, OpenOptions) {
    let clock = Arc::new(Simulated(Instant::now()));
    let faults = FaultStore::new(inner, FaultPlan::default(), clock.clone());
    let world = World(Arc::new(faults.clone()));
    volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock.clone()).await.unwrap();
    (faults, world, OpenOptions { clock, ..OpenOptions::default() })
}

async fn put(vfs: &Vfs, name: &str, bytes: &[u8]) -> Ino {
    let ino = match vfs.lookup(Ino::ROOT, name.as_bytes()).await {
        Ok(attr) => attr.ino,
        Err(_) => vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap().ino,
    };
    for (number, part) in bytes.chunks(MIB).enumerate() {
        vfs.write(ino, (number * MIB) as u64, part, true).await.unwrap();
    }
    ino
}

async fn contents(vfs: &Vfs, name: &str) -> Vec<u8> {
    let attr = vfs.lookup(Ino::ROOT, name.as_bytes()).await.unwrap();
    vfs.read(Handle(0), attr.ino, 0, attr.size as usize + 1).await.unwrap()
}

const LIMIT_BYTES: u64 = 4 << 20;
const REQUEST_BYTES: u64 = 128 << 10;
const STREAM_BYTES: usize = 12 << 20;
const OUTAGE: Duration = Duration::from_secs(5 * 3600);

/// Half of the requests fail, half are never answered; by another seed others.
#[tokio::test(start_paused = true)]
async fn writers_wait_out_hours_at_the_limit_and_the_status_tells_their_number() {
    for seed in 0..4 {
        outage_of_hours(seed).await;
    }
}

async fn outage_of_hours(seed: u64) {
    let (faults, world, mut options) = behind_faults(Arc::new(InMemory::new())).await;
    let clock = Arc::clone(&options.clock);
    options.vfs = VfsOptions { dirty_bytes_max: LIMIT_BYTES as usize, ..VfsOptions::default() };
    let (opened, bucket) = world.open(options.clone()).await;
    let vfs = Arc::clone(&opened.vfs);
    put(&vfs, "before", &noise(1, 2 * MIB)).await;
    vfs.sync_all().await.unwrap();
    let figures = Figures::of(&bucket, Budget::of(Budget::BYTES_DEFAULT, None, None).unwrap(), None);

    let begun = Instant::now();
    let outages = vec![Outage { from: clock.elapsed(), len: OUTAGE }];
    faults.set_plan(FaultPlan { seed, outages, ..FaultPlan::default() });
    let meter = bucket.meter().clone();
    let noticed = tokio::spawn(async move {
        meter.until_outage(true).await;
        Instant::now()
    });
    let (stream, written) = (noise(seed, STREAM_BYTES), Arc::new(AtomicU64::new(0)));
    let ino = vfs.create(&CALLER, Ino::ROOT, b"stream", 0o644, true).await.unwrap().ino;
    let writer = tokio::spawn({
        let (vfs, stream, written) = (Arc::clone(&vfs), stream.clone(), Arc::clone(&written));
        async move {
            for part in stream.chunks(REQUEST_BYTES as usize) {
                let at = written.load(Ordering::SeqCst);
                vfs.write(ino, at, part, true).await.unwrap();
                written.store(at + part.len() as u64, Ordering::SeqCst);
            }
            vfs.fsync(ino, false).await.unwrap();
        }
    });

    sleep(MINUTE).await;
    let noticed = noticed.await.unwrap();
    let reached = written.load(Ordering::SeqCst);
    assert!(
        reached > LIMIT_BYTES / 4 * 3,
        "seed {seed}: writes wait before the limit, after {reached} bytes"
    );
    for hours in 2..5 {
        sleep_until(begun + HOUR * hours).await;
        let (used, status) = (vfs.memory().dirty, vfs.status());
        assert!(used <= LIMIT_BYTES && used + REQUEST_BYTES > LIMIT_BYTES, "seed {seed}: {used} bytes wait");
        assert_eq!(written.load(Ordering::SeqCst), reached, "seed {seed}: hour {hours}");
        assert!(!status.is_safe && status.dirty_bytes == reached, "seed {seed}: {status:?}");
        assert_eq!(status.dirty_age, Some(begun.elapsed().as_secs_f64()), "seed {seed}");
        let oldest = status.queue.ages.last().unwrap();
        assert_eq!((oldest.below, oldest.bytes), (None, reached));
        assert!(contents(&vfs, "before").await == noise(1, 2 * MIB), "what is cached is read");

        let told = figures.all(&vfs);
        assert_eq!(told["store"]["outage"], "unreachable");
        assert_eq!(told["store"]["outage_age"], noticed.elapsed().as_secs_f64(), "seed {seed}: hour {hours}");
        let minutes = noticed.elapsed().as_secs() / 60;
        let words = format!("unreachable for {} h {} min: ", minutes / 60, minutes % 60);
        let shown = report::show(&[Report::of(&told.into())]);
        assert!(shown.contains(&words), "not {words}: {shown}");
    }

    writer.await.unwrap();
    assert!(begun.elapsed() > OUTAGE);
    vfs.sync_all().await.unwrap();
    let told = figures.all(&vfs);
    assert!(told["store"]["outage"].is_null() && told["store"]["outage_age"].is_null(), "{told:?}");
    assert!(vfs.status().is_safe);
    opened.close().await.unwrap();
    let (opened, _) = world.open(options).await;
    assert!(contents(&opened.vfs, "before").await == noise(1, 2 * MIB));
    assert!(contents(&opened.vfs, "stream").await == stream, "seed {seed}");
    opened.close().await.unwrap();
}
