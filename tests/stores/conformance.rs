//! The suite: every kind of request that Coffer makes, and what it takes the answer to mean.

use std::collections::BTreeSet;
use std::ops::Range;
use std::sync::Arc;

use coffer::store::{Bucket, StoreError};
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use crate::keys;

/// Objects in a listing that no provider gives in one page.
const MANY: usize = 1100;
/// Requests under way at once.
const WIDTH: usize = 32;
/// The most that is read at once of a large object.
const SPAN: usize = 8 << 20;
/// Writers who want one name.
const RACERS: usize = 8;
/// Races that a store has to decide.
pub(crate) const RACES: usize = 8;

/// In what stores differ, and may.
#[derive(Clone, Copy)]
pub(crate) struct Traits {
    /// A listing comes in the order of the bytes of its names. Coffer sorts where order matters, and relies on none.
    pub(crate) is_ordered: bool,
}

/// Everything.
pub(crate) async fn all(bucket: &Bucket, traits: Traits, seed: u64) {
    let rounds = races(bucket, RACES).await;
    assert!(rounds.iter().all(|winners| *winners == 1), "writers who won, race by race: {rounds:?}");
    all_but_races(bucket, traits, seed).await;
}

/// Everything that one writer at a time can see.
pub(crate) async fn all_but_races(bucket: &Bucket, traits: Traits, seed: u64) {
    chapter("create only", create_only(bucket)).await;
    chapter("overwriting", overwriting(bucket)).await;
    chapter("absence", absence(bucket)).await;
    chapter("ranges", ranges(bucket, seed)).await;
    chapter("sizes", sizes(bucket, seed)).await;
    chapter("prefixes", prefixes(bucket)).await;
    chapter("names", names(bucket)).await;
    chapter("many", many(bucket, traits)).await;
    chapter("at once", at_once(bucket, seed)).await;
    chapter("multipart", multipart_is_not_used(bucket)).await;
    assert_eq!(found(bucket, None).await, Vec::<String>::new(), "something is left");
    let meter = bucket.meter().snapshot();
    println!("requests that had to be repeated: {}", meter.errors);
    assert_eq!((meter.in_flight, meter.outage), (0, None), "{meter:?}");
}

/// Runs one chapter and says how long it took, so that a slow store shows where it is slow.
async fn chapter(name: &str, chapter: impl Future<Output = ()>) {
    println!("chapter: {name}");
    let start = std::time::Instant::now();
    chapter.await;
    println!("         {:.1} s", start.elapsed().as_secs_f64());
}

pub(crate) fn create() -> PutOptions {
    PutOptions { mode: PutMode::Create, ..PutOptions::default() }
}

pub(crate) async fn contents(bucket: &Bucket, path: &Path) -> bytes::Bytes {
    bucket.objects.get(path).await.unwrap().bytes().await.unwrap()
}

async fn found(bucket: &Bucket, prefix: Option<&Path>) -> Vec<String> {
    let listing = bucket.objects.list(prefix).map_ok(|entry| entry.location.to_string());
    let mut names: Vec<String> = listing.try_collect().await.unwrap();
    names.sort();
    names
}

