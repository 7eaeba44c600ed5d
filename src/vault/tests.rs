//! What sealed objects promise: every byte back or an error, few requests, nothing in the clear.

use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::buffered::BufWriter;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    Error as RawError, GetOptions, GetRange, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload,
};
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use tokio::io::AsyncWriteExt;
use tokio::sync::Semaphore;

use super::geometry::Geometry;
use super::*;
use crate::base::SegmentSeal;
use crate::base::{SeededEntropy, SegmentId, VolumeId};
use crate::crypto::{Epoch, Key};
use crate::store::StoreError;

const KIB: usize = 1024;
const MIB: usize = 1024 * KIB;

struct Bench {
    raw: Arc<InMemory>,
    vault: Vault,
    store: Arc<dyn ObjectStore>,
}

fn bench_of(volume: u8) -> Bench {
    bench_over(Arc::new(InMemory::new()), volume)
}

fn bench_over(raw: Arc<InMemory>, volume: u8) -> Bench {
    let ring = KeyRing::new(VolumeId([volume; 16]), Epoch::FIRST, &Key::from_bytes([7; 32]));
    let vault = Vault::new(Bucket::from_store(raw.clone()), Arc::new(ring), Arc::new(SeededEntropy::new(5)));
    let store = vault.meta_store(64 * MIB as u64);
    Bench { raw, vault, store }
}

fn bench() -> Bench {
    bench_of(1)
}

impl Bench {
    /// A store that has read nothing yet.
    fn cold(&self) -> Arc<dyn ObjectStore> {
        self.vault.meta_store(64 * MIB as u64)
    }

    fn gets(&self) -> u64 {
        let seen = self.vault.bucket().meter().snapshot();
        seen.gets + seen.heads
    }

    async fn put(&self, path: &str, bytes: Vec<u8>) {
        self.store.put(&Path::from(path), bytes.into()).await.expect("put");
    }

    fn sealed(&self, path: &str) -> Path {
        names::seal(self.vault.ring(), &Path::from(path))
    }

    async fn raw_bytes(&self, path: &Path) -> Vec<u8> {
        self.raw.get(path).await.expect("there").bytes().await.expect("body").to_vec()
    }

    async fn overwrite(&self, path: &Path, bytes: Vec<u8>) {
        self.raw.put(path, bytes.into()).await.expect("overwritten");
    }
}

async fn read(store: &Arc<dyn ObjectStore>, path: &str) -> Result<Bytes, RawError> {
    store.get(&Path::from(path)).await?.bytes().await
}

