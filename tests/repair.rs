//! A repair leaves a volume that a check is satisfied with, and everything that read before.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer::base::{BLOCK_LEN, FILE_BYTES_MAX, FileKind, Ino, PAGE_BLOCKS};
use coffer::maint::{LostBecause, Problem, Severity};
use coffer::meta::{Body, Key, Record, Segment, encode};
use damaged::mended::{is_lost_for_good, mend, remove_all};
use damaged::{CALLER, Tree, World, bumps, letter, put, sync, told};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

fn untouched(golden: &Tree, tree: &Tree, touched: &[Ino], what: &str) {
    for (path, seen) in golden {
        let ino = seen.as_ref().unwrap().ino;
        assert!(
            touched.contains(&ino) || tree.get(path) == Some(seen),
            "{what}: {} was not touched",
            path.escape_ascii()
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_volume_is_left_as_it_is() {
    let world = World::with_everything().await;
    world.repair(false).await;
    let commit = world.check(false).await.commit;
    for salvage in [false, true] {
        let outcome = world.repair(salvage).await;
        assert!(outcome.deeds.is_empty() && outcome.left.is_clean() && !outcome.kept_for_salvage);
        assert_eq!(outcome.left.commit, commit);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_lost_a_record_is_mended() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (key, _) in world.records().await {
        let what = format!("without {key:?}");
        let copy = world.fork().await;
        copy.put_record(key, None).await;
        mend(&copy, &golden, &what, false).await;
        remove_all(&copy, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_salvage_brings_back_what_a_lost_inode_or_segment_record_kept() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (key, record) in world.records().await {
        let Record::Inode(inode) = &record else { continue };
        let Key::Inode(ino) = key else { continue };
        if inode.kind != FileKind::Regular || inode.size == 0 {
            continue;
        }
        let what = format!("without {key:?}");
        let copy = world.fork().await;
        copy.put_record(key, None).await;
        let tree = mend(&copy, &golden, &what, true).await;
        untouched(&golden, &tree, &[ino], &what);
        for (path, seen) in golden.iter().filter(|(_, seen)| seen.as_ref().is_ok_and(|seen| seen.ino == ino))
        {
            let seen = seen.as_ref().unwrap();
            // What a copy shares, the segments know as the original's.
            if path != b"/clone" {
                let found = tree[path].as_ref().unwrap();
                assert!(found.contents == seen.contents, "{what}: {}", path.escape_ascii());
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_a_record_in_the_place_of_another_is_mended() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let records = world.records().await;
    for (key, record) in &records {
        let others = records
            .iter()
            .filter(|(other, value)| letter(other) == letter(key) && other != &key && *value != record);
        for (other, value) in others.take(3) {
            let copy = world.fork().await;
            copy.put_record(*key, Some(value)).await;
            mend(&copy, &golden, &format!("{other:?} in the place of {key:?}"), false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_a_number_that_is_off_is_mended() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (key, record) in &world.records().await {
        for (number, bumped) in bumps(record) {
            let what = format!("{number} of {key:?}");
            let copy = world.fork().await;
            copy.put_record(*key, Some(&bumped)).await;
            mend(&copy, &golden, &what, false).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_nonsense_in_a_record_is_mended() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (key, _) in world.records().await {
        let what = format!("nonsense in {key:?}");
        let copy = world.fork().await;
        copy.write_raw(vec![
            (key.encode(), Some(vec![1, 0xFF, 0xFF, 0xFF])),
            (b"Zstray".to_vec(), Some(vec![9])),
        ])
        .await;
        mend(&copy, &golden, &what, false).await;
        remove_all(&copy, &what).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_that_lost_a_segment_or_its_end_keeps_all_that_reads() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (object, size) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with("d/")) {
        for keep in [None, Some(0), Some(64), Some(size / 2), Some(size - 1)] {
            let what = format!("{object} cut to {keep:?}");
            let copy = world.fork().await;
            match keep {
                None => copy.delete(&object).await,
                Some(keep) => {
                    let bytes = copy.get(&object).await;
                    copy.put(&object, bytes.slice(..keep as usize)).await;
                }
            }
            let tree = mend(&copy, &golden, &what, false).await;
            let lost: Vec<Ino> = copy
                .check(false)
                .await
                .findings
                .iter()
                .filter_map(|found| match found {
                    coffer::maint::Finding {
                        subject: coffer::maint::Subject::Inode(ino),
                        problem: Problem::BlocksLost { .. },
                        ..
                    } => Some(*ino),
                    _ => None,
                })
                .collect();
            untouched(&golden, &tree, &lost, &what);
            // A lost block is an error, never zeros.
            for seen in tree.iter().filter(|(path, _)| golden.get(*path) != tree.get(*path)) {
                assert!(seen.1.is_err(), "{what}: {}", seen.0.escape_ascii());
            }
            remove_all(&copy, &what).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn parts_of_a_file_whose_extents_are_lost_fail_and_the_others_read() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let pages = golden[&b"/pages"[..]].as_ref().unwrap().ino;
    world.put_record(Key::Extents(pages, 1), None).await;
    let opened = world.mount(true).await;
    let at = 70 * 1024 * 1024;
    let zeros = opened.vfs.read(coffer::vfs::Handle(0), pages, at, 10).await.unwrap();
    assert_eq!(zeros, [0; 10], "this is what a repair is for");
    opened.close().await.unwrap();

    // The segment tells what the page was.
    let copy = world.fork().await;
    let tree = mend(&copy, &golden, "a page is gone", false).await;
    untouched(&golden, &tree, &[], "a page is gone");

    // With live bytes that fit no list of blocks nothing tells any more.
    for (key, record) in world.records().await {
        if let (Key::Segment(_), Record::Segment(segment)) = (key, &record) {
            let live = segment.live + 5;
            world.put_record(key, Some(&Record::Segment(Segment { live, ..*segment }))).await;
        }
    }
    world.repair(false).await;
    let opened = world.mount(false).await;
    let read = async |at, len| opened.vfs.read(coffer::vfs::Handle(0), pages, at, len).await;
    assert_eq!(read(at, 10).await.unwrap_err().errno(), libc::EIO);
    assert_eq!(read(0, 100).await.unwrap(), golden[&b"/pages"[..]].as_ref().unwrap().contents[..100]);
    let report = world.check(false).await;
    let lost = |found: &&coffer::maint::Finding| matches!(&found.problem, Problem::BlocksLost { because: LostBecause::Given, ranges, .. } if ranges[0].start == 64 << 20);
    assert!(report.findings.iter().any(|found| lost(&found)), "{}", told(&report));

    // What is written anew is there again.
    opened.vfs.write(pages, at, &[7; 65_536], true).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    assert_eq!(read(at, 10).await.unwrap(), [7; 10]);
    opened.close().await.unwrap();
}

/// Found by fuzzing: a check counted beyond the end of all numbers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_behind_the_end_of_any_file_is_found_and_goes() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let pages = golden[&b"/pages"[..]].as_ref().unwrap().ino;
    let page = world.records().await.remove(&Key::Extents(pages, 1)).unwrap();
    let beyond = FILE_BYTES_MAX / (PAGE_BLOCKS * BLOCK_LEN) + 1;
    for number in [u64::MAX, u64::MAX / PAGE_BLOCKS, beyond, beyond - 1] {
        for has_segments in [true, false] {
            let copy = world.fork().await;
            copy.put_record(Key::Extents(pages, number), Some(&page)).await;
            for (object, _) in copy.objects().await {
                if !has_segments && object.starts_with("d/") {
                    copy.delete(&object).await;
                }
            }
            let report = copy.check(true).await;
            let subject = match number < beyond {
                true => coffer::maint::Subject::Inode(pages),
                false => coffer::maint::Subject::Record(Key::Extents(pages, number).encode()),
            };
            let found = report.findings.iter().find(|found| found.subject == subject);
            assert!(found.is_some(), "page {number}: {}", told(&report));
            if number >= beyond {
                mend(&copy, &golden, &format!("page {number}, {has_segments}"), false).await;
                continue;
            }
            // The last page that a file can have: the file is as long as that says.
            copy.repair(false).await;
            let left = copy.check(false).await;
            assert!(left.findings.iter().all(|found| is_lost_for_good(&found.problem)), "{}", told(&left));
            let tree = copy.tree().await.unwrap();
            let size = tree[&b"/pages"[..]].as_ref().map(|seen| seen.size);
            let reaches = number * PAGE_BLOCKS * BLOCK_LEN..FILE_BYTES_MAX;
            assert!(size.is_err() || size.as_ref().is_ok_and(|size| reaches.contains(size)), "{size:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rings_second_names_and_lost_directories_are_put_back_into_a_tree() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let ino = |path: &[u8]| golden[path].as_ref().unwrap().ino;
    let (dir, sub) = (ino(b"/dir"), ino(b"/dir/sub"));
    let records = world.records().await;
    let name_of = |of: Ino| {
        records.iter().find_map(|(key, record)| match (key, record) {
            (Key::Entry(..), Record::Entry(entry)) if entry.ino == of => Some((*key, Arc::clone(entry))),
            _ => None,
        })
    };
    // `sub` holds its own parent, and nothing else does.
    let copy = world.fork().await;
    let (dir_key, dir_entry) = name_of(dir).unwrap();
    let (file_key, file_entry) = name_of(ino(b"/dir/sub/deep")).unwrap();
    let mut looped = (*file_entry).clone();
    (looped.ino, looped.kind) = (dir, dir_entry.kind);
    copy.put_record(file_key, Some(&Record::Entry(Arc::new(looped.clone())))).await;
    copy.put_record(dir_key, None).await;
    let tree = mend(&copy, &golden, "a ring", false).await;
    let place = format!("/lost+found/{dir}/sub/late");
    assert_eq!(
        tree[place.as_bytes()].as_ref().unwrap().contents,
        golden[&b"/dir/sub/late"[..]].as_ref().unwrap().contents
    );
    remove_all(&copy, "a ring").await;

    // A directory with two names keeps one.
    let copy = world.fork().await;
    copy.put_record(file_key, Some(&Record::Entry(Arc::new(looped)))).await;
    let tree = mend(&copy, &golden, "a second name", false).await;
    assert!(tree.len() >= golden.len() - 1, "{:?}", tree.keys());
    remove_all(&copy, "a second name").await;

    // A directory without its inode keeps what is in it, under its name.
    let copy = world.fork().await;
    copy.put_record(Key::Inode(sub), None).await;
    let tree = mend(&copy, &golden, "a directory without an inode", false).await;
    assert_eq!(tree.get(&b"/dir/sub/late"[..]), golden.get(&b"/dir/sub/late"[..]));

    // And so does the root.
    let copy = world.fork().await;
    copy.put_record(Key::Inode(Ino::ROOT), None).await;
    let tree = mend(&copy, &golden, "no root", false).await;
    untouched(&golden, &tree, &[], "no root");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lost_and_found_takes_its_own_name_only_if_it_is_free() {
    let world = World::with_everything().await;
    let opened = world.mount(false).await;
    opened.vfs.create(&CALLER, Ino::ROOT, b"lost+found", 0o644, true).await.unwrap();
    opened.close().await.unwrap();
    let golden = world.tree().await.unwrap();
    let lost = golden[&b"/run"[..]].as_ref().unwrap();
    for (key, record) in world.records().await {
        if matches!((key, record), (Key::Entry(..), Record::Entry(entry)) if entry.ino == lost.ino) {
            world.put_record(key, None).await;
        }
    }
    let tree = mend(&world, &golden, "a file without names", false).await;
    let place = format!("/lost+found.1/{}", lost.ino);
    assert_eq!(tree[place.as_bytes()].as_ref().unwrap(), lost);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_crash_leaves_is_cleared_away() {
    let world = World::with_everything().await;
    let opened = world.mount(false).await;
    let vfs = &opened.vfs;
    let file = vfs.create(&CALLER, Ino::ROOT, b"open", 0o644, true).await.unwrap();
    vfs.write(file.ino, 0, &[5; 300_000], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    let handle = vfs.open(file.ino, true, false).await.unwrap();
    vfs.unlink(Ino::ROOT, b"open").await.unwrap();
    vfs.sync_all().await.unwrap();
    let copy = world.fork().await;
    let golden = copy.tree().await.unwrap();
    vfs.release(handle);
    opened.close().await.unwrap();

    let report = copy.check(false).await;
    assert!(report.is_held && report.is_clean(), "{}", told(&report));
    assert!(report.findings.iter().any(|found| found.problem == Problem::Orphan));
    mend(&copy, &golden, "a crash", false).await;
    let report = copy.check(true).await;
    let left = report.findings.iter().find(|found| found.problem != Problem::Garbage);
    assert!(left.is_none() && !report.is_held, "{}", told(&report));
    assert!(!copy.records().await.contains_key(&Key::Inode(file.ino)));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_without_an_inode_waits_for_a_salvage() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let late = golden[&b"/dir/sub/late"[..]].as_ref().unwrap();
    let Record::Inode(inode) = &world.records().await[&Key::Inode(late.ino)] else { panic!() };
    assert!(matches!(inode.body, Body::Run(_)));
    world.put_record(Key::Inode(late.ino), None).await;
    let outcome = world.repair(false).await;
    assert!(outcome.kept_for_salvage);
    assert_eq!(outcome.left.worst(), Some(Severity::Harmless), "{}", told(&outcome.left));
    // The name went with the first repair; the contents come back with the second.
    let outcome = world.repair(true).await;
    assert!(!outcome.kept_for_salvage && outcome.left.is_clean(), "{}", told(&outcome.left));
    let tree = world.tree().await.unwrap();
    let place = format!("/lost+found/{}", late.ino);
    assert_eq!(tree[place.as_bytes()].as_ref().unwrap().contents, late.contents);
    remove_all(&world, "after a salvage").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_plan_changes_nothing_and_is_what_is_done() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    world.put_record(Key::Inode(golden[&b"/tiny"[..]].as_ref().unwrap().ino), None).await;
    let before = world.objects().await;
    let options = damaged::repair_options(false);
    let examined =
        coffer::volume::examine(world.bucket(), &damaged::factors(), Default::default()).await.unwrap();
    let plan = Box::pin(coffer::maint::plan(&examined, &options, &|_| ())).await.unwrap();
    examined.close().await;
    assert_eq!(world.objects().await, before);
    assert!(!plan.deeds.is_empty());
    let mut seized = world.seize().await.unwrap();
    let done = Box::pin(coffer::maint::repair(&mut seized, &options, Some(&plan), &|_| ())).await.unwrap();
    assert!(done.deeds.starts_with(&plan.deeds));
    // By now it is another plan.
    let stale = Box::pin(coffer::maint::repair(&mut seized, &options, Some(&plan), &|_| ())).await;
    assert!(matches!(stale, Err(coffer::maint::MaintError::Moving)));
    seized.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mounted_volume_is_not_repaired_and_a_repair_stops_an_older_mount() {
    let world = World::with_everything().await;
    let opened = world.mount(false).await;
    let refused = coffer::volume::seize(world.bucket(), &damaged::factors(), Default::default()).await;
    assert!(matches!(refused.err(), Some(coffer::volume::VolumeError::InUse { .. })));
    world.repair(false).await;
    opened.vfs.create(&CALLER, Ino::ROOT, b"late", 0o644, true).await.unwrap();
    assert!(opened.vfs.sync_all().await.is_err());
    drop(opened);
    assert!(world.check(true).await.is_clean());
}

/// Damages some records at random; says which and how.
async fn wreck(world: &World, rng: &mut SmallRng) -> (Vec<Key>, String) {
    let records: Vec<_> = world.records().await.into_iter().collect();
    let mut rows = BTreeMap::new();
    let (mut keys, mut what) = (Vec::new(), Vec::new());
    for _ in 0..rng.random_range(2..7) {
        let (key, record) = &records[rng.random_range(0..records.len())];
        let (how, value) = match rng.random_range(0..4) {
            0 => ("none", None),
            1 => ("nonsense", Some(vec![1, 0xFF, 0xFF, 0xFF])),
            2 => {
                let same: Vec<_> = records.iter().filter(|(other, _)| letter(other) == letter(key)).collect();
                ("another", Some(encode(&same[rng.random_range(0..same.len())].1).unwrap()))
            }
            _ => {
                let all = bumps(record);
                let Some((how, bumped)) = all.get(rng.random_range(0..all.len().max(1))) else { continue };
                (*how, Some(encode(bumped).unwrap()))
            }
        };
        what.push(format!("{how} in {key:?}"));
        rows.insert(key.encode(), value);
        keys.push(*key);
    }
    world.write_raw(rows.into_iter().collect()).await;
    (keys, what.join(", "))
}

fn seeds(count: u64) -> Vec<u64> {
    match std::env::var("COFFER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..=count).collect(),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_with_many_things_wrong_at_once_is_mended() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for seed in seeds(60) {
        println!("COFFER_TEST_SEED={seed}");
        let mut rng = SmallRng::seed_from_u64(seed);
        let copy = world.fork().await;
        let (keys, what) = wreck(&copy, &mut rng).await;
        let loses_segment = rng.random_bool(0.3);
        if loses_segment {
            let segments: Vec<_> =
                copy.objects().await.into_iter().filter(|(path, _)| path.starts_with("d/")).collect();
            copy.delete(&segments[rng.random_range(0..segments.len())].0).await;
        }
        let what = format!("seed {seed}: {what}");
        let tree = mend(&copy, &golden, &what, rng.random_bool(0.5)).await;
        if loses_segment || keys.iter().any(|key| letter(key) == 'S') {
            continue;
        }
        // Whatever became of names, contents of which no record was touched are somewhere.
        for (path, seen) in &golden {
            let seen = seen.as_ref().unwrap();
            let is_touched = keys.iter().any(|key| match key {
                Key::Inode(ino) | Key::Extents(ino, _) | Key::Inline(ino, _) => *ino == seen.ino,
                _ => false,
            });
            let is_there = tree.values().flatten().any(|other| {
                other.ino == seen.ino && other.kind == seen.kind && other.contents == seen.contents
            });
            assert!(is_touched || is_there, "{what}: {} is gone", path.escape_ascii());
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_that_is_cut_off_anywhere_is_finished_by_the_next() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for seed in seeds(6) {
        println!("COFFER_TEST_SEED={seed}");
        let wrecked = world.fork().await;
        let (_, what) = wreck(&wrecked, &mut SmallRng::seed_from_u64(1000 + seed)).await;
        let whole = wrecked.fork().await;
        let whole = mend(&whole, &golden, &what, false).await;
        for puts in 0.. {
            let copy = wrecked.fork().await;
            let was_cut = copy.repair_until(puts).await;
            let tree =
                mend(&copy, &golden, &format!("seed {seed} cut after {puts} writes: {what}"), false).await;
            for (path, seen) in whole.iter().filter(|(_, seen)| seen.is_ok()) {
                let kept = tree.values().any(
                    |other| matches!((seen, other), (Ok(seen), Ok(other)) if seen.contents == other.contents),
                );
                assert!(kept, "{} is not there when {what} is cut after {puts} writes", path.escape_ascii());
            }
            if !was_cut {
                assert!(puts > 2, "it writes nothing");
                break;
            }
        }
    }
}

/// More than one commit of a repair has room for: each leaves two records.
const ORPHANS: u32 = 5_100;

/// Files that were unlinked and open, in segments that they share with files that are there.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_after_a_repair_that_was_cut_off_among_unlinked_files_takes_nothing_from_others() {
    let world = World::new().await;
    let opened = world.mount(false).await;
    for number in 0..ORPHANS {
        let is_kept = number.is_multiple_of(100);
        let name = format!("{}{number}", if is_kept { "kept" } else { "gone" });
        let ino = put(&opened.vfs, Ino::ROOT, name.as_bytes(), &vec![number as u8; 1250]).await;
        if !is_kept {
            opened.vfs.lookup(Ino::ROOT, name.as_bytes()).await.unwrap();
            opened.vfs.unlink(Ino::ROOT, name.as_bytes()).await.unwrap();
            assert!(opened.vfs.getattr(ino).await.is_ok(), "it is still referred to");
        }
    }
    sync(&opened.vfs).await;
    let crashed = world.fork().await;
    drop(opened);
    let mut cuts = 0;
    for puts in 0.. {
        let copy = crashed.fork().await;
        let was_cut = copy.repair_until(puts).await;
        copy.mount(false).await.close().await.unwrap();
        let report = copy.check(true).await;
        let worst = report.worst();
        assert!(worst <= Some(Severity::Harmless), "cut after {puts} writes: {}", told(&report));
        if !was_cut {
            break;
        }
        cuts += 1;
    }
    assert!(cuts > 3, "{cuts} cuts");
}