/// Headers, logs, manifests and segments: nobody replaces what is there, with whatever bytes.
async fn create_only(bucket: &Bucket) {
    let path = Path::from("header/1");
    bucket.objects.put_opts(&path, "first".into(), create()).await.unwrap();
    for other in ["other", "first and more", ""] {
        let again = bucket.objects.put_opts(&path, other.into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{other:?}: {again:?}");
        let again = bucket.prompt().put_opts(&path, other.into(), create()).await;
        assert!(matches!(again, Err(Error::AlreadyExists { .. })), "{other:?}: {again:?}");
    }
    // The same bytes are an answer that was lost, and success.
    bucket.objects.put_opts(&path, "first".into(), create()).await.unwrap();
    assert_eq!(contents(bucket, &path).await, "first");
    bucket.objects.delete(&path).await.unwrap();
    bucket.objects.put_opts(&path, "second".into(), create()).await.unwrap();
    assert_eq!(contents(bucket, &path).await, "second");
    bucket.objects.delete(&path).await.unwrap();
}

/// How many of [`RACERS`] writers were told that the name is theirs, in each of `rounds` races. Checks that the object
/// is one of theirs.
pub(crate) async fn races(bucket: &Bucket, rounds: usize) -> Vec<usize> {
    let mut winners = Vec::new();
    for round in 0..rounds {
        let path = Path::from(format!("m/race/{round}"));
        let start = Arc::new(tokio::sync::Barrier::new(RACERS));
        let racers = (0..RACERS).map(|racer| {
            let (bucket, path, start) = (bucket.clone(), path.clone(), Arc::clone(&start));
            tokio::spawn(async move {
                let payload = PutPayload::from(format!("racer {racer} ").repeat(200));
                start.wait().await;
                match bucket.objects.put_opts(&path, payload, create()).await {
                    Ok(_) => Some(racer),
                    Err(Error::AlreadyExists { .. }) => None,
                    Err(error) => panic!("a racer was told {error}"),
                }
            })
        });
        let told: Vec<Option<usize>> =
            futures::future::join_all(racers).await.into_iter().map(Result::unwrap).collect();
        let won: Vec<usize> = told.into_iter().flatten().collect();
        let stored = contents(bucket, &path).await;
        let is_winners = |racer: &usize| stored == format!("racer {racer} ").repeat(200);
        assert!(won.iter().any(is_winners), "{won:?} won, and somebody else's bytes are stored");
        winners.push(won.len());
        bucket.objects.delete(&path).await.unwrap();
    }
    winners
}

/// Tables of the engine, whose names are random, may be sent twice.
async fn overwriting(bucket: &Bucket) {
    let path = Path::from("m/table");
    for text in ["one", "two and longer", ""] {
        bucket.objects.put(&path, text.into()).await.unwrap();
        assert_eq!(contents(bucket, &path).await, text);
    }
    bucket.objects.delete(&path).await.unwrap();
}

/// What is not there is told so at once, in one request, whatever is asked of it.
async fn absence(bucket: &Bucket) {
    let path = Path::from("d/00/none");
    let before = bucket.meter().snapshot().requests();
    let asked: [Result<(), Error>; 3] = [
        bucket.objects.get(&path).await.map(|_| ()),
        bucket.objects.head(&path).await.map(|_| ()),
        bucket.objects.get_range(&path, 3..9).await.map(|_| ()),
    ];
    for answer in asked {
        assert!(matches!(answer, Err(Error::NotFound { .. })), "{answer:?}");
    }
    assert_eq!(bucket.meter().snapshot().requests() - before, 3);
    // Deleting it is success.
    let deleted = bucket.objects.delete(&path).await;
    assert!(matches!(deleted, Ok(()) | Err(Error::NotFound { .. })), "{deleted:?}");
    assert_eq!(found(bucket, Some(&Path::from("d"))).await, Vec::<String>::new());
}

/// Noise in which no two places are alike; the generator itself is slow where it is not optimised.
fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut block = [0; 4096];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut block);
    let mut bytes = Vec::with_capacity(len + block.len());
    while bytes.len() < len {
        let place = (bytes.len() as u64).to_le_bytes();
        block[..8].copy_from_slice(&place);
        bytes.extend_from_slice(&block);
    }
    bytes.truncate(len);
    bytes
}

/// Parts of segments and tables: exactly those bytes, and what lies past the end is told from what is missing.
async fn ranges(bucket: &Bucket, seed: u64) {
    const LEN: usize = 300_000;
    let path = Path::from("d/ra/nges");
    let bytes = noise(seed, LEN);
    bucket.objects.put_opts(&path, bytes.clone().into(), create()).await.unwrap();
    let end = LEN as u64;
    let inside = [0..1, 0..end, 1..2, 65_536..131_072, 299_999..end, 12_345..299_999];
    for range in inside {
        let part = bucket.objects.get_range(&path, range.clone()).await.unwrap();
        assert!(part == bytes[range.start as usize..range.end as usize], "{range:?}");
    }
    let part = bucket.objects.get_range(&path, end - 10..end + 1000).await.unwrap();
    assert!(part == bytes[LEN - 10..], "a range that ends beyond the end is cut there");
    assert_eq!(bucket.objects.head(&path).await.unwrap().size, end);
    let beyond: [Range<u64>; 2] = [end..end + 1, end + 70_000..end + 80_000];
    for range in beyond {
        let before = bucket.meter().snapshot().requests();
        let answer = bucket.objects.get_range(&path, range.clone()).await;
        let error = answer.expect_err("there is nothing there");
        assert!(!matches!(error, Error::NotFound { .. }), "{range:?}: {error}");
        assert_eq!(
            bucket.meter().snapshot().requests() - before,
            1,
            "{range:?} was asked for again: {error}"
        );
    }
    // Nothing of Coffer's asks for no bytes; the client refuses by itself, and is not asked again.
    let before = bucket.meter().snapshot().requests();
    assert!(bucket.objects.get_range(&path, 5..5).await.is_err());
    assert_eq!(bucket.meter().snapshot().requests() - before, 1);
    bucket.objects.delete(&path).await.unwrap();
}

/// From nothing to more than any object of Coffer's is by default, each in one request.
async fn sizes(bucket: &Bucket, seed: u64) {
    for len in [0, 1, 64 << 20] {
        let path = Path::from(format!("d/si/{len}"));
        let bytes = bytes::Bytes::from(noise(seed, len));
        let before = bucket.meter().snapshot().puts;
        bucket.objects.put_opts(&path, bytes.clone().into(), create()).await.unwrap();
        assert_eq!(bucket.meter().snapshot().puts - before, 1);
        // Large ones are read as segments are: a whole one in one answer is what no part of Coffer asks for.
        for start in (0..len).step_by(SPAN) {
            let range = start..len.min(start + SPAN);
            let part = bucket.objects.get_range(&path, range.start as u64..range.end as u64).await.unwrap();
            assert!(part == bytes[range], "{len} bytes come back changed");
        }
        if len < SPAN {
            assert!(contents(bucket, &path).await == bytes, "{len} bytes come back changed");
        }
        let meta = bucket.objects.head(&path).await.unwrap();
        assert_eq!(meta.size, len as u64);
        let listed: Vec<_> = bucket.objects.list(Some(&Path::from("d/si"))).try_collect().await.unwrap();
        assert_eq!(listed.iter().map(|entry| entry.size).collect::<Vec<_>>(), [len as u64]);
        bucket.objects.delete(&path).await.unwrap();
    }
}

