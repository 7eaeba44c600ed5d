//! File contents that are not committed: the open group's changes over the sealed group's.
//!
//! A pure data structure: it asks nobody and waits for nothing.

mod block;
mod layer;
mod put_off;
mod sealed;
mod sums;
mod withdraw;

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use bytes::Bytes;

use super::{BlockBuffers, Move, Moved};
use crate::base::{BLOCK_BYTES, BLOCK_LEN, BlockIndex, BlockPlace, Ino, NewSegment, RangeSet, SegmentId};

pub(crate) use block::{Block, MemBlock, Under};
pub(crate) use layer::{FileChange, Layer};
pub use put_off::Unsent;

use sums::Sums;

/// Bytes that a changed file takes beside its contents and blocks: its place in the layer, a map for its blocks of which
/// the smallest node has room for eleven, and its edit while it is committed.
const FILE_BYTES: usize =
    11 * (size_of::<Block>() + 8) + 2 * size_of::<(Ino, FileChange)>() + 2 * size_of::<FileEdit>();
/// The same of a block: its place in the file's map, which ranges were written, its place in the edit.
const CHANGED_BLOCK_BYTES: usize = 2 * size_of::<Block>() + 128;

/// A block taken for upload.
#[derive(Clone, Debug)]
pub struct SentBlock {
    /// The file.
    pub ino: Ino,
    /// The block's index in it.
    pub index: u64,
    /// Its contents; bytes past their end are zero.
    pub bytes: Bytes,
}

/// Blocks that become one segment.
#[derive(Debug)]
pub struct Batch {
    /// The segment.
    pub segment: SegmentId,
    /// The blocks, in the order they are to lie in.
    pub blocks: Vec<SentBlock>,
}

/// What a group does to the contents of one file.
#[derive(Debug, Default)]
pub struct FileEdit {
    /// The file is gone.
    pub is_freed: bool,
    /// Blocks that are no longer what they were.
    pub void: RangeSet,
    /// Blocks that are in segments now, in order.
    pub stored: Vec<(u64, BlockPlace)>,
    /// Blocks that are in records now, in order, with their length.
    pub inline: Vec<(u64, u32)>,
    /// Those of `stored` that lie where a copy was asked to share them.
    pub shared: Vec<u64>,
    /// Blocks that the cleaner has copied.
    pub moves: Vec<Move>,
}

/// What remains to be asked after the uncommitted layers have been looked through.
#[derive(Clone, Debug)]
pub enum Beneath {
    /// Nothing: all bytes that no layer covers are zero.
    Zeros,
    /// This stored block.
    Place(BlockPlace),
    /// These bytes, and zeros after them.
    Bytes(Bytes),
    /// What the last commit has.
    Committed,
}

/// Uncommitted bytes of a block, to be laid over older ones.
#[derive(Clone, Debug)]
pub struct Paint(Vec<MemBlock>);

impl Paint {
    /// Lays them over `target`, the part of the block that begins at `from`.
    pub fn apply(&self, target: &mut [u8], from: usize) {
        for block in &self.0 {
            block.paint(target, from);
        }
    }
}

/// All file contents that are not committed.
#[derive(Debug, Default)]
pub struct Dirty {
    open: Layer,
    sealed: Option<Layer>,
    /// What the blocks of both layers come to.
    sums: Sums,
    /// Segments on their way, and the bytes of their blocks.
    flights: BTreeMap<SegmentId, usize>,
    /// Segments in the bucket that no commit knows.
    segments: BTreeMap<SegmentId, NewSegment>,
    /// Full blocks of the open layer that could go, in the order they filled.
    full: VecDeque<(Ino, u64)>,
    /// Blocks committed as records that belong into a segment.
    repack: BTreeSet<(Ino, u64)>,
    /// Blocks of the sealed layer that were on their way are in memory again.
    has_withdrawn: bool,
    /// Memory for blocks that are written whole.
    buffers: BlockBuffers,
}

