//! What hours do, in simulated time: of an outage, and of a writer that is cut off while another one works.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use bytes::Bytes;
use coffer::base::{Clock, Ino, OsEntropy, Time};
use coffer::cli::figures::Figures;
use coffer::cli::report::{self, Report};
use coffer::maint::{self, CheckOptions, Severity};
use coffer::store::fault::{Fault, FaultPlan, FaultStore, Outage, Rule, Verb};
use coffer::vfs::{CleanOptions, Handle, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, Budget, OpenOptions};
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use tokio::time::{Instant, sleep, sleep_until};

use in_memory::{CALLER, World, factors, spec};

const MIB: usize = 1 << 20;
const HOUR: Duration = Duration::from_secs(3600);
const MINUTE: Duration = Duration::from_secs(60);

/// Tokio's paused clock, as everybody's. It begins now, so that the store's own times are of its time.
struct Simulated(Instant, SystemTime);

impl Clock for Simulated {
    fn now(&self) -> Time {
        Time::from_system(self.1 + self.elapsed())
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
    let clock = Arc::new(Simulated(Instant::now(), SystemTime::now()));
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

/// How long the requests of the first writer are on their way.
const DELAY: Duration = Duration::from_secs(4 * 3600);
/// Rounds of the second writer's work, one in each quarter of an hour.
const ROUNDS: u64 = 14;

/// What became of the writes that came to the bucket.
#[derive(Clone, Copy, Debug, Default)]
struct Arrived {
    made: u64,
    /// Another writer's object was there.
    refused: u64,
    deleted: u64,
}

/// Counts what arrives at a bucket by one way.
#[derive(Clone, Debug)]
struct Gate {
    inner: Arc<InMemory>,
    arrived: Arc<Mutex<Arrived>>,
}

impl std::fmt::Display for Gate {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Gate {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let result = self.inner.put_opts(path, payload, opts).await;
        match &result {
            Ok(_) => self.arrived.lock().made += 1,
            Err(Error::AlreadyExists { .. }) => self.arrived.lock().refused += 1,
            Err(error) => panic!("{error}"),
        }
        result
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        unreachable!("nobody sends parts")
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let arrived = Arc::clone(&self.arrived);
        self.inner.delete_stream(paths.inspect(move |_| arrived.lock().deleted += 1).boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        unreachable!("nobody copies")
    }
}

async fn objects(inner: &InMemory) -> BTreeMap<String, Bytes> {
    let mut objects = BTreeMap::new();
    for meta in inner.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
        objects.insert(meta.location.to_string(), bytes);
    }
    objects
}

/// What the second writer does, and leaves.
async fn work_for_hours(vfs: &Vfs) -> BTreeMap<String, Vec<u8>> {
    let mut files = BTreeMap::new();
    for round in 0..ROUNDS {
        for (name, bytes) in
            [("shared".to_owned(), 3 * MIB), (format!("own {}", round % 9), MIB), (format!("{round}"), 700)]
        {
            let bytes = noise(1000 + round, bytes);
            put(vfs, &name, &bytes).await;
            files.insert(name, bytes);
        }
        vfs.sync_all().await.unwrap();
        sleep(MINUTE * 15).await;
    }
    files
}

/// The first writer's requests are given up again and again, and every one of them arrives four hours after that. In
/// between another writer has taken over, worked and left.
#[tokio::test(start_paused = true)]
async fn requests_that_hang_for_hours_do_nothing_to_what_a_successor_has_left() {
    let inner = Arc::new(InMemory::new());
    let arrived = Arc::new(Mutex::new(Arrived::default()));
    let gate = Gate { inner: Arc::clone(&inner), arrived: Arc::clone(&arrived) };
    let (faults, slow, options) = behind_faults(Arc::new(gate)).await;
    let world = World(Arc::clone(&inner) as Arc<dyn ObjectStore>);
    let clean = CleanOptions { grace: MINUTE, ..CleanOptions::default() };
    let vfs = VfsOptions { clean, ..VfsOptions::default() };
    let (first, _) = slow.open(OpenOptions { vfs, ..options.clone() }).await;
    for name in ["kept", "shared", "removed"] {
        let ino = put(&first.vfs, name, &noise(1, 3 * MIB)).await;
        first.vfs.sync_all().await.unwrap();
        first.vfs.forget(ino, 1);
    }
    // First the deletions of a dead segment are cut off, which nothing but reads comes before; then everything.
    let (cut, late) = (Instant::now(), |fault| Rule { delay: DELAY, ..Rule::new(fault, 1.0) });
    let deletions = Rule { verb: Some(Verb::Delete), ..late(Fault::Late) };
    faults.set_plan(FaultPlan { rules: vec![deletions], ..FaultPlan::default() });
    first.vfs.unlink(Ino::ROOT, b"removed").await.unwrap();
    first.vfs.sync_all().await.unwrap();
    sleep(MINUTE * 3).await;
    // The records of this commit are put into a table when nothing gets through any more.
    put(&first.vfs, "small", b"of the first").await;
    first.vfs.sync_all().await.unwrap();
    let rules = vec![late(Fault::Straggler)];
    faults.set_plan(FaultPlan { latency: DELAY * 10, rules, ..FaultPlan::default() });
    *arrived.lock() = Arrived::default();
    put(&first.vfs, "shared", &noise(2, 3 * MIB)).await;
    put(&first.vfs, "of the first", &noise(3, 2 * MIB)).await;
    let old = Arc::clone(&first.vfs);
    let syncing = tokio::spawn(async move { old.sync_all().await });
    sleep(MINUTE * 12).await;

    let (second, _) = world.open(OpenOptions { takeover: true, ..options.clone() }).await;
    let mut files = work_for_hours(&second.vfs).await;
    files.insert("kept".to_owned(), noise(1, 3 * MIB));
    files.insert("small".to_owned(), b"of the first".to_vec());
    second.close().await.unwrap();
    let left = objects(&inner).await;
    assert!(cut.elapsed() < DELAY && !syncing.is_finished(), "the first is still waiting");

    // The way is free, and what was sent first arrives; the first writer learns of the second.
    sleep_until(cut + DELAY + MINUTE * 5).await;
    faults.set_plan(FaultPlan::default());
    let synced = syncing.await.unwrap();
    assert!(matches!(synced, Err(VfsError::Fenced)), "{synced:?}");
    assert_eq!(first.vfs.status().state, "fenced");
    // And all that it had sent in between arrives too, with the next request.
    sleep(DELAY).await;
    faults.list(None).try_collect::<Vec<_>>().await.unwrap();
    assert!(first.close().await.is_err());

    let arrived = *arrived.lock();
    println!("late: {arrived:?}");
    assert!(arrived.made > 0 && arrived.refused > 0 && arrived.deleted > 0, "nothing was late: {arrived:?}");
    let now = objects(&inner).await;
    for (path, bytes) in &left {
        assert!(now.get(path) == Some(bytes), "{path} is not as the successor left it");
    }
    let (third, _) = world.open(options.clone()).await;
    for (name, bytes) in &files {
        assert!(contents(&third.vfs, name).await == *bytes, "{name} is another");
    }
    let lost = third.vfs.lookup(Ino::ROOT, b"of the first").await;
    assert!(matches!(lost, Err(VfsError::NoEntry)), "{lost:?}");
    put(&third.vfs, "of the third", b"and it goes on").await;
    third.close().await.unwrap();
    let examined = volume::examine(world.bucket(), &factors(), options).await.unwrap();
    let check = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = maint::check(&examined, &check, &|_| ()).await.unwrap();
    // Segments of the first are left over, of which no record knows.
    assert!(report.worst() <= Some(Severity::Harmless), "{:#?}", report.findings);
    examined.close().await;
}

/// A reader that stays at the commit it was opened at is shown that, as long as it is kept; then it fails, and never shows
/// anything newer.
#[tokio::test(start_paused = true)]
async fn a_reader_that_stays_shows_the_one_commit_or_fails() {
    let (_, world, options) = behind_faults(Arc::new(InMemory::new())).await;
    let (writer, _) = world.open(options.clone()).await;
    let names = ["a", "b", "c"];
    for (name, seed) in names.into_iter().zip(1..) {
        put(&writer.vfs, name, &noise(seed, 3 * MIB)).await;
        writer.vfs.sync_all().await.unwrap();
    }
    let vfs = VfsOptions { read_only: true, stays: true, record_cache_bytes: 0, ..VfsOptions::default() };
    let (reader, _) = world.open(OpenOptions { vfs, table_cache_bytes: 0, ..options.clone() }).await;
    let [a, b] = [1, 2].map(|seed| noise(seed, 3 * MIB));
    let attr = reader.vfs.lookup(Ino::ROOT, b"b").await.unwrap();

    for name in names {
        put(&writer.vfs, name, &noise(9, 5 * MIB)).await;
    }
    writer.vfs.unlink(Ino::ROOT, b"c").await.unwrap();
    writer.vfs.sync_all().await.unwrap();
    sleep(MINUTE * 5).await;
    assert!(contents(&reader.vfs, "a").await == a, "it stays while the writer goes on");
    let early = reader.vfs.read(Handle(0), attr.ino, 0, MIB).await.unwrap();
    assert!(early == b[..MIB]);

    // The segment goes first; the records of it are in memory.
    sleep(MINUTE * 20).await;
    let late = reader.vfs.read(Handle(0), attr.ino, 2 * MIB as u64, MIB).await;
    assert!(matches!(&late, Ok(bytes) if bytes[..] == b[2 * MIB..]) || matches!(late, Err(VfsError::GoneOn)));
    for number in 0..60 {
        put(&writer.vfs, &format!("other {number}"), &noise(number, 1000)).await;
        writer.vfs.sync_all().await.unwrap();
        sleep(MINUTE * 5).await;
    }
    let mut gone = 0;
    for name in ["c", "other 1", "nothing"] {
        match reader.vfs.lookup(Ino::ROOT, name.as_bytes()).await {
            Ok(attr) => assert_eq!((name, attr.size), ("c", 3 << 20)),
            Err(VfsError::NoEntry) => assert_ne!(name, "c"),
            Err(VfsError::GoneOn) => gone += 1,
            Err(error) => panic!("{error:?}"),
        }
    }
    assert!(gone > 0, "the test needs tables that are removed");
    assert!(matches!(reader.vfs.readdir(Ino::ROOT, 0, 100).await, Err(VfsError::GoneOn)));
    reader.close().await.unwrap();
    writer.close().await.unwrap();
}