/// A listing is of a directory: it does not take in names that merely begin alike.
async fn prefixes(bucket: &Bucket) {
    let all = ["h/1", "h/10", "h/2", "h/x/y", "header/1", "headers/1", "hx"].map(Path::from);
    for path in &all {
        bucket.objects.put_opts(path, "x".into(), create()).await.unwrap();
    }
    for (prefix, wanted) in
        [("h", &["h/1", "h/10", "h/2", "h/x/y"][..]), ("header", &["header/1"]), ("h/1", &[]), ("head", &[])]
    {
        assert_eq!(found(bucket, Some(&Path::from(prefix))).await, wanted, "below {prefix}");
    }
    assert_eq!(found(bucket, None).await.len(), all.len());
    bucket.objects.delete(&Path::from("h/10")).await.unwrap();
    assert_eq!(found(bucket, Some(&Path::from("h"))).await, ["h/1", "h/2", "h/x/y"], "after a delete");
    let rest = stream::iter(all.clone().map(Ok)).boxed();
    let deleted: Vec<Path> = bucket.objects.delete_stream(rest).try_collect().await.unwrap();
    assert_eq!(deleted, all, "deleting several, one of which is gone");
    assert_eq!(found(bucket, None).await, Vec::<String>::new());
}

/// Every shape of name that Coffer gives, and the longest that may become of one.
async fn names(bucket: &Bucket) {
    let mut names = keys::of_every_shape().await;
    names.push(keys::longest());
    for name in &names {
        let path = Path::from(name.as_str());
        bucket.objects.put_opts(&path, name.clone().into(), create()).await.unwrap();
        assert_eq!(contents(bucket, &path).await, name.as_bytes(), "{name}");
    }
    names.sort();
    assert_eq!(found(bucket, None).await, names);
    for name in &names {
        bucket.objects.delete(&Path::from(name.as_str())).await.unwrap();
    }
}

/// More objects than one page holds, written at once, and deleted at once.
async fn many(bucket: &Bucket, traits: Traits) {
    let path = |number: usize| Path::from(format!("d/{:02}/{number:08}", number % 7));
    let put = |number| async move {
        bucket.objects.put_opts(&path(number), "x".into(), create()).await.unwrap();
    };
    stream::iter(0..MANY).for_each_concurrent(WIDTH, put).await;
    let pages = bucket.meter().snapshot().lists;
    let listing = bucket.objects.list(Some(&Path::from("d"))).map_ok(|entry| entry.location.to_string());
    let listed: Vec<String> = listing.try_collect().await.unwrap();
    assert_eq!(bucket.meter().snapshot().lists - pages, 2, "pages");
    assert_eq!(listed.len(), MANY, "an object is listed twice, or not at all");
    let set: BTreeSet<String> = listed.iter().cloned().collect();
    assert_eq!(set, (0..MANY).map(|number| path(number).to_string()).collect());
    if traits.is_ordered {
        assert!(listed.is_sorted(), "the listing is in another order than it was");
    }
    let paths = stream::iter((0..MANY).map(path).map(Ok)).boxed();
    let deleted: Vec<Path> = bucket.objects.delete_stream(paths).try_collect().await.unwrap();
    assert_eq!(deleted.len(), MANY);
    assert_eq!(found(bucket, Some(&Path::from("d"))).await, Vec::<String>::new());
}

/// Many requests under way: each gets its own answer.
async fn at_once(bucket: &Bucket, seed: u64) {
    let life = |number: u64| async move {
        let path = Path::from(format!("d/at/{number}"));
        let bytes = noise(seed + number, 20_000 + number as usize);
        bucket.objects.put_opts(&path, bytes.clone().into(), create()).await.unwrap();
        let part = bucket.objects.get_range(&path, 1000 + number..19_000).await.unwrap();
        assert!(part == bytes[1000 + number as usize..19_000], "{path}");
        assert!(contents(bucket, &path).await == bytes, "{path}");
        bucket.objects.delete(&path).await.unwrap();
        assert!(
            matches!(bucket.objects.head(&path).await, Err(Error::NotFound { .. })),
            "{path} is still there"
        );
    };
    stream::iter(0..2 * WIDTH as u64).for_each_concurrent(WIDTH, life).await;
}

/// A part of a multipart upload cannot be repeated and is not «only if absent»; no object of Coffer's needs one.
async fn multipart_is_not_used(bucket: &Bucket) {
    let refused = bucket.objects.put_multipart(&Path::from("d/mu/lti")).await;
    assert!(matches!(refused, Err(Error::NotSupported { .. })));
}

/// The probe that `coffer init` and every mount make.
pub(crate) async fn probed(bucket: &Bucket) -> Result<(), StoreError> {
    bucket.probe().await.map(|_| ())
}
