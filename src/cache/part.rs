//! One LRU list of the cache, with the bytes that it holds.

use std::hash::{BuildHasher, Hasher};

use bytes::Bytes;
use lru::LruCache;

use super::{BlockKey, ENTRY_BYTES};

pub(super) struct Slot {
    pub(super) bytes: Bytes,
    /// The cache's clock at the first use; `None` for a block fetched ahead and not used yet.
    pub(super) used: Option<u64>,
    /// The pool's time when it was used last; on probation, when it came.
    pub(super) touched: u64,
}

impl Slot {
    pub(super) fn cost_bytes(&self) -> u64 {
        self.bytes.len() as u64 + ENTRY_BYTES
    }
}

pub(super) struct Part {
    slots: LruCache<BlockKey, Slot, PlaceHasher>,
    bytes: u64,
}

impl Default for Part {
    fn default() -> Self {
        Self { slots: LruCache::unbounded_with_hasher(PlaceHasher), bytes: 0 }
    }
}

impl Part {
    pub(super) fn bytes(&self) -> u64 {
        self.bytes
    }

    pub(super) fn len(&self) -> usize {
        self.slots.len()
    }

    pub(super) fn peek(&self, key: &BlockKey) -> Option<&Slot> {
        self.slots.peek(key)
    }

    /// The slot of `key`, its age unchanged.
    pub(super) fn peek_mut(&mut self, key: &BlockKey) -> Option<&mut Slot> {
        self.slots.peek_mut(key)
    }

    /// The slot of `key`, now the youngest.
    pub(super) fn touch(&mut self, key: &BlockKey) -> Option<&mut Slot> {
        self.slots.get_mut(key)
    }

    /// When the oldest was used last.
    pub(super) fn oldest(&self) -> Option<u64> {
        self.slots.peek_lru().map(|(_, slot)| slot.touched)
    }

    pub(super) fn put(&mut self, key: BlockKey, slot: Slot) {
        self.bytes += slot.cost_bytes();
        if let Some(old) = self.slots.put(key, slot) {
            self.bytes -= old.cost_bytes();
        }
    }

    pub(super) fn take(&mut self, key: &BlockKey) -> Option<Slot> {
        let slot = self.slots.pop(key)?;
        self.bytes -= slot.cost_bytes();
        Some(slot)
    }

    pub(super) fn take_oldest(&mut self) -> Option<(BlockKey, Slot)> {
        let (key, slot) = self.slots.pop_lru()?;
        self.bytes -= slot.cost_bytes();
        Some((key, slot))
    }
}

/// Mixes places into hashes. Segment ids are random bits that we drew ourselves and reach the cache
/// only from authenticated records, so that nobody can choose colliding keys.
#[derive(Clone, Copy, Default)]
struct PlaceHasher;

#[derive(Default)]
struct PlaceHash(u64);

impl BuildHasher for PlaceHasher {
    type Hasher = PlaceHash;

    fn build_hasher(&self) -> PlaceHash {
        PlaceHash::default()
    }
}

impl PlaceHash {
    fn mix(&mut self, word: u64) {
        let folded = u128::from(self.0 ^ word) * 0xF39C_C060_5CED_C835_u128;
        self.0 = (folded as u64) ^ ((folded >> 64) as u64);
    }
}

impl Hasher for PlaceHash {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for chunk in bytes.chunks(8) {
            let mut word = [0; 8];
            word.iter_mut().zip(chunk).for_each(|(to, from)| *to = *from);
            self.mix(u64::from_le_bytes(word));
        }
    }

    fn write_u32(&mut self, number: u32) {
        self.mix(u64::from(number));
    }

    fn write_usize(&mut self, number: usize) {
        self.mix(number as u64);
    }
}
