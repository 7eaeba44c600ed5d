//! A log of the newest records that is lost or withheld while later ones are there: damage, told before anything is written.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::sync::Arc;

use coffer::base::{Ino, SystemClock};
use coffer::meta::MetaError;
use coffer::meta::engine::{Engine, EngineError, EngineMode, EngineOptions};
use coffer::volume::{self, OpenOptions, VolumeError};
use damaged::{World, factors, put, sync};
use object_store::ObjectStoreExt;
use object_store::path::Path;

/// Commits whose records lie in logs only.
const COMMITS: u8 = 6;

/// A volume as a crash leaves it: the newest commits lie in the log of the records only.
async fn crashed() -> World {
    let world = World::with_everything().await;
    let opened = world.mount(false).await;
    for number in 0..COMMITS {
        put(&opened.vfs, Ino::ROOT, &[b'l', b'0' + number], &vec![number; 40_000]).await;
        sync(&opened.vfs).await;
    }
    let copy = world.fork().await;
    drop(opened);
    copy
}

/// The logs that an opening reads: those that are in no table.
async fn read_at_opening(world: &World) -> Vec<Path> {
    let store = world.vault().await.meta_store(1 << 20);
    let clock = Arc::new(SystemClock::default());
    let engine = Engine::open(store, EngineMode::Reader, EngineOptions::default(), clock).await.unwrap();
    let live = engine.live_objects().await.unwrap();
    engine.close().await.unwrap();
    let mut logs: Vec<_> =
        live.into_iter().filter(|name| name.starts_with("db/wal/")).map(Path::from).collect();
    logs.sort();
    logs
}

fn is_told(refused: &VolumeError, log: &Path) -> bool {
    matches!(refused, VolumeError::Meta(MetaError::Engine(EngineError::Damaged(words))) if words.contains(log.as_ref()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_is_missing_before_newer_ones_is_told_by_name_and_nothing_is_written() {
    let sound = crashed().await;
    let logs = read_at_opening(&sound).await;
    assert!(logs.len() > usize::from(COMMITS), "{logs:?}");
    for log in &logs[..logs.len() - 1] {
        let world = sound.fork().await;
        world.vault().await.meta_store(1 << 20).delete(log).await.unwrap();
        let before = world.objects().await;
        let options = || OpenOptions { takeover: true, ..OpenOptions::default() };
        let refused = world.seize().await.err().unwrap_or_else(|| panic!("a repair begins without {log}"));
        assert!(is_told(&refused, log), "{log}: {refused:?}");
        assert_eq!(world.objects().await, before, "{log}: a repair that is refused has written");
        let mounted = Box::pin(volume::open(world.bucket(), &factors(), options())).await;
        let refused = mounted.err().unwrap_or_else(|| panic!("it is mounted without {log}"));
        assert!(is_told(&refused, log), "{log}: {refused:?}");
        // A mount proves that the store refuses to overwrite.
        let written = |objects: Vec<(String, u64)>| -> Vec<_> {
            objects.into_iter().filter(|(name, _)| name.starts_with("m/")).collect()
        };
        assert_eq!(written(world.objects().await), written(before), "{log}: a refused mount has written");
    }
}
