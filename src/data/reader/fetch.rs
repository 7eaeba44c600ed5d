//! Carries out fetches: memory permits, the GET, and opening what came.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use bytes::Bytes;
use tokio::runtime::Handle;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::Want;
use super::flights::{Flights, Ticket};
use super::keys::Keys;
use super::plan::{self, Batch, GET_BYTES_MAX};
use super::spans::Spans;
use crate::base::{BLOCK_LEN, BlockPlace, SegmentSeal, aside};
use crate::cache::BlockCache;
use crate::data::segment::open_block_into;
use crate::data::{BlockBuffers, DataError};
use crate::vault::Vault;

/// GETs ahead of time that run side by side.
const AHEAD_GETS_MAX: usize = 16;
/// GETs ahead of time that wait for their turn.
const AHEAD_QUEUE_MAX: usize = 64;
/// Memory for fetches under way below which large GETs could not run.
const FLIGHT_BYTES_MIN: u64 = 2 * GET_BYTES_MAX as u64;
/// Farthest that one sequential reader asks ahead.
const WINDOW_BYTES_MAX: u64 = 32 * 1024 * 1024;
/// Memory of blocks that nobody uses any more is kept for others: this part of what the cache may hold, and no more than
/// two segments have.
const BUFFERED: u64 = 16;
const BUFFERED_BYTES_MAX: u64 = 16 * 1024 * 1024;
/// Semaphores count in this unit, as they hold 32 bits.
const PERMIT_BYTES: u64 = 1024;

/// What the bytes of a fetch are for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cargo {
    /// A span to keep sealed.
    Span,
    /// Blocks that readers wait for.
    Blocks,
    /// Blocks that nobody waits for yet.
    Ahead,
}

/// Where a block was found without a fetch.
pub(super) enum Found {
    /// In the cache.
    Block(Bytes),
    /// In a span, sealed.
    Sealed(Bytes),
}

/// All that the clones of a reader share.
pub(super) struct Fetcher {
    vault: Vault,
    pub(super) cache: Arc<BlockCache>,
    runtime: Handle,
    pub(super) flights: Flights,
    pub(super) spans: Spans,
    keys: Keys,
    pub(super) buffers: BlockBuffers,
    /// Bytes of all fetches under way.
    memory: Arc<Semaphore>,
    memory_permits: u32,
    /// The three quarters of them that fetches ahead of time may take: a waiting reader always finds some.
    ahead_memory: Arc<Semaphore>,
    ahead_bytes: u64,
    ahead_gets: Arc<Semaphore>,
    ahead_queued: AtomicUsize,
}

impl Fetcher {
    pub(super) fn new(vault: Vault, cache: Arc<BlockCache>, memory_bytes: u64, runtime: Handle) -> Self {
        let span_bytes = memory_bytes / 4;
        let flight_bytes = (memory_bytes - span_bytes).max(FLIGHT_BYTES_MIN);
        let ahead_bytes = flight_bytes / 4 * 3;
        let buffered_bytes = (cache.capacity_bytes() / BUFFERED).min(BUFFERED_BYTES_MAX);
        let buffers = BlockBuffers::stocked((buffered_bytes / BLOCK_LEN) as usize, &runtime);
        Self {
            vault,
            cache,
            runtime,
            flights: Flights::default(),
            spans: Spans::new(span_bytes),
            keys: Keys::new(),
            buffers,
            memory: Arc::new(Semaphore::new(permits(flight_bytes) as usize)),
            memory_permits: permits(flight_bytes),
            ahead_memory: Arc::new(Semaphore::new(permits(ahead_bytes) as usize)),
            ahead_bytes,
            ahead_gets: Arc::new(Semaphore::new(AHEAD_GETS_MAX)),
            ahead_queued: AtomicUsize::new(0),
        }
    }

    /// Bytes that fetches under way take, and sealed neighbourhoods.
    pub(super) fn held_bytes(&self) -> u64 {
        let free = self.memory.available_permits() as u64;
        let flights = u64::from(self.memory_permits).saturating_sub(free) * PERMIT_BYTES;
        flights + self.spans.bytes()
    }

    pub(super) fn window_bytes(&self, handles: usize) -> u64 {
        let shared = self.ahead_bytes.min(self.cache.capacity_bytes() / 2);
        (shared / handles.max(1) as u64).min(WINDOW_BYTES_MAX)
    }

