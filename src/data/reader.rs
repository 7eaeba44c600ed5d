//! Reads blocks back from segments: from the cache, from bytes already fetched or under way, or by range GETs.

mod ahead;
mod fetch;
mod flights;
mod keys;
mod plan;
mod spans;
#[cfg(test)]
mod tests;

pub use ahead::ReadAhead;

use std::sync::Arc;

use bytes::Bytes;
use tokio::runtime::Handle;

use super::{BlockBuffers, DataError};
use crate::base::{BlockPlace, SegmentId, SegmentSeal};
use crate::cache::BlockCache;
use crate::vault::Vault;
use fetch::{Cargo, Fetcher, Found};
use flights::Boarding;
use plan::Batch;

/// A block that will be read, its segment's seal, and its segment's length in bytes.
pub type Want = (BlockPlace, SegmentSeal, u64);

/// A segment, and which span of it.
pub type Neighbourhood = (SegmentId, u32);

/// What a miss may fetch besides the block itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReadHint {
    /// Nothing: the reader jumps about.
    Single,
    /// The aligned span of about 2 MiB around it: files written together are read together.
    Neighbourhood,
}

/// Reads blocks. Cheap to clone; clones share everything.
///
/// Every fetch is a task of its own that any number of readers wait for: dropping a reader stops nobody
/// else, and concurrent misses on the same bytes are one GET. Only verified bytes come out.
#[derive(Clone)]
pub struct BlockReader(Arc<Fetcher>);

impl BlockReader {
    /// A reader that decrypts into `cache` and keeps up to `memory_bytes` (at least 12 MiB) of sealed bytes,
    /// in flight or as neighbourhoods. Fetches run on `runtime`; readers may be polled anywhere.
    #[must_use]
    pub fn new(vault: Vault, cache: Arc<BlockCache>, memory_bytes: u64, runtime: Handle) -> Self {
        Self(Arc::new(Fetcher::new(vault, cache, memory_bytes, runtime)))
    }

    /// Memory for blocks, which whoever makes some shares.
    #[must_use]
    pub fn buffers(&self) -> BlockBuffers {
        self.0.buffers.clone()
    }

    /// The block if it is in the cache. [`BlockReader::read_block`] looks there first, too, and is ready at
    /// its first poll then.
    #[must_use]
    pub fn cached(&self, place: &BlockPlace) -> Option<Bytes> {
        self.0.cache.get(place.segment, place.pos)
    }

    /// Whether the block is in the cache. Not counted, not a use.
    #[must_use]
    pub fn holds(&self, place: &BlockPlace) -> bool {
        self.0.cache.contains(place.segment, place.pos)
    }

    /// The block if it is in memory in a neighbourhood, and is what was sealed; into the cache.
    #[must_use]
    pub fn unsealed(&self, place: &BlockPlace, seal: &SegmentSeal) -> Option<Bytes> {
        let sealed = self.0.spans.get(place)?;
        self.0.open_from_span(place, seal, &sealed).ok()
    }

    /// The contents of the block at `place`, `place.piece.plain` bytes, of a segment of `segment_bytes`.
    ///
    /// # Errors
    /// [`DataError::Damaged`] if the bucket holds other bytes than were sealed, [`DataError::Missing`] without
    /// the segment, [`DataError::Unavailable`] if the bucket does not answer in time.
    pub async fn read_block(
        &self,
        place: &BlockPlace,
        seal: &SegmentSeal,
        segment_bytes: u64,
        hint: ReadHint,
    ) -> Result<Bytes, DataError> {
        if let Some(block) = self.cached(place) {
            return Ok(block);
        }
        let fetcher = &self.0;
        plan::check_bounds(place, segment_bytes)?;
        let batch = match hint {
            ReadHint::Single => Batch::of_block(place, seal),
            ReadHint::Neighbourhood => {
                Batch { range: spans::span_around(place, segment_bytes), ..Batch::of_block(place, seal) }
            }
        };
        let cargo = if hint == ReadHint::Single { Cargo::Blocks } else { Cargo::Span };
        let mut join_ahead = true;
        let block = place.sealed_range();
        loop {
            let boarding = fetcher
                .flights
                .board(place.segment, &block, &batch.range, join_ahead, || fetcher.find(place));
            let flight = match boarding {
                Boarding::Arrived(Found::Block(block)) => return Ok(block),
                Boarding::Arrived(Found::Sealed(sealed)) => {
                    return match fetcher.open_from_span(place, seal, &sealed) {
                        Err(DataError::Damaged { .. }) => self.read_alone(place, seal).await,
                        opened => opened,
                    };
                }
                Boarding::Joined(flight) => flight,
                Boarding::Started(flight, ticket) => {
                    fetcher.depart(batch.clone(), cargo, ticket);
                    flight
                }
            };
            let landed = flight.wait(place.segment).await;
            match landed.and_then(|sealed| fetcher.open_landed(place, seal, &sealed, flight.start())) {
                Ok(opened) => return Ok(opened),
                // What lies around the block may be damaged and not the block.
                Err(DataError::Damaged { .. }) if flight.brings_more_than(&block) => {
                    return self.read_alone(place, seal).await;
                }
                // What was only a guess ahead of time may have failed for want of time: ask again, for itself.
                Err(_) if flight.is_ahead() && join_ahead => join_ahead = false,
                Err(error) => return Err(error),
            }
        }
    }

