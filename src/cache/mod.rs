//! The in-memory LRU of plaintext blocks.

mod part;

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::{Pool, PoolMember, SegmentId};
use part::{Part, Slot};

/// Bytes that an entry costs beyond its contents: key, links, allocator.
const ENTRY_BYTES: u64 = 160;
/// The part of its capacity that a cache in a pool keeps, whatever the others want.
const KEPT_PART: u64 = 4;

/// Plaintext blocks by their place in the bucket, bounded by bytes.
///
/// A segmented LRU: blocks enter on probation and move to the protected part (four fifths of the
/// capacity) when they are used again *later*: after a sixteenth of the capacity has been inserted
/// since their first use. Many small reads of one block in a row are one use, and a block fetched
/// ahead has none yet, so a scan of any length passes through probation only. Probation is first in,
/// first out: a use there must not outlive blocks fetched ahead that are still to be read.
///
/// A place is written once and never again, so that entries need no invalidation. One lock is
/// enough: a hit holds it for less than a tenth of what opening a block costs (`benches/primitives.rs`).
pub struct BlockCache {
    parts: Mutex<Parts>,
    pool: Arc<Pool>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct BlockKey {
    segment: SegmentId,
    pos: u32,
}

struct Parts {
    capacity_bytes: u64,
    probation: Part,
    protected: Part,
    /// Bytes ever inserted: the clock by which a later use is told from the same one.
    clock_bytes: u64,
    stats: CacheStats,
}

/// What a cache did since it was made and what it holds now.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Serialize)]
pub struct CacheStats {
    /// Lookups that found their block.
    pub hits: u64,
    /// Lookups that did not.
    pub misses: u64,
    /// Blocks put in.
    pub inserted: u64,
    /// Blocks pushed out by newer ones or by a smaller capacity.
    pub evicted: u64,
    /// Blocks held.
    pub blocks: u64,
    /// Bytes held, bookkeeping included.
    pub len_bytes: u64,
    /// Bytes that may be held.
    pub capacity_bytes: u64,
}

impl BlockCache {
    /// An empty cache that holds up to `capacity_bytes`, bookkeeping included.
    #[must_use]
    pub fn new(capacity_bytes: u64) -> Arc<Self> {
        Self::in_pool(capacity_bytes, &Pool::new())
    }

    /// An empty cache that brings `capacity_bytes` into `pool`, and keeps a quarter of them whatever others want.
    #[must_use]
    pub fn in_pool(capacity_bytes: u64, pool: &Arc<Pool>) -> Arc<Self> {
        let parts = Mutex::new(Parts {
            capacity_bytes,
            probation: Part::default(),
            protected: Part::default(),
            clock_bytes: 0,
            stats: CacheStats::default(),
        });
        let cache = Arc::new(Self { parts, pool: Arc::clone(pool) });
        let member: Weak<Self> = Arc::downgrade(&cache);
        pool.join(member);
        cache
    }

    /// The block whose sealed bytes begin at `pos` of `segment`.
    pub fn get(&self, segment: SegmentId, pos: u32) -> Option<Bytes> {
        self.parts.lock().get(&BlockKey { segment, pos }, self.pool.now())
    }

    /// As [`BlockCache::get`], but neither counted nor taken for a use.
    pub fn peek(&self, segment: SegmentId, pos: u32) -> Option<Bytes> {
        self.parts.lock().peek(&BlockKey { segment, pos }).map(|slot| slot.bytes.clone())
    }

    /// Whether the block is held. Not counted, not a use.
    pub fn contains(&self, segment: SegmentId, pos: u32) -> bool {
        self.parts.lock().peek(&BlockKey { segment, pos }).is_some()
    }

    /// Puts in a block that is being read.
    ///
    /// `bytes` must own its allocation: a slice of a larger one would keep all of it in memory
    /// while only the slice is counted.
    pub fn insert(&self, segment: SegmentId, pos: u32, bytes: Bytes) {
        self.put(BlockKey { segment, pos }, bytes, true);
    }

    /// As [`BlockCache::insert`], for a block that nobody has read yet.
    pub fn insert_ahead(&self, segment: SegmentId, pos: u32, bytes: Bytes) {
        self.put(BlockKey { segment, pos }, bytes, false);
    }

