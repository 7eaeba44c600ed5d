//! The small cache of sealed neighbourhoods: aligned spans of segments, opened block by block as wanted.

use std::ops::Range;

use bytes::Bytes;
use lru::LruCache;
use parking_lot::Mutex;

use crate::base::BlockPlace;
use crate::base::{BLOCK_BYTES, SegmentId};
use crate::crypto::TAG_BYTES;

/// Spans begin at multiples of this.
pub(super) const SPAN_BYTES: u32 = 2 * 1024 * 1024;
/// And reach so much into the next, so that each block lies whole in the span it begins in.
const OVERLAP_BYTES: u32 = (BLOCK_BYTES + TAG_BYTES) as u32;

/// Sealed spans, bounded by bytes, the least recently used going first.
pub(super) struct Spans {
    bytes_max: u64,
    held: Mutex<Held>,
}

struct Held {
    spans: LruCache<(SegmentId, u32), Bytes>,
    bytes: u64,
}

/// The byte range of the span in which the block at `place` begins, in a segment of `segment_bytes`.
pub(super) fn span_around(place: &BlockPlace, segment_bytes: u64) -> Range<u32> {
    let start = place.pos - place.pos % SPAN_BYTES;
    let end = start.saturating_add(SPAN_BYTES + OVERLAP_BYTES);
    start..u32::try_from(segment_bytes).unwrap_or(u32::MAX).min(end)
}

impl Spans {
    pub(super) fn new(bytes_max: u64) -> Self {
        Self { bytes_max, held: Mutex::new(Held { spans: LruCache::unbounded(), bytes: 0 }) }
    }

    /// How many spans may be fetched before anybody asks for them, so that those asked for stay.
    pub(super) const fn ahead_max(&self) -> usize {
        (self.bytes_max / 2 / (SPAN_BYTES + OVERLAP_BYTES) as u64) as usize
    }

    /// The sealed bytes of the block at `place`.
    pub(super) fn get(&self, place: &BlockPlace) -> Option<Bytes> {
        let start = place.pos % SPAN_BYTES;
        let end = start.checked_add(place.piece.sealed_bytes())?;
        let mut held = self.held.lock();
        let span = held.spans.get(&key(place))?;
        (end as usize <= span.len()).then(|| span.slice(start as usize..end as usize))
    }

    /// Whether [`Spans::get`] would find it.
    pub(super) fn covers(&self, place: &BlockPlace) -> bool {
        let end = (place.pos % SPAN_BYTES).checked_add(place.piece.sealed_bytes());
        let held = self.held.lock();
        held.spans.peek(&key(place)).zip(end).is_some_and(|(span, end)| end as usize <= span.len())
    }

    /// Keeps the span that begins at `start` of `segment`.
    pub(super) fn insert(&self, segment: SegmentId, start: u32, span: Bytes) {
        let mut held = self.held.lock();
        held.bytes += span.len() as u64;
        let mut gone: Vec<Bytes> = held.spans.put((segment, start / SPAN_BYTES), span).into_iter().collect();
        held.bytes -= gone.iter().map(|span| span.len() as u64).sum::<u64>();
        while held.bytes > self.bytes_max
            && let Some((_, span)) = held.spans.pop_lru()
        {
            held.bytes -= span.len() as u64;
            gone.push(span);
        }
        // Spans are freed after the lock is.
        drop(held);
    }

    /// Forgets the span in which the block at `place` begins: it proved damaged; the next may not be.
    pub(super) fn forget(&self, place: &BlockPlace) {
        let mut held = self.held.lock();
        if let Some(span) = held.spans.pop(&key(place)) {
            held.bytes -= span.len() as u64;
        }
    }

    /// Bytes that are held.
    pub(super) fn bytes(&self) -> u64 {
        self.held.lock().bytes
    }
}

/// The span in which the block at `place` begins, counted from the beginning of its segment.
pub(super) const fn key(place: &BlockPlace) -> (SegmentId, u32) {
    (place.segment, place.pos / SPAN_BYTES)
}
