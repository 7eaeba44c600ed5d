//! Readers over a bucket in memory: the right bytes, in as few GETs as promised, whatever fails or is dropped.

use std::task::Poll;

use futures::future::join_all;
use futures::{FutureExt, poll};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::*;
use crate::base::{BLOCK_BYTES, BlockIndex, Entropy, Ino, SeededEntropy, VolumeId};
use crate::crypto::{Epoch, KeyRing, Vmk};
use crate::data::segment::{Compression, FinishedSegment, SegmentBuilder};
use crate::store::Bucket;
use crate::store::fault::scripted::{Fault, FaultyStore};

const MIB: u64 = 1024 * 1024;

struct Stored {
    segment: FinishedSegment,
    places: Vec<BlockPlace>,
    plain: Vec<Vec<u8>>,
}

impl Stored {
    fn len(&self) -> u64 {
        self.segment.bytes.len() as u64
    }

    fn wants(&self) -> Vec<Want> {
        self.places.iter().map(|place| (*place, self.segment.seal, self.len())).collect()
    }
}

struct Bench {
    vault: Vault,
    cache: Arc<BlockCache>,
    reader: BlockReader,
}

impl Bench {
    fn new() -> Self {
        Self::with(64 * MIB, 64 * MIB)
    }

    fn with(cache_bytes: u64, memory_bytes: u64) -> Self {
        Self::over(Bucket::memory(), cache_bytes, memory_bytes)
    }

    fn over(bucket: Bucket, cache_bytes: u64, memory_bytes: u64) -> Self {
        let vmk = Vmk::from_bytes([3; 32]);
        let ring = Arc::new(KeyRing::new(VolumeId([1; 16]), Epoch(1), &vmk));
        let vault = Vault::new(bucket, ring, Arc::new(SeededEntropy::new(11)));
        let cache = BlockCache::new(cache_bytes);
        let reader = BlockReader::new(vault.clone(), Arc::clone(&cache), memory_bytes, Handle::current());
        Self { vault, cache, reader }
    }

    /// Stores one segment of `count` blocks of `bytes` each.
    async fn store(&self, count: usize, bytes: usize, compression: Compression) -> Stored {
        let mut builder = SegmentBuilder::new(&self.vault, compression);
        let (mut places, mut plain) = (Vec::new(), Vec::new());
        for n in 0..count {
            let mut block = vec![n as u8; bytes];
            SeededEntropy::new(n as u64).fill(&mut block[..bytes / 2]);
            places.push(builder.push(Ino(2), BlockIndex(n as u64), &block).unwrap());
            plain.push(block);
        }
        let segment = builder.finish();
        self.vault.put_segment(segment.id, segment.bytes.clone()).await.unwrap();
        Stored { segment, places, plain }
    }

    /// Puts other bytes where the segment's are.
    async fn replace(&self, stored: &Stored, bytes: Bytes) {
        self.vault.delete_segment(stored.segment.id).await.unwrap();
        self.vault.put_segment(stored.segment.id, bytes).await.unwrap();
    }

    async fn read(&self, stored: &Stored, n: usize, hint: ReadHint) -> Result<Bytes, DataError> {
        self.reader.read_block(&stored.places[n], &stored.segment.seal, stored.len(), hint).await
    }

    /// Reads all blocks in order and compares them.
    async fn read_all(&self, stored: &Stored, hint: ReadHint) {
        for n in 0..stored.places.len() {
            assert_eq!(self.read(stored, n, hint).await.unwrap(), stored.plain[n], "block {n}");
        }
    }

    fn gets(&self) -> u64 {
        self.vault.bucket().meter().snapshot().gets
    }

    fn get_bytes(&self) -> u64 {
        self.vault.bucket().meter().snapshot().get_bytes
    }

    /// Lets every fetch land.
    async fn settle(&self) {
        while self.reader.0.flights.count() > 0 || self.reader.0.is_queued() {
            tokio::task::yield_now().await;
        }
    }
}

#[tokio::test]
async fn a_single_read_fetches_its_sealed_bytes_and_no_more() {
    let bench = Bench::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let stored = bench.store(9, BLOCK_BYTES, compression).await;
        let before = bench.get_bytes();
        assert_eq!(bench.read(&stored, 4, ReadHint::Single).await.unwrap(), stored.plain[4]);
        assert_eq!(bench.get_bytes() - before, u64::from(stored.places[4].piece.sealed_bytes()));
        assert_eq!(bench.reader.cached(&stored.places[4]).unwrap(), stored.plain[4]);
    }
    assert_eq!(bench.gets(), 3);
}