    /// Bytes held, bookkeeping included; above the capacity only in a pool.
    pub fn len_bytes(&self) -> u64 {
        self.parts.lock().len_bytes()
    }

    /// Bytes that may be held.
    pub fn capacity_bytes(&self) -> u64 {
        self.parts.lock().capacity_bytes
    }

    /// Changes the capacity; what no longer fits goes at once.
    pub fn resize(&self, capacity_bytes: u64) {
        let mut parts = self.parts.lock();
        parts.capacity_bytes = capacity_bytes;
        parts.settle_protected(self.pool.now());
        drop(parts);
        self.pool.settle();
    }

    /// What the cache did and holds.
    pub fn stats(&self) -> CacheStats {
        let parts = self.parts.lock();
        CacheStats {
            blocks: (parts.probation.len() + parts.protected.len()) as u64,
            len_bytes: parts.len_bytes(),
            capacity_bytes: parts.capacity_bytes,
            ..parts.stats
        }
    }

    fn put(&self, key: BlockKey, bytes: Bytes, used: bool) {
        // Blocks are freed without the lock.
        let refused = self.parts.lock().insert(key, bytes, used, self.pool.tick());
        drop(refused);
        self.pool.settle();
    }
}

impl PoolMember for BlockCache {
    fn share_bytes(&self) -> u64 {
        self.capacity_bytes()
    }

    fn kept_bytes(&self) -> u64 {
        self.capacity_bytes() / KEPT_PART
    }

    fn held_bytes(&self) -> u64 {
        self.len_bytes()
    }

    fn oldest(&self) -> Option<u64> {
        let parts = self.parts.lock();
        parts.probation.oldest().or_else(|| parts.protected.oldest())
    }

    fn drop_oldest(&self) {
        let dropped = self.parts.lock().take_oldest();
        drop(dropped);
    }
}

impl Parts {
    fn len_bytes(&self) -> u64 {
        self.probation.bytes() + self.protected.bytes()
    }

    fn peek(&self, key: &BlockKey) -> Option<&Slot> {
        self.protected.peek(key).or_else(|| self.probation.peek(key))
    }

    fn get(&mut self, key: &BlockKey, pool_now: u64) -> Option<Bytes> {
        if let Some(slot) = self.protected.touch(key) {
            self.stats.hits += 1;
            slot.touched = pool_now;
            return Some(slot.bytes.clone());
        }
        let (now, apart) = (self.clock_bytes, self.capacity_bytes / 16);
        let Some(slot) = self.probation.peek_mut(key) else {
            self.stats.misses += 1;
            return None;
        };
        self.stats.hits += 1;
        let bytes = slot.bytes.clone();
        let used = *slot.used.get_or_insert(now);
        if now - used > apart
            && let Some(slot) = self.probation.take(key)
        {
            self.protected.put(*key, Slot { touched: pool_now, ..slot });
            self.settle_protected(pool_now);
        }
        Some(bytes)
    }

    /// Gives the block back if it is not wanted.
    fn insert(&mut self, key: BlockKey, bytes: Bytes, used: bool, pool_now: u64) -> Option<Slot> {
        let slot = Slot { bytes, used: None, touched: pool_now };
        if slot.cost_bytes() > self.capacity_bytes || self.peek(&key).is_some() {
            return Some(slot);
        }
        self.clock_bytes += slot.cost_bytes();
        self.stats.inserted += 1;
        self.probation.put(key, Slot { used: used.then_some(self.clock_bytes), ..slot });
        None
    }

    /// Moves what the protected part holds beyond its share back to probation.
    fn settle_protected(&mut self, pool_now: u64) {
        let share = self.capacity_bytes / 5 * 4;
        while self.protected.bytes() > share
            && let Some((key, slot)) = self.protected.take_oldest()
        {
            self.probation.put(key, Slot { used: Some(self.clock_bytes), touched: pool_now, ..slot });
        }
    }

