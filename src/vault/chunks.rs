//! Keeps recently fetched chunks of sealed objects, still sealed, bounded by bytes.

use std::collections::HashMap;
use std::future::Future;
use std::num::NonZeroUsize;
use std::sync::{Arc, Weak};

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::base::{Gauge, Pool, PoolMember};

/// Bytes that an entry costs beside its contents.
const ENTRY_BYTES: u64 = 256;
/// Objects whose recent reads are remembered.
const TRACKED_MAX: usize = 4096;
/// Scans of one object that are told apart.
const SCANS_MAX: usize = 4;

/// Object and number of a chunk or span.
pub(super) type Place = (Arc<str>, u64);

/// The cache, and who is fetching what.
pub(super) struct ChunkCache {
    state: Mutex<State>,
    capacity_bytes: u64,
    pool: Arc<Pool>,
    /// Tells the bytes that are held.
    held: Gauge,
}

struct State {
    /// Each with the pool's time when it was used last.
    chunks: LruCache<Place, (Bytes, u64)>,
    bytes: u64,
    fetching: HashMap<Place, Arc<tokio::sync::Mutex<()>>>,
    /// The last chunks that were read of each object.
    recent: LruCache<Arc<str>, [u64; SCANS_MAX]>,
}

impl ChunkCache {
    /// A cache that brings `capacity_bytes` into `pool`, and keeps them.
    pub(super) fn new(capacity_bytes: u64, held: Gauge, pool: &Arc<Pool>) -> Arc<Self> {
        let tracked = NonZeroUsize::new(TRACKED_MAX).unwrap_or(NonZeroUsize::MIN);
        let cache = Arc::new(Self {
            state: Mutex::new(State {
                chunks: LruCache::unbounded(),
                bytes: 0,
                fetching: HashMap::new(),
                recent: LruCache::new(tracked),
            }),
            capacity_bytes,
            pool: Arc::clone(pool),
            held,
        });
        let member: Weak<Self> = Arc::downgrade(&cache);
        pool.join(member);
        cache
    }

    /// The chunks `first` to `last` of `object`, `None` for those that are not here.
    pub(super) fn get(&self, object: &Arc<str>, first: u64, last: u64) -> Vec<Option<Bytes>> {
        let now = self.pool.now();
        let mut state = self.state.lock();
        let mut look = |number| {
            let (bytes, used) = state.chunks.get_mut(&(object.clone(), number))?;
            *used = now;
            Some(bytes.clone())
        };
        (first..=last).map(&mut look).collect()
    }

    /// Keeps a chunk.
    pub(super) fn insert(&self, place: Place, bytes: Bytes) {
        let added = cost(&bytes);
        if added > self.capacity_bytes {
            return;
        }
        let now = self.pool.tick();
        let mut state = self.state.lock();
        state.bytes += added;
        if let Some((_, (replaced, _))) = state.chunks.push(place, (bytes, now)) {
            state.bytes = state.bytes.saturating_sub(cost(&replaced));
        }
        self.held.set(state.bytes);
        drop(state);
        self.pool.settle();
    }

    /// Forgets a chunk.
    pub(super) fn remove(&self, place: &Place) {
        let mut state = self.state.lock();
        if let Some((removed, _)) = state.chunks.pop(place) {
            state.bytes = state.bytes.saturating_sub(cost(&removed));
            self.held.set(state.bytes);
        }
    }

    /// Notes that a read ended with chunk `last`; returns whether `first` continues an earlier read.
    pub(super) fn continues(&self, object: &Arc<str>, first: u64, last: u64) -> bool {
        let mut state = self.state.lock();
        let recent = state.recent.get_or_insert_mut(object.clone(), || [u64::MAX; SCANS_MAX]);
        let scan = recent.iter().position(|read| *read == first || read.checked_add(1) == Some(first));
        let place = scan.unwrap_or(SCANS_MAX - 1);
        if let Some(upto) = recent.get_mut(..=place) {
            upto.rotate_right(1);
        }
        if let Some(newest) = recent.first_mut() {
            *newest = last;
        }
        scan.is_some()
    }

