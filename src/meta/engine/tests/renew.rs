//! A database that is written anew under a newer key: nothing that is read is sealed with the older one.

use super::*;
use crate::vault::peek;

/// The vault of the bench's volume in its second key epoch, which believes objects from `floor` on.
fn second(bench: &Bench, floor: u32) -> Vault {
    let (old, new) = (Key::from_bytes([7; 32]), Key::from_bytes([8; 32]));
    let ring = KeyRing::new(VolumeId([1; 16]), Epoch(2), &new).with_earlier(&[(Epoch(1), old)], Epoch(floor));
    Vault::new(bench.bucket(), Arc::new(ring), Arc::new(SeededEntropy::new(4)))
}

async fn open(bench: &Bench, vault: &Vault, mode: EngineMode) -> Result<Engine, EngineError> {
    Engine::open(vault.meta_store(16 << 20), mode, EngineOptions::default(), bench.clock.clone()).await
}

/// Epochs of all that an opening or a collection reads.
async fn epochs(engine: &Engine, vault: &Vault) -> Vec<u16> {
    let mut epochs = Vec::new();
    for object in engine.live_objects().await.expect("told") {
        epochs.push(peek::engine_epoch(vault, &object).await.expect("opens"));
    }
    epochs
}

#[tokio::test(start_paused = true)]
async fn whatever_a_database_has_come_to_is_sealed_anew_at_once() {
    // Logs alone, fences alone, tables, runs and what merging leaves: each session ends in another way.
    for sessions in 0..6_u8 {
        let bench = Bench::new();
        let mut written = BTreeMap::new();
        bench.writer().await.close().await.expect("closes");
        for session in 0..sessions {
            let engine = bench.writer().await;
            for number in 0..40_u8 {
                let (key, value) = (vec![b'k', number, session % 2], vec![session; 2000]);
                engine.write_durable(put(&key, &value)).await.expect("committed");
                written.insert(key, value);
            }
            match session % 3 {
                0 => engine.close().await.expect("closes"),
                1 => engine.tidy().await.expect("merged"),
                _ => drop(bench.writer().await),
            }
        }
        let vault = second(&bench, 1);
        let engine = open(&bench, &vault, EngineMode::Writer).await.expect("opens");
        assert!(epochs(&engine, &vault).await.contains(&1) || sessions == 0, "{sessions} sessions");
        engine.renew().await.expect("renewed");
        let after = epochs(&engine, &vault).await;
        assert!(after.iter().all(|epoch| *epoch == 2), "{sessions} sessions: {after:?}");
        assert_eq!(all(&engine).await.expect("scans"), model_as_vec(&written));
        // It dies, and what comes after believes nothing older.
        drop(engine);
        let vault = second(&bench, 2);
        for mode in [EngineMode::Reader, EngineMode::Writer] {
            let engine = open(&bench, &vault, mode).await.expect("opens");
            assert_eq!(all(&engine).await.expect("scans"), model_as_vec(&written));
            engine.close().await.expect("closes");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn who_has_the_older_key_is_told_so_and_a_writer_among_them_is_fenced() {
    let bench = Bench::new();
    let (writer, reader) = (bench.writer().await, bench.reader().await);
    writer.write_durable(put("a", "1")).await.expect("committed");
    reader.refresh().await.expect("follows");
    let vault = second(&bench, 1);
    let engine = open(&bench, &vault, EngineMode::Writer).await.expect("opens");
    engine.write_durable(put("b", "2")).await.expect("committed");
    assert_eq!(reader.refresh().await, Err(EngineError::NewKey));
    let refused = writer.write_durable(put("c", "3")).await;
    assert!(matches!(refused, Err(EngineError::Fenced | EngineError::NewKey)), "{refused:?}");
    assert_eq!(writer.get(b"a").await.expect("its own past").as_deref(), Some(&b"1"[..]));
    let opened = bench.open_as(&bench.bucket(), EngineMode::Reader, false).await;
    assert_eq!(opened.err(), Some(EngineError::NewKey));
    assert_eq!(reader.renew().await, Err(EngineError::ReadOnly));
}