fn random(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn is_damage(error: &RawError) -> bool {
    let source = std::error::Error::source(error);
    source.and_then(|e| e.downcast_ref::<VaultError>()).is_some_and(VaultError::is_damage)
}

#[tokio::test]
async fn every_length_around_a_piece_and_a_span_comes_back_whole() {
    let bench = bench();
    let mut lens = vec![0, 1, 2, 15, 16, 17];
    for edge in [16 * KIB, 32 * KIB, MIB, 2 * MIB] {
        lens.extend(edge - 17..=edge + 17);
    }
    for len in lens {
        let plain = random(len as u64, len);
        bench.put("db/x", plain.clone()).await;
        let sealed_len = bench.raw.head(&bench.sealed("db/x")).await.expect("there").size;
        assert_eq!(Geometry::of_sealed(sealed_len), Some(Geometry { plain_len: len as u64 }));
        for store in [&bench.store, &bench.cold()] {
            assert_eq!(read(store, "db/x").await.expect("reads"), plain, "{len} bytes");
            let meta = store.head(&Path::from("db/x")).await.expect("head");
            assert_eq!((meta.size, meta.location), (len as u64, Path::from("db/x")));
        }
    }
}

/// However many are opened at once, and whatever a store says of their lengths.
#[tokio::test]
async fn of_an_object_for_which_there_is_no_room_a_mebibyte_is_fetched_and_the_rest_waits() {
    let bench = bench();
    let (small, large) = (random(1, MIB / 2), random(2, 3 * MIB));
    bench.put("db/small", small.clone()).await;
    bench.put("db/large", large.clone()).await;
    let fetched = || bench.vault.bucket().meter().snapshot().get_bytes;
    let room = Semaphore::new(peek::ROOM_BYTES);
    let taken = room.acquire_many((peek::ROOM_BYTES - MIB) as u32).await.expect("room");
    let mut waiting = std::pin::pin!(peek::engine_object_within(&bench.vault, "db/large", &room));
    let before = fetched();
    // Over a bucket in memory a future that does not wait for room ends when it is first polled.
    assert!(futures::poll!(waiting.as_mut()).is_pending());
    assert!(fetched() - before < 5 * MIB as u64 / 4, "{} bytes", fetched() - before);
    drop(taken);
    assert_eq!(waiting.await.expect("opens"), large);

    let taken = room.acquire_many((peek::ROOM_BYTES - MIB) as u32).await.expect("room");
    let before = bench.gets();
    assert_eq!(peek::engine_object_within(&bench.vault, "db/small", &room).await.expect("opens"), small);
    assert_eq!(bench.gets() - before, 1, "its length costs no request of its own");
    drop(taken);
    assert_eq!(room.available_permits(), peek::ROOM_BYTES, "what was opened holds no room");
}

#[tokio::test]
async fn any_range_comes_back_exactly() {
    let seed = 20_260_101;
    println!("seed {seed}");
    let mut rng = SmallRng::seed_from_u64(seed);
    let bench = bench();
    let plain = random(1, 2 * MIB + 12_345);
    bench.put("db/x", plain.clone()).await;
    let path = Path::from("db/x");
    let len = plain.len();
    let mut ranges: Vec<Range<usize>> = vec![0..1, len - 1..len, 0..len, MIB - 1..MIB + 1, MIB..MIB + 1];
    ranges.extend((0..300).map(|_| {
        let start = rng.random_range(0..len);
        start..rng.random_range(start..len) + 1
    }));
    let cold = bench.cold();
    for range in ranges {
        let wanted = range.start as u64..range.end as u64;
        let got = cold.get_range(&path, wanted).await.expect("reads");
        assert_eq!(got, plain[range.clone()], "{range:?}");
    }
    let opts = |range| GetOptions { range: Some(range), ..GetOptions::default() };
    let tail = cold.get_opts(&path, opts(GetRange::Suffix(100))).await.expect("suffix");
    assert_eq!(tail.range, (len - 100) as u64..len as u64);
    assert_eq!(tail.bytes().await.expect("body"), plain[len - 100..]);
    let rest = cold.get_opts(&path, opts(GetRange::Offset(MIB as u64))).await.expect("offset");
    assert_eq!(rest.bytes().await.expect("body"), plain[MIB..]);
    let clipped = cold.get_opts(&path, opts(GetRange::Bounded(10..u64::MAX))).await.expect("clipped");
    assert_eq!(clipped.bytes().await.expect("body"), plain[10..]);
    assert!(cold.get_opts(&path, opts(GetRange::Bounded(len as u64..len as u64 + 1))).await.is_err());
}

#[tokio::test]
async fn parts_of_any_size_make_one_object_with_one_put() {
    let bench = bench();
    for part in [1000, 16 * KIB, 16 * KIB + 1, 3 * MIB] {
        let plain = random(part as u64, 12 * MIB + 777);
        let before = bench.vault.bucket().meter().snapshot().puts;
        let path = Path::from(format!("db/compacted/{part}"));
        let mut writer = BufWriter::with_capacity(bench.store.clone(), path.clone(), MIB);
        for chunk in plain.chunks(part) {
            writer.write_all(chunk).await.expect("written");
        }
        writer.shutdown().await.expect("completed");
        assert_eq!(bench.vault.bucket().meter().snapshot().puts - before, 1);
        assert_eq!(read(&bench.cold(), path.as_ref()).await.expect("reads"), plain);
    }
}

#[tokio::test]
async fn a_cold_scan_is_one_request_per_span_and_a_small_object_one_in_all() {
    let bench = bench();
    bench.put("db/small", random(1, 5000)).await;
    bench.put("db/large", random(2, 5 * MIB)).await;
    let cold = bench.cold();
    let before = bench.gets();
    assert_eq!(cold.head(&Path::from("db/small")).await.expect("head").size, 5000);
    cold.get_range(&Path::from("db/small"), 100..4000).await.expect("reads");
    read(&cold, "db/small").await.expect("reads");
    assert_eq!(bench.gets() - before, 1);
    let before = bench.gets();
    for start in (0..5 * MIB as u64).step_by(4096) {
        cold.get_range(&Path::from("db/large"), start..start + 4096).await.expect("reads");
    }
    assert_eq!(bench.gets() - before, 5, "one for each MiB");
    let colder = bench.cold();
    let before = bench.gets();
    colder.get_range(&Path::from("db/large"), 4 * MIB as u64..4 * MIB as u64 + 10).await.expect("reads");
    assert_eq!(bench.gets() - before, 2, "the head and the one chunk");
    let bytes = bench.vault.bucket().meter().snapshot().get_bytes;
    for start in [3 * MIB as u64, 2 * MIB as u64, 3 * MIB as u64 + 500_000] {
        colder.get_range(&Path::from("db/large"), start..start + 4096).await.expect("reads");
    }
    let bytes = bench.vault.bucket().meter().snapshot().get_bytes - bytes;
    assert!(bytes < 4 * 132_000, "a jump fetches little: {bytes}");
    let before = bench.gets();
    read(&bench.store, "db/large").await.expect("reads");
    assert_eq!(bench.gets() - before, 0, "what was just written is not fetched");
}

#[tokio::test]
async fn readers_of_one_span_share_one_request() {
    let bench = bench();
    bench.put("db/x", random(1, MIB)).await;
    let (cold, path) = (bench.cold(), Path::from("db/x"));
    let before = bench.gets();
    let reads = (0..40).map(|n| cold.get_range(&path, n * 1000..n * 1000 + 500));
    futures::future::try_join_all(reads).await.expect("read");
    assert_eq!(bench.gets() - before, 1);
}

/// As SlateDB looks into a table that it has not seen: for the filter, of hundreds of KiB, and then for the index behind it.
#[tokio::test]
async fn a_first_look_far_into_an_object_brings_along_what_lies_behind_with_two_requests() {
    let bench = bench();
    bench.put("db/table", random(3, 5 * MIB)).await;
    let (cold, path, kib) = (bench.cold(), Path::from("db/table"), KIB as u64);
    let before = bench.gets();
    let filters = (0..8).map(|_| cold.get_range(&path, 3900 * kib..4300 * kib));
    futures::future::try_join_all(filters).await.expect("read");
    assert_eq!(
        bench.gets() - before,
        2,
        "the head and the rest, though it lies in two spans and eight want it"
    );
    cold.get_range(&path, 4300 * kib..4500 * kib).await.expect("reads");
    assert_eq!(bench.gets() - before, 2, "it is there");
}

#[tokio::test]
async fn a_listing_is_in_order_of_plain_names_with_plain_lengths() {
    let bench = bench();
    for number in (0..200_usize).rev() {
        bench.put(&format!("db/wal/{number:020}.sst"), vec![0; number * 100]).await;
    }
    bench.put("db/manifest/1", vec![1; 10]).await;
    for foreign in ["m/foreign", "m/vvvv/x", "d/aa/x", "header/1"] {
        bench.overwrite(&Path::from(foreign), vec![0; 200]).await;
    }
    let wal = Path::from("db/wal");
    let entries: Vec<_> = bench.store.list(Some(&wal)).try_collect().await.expect("lists");
    let names: Vec<String> = entries.iter().map(|e| e.location.to_string()).collect();
    let expected: Vec<String> = (0..200).map(|n| format!("db/wal/{n:020}.sst")).collect();
    assert_eq!(names, expected);
    assert!(entries.iter().enumerate().all(|(n, e)| e.size == n as u64 * 100));
    let offset = Path::from(expected[150].as_str());
    let after: Vec<_> = bench.store.list_with_offset(Some(&wal), &offset).try_collect().await.expect("lists");
    assert_eq!(after.len(), 49);
    let all: Vec<_> = bench.store.list(None).try_collect().await.expect("lists");
    assert_eq!(all.len(), 201, "foreign objects are passed over");
    let level = bench.store.list_with_delimiter(Some(&Path::from("db"))).await.expect("lists");
    assert_eq!(level.common_prefixes, [Path::from("db/manifest"), wal.clone()]);
    assert!(level.objects.is_empty());
    bench.store.delete(&offset).await.expect("deleted");
    assert!(matches!(read(&bench.store, offset.as_ref()).await, Err(RawError::NotFound { .. })));
    assert_eq!(bench.store.list(Some(&wal)).try_collect::<Vec<_>>().await.expect("lists").len(), 199);
}

#[tokio::test]
async fn whatever_is_done_to_an_object_is_an_error_and_spares_the_others() {
    let bench = bench();
    let plain = random(1, 40_000);
    bench.put("db/a", plain.clone()).await;
    bench.put("db/b", random(2, 40_000)).await;
    let (a, b) = (bench.sealed("db/a"), bench.sealed("db/b"));
    let good = bench.raw_bytes(&a).await;
    let mut bad: Vec<(String, Vec<u8>)> = Vec::new();
    for at in (0..good.len()).step_by(97).chain([0, 4, 5, 7, 31, 63, 64, good.len() - 1]) {
        let mut flipped = good.clone();
        flipped[at] ^= 1;
        bad.push((format!("byte {at} flipped"), flipped));
    }
    for len in [0, 1, 63, 64, 79, 80, 81, 64 + 16400, 64 + 2 * 16400, good.len() - 1] {
        bad.push((format!("cut to {len}"), good[..len].to_vec()));
    }
    for extra in [1, 16, 17, 16400] {
        let mut longer = good.clone();
        longer.extend(std::iter::repeat_n(0, extra));
        bad.push((format!("{extra} more bytes"), longer));
    }
    let mut swapped = good.clone();
    swapped[64..64 + 2 * 16400].rotate_left(16400);
    bad.push(("pieces swapped".into(), swapped));
    bad.push(("another object".into(), bench.raw_bytes(&b).await));
    let mut empty = good[..64].to_vec();
    empty.extend_from_slice(&good[good.len() - 16..]);
    bad.push(("made to look empty".into(), empty));
    let other_volume = bench_of(2);
    other_volume.put("db/a", plain.clone()).await;
    bad.push(("another volume's".into(), other_volume.raw_bytes(&other_volume.sealed("db/a")).await));
    for (what, bytes) in bad {
        bench.overwrite(&a, bytes).await;
        let cold = bench.cold();
        let error = read(&cold, "db/a").await.expect_err(&what);
        assert!(is_damage(&error), "{what}: {error}");
        assert!(error.to_string().contains(a.as_ref()), "{what}: {error}");
        let error = cold.head(&Path::from("db/a")).await;
        assert!(error.is_err() || !what.contains("cut") && !what.contains("empty"), "{what}");
        assert_eq!(read(&cold, "db/b").await.expect("untouched").len(), 40_000);
    }
    bench.overwrite(&a, good).await;
    assert_eq!(read(&bench.cold(), "db/a").await.expect("as before"), plain);
}

/// What the bucket said of a large object is believed until it does not fit.
#[tokio::test]
async fn an_answer_that_was_a_lie_is_asked_for_again() {
    for is_longer in [true, false] {
        let bench = bench();
        let plain = random(9, (3 << 20) + 1000);
        bench.put("large", plain.clone()).await;
        let path = bench.sealed("large");
        let good = bench.raw_bytes(&path).await;
        let bad = match is_longer {
            true => [good.as_slice(), &[0; 100]].concat(),
            false => good[..good.len() - 100].to_vec(),
        };
        bench.overwrite(&path, bad).await;
        let store = bench.cold();
        // The first bytes are whole, and tell nothing yet.
        assert_eq!(store.get_range(&Path::from("large"), 0..10).await.unwrap(), plain[..10]);
        assert!(is_damage(&read(&store, "large").await.unwrap_err()), "{is_longer}");
        bench.overwrite(&path, good).await;
        assert!(read(&store, "large").await.unwrap() == plain, "{is_longer}");
    }
}

#[tokio::test]
async fn an_object_moved_to_another_name_does_not_open() {
    let bench = bench();
    bench.put("db/wal/1", random(1, 100)).await;
    let bytes = bench.raw_bytes(&bench.sealed("db/wal/1")).await;
    bench.overwrite(&bench.sealed("db/wal/2"), bytes).await;
    let error = read(&bench.store, "db/wal/2").await.expect_err("moved");
    assert!(is_damage(&error), "{error}");
}

#[tokio::test]
async fn c7_c10_the_bucket_holds_neither_paths_nor_values() {
    let bench = bench();
    let canary = b"canary-canary-canary-canary";
    for name in ["db/wal/00000000000000000001.sst", "db/manifest/00000000000000000001.manifest"] {
        bench.put(name, canary.repeat(3000)).await;
    }
    let objects: Vec<_> = bench.raw.list(None).try_collect().await.expect("lists");
    assert_eq!(objects.len(), 2);
    for object in objects {
        let path = object.location.to_string();
        for word in ["db", "wal", "manifest", "0000", ".sst"] {
            assert!(!path.contains(word), "{path} shows {word}");
        }
        let bytes = bench.raw_bytes(&object.location).await;
        let shows = |word: &[u8]| bytes.windows(word.len()).any(|window| window == word);
        assert!(!shows(&canary[..8]) && !shows(b"manifest"), "{path}");
    }
}

#[tokio::test]
async fn create_refuses_a_name_that_is_taken() {
    let bench = bench();
    let opts = || PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let path = Path::from("db/wal/1");
    bench.store.put_opts(&path, PutPayload::from_static(b"one"), opts()).await.expect("first");
    let again = bench.store.put_opts(&path, PutPayload::from_static(b"one"), opts()).await;
    assert!(
        matches!(again, Err(RawError::AlreadyExists { .. })),
        "the same plaintext is not the same object"
    );
    assert_eq!(read(&bench.store, "db/wal/1").await.expect("reads"), "one");
}

#[tokio::test]
async fn a_segment_is_written_once_read_by_range_listed_and_deleted() {
    let bench = bench();
    let vault = &bench.vault;
    let id = SegmentId([0xAB; 16]);
    vault.put_segment(id, Bytes::from_static(b"0123456789")).await.expect("put");
    let taken = vault.put_segment(id, Bytes::from_static(b"other bytes")).await;
    assert!(matches!(taken, Err(VaultError::Store(StoreError::AlreadyExists { .. }))));
    let path = Path::from(format!("d/{}/{id}", &id.to_string()[..2]));
    assert_eq!(bench.raw_bytes(&path).await, b"0123456789");
    assert_eq!(vault.get_segment(id, 3..6).await.expect("reads"), "345");
    assert_eq!(vault.get_segment(id, 5..5).await.expect("nothing"), "");
    for past in [8..12, 10..11, 50..60] {
        let error = vault.get_segment(id, past.clone()).await;
        assert!(matches!(error, Err(VaultError::Damaged(_))), "{past:?}");
    }
    let absent = SegmentId([1; 16]);
    assert!(matches!(vault.get_segment(absent, 0..1).await, Err(VaultError::Missing(_))));
    bench.overwrite(&Path::from("d/zz/foreign"), vec![1]).await;
    let listed: Vec<_> = vault.list_segments().try_collect().await.expect("lists");
    assert_eq!(listed, [(id, 10)]);
    vault.delete_segment(id).await.expect("deleted");
    vault.delete_segment(id).await.expect("absent is success");
    assert!(matches!(vault.get_segment(id, 0..1).await, Err(VaultError::Missing(_))));
}

#[test]
fn a_segment_key_opens_only_by_its_own_record() {
    let bench = bench();
    let id = SegmentId([3; 16]);
    let (head, key) = bench.vault.new_segment(id);
    let mut piece = b"block".to_vec();
    key.seal_piece(64, false, &mut piece);
    let seal = SegmentSeal::from(&head);
    let again = bench.vault.segment_key(id, &seal).expect("its own record");
    assert_eq!(again.open_piece(64, false, &mut piece).expect("opens"), b"block");
    assert!(bench.vault.segment_key(SegmentId([4; 16]), &seal).is_err());
    let other = SegmentSeal { salt: [0; 24], ..seal };
    assert!(matches!(bench.vault.segment_key(id, &other), Err(VaultError::Damaged(_))));
}

#[tokio::test]
async fn a_segment_cut_in_a_local_directory_is_damaged_at_once() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().to_str().expect("utf-8");
    let bucket = crate::store::open(url, &crate::store::StoreOptions::default()).expect("opens");
    let vault = Vault::new(bucket, bench().vault.ring().clone(), Arc::new(SeededEntropy::new(5)));
    let id = SegmentId([0xAB; 16]);
    vault.put_segment(id, random(1, MIB).into()).await.expect("put");
    assert_eq!(vault.get_segment(id, 0..MIB as u64).await.expect("reads"), random(1, MIB));
    let text = id.to_string();
    std::fs::write(directory.path().join("d").join(&text[..2]).join(&text), b"cut").expect("cut");
    for range in [0..10, 2..4, 3..4, 100..200] {
        let error = vault.get_segment(id, range.clone()).await;
        assert!(matches!(error, Err(VaultError::Damaged(_))), "{range:?}: {error:?}");
    }
}

