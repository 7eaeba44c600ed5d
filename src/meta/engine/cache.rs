//! The least recently used blocks of SlateDB's tables, decoded, bounded by bytes.

use async_trait::async_trait;
use lru::LruCache;
use parking_lot::Mutex;
use slatedb::db_cache::{CachedEntry, CachedKey, DbCache};

use crate::base::Gauge;

/// Bytes that an entry costs beside its contents.
const ENTRY_BYTES: u64 = 128;

/// SlateDB's block cache.
///
/// SlateDB offers foyer and moka; both bring a dozen crates and background work for what is here one
/// locked list. Tables are small beside the file cache, and requests for one object are merged below, in
/// the vault's spans.
pub(super) struct BlockCache {
    state: Mutex<State>,
    capacity_bytes: u64,
    /// Tells the bytes that are held.
    held: Gauge,
}

struct State {
    entries: LruCache<CachedKey, CachedEntry>,
    bytes: u64,
}

impl BlockCache {
    pub(super) fn new(capacity_bytes: u64, held: Gauge) -> Self {
        Self { state: Mutex::new(State { entries: LruCache::unbounded(), bytes: 0 }), capacity_bytes, held }
    }

    fn get(&self, key: &CachedKey) -> Option<CachedEntry> {
        self.state.lock().entries.get(key).cloned()
    }
}

fn cost(entry: &CachedEntry) -> u64 {
    entry.size() as u64 + ENTRY_BYTES
}

#[async_trait]
impl DbCache for BlockCache {
    async fn get_block(&self, key: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(self.get(key))
    }

    async fn get_index(&self, key: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(self.get(key))
    }

    async fn get_filter(&self, key: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(self.get(key))
    }

    async fn get_stats(&self, key: &CachedKey) -> Result<Option<CachedEntry>, slatedb::Error> {
        Ok(self.get(key))
    }

    async fn insert(&self, key: CachedKey, value: CachedEntry) {
        let added = cost(&value);
        if added > self.capacity_bytes {
            return;
        }
        let mut state = self.state.lock();
        state.bytes += added;
        if let Some((_, replaced)) = state.entries.push(key, value) {
            state.bytes = state.bytes.saturating_sub(cost(&replaced));
        }
        while state.bytes > self.capacity_bytes {
            match state.entries.pop_lru() {
                Some((_, dropped)) => state.bytes = state.bytes.saturating_sub(cost(&dropped)),
                None => break,
            }
        }
        self.held.set(state.bytes);
    }

    async fn remove(&self, key: &CachedKey) {
        let mut state = self.state.lock();
        if let Some(removed) = state.entries.pop(key) {
            state.bytes = state.bytes.saturating_sub(cost(&removed));
            self.held.set(state.bytes);
        }
    }

    fn entry_count(&self) -> u64 {
        self.state.lock().entries.len() as u64
    }
}
