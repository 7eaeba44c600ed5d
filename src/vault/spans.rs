//! Keeps recently fetched spans of sealed objects, still sealed, bounded by bytes.

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;

use bytes::Bytes;
use chrono::{DateTime, Utc};
use lru::LruCache;
use parking_lot::Mutex;
use tokio::sync::OnceCell;

/// Bytes that an entry costs beside its contents.
const ENTRY_BYTES: u64 = 256;

/// One span of one object as the store gave it.
#[derive(Clone, Debug)]
pub(super) struct Span {
    /// The sealed bytes.
    pub bytes: Bytes,
    /// Length of the whole sealed object, as the store says.
    pub object_len: u64,
    /// When the object was written, as the store says.
    pub last_modified: DateTime<Utc>,
}

/// Object and number of a span.
pub(super) type SpanKey = (Arc<str>, u64);

/// The cache. Spans wanted by several at once are fetched once.
pub(super) struct SpanCache {
    state: Mutex<State>,
    capacity_bytes: u64,
}

struct State {
    spans: LruCache<SpanKey, Span>,
    bytes: u64,
    fetching: HashMap<SpanKey, Arc<OnceCell<Span>>>,
}

impl SpanCache {
    pub(super) fn new(capacity_bytes: u64) -> Self {
        let state = State { spans: LruCache::unbounded(), bytes: 0, fetching: HashMap::new() };
        Self { state: Mutex::new(state), capacity_bytes }
    }

    /// The span `key`, fetched if it is not here.
    pub(super) async fn get<E, F>(&self, key: SpanKey, fetch: impl FnOnce() -> F) -> Result<Span, E>
    where
        F: Future<Output = Result<Span, E>>,
    {
        let cell = {
            let mut state = self.state.lock();
            if let Some(span) = state.spans.get(&key) {
                return Ok(span.clone());
            }
            state.fetching.entry(key.clone()).or_default().clone()
        };
        let wanted = Wanted { cache: self, key, cell };
        let span = wanted.cell.get_or_try_init(fetch).await?.clone();
        self.insert(wanted.key.clone(), span.clone());
        Ok(span)
    }

    /// Keeps a span that was not fetched but made here.
    pub(super) fn insert(&self, key: SpanKey, span: Span) {
        let added = cost(&span);
        if added > self.capacity_bytes {
            return;
        }
        let mut state = self.state.lock();
        state.bytes += added;
        if let Some((_, replaced)) = state.spans.push(key, span) {
            state.bytes = state.bytes.saturating_sub(cost(&replaced));
        }
        while state.bytes > self.capacity_bytes {
            match state.spans.pop_lru() {
                Some((_, dropped)) => state.bytes = state.bytes.saturating_sub(cost(&dropped)),
                None => break,
            }
        }
    }

    /// Forgets a span of an object that is no more.
    pub(super) fn remove(&self, key: &SpanKey) {
        let mut state = self.state.lock();
        if let Some(removed) = state.spans.pop(key) {
            state.bytes = state.bytes.saturating_sub(cost(&removed));
        }
    }

    #[cfg(test)]
    pub(super) fn bytes(&self) -> u64 {
        self.state.lock().bytes
    }
}

fn cost(span: &Span) -> u64 {
    span.bytes.len() as u64 + ENTRY_BYTES
}

/// One who waits for a span; the last to go, done or cancelled, takes the fetch off the list.
struct Wanted<'a> {
    cache: &'a SpanCache,
    key: SpanKey,
    cell: Arc<OnceCell<Span>>,
}

impl Drop for Wanted<'_> {
    fn drop(&mut self) {
        let mut state = self.cache.state.lock();
        let is_listed = state.fetching.get(&self.key).is_some_and(|cell| Arc::ptr_eq(cell, &self.cell));
        // The list and this one hold it.
        if is_listed && (self.cell.initialized() || Arc::strong_count(&self.cell) <= 2) {
            state.fetching.remove(&self.key);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicUsize, Ordering};

    use super::*;

    fn span(len: usize) -> Span {
        Span { bytes: vec![0; len].into(), object_len: len as u64, last_modified: DateTime::UNIX_EPOCH }
    }

    fn key(number: u64) -> SpanKey {
        ("a".into(), number)
    }

    #[tokio::test]
    async fn a_span_wanted_by_many_is_fetched_once() {
        let cache = SpanCache::new(1 << 20);
        let fetched = AtomicUsize::new(0);
        let wanting = (0..50).map(|_| {
            cache.get(key(1), || async {
                fetched.fetch_add(1, Ordering::SeqCst);
                tokio::task::yield_now().await;
                Ok::<_, ()>(span(10))
            })
        });
        for result in futures::future::join_all(wanting).await {
            assert_eq!(result.map(|span| span.bytes.len()), Ok(10));
        }
        assert_eq!(fetched.load(Ordering::SeqCst), 1);
        assert!(cache.state.lock().fetching.is_empty());
    }

    #[tokio::test]
    async fn a_cancelled_or_failed_fetch_leaves_nothing_behind() {
        let cache = SpanCache::new(1 << 20);
        let pending = cache.get(key(1), std::future::pending::<Result<Span, ()>>);
        tokio::select! {
            biased;
            _ = pending => panic!("it cannot end"),
            () = tokio::task::yield_now() => {}
        }
        assert!(cache.get(key(1), || async { Err::<Span, ()>(()) }).await.is_err());
        assert!(cache.state.lock().fetching.is_empty());
        assert!(cache.get(key(1), || async { Ok::<_, ()>(span(1)) }).await.is_ok());
    }

    #[tokio::test]
    async fn the_cache_keeps_to_its_bytes() {
        let cache = SpanCache::new(10_000);
        for number in 0..100 {
            assert!(cache.get(key(number), || async { Ok::<_, ()>(span(1000)) }).await.is_ok());
            assert!(cache.bytes() <= 10_000);
        }
        assert!(cache.get(key(1000), || async { Ok::<_, ()>(span(20_000)) }).await.is_ok());
        assert!(cache.bytes() > 0, "a span too large for the cache does not empty it");
    }
}