impl Dirty {
    /// One without contents, which are to lie in memory of `buffers`.
    #[must_use]
    pub fn in_buffers(buffers: BlockBuffers) -> Self {
        Self { buffers, ..Self::default() }
    }

    /// Bytes of contents in memory that are not in the bucket.
    #[must_use]
    pub const fn bytes(&self) -> usize {
        self.sums.mem
    }

    /// Bytes of contents, in memory or in the bucket, that are about to be added to what the volume stores.
    #[must_use]
    pub const fn plain_bytes(&self) -> u64 {
        self.sums.plain
    }

    /// Bytes that all of it takes in memory once partly written blocks are completed, with the tables that say whose contents they are and what a commit adds to
    /// those.
    #[must_use]
    pub fn held_bytes(&self) -> usize {
        let files = self.open.files.len() + self.sealed.as_ref().map_or(0, |layer| layer.files.len());
        self.sums.mem + self.sums.to_come + files * FILE_BYTES + self.sums.count * CHANGED_BLOCK_BYTES
    }

    /// Whether there is nothing to commit.
    #[must_use]
    pub fn is_open_empty(&self) -> bool {
        self.open.files.is_empty()
            && (self.sealed.is_some() || (self.segments.is_empty() && self.flights.is_empty()))
    }

    /// Whether the open group changes the contents of `ino`.
    #[must_use]
    pub fn is_open(&self, ino: Ino) -> bool {
        self.open.files.contains_key(&ino)
    }

    /// Bytes that are about to be added to what is stored of `ino`, for `st_blocks`; `None` if nothing of it changes.
    #[must_use]
    pub fn pending_of(&self, ino: Ino) -> Option<u64> {
        let layers = [Some(&self.open), self.sealed.as_ref()];
        let files = layers.into_iter().flatten().filter_map(|layer| layer.files.get(&ino));
        let added = files.flat_map(|file| file.blocks.values()).map(|block| Sums::of(block).plain).sum();
        self.is_changed(ino).then_some(added)
    }

    /// Writes `data` at `offset` of `ino`, which was `size` bytes long until now.
    pub fn write(&mut self, ino: Ino, offset: u64, data: &[u8], size: u64) {
        let size_after = size.max(offset + data.len() as u64);
        let buffers = self.buffers.clone();
        let mut done = 0;
        while let Some(rest) = data.get(done..).filter(|rest| !rest.is_empty()) {
            let position = offset + done as u64;
            let index = BlockIndex::of(position).0;
            let at = (position % BLOCK_LEN) as usize;
            let len = rest.len().min(BLOCK_BYTES - at);
            let Some(part) = rest.get(..len) else { return };
            let end_of_file = end_in_block(size_after, index);
            self.change(ino, index, size, |block| {
                block.make_room(at + len, &buffers);
                block.write(at, part, end_of_file);
            });
            done += len;
        }
    }

    /// Changes a block of the open layer, making it one that takes writes.
    fn change(&mut self, ino: Ino, index: u64, size: u64, edit: impl FnOnce(&mut MemBlock)) {
        let older = self.has_older(ino, index, size);
        let file = self.open.files.entry(ino).or_default();
        if let Some(old) = file.blocks.get(&index) {
            self.sums -= Sums::of(old);
        }
        let fresh = || match older {
            true => MemBlock::over(end_in_block(size, index)),
            false => MemBlock::new(Under::Zeros),
        };
        let slot = file.blocks.entry(index).or_insert_with(|| Block::Mem(fresh()));
        let mut block = match std::mem::replace(slot, Block::Mem(MemBlock::new(Under::Zeros))) {
            Block::Mem(block) => block,
            Block::Sent { bytes, .. } => MemBlock::whole(bytes.to_vec()),
            Block::Stored(place) => MemBlock::new(Under::Place(place)),
        };
        let was_full = block.is_full();
        edit(&mut block);
        if block.is_full() && !was_full {
            self.full.push_back((ino, index));
        }
        *slot = Block::Mem(block);
        self.sums += Sums::of(slot);
    }

