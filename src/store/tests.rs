//! What a bucket promises, tried on stores that fail.

use std::sync::Arc;
use std::time::Duration;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use super::fault::FaultStore;
use super::fault::scripted::{Fault, FaultyStore};
use super::*;
use crate::base::{ManualClock, SeededEntropy};

fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

fn payload(bytes: &'static [u8]) -> PutPayload {
    PutPayload::from_static(bytes)
}

fn faulty() -> (Arc<FaultyStore>, Bucket) {
    let store = Arc::new(FaultyStore::default());
    (store.clone(), Bucket::from_store(store))
}

#[tokio::test(start_paused = true)]
async fn a_write_outlasts_any_outage_and_the_meter_says_since_when() {
    let (store, bucket) = faulty();
    store.fail_writes([Fault::Fail; 40]);
    let path = Path::from("a");
    let writing = {
        let objects = bucket.objects.clone();
        tokio::spawn(async move { objects.put_opts(&Path::from("a"), payload(b"x"), create()).await })
    };
    tokio::time::sleep(Duration::from_secs(60)).await;
    let during = bucket.meter().snapshot();
    assert_eq!(during.outage, Some(OutageKind::Unavailable));
    assert!(during.outage_since.is_some_and(|since| since >= Duration::from_secs(59)), "{during:?}");
    assert!(during.last_error.as_ref().is_some_and(|words| words.contains("connection reset")));
    writing.await.expect("joined").expect("written in the end");
    let after = bucket.meter().snapshot();
    assert_eq!((after.puts, after.errors, after.outage), (41, 40, None));
    assert_eq!(bucket.objects.get(&path).await.expect("there").bytes().await.expect("body"), "x");
}

#[tokio::test(start_paused = true)]
async fn a_denied_write_loses_nothing_and_is_told_apart_from_an_outage() {
    let (store, bucket) = faulty();
    store.fail_writes([Fault::Deny; 20]);
    let objects = bucket.objects.clone();
    let writing =
        tokio::spawn(async move { objects.put_opts(&Path::from("a"), payload(b"x"), create()).await });
    bucket.meter().denied().await;
    assert_eq!(bucket.meter().outage(), Some(OutageKind::Denied));
    tokio::time::sleep(Duration::from_secs(120)).await;
    assert!(bucket.meter().snapshot().puts < 15, "a denied write is tried slowly");
    writing.await.expect("joined").expect("written when allowed again");
    assert_eq!(bucket.meter().outage(), None);
}

/// > A deletion that is refused ends at once, one in an outage after half a minute; neither is tried for ever, and that
/// > something may not be deleted is no outage.
#[tokio::test(start_paused = true)]
async fn a_deletion_has_an_end_also_where_writes_have_none() {
    let (store, bucket) = faulty();
    let path = Path::from("a");
    store.inner.put(&path, payload(b"x")).await.expect("put");
    store.fail_writes([Fault::Deny]);
    let begun = tokio::time::Instant::now();
    bucket.objects.delete(&path).await.expect_err("refused");
    assert_eq!(begun.elapsed(), Duration::ZERO);
    let after = bucket.meter().snapshot();
    assert_eq!((after.errors, after.outage), (1, None));
    assert!(after.last_error.is_some());

    store.fail_writes([Fault::Fail; 1000]);
    bucket.objects.delete(&path).await.expect_err("out of reach");
    let took = begun.elapsed();
    assert!(took > Duration::from_secs(15) && took < Duration::from_secs(31), "{took:?}");
    assert_eq!(bucket.meter().outage(), Some(OutageKind::Unavailable));
    store.writes.lock().clear();
    bucket.objects.delete(&path).await.expect("deleted");
}