    #[cfg(test)]
    pub(super) fn is_queued(&self) -> bool {
        self.ahead_queued.load(Ordering::Relaxed) > 0
    }

    /// The block if no fetch is needed for it.
    pub(super) fn find(&self, place: &BlockPlace) -> Option<Found> {
        let cached = self.cache.peek(place.segment, place.pos).map(Found::Block);
        cached.or_else(|| self.spans.get(place).map(Found::Sealed))
    }

    /// The GETs for those of `wants` that are neither here nor under way.
    pub(super) fn plan(&self, wants: &[Want]) -> Vec<Batch> {
        plan::plan(wants.iter().filter(|(place, ..)| !self.is_served(place)))
    }

    /// Whether the block at `place` is here or under way.
    pub(super) fn is_served(&self, place: &BlockPlace) -> bool {
        self.cache.contains(place.segment, place.pos)
            || self.spans.covers(place)
            || self.flights.covers(place.segment, &place.sealed_range())
    }

    /// Whether the span around the block at `place` is, or has been, here, or is under way. The block alone may come with the
    /// span before, which overlaps it.
    pub(super) fn is_span_served(&self, place: &BlockPlace, range: &Range<u32>) -> bool {
        // Who has read the block has had the span, of which the rest may have been read since as well.
        self.cache.contains(place.segment, place.pos)
            || self.spans.covers(place)
            || self.flights.covers(place.segment, range)
    }

    /// Fetches a batch that readers wait for.
    pub(super) fn depart(self: &Arc<Self>, batch: Batch, cargo: Cargo, ticket: Ticket) {
        let fetcher = Arc::clone(self);
        self.runtime.spawn(async move { fetcher.fetch(batch, cargo, ticket).await });
    }

    /// Fetches a batch that readers are about to wait for.
    pub(super) fn start_gathered(self: &Arc<Self>, batch: Batch) {
        let ticket = self.flights.launch(batch.segment, &batch.range, false);
        self.depart(batch, Cargo::Blocks, ticket);
    }

    /// Fetches a batch ahead of time, as blocks to open or as a span to keep: now if there is room, else after waiting
    /// in the queue, if that has room.
    pub(super) fn start_ahead(self: &Arc<Self>, batch: Batch, cargo: Cargo) {
        let bytes = permits(batch.range.len() as u64);
        let gets = Arc::clone(&self.ahead_gets).try_acquire_owned();
        let memory =
            gets.and_then(|get| Ok((get, Arc::clone(&self.ahead_memory).try_acquire_many_owned(bytes)?)));
        if let Ok(room) = memory {
            return self.fly_ahead(batch, cargo, room);
        }
        if self.ahead_queued.fetch_add(1, Ordering::Relaxed) >= AHEAD_QUEUE_MAX {
            self.ahead_queued.fetch_sub(1, Ordering::Relaxed);
            return;
        }
        let fetcher = Arc::clone(self);
        self.runtime.spawn(async move {
            let get = Arc::clone(&fetcher.ahead_gets).acquire_owned().await;
            let memory = Arc::clone(&fetcher.ahead_memory).acquire_many_owned(bytes).await;
            fetcher.ahead_queued.fetch_sub(1, Ordering::Relaxed);
            // Meanwhile readers may have fetched some of it themselves.
            let left = match cargo {
                Cargo::Span => {
                    let is_served = |place| fetcher.is_span_served(place, &batch.range);
                    (!batch.blocks.iter().any(is_served)).then_some(batch)
                }
                Cargo::Blocks | Cargo::Ahead => batch.without(|place| fetcher.is_served(place)),
            };
            if let (Ok(get), Ok(memory), Some(left)) = (get, memory, left) {
                fetcher.fly_ahead(left, cargo, (get, memory));
            }
        });
    }

    fn fly_ahead(
        self: &Arc<Self>,
        batch: Batch,
        cargo: Cargo,
        room: (OwnedSemaphorePermit, OwnedSemaphorePermit),
    ) {
        let ticket = self.flights.launch(batch.segment, &batch.range, true);
        let fetcher = Arc::clone(self);
        self.runtime.spawn(async move {
            fetcher.fetch(batch, cargo, ticket).await;
            drop(room);
        });
    }