    /// Whether layers under the open one may have bytes of this block.
    fn has_older(&self, ino: Ino, index: u64, size: u64) -> bool {
        let void = self.open.files.get(&ino).is_some_and(|file| file.void.contains(index));
        !void && BlockIndex(index).start() < size
    }

    /// Cuts `ino`, which was `size` bytes long, to `new_size`; or lengthens it by a hole.
    pub fn truncate(&mut self, ino: Ino, size: u64, new_size: u64) {
        if new_size >= size {
            return;
        }
        let first_gone = new_size.div_ceil(BLOCK_LEN);
        self.void(ino, first_gone, u64::MAX);
        if new_size == 0 {
            self.open.files.entry(ino).or_default().emptied = true;
        }
        let at = (new_size % BLOCK_LEN) as usize;
        let index = BlockIndex::of(new_size).0;
        if at != 0 && (self.has_older(ino, index, size) || self.has_open(ino, index)) {
            let end_of_file = end_in_block(size, index);
            self.change(ino, index, size, |block| block.cut(at, end_of_file));
        }
    }

    fn has_open(&self, ino: Ino, index: u64) -> bool {
        self.open.files.get(&ino).is_some_and(|file| file.blocks.contains_key(&index))
    }

    /// Makes the bytes `from..to` of `ino`, which is `size` bytes long, a hole.
    pub fn punch(&mut self, ino: Ino, from: u64, to: u64, size: u64) {
        let (first_whole, end_whole) = (from.div_ceil(BLOCK_LEN), to / BLOCK_LEN);
        if first_whole < end_whole {
            self.void(ino, first_whole, end_whole);
        }
        let mut edge = |from: u64, to: u64| {
            let index = BlockIndex::of(from).0;
            let start = BlockIndex(index).start();
            let range = (from - start) as usize..(to - start) as usize;
            if !range.is_empty() && (self.has_older(ino, index, size) || self.has_open(ino, index)) {
                let end_of_file = end_in_block(size, index);
                self.change(ino, index, size, |block| block.zero(range, end_of_file));
            }
        };
        if BlockIndex::of(from) == BlockIndex::of(to) {
            edge(from, to);
        } else {
            if !from.is_multiple_of(BLOCK_LEN) {
                edge(from, first_whole.saturating_mul(BLOCK_LEN));
            }
            edge(end_whole * BLOCK_LEN, to);
        }
    }

    fn void(&mut self, ino: Ino, from: u64, to: u64) {
        let file = self.open.files.entry(ino).or_default();
        self.sums -= file.void_range(from..to);
    }

    /// Makes a block of `ino` a hole.
    pub fn void_block(&mut self, ino: Ino, index: u64) {
        self.void(ino, index, index + 1);
    }

    /// Makes a block of `ino` one that is stored already.
    pub fn share(&mut self, ino: Ino, index: u64, place: BlockPlace) {
        let file = self.open.files.entry(ino).or_default();
        file.shared.insert(index);
        self.sums += Sums::of(&Block::Stored(place));
        if let Some(old) = file.blocks.insert(index, Block::Stored(place)) {
            self.sums -= Sums::of(&old);
        }
    }

    /// A commit has moved blocks: what the open layer has taken over from older ones lies elsewhere now.
    pub fn follow(&mut self, moved: &Moved) {
        if moved.is_empty() {
            return;
        }
        for block in self.open.files.values_mut().flat_map(|file| file.blocks.values_mut()) {
            match block {
                Block::Stored(place) => *place = moved.get(place).unwrap_or(*place),
                Block::Mem(mem) => mem.follow(moved),
                Block::Sent { .. } => {}
            }
        }
    }

    /// The file is gone, and all its contents with it.
    pub fn free(&mut self, ino: Ino) {
        self.void(ino, 0, u64::MAX);
        self.open.files.entry(ino).or_default().freed = true;
    }

    /// The file was never committed nor sealed, and is gone.
    pub fn forget(&mut self, ino: Ino) {
        self.void(ino, 0, u64::MAX);
        self.open.files.remove(&ino);
    }

