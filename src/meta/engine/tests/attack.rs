//! What a hostile store can do to the records: make them unreadable, never different.

use object_store::ObjectStoreExt;
use object_store::path::Path;

use super::*;

/// A database with tables, logs and manifests of several sessions.
async fn furnished() -> (Bench, Records) {
    let bench = Bench::new();
    let mut model = BTreeMap::new();
    for session in 0..3_u8 {
        let engine = bench.writer().await;
        for n in 0..40_u8 {
            let (key, value) = (vec![b'k', n], vec![session; 50]);
            engine.write_durable(put(&key, &value)).await.expect("committed");
            model.insert(key, value);
        }
        if session < 2 {
            engine.close().await.expect("closes");
        }
    }
    (bench, model_as_vec(&model))
}

async fn copied(bench: &Bench) -> Vec<(Path, Bytes)> {
    let mut objects = Vec::new();
    for meta in bench.objects().await {
        let bytes = bench.raw.get(&meta.location).await.expect("there").bytes().await.expect("body");
        objects.push((meta.location, bytes));
    }
    objects
}

async fn restored(objects: &[(Path, Bytes)]) -> Bench {
    let bench = Bench::new();
    for (path, bytes) in objects {
        bench.raw.put(path, bytes.clone().into()).await.expect("put");
    }
    bench
}

async fn read_all(bench: &Bench) -> Result<Records, EngineError> {
    let engine = bench.open_as(&bench.bucket(), EngineMode::Reader, false).await?;
    let records = all(&engine).await;
    engine.close().await.expect("closes");
    records
}

fn is_refused(result: &Result<Records, EngineError>) -> bool {
    matches!(result, Err(EngineError::Damaged(_) | EngineError::Missing))
}

#[tokio::test(start_paused = true)]
async fn an_altered_object_is_an_error_or_not_needed() {
    let (bench, expected) = furnished().await;
    let objects = copied(&bench).await;
    let mut refused = 0;
    for (path, bytes) in &objects {
        let mut variants = vec![bytes[..80.min(bytes.len() - 1)].to_vec(), Vec::new(), bytes[..64].to_vec()];
        for at in [0, 40, 64, bytes.len() / 2, bytes.len() - 1] {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x10;
            variants.push(flipped);
        }
        for variant in variants {
            let bench = restored(&objects).await;
            bench.raw.put(path, variant.into()).await.expect("altered");
            let started = Instant::now();
            let result = read_all(&bench).await;
            assert!(started.elapsed() < Duration::from_secs(5), "damage is not retried");
            match &result {
                Ok(records) => assert_eq!(*records, expected, "{path}"),
                result => assert!(is_refused(result), "{path}: {result:?}"),
            }
            refused += usize::from(result.is_err());
        }
    }
    assert!(refused > 8 * 30, "{refused} of {} alterations were noticed", 8 * objects.len());
}

#[tokio::test(start_paused = true)]
async fn objects_swapped_for_each_other_are_never_taken_for_each_other() {
    let (bench, expected) = furnished().await;
    let objects = copied(&bench).await;
    for pair in objects.windows(2) {
        let bench = restored(&objects).await;
        bench.raw.put(&pair[0].0, pair[1].1.clone().into()).await.expect("swapped");
        bench.raw.put(&pair[1].0, pair[0].1.clone().into()).await.expect("swapped");
        let result = read_all(&bench).await;
        assert!(is_refused(&result) || result == Ok(expected.clone()), "{result:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn the_store_sees_neither_keys_nor_values_nor_the_engine() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    for n in 0..300_u32 {
        engine.write_durable(put(format!("secret-key-{n}"), [b'v'; 100])).await.expect("committed");
    }
    engine.close().await.expect("closes");
    for (path, bytes) in copied(&bench).await {
        for word in [&b"secret-key"[..], &[b'v'; 16], b"wal", b"manifest", b"slatedb", b"compacted"] {
            let shows = |hay: &[u8]| hay.windows(word.len()).any(|window| window == word);
            assert!(!shows(&bytes) && !shows(path.as_ref().as_bytes()), "{path}");
        }
    }
}
