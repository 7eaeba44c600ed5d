//! Tables that are damaged in the bucket, and merges.

use bytes::Bytes;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use super::*;

/// Commits that become a table.
const TABLE: u32 = 256;

async fn commit(engine: &Engine, commits: std::ops::Range<u32>) -> Result<(), EngineError> {
    for number in commits {
        engine.write_durable(put(number.to_be_bytes(), [number as u8; 100])).await?;
        // So that its upkeep has its turn.
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    Ok(())
}

/// Alters the largest object, which is the table of all that was written before. Gives what it was.
async fn alter_largest(bench: &Bench) -> (Path, Bytes) {
    let object = bench.objects().await.into_iter().max_by_key(|object| object.size).expect("objects");
    let sound = bench.raw.get(&object.location).await.expect("there").bytes().await.expect("read");
    let mut altered = sound.to_vec();
    let middle = altered.len() / 3;
    altered[middle] ^= 1;
    bench.raw.put(&object.location, PutPayload::from(altered)).await.expect("put");
    (object.location, sound)
}

#[tokio::test(start_paused = true)]
async fn a_run_that_cannot_be_read_is_left_out_of_merges_and_not_read_again_and_again() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    commit(&engine, 0..TABLE * 5).await.expect("written");
    engine.tidy().await.expect("merged");
    engine.close().await.expect("closed");
    let (table, sound) = alter_largest(&bench).await;

    let bucket = bench.bucket();
    let engine = bench.open_as(&bucket, EngineMode::Writer, false).await.expect("opens");
    let before = bucket.meter().snapshot();
    let mut most = 0;
    for round in 5..35 {
        commit(&engine, TABLE * round..TABLE * (round + 1)).await.expect("written");
        most = most.max(engine.tables().0);
    }
    let read = bucket.meter().snapshot().get_bytes - before.get_bytes;
    assert!(most <= settings::NEWEST_TABLES_MERGED_AT + 2, "{most} tables wait to be merged");
    println!("{read} bytes were read beside a run of {}", sound.len());
    assert!(read < 20 * sound.len() as u64, "{read} bytes were read, beside a run of {}", sound.len());

    bench.raw.put(&table, PutPayload::from_bytes(sound)).await.expect("put back");
    engine.close().await.expect("closed");
    let engine = bench.writer().await;
    assert_eq!(all(&engine).await.expect("read").len() as u32, TABLE * 35);
    engine.close().await.expect("closed");
}

#[tokio::test(start_paused = true)]
async fn where_no_more_tables_can_be_merged_writing_fails_until_they_can_and_does_not_wait_for_ever() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    commit(&engine, 0..TABLE - 1).await.expect("written");
    engine.close().await.expect("closed");
    let (table, sound) = alter_largest(&bench).await;

    let engine = bench.writer().await;
    let mut written = TABLE - 1;
    let error = loop {
        match commit(&engine, written..written + 1).await {
            Ok(()) => written += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(&error, EngineError::Damaged(why) if why.contains("cannot be read")), "{error}");
    assert!(engine.tables().0 < settings::NEWEST_TABLES_MAX);
    // What could be written is safe, and the engine ends.
    engine.close().await.expect("closed");

    bench.raw.put(&table, PutPayload::from_bytes(sound)).await.expect("put back");
    let engine = bench.writer().await;
    commit(&engine, written..written + TABLE * 4).await.expect("written");
    assert!(engine.tables().0 <= settings::NEWEST_TABLES_MERGED_AT + 2);
    assert_eq!(all(&engine).await.expect("read").len() as u32, written + TABLE * 4);
    engine.close().await.expect("closed");
}
