//! Each fault shows itself as its name says, and a plan repeats itself.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions};
use tokio::time::{Instant, timeout};

use super::{FaultPlan, FaultStore};
use crate::base::{Clock, Time};
use crate::store::{Bucket, StoreOptions};

/// Tokio's time, which stands still while nobody waits.
struct TokioClock(Instant);

impl Clock for TokioClock {
    fn now(&self) -> Time {
        Time::default()
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

fn store(plan: &str) -> (Arc<InMemory>, FaultStore) {
    let inner = Arc::new(InMemory::new());
    let clock = Arc::new(TokioClock(Instant::now()));
    (inner.clone(), FaultStore::new(inner, plan.parse().unwrap(), clock))
}

fn path() -> Path {
    Path::from("d/aa/a")
}

async fn is_there(inner: &InMemory) -> bool {
    inner.head(&path()).await.is_ok()
}

#[tokio::test(start_paused = true)]
async fn a_request_that_is_refused_or_lost_is_not_carried_out() {
    for fault in ["throttle", "broken", "reset"] {
        let (inner, store) = store(&format!("{fault}=1:put"));
        assert!(store.put(&path(), "x".into()).await.is_err(), "{fault}");
        assert!(!is_there(&inner).await, "{fault}");
    }
    let (inner, store) = store("hang=1");
    assert!(timeout(Duration::from_secs(3600), store.put(&path(), "x".into())).await.is_err());
    assert!(!is_there(&inner).await);
}

#[tokio::test(start_paused = true)]
async fn an_ambiguous_or_silent_request_is_carried_out() {
    let (inner, ambiguous) = store("ambiguous=1:put");
    assert!(ambiguous.put(&path(), "x".into()).await.is_err());
    assert!(is_there(&inner).await);
    let (inner, silent) = store("silent=1:put");
    assert!(timeout(Duration::from_secs(3600), silent.put(&path(), "x".into())).await.is_err());
    assert!(is_there(&inner).await);
}

#[tokio::test(start_paused = true)]
async fn a_late_write_takes_effect_after_its_delay() {
    let (inner, store) = store("late=1@5s:put");
    assert!(store.put(&path(), "x".into()).await.is_err());
    tokio::time::sleep(Duration::from_millis(4_900)).await;
    assert!(store.head(&Path::from("other")).await.is_err());
    assert!(!is_there(&inner).await);
    tokio::time::sleep(Duration::from_millis(200)).await;
    assert!(store.get(&path()).await.is_ok(), "it is there for the first who asks");
}

#[tokio::test(start_paused = true)]
async fn a_late_creation_does_not_replace_what_came_first() {
    let (inner, store) = store("late=1@5s:put");
    let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    assert!(store.put_opts(&path(), "late".into(), create).await.is_err());
    inner.put(&path(), "first".into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert_eq!(store.get(&path()).await.unwrap().bytes().await.unwrap(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_write_whose_sender_went_away_may_arrive_all_the_same() {
    let (_, store) = store("latency=2s,straggler=1@5s:put");
    assert!(timeout(Duration::from_millis(500), store.put(&path(), "x".into())).await.is_err());
    assert!(store.head(&path()).await.is_err(), "not yet");
    tokio::time::sleep(Duration::from_secs(10)).await;
    assert!(store.head(&path()).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_stale_listing_shows_the_past_and_another_shows_entries_twice() {
    let (_, store) = store("stale-list=1@5s");
    store.put(&path(), "x".into()).await.unwrap();
    let list = || async { store.list(Some(&Path::from("d"))).try_collect::<Vec<_>>().await.unwrap().len() };
    assert_eq!(list().await, 0);
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(list().await, 1);
    store.delete(&path()).await.unwrap();
    assert_eq!(list().await, 1, "it is gone, but not for long enough");
    tokio::time::sleep(Duration::from_secs(6)).await;
    assert_eq!(list().await, 0);
    let (_, store) = self::store("repeat-list=1");
    store.put(&path(), "x".into()).await.unwrap();
    assert_eq!(store.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 2);
}

#[tokio::test(start_paused = true)]
async fn a_short_body_is_announced_whole() {
    let mut ends = [false; 2];
    for seed in 0..20 {
        let (inner, store) = store(&format!("seed={seed},short-body=1"));
        inner.put(&path(), "0123456789".into()).await.unwrap();
        let result = store.get(&path()).await.unwrap();
        assert_eq!(result.range, 0..10);
        match result.bytes().await {
            Ok(bytes) => assert_eq!((bytes, ends[0] = true).0, "01234"),
            Err(_) => ends[1] = true,
        }
    }
    assert_eq!(ends, [true; 2], "some end in silence, some with an error");
}

#[tokio::test(start_paused = true)]
async fn an_outage_ends_when_it_is_over() {
    let (_, store) = store("outage=10s+20s");
    let started = Instant::now();
    store.put(&path(), "x".into()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(10)).await;
    for _ in 0..10 {
        let get = timeout(Duration::from_millis(100), store.get(&path())).await;
        assert!(!matches!(get, Ok(Ok(_))));
    }
    tokio::time::sleep_until(started + Duration::from_secs(30)).await;
    store.get(&path()).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn latency_and_bandwidth_take_their_time() {
    let (_, store) = store("latency=20ms,bandwidth=1000");
    let started = Instant::now();
    store.put(&path(), vec![0; 500].into()).await.unwrap();
    assert_eq!(started.elapsed(), Duration::from_millis(520));
    let path = path();
    let get = || async { store.get(&path).await.unwrap().bytes().await.unwrap().len() };
    assert_eq!(futures::future::join(get(), get()).await, (500, 500));
    assert_eq!(started.elapsed(), Duration::from_millis(520 + 20 + 1000), "they share the link");
}

/// What happens to a hundred writes under a plan.
async fn fates(plan: &str) -> Vec<bool> {
    let (_, store) = store(plan);
    let mut fates = Vec::new();
    for n in 0..100 {
        fates.push(store.put(&Path::from(format!("m/{n}")), "x".into()).await.is_ok());
    }
    fates
}

#[tokio::test(start_paused = true)]
async fn a_seed_decides_everything() {
    let plan = "reset=0.3:put:meta,throttle=0.2:meta";
    let first = fates(&format!("seed=1,{plan}")).await;
    assert_eq!(first, fates(&format!("seed=1,{plan}")).await);
    assert_ne!(first, fates(&format!("seed=2,{plan}")).await);
    assert!(fates(&format!("seed=1,{}", plan.replace("meta", "segment"))).await.iter().all(|is_ok| *is_ok));
}

#[tokio::test(start_paused = true)]
async fn a_patient_bucket_gets_through_all_of_it() {
    let plan = "latency=5ms,jitter=5ms,throttle=0.1,broken=0.1,reset=0.1,hang=0.02,ambiguous=0.1,\
                silent=0.02,late=0.1:put,short-body=0.2,outage=3s+30s";
    for seed in 0..20 {
        let (inner, store) = store(&format!("seed={seed},{plan}"));
        let options = StoreOptions {
            read_timeout: Duration::from_secs(600),
            pause_seed: Some(seed),
            ..StoreOptions::default()
        };
        let bucket = Bucket::with_options(Arc::new(store), "faulty", &options);
        for n in 0..20 {
            let (path, body) = (Path::from(format!("d/aa/{n}")), format!("body {n}"));
            let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
            bucket.objects.put_opts(&path, body.clone().into(), create).await.unwrap();
            assert_eq!(bucket.objects.get(&path).await.unwrap().bytes().await.unwrap(), body);
        }
        assert_eq!(inner.list(None).try_collect::<Vec<_>>().await.unwrap().len(), 20);
    }
}

#[test]
fn a_plan_that_says_nothing_shows_nothing() {
    assert_eq!("".parse::<FaultPlan>().unwrap(), FaultPlan::default());
}
