//! Opens every block that files refer to: large GETs, many at a time, and the memory they take bounded.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use lru::LruCache;
use tokio::task::JoinSet;

use super::MaintError;
use super::blocks::Lost;
use super::finding::LostBecause;
use crate::base::{BlockPlace, Ino, SegmentId, SegmentSeal};
use crate::crypto::ObjectKey;
use crate::data::DataError;
use crate::data::segment::open_block;
use crate::vault::{Vault, VaultError};

/// Most that one GET asks for.
const GET_BYTES_MAX: u32 = 4 * 1024 * 1024;
/// Bytes between two wanted blocks that are fetched rather than asked for apart.
const GAP_BYTES_MAX: u32 = 256 * 1024;
/// GETs under way: with what they bring, up to 64 MiB.
const GETS_MAX: usize = 16;
/// Segments of which blocks are gathered at a time, because files written together lie together.
const OPEN_BATCHES_MAX: usize = 32;
/// Blocks of one GET.
const BATCH_BLOCKS_MAX: usize = 8192;
/// Keys of segments that are kept.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::new(256).unwrap();

/// One block that is to be opened.
#[derive(Clone, Copy, Debug)]
struct Wanted {
    ino: Ino,
    index: u64,
    size: u64,
    place: BlockPlace,
}

/// Blocks that one GET brings.
struct Batch {
    segment: SegmentId,
    key: Arc<ObjectKey>,
    range: Range<u32>,
    blocks: Vec<Wanted>,
}

/// A block that does not read.
type Bad = (Wanted, LostBecause);

/// A batch that is done with: the bytes that its blocks have, those that were fetched and opened, and what does not read.
struct Done {
    blocks: u64,
    bytes: u64,
    bad: Vec<Bad>,
}

/// Gathers blocks into GETs and opens what they bring.
pub(super) struct DataReader {
    vault: Vault,
    keys: LruCache<SegmentId, Arc<ObjectKey>>,
    batches: VecDeque<Batch>,
    tasks: JoinSet<Result<Done, DataError>>,
    lost: Lost,
    bytes: u64,
    /// Bytes of blocks whose turn has come and gone; without what lay between them.
    opened: u64,
}

impl DataReader {
    pub(super) fn new(vault: Vault) -> Self {
        Self {
            vault,
            keys: LruCache::new(KEYS_MAX),
            batches: VecDeque::new(),
            tasks: JoinSet::new(),
            lost: Lost::default(),
            bytes: 0,
            opened: 0,
        }
    }

    /// Bytes of the blocks that are done with.
    pub(super) const fn opened(&self) -> u64 {
        self.opened
    }

    /// Adds block `index` of `ino`.
    pub(super) async fn push(
        &mut self,
        ino: Ino,
        index: u64,
        size: u64,
        place: BlockPlace,
        seal: &SegmentSeal,
    ) -> Result<(), MaintError> {
        let wanted = Wanted { ino, index, size, place };
        if let Some(at) = self.batches.iter().position(|batch| batch.segment == place.segment) {
            if let Some(batch) = self.batches.get_mut(at)
                && batch.takes(&place)
            {
                batch.add(wanted);
                return Ok(());
            }
            if let Some(full) = self.batches.remove(at) {
                self.send(full).await?;
            }
        }
        let key = match self.keys.get(&place.segment) {
            Some(key) => Arc::clone(key),
            None => {
                let key = Arc::new(self.vault.segment_key(place.segment, seal)?);
                self.keys.put(place.segment, Arc::clone(&key));
                key
            }
        };
        let batch = Batch { segment: place.segment, key, range: place.sealed_range(), blocks: vec![wanted] };
        self.batches.push_back(batch);
        if self.batches.len() > OPEN_BATCHES_MAX
            && let Some(oldest) = self.batches.pop_front()
        {
            self.send(oldest).await?;
        }
        Ok(())
    }

    /// Waits for everything, and tells each time how many bytes are done with; gives what does not read, how many bytes do,
    /// and how many the blocks have.
    pub(super) async fn finish(mut self, tell: impl Fn(u64)) -> Result<(Lost, u64, u64), MaintError> {
        while let Some(batch) = self.batches.pop_front() {
            self.send(batch).await?;
            tell(self.opened);
        }
        while !self.tasks.is_empty() {
            self.take_in().await?;
            tell(self.opened);
        }
        Ok((self.lost, self.bytes, self.opened))
    }