    /// A copy of the uncommitted bytes that lie over what is [`Dirty::beneath`] a block.
    #[must_use]
    pub fn paint_of(&self, ino: Ino, index: u64) -> Paint {
        Paint(self.painters(ino, index).into_iter().rev().flatten().cloned().collect())
    }

    /// Whether uncommitted bytes lie over what is [`Dirty::beneath`] a block.
    #[must_use]
    pub fn has_paint(&self, ino: Ino, index: u64) -> bool {
        self.painters(ino, index).iter().any(Option::is_some)
    }

    /// The blocks in memory that show through, newest first.
    fn painters(&self, ino: Ino, index: u64) -> [Option<&MemBlock>; 2] {
        let mut painters = [None, None];
        let layers = [Some(&self.open), self.sealed.as_ref()];
        for (slot, layer) in painters.iter_mut().zip(layers) {
            let Some(file) = layer.and_then(|layer| layer.files.get(&ino)) else { continue };
            match file.blocks.get(&index) {
                Some(Block::Mem(block)) => {
                    *slot = Some(block);
                    if !matches!(block.under(), Under::Older) {
                        break;
                    }
                }
                Some(Block::Sent { .. } | Block::Stored(_)) => break,
                None if file.void.contains(index) => break,
                None => {}
            }
        }
        painters
    }

    /// What lies under the uncommitted bytes of a block.
    #[must_use]
    pub fn beneath(&self, ino: Ino, index: u64) -> Beneath {
        beneath([Some(&self.open), self.sealed.as_ref()], ino, index)
    }

    /// The next block at or after `index` that an uncommitted layer has, and the layers' answer to
    /// whether `index` itself is void.
    #[must_use]
    pub fn next_changed(&self, ino: Ino, index: u64) -> Option<u64> {
        let layers = [Some(&self.open), self.sealed.as_ref()];
        let files = layers.into_iter().flatten().filter_map(|layer| layer.files.get(&ino));
        files.filter_map(|file| file.blocks.range(index..).next()).map(|(index, _)| *index).min()
    }

    /// The blocks of `ino` that uncommitted layers have, in order.
    #[must_use]
    pub fn changed_blocks(&self, ino: Ino) -> BTreeSet<u64> {
        let layers = [Some(&self.open), self.sealed.as_ref()];
        let files = layers.into_iter().flatten().filter_map(|layer| layer.files.get(&ino));
        files.flat_map(|file| file.blocks.keys().copied()).collect()
    }

    /// Whether an uncommitted layer changes the contents of `ino`, be it by making a hole.
    #[must_use]
    pub fn is_changed(&self, ino: Ino) -> bool {
        let layers = [Some(&self.open), self.sealed.as_ref()];
        let mut files = layers.into_iter().flatten().filter_map(|layer| layer.files.get(&ino));
        files.any(|file| !file.blocks.is_empty() || !file.void.is_empty())
    }

    /// A segment uploaded since the last commit.
    #[must_use]
    pub fn new_segment(&self, id: SegmentId) -> Option<NewSegment> {
        self.segments.get(&id).copied()
    }

    /// Whether a segment was made, or is being made, since the last commit.
    #[must_use]
    pub fn knows_segment(&self, id: SegmentId) -> bool {
        self.segments.contains_key(&id) || self.flights.contains_key(&id)
    }

    /// Bytes of full blocks that wait to be taken.
    #[must_use]
    pub fn full_bytes(&self) -> usize {
        self.full.len().saturating_mul(BLOCK_BYTES)
    }