    async fn fetch(self: Arc<Self>, batch: Batch, cargo: Cargo, mut ticket: Ticket) {
        let (start, bytes_wanted) = (batch.range.start, batch.range.len());
        // The semaphore is never closed; were it, fetching without a permit would harm nobody.
        let _memory = self.memory.acquire_many(permits(bytes_wanted as u64)).await;
        let range = u64::from(start)..u64::from(batch.range.end);
        let bytes = match self.vault.get_segment(batch.segment, range).await {
            Ok(bytes) if bytes.len() == bytes_wanted => bytes,
            Ok(_) => {
                let why = "fewer bytes came than it must have";
                return ticket.fail(DataError::Damaged { segment: batch.segment, pos: start, why });
            }
            Err(error) => return ticket.fail(DataError::from_vault(batch.segment, error)),
        };
        match cargo {
            Cargo::Span => {
                self.spans.insert(batch.segment, start, bytes.clone());
                ticket.announce(bytes);
            }
            Cargo::Blocks if batch.blocks.len() == 1 => {
                self.stow(&batch, cargo, &bytes);
                ticket.announce(bytes);
            }
            Cargo::Blocks | Cargo::Ahead => {
                ticket.announce(bytes.clone());
                let fetcher = Arc::clone(&self);
                // The ticket stays until all blocks are in the cache, so that none is fetched again meanwhile.
                let _ = aside(&self.runtime, move || fetcher.stow(&batch, cargo, &bytes)).await;
            }
        }
    }

    /// Opens a batch's blocks into the cache, from the last to the first: who waits for them opens from the
    /// first on, so that the two share the work. Damage is left to be found by who reads the block.
    fn stow(&self, batch: &Batch, cargo: Cargo, bytes: &Bytes) {
        for place in batch.blocks.iter().rev() {
            if self.cache.contains(place.segment, place.pos) {
                continue;
            }
            let Some(sealed) = part(bytes, place, batch.range.start) else { continue };
            let Ok(block) = self.open(place, &batch.seal, sealed) else { continue };
            match cargo {
                Cargo::Ahead => self.cache.insert_ahead(place.segment, place.pos, block),
                Cargo::Span | Cargo::Blocks => self.cache.insert(place.segment, place.pos, block),
            }
        }
    }

    /// The block at `place` out of a landed flight's bytes, which begin at `start`.
    pub(super) fn open_landed(
        &self,
        place: &BlockPlace,
        seal: &SegmentSeal,
        bytes: &Bytes,
        start: u32,
    ) -> Result<Bytes, DataError> {
        if let Some(block) = self.cache.peek(place.segment, place.pos) {
            return Ok(block);
        }
        let why = "a fetch does not hold its block";
        let cut = DataError::Damaged { segment: place.segment, pos: place.pos, why };
        self.open_from_span(place, seal, part(bytes, place, start).ok_or(cut)?)
    }

    /// Opens a block for a reader, into the cache. A span that held damaged bytes is forgotten.
    pub(super) fn open_from_span(
        &self,
        place: &BlockPlace,
        seal: &SegmentSeal,
        sealed: &[u8],
    ) -> Result<Bytes, DataError> {
        let block = self.open(place, seal, sealed).inspect_err(|_| self.spans.forget(place))?;
        self.cache.insert(place.segment, place.pos, block.clone());
        Ok(block)
    }

    fn open(&self, place: &BlockPlace, seal: &SegmentSeal, sealed: &[u8]) -> Result<Bytes, DataError> {
        let key = self.keys.get(&self.vault, place.segment, seal)?;
        open_block_into(&self.buffers, &key, place, sealed)
    }
}

/// The sealed bytes of `place` in bytes of its segment that begin at `start`.
fn part<'a>(bytes: &'a Bytes, place: &BlockPlace, start: u32) -> Option<&'a [u8]> {
    let range = place.sealed_range();
    bytes.get(range.start.checked_sub(start)? as usize..range.end.checked_sub(start)? as usize)
}

/// Semaphore permits for so many bytes; never more than one GET of the largest size needs, per GET.
fn permits(bytes: u64) -> u32 {
    u32::try_from(bytes.div_ceil(PERMIT_BYTES)).unwrap_or(u32::MAX)
}