    /// Does `fetch` while nobody else fetches from `span`: who waited finds here what the first one brought.
    pub(super) async fn alone<T>(&self, span: Place, fetch: impl Future<Output = T>) -> T {
        let lock = self.state.lock().fetching.entry(span.clone()).or_default().clone();
        let flight = Flight { cache: self, span, lock };
        let _turn = flight.lock.lock().await;
        fetch.await
    }

    #[cfg(test)]
    fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

impl PoolMember for ChunkCache {
    fn share_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn kept_bytes(&self) -> u64 {
        self.capacity_bytes
    }

    fn held_bytes(&self) -> u64 {
        self.state.lock().bytes
    }

    fn oldest(&self) -> Option<u64> {
        self.state.lock().chunks.peek_lru().map(|(_, (_, used))| *used)
    }

    fn drop_oldest(&self) {
        let mut state = self.state.lock();
        if let Some((_, (bytes, _))) = state.chunks.pop_lru() {
            state.bytes = state.bytes.saturating_sub(cost(&bytes));
            self.held.set(state.bytes);
        }
    }
}

fn cost(bytes: &Bytes) -> u64 {
    bytes.len() as u64 + ENTRY_BYTES
}

/// One who fetches or waits; the last to go, done or cancelled, takes the span off the list.
struct Flight<'a> {
    cache: &'a ChunkCache,
    span: Place,
    lock: Arc<tokio::sync::Mutex<()>>,
}

impl Drop for Flight<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        // The list and this one hold it.
        if Arc::strong_count(&self.lock) <= 2 {
            state.fetching.remove(&self.span);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn place(number: u64) -> Place {
        ("a".into(), number)
    }

    #[tokio::test]
    async fn one_fetches_and_the_others_wait_and_nothing_is_left_behind() {
        let cache = ChunkCache::new(1 << 20, Gauge::default(), &Pool::new());
        let fetched = std::sync::atomic::AtomicUsize::new(0);
        let wanting = (0..50).map(|_| {
            cache.alone(place(0), async {
                if cache.get(&"a".into(), 1, 1) == [None] {
                    fetched.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
                    tokio::task::yield_now().await;
                    cache.insert(place(1), Bytes::from_static(b"x"));
                }
            })
        });
        futures::future::join_all(wanting).await;
        assert_eq!(fetched.into_inner(), 1);
        let pending = cache.alone(place(0), std::future::pending::<()>());
        tokio::select! {
            biased;
            () = pending => panic!("it cannot end"),
            () = tokio::task::yield_now() => {}
        }
        assert!(cache.state.lock().fetching.is_empty());
    }

    #[test]
    fn the_cache_keeps_to_its_bytes() {
        let cache = ChunkCache::new(10_000, Gauge::default(), &Pool::new());
        for number in 0..100 {
            cache.insert(place(number), vec![0; 1000].into());
            assert!(cache.bytes() <= 10_000);
        }
        cache.insert(place(1000), vec![0; 20_000].into());
        assert!(cache.bytes() > 0, "a chunk too large for the cache does not empty it");
        (0..100).for_each(|number| cache.remove(&place(number)));
        assert_eq!(cache.bytes(), 0);
    }

    #[test]
    fn interleaved_scans_are_told_from_jumps() {
        let cache = ChunkCache::new(0, Gauge::default(), &Pool::new());
        let object: Arc<str> = "a".into();
        assert!(!cache.continues(&object, 0, 0));
        assert!(!cache.continues(&object, 100, 101));
        assert!(!cache.continues(&object, 50, 50));
        for step in 1..20 {
            assert!(cache.continues(&object, step, step));
            assert!(cache.continues(&object, 101 + step, 101 + step));
        }
        assert!(!cache.continues(&object, 70, 70));
        assert!(cache.continues(&object, 51, 51));
        assert!(!cache.continues(&"b".into(), 1, 1));
    }
}
