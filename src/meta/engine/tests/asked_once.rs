//! What an opening is told once is as good as what it would ask again.

use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::path::Path;
use object_store::throttle::{ThrottleConfig, ThrottledStore};

use super::*;

impl Bench {
    async fn reader_through(&self, asked: &Arc<AskedOnce>) -> Engine {
        let store: Arc<dyn ObjectStore> = asked.clone();
        let options = EngineOptions::default();
        Engine::open(store, EngineMode::Reader, options, self.clock.clone()).await.expect("opens")
    }

    async fn writer_through(&self, asked: &Arc<AskedOnce>) -> Result<Engine, EngineError> {
        asked.open_writer(EngineOptions::default(), self.clock.clone()).await
    }
}

/// A volume that has been in use, and an opening of it whose reader has seen that.
async fn looked_at() -> (Bench, Bucket, Arc<AskedOnce>) {
    let bench = Bench::new();
    let engine = bench.writer().await;
    engine.write_durable(put("before", "1")).await.expect("committed");
    engine.close().await.expect("closes");
    let bucket = bench.bucket();
    let asked = AskedOnce::begin(Bench::sealed(&bucket), bench.clock.clone());
    let reader = bench.reader_through(&asked).await;
    assert_eq!(reader.get(b"before").await.expect("gets").as_deref(), Some(b"1".as_slice()));
    reader.logs_are_whole().await.expect("whole");
    reader.close().await.expect("closes");
    (bench, bucket, asked)
}

#[tokio::test(start_paused = true)]
async fn a_writer_misses_nothing_of_what_another_wrote_since_its_reader_looked() {
    for (sessions, is_closed) in [(1, true), (1, false), (3, true), (3, false)] {
        let (bench, _, asked) = looked_at().await;
        let mut others = Vec::new();
        for session in 0..sessions {
            let other = bench.writer().await;
            for n in 0..20_u8 {
                other.write_durable(put([b'o', session, n], "2")).await.expect("committed");
            }
            if is_closed {
                other.close().await.expect("closes");
            } else {
                others.push(other);
            }
        }
        let engine = bench.writer_through(&asked).await.expect("opens");
        asked.end();
        assert_eq!(all(&engine).await.expect("scans").len(), 1 + usize::from(sessions) * 20);
        for other in others {
            let refused = other.write_durable(put("late", "3")).await;
            assert!(matches!(refused, Err(EngineError::Fenced)), "{refused:?}");
        }
        engine.write_durable(put("after", "4")).await.expect("committed");
        engine.close().await.expect("closes");
        let reader = bench.reader().await;
        reader.logs_are_whole().await.expect("whole");
        assert_eq!(reader.get(b"after").await.expect("gets").as_deref(), Some(b"4".as_slice()));
        assert_eq!(reader.get(b"late").await, Ok(None));
    }
}

#[tokio::test(start_paused = true)]
async fn the_writer_of_an_opening_asks_for_nothing_that_its_reader_was_told() {
    let (bench, bucket, asked) = looked_at().await;
    let before = bucket.meter().snapshot();
    let engine = bench.writer_through(&asked).await.expect("opens");
    asked.end();
    let after = bucket.meter().snapshot();
    let [gets, lists] = [after.gets - before.gets, after.lists - before.lists];
    println!("the writer: {gets} GETs and {lists} listings");
    assert_eq!(lists, 1, "whether the fence stands beside the newest manifest");
    assert!(gets <= 2, "whether the manifest is the newest still: {gets}");
    engine.close().await.expect("closes");
}

impl Bench {
    /// The same volume on a machine whose clock is ahead: it removes what others have just written.
    fn ahead(&self, minutes: u64) -> Self {
        let day = Time::from_system(self.clock.now().to_system() + Duration::from_secs(minutes * 60));
        Self { raw: self.raw.clone(), clock: Arc::new(TokioClock(Instant::now(), day)) }
    }

    /// Writes in a session, and collects what was before it in two more.
    async fn go_on_and_collect(&self) {
        for session in 0..3_u8 {
            let engine = self.writer().await;
            for n in 0..20_u8 {
                engine.write_durable(put([b'o', session, n], "2")).await.expect("committed");
            }
            engine.tidy().await.expect("tidied");
            engine.close().await.expect("closes");
        }
        // The first log is a fence, which stays.
        let log = Self::sealed(&self.bucket()).head(&Path::from("db/wal/00000000000000000002.sst")).await;
        assert!(matches!(log, Err(object_store::Error::NotFound { .. })), "nothing was collected: {log:?}");
    }
}