    /// Takes up to `bytes_max` of full blocks of the open layer for upload.
    pub fn take_full(&mut self, segment: SegmentId, bytes_max: usize) -> Option<Batch> {
        let mut blocks = Vec::new();
        while blocks.len() < bytes_max / BLOCK_BYTES {
            let Some((ino, index)) = self.full.pop_front() else { break };
            let Some(file) = self.open.files.get_mut(&ino) else { continue };
            let Some(slot) = file.blocks.get_mut(&index) else { continue };
            if matches!(slot, Block::Mem(block) if block.is_full()) {
                blocks.extend(send(slot, segment, &self.buffers).map(|bytes| SentBlock {
                    ino,
                    index,
                    bytes,
                }));
            }
        }
        if blocks.is_empty() {
            return None;
        }
        Some(self.take_off(segment, blocks))
    }

    /// The blocks are on their way.
    fn take_off(&mut self, segment: SegmentId, blocks: Vec<SentBlock>) -> Batch {
        self.flights.insert(segment, blocks.iter().map(|block| block.bytes.len()).sum());
        Batch { segment, blocks }
    }

    /// Bytes of blocks on their way.
    #[must_use]
    pub fn in_flight_bytes(&self) -> usize {
        self.flights.values().sum()
    }

    /// How many segments are on their way.
    #[must_use]
    pub fn flights(&self) -> usize {
        self.flights.len()
    }

    /// A batch has been uploaded, its blocks lying at `places`.
    pub fn stored(&mut self, batch: &Batch, segment: NewSegment, places: &[BlockPlace]) {
        self.flights.remove(&batch.segment);
        self.segments.insert(batch.segment, segment);
        for (sent, place) in batch.blocks.iter().zip(places) {
            for layer in [Some(&mut self.open), self.sealed.as_mut()].into_iter().flatten() {
                if let Some(slot) = layer.sent_slot(sent, batch.segment) {
                    self.sums -= Sums::of(slot);
                    *slot = Block::Stored(*place);
                    self.sums += Sums::of(slot);
                }
            }
        }
    }

    /// A batch cannot be uploaded: its blocks fall back to their older contents.
    pub fn abandon(&mut self, batch: &Batch) {
        self.flights.remove(&batch.segment);
        for sent in &batch.blocks {
            for layer in [Some(&mut self.open), self.sealed.as_mut()].into_iter().flatten() {
                if layer.sent_slot(sent, batch.segment).is_some()
                    && let Some(file) = layer.files.get_mut(&sent.ino)
                    && let Some(block) = file.blocks.remove(&sent.index)
                {
                    self.sums -= Sums::of(&block);
                }
            }
        }
    }
}

fn sealed_slot(sealed: &mut Option<Layer>, ino: Ino, index: u64) -> Option<&mut Block> {
    sealed.as_mut()?.files.get_mut(&ino)?.blocks.get_mut(&index)
}

fn send(slot: &mut Block, segment: SegmentId, buffers: &BlockBuffers) -> Option<Bytes> {
    let Block::Mem(block) = slot else { return None };
    block.whole_bytes()?;
    let bytes = buffers.lend(std::mem::replace(block, MemBlock::new(Under::Zeros)).into_bytes());
    *slot = Block::Sent { bytes: bytes.clone(), segment };
    Some(bytes)
}

fn beneath(layers: [Option<&Layer>; 2], ino: Ino, index: u64) -> Beneath {
    for file in layers.into_iter().flatten().filter_map(|layer| layer.files.get(&ino)) {
        match file.blocks.get(&index) {
            Some(Block::Mem(block)) => match block.under() {
                Under::Zeros => return Beneath::Zeros,
                Under::Place(place) => return Beneath::Place(*place),
                Under::Older => {}
            },
            Some(Block::Sent { bytes, .. }) => return Beneath::Bytes(bytes.clone()),
            Some(Block::Stored(place)) => return Beneath::Place(*place),
            None if file.void.contains(index) => return Beneath::Zeros,
            None => {}
        }
    }
    Beneath::Committed
}

/// Where a file of `size` bytes ends within its block `index`: 0 to [`BLOCK_BYTES`].
fn end_in_block(size: u64, index: u64) -> usize {
    size.saturating_sub(BlockIndex(index).start()).min(BLOCK_LEN) as usize
}

#[cfg(test)]
mod tests;
