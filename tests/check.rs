//! A check names what is wrong with a volume, wherever the damage is, and nothing else.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer::base::{Ino, Run, SystemClock};
use coffer::data::segment::read_footer;
use coffer::maint::{self, CheckOptions, Finding, LostBecause, Problem, Report, Severity, Step, Subject};
use coffer::meta::{Body, Key, Record};
use coffer::store::Bucket;
use coffer::store::fault::{FaultPlan, FaultStore};
use coffer::volume::{self, OpenOptions, VolumeError};
use damaged::{OddStore, Seen, Tree, World, bumps, factors, letter, put, rng, serious, sync, told};
use rand::Rng;
use tokio::time::Instant;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sound_volume_is_clean_and_its_check_writes_nothing() {
    let world = World::with_everything().await;
    let before = world.objects().await;
    for read_data in [false, true] {
        let report = world.check(read_data).await;
        assert!(serious(&report).is_empty(), "{}", told(&report));
        assert!(report.is_clean() && report.commit.is_some() && !report.is_held);
        assert_eq!(report.totals.objects, before.len() as u64);
        assert_eq!(report.totals.read_bytes > 0, read_data);
    }
    assert_eq!(world.objects().await, before);
}

/// How the check of a damaged copy is held against what can be read of it.
async fn judge(world: &World, golden: &Tree, what: &str, is_seen_by_counts: bool) -> Report {
    let report = world.check(false).await;
    let (found, text) = (serious(&report), told(&report));
    if is_seen_by_counts {
        assert!(!found.is_empty(), "{what}: nothing was found");
    }
    let Some(tree) = world.tree().await else {
        assert!(report.worst() >= Some(Severity::Structure), "{what}: it cannot be mounted{text}");
        return report;
    };
    for (path, before) in golden {
        let is_whole = tree.get(path) == Some(before);
        let lost = found.iter().any(|found| {
            found.path.as_ref() == Some(path) && matches!(found.problem, Problem::BlocksLost { .. })
        });
        assert!(!(is_whole && lost), "{what}: {} reads{text}", path.escape_ascii());
        assert!(is_whole || !found.is_empty(), "{what}: {} is damaged, and clean", path.escape_ascii());
    }
    report
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_that_is_deleted_is_missed() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let records = world.records().await;
    for key in records.keys() {
        let copy = world.fork().await;
        copy.put_record(*key, None).await;
        // A dead segment whose record is gone is a leftover, if its object is still there; who shares blocks of
        // a segment is a hint for cleaning and nothing else.
        judge(&copy, &golden, &format!("without {key:?}"), !matches!(letter(key), 'G' | 'R')).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_record_that_is_replaced_by_another_is_found() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let records = world.records().await;
    for (key, record) in &records {
        let others = records
            .iter()
            .filter(|(other, value)| letter(other) == letter(key) && other != &key && *value != record);
        for (other, value) in others.take(4) {
            let copy = world.fork().await;
            copy.put_record(*key, Some(value)).await;
            // Contents of the same length in a record are as good as any.
            let is_seen = !is_same_shape(record, value);
            judge(&copy, &golden, &format!("{other:?} in the place of {key:?}"), is_seen).await;
        }
    }
}

/// Whether nothing that is counted differs.
fn is_same_shape(a: &Record, b: &Record) -> bool {
    match (a, b) {
        (Record::Inline(a), Record::Inline(b)) => a.len() == b.len(),
        _ => false,
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_count_that_is_off_is_found() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (key, record) in &world.records().await {
        for (what, bumped) in bumps(record) {
            let copy = world.fork().await;
            copy.put_record(*key, Some(&bumped)).await;
            judge(&copy, &golden, &format!("{what} of {key:?}"), true).await;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_cannot_be_decoded_and_keys_that_are_none_are_found() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for key in world.records().await.keys() {
        let copy = world.fork().await;
        copy.write_raw(vec![(key.encode(), Some(vec![1, 0xFF, 0xFF, 0xFF]))]).await;
        let is_contents = letter(key) == 'B';
        let report = judge(&copy, &golden, &format!("nonsense in {key:?}"), true).await;
        let broken = |found: &&Finding| matches!(found.problem, Problem::RecordBroken { .. });
        assert!(is_contents || serious(&report).iter().any(broken), "{key:?}{}", told(&report));
    }
    for key in
        [&b"A1"[..], b"B1", b"C123", b"D", b"Fxyz", b"I123456789", b"M123", b"Vx", b"Xy", b"Z", b"\xF0\x00"]
    {
        let copy = world.fork().await;
        copy.write_raw(vec![(key.to_vec(), Some(vec![1]))]).await;
        let report = copy.check(false).await;
        let found = serious(&report);
        assert_eq!(found.len(), 1, "{key:?}{}", told(&report));
        assert_eq!(
            (&found[0].subject, &found[0].problem),
            (&Subject::Record(key.to_vec()), &Problem::RecordStray)
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_segment_that_is_deleted_or_cut_costs_its_files_and_no_others() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (object, size) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with("d/")) {
        for keep in [None, Some(0), Some(64), Some(size / 2), Some(size - 1)] {
            let copy = world.fork().await;
            match keep {
                None => copy.delete(&object).await,
                Some(keep) => {
                    let bytes = copy.get(&object).await;
                    copy.put(&object, bytes.slice(..keep as usize)).await;
                }
            }
            let report = judge(&copy, &golden, &format!("{object} cut to {keep:?}"), true).await;
            assert_eq!(report.worst(), Some(Severity::Files), "{}", told(&report));
            if keep.is_none() {
                names_all_lost(&copy, &golden, &report).await;
            }
        }
    }
}

/// Every file that does not read is named, by its path, and no other.
async fn names_all_lost(world: &World, golden: &Tree, report: &Report) {
    let tree = world.tree().await.unwrap();
    let hurt: BTreeSet<Ino> = golden
        .iter()
        .filter(|(path, before)| tree.get(*path) != Some(before))
        .map(|(_, before)| before.as_ref().unwrap().ino)
        .collect();
    let lost = report.findings.iter().filter(|found| matches!(found.problem, Problem::BlocksLost { .. }));
    let named: BTreeSet<Ino> = lost
        .map(|found| match (&found.subject, &found.path) {
            (Subject::Inode(ino), Some(path)) => {
                assert_eq!(golden[path].as_ref().unwrap().ino, *ino);
                *ino
            }
            other => panic!("{other:?}"),
        })
        .collect();
    assert!(!hurt.is_empty() && named == hurt, "{hurt:?} are hurt, {named:?} are named{}", told(report));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_the_data_finds_every_flipped_bit_of_a_segment_that_a_file_needs() {
    let mut rng = rng(11);
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (object, size) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with("d/")) {
        for at in [0, 20, 63, 64, rng.random_range(64..size), rng.random_range(64..size), size - 1] {
            let copy = world.fork().await;
            let mut bytes = copy.get(&object).await.to_vec();
            bytes[at as usize] ^= 1 << rng.random_range(0..8);
            copy.put(&object, bytes).await;
            let report = copy.check(true).await;
            let tree = copy.tree().await.unwrap();
            for (path, before) in &golden {
                let lost = report.findings.iter().any(|found| {
                    found.path.as_ref() == Some(path) && found.problem.severity() == Severity::Files
                });
                // A file with two names is named once.
                let is_twin = golden.iter().any(|(other, twin)| other != path && twin == before);
                let reads = tree.get(path) == Some(before);
                let path = path.escape_ascii();
                assert!(
                    is_twin || lost != reads,
                    "byte {at} of {object}, {path} reads: {reads}{}",
                    told(&report)
                );
            }
            // The head, the footer and its length are not needed for reading, but for salvage.
            let is_frame = at < 64 || at == size - 1;
            assert!(!is_frame || report.worst() == Some(Severity::Harmless), "{}", told(&report));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_flipped_bit_in_any_block_costs_the_files_of_that_block_and_no_others() {
    let mut rng = rng(6);
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    let clone = golden[&b"/clone"[..]].as_ref().unwrap().ino;
    let vault = world.vault().await;
    let mut flipped = 0;
    for (key, record) in world.records().await {
        let (Key::Segment(id), Record::Segment(segment)) = (key, record) else { continue };
        let object = format!("d/{}/{id}", &id.to_string()[..2]);
        for block in read_footer(&vault, id, &segment.seal, segment.len.into()).await.unwrap() {
            let copy = world.fork().await;
            let mut bytes = copy.get(&object).await.to_vec();
            bytes[rng.random_range(block.place.sealed_range()) as usize] ^= 1 << rng.random_range(0..8);
            copy.put(&object, bytes).await;
            let report = copy.check(true).await;
            let name = |found: &&Finding| match (&found.subject, &found.problem) {
                (Subject::Inode(ino), Problem::BlocksLost { ranges, .. }) => (*ino, ranges[0].start / 65_536),
                _ => panic!("nothing else is wrong{}", told(&report)),
            };
            let mut lost: BTreeSet<_> = serious(&report).iter().map(name).collect();
            let tree = copy.tree().await.unwrap();
            let fails = |(path, seen): &(&Vec<u8>, &Result<Seen, String>)| tree[*path] != **seen;
            let failing: BTreeSet<Ino> =
                golden.iter().filter(fails).map(|(_, seen)| seen.as_ref().unwrap().ino).collect();
            assert_eq!(
                lost.iter().map(|(ino, _)| *ino).collect::<BTreeSet<_>>(),
                failing,
                "{}",
                told(&report)
            );
            // What was copied by reference is the copy's, too.
            lost.retain(|(ino, _)| *ino != clone);
            assert_eq!(lost, BTreeSet::from([(block.ino, block.index.0)]), "{}", told(&report));
            flipped += 1;
        }
    }
    assert!(flipped > 10, "{flipped} blocks");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn segments_that_change_places_are_found_by_reading_them() {
    let world = World::with_everything().await;
    let segments: Vec<_> =
        world.objects().await.into_iter().filter(|(path, _)| path.starts_with("d/")).collect();
    let (one, other) = (&segments[0].0, &segments[1].0);
    let copy = world.fork().await;
    let (first, second) = (copy.get(one).await, copy.get(other).await);
    copy.put(one, second).await;
    copy.put(other, first).await;
    let report = copy.check(true).await;
    names_all_lost(&copy, &world.tree().await.unwrap(), &report).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_metadata_object_that_is_altered_is_named_by_reading_it() {
    let world = World::with_everything().await;
    for (object, size) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with("m/")) {
        for at in [0, 64, size / 2, size - 1] {
            let copy = world.fork().await;
            let mut bytes = copy.get(&object).await.to_vec();
            bytes[at as usize] ^= 0x10;
            copy.put(&object, bytes).await;
            let report = copy.check(true).await;
            let named = report.findings.iter().any(|found| found.subject == Subject::Object(object.clone()));
            assert!(named && report.worst() == Some(Severity::Structure), "{object}{}", told(&report));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn metadata_objects_that_are_gone_end_in_a_report() {
    let world = World::with_everything().await;
    let golden = world.tree().await.unwrap();
    for (object, _) in world.objects().await.into_iter().filter(|(object, _)| object.starts_with("m/")) {
        let copy = world.fork().await;
        copy.delete(&object).await;
        let report = copy.check(true).await;
        // What is not needed any more may go; else it is said that the records cannot be read.
        match copy.tree().await {
            Some(tree) => assert!(tree == golden || !report.is_clean(), "{object}{}", told(&report)),
            None => assert_eq!(report.worst(), Some(Severity::Structure), "{object}{}", told(&report)),
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strange_objects_and_headers_are_named_and_harm_nobody() {
    let world = World::with_everything().await;
    let header = world.get("header/1").await;
    let foreign = World::new().await.get("header/1").await;
    for (object, bytes, problem) in [
        ("d/zz/nonsense", Bytes::from_static(b"?"), "object-stray"),
        ("m/0123456789", Bytes::from_static(b"?"), "object-stray"),
        ("elsewhere", Bytes::from_static(b"?"), "object-stray"),
        ("d/00/00000000000000000000000000", Bytes::from_static(b"?"), "leftover"),
        ("header/0", header.clone(), "header-broken"),
        ("header/0", foreign, "header-broken"),
        ("header/0", header.slice(..99), "header-broken"),
        ("header/01", header, "object-stray"),
    ] {
        let copy = world.fork().await;
        copy.put(object, bytes).await;
        let report = copy.check(true).await;
        let found = serious(&report);
        assert_eq!(found.len(), 1, "{object}{}", told(&report));
        assert_eq!((found[0].problem.word(), found[0].problem.severity()), (problem, Severity::Harmless));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_a_mount_does_beside_a_check_is_no_damage() {
    let world = World::with_everything().await;
    let examined = volume::examine(world.bucket(), &factors(), OpenOptions::default()).await.unwrap();
    // After the commit that is checked, segments go and others come.
    let opened = world.mount(false).await;
    let segments = async || -> BTreeSet<String> {
        world
            .objects()
            .await
            .into_iter()
            .map(|(path, _)| path)
            .filter(|path| path.starts_with("d/"))
            .collect()
    };
    let before = segments().await;
    for name in [&b"run"[..], b"clone", b"pages"] {
        opened.vfs.unlink(Ino::ROOT, name).await.unwrap();
    }
    let dir = opened.vfs.lookup(Ino::ROOT, b"dir").await.unwrap().ino;
    opened.vfs.unlink(dir, b"link").await.unwrap();
    sync(&opened.vfs).await;
    while segments().await.is_superset(&before) {
        tokio::task::yield_now().await;
    }
    put(&opened.vfs, Ino::ROOT, b"new", &[8; 500_000]).await;
    sync(&opened.vfs).await;
    assert!(!segments().await.is_subset(&before));
    for read_data in [false, true] {
        let options = CheckOptions { read_data, ..CheckOptions::default() };
        let report = Box::pin(maint::check(&examined, &options, &|_| ())).await.unwrap();
        assert!(serious(&report).is_empty(), "{}", told(&report));
    }
    examined.close().await;
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_missing_on_the_word_of_a_listing_alone() {
    let world = World::with_everything().await;
    for (object, _) in world.objects().await {
        if !object.starts_with("d/") {
            continue;
        }
        let store = OddStore::over(&world, usize::MAX, Some(object));
        let bucket = Bucket::from_store(Arc::new(store));
        let examined = volume::examine(bucket, &factors(), OpenOptions::default()).await.unwrap();
        let report = Box::pin(maint::check(&examined, &CheckOptions::default(), &|_| ())).await.unwrap();
        examined.close().await;
        assert!(serious(&report).is_empty(), "{}", told(&report));
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_that_lies_across_the_borders_of_blocks_is_found_without_reading() {
    let world = World::with_everything().await;
    let mut shifted = 0;
    for (key, record) in world.records().await {
        let (Key::Inode(ino), Record::Inode(inode)) = (key, &record) else { continue };
        let Body::Run(run) = &inode.body else { continue };
        if run.pos == 64 {
            continue;
        }
        let mut inode = (**inode).clone();
        inode.body = Body::Run(Run { pos: run.pos - 1, ..run.clone() });
        let copy = world.fork().await;
        copy.put_record(key, Some(&Record::Inode(Arc::new(inode)))).await;
        let report = copy.check(false).await;
        let found = serious(&report);
        assert_eq!(found.len(), 1, "{}", told(&report));
        assert_eq!(found[0].subject, Subject::Inode(ino));
        assert!(matches!(found[0].problem, Problem::BlocksLost { because: LostBecause::Misplaced, .. }));
        shifted += 1;
    }
    assert!(shifted > 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn reading_thousands_of_small_files_takes_few_requests() {
    let world = World::new().await;
    let opened = world.mount(false).await;
    for number in 0..3000 {
        put(&opened.vfs, Ino::ROOT, format!("file {number}").as_bytes(), &[number as u8; 3000]).await;
    }
    opened.close().await.unwrap();
    let bucket = world.bucket();
    let examined = volume::examine(bucket.clone(), &factors(), OpenOptions::default()).await.unwrap();
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = Box::pin(maint::check(&examined, &options, &|_| ())).await.unwrap();
    examined.close().await;
    assert!(report.is_clean() && report.totals.read_bytes > 9_000_000, "{}", told(&report));
    let meter = bucket.meter().snapshot();
    assert!(meter.gets < 60, "{meter:?}");
    assert_eq!((meter.puts, meter.deletes), (0, 0));
}

/// Each session leaves some, which stay for an hour and longer. A wire and a busy server make each of them late, and that must not add up.
#[tokio::test(start_paused = true)]
async fn reading_the_small_objects_of_many_sessions_waits_for_many_of_them_at_once() {
    const ROUND_TRIP: Duration = Duration::from_millis(30);
    let world = World::new().await;
    for _ in 0..60 {
        world.mount(false).await.close().await.unwrap();
    }
    let plan = FaultPlan { latency: ROUND_TRIP, ..FaultPlan::default() };
    let distant = FaultStore::new(Arc::clone(&world.0) as _, plan, Arc::new(SystemClock::default()));
    let bucket = Bucket::from_store(Arc::new(distant));
    let examined = volume::examine(bucket.clone(), &factors(), OpenOptions::default()).await.unwrap();
    let (before, start) = (bucket.meter().snapshot().gets, Instant::now());
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = Box::pin(maint::check(&examined, &options, &|_| ())).await.unwrap();
    let waited = start.elapsed().as_secs_f64() / ROUND_TRIP.as_secs_f64();
    let gets = bucket.meter().snapshot().gets - before;
    examined.close().await;
    assert!(report.is_clean(), "{}", told(&report));
    println!("{} objects in {waited} round trips and {gets} GETs", report.totals.objects);
    assert!(report.totals.objects > 200 && gets < report.totals.objects + 20, "{gets} GETs");
    assert!(waited < report.totals.objects as f64 / 8.0, "{waited} round trips");
}

/// A user is told how long the rest takes by what the volume says that there is.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_tells_beforehand_how_much_it_will_look_at_and_open() {
    let world = World::new().await;
    let opened = world.mount(false).await;
    for number in 0..700 {
        put(&opened.vfs, Ino::ROOT, format!("file {number}").as_bytes(), &[number as u8; 9000]).await;
    }
    put(&opened.vfs, Ino::ROOT, b"large", &[7; 3_000_000]).await;
    opened.close().await.unwrap();
    let examined = volume::examine(world.bucket(), &factors(), OpenOptions::default()).await.unwrap();
    for read_data in [false, true] {
        let steps = std::sync::Mutex::new(Vec::new());
        let options = CheckOptions { read_data, ..CheckOptions::default() };
        let watch = |step| steps.lock().unwrap().push(step);
        let report = Box::pin(maint::check(&examined, &options, &watch)).await.unwrap();
        assert!(report.is_clean(), "{}", told(&report));
        let mut steps = steps.into_inner().unwrap();
        steps.retain(|step| !matches!(step, Step::Part(_)));
        let Some((Step::Begun { records, bytes }, rest)) = steps.split_first() else { panic!("{steps:?}") };
        // Root and 701 files, of which each has a name.
        assert_eq!((*records, *bytes > 0), (702 + 701, read_data), "{steps:?}");
        let last = |of: fn(&Step) -> Option<u64>| rest.iter().filter_map(of).max().unwrap_or(0);
        let looked_at = last(|step| if let Step::Records(count) = step { Some(*count) } else { None });
        let opened = last(|step| if let Step::Bytes(count) = step { Some(*count) } else { None });
        assert_eq!((looked_at, opened), (*records, *bytes), "{steps:?}");
        let at = |step: &Step| if let Step::Bytes(count) = step { Some(*count) } else { None };
        assert!(rest.iter().filter_map(at).is_sorted(), "{steps:?}");
    }
    examined.close().await;
}

/// What is lost of the history stops mounts until an admin has accepted that, once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_in_the_history_is_for_an_admin_to_accept_once() {
    let world = World::with_everything().await;
    let commits: Vec<Key> =
        world.records().await.into_keys().filter(|key| matches!(key, Key::Commit(_))).collect();
    world.write_raw(vec![(commits[commits.len() / 2].encode(), None)]).await;
    let plain = async || {
        let options = OpenOptions { takeover: true, ..OpenOptions::default() };
        Box::pin(volume::open(world.bucket(), &factors(), options)).await
    };
    assert!(matches!(plain().await.map(drop), Err(VolumeError::Woven { .. })));
    world.mount(false).await.close().await.unwrap();
    for _ in 0..2 {
        plain().await.unwrap().close().await.unwrap();
    }
}