    fn take_oldest(&mut self) -> Option<Slot> {
        let (_, slot) = self.probation.take_oldest().or_else(|| self.protected.take_oldest())?;
        self.stats.evicted += 1;
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const BLOCK: usize = 1000;

    fn id(n: u8) -> SegmentId {
        SegmentId([n; 16])
    }

    fn block(fill: u8) -> Bytes {
        Bytes::from(vec![fill; BLOCK])
    }

    /// A cache with room for `blocks` blocks of [`BLOCK`] bytes.
    fn cache(blocks: u64) -> Arc<BlockCache> {
        BlockCache::new(blocks * (BLOCK as u64 + ENTRY_BYTES))
    }

    /// Makes blocks `0..count` of segment 1 hot: used twice, far apart.
    fn heat(cache: &BlockCache, count: u32) {
        (0..count).for_each(|pos| cache.insert(id(1), pos, block(1)));
        (0..20).for_each(|pos| cache.insert(id(2), pos, block(2)));
        assert!((0..count).all(|pos| cache.get(id(1), pos).is_some()));
    }

    fn hot(cache: &BlockCache, count: u32) -> usize {
        (0..count).filter(|pos| cache.contains(id(1), *pos)).count()
    }

    #[test]
    fn a_block_comes_back_as_it_went_in() {
        let cache = cache(4);
        cache.insert(id(1), 64, block(7));
        assert_eq!(cache.get(id(1), 64), Some(block(7)));
        assert_eq!(cache.get(id(1), 65), None);
        assert_eq!(cache.get(id(2), 64), None);
        let stats = cache.stats();
        assert_eq!((stats.hits, stats.misses, stats.inserted, stats.blocks), (1, 2, 1, 1));
    }

    #[test]
    fn it_never_holds_more_than_its_capacity() {
        let cache = cache(10);
        for n in 0..200u32 {
            cache.insert(id(3), n, Bytes::from(vec![0; (n as usize * 37) % 3000]));
            cache.get(id(3), n / 2);
            assert!(cache.len_bytes() <= cache.capacity_bytes());
        }
        assert!(cache.stats().evicted > 100);
        cache.insert(id(4), 0, Bytes::from(vec![0; 100_000]));
        assert!(!cache.contains(id(4), 0), "a block larger than the cache is not kept");
        cache.resize(0);
        assert_eq!((cache.len_bytes(), cache.stats().blocks), (0, 0));
    }

    #[test]
    fn a_long_scan_leaves_the_hot_blocks_alone() {
        let cache = cache(100);
        heat(&cache, 60);
        (0..10_000).for_each(|pos| cache.insert(id(9), pos, block(9)));
        assert_eq!(hot(&cache, 60), 60);
    }

    #[test]
    fn a_scan_in_small_reads_is_still_a_scan() {
        let cache = cache(100);
        heat(&cache, 60);
        for pos in 0..10_000 {
            cache.insert(id(9), pos, block(9));
            (0..16).for_each(|_| assert!(cache.get(id(9), pos).is_some()));
        }
        assert_eq!(hot(&cache, 60), 60);
    }

    #[test]
    fn a_scan_fetched_ahead_is_still_a_scan() {
        let cache = cache(100);
        heat(&cache, 60);
        for pos in 0..10_000u32 {
            cache.insert_ahead(id(9), pos, block(9));
            // Read 30 blocks later, each twice.
            if let Some(read) = pos.checked_sub(30) {
                assert!(cache.get(id(9), read).is_some() && cache.get(id(9), read).is_some());
            }
        }
        assert_eq!(hot(&cache, 60), 60);
    }

    #[test]
    fn a_new_hot_set_takes_the_place_of_the_old_one() {
        let cache = cache(100);
        heat(&cache, 70);
        for _ in 0..20 {
            for pos in 0..80 {
                if cache.get(id(5), pos).is_none() {
                    cache.insert(id(5), pos, block(5));
                }
            }
            (0..10).for_each(|pos| cache.insert(id(6), pos, block(6)));
        }
        let warm = (0..80).filter(|pos| cache.contains(id(5), *pos)).count();
        assert!(warm >= 20, "{warm} of 80");
    }

    #[test]
    fn a_smaller_capacity_keeps_the_hottest() {
        let cache = cache(100);
        heat(&cache, 40);
        (0..40).for_each(|pos| cache.insert(id(9), pos, block(9)));
        cache.resize(50 * (BLOCK as u64 + ENTRY_BYTES));
        assert_eq!(hot(&cache, 40), 40);
        assert!(cache.len_bytes() <= cache.capacity_bytes());
    }
}
