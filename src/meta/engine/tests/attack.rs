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

/// SlateDB names what it merges by numbers that come again. So notes of a merge that has been over for long fit a merge of
/// today, and would put its old tables among the new ones.
#[tokio::test(start_paused = true)]
async fn b6_notes_of_merges_are_neither_kept_in_the_bucket_nor_taken_from_it() {
    let bench = Bench::new();
    let sealed = Bench::sealed(&bench.bucket());
    let notes = Path::from(DATABASE).join("compactions");
    let planted = notes.clone().join("00000000000000000007.compactions");
    sealed.put(&planted, Bytes::from_static(b"not to be read").into()).await.expect("put");
    let engine = bench.writer().await;
    for n in 0..2000_u32 {
        engine.write_durable(put((n % 400).to_be_bytes(), n.to_be_bytes())).await.expect("committed");
    }
    engine.tidy().await.expect("tidied");
    assert_eq!(engine.tables().1, 1, "what was new is merged, whatever is planted");
    let kept: Vec<_> = futures::TryStreamExt::try_collect(sealed.list(Some(&notes))).await.expect("lists");
    let kept: Vec<_> = kept.into_iter().map(|object| object.location).collect();
    assert_eq!(kept, [planted]);
}

/// A session is killed in the middle of merging. The next, which has nothing to merge, removes what that has left; but not
/// before the first, should it only have slept, can add nothing of it to the database.
#[tokio::test(start_paused = true)]
async fn what_a_killed_merge_has_left_is_removed_when_it_can_be_added_no_more() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    for n in 0..600_u32 {
        engine.write_durable(put(n.to_be_bytes(), [7; 100])).await.expect("committed");
    }
    engine.close().await.expect("closes");
    let sealed = Bench::sealed(&bench.bucket());
    let tables = Path::from(DATABASE).join("compacted");
    let left = tables.clone().join("00000000010000000000000000.sst");
    sealed.put(&left, Bytes::from_static(b"a table that nothing refers to").into()).await.expect("put");
    let admin = slatedb::admin::AdminBuilder::new(DATABASE, Bench::sealed(&bench.bucket())).build();
    let epoch = async || admin.read_manifest(None).await.expect("read").expect("there").compactor_epoch();
    let before = epoch().await;

    let engine = bench.writer().await;
    engine.write_durable(put("key", "value")).await.expect("committed");
    tokio::time::sleep(Duration::from_secs(3600)).await;
    assert!(epoch().await > before, "another's merge is refused");
    let kept: Vec<_> = futures::TryStreamExt::try_collect(sealed.list(Some(&tables))).await.expect("lists");
    assert!(kept.iter().all(|object| object.location != left), "{kept:?}");
    let live = engine.live_objects().await.expect("told");
    let live = live.iter().filter(|object| object.contains("/compacted/")).count();
    assert!(kept.len() <= live + 1, "{kept:?}: beside the newest that was merged, nothing stays");
    assert_eq!(all(&engine).await.expect("scans").len(), 601);
}

/// A commit whose answer was lost and the fence of the next writer have one name, in two histories that differ in that
/// alone. The successor's records lie above those of the lost commit, so that its chain of commits would be whole.
#[tokio::test(start_paused = true)]
async fn d2_a_log_of_another_history_among_those_of_this_one_is_damage() {
    let bench = Bench::new();
    let engine = bench.writer().await;
    engine.write_durable(put("a", "of both")).await.expect("committed");
    let before = copied(&bench).await;
    engine.write_durable(put("b", "of the lost commit")).await.expect("committed");
    let lost: Vec<_> = copied(&bench).await.into_iter().filter(|object| !before.contains(object)).collect();
    assert_eq!(lost.len(), 1);

    let other = restored(&before).await;
    let successor = other.writer().await;
    successor.write_durable(put("c", "of the successor")).await.expect("committed");
    drop(successor);
    assert!(other.raw.get(&lost[0].0).await.is_ok(), "the fence has the name of the lost commit");
    other.raw.put(&lost[0].0, lost[0].1.clone().into()).await.expect("put");
    let read = read_all(&other).await;
    assert!(matches!(read, Err(EngineError::Damaged(_))), "{read:?}");
}