#[tokio::test]
async fn what_lies_in_an_objects_place_and_is_none_is_damage_of_that_object() {
    let directory = tempfile::tempdir().expect("a directory");
    let url = directory.path().to_str().expect("utf-8");
    let bucket = crate::store::open(url, &crate::store::StoreOptions::default()).expect("opens");
    let vault = Vault::new(bucket.clone(), bench().vault.ring().clone(), Arc::new(SeededEntropy::new(5)));
    let (hurt, sound) = (SegmentId([1; 16]), SegmentId([2; 16]));
    for id in [hurt, sound] {
        vault.put_segment(id, random(1, KIB).into()).await.expect("put");
    }
    let (pipe, folder, long) = (Path::from("pipe"), Path::from("folder"), Path::from("long"));
    for path in [&pipe, &folder, &long] {
        vault.meta_store(MIB as u64).put(path, random(2, 2 * MIB).into()).await.expect("put");
    }
    header::write(&bucket, 1, Bytes::from_static(b"x")).await.expect("put");

    let at = |path: &Path| directory.path().join(path.as_ref());
    let make_pipe = |path: &std::path::Path| {
        std::fs::remove_file(path).expect("removed");
        let mode = rustix::fs::Mode::RUSR;
        rustix::fs::mknodat(rustix::fs::CWD, path, rustix::fs::FileType::Fifo, mode, 0).expect("made");
    };
    let text = hurt.to_string();
    make_pipe(&directory.path().join("d").join(&text[..2]).join(&text));
    make_pipe(&directory.path().join("header/1"));
    let sealed = |path: &Path| names::seal(vault.ring(), path);
    make_pipe(&at(&sealed(&pipe)));
    std::fs::remove_file(at(&sealed(&folder))).expect("removed");
    std::fs::create_dir(at(&sealed(&folder))).expect("made");
    let enlarged = std::fs::OpenOptions::new().write(true).open(at(&sealed(&long))).expect("opens");
    enlarged.set_len(1 << 40).expect("enlarged");

    assert!(vault.get_segment(hurt, 0..10).await.is_err_and(|error| error.is_damage()));
    assert_eq!(vault.segment_len(hurt).await.expect("asked"), Some(0));
    assert_eq!(vault.get_segment(sound, 0..10).await.expect("reads"), random(1, KIB)[..10]);
    assert!(header::read(&bucket, 1).await.is_err_and(|error| error.is_damage()));
    for path in [&pipe, &folder, &long] {
        let cold: Arc<dyn ObjectStore> = vault.meta_store(MIB as u64);
        let error = read(&cold, path.as_ref()).await.expect_err("damaged");
        assert!(is_damage(&error), "{path}: {error}");
        assert!(error.to_string().contains(sealed(path).as_ref()), "{error}");
        let create = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        let error = cold.put_opts(path, PutPayload::from_static(b"x"), create).await.expect_err("taken");
        assert!(is_damage(&error) || matches!(error, RawError::AlreadyExists { .. }), "{path}: {error}");
    }
    assert_eq!(bucket.meter().outage(), None, "the bucket answers");
}