#[tokio::test(start_paused = true)]
async fn that_an_object_is_not_there_is_no_answer_to_writing_it() {
    let (store, bucket) = faulty();
    store.fail_writes([Fault::NotFound; 5]);
    bucket.objects.put_opts(&Path::from("a"), payload(b"x"), create()).await.expect("written in the end");
    assert_eq!(bucket.meter().snapshot().puts, 6);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_was_let_in_waits_where_it_is_refused_and_another_is_told_at_once() {
    let (store, bucket) = faulty();
    let path = Path::from("a");
    store.inner.put(&path, payload(b"x")).await.expect("put");
    store.fail_reads([Fault::Deny]);
    bucket.objects.get(&path).await.expect_err("refused from the beginning");
    bucket.objects.get(&path).await.expect("let in");
    // A clock that is wrong after waking, say.
    store.fail_reads([Fault::Deny; 3]);
    bucket.objects.get(&path).await.expect("let in again");
    store.fail_reads([Fault::Deny; 100]);
    let begun = tokio::time::Instant::now();
    bucket.objects.get(&path).await.expect_err("refused for good");
    let waited = begun.elapsed();
    assert!(waited > Duration::from_secs(30) && waited <= Duration::from_secs(60), "{waited:?}");
}

#[tokio::test(start_paused = true)]
async fn an_answer_to_a_deletion_that_the_client_panics_at_is_a_fault_like_another() {
    let (store, bucket) = faulty();
    let path = Path::from("a");
    store.inner.put(&path, payload(b"x")).await.expect("put");
    store.fail_writes([Fault::Panic]);
    bucket.objects.delete(&path).await.expect("deleted in the end");
    assert!(store.inner.get(&path).await.is_err());
}

#[tokio::test(start_paused = true)]
async fn a_person_waiting_is_told_at_once_that_access_is_denied() {
    let (store, bucket) = faulty();
    store.fail_writes([Fault::Deny]);
    let error = bucket.probe().await.expect_err("denied");
    assert!(matches!(error, StoreError::Denied { .. }), "{error}");
    assert_eq!(bucket.meter().snapshot().puts, 1);
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_to_a_create_is_success_when_the_bytes_are_ours() {
    let (store, bucket) = faulty();
    store.fail_writes([Fault::LoseAnswer]);
    let path = Path::from("a");
    bucket.objects.put_opts(&path, payload(b"ours"), create()).await.expect("ours");
    let other = bucket.objects.put_opts(&path, payload(b"them"), create()).await;
    assert!(matches!(other, Err(object_store::Error::AlreadyExists { .. })));
    let longer = bucket.objects.put_opts(&path, payload(b"ours and more"), create()).await;
    assert!(matches!(longer, Err(object_store::Error::AlreadyExists { .. })));
}

#[tokio::test(start_paused = true)]
async fn a_read_ends_at_its_deadline_even_when_nothing_answers() {
    let (store, bucket) = faulty();
    let path = Path::from("a");
    bucket.objects.put(&path, payload(b"x")).await.expect("written");
    store.fail_reads([Fault::Fail, Fault::Fail]);
    bucket.objects.get(&path).await.expect("the third attempt answers");
    store.fail_reads([Fault::Hang; 10]);
    let started = tokio::time::Instant::now();
    let error = bucket.objects.get(&path).await.expect_err("nothing answered");
    assert!(started.elapsed() <= Duration::from_secs(60), "{:?}", started.elapsed());
    assert!(matches!(bucket.error("a", &error), StoreError::Unavailable { .. }), "{error}");
    assert_eq!(bucket.meter().outage(), Some(OutageKind::Unavailable));
    assert_eq!(bucket.meter().snapshot().in_flight, 0);
}

#[tokio::test]
async fn an_absent_object_is_an_answer_and_no_outage() {
    let bucket = Bucket::memory();
    let error = bucket.objects.get(&Path::from("none")).await.expect_err("absent");
    assert!(matches!(bucket.error("none", &error), StoreError::NotFound { .. }));
    let seen = bucket.meter().snapshot();
    assert_eq!((seen.gets, seen.errors, seen.outage), (1, 0, None));
}

#[tokio::test(start_paused = true)]
async fn many_objects_are_deleted_in_chunks_and_absent_ones_are_success() {
    let (store, bucket) = faulty();
    for number in 0..1500 {
        store.inner.put(&Path::from(format!("d/{number}")), payload(b"x")).await.expect("written");
    }
    store.fail_writes([Fault::Fail]);
    let paths = stream::iter((0..2000).map(|number| Ok(Path::from(format!("d/{number}"))))).boxed();
    let deleted: Vec<Path> = bucket.objects.delete_stream(paths).try_collect().await.expect("deleted");
    assert_eq!(deleted.len(), 2000);
    assert_eq!(store.inner.list(None).count().await, 0);
}

#[tokio::test]
async fn a_good_bucket_passes_the_probe_and_keeps_nothing_of_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = open(directory.path().to_str().expect("utf-8"), &StoreOptions::default()).expect("opens");
    for bucket in [Bucket::memory(), local] {
        let report = bucket.probe().await.expect("usable");
        assert!(report.requests <= 8, "{report:?}");
        assert_eq!(bucket.objects.list(None).count().await, 0);
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_refused() {
    let store = Arc::new(FaultyStore { overwrites: true, ..FaultyStore::default() });
    let bucket = Bucket::from_store(store.clone());
    let error = bucket.probe().await.expect_err("refused");
    assert!(matches!(error, StoreError::IgnoresPreconditions { .. }), "{error}");
    assert_eq!(store.inner.list(None).count().await, 0, "the probe's object is removed all the same");
}

#[tokio::test]
async fn a_mounts_proof_takes_two_requests_once_somebody_has_made_it() {
    let directory = tempfile::tempdir().expect("a directory");
    let local = open(directory.path().to_str().expect("utf-8"), &StoreOptions::default()).expect("opens");
    for bucket in [Bucket::memory(), local] {
        for requests in [3, 2, 2] {
            let before = bucket.meter().snapshot().requests();
            bucket.prove_create_only(&SeededEntropy::new(requests)).await.expect("proved");
            assert_eq!(bucket.meter().snapshot().requests() - before, requests);
        }
        assert_eq!(bucket.objects.list(None).count().await, 1);
    }
}

#[tokio::test]
async fn a_store_that_overwrites_is_noticed_by_every_proof() {
    let store = Arc::new(FaultyStore { overwrites: true, ..FaultyStore::default() });
    let bucket = Bucket::from_store(store.clone());
    for seed in 0..3 {
        let error = bucket.prove_create_only(&SeededEntropy::new(seed)).await.expect_err("refused");
        assert!(matches!(error, StoreError::IgnoresPreconditions { .. }), "{error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_lost_answer_is_no_proof_against_a_good_store() {
    let (store, bucket) = faulty();
    for seed in 0..3 {
        store.fail_writes([Fault::LoseAnswer]);
        bucket.prove_create_only(&SeededEntropy::new(seed)).await.expect("proved");
    }
}

#[tokio::test]
async fn what_a_local_bucket_acknowledged_is_in_its_directory_under_its_name() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = format!("file://{}", directory.path().display());
    let bucket = open(&url, &StoreOptions::default()).expect("opens");
    bucket.objects.put_opts(&Path::from("header/1"), payload(b"x"), create()).await.expect("written");
    assert_eq!(std::fs::read(directory.path().join("header/1")).expect("a file"), b"x");
    let again = bucket.objects.put_opts(&Path::from("header/1"), payload(b"y"), create()).await;
    assert!(matches!(again, Err(object_store::Error::AlreadyExists { .. })));
    assert_eq!(bucket.display_url(), url);
}

/// Answers every request with one and the same response.
async fn canned_server(status: &'static str, body: &'static str) -> String {
    let head = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\nconnection: close", body.len());
    raw_server(format!("{head}\r\n\r\n{body}")).await
}

/// Answers every request with the same bytes and closes.
async fn raw_server(answer: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("binds");
    let address = listener.local_addr().expect("bound");
    tokio::spawn(async move {
        while let Ok((mut socket, _)) = listener.accept().await {
            let mut request = Vec::new();
            let mut buffer = [0; 4096];
            while !request.windows(4).any(|window| window == b"\r\n\r\n") {
                match socket.read(&mut buffer).await {
                    Ok(taken) if taken > 0 => request.extend_from_slice(&buffer[..taken]),
                    _ => break,
                }
            }
            let _ = socket.write_all(answer.as_bytes()).await;
            let _ = socket.shutdown().await;
        }
    });
    format!("http://{address}")
}

async fn probe_s3(endpoint: String) -> StoreError {
    let read_timeout = Duration::from_secs(2);
    let keys = [("AWS_ACCESS_KEY_ID", "id"), ("AWS_SECRET_ACCESS_KEY", "secret")];
    let environment = keys.into_iter().collect();
    let endpoint = Some(endpoint);
    let options = StoreOptions { endpoint, environment, read_timeout, ..StoreOptions::default() };
    let bucket = open("s3://bucket", &options).expect("opens");
    bucket.probe().await.expect_err("it cannot be used")
}

#[tokio::test]
async fn what_an_s3_server_says_is_understood() {
    let denied = canned_server("403 Forbidden", "<Error><Code>SignatureDoesNotMatch</Code></Error>").await;
    let no_bucket = canned_server("404 Not Found", "<Error><Code>NoSuchBucket</Code></Error>").await;
    let busy = canned_server("503 Slow Down", "<Error><Code>SlowDown</Code></Error>").await;
    let malformed = canned_server("400 Bad Request", "<Error><Code>InvalidArgument</Code></Error>").await;
    let unsupported =
        canned_server("501 Not Implemented", "<Error><Code>NotImplemented</Code></Error>").await;
    assert!(matches!(probe_s3(denied).await, StoreError::Denied { .. }));
    assert!(matches!(probe_s3(no_bucket).await, StoreError::NoBucket { .. }));
    assert!(matches!(probe_s3(busy).await, StoreError::Unavailable { .. }));
    assert!(matches!(probe_s3(malformed).await, StoreError::Other { .. }));
    assert!(matches!(probe_s3(unsupported).await, StoreError::IgnoresPreconditions { .. }));
    let nobody = probe_s3("http://127.0.0.1:1".to_owned()).await;
    assert!(matches!(nobody, StoreError::Unavailable { .. }), "{nobody}");
    assert!(nobody.to_string().contains("s3://bucket"), "{nobody}");
}

#[tokio::test]
async fn d12_what_a_server_refuses_is_understood_when_it_announces_more_than_any_machine_holds() {
    let head = "HTTP/1.1 403 Forbidden\r\ncontent-length: 70368744177664\r\nconnection: close";
    let words = "<Error><Code>AccessDenied</Code></Error>";
    // The larger body comes in several pieces, for which a client makes room.
    for filler_bytes in [0, 256 * 1024] {
        let filler = " ".repeat(filler_bytes);
        let error = probe_s3(raw_server(format!("{head}\r\n\r\n{words}{filler}")).await).await;
        assert!(matches!(error, StoreError::Denied { .. }), "{filler_bytes}: {error}");
    }
}

#[tokio::test(start_paused = true)]
async fn a_read_does_not_wait_behind_stalled_writes() {
    let store = Arc::new(FaultyStore::default());
    let options = StoreOptions { requests_max: 2, ..StoreOptions::default() };
    let bucket = Bucket::with_options(store.clone(), "test", &options);
    bucket.objects.put(&Path::from("a"), payload(b"x")).await.expect("written");
    store.fail_writes([Fault::Hang; 10]);
    let path = Path::from("b");
    let writes = (0..5).map(|_| bucket.objects.put_opts(&path, payload(b"y"), create()));
    let read = async {
        let started = tokio::time::Instant::now();
        bucket.objects.get(&Path::from("a")).await.expect("read");
        started.elapsed()
    };
    tokio::select! {
        _ = futures::future::join_all(writes) => panic!("the writes hang"),
        elapsed = read => assert_eq!(elapsed, Duration::ZERO),
    }
}

#[tokio::test(start_paused = true)]
async fn a_large_read_whose_request_was_lost_is_asked_for_again() {
    let store = Arc::new(FaultyStore::default());
    let bucket = Bucket::with_options(store.clone(), "test", &StoreOptions::default());
    bucket.objects.put(&Path::from("a"), payload(b"x")).await.expect("written");
    store.fail_reads([Fault::Hang; 2]);
    let read = bucket.objects.get_range(&Path::from("a"), 0..8 << 20).await;
    assert_eq!(read.expect("the third request is answered"), "x");
}

/// Eight at a time share a line that would carry one of them in time.
#[tokio::test(start_paused = true)]
async fn a_write_that_is_slow_and_not_lost_is_given_the_time_that_it_takes() {
    let clock = Arc::new(ManualClock::new(0));
    let plan = "bandwidth=15000".parse().expect("a plan");
    let store = FaultStore::new(Arc::new(InMemory::new()), plan, clock);
    let bucket = Bucket::with_options(Arc::new(store), "test", &StoreOptions::default());
    let path = Path::from("a");
    // Ten minutes of the line; an attempt has five.
    let write = bucket.objects.put_opts(&path, PutPayload::from(vec![7; 8 << 20]), create());
    let written = tokio::time::timeout(Duration::from_secs(24 * 3600), write).await;
    written.expect("it is written within a day").expect("written");
}