    /// Fetches a block and nothing else, whatever is here or under way.
    async fn read_alone(&self, place: &BlockPlace, seal: &SegmentSeal) -> Result<Bytes, DataError> {
        let fetcher = &self.0;
        let batch = Batch::of_block(place, seal);
        let (flight, ticket) = fetcher.flights.begin(place.segment, &batch.range);
        fetcher.depart(batch, Cargo::Blocks, ticket);
        let sealed = flight.wait(place.segment).await?;
        fetcher.open_landed(place, seal, &sealed, flight.start())
    }

    /// Starts the GETs for blocks that are about to be read together, as few as possible, and returns at once.
    /// [`BlockReader::read_block`] on each then waits for these. For reads that span several blocks.
    pub fn gather(&self, wants: &[Want]) {
        for batch in self.0.plan(wants) {
            self.0.start_gathered(batch);
        }
    }

    /// Starts fetching blocks that a sequential reader will want, into the cache, and returns at once.
    /// A bounded number of GETs of up to 4 MiB run side by side, others wait in a bounded queue, and what
    /// exceeds that is dropped: these are only guesses. Nothing is remembered of one that fails.
    pub fn prefetch(&self, wants: Vec<Want>) {
        for batch in self.0.plan(&wants) {
            self.0.start_ahead(batch, Cargo::Ahead);
        }
    }

    /// Whether a stream that wants both blocks gets them with one GET, however it is cut into requests.
    #[must_use]
    pub fn comes_along(place: &BlockPlace, other: &BlockPlace) -> bool {
        place.segment == other.segment && plan::share(place) == plan::share(other)
    }

    /// Starts fetching the neighbourhood of a block that somebody will want, and returns at once. As with
    /// [`BlockReader::prefetch`], it may be dropped.
    pub fn prefetch_neighbourhood(&self, (place, seal, segment_bytes): &Want) {
        let range = spans::span_around(place, *segment_bytes);
        if plan::check_bounds(place, *segment_bytes).is_ok() && !self.0.is_span_served(place, &range) {
            self.0.start_ahead(Batch { range, ..Batch::of_block(place, seal) }, Cargo::Span);
        }
    }

    /// How many neighbourhoods are worth fetching before anybody asks for them.
    #[must_use]
    pub fn neighbourhoods_ahead_max(&self) -> usize {
        self.0.spans.ahead_max()
    }

    /// Which neighbourhood the block at `place` is in.
    #[must_use]
    pub const fn neighbourhood(place: &BlockPlace) -> Neighbourhood {
        spans::key(place)
    }

    /// Bytes that reads under way take, and sealed neighbourhoods.
    #[must_use]
    pub fn held_bytes(&self) -> u64 {
        self.0.held_bytes()
    }

    /// How far ahead each of `handles` sequential readers may ask, in bytes, so that all of them together stay
    /// within this reader's memory and half of the cache.
    #[must_use]
    pub fn window_bytes(&self, handles: usize) -> u64 {
        self.0.window_bytes(handles)
    }
}
