//! What the engine promises: durability, order, fencing, few requests, silence.

mod asked_once;
mod attack;
mod cost;
mod ending;
mod follow;
mod renew;
mod spoiled;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::time::Instant;

use super::*;
use crate::base::{Clock, ManualClock, SeededEntropy, SystemClock, Time, VolumeId};
use crate::crypto::{Epoch, Key, KeyRing};
use crate::store::fault::scripted::{Fault, FaultyStore};
use crate::store::{Bucket, StoreOptions};
use crate::vault::Vault;

/// Day and elapsed time follow tokio's clock, which tests may pause.
struct TokioClock(Instant, Time);

impl TokioClock {
    fn started() -> Arc<dyn Clock> {
        Arc::new(Self(Instant::now(), SystemClock::default().now()))
    }
}

impl Clock for TokioClock {
    fn now(&self) -> Time {
        Time::from_system(self.1.to_system() + self.0.elapsed())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// One volume on one store, seen through buckets of its own for each engine.
struct Bench {
    raw: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
}

impl Bench {
    fn new() -> Self {
        Self::over(Arc::new(InMemory::new()))
    }

    fn over(raw: Arc<dyn ObjectStore>) -> Self {
        Self { raw, clock: TokioClock::started() }
    }

    fn bucket(&self) -> Bucket {
        Bucket::with_options(self.raw.clone(), "test", &StoreOptions::default())
    }

    fn sealed(bucket: &Bucket) -> Arc<dyn ObjectStore> {
        let ring = KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::from_bytes([7; 32]));
        let vault = Vault::new(bucket.clone(), Arc::new(ring), Arc::new(SeededEntropy::new(3)));
        vault.meta_store(16 << 20)
    }

    async fn open_as(&self, bucket: &Bucket, mode: EngineMode, create: bool) -> Result<Engine, EngineError> {
        let meter = Some(bucket.meter().clone());
        let options = EngineOptions { create, meter, ..EngineOptions::default() };
        Engine::open(Self::sealed(bucket), mode, options, self.clock.clone()).await
    }

    async fn writer(&self) -> Engine {
        self.open_as(&self.bucket(), EngineMode::Writer, true).await.expect("opens")
    }

    async fn reader(&self) -> Engine {
        self.open_as(&self.bucket(), EngineMode::Reader, false).await.expect("opens")
    }

    async fn objects(&self) -> Vec<object_store::ObjectMeta> {
        futures::TryStreamExt::try_collect(self.raw.list(None)).await.expect("lists")
    }
}

fn put(key: impl AsRef<[u8]>, value: impl AsRef<[u8]>) -> Vec<(Vec<u8>, Option<Vec<u8>>)> {
    vec![(key.as_ref().to_vec(), Some(value.as_ref().to_vec()))]
}

type Records = Vec<(Vec<u8>, Vec<u8>)>;

async fn all(engine: &Engine) -> Result<Records, EngineError> {
    let records = engine.scan(Vec::new(), vec![0xFF; 40], usize::MAX).await?;
    Ok(records.into_iter().map(|(key, value)| (key.to_vec(), value.to_vec())).collect())
}

fn model_as_vec(model: &BTreeMap<Vec<u8>, Vec<u8>>) -> Records {
    model.iter().map(|(key, value)| (key.clone(), value.clone())).collect()
}

#[tokio::test(start_paused = true)]
async fn what_was_committed_is_there_after_closing_and_after_a_crash() {
    let seed = 20_260_102;
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let bench = Bench::new();
    let mut model = BTreeMap::new();
    let mut engine = bench.writer().await;
    for round in 0..12 {
        for _ in 0..rng.random_range(1..120) {
            let mut batch = BTreeMap::new();
            for _ in 0..rng.random_range(1..20) {
                let key = vec![b'k', rng.random_range(0..8), rng.random_range(0..60)];
                let value = rng.random_bool(0.7).then(|| vec![rng.random(); rng.random_range(0..3000)]);
                batch.insert(key, value);
            }
            for (key, value) in &batch {
                match value {
                    Some(value) => model.insert(key.clone(), value.clone()),
                    None => model.remove(key),
                };
            }
            engine.write_durable(batch.into_iter().collect()).await.expect("committed");
        }
        if round % 2 == 0 {
            engine.close().await.expect("closes");
        }
        engine = bench.writer().await;
        assert_eq!(all(&engine).await.expect("scans"), model_as_vec(&model), "round {round}");
        for key in model.keys().take(20) {
            assert_eq!(engine.get(key).await.expect("gets").as_deref(), model.get(key).map(Vec::as_slice));
        }
        assert_eq!(engine.get(b"k-absent").await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn a_scan_is_ordered_half_open_and_limited() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    let records = (0..100_u8).rev().map(|n| (vec![b'd', n], Some(vec![n]))).collect();
    engine.write_durable(records).await.expect("committed");
    let keys = |found: Vec<(Bytes, Bytes)>| found.iter().map(|(key, _)| key[1]).collect::<Vec<_>>();
    let scan = |from: u8, to: u8, limit| engine.scan(vec![b'd', from], vec![b'd', to], limit);
    assert_eq!(keys(scan(10, 13, 99).await.expect("scans")), [10, 11, 12]);
    assert_eq!(keys(scan(95, 255, 3).await.expect("scans")), [95, 96, 97]);
    assert_eq!(scan(5, 5, 9).await.expect("scans").len(), 0);
    assert_eq!(scan(6, 5, 9).await.expect("scans").len(), 0);
    assert_eq!(all(&engine).await.expect("scans").len(), 100, "the engine's own record is not shown");
}

#[tokio::test(start_paused = true)]
async fn d8_a_second_writer_fences_the_first_which_says_so_and_changes_nothing() {
    let bench = Bench::new();
    let first = bench.writer().await;
    first.write_durable(put("a", "1")).await.expect("committed");
    let second = bench.writer().await;
    assert_eq!(second.get(b"a").await.expect("gets").as_deref(), Some(&b"1"[..]));
    assert_eq!(first.write_durable(put("a", "lost")).await, Err(EngineError::Fenced));
    assert_eq!(first.write_durable(put("b", "lost")).await, Err(EngineError::Fenced));
    second.write_durable(put("c", "3")).await.expect("committed");
    assert_eq!(first.close().await, Err(EngineError::Fenced));
    let expected = vec![(b"a".to_vec(), b"1".to_vec()), (b"c".to_vec(), b"3".to_vec())];
    assert_eq!(all(&second).await.expect("scans"), expected);
    second.close().await.expect("closes");
    assert_eq!(all(&bench.reader().await).await.expect("scans"), expected);
}

#[tokio::test(start_paused = true)]
async fn a_fenced_writer_goes_on_reading_its_own_last_state_and_nothing_newer() {
    let bench = Bench::new();
    let first = bench.writer().await;
    // Some of it in tables, the rest in logs.
    for n in 0..600_u32 {
        let record = put((n % 50).to_be_bytes(), vec![n as u8; 200]);
        first.write_durable(record).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let before = all(&first).await.expect("scans");
    let second = bench.writer().await;
    for n in 0..300_u32 {
        second.write_durable(put((n % 70).to_be_bytes(), "newer")).await.expect("committed");
    }
    second.write_durable(vec![(7_u32.to_be_bytes().to_vec(), None)]).await.expect("committed");
    assert!(!first.is_fenced());
    assert_eq!(first.write_durable(put("a", "lost")).await, Err(EngineError::Fenced));
    assert_eq!(all(&first).await.expect("scans"), before);
    assert_eq!(first.get(&7_u32.to_be_bytes()).await.expect("gets").as_deref(), Some(&before[7].1[..]));
    assert_eq!(first.get(&69_u32.to_be_bytes()).await, Ok(None));
    assert_eq!(first.get(b"a").await, Ok(None), "a write that failed never was");
    assert!(first.is_fenced());
}

#[tokio::test(start_paused = true)]
async fn a_fenced_writer_whose_last_state_has_been_removed_says_so() {
    let bench = Bench::new();
    let first = bench.writer().await;
    for n in 0..600_u32 {
        first.write_durable(put((n % 50).to_be_bytes(), "then")).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let second = bench.writer().await;
    for n in 0..3000_u32 {
        second.write_durable(put((n % 50).to_be_bytes(), "newer")).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(3)).await;
    }
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    assert_eq!(first.write_durable(put("a", "lost")).await, Err(EngineError::Fenced));
    for n in 0..50_u32 {
        let found = first.get(&n.to_be_bytes()).await;
        assert!(found.is_err(), "{n}: {found:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_learns_that_it_was_fenced_by_refreshing() {
    let bench = Bench::new();
    let first = bench.writer().await;
    let _second = bench.writer().await;
    assert_eq!(first.refresh().await, Err(EngineError::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_successor_whose_clock_is_a_year_ahead_keeps_the_fence_against_the_first() {
    let bench = Bench::new();
    let first = bench.writer().await;
    first.write_durable(put("a", "1")).await.expect("committed");
    let day = Time::from_system(bench.clock.now().to_system() + Duration::from_secs(400 * 86_400));
    let ahead = Bench { raw: bench.raw.clone(), clock: Arc::new(TokioClock(Instant::now(), day)) };
    let second = ahead.writer().await;
    for round in 0..3_u8 {
        // So that the fence lies behind what a new writer would read, and is garbage but for its age.
        second.write_durable(put([round], "newer")).await.expect("committed");
        second.tidy().await.expect("tidied");
    }
    assert_eq!(first.write_durable(put("a", "lost")).await, Err(EngineError::Fenced));
}

#[tokio::test(start_paused = true)]
async fn a_writer_that_was_taken_over_unawares_removes_nothing() {
    let bench = Bench::new();
    let buckets = [bench.bucket(), bench.bucket()];
    let first = bench.open_as(&buckets[0], EngineMode::Writer, true).await.expect("opens");
    tokio::time::sleep(Duration::from_secs(60)).await;
    let second = bench.open_as(&buckets[1], EngineMode::Writer, true).await.expect("opens");
    // Logs, and tables that are merged: what is left of both is garbage ten minutes later.
    for n in 0..1100_u32 {
        second.write_durable(put((n % 50).to_be_bytes(), "newer")).await.expect("committed");
    }
    let deletes = || buckets.each_ref().map(|bucket| bucket.meter().snapshot().deletes);
    let before = deletes();
    assert!(!first.is_fenced());
    tokio::time::sleep(Duration::from_secs(13 * 60)).await;
    let after = deletes();
    assert!(after[1] > before[1] + 1000, "there was no garbage: {before:?}, {after:?}");
    assert_eq!(after[0], before[0], "the first one removed it");
    assert_eq!(first.refresh().await, Err(EngineError::Fenced));
    second.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn a_commit_waits_out_an_outage_and_loses_nothing() {
    for fault in [Fault::Fail, Fault::LoseAnswer, Fault::Deny] {
        let raw = Arc::new(FaultyStore::default());
        let bench = Bench::over(raw.clone());
        let engine = bench.writer().await;
        raw.fail_writes([fault; 30]);
        engine.write_durable(put("a", "1")).await.expect("committed in the end");
        drop(engine);
        raw.writes.lock().clear();
        let next = bench.writer().await;
        assert_eq!(next.get(b"a").await.expect("gets").as_deref(), Some(&b"1"[..]), "{fault:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn reading_during_an_outage_ends_with_the_reason() {
    let raw = Arc::new(FaultyStore::default());
    let bench = Bench::over(raw.clone());
    let engine = bench.writer().await;
    engine.write_durable(put("a", "1")).await.expect("committed");
    engine.close().await.expect("closes");
    for (fault, denied) in [(Fault::Hang, false), (Fault::Fail, false), (Fault::Deny, true)] {
        let engine = bench.writer().await;
        raw.fail_reads([fault; 10_000]);
        let started = Instant::now();
        let error = engine.get(b"a").await.expect_err("no answer");
        assert!(started.elapsed() <= Duration::from_secs(61), "{fault:?}");
        let is_expected = match &error {
            EngineError::Denied(_) => denied,
            EngineError::Unavailable(_) => !denied,
            _ => false,
        };
        assert!(is_expected, "{fault:?}: {error}");
        raw.reads.lock().clear();
        assert_eq!(engine.get(b"a").await.expect("answers again").as_deref(), Some(&b"1"[..]));
        engine.close().await.expect("closes");
    }
}

#[tokio::test(start_paused = true)]
async fn opening_fails_at_once_when_denied_and_in_time_when_nothing_answers() {
    for (fault, limit) in [(Fault::Deny, 1), (Fault::Hang, 61)] {
        let raw = Arc::new(FaultyStore::default());
        raw.fail_reads([fault; 10_000]);
        raw.fail_writes([fault; 10_000]);
        let bench = Bench::over(raw.clone());
        let started = Instant::now();
        let error = bench.open_as(&bench.bucket(), EngineMode::Writer, true).await.err();
        assert!(started.elapsed() <= Duration::from_secs(limit), "{fault:?} {:?}", started.elapsed());
        assert_eq!(matches!(error, Some(EngineError::Denied(_))), fault == Fault::Deny, "{error:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_went_back_between_sessions_does_not_stop_commits() {
    for closes in [true, false] {
        let mut bench = Bench::new();
        let day = |nanos: u64| -> Arc<dyn Clock> { Arc::new(ManualClock::new(nanos)) };
        bench.clock = day(1_900_000_000_000_000_000);
        let engine = bench.writer().await;
        engine.write_durable(put("a", "1")).await.expect("committed");
        if closes {
            engine.close().await.expect("closes");
        }
        bench.clock = day(1_800_000_000_000_000_000);
        let engine = bench.writer().await;
        let started = Instant::now();
        engine.write_durable(put("a", "2")).await.expect("committed although the clock is behind");
        assert_eq!(started.elapsed(), Duration::ZERO);
        assert_eq!(engine.get(b"a").await.expect("gets").as_deref(), Some(&b"2"[..]));
    }
}

#[tokio::test(start_paused = true)]
async fn an_empty_bucket_is_missing_records_unless_a_volume_is_being_made() {
    let bench = Bench::new();
    for mode in [EngineMode::Writer, EngineMode::Reader] {
        let error = bench.open_as(&bench.bucket(), mode.clone(), false).await.err();
        assert_eq!(error, Some(EngineError::Missing), "{mode:?}");
        assert_eq!(bench.objects().await.len(), 0);
    }
}

#[tokio::test(start_paused = true)]
async fn a_closed_engine_says_so() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    engine.close().await.expect("closes");
    engine.close().await.expect("closing twice is nothing");
    assert_eq!(engine.write_durable(put("a", "1")).await, Err(EngineError::Closed));
    assert_eq!(engine.get(b"a").await, Err(EngineError::Closed));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn on_a_local_directory_and_real_threads_nothing_is_lost_either() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().to_str().expect("utf-8");
    let open = async || {
        let bucket = crate::store::open(url, &StoreOptions::default()).expect("opens");
        let options = EngineOptions { create: true, ..EngineOptions::default() };
        let clock: Arc<dyn Clock> = Arc::new(SystemClock::default());
        Engine::open(Bench::sealed(&bucket), EngineMode::Writer, options, clock).await.expect("opens")
    };
    let engine = open().await;
    let commits = (0..300_u32).map(|n| {
        let engine = engine.clone();
        tokio::spawn(async move { engine.write_durable(put(n.to_be_bytes(), [n as u8; 300])).await })
    });
    for commit in futures::future::join_all(commits).await {
        commit.expect("joined").expect("committed");
    }
    drop(engine);
    let engine = open().await;
    assert_eq!(all(&engine).await.expect("scans").len(), 300);
    engine.close().await.expect("closes");
    assert_eq!(all(&open().await).await.expect("scans").len(), 300);
}

#[tokio::test(start_paused = true)]
async fn an_old_refusal_does_not_stop_a_new_opening() {
    let raw = Arc::new(FaultyStore::default());
    let bench = Bench::over(raw.clone());
    let bucket = bench.bucket();
    raw.fail_reads([Fault::Deny]);
    let error = bench.open_as(&bucket, EngineMode::Writer, true).await.err();
    assert!(matches!(error, Some(EngineError::Denied(_))), "{error:?}");
    bench.open_as(&bucket, EngineMode::Writer, true).await.expect("opens now that it may");
}
