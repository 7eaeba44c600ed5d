//! Older states, mixtures of them, and two histories woven into one.

use std::sync::Arc;

use coffer::base::Ino;
use coffer::volume::VolumeError;

use crate::each_object::{folder, kinds};
use crate::store::{Hostile, Objects};
use crate::world::{Tree, Verdict, World, agrees, open, options, put, read, runtime, tree};

#[test]
fn d1_every_older_state_is_refused_by_who_knows_the_newest_and_whole_at_first_contact() {
    let world = World::new();
    let (_, older) = world.states.split_last().unwrap();
    for (number, (objects, tree)) in older.iter().enumerate() {
        let what = format!("state {number}");
        let store = Hostile::of(objects.clone());
        let seen = runtime().block_on(world.read(&store, false)).unwrap();
        agrees(&seen, tree).unwrap_or_else(|error| panic!("{what}: {error}"));
        match runtime().block_on(world.judge(&store, &what)) {
            Verdict::Refused(VolumeError::Rollback { .. } | VolumeError::HeaderRolledBack { .. }) => {}
            other => panic!("{what}: {other:?}"),
        }
    }
}

#[test]
fn d1_no_mixture_of_states_is_read() {
    let world = World::new();
    let folders: Vec<String> = kinds(&world.objects).into_keys().collect();
    let mut refused = 0;
    for of in &folders {
        for (number, (older, _)) in world.states.iter().enumerate() {
            // One kind of objects of this state among the others of the newest; and the other way round.
            for is_older in [true, false] {
                let mixed: Objects = older
                    .iter()
                    .filter(|(name, _)| (folder(name) == *of) == is_older)
                    .chain(world.objects.iter().filter(|(name, _)| (folder(name) == *of) != is_older))
                    .map(|(name, bytes)| (name.clone(), bytes.clone()))
                    .collect();
                let what = format!("{of} of state {number} is {is_older}");
                let verdict = runtime().block_on(world.judge(&Hostile::of(mixed), &what));
                refused += usize::from(matches!(verdict, Verdict::Refused(_)));
            }
        }
    }
    println!("{refused} of {} mixtures were refused", folders.len() * world.states.len() * 2);
    assert!(refused > 20);
}

/// With stolen credentials all can be deleted. Nobody takes what is left for a new volume; and every version that the
/// bucket has retained, put back at once, is the newest state.
#[test]
fn d15_all_that_was_deleted_is_missed_and_what_the_bucket_retained_is_the_newest_state() {
    let world = World::new();
    let empty = Hostile::of(Objects::new());
    for is_known in [true, false] {
        let is_missed = |error: &VolumeError| match error {
            VolumeError::HeaderGone { .. } => is_known,
            VolumeError::NoVolume { .. } => !is_known,
            _ => false,
        };
        let read = runtime().block_on(world.read(&empty, is_known));
        assert!(read.as_ref().is_err_and(is_missed), "{read:?}");
        let writing = options(world.state_dir(is_known), 5);
        let written = runtime().block_on(async { open(&empty, writing).await.map(drop) });
        assert!(written.as_ref().is_err_and(is_missed), "{written:?}");
    }
    assert!(empty.objects().is_empty(), "{:?}", empty.objects().keys());
    let retained: Objects = world.ever.iter().cloned().collect();
    assert!(retained.len() > world.objects.len() + 5);
    let verdict = runtime().block_on(world.judge(&Hostile::of(retained), "everything put back"));
    assert!(matches!(verdict, Verdict::Read(_)) && verdict.spoiled().is_empty(), "{verdict:?}");
}

/// What a client has done that went on by itself: what is in the store, and of each commit the tree, the hash and the time.
struct Alone {
    store: Arc<Hostile>,
    trees: Vec<Tree>,
    commits: Vec<([u8; 32], Option<f64>)>,
}

/// A client that goes on by itself from `objects`, on a machine of its own with or without a state folder.
async fn goes_on(objects: &Objects, seed: u64, has_state: bool) -> Alone {
    let store = Hostile::of(objects.clone());
    let (mut trees, mut commits) = (Vec::new(), Vec::new());
    let machine = tempfile::tempdir().unwrap();
    let opened = open(&store, options(has_state.then(|| machine.path().to_owned()), seed)).await.unwrap();
    for step in 0..4u8 {
        put(&opened.vfs, Ino::ROOT, &format!("{seed}-{step}"), &[step; 300]).await;
        put(&opened.vfs, Ino::ROOT, "tiny", &[seed as u8; 500]).await;
        opened.vfs.sync_all().await.unwrap();
        trees.push(tree(&opened.vfs).await);
        commits.push((opened.vfs.head().1, opened.vfs.status().committed_at));
    }
    std::mem::forget(opened);
    Alone { store, trees, commits }
}

/// The store shows one volume to two machines that write, and splits them. Then it takes single objects of the one
/// history, which open under the names that they have in both, for those of the other.
#[test]
fn d2_two_histories_that_a_store_has_split_are_never_woven_into_one() {
    are_never_woven(true);
}

/// Neither machine has an id, and both commit the same numbers in the same nanoseconds: only the mounts differ.
#[test]
fn d2_two_histories_of_machines_without_memory_are_never_woven_into_one() {
    are_never_woven(false);
}