#[tokio::test]
async fn a_hundred_concurrent_misses_on_one_block_are_one_get() {
    for hint in [ReadHint::Single, ReadHint::Neighbourhood] {
        // Without a cache, too: then all are served from the one flight.
        for cache_bytes in [0, 64 * MIB] {
            let bench = Bench::with(cache_bytes, 64 * MIB);
            let stored = bench.store(3, BLOCK_BYTES, Compression::None).await;
            let reads = join_all((0..100).map(|_| bench.read(&stored, 1, hint))).await;
            assert!(reads.into_iter().all(|read| read.unwrap() == stored.plain[1]));
            assert_eq!(bench.gets(), 1);
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn misses_from_many_threads_are_one_get() {
    let bench = Arc::new(Bench::new());
    let stored = Arc::new(bench.store(60, BLOCK_BYTES, Compression::None).await);
    let tasks = (0..240).map(|n| {
        let (bench, stored) = (Arc::clone(&bench), Arc::clone(&stored));
        tokio::spawn(async move { (n % 60, bench.read(&stored, n % 60, ReadHint::Single).await) })
    });
    for read in join_all(tasks).await {
        let (n, block) = read.unwrap();
        assert_eq!(block.unwrap(), stored.plain[n]);
    }
    assert_eq!(bench.gets(), 60);
}

#[tokio::test]
async fn sixty_four_neighbours_are_one_get() {
    let bench = Bench::new();
    let stored = bench.store(64, 4096, Compression::None).await;
    bench.read_all(&stored, ReadHint::Neighbourhood).await;
    assert_eq!(bench.gets(), 1);
}

#[tokio::test]
async fn small_files_of_a_full_segment_are_nine_gets_at_most() {
    let bench = Bench::new();
    let stored = bench.store(1900, 4097, Compression::None).await;
    bench.read_all(&stored, ReadHint::Neighbourhood).await;
    assert!(bench.gets() <= 9, "{}", bench.gets());
}

/// The first block of the second lies in what the first overlaps.
#[tokio::test]
async fn two_neighbourhoods_ahead_that_follow_each_other_are_two_gets() {
    let bench = Bench::new();
    let stored = bench.store(700, 4096, Compression::None).await;
    let wants = stored.wants();
    let of = |span| wants.iter().find(|(place, ..)| BlockReader::neighbourhood(place).1 == span).unwrap();
    bench.reader.prefetch_neighbourhood(of(0));
    bench.reader.prefetch_neighbourhood(of(1));
    bench.read_all(&stored, ReadHint::Neighbourhood).await;
    assert_eq!(bench.gets(), 2);
    bench.reader.prefetch_neighbourhood(of(1));
    bench.read_all(&stored, ReadHint::Neighbourhood).await;
    assert_eq!(bench.gets(), 2);
}

#[tokio::test]
async fn spans_stay_within_their_share_of_memory() {
    let bench = Bench::with(0, 16 * MIB);
    for _ in 0..3 {
        let stored = bench.store(120, BLOCK_BYTES, Compression::None).await;
        bench.read_all(&stored, ReadHint::Neighbourhood).await;
        assert!(bench.reader.0.spans.bytes() <= 4 * MIB);
    }
}

#[tokio::test]
async fn a_segment_fetched_ahead_is_two_gets_and_its_readers_wait_for_them() {
    for compression in [Compression::None, Compression::Zstd] {
        let bench = Bench::new();
        let stored = bench.store(127, BLOCK_BYTES, compression).await;
        bench.reader.prefetch(stored.wants());
        bench.read_all(&stored, ReadHint::Single).await;
        assert!(bench.gets() <= 2, "{}", bench.gets());
        bench.settle().await;
        bench.reader.prefetch(stored.wants());
        bench.settle().await;
        assert!(bench.gets() <= 2, "what is here is not fetched again");
    }
}

#[tokio::test]
async fn a_read_over_many_blocks_is_one_get() {
    let bench = Bench::new();
    let stored = bench.store(20, BLOCK_BYTES, Compression::None).await;
    bench.read(&stored, 5, ReadHint::Single).await.unwrap();
    bench.reader.gather(&stored.wants()[2..18]);
    let reads = join_all((2..18).map(|n| bench.read(&stored, n, ReadHint::Single))).await;
    for (n, read) in (2..18).zip(reads) {
        assert_eq!(read.unwrap(), stored.plain[n]);
    }
    assert_eq!(bench.gets(), 2);
}

#[tokio::test]
async fn more_than_may_fly_waits_and_more_than_may_wait_is_dropped() {
    let bench = Bench::with(256 * MIB, 12 * MIB);
    let mut all = Vec::new();
    for _ in 0..12 {
        all.push(bench.store(127, BLOCK_BYTES, Compression::None).await);
    }
    // One block of each 256 KiB cannot be joined: many GETs, of which 16 fly and 64 wait.
    let sparse: Vec<Want> = all.iter().flat_map(|stored| stored.wants().into_iter().step_by(4)).collect();
    bench.reader.prefetch(sparse.clone());
    assert!(bench.reader.0.flights.count() <= 16);
    bench.settle().await;
    let fetched = sparse.iter().filter(|want| bench.cache.contains(want.0.segment, want.0.pos)).count();
    assert_eq!((sparse.len(), fetched), (384, 80));
    for stored in &all {
        bench.read_all(stored, ReadHint::Single).await;
    }
}

#[tokio::test]
async fn a_reader_that_gives_up_stops_nobody_else() {
    let bench = Bench::new();
    let stored = bench.store(2, BLOCK_BYTES, Compression::None).await;
    let mut first = Box::pin(bench.read(&stored, 0, ReadHint::Single));
    let mut second = Box::pin(bench.read(&stored, 0, ReadHint::Single));
    assert!(poll!(&mut first).is_pending() && poll!(&mut second).is_pending());
    drop(first);
    assert_eq!(second.await.unwrap(), stored.plain[0]);
    assert_eq!(bench.gets(), 1);
    // All give up: the bytes come all the same, for the next.
    let mut third = Box::pin(bench.read(&stored, 1, ReadHint::Single));
    assert!(poll!(&mut third).is_pending());
    drop(third);
    bench.settle().await;
    assert_eq!(bench.read(&stored, 1, ReadHint::Single).now_or_never().unwrap().unwrap(), stored.plain[1]);
    assert_eq!(bench.gets(), 2);
}

#[tokio::test]
async fn a_block_at_hand_is_read_without_waiting() {
    let bench = Bench::new();
    let stored = bench.store(2, 5000, Compression::None).await;
    bench.read(&stored, 0, ReadHint::Neighbourhood).await.unwrap();
    for n in [0, 1] {
        let mut read = Box::pin(bench.read(&stored, n, ReadHint::Neighbourhood));
        assert!(matches!(poll!(&mut read), Poll::Ready(Ok(block)) if block == stored.plain[n]));
    }
}

#[tokio::test]
async fn a_failed_fetch_ahead_is_tried_again_by_who_reads() {
    let bench = Bench::new();
    let stored = bench.store(4, BLOCK_BYTES, Compression::None).await;
    bench.vault.delete_segment(stored.segment.id).await.unwrap();
    bench.reader.prefetch(stored.wants());
    // It joins the flight, and when that fails asks for itself.
    let read = bench.read(&stored, 2, ReadHint::Single).await;
    assert!(matches!(read, Err(DataError::Missing { .. })));
    assert_eq!(bench.gets(), 2);
    bench.settle().await;
    bench.vault.put_segment(stored.segment.id, stored.segment.bytes.clone()).await.unwrap();
    bench.read_all(&stored, ReadHint::Single).await;
}

#[tokio::test]
async fn b9_damage_is_an_error_on_its_block_only_and_is_not_remembered() {
    for hint in [ReadHint::Single, ReadHint::Neighbourhood] {
        let bench = Bench::new();
        let stored = bench.store(5, 9000, Compression::None).await;
        let mut bad = stored.segment.bytes.to_vec();
        bad[stored.places[2].pos as usize + 8999] ^= 1;
        bench.replace(&stored, bad.into()).await;
        bench.reader.prefetch(stored.wants());
        for n in 0..5 {
            match bench.read(&stored, n, hint).await {
                Ok(block) => assert!(n != 2 && block == stored.plain[n]),
                Err(DataError::Damaged { pos, .. }) => assert_eq!((n, pos), (2, stored.places[2].pos)),
                Err(error) => panic!("{error}"),
            }
        }
        bench.settle().await;
        bench.replace(&stored, stored.segment.bytes.clone()).await;
        bench.read_all(&stored, hint).await;
    }
}

/// All of them are read as one neighbourhood, which cannot be had.
#[tokio::test]
async fn a_cut_segment_loses_what_was_cut_off_and_nothing_else() {
    for whole in [60, 40, 0] {
        let bench = Bench::new();
        let stored = bench.store(60, 4096, Compression::None).await;
        let left = match whole {
            60 => stored.segment.bytes.len() - 1,
            whole => stored.places[whole].pos as usize + 100,
        };
        bench.replace(&stored, stored.segment.bytes.slice(..left)).await;
        for n in 0..60 {
            let read = bench.read(&stored, n, ReadHint::Neighbourhood).await;
            assert_eq!(read.ok().as_deref(), (n < whole).then_some(&*stored.plain[n]), "{n} of {whole}");
        }
    }
}

#[tokio::test]
async fn what_came_damaged_ahead_of_time_is_asked_for_again_by_who_reads() {
    let bench = Bench::new();
    let stored = bench.store(5, 9000, Compression::None).await;
    let mut bad = stored.segment.bytes.to_vec();
    bad[stored.places[2].pos as usize] ^= 1;
    bench.replace(&stored, bad.into()).await;
    bench.reader.prefetch_neighbourhood(&stored.wants()[0]);
    bench.settle().await;
    bench.replace(&stored, stored.segment.bytes.clone()).await;
    bench.read_all(&stored, ReadHint::Neighbourhood).await;
}

#[tokio::test]
async fn a_cut_segment_a_foreign_seal_and_a_wild_place_are_errors() {
    let bench = Bench::new();
    let (stored, other) =
        (bench.store(3, 70, Compression::None).await, bench.store(3, 70, Compression::None).await);
    bench.replace(&stored, stored.segment.bytes.slice(..100)).await;
    for hint in [ReadHint::Single, ReadHint::Neighbourhood] {
        assert!(bench.read(&stored, 2, hint).await.is_err());
        let place = other.places[0];
        let foreign = bench.reader.read_block(&place, &stored.segment.seal, other.len(), hint).await;
        assert!(matches!(foreign, Err(DataError::Damaged { .. })), "{foreign:?}");
        let gets = bench.gets();
        for pos in [0, 63, other.len() as u32, u32::MAX] {
            let wild = BlockPlace { pos, ..place };
            let read = bench.reader.read_block(&wild, &other.segment.seal, other.len(), hint).await;
            assert!(matches!(read, Err(DataError::Extents(_))));
        }
        assert_eq!(bench.gets(), gets, "an impossible place costs no request");
    }
    bench.read_all(&other, ReadHint::Single).await;
}

#[tokio::test(start_paused = true)]
async fn a_bucket_that_hangs_fails_its_readers_in_time_and_nothing_after_them() {
    let store = Arc::new(FaultyStore::default());
    let bench = Bench::over(Bucket::from_store(store.clone()), 64 * MIB, 64 * MIB);
    let stored = bench.store(3, BLOCK_BYTES, Compression::None).await;
    for hint in [ReadHint::Single, ReadHint::Neighbourhood] {
        store.fail_reads([Fault::Hang; 100]);
        let reads = join_all((0..3).map(|n| bench.read(&stored, n, hint))).await;
        assert!(reads.iter().all(|read| matches!(read, Err(DataError::Unavailable { source: Some(_), .. }))));
        store.reads.lock().clear();
    }
    bench.read_all(&stored, ReadHint::Single).await;
    assert_eq!(bench.reader.0.flights.count(), 0);
}

/// Readers of every kind at once over a cache and a memory that are too small, some giving up.
#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn whatever_happens_side_by_side_every_read_gives_the_right_bytes() {
    const SEED: u64 = 0x00C0_FFE4;
    println!("seed {SEED}");
    let bench = Arc::new(Bench::with(3 * MIB, 0));
    let mut all = Vec::new();
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        all.push(bench.store(90, BLOCK_BYTES, compression).await);
        all.push(bench.store(700, 3000, compression).await);
    }
    let all = Arc::new(all);
    let tasks = (0..16).map(|task| {
        let (bench, all) = (Arc::clone(&bench), Arc::clone(&all));
        tokio::spawn(async move {
            let mut random = SmallRng::seed_from_u64(SEED + task);
            for _ in 0..300 {
                let stored = &all[random.random_range(0..all.len())];
                let n = random.random_range(0..stored.places.len());
                let some = stored.wants().into_iter().skip(n).take(40).collect::<Vec<_>>();
                match random.random_range(0..10) {
                    0 => bench.reader.prefetch(some),
                    1 => bench.reader.gather(&some),
                    2 => {
                        let mut read = Box::pin(bench.read(stored, n, ReadHint::Neighbourhood));
                        drop(poll!(&mut read));
                    }
                    even if even % 2 == 0 => {
                        assert_eq!(
                            bench.read(stored, n, ReadHint::Neighbourhood).await.unwrap(),
                            stored.plain[n]
                        );
                    }
                    _ => assert_eq!(bench.read(stored, n, ReadHint::Single).await.unwrap(), stored.plain[n]),
                }
            }
        })
    });
    join_all(tasks).await.into_iter().for_each(|task| task.unwrap());
    bench.settle().await;
    assert!(bench.cache.len_bytes() <= 3 * MIB);
}