    async fn send(&mut self, batch: Batch) -> Result<(), MaintError> {
        while self.tasks.len() >= GETS_MAX {
            self.take_in().await?;
        }
        let blocks: u64 = batch.blocks.iter().map(|wanted| wanted.place.sealed_range().len() as u64).sum();
        let work = carry_out(self.vault.clone(), batch);
        self.tasks.spawn(async move { work.await.map(|(bytes, bad)| Done { blocks, bytes, bad }) });
        Ok(())
    }

    async fn take_in(&mut self) -> Result<(), MaintError> {
        match self.tasks.join_next().await {
            None => {}
            Some(Err(stopped)) => {
                tracing::error!(%stopped, "a task that opened blocks was stopped");
                return Err(MaintError::Moving);
            }
            Some(Ok(result)) => {
                let Done { blocks, bytes, bad } = result?;
                self.opened += blocks;
                self.bytes += bytes;
                for (wanted, because) in bad {
                    let blocks = wanted.index..wanted.index.saturating_add(1);
                    let segment = Some(wanted.place.segment);
                    self.lost.add(wanted.ino, because, segment, blocks, wanted.size);
                }
            }
        }
        Ok(())
    }
}

impl Batch {
    fn takes(&self, place: &BlockPlace) -> bool {
        let block = place.sealed_range();
        let range = self.range.start.min(block.start)..self.range.end.max(block.end);
        let gap = block.start.saturating_sub(self.range.end).max(self.range.start.saturating_sub(block.end));
        range.end - range.start <= GET_BYTES_MAX
            && gap <= GAP_BYTES_MAX
            && self.blocks.len() < BATCH_BLOCKS_MAX
    }

    fn add(&mut self, wanted: Wanted) {
        let block = wanted.place.sealed_range();
        self.range = self.range.start.min(block.start)..self.range.end.max(block.end);
        self.blocks.push(wanted);
    }

    /// Opens all blocks out of the bytes of the whole range.
    fn open(&self, bytes: &Bytes) -> Vec<Bad> {
        let is_bad = |wanted: &&Wanted| {
            let range = wanted.place.sealed_range();
            let from = (range.start - self.range.start) as usize;
            let sealed = bytes.get(from..from + range.len());
            sealed.is_none_or(|sealed| open_block(&self.key, &wanted.place, sealed).is_err())
        };
        self.blocks.iter().filter(is_bad).map(|wanted| (*wanted, LostBecause::Altered)).collect()
    }
}

async fn carry_out(vault: Vault, batch: Batch) -> Result<(u64, Vec<Bad>), DataError> {
    let range = u64::from(batch.range.start)..u64::from(batch.range.end);
    match vault.get_segment(batch.segment, range).await {
        Ok(bytes) => {
            let opened = tokio::task::spawn_blocking(move || {
                let bad = batch.open(&bytes);
                (bytes.len() as u64, bad)
            });
            // A panic there is told by the runtime; it says nothing of the blocks.
            opened.await.map_err(|_| DataError::BlockLength { bytes: 0 })
        }
        Err(VaultError::Missing(_)) => {
            let bad = batch.blocks.iter().map(|wanted| (*wanted, LostBecause::SegmentMissing));
            Ok((0, bad.collect()))
        }
        Err(VaultError::Damaged(_)) => one_by_one(&vault, &batch).await,
        Err(error) => Err(DataError::Unavailable { segment: batch.segment, source: Some(Arc::new(error)) }),
    }
}

/// Opens each block by a GET of its own, where the range as a whole cannot be had.
async fn one_by_one(vault: &Vault, batch: &Batch) -> Result<(u64, Vec<Bad>), DataError> {
    let (mut total, mut bad) = (0, Vec::new());
    for wanted in &batch.blocks {
        let range = wanted.place.sealed_range();
        let fetched = vault.get_segment(batch.segment, u64::from(range.start)..u64::from(range.end)).await;
        match fetched {
            Ok(bytes) if open_block(&batch.key, &wanted.place, &bytes).is_ok() => total += bytes.len() as u64,
            Ok(_) => bad.push((*wanted, LostBecause::Altered)),
            Err(VaultError::Missing(_)) => bad.push((*wanted, LostBecause::SegmentMissing)),
            Err(VaultError::Damaged(_)) => bad.push((*wanted, LostBecause::SegmentShort)),
            Err(error) => {
                let source = Some(Arc::new(error));
                return Err(DataError::Unavailable { segment: batch.segment, source });
            }
        }
    }
    Ok((total, bad))
}
