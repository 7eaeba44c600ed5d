//! What a repair does about objects that were altered, deleted or exchanged in the bucket: it mends, or it says that
//! the records cannot be read and takes nothing away.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::collections::BTreeMap;

use bytes::Bytes;
use coffer::base::{FileKind, Ino, OsEntropy, Time};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Factor, NewSlot, Role};
use coffer::maint::{Finding, Problem, Severity, Subject};
use coffer::meta::{Key, Record, Segment};
use coffer::volume;
use damaged::mended::{mend, remove_all, try_repair};
use damaged::{CALLER, Seen, Tree, World, factors, put, rng, sync, told};
use rand::Rng;
use rand::rngs::SmallRng;
use rand::seq::IndexedRandom;

/// A segment's head. (`docs/FORMAT.md`, "Segment")
const HEAD_BYTES: usize = 64;

/// A volume as a crash leaves it: the newest commits lie in the log of the records only.
async fn crashed() -> World {
    let world = World::with_everything().await;
    let opened = world.mount(false).await;
    for (number, name) in [b"log0", b"log1", b"log2"].into_iter().enumerate() {
        put(&opened.vfs, Ino::ROOT, name, &vec![number as u8; 40_000]).await;
        opened.vfs.mkdir(&CALLER, Ino::ROOT, &[b'd', name[3]], 0o755).await.unwrap();
        sync(&opened.vfs).await;
    }
    let copy = world.fork().await;
    drop(opened);
    copy
}

async fn named(world: &World, prefix: &str) -> Vec<(String, Bytes)> {
    let mut found = Vec::new();
    for (object, _) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with(prefix)) {
        let bytes = world.get(&object).await;
        found.push((object, bytes));
    }
    assert!(!found.is_empty(), "nothing is called {prefix}");
    found
}

/// What is done to objects: their paths, and their bytes from now on.
type Damage = Vec<(String, Option<Bytes>)>;

async fn inflict(world: &World, damage: &Damage) {
    for (object, bytes) in damage {
        match bytes {
            Some(bytes) => world.put(object, bytes.clone()).await,
            None => world.delete(object).await,
        }
    }
}

fn flipped(bytes: &Bytes, at: usize, rng: &mut SmallRng) -> Option<Bytes> {
    let mut bytes = bytes.to_vec();
    bytes[at] ^= 1 << rng.random_range(0..8);
    Some(bytes.into())
}

