//! A log of the newest records that is lost or withheld while later ones are there: damage, told before anything is written.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::sync::Arc;

use coffer::base::{Ino, SystemClock};
use coffer::maint::{self, Problem, Severity};
use coffer::meta::MetaError;
use coffer::meta::engine::{Engine, EngineError, EngineMode, EngineOptions};
use coffer::store::Bucket;
use coffer::vfs::{Handle, VfsOptions};
use coffer::volume::{self, OpenOptions, Opened, TrustOptions, VolumeError};
use damaged::{OddStore, World, factors, put, repair_options, sync, told};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};

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

async fn open(world: &World, read_only: bool, trust: TrustOptions) -> Result<Opened, VolumeError> {
    let vfs = VfsOptions { read_only, ..VfsOptions::default() };
    let options = OpenOptions { takeover: true, vfs, trust, ..OpenOptions::default() };
    Box::pin(volume::open(world.bucket(), &factors(), options)).await
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
        let refused = world.seize().await.err().unwrap_or_else(|| panic!("a repair begins without {log}"));
        assert!(is_told(&refused, log), "{log}: {refused:?}");
        for read_only in [true, false] {
            let mounted = open(&world, read_only, TrustOptions::default()).await;
            let refused = mounted.err().unwrap_or_else(|| panic!("it is mounted without {log}"));
            assert!(is_told(&refused, log), "{log}: {refused:?}");
            if read_only {
                assert_eq!(world.objects().await, before, "{log}: what is refused has written");
            }
        }
        // A mount proves that the store refuses to overwrite.
        let written = |objects: Vec<(String, u64)>| -> Vec<_> {
            objects.into_iter().filter(|(name, _)| name.starts_with("m/")).collect()
        };
        assert_eq!(written(world.objects().await), written(before), "{log}: a refused mount has written");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_log_is_found_by_a_check_and_a_forensic_mount_shows_what_was_before_it() {
    let sound = crashed().await;
    let logs = read_at_opening(&sound).await;
    assert_eq!(sound.check(false).await.worst(), None);
    let mut shown = Vec::new();
    for log in &logs[..logs.len() - 1] {
        let world = sound.fork().await;
        world.vault().await.meta_store(1 << 20).delete(log).await.unwrap();
        let report = world.check(false).await;
        let name = log.to_string();
        let found =
            report.findings.iter().any(|found| found.problem == Problem::LogMissing { name: name.clone() });
        assert!(found && report.worst() == Some(Severity::Structure), "{log}: {}", told(&report));
        let forensic = TrustOptions { forensic: true, ..TrustOptions::default() };
        let opened = open(&world, true, forensic).await.unwrap_or_else(|error| panic!("{log}: {error}"));
        let listed = opened.vfs.readdir(Ino::ROOT, 0, 1000).await.unwrap();
        let late = |name: &[u8]| name.len() == 2 && name[0] == b'l' && name[1].is_ascii_digit();
        shown.push(listed.iter().filter(|entry| late(&entry.name)).count());
        opened.close().await.unwrap();
    }
    // The first log is the mount's own beginning.
    assert!(shown.is_sorted() && shown.first() == Some(&0) && shown.last() == Some(&4), "{shown:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_log_is_given_up_by_an_admins_leave_alone_and_costs_what_was_in_it() {
    let sound = crashed().await;
    let logs = read_at_opening(&sound).await;
    let golden = sound.tree().await.unwrap();
    let mut lost = Vec::new();
    for log in &logs[..logs.len() - 1] {
        let world = sound.fork().await;
        world.vault().await.meta_store(1 << 20).delete(log).await.unwrap();
        let trust = TrustOptions { accept_rollback: true, ..TrustOptions::default() };
        let options = OpenOptions { trust, ..OpenOptions::default() };
        let mut seized = world.seize_with(&factors(), options).await.unwrap();
        let repaired =
            Box::pin(maint::repair(&mut seized, &repair_options(false), None, &|_| ())).await.unwrap();
        seized.close().await.unwrap();
        let (deeds, left) = (repaired.deeds, told(&repaired.left));
        assert!(repaired.left.worst() <= Some(Severity::Harmless), "{log}: {deeds:?}{left}");
        // Every machine goes on from there.
        let options = OpenOptions { takeover: true, ..OpenOptions::default() };
        Box::pin(volume::open(world.bucket(), &factors(), options)).await.unwrap().close().await.unwrap();
        let tree = world.tree().await.unwrap();
        let gone: Vec<_> = golden.iter().filter(|(path, seen)| tree.get(*path) != Some(seen)).collect();
        let names: Vec<_> = gone.iter().map(|(path, _)| path.escape_ascii().to_string()).collect();
        assert!(names.len() <= 1, "{log}: {names:?} of one commit, {deeds:?}");
        lost.extend(names);
    }
    // The last commit is in the log that was not taken away.
    assert_eq!(lost, ["/l0", "/l1", "/l2", "/l3", "/l4"]);
}

/// A listing shows an object later than asking for it does.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_a_late_listing_lacks_is_not_missing() {
    let sound = crashed().await;
    let golden = sound.tree().await.unwrap();
    for log in read_at_opening(&sound).await {
        let (world, without) = (sound.fork().await, sound.fork().await);
        without.vault().await.meta_store(1 << 20).delete(&log).await.unwrap();
        let left = without.objects().await;
        let hidden = world.objects().await.into_iter().find(|object| !left.contains(object)).unwrap().0;
        let store = Arc::new(OddStore::over(&world, usize::MAX, Some(hidden)));
        let options = OpenOptions { takeover: true, ..OpenOptions::default() };
        let opened = Box::pin(volume::open(Bucket::from_store(store), &factors(), options)).await;
        opened.unwrap_or_else(|error| panic!("{log} is there: {error}")).close().await.unwrap();
        assert!(world.tree().await.unwrap() == golden, "{log}");
    }
}

/// Bytes that ride in no record.
const PART: usize = 1 << 20;
const PAGE: u64 = 64 << 20;

/// A repair that goes on without the logs that are missing.
async fn repair_without(world: &World, salvage: bool) -> maint::Outcome {
    let trust = TrustOptions { accept_rollback: true, ..TrustOptions::default() };
    let options = OpenOptions { trust, ..OpenOptions::default() };
    let mut seized = world.seize_with(&factors(), options).await.unwrap();
    let repaired =
        Box::pin(maint::repair(&mut seized, &repair_options(salvage), None, &|_| ())).await.unwrap();
    seized.close().await.unwrap();
    repaired
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_written_with_a_log_that_is_given_up_comes_back_from_its_segment_or_fails_and_reads_as_zeros_never()
 {
    let sound = World::new().await;
    let opened = sound.mount(false).await;
    let file = put(&opened.vfs, Ino::ROOT, b"sparse", &[]).await;
    for part in 0..5u8 {
        let offset = u64::from(part) * PAGE;
        opened.vfs.write(file, offset, &vec![part + 1; PART], true).await.unwrap();
        sync(&opened.vfs).await;
    }
    let sound = sound.fork().await;
    drop(opened);
    let logs = read_at_opening(&sound).await;
    let mut back = 0;
    for log in &logs[..logs.len() - 1] {
        let world = sound.fork().await;
        world.vault().await.meta_store(1 << 20).delete(log).await.unwrap();
        repair_without(&world, false).await;
        let Ok(opened) = open(&world, true, TrustOptions::default()).await else { continue };
        let Ok(found) = opened.vfs.lookup(Ino::ROOT, b"sparse").await else { continue };
        for part in 0..5u8 {
            let offset = u64::from(part) * PAGE;
            match opened.vfs.read(Handle(0), found.ino, offset, PART).await {
                Ok(bytes) if bytes.is_empty() => assert!(found.size <= offset),
                Ok(bytes) => {
                    assert_eq!(bytes, vec![part + 1; PART], "{log}: part {part}");
                    back += 1;
                }
                Err(error) => assert!(error.is_damage(), "{log}: {error}"),
            }
        }
        opened.close().await.unwrap();
    }
    assert!(back >= 20, "{back} parts were read in all");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_with_contents_of_files_that_went_with_a_log_is_kept_for_a_salvage_whatever_is_cleaned() {
    let sound = World::new().await;
    let opened = sound.mount(false).await;
    for number in 0..3u8 {
        put(&opened.vfs, Ino::ROOT, &[b'n', b'0' + number], &vec![number + 1; PART]).await;
        sync(&opened.vfs).await;
    }
    let sound = sound.fork().await;
    drop(opened);
    let logs = read_at_opening(&sound).await;
    let world = sound.fork().await;
    // Of the second file: the mount's beginning has two.
    world.vault().await.meta_store(1 << 20).delete(&logs[logs.len() - 2]).await.unwrap();
    let outcome = repair_without(&world, false).await;
    assert!(outcome.kept_for_salvage, "{:?}", outcome.deeds);
    let mount = world.mount(false).await;
    mount.vfs.reclaim().await.unwrap();
    mount.close().await.unwrap();
    let outcome = repair_without(&world, true).await;
    assert!(!outcome.kept_for_salvage, "{:?}", outcome.deeds);
    let tree = world.tree().await.unwrap();
    let is_there = |fill: u8| tree.values().flatten().any(|seen| seen.contents == vec![fill; PART]);
    assert!((1..=3).all(is_there), "{:?}", tree.keys().collect::<Vec<_>>());
}

/// A store that had but withheld a log puts it back where an admin has given it up, with the manifests of that time: what
/// was written with it would be shown beneath all that came since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_log_that_an_admin_has_given_up_is_not_let_back_in() {
    let sound = crashed().await;
    let logs = read_at_opening(&sound).await;
    let kept = sound.objects().await;
    for log in &logs[1..logs.len() - 1] {
        let world = sound.fork().await;
        world.vault().await.meta_store(1 << 20).delete(log).await.unwrap();
        let left = world.objects().await;
        let withheld = &kept.iter().find(|object| !left.contains(object)).unwrap().0;
        repair_without(&world, false).await;
        let manifests = Path::from("db/manifest");
        let metadata = world.vault().await.meta_store(1 << 20);
        let manifest_names = async |world: &World| -> Vec<Path> {
            let store = world.vault().await.meta_store(1 << 20);
            let listed: Vec<_> = store.list(Some(&manifests)).try_collect().await.unwrap();
            listed.into_iter().map(|object| object.location).collect()
        };
        // Everything that was ever there, but for the newer manifests and what stands in place of the log.
        let before = manifest_names(&sound).await;
        for newer in manifest_names(&world).await.iter().filter(|name| !before.contains(name)) {
            metadata.delete(newer).await.unwrap();
        }
        for (object, _) in &kept {
            let is_there = world.objects().await.iter().any(|(name, _)| name == object);
            if !is_there || object == withheld {
                world.put(object, sound.get(object).await).await;
            }
        }
        for read_only in [true, false] {
            let refused = open(&world, read_only, TrustOptions::default()).await;
            let refused = refused.err().unwrap_or_else(|| panic!("{log} is let back in"));
            assert!(matches!(refused, VolumeError::LogIsBack { .. }), "{log}: {refused:?}");
        }
        let report = world.check(false).await;
        let is_found = |found: &maint::Finding| matches!(found.problem, Problem::LogIsBack { .. });
        assert!(report.findings.iter().any(is_found), "{log}: {}", told(&report));
    }
}
