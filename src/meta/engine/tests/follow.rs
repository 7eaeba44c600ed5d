//! Readers: they see what is committed, write nothing, and survive what the writer removes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_reader_sees_each_commit_after_refreshing_and_writes_nothing() {
    let bench = Bench::new();
    let writer = bench.writer().await;
    writer.write_durable(put("a", "0")).await.expect("committed");
    let bucket = bench.bucket();
    let reader = bench.open_as(&bucket, EngineMode::Reader, false).await.expect("opens");
    for n in 1..20_u8 {
        writer.write_durable(put("a", [n])).await.expect("committed");
        reader.refresh().await.expect("refreshes");
        assert_eq!(reader.get(b"a").await.expect("gets").as_deref(), Some(&[n][..]));
    }
    assert_eq!(reader.write_durable(put("a", "x")).await, Err(EngineError::ReadOnly));
    let before = bucket.meter().snapshot();
    tokio::time::sleep(Duration::from_secs(600)).await;
    assert_eq!(bucket.meter().snapshot().requests(), before.requests(), "it polls only when called");
    reader.refresh().await.expect("refreshes");
    println!("one refresh: {} requests", bucket.meter().snapshot().requests() - before.requests());
    reader.close().await.expect("closes");
    assert_eq!((bucket.meter().snapshot().puts, bucket.meter().snapshot().deletes), (0, 0));
}

#[tokio::test(start_paused = true)]
async fn refreshing_from_many_sides_at_once_ends_for_all() {
    let bench = Bench::new();
    let writer = bench.writer().await;
    writer.write_durable(put("a", "0")).await.expect("committed");
    let reader = bench.reader().await;
    writer.write_durable(put("a", "1")).await.expect("committed");
    let refreshes = (0..20).map(|_| reader.refresh());
    futures::future::try_join_all(refreshes).await.expect("all refresh");
    assert_eq!(reader.get(b"a").await.expect("gets").as_deref(), Some(&b"1"[..]));
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_slept_while_its_tables_were_removed_finds_its_footing() {
    let bench = Bench::new();
    let writer = bench.writer().await;
    let fill = async |from: u32| {
        for n in from..from + 1500 {
            let record = put((n % 400).to_be_bytes(), n.to_be_bytes());
            writer.write_durable(record).await.expect("committed");
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    };
    fill(0).await;
    let reader = bench.reader().await;
    let before = all(&reader).await.expect("scans");
    fill(1500).await;
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let now = all(&writer).await.expect("scans");
    assert_ne!(before, now);
    let cold = reader.get(&7_u32.to_be_bytes()).await.expect("gets an old or a new value").expect("there");
    assert!(cold == before[7].1 || cold == now[7].1);
    reader.refresh().await.expect("refreshes");
    assert_eq!(all(&reader).await.expect("scans"), now);
}

/// A writer whose clock is ahead of the bucket's takes what it has just written for old, and removes it.
#[tokio::test(start_paused = true)]
async fn a_reader_in_use_finds_the_newest_manifest_though_the_next_has_been_removed() {
    let bench = Bench::new();
    let writer = bench.writer().await;
    writer.write_durable(put("a", "0")).await.expect("committed");
    let reader = bench.reader().await;
    for n in 0..1500_u32 {
        writer.write_durable(put(n.to_be_bytes(), n.to_be_bytes())).await.expect("committed");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    writer.close().await.expect("closes");
    let sealed = Bench::sealed(&bench.bucket());
    let fresh = bench.reader().await;
    let live = fresh.live_objects().await.expect("told");
    let there: Vec<_> = futures::TryStreamExt::try_collect(sealed.list(None)).await.expect("lists");
    let newest =
        there.iter().map(|object| object.location.to_string()).filter(|name| name.contains("manifest")).max();
    for object in &there {
        let name = object.location.to_string();
        let is_needed = live.contains(&name) || Some(&name) == newest.as_ref();
        if !is_needed && (name.contains("/wal/") || name.contains("/manifest/")) {
            object_store::ObjectStoreExt::delete(&sealed, &object.location).await.expect("deleted");
        }
    }
    let now = all(&fresh).await.expect("scans");
    for _ in 0..7 {
        tokio::time::sleep(Duration::from_secs(60)).await;
        reader.refresh().await.expect("refreshes");
    }
    assert_eq!(all(&reader).await.expect("scans"), now);
}

#[tokio::test(start_paused = true)]
async fn a_checkpoint_stays_as_it_was_until_dropped() {
    let bench = Bench::new();
    let writer = bench.writer().await;
    writer.write_durable(put("a", "then")).await.expect("committed");
    let id = writer.checkpoint(None).await.expect("pinned");
    for n in 0..1500_u32 {
        writer.write_durable(put("a", n.to_be_bytes())).await.expect("committed");
        tokio::time::sleep(Duration::from_secs(2)).await;
    }
    tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
    let mode = EngineMode::Checkpoint(id.clone());
    let reader = bench.open_as(&bench.bucket(), mode.clone(), false).await.expect("opens");
    reader.refresh().await.expect("nothing to do");
    assert_eq!(all(&reader).await.expect("scans"), [(b"a".to_vec(), b"then".to_vec())]);
    writer.drop_checkpoint(&id).await.expect("dropped");
    assert!(bench.open_as(&bench.bucket(), mode, false).await.is_err());
    let nonsense = EngineMode::Checkpoint("nonsense".to_owned());
    assert!(bench.open_as(&bench.bucket(), nonsense, false).await.is_err());
}