/// A repair either mends, or refuses for damage. Whether it refused.
async fn mend_or_refuse(sound: &World, golden: &Tree, damage: &Damage, what: &str) -> bool {
    let copy = sound.fork().await;
    inflict(&copy, damage).await;
    let trial = copy.fork().await;
    let before: BTreeMap<_, _> = named(&trial, "").await.into_iter().collect();
    let tree = trial.tree().await;
    let Err((is_damage, error)) = try_repair(&trial, false).await else {
        mend(&copy, golden, what, false).await;
        return false;
    };
    assert!(is_damage, "{what}: {error}");
    for (object, bytes) in &before {
        let is_there = trial.objects().await.iter().any(|(other, _)| other == object);
        assert!(is_there && trial.get(object).await == bytes, "{what}: {object} was changed, then: {error}");
    }
    assert_eq!(trial.tree().await.is_some(), tree.is_some(), "{what}: {error}");
    // A copy of the bucket has what is missing, and then all is as it was.
    for (object, _) in damage {
        trial.put(object, sound.get(object).await).await;
    }
    as_before(&trial, golden, what).await;
    let report = trial.check(true).await;
    assert!(report.is_clean(), "{what}: after it was put back{}", told(&report));
    true
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_a_damaged_metadata_object_is_mended_or_refused_and_kept() {
    let mut rng = rng(8);
    for (sound, how) in [(World::with_everything().await, "closed"), (crashed().await, "crashed")] {
        let golden = sound.tree().await.unwrap();
        let objects = named(&sound, "m/").await;
        let (mut mended, mut refused) = (0, 0);
        for (object, bytes) in &objects {
            let middle = rng.random_range(1..bytes.len() - 1);
            let another = objects.choose(&mut rng).filter(|(other, _)| other != object);
            let mut ways = vec![
                ("deleted", vec![(object.clone(), None)]),
                ("cut", vec![(object.clone(), Some(bytes.slice(..middle)))]),
                ("flipped", vec![(object.clone(), flipped(bytes, middle, &mut rng))]),
            ];
            if let Some((other, contents)) = another {
                let (one, two) = (Some(contents.clone()), Some(bytes.clone()));
                ways.push(("exchanged", vec![(object.clone(), one), (other.clone(), two)]));
            }
            for (way, damage) in ways {
                let what = format!("{how}, {way}: {object} of {} bytes", bytes.len());
                match mend_or_refuse(&sound, &golden, &damage, &what).await {
                    true => refused += 1,
                    false => mended += 1,
                }
            }
        }
        println!("{how}: {mended} mended, {refused} refused");
        assert!(mended > 10 && refused > 10, "{how}: {mended} mended, {refused} refused");
    }
}

/// The inodes of which a check that reads everything says that something is lost.
async fn lost(world: &World) -> (Vec<Ino>, String) {
    let report = world.check(true).await;
    let lost = report.findings.iter().filter_map(|found| match (&found.subject, &found.problem) {
        (Subject::Inode(ino), Problem::BlocksLost { .. }) => Some(*ino),
        _ => None,
    });
    (lost.collect(), told(&report))
}

/// What is put back from a copy of the bucket makes everything as it was.
async fn as_before(world: &World, golden: &Tree, what: &str) {
    let tree = world.tree().await.unwrap();
    for (path, seen) in golden {
        let now = tree.get(path);
        let brief = now.map(|now| now.as_ref().map(|now| (now.ino, now.kind, now.size)));
        assert!(now == Some(seen), "{what}: with it put back {} is {brief:?}", path.escape_ascii());
    }
}

/// After a repair a file reads as ever, or is named as lost and fails.
async fn what_does_not_read_is_named(world: &World, golden: &Tree, tree: &Tree, what: &str) {
    let (lost, text) = lost(world).await;
    for (path, seen) in golden {
        let ino = seen.as_ref().unwrap().ino;
        let now = tree.get(path);
        let is_error = now.is_some_and(Result::is_err);
        assert!(
            now == Some(seen) || lost.contains(&ino) && is_error,
            "{what}: {} is {}{text}",
            path.escape_ascii(),
            if is_error { "an error" } else { "another" }
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_flipped_bytes_in_a_segment_keeps_all_that_reads() {
    let mut rng = rng(8);
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    for (object, bytes) in named(&sound, "d/").await {
        let somewhere = [0; 4].map(|_| rng.random_range(64..bytes.len()));
        for at in [0, 9, 40, 64, bytes.len() - 20, bytes.len() - 1].into_iter().chain(somewhere) {
            let what = format!("byte {at} of {object}");
            let copy = sound.fork().await;
            inflict(&copy, &vec![(object.clone(), flipped(&bytes, at, &mut rng))]).await;
            let tree = mend(&copy, &golden, &what, rng.random_bool(0.5)).await;
            what_does_not_read_is_named(&copy, &golden, &tree, &what).await;
            // It changes no record by what it cannot open.
            copy.put(&object, bytes.clone()).await;
            as_before(&copy, &golden, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cut_segment_costs_what_was_cut_off_before_a_repair_and_after() {
    let mut rng = rng(8);
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    for (object, bytes) in named(&sound, "d/").await {
        for len in [HEAD_BYTES, bytes.len() / 2, rng.random_range(HEAD_BYTES..bytes.len()), bytes.len() - 1] {
            let what = format!("{object} cut to {len} bytes");
            let copy = sound.fork().await;
            copy.put(&object, bytes.slice(..len)).await;
            what_does_not_read_is_named(&copy, &golden, &copy.tree().await.unwrap(), &what).await;
            let tree = mend(&copy, &golden, &what, false).await;
            what_does_not_read_is_named(&copy, &golden, &tree, &what).await;
            copy.put(&object, bytes.clone()).await;
            mend(&copy, &golden, &what, false).await;
            as_before(&copy, &golden, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_exchanged_segments_keeps_all_that_reads() {
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    let segments = named(&sound, "d/").await;
    for (one, first) in &segments {
        for (other, second) in segments.iter().filter(|(other, _)| other > one) {
            let what = format!("{one} and {other} exchanged");
            let copy = sound.fork().await;
            inflict(&copy, &vec![(one.clone(), Some(second.clone())), (other.clone(), Some(first.clone()))])
                .await;
            let tree = mend(&copy, &golden, &what, false).await;
            what_does_not_read_is_named(&copy, &golden, &tree, &what).await;
            inflict(&copy, &vec![(one.clone(), Some(first.clone())), (other.clone(), Some(second.clone()))])
                .await;
            // What a repair wrote down of their lengths is to be put right.
            what_does_not_read_is_named(&copy, &golden, &copy.tree().await.unwrap(), &what).await;
            mend(&copy, &golden, &what, false).await;
            as_before(&copy, &golden, &what).await;
        }
    }
}

/// A repair reads segments for the records that are gone; what it cannot open there it leaves.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_records_beside_flipped_bytes_cost_no_more_than_what_does_not_open() {
    let mut rng = rng(8);
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    let segments = named(&sound, "d/").await;
    for (key, record) in sound.records().await {
        let is_told = match &record {
            Record::Inode(inode) => inode.kind == FileKind::Regular && inode.size > 0,
            record => matches!(record, Record::Segment(_) | Record::Extents(_)),
        };
        if !is_told {
            continue;
        }
        for (object, bytes) in &segments {
            let is_own = matches!(key, Key::Segment(id) if object.ends_with(&id.to_string()));
            // The head, the blocks, the footer. Without a record the head is all that tells how to open it.
            let from = if is_own { HEAD_BYTES } else { 0 };
            let at = match rng.random_range(0..3) {
                0 => rng.random_range(from..2 * HEAD_BYTES),
                1 => rng.random_range(HEAD_BYTES..bytes.len()),
                _ => bytes.len() - rng.random_range(1..60),
            };
            let what = format!("without {key:?}, and byte {at} of {object}");
            let copy = sound.fork().await;
            copy.put_record(key, None).await;
            inflict(&copy, &vec![(object.clone(), flipped(bytes, at, &mut rng))]).await;
            let tree = mend(&copy, &golden, &what, matches!(key, Key::Inode(_))).await;
            for (path, seen) in &tree {
                let was = golden.get(path);
                // Never zeros, nor less than there was.
                let differs = |was: &Result<Seen, String>| match (was, seen) {
                    (Ok(was), Ok(seen)) => was.contents != seen.contents,
                    _ => false,
                };
                assert!(!was.is_some_and(differs), "{what}: {} reads wrongly", path.escape_ascii());
            }
            remove_all(&copy, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_without_a_record_and_with_an_altered_head_waits_until_it_is_put_back() {
    let mut rng = rng(8);
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    for (object, bytes) in named(&sound, "d/").await {
        let mut records = sound.records().await.into_keys();
        let key = |key: &Key| matches!(key, Key::Segment(id) if object.ends_with(&id.to_string()));
        let key = records.find(key).unwrap();
        let what = format!("without {key:?} and its head");
        let copy = sound.fork().await;
        copy.put_record(key, None).await;
        inflict(&copy, &vec![(object.clone(), flipped(&bytes, rng.random_range(0..HEAD_BYTES), &mut rng))])
            .await;
        let report = copy.repair(false).await.left;
        let waits =
            |found: &Finding| matches!(found.problem, Problem::SegmentUnrecorded { is_there: true, .. });
        assert!(report.findings.iter().any(waits), "{what}{}", told(&report));
        let tree = copy.tree().await.unwrap();
        what_does_not_read_is_named(&copy, &golden, &tree, &what).await;
        copy.put(&object, bytes).await;
        assert!(copy.repair(false).await.left.is_clean(), "{what}");
        as_before(&copy, &golden, &what).await;
    }
}

/// As a repair left it that met a segment cut short: a mount reads nothing beyond the length in the record.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_record_that_ends_before_the_blocks_of_its_segment_is_damage_and_mended() {
    let sound = World::with_everything().await;
    let golden = sound.tree().await.unwrap();
    for (key, record) in sound.records().await {
        let Record::Segment(segment) = record else { continue };
        let what = format!("{key:?} cut");
        let copy = sound.fork().await;
        copy.put_record(key, Some(&Record::Segment(Segment { len: 100, ..segment }))).await;
        what_does_not_read_is_named(&copy, &golden, &copy.tree().await.unwrap(), &what).await;
        let tree = mend(&copy, &golden, &what, false).await;
        assert!(tree == golden && copy.check(true).await.is_clean(), "{what}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_header_is_passed_by_or_ends_the_repair_before_it_begins() {
    let mut rng = rng(8);
    let sound = World::with_everything().await;
    let key = [Factor::KeyFile(Secret::new(b"a second key file".to_vec()))];
    let new =
        NewSlot { label: "second", role: Role::Admin, factors: &key, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let unlocked = volume::unlock(&sound.bucket(), &factors()).await.unwrap();
    let second = unlocked.add_slot(&new, &OsEntropy, Time { secs: 1_700_000_000, nanos: 0 }).unwrap();
    sound.put("header/2", second).await;
    let golden = sound.tree().await.unwrap();
    for object in ["header/1", "header/2"] {
        let bytes = sound.get(object).await;
        let mut ways = vec![None, Some(Bytes::new()), Some(bytes.slice(..bytes.len() - 1))];
        for _ in 0..6 {
            ways.push(flipped(&bytes, rng.random_range(0..bytes.len()), &mut rng));
        }
        for (way, bytes) in ways.into_iter().enumerate() {
            let what = format!("way {way} of {object}");
            let copy = sound.fork().await;
            inflict(&copy, &vec![(object.to_owned(), bytes.clone())]).await;
            let before = named(&copy, "").await;
            if object == "header/1" || bytes.is_none() {
                let tree = mend(&copy, &golden, &what, false).await;
                assert!(tree == golden, "{what}: no header that is used was touched");
                // A check names the older one that is broken.
                let report = copy.check(false).await;
                let is_named = report.findings.iter().any(|found| {
                    matches!(found.subject, Subject::Header(1))
                        && found.problem.severity() == Severity::Harmless
                });
                assert_eq!(is_named, bytes.is_some(), "{what}{}", told(&report));
                continue;
            }
            let (_, error) = try_repair(&copy, false).await.expect_err(&what);
            assert!(named(&copy, "").await == before, "{what}: something was written, then: {error}");
            copy.put(object, sound.get(object).await).await;
            as_before(&copy, &golden, &what).await;
        }
    }
}