/// A judge that counts how often it is asked, and refuses if it is to.
fn judge(is_refusing: bool) -> (Judge, Arc<std::sync::atomic::AtomicUsize>) {
    let asked = Arc::new(std::sync::atomic::AtomicUsize::new(0));
    let counted = Arc::clone(&asked);
    let judge: Judge = Arc::new(move |shown| {
        counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
        Box::pin(async move {
            all(&shown).await?;
            if is_refusing { Err(EngineError::Damaged("another history".to_owned())) } else { Ok(()) }
        })
    });
    (judge, asked)
}

/// Puts into `bench` what only `other` has.
async fn plant(bench: &Bench, other: &Bench) {
    let mine: BTreeMap<Path, Bytes> = copied(bench).await.into_iter().collect();
    for (path, bytes) in copied(other).await {
        if !mine.contains_key(&path) {
            bench.raw.put(&path, bytes.into()).await.expect("planted");
        }
    }
}

/// Two writers that a store has split, both the fourth of the same database; one of them has merged its tables.
#[tokio::test(start_paused = true)]
async fn d2_a_writer_is_given_no_manifest_of_another_history() {
    let (bench, _) = furnished().await;
    let second = restored(&copied(&bench).await).await;
    let engine = bench.writer().await;
    engine.write_durable(put("mine", "mine")).await.expect("committed");
    let expected = all(&engine).await.expect("scans");
    let other = second.writer().await;
    for number in 0..40_u8 {
        other.write_durable(put([b'k', number], "theirs")).await.expect("committed");
    }
    other.tidy().await.expect("merged");
    other.close().await.expect("closes");

    plant(&bench, &second).await;
    let refreshed = engine.refresh().await;
    assert!(matches!(refreshed, Err(EngineError::Damaged(_))), "{refreshed:?}");
    match all(&engine).await {
        Ok(seen) => assert_eq!(seen, expected),
        Err(error) => assert!(matches!(error, EngineError::Damaged(_)), "{error}"),
    }
}

/// A machine that was asleep in a merge ends it after its successor has opened.
#[tokio::test(start_paused = true)]
async fn a_merge_that_ends_after_its_writer_was_taken_over_is_taken_in_by_opening_again() {
    let (bench, mut expected) = furnished().await;
    let engine = bench.writer().await;
    let written = (Arc::default(), Arc::default());
    let sleeper: Arc<dyn ObjectStore> =
        Arc::new(Seam::new(Bench::sealed(&bench.bucket()), true, written.0, written.1));
    let options = settings::compactor(settings::Thoroughness::Everything, 1 << 20);
    let compactor = slatedb::CompactorBuilder::new(DATABASE, sleeper).with_options(options).build();
    let newest = async || Seeds::default().admin(&engine.0.store).read_manifest(None).await;
    let (before, mut merged) = (newest().await.expect("read").expect("one").id(), false);
    while !merged {
        tokio::select! {
            ended = compactor.run() => ended.expect("merged"),
            () = tokio::time::sleep(Duration::from_secs(30)) => {}
        }
        merged = bench.objects().await.len() as u64 > before;
    }
    compactor.stop().await.expect("stopped");
    assert!(matches!(engine.refuse_other_merges().await, Err(EngineError::Damaged(_))));
    drop(engine);

    let engine = bench.writer().await;
    engine.refuse_other_merges().await.expect("nobody else merges");
    engine.write_durable(put("mine", "mine")).await.expect("committed");
    expected.push((b"mine".to_vec(), b"mine".to_vec()));
    assert_eq!(all(&engine).await.expect("scans"), expected);
    engine.close().await.expect("closes");
}

#[tokio::test(start_paused = true)]
async fn d2_a_fenced_writer_is_given_no_past_that_is_refused() {
    for is_refusing in [false, true] {
        let (bench, _) = furnished().await;
        let engine = bench.writer().await;
        let (judge, asked) = judge(is_refusing);
        engine.judged_by(judge);
        engine.write_durable(put("mine", "mine")).await.expect("committed");
        let successor = bench.writer().await;
        successor.write_durable(put("mine", "theirs")).await.expect("committed");
        assert!(matches!(engine.write_durable(put("more", "more")).await, Err(EngineError::Fenced)));
        let seen = engine.get(b"mine").await;
        assert!(asked.load(std::sync::atomic::Ordering::Relaxed) > 0);
        match is_refusing {
            true => assert!(matches!(seen, Err(EngineError::Fenced)), "{seen:?}"),
            false => assert_eq!(seen.expect("read").as_deref(), Some(&b"mine"[..])),
        }
    }
}