fn are_never_woven(has_state: bool) {
    let world = World::new();
    let first = runtime().block_on(goes_on(&world.objects, 1001, has_state));
    let second = runtime().block_on(goes_on(&world.objects, 1002, has_state));
    for (one, two) in first.commits.iter().zip(&second.commits) {
        assert_eq!(one.1, two.1, "the commits are not of the same time: the test shows nothing");
        assert_ne!(one.0, two.0, "two commits of two histories hash alike");
    }
    let (ones, twos) = (first.trees, second.trees);
    let (one, two) = (first.store.objects(), second.store.objects());
    let both: Vec<&String> =
        one.keys().filter(|name| two.get(*name).is_some_and(|bytes| *bytes != one[*name])).collect();
    assert!(both.len() >= 6, "{} names are in both histories", both.len());
    let mut truths: Vec<&Tree> = ones.iter().chain(&twos).collect();
    truths.extend(world.states.iter().map(|(_, tree)| tree));
    let (mut refused, mut woven_count) = (0, 0);
    // Every choice of the one or the other for each name, up to a thousand.
    for choice in 0..(1u32 << both.len().min(10)) {
        let mut woven = one.clone();
        woven.extend(
            two.iter().filter(|(name, _)| !one.contains_key(*name)).map(|(n, b)| (n.clone(), b.clone())),
        );
        for (bit, name) in both.iter().enumerate().take(10) {
            if choice & 1 << bit != 0 {
                woven.insert((*name).clone(), two[*name].clone());
            }
        }
        woven_count += 1;
        let Ok(seen) = runtime().block_on(read(&Hostile::of(woven), None)) else {
            refused += 1;
            continue;
        };
        let is_one = truths.iter().any(|truth| agrees(&seen, truth).is_ok());
        assert!(is_one, "choice {choice:b}: {:?}", seen.keys().collect::<Vec<_>>());
    }
    println!("{refused} of {woven_count} were refused; {} names are in both", both.len());
}

/// A reader has followed one side of a split: its newest commits are in logs. Then the store puts a manifest of the other
/// side, with its tables, beside them: the tables of the one would lie under the logs of the other.
#[test]
fn d2_a_reader_that_follows_is_never_given_two_histories_woven_into_one() {
    let world = World::new();
    let mut refused = 0;
    for commits in 1..=3u8 {
        let (first, mut truths) = runtime().block_on(async {
            let ones = goes_on(&world.objects, 2001, true).await;
            (ones.store, ones.trees)
        });
        let second = runtime().block_on(ends_after(&world.objects, 2002, commits));
        runtime().block_on(async {
            let mut reading = options(None, 99);
            reading.vfs.read_only = true;
            let reader = open(&first, reading).await.unwrap();
            let before = tree(&reader.vfs).await;
            assert!(truths.iter().any(|truth| agrees(&before, truth).is_ok()));
            // What both have stays as it is in the history that was followed.
            let ones = first.objects();
            for (name, bytes) in second.objects().iter().filter(|(name, _)| !ones.contains_key(*name)) {
                first.plant(name, bytes.clone());
            }
            refused += usize::from(reader.vfs.follow().await.is_err());
            let seen = tree(&reader.vfs).await;
            truths.push(before);
            let is_one = truths.iter().any(|truth| agrees(&seen, truth).is_ok());
            assert!(is_one, "{commits} commits beside: {:?}", seen.keys().collect::<Vec<_>>());
            drop(reader.close().await);
        });
    }
    assert!(refused > 0, "the store showed nothing of the other history: the test shows nothing");
}

/// The same of a writer at work: the store puts manifests of the other side, with their tables, beside its own.
#[test]
fn d2_a_writer_at_work_is_never_given_two_histories_woven_into_one() {
    let world = World::new();
    let mut refused = 0;
    for commits in 1..=6u8 {
        let first = Hostile::of(world.objects.clone());
        let second = runtime().block_on(ends_after(&world.objects, 2002, commits));
        runtime().block_on(async {
            let writer = open(&first, options(None, 2001)).await.unwrap();
            put(&writer.vfs, Ino::ROOT, "mine", &[7; 300]).await;
            writer.vfs.sync_all().await.unwrap();
            let before = tree(&writer.vfs).await;
            let ones = first.objects();
            for (name, bytes) in second.objects().iter().filter(|(name, _)| !ones.contains_key(*name)) {
                first.plant(name, bytes.clone());
            }
            refused += usize::from(writer.vfs.follow().await.is_err());
            let seen = tree(&writer.vfs).await;
            agrees(&seen, &before).unwrap_or_else(|error| panic!("{commits} commits beside: {error}"));
            drop(writer.close().await);
        });
    }
    assert!(refused > 0, "the store showed nothing of the other history: the test shows nothing");
}

/// A client that makes so many commits from `objects`, and unmounts: its records are in tables.
async fn ends_after(objects: &Objects, seed: u64, commits: u8) -> Arc<Hostile> {
    let store = Hostile::of(objects.clone());
    let opened = open(&store, options(None, seed)).await.unwrap();
    for step in 0..commits {
        put(&opened.vfs, Ino::ROOT, &format!("{seed}-{step}"), &[step; 300]).await;
        put(&opened.vfs, Ino::ROOT, "tiny", &[seed as u8; 500]).await;
        opened.vfs.sync_all().await.unwrap();
    }
    opened.close().await.unwrap();
    store
}