/// Where the log after the tables is gone SlateDB takes itself for up to date: a listing from now tells that it is not.
#[tokio::test(start_paused = true)]
async fn a_reader_whose_logs_are_collected_as_it_opens_sees_where_they_went() {
    const ANSWER: Duration = Duration::from_secs(6);
    let near: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let slow = ThrottleConfig { wait_get_per_call: ANSWER, ..ThrottleConfig::default() };
    let bench = Bench::over(near.clone());
    let crashed = bench.writer().await;
    for n in 0..20_u8 {
        crashed.write_durable(put([b'c', n], "1")).await.expect("committed");
    }
    drop(crashed);
    let far = Bench { raw: Arc::new(ThrottledStore::new(near, slow)), clock: bench.clock.clone() };
    let asked = AskedOnce::begin(Bench::sealed(&far.bucket()), far.clock.clone());
    let opened = async {
        let reader = far.reader_through(&asked).await;
        reader.logs_are_whole().await.expect("whole");
        reader
    };
    // After the manifest has been read, and before the log after its tables is looked for.
    let collected = async {
        tokio::time::sleep(ANSWER + Duration::from_millis(1)).await;
        let begun = Instant::now();
        // Logs are removed after ten minutes, manifests after an hour.
        bench.ahead(30).go_on_and_collect().await;
        assert!(begun.elapsed() < ANSWER, "too late: {:?}", begun.elapsed());
    };
    let (reader, ()) = futures::join!(opened, collected);
    assert_eq!(all(&reader).await.expect("scans").len(), 20 + 60);
}

#[tokio::test(start_paused = true)]
async fn a_fence_among_what_was_collected_is_noticed() {
    let (bench, _, asked) = looked_at().await;
    bench.ahead(600).go_on_and_collect().await;
    assert_eq!(bench.writer_through(&asked).await.map(drop), Err(EngineError::Fenced));
    // What it had been told was told once: the second time it asks.
    let engine = bench.writer_through(&asked).await.expect("opens");
    assert_eq!(all(&engine).await.expect("scans").len(), 1 + 60);
}

#[tokio::test(start_paused = true)]
async fn what_was_told_too_long_ago_is_not_told_again() {
    let (bench, _, asked) = looked_at().await;
    bench.ahead(600).go_on_and_collect().await;
    tokio::time::sleep(Duration::from_secs(31)).await;
    let engine = bench.writer_through(&asked).await.expect("opens");
    assert_eq!(all(&engine).await.expect("scans").len(), 1 + 60);
}

#[tokio::test(start_paused = true)]
async fn what_is_told_once_is_asked_the_second_time_and_always_at_the_end() {
    let (bench, bucket, asked) = looked_at().await;
    let manifests = Path::from(DATABASE).join("manifest");
    let listed = async || {
        let before = bucket.meter().snapshot().lists;
        let listing: Vec<_> = asked.list(Some(&manifests)).try_collect().await.expect("listed");
        (listing.len() > 1, bucket.meter().snapshot().lists - before)
    };
    asked.begin_writing();
    assert_eq!([listed().await, listed().await], [(true, 0), (true, 1)]);
    let again = AskedOnce::begin(Bench::sealed(&bucket), bench.clock.clone());
    again.end();
    let before = bucket.meter().snapshot().lists;
    let listing: Vec<_> = again.list(Some(&manifests)).try_collect().await.expect("listed");
    assert!(listing.len() > 1 && bucket.meter().snapshot().lists > before);
}

#[tokio::test(start_paused = true)]
async fn what_could_not_be_asked_ahead_is_asked_when_it_is_wanted() {
    let store = Arc::new(FaultyStore::default());
    let (manifests, log) =
        (Path::from(DATABASE).join("manifest"), Path::from("db/wal/00000000000000000007.sst"));
    let manifest = manifests.clone().join("00000000000000000003.manifest");
    store.inner.put(&manifest, "a manifest".into()).await.expect("put");
    store.inner.put(&log, "a log".into()).await.expect("put");
    store.fail_reads([Fault::Fail, Fault::Fail]);
    let asked = AskedOnce::begin(store.clone(), TokioClock::started());
    let listed: Vec<_> = asked.list(Some(&manifests)).try_collect().await.expect("listed");
    assert_eq!(listed.into_iter().map(|object| object.location).collect::<Vec<_>>(), [manifest]);
    assert!(asked.get(&log).await.is_ok());
}
