//! The sealed group's contents: completed, sent, described to its commit, and settled.

use std::collections::BTreeSet;

use bytes::Bytes;

use super::sums::Sums;
use super::{
    Batch, Beneath, Block, Dirty, FileChange, FileEdit, Layer, MemBlock, SentBlock, beneath, sealed_slot,
    send,
};
use crate::base::{Ino, NewSegment, SegmentId};

impl Dirty {
    /// What lies under a block of the sealed layer.
    #[must_use]
    pub fn beneath_sealed(&self, ino: Ino, index: u64) -> Beneath {
        beneath([self.sealed.as_ref(), None], ino, index)
    }

    /// Closes the open layer and opens the next.
    pub fn seal(&mut self) {
        debug_assert!(self.sealed.is_none(), "one group commits at a time");
        self.sealed = Some(std::mem::take(&mut self.open));
        self.full.clear();
    }

    /// The sealed layer.
    pub(crate) const fn sealed(&self) -> Option<&Layer> {
        self.sealed.as_ref()
    }

    /// Blocks of the sealed layer that are still only in memory: the file, the index, and the length
    /// in bytes.
    #[must_use]
    pub fn sealed_unsent(&self) -> Vec<(Ino, u64, usize)> {
        let files = self.sealed.iter().flat_map(|layer| layer.files.iter());
        files
            .flat_map(|(ino, file)| file.blocks.iter().map(|(index, block)| (*ino, *index, block)))
            .filter_map(|(ino, index, block)| match block {
                Block::Mem(mem) => Some((ino, index, mem.len())),
                _ => None,
            })
            .collect()
    }

    /// Whether a sealed block needs nothing of what lies under it.
    #[must_use]
    pub fn is_sealed_whole(&self, ino: Ino, index: u64) -> bool {
        let file = self.sealed.as_ref().and_then(|layer| layer.files.get(&ino));
        match file.and_then(|file| file.blocks.get(&index)) {
            Some(Block::Mem(block)) => block.whole_bytes().is_some(),
            _ => true,
        }
    }

    /// Whether the sealed group changes no other block of the file.
    #[must_use]
    pub fn sealed_is_alone(&self, ino: Ino, index: u64) -> bool {
        let file = self.sealed.as_ref().and_then(|layer| layer.files.get(&ino));
        file.is_some_and(|file| file.blocks.keys().all(|other| *other == index))
    }

    /// The whole contents of a sealed block, or `None` if it must be completed first.
    pub fn sealed_whole(&self, ino: Ino, index: u64) -> Option<Bytes> {
        match self.sealed.as_ref()?.files.get(&ino)?.blocks.get(&index)? {
            Block::Mem(block) => block.whole_bytes().map(Bytes::copy_from_slice),
            Block::Sent { bytes, .. } => Some(bytes.clone()),
            Block::Stored(_) => None,
        }
    }

    /// Fills a block of the sealed layer from its older contents.
    pub fn complete_sealed(&mut self, ino: Ino, index: u64, under: &[u8]) {
        let Some(slot) = sealed_slot(&mut self.sealed, ino, index) else { return };
        self.sums -= Sums::of(slot);
        if let Block::Mem(block) = slot {
            block.complete(under);
        }
        self.sums += Sums::of(slot);
    }

    /// Drops a block of the sealed layer: its older contents stay. Whether there was one.
    pub fn drop_sealed(&mut self, ino: Ino, index: u64) -> bool {
        let file = self.sealed.as_mut().and_then(|layer| layer.files.get_mut(&ino));
        let dropped = file.and_then(|file| file.blocks.remove(&index));
        if let Some(block) = &dropped {
            self.sums -= Sums::of(block);
        }
        dropped.is_some()
    }

    /// A block of the sealed layer turned out to be all zero: it becomes a hole.
    pub fn void_sealed(&mut self, ino: Ino, index: u64) {
        let file = self.sealed.as_mut().and_then(|layer| layer.files.get_mut(&ino));
        if let Some(file) = file {
            self.sums -= file.void_range(index..index + 1);
        }
    }

    /// What the sealed layer does to the contents of each file.
    #[must_use]
    pub fn sealed_edits(&self) -> Vec<(Ino, FileEdit)> {
        let files = self.sealed.iter().flat_map(|layer| layer.files.iter());
        files
            .map(|(ino, file)| {
                let stored = file.blocks.iter().filter_map(|(index, block)| match block {
                    Block::Stored(place) => Some((*index, *place)),
                    _ => None,
                });
                let is_stored = |index: &u64| matches!(file.blocks.get(index), Some(Block::Stored(_)));
                let edit = FileEdit {
                    is_freed: file.freed,
                    void: file.void.clone(),
                    stored: stored.collect(),
                    shared: file.shared.iter().copied().filter(is_stored).collect(),
                    ..FileEdit::default()
                };
                (*ino, edit)
            })
            .collect()
    }

    /// The segments in the bucket that no commit knows.
    #[must_use]
    pub fn new_segments(&self) -> Vec<(SegmentId, NewSegment)> {
        self.segments.iter().map(|(id, new)| (*id, *new)).collect()
    }

    /// The segments that must not go, because uncommitted blocks of the open layer lie in them.
    #[must_use]
    pub fn open_segments(&self) -> BTreeSet<SegmentId> {
        self.open.segments()
    }

    /// Bytes of the sealed layer that are not in the bucket yet.
    #[must_use]
    pub fn sealed_bytes(&self) -> usize {
        let files = self.sealed.iter().flat_map(|layer| layer.files.values());
        files.map(|file| file.sums().mem).sum()
    }

    /// Whether no block of the sealed layer is on its way.
    #[must_use]
    pub fn is_sealed_up(&self) -> bool {
        let files = self.sealed.iter().flat_map(|layer| layer.files.values());
        files.flat_map(|file| file.blocks.values()).all(|block| !matches!(block, Block::Sent { .. }))
    }

    /// Whether the sealed layer changes a block of the file before the block `end`.
    #[must_use]
    pub fn is_sealed_below(&self, ino: Ino, end: u64) -> bool {
        let file = self.sealed.as_ref().and_then(|layer| layer.files.get(&ino));
        file.is_some_and(|file| file.blocks.range(..end).next().is_some())
    }

    /// The files that the sealed layer changes.
    pub fn sealed_files(&self) -> impl Iterator<Item = Ino> {
        self.sealed.iter().flat_map(|layer| layer.files.keys().copied())
    }

    /// Whether the sealed layer changes a block.
    #[must_use]
    pub fn is_sealed(&self, ino: Ino, index: u64) -> bool {
        let file = self.sealed.as_ref().and_then(|layer| layer.files.get(&ino));
        file.is_some_and(|file| file.blocks.contains_key(&index))
    }

    /// Takes whole blocks of the sealed layer for upload as `segment`.
    pub fn send_sealed(&mut self, segment: SegmentId, blocks: &[(Ino, u64)]) -> Option<Batch> {
        let mut sent = Vec::with_capacity(blocks.len());
        for (ino, index) in blocks {
            let slot = sealed_slot(&mut self.sealed, *ino, *index);
            if let Some(bytes) = slot.and_then(|slot| send(slot, segment, &self.buffers)) {
                sent.push(SentBlock { ino: *ino, index: *index, bytes });
            }
        }
        (!sent.is_empty()).then(|| self.take_off(segment, sent))
    }

    /// The sealed layer is committed, and with it these segments. `inline` blocks went into records instead of one.
    pub fn settle(&mut self, inline: &[(Ino, u64)], segments: &[SegmentId]) {
        for id in segments {
            self.segments.remove(id);
        }
        if let Some(layer) = self.sealed.take() {
            self.sums -= layer.files.values().map(FileChange::sums).sum();
        }
        self.repack.extend(inline);
    }

    /// Whether blocks were committed as records that belong into a segment.
    #[must_use]
    pub fn has_repack(&self) -> bool {
        !self.repack.is_empty()
    }

    /// How many blocks were committed as records that belong into a segment.
    #[must_use]
    pub fn repack_count(&self) -> usize {
        self.repack.len()
    }

    /// Takes the list of blocks that were committed as records and belong into a segment.
    pub fn take_repack(&mut self) -> Vec<(Ino, u64)> {
        std::mem::take(&mut self.repack).into_iter().collect()
    }

    /// Puts back what [`Dirty::take_repack`] gave and could not be read.
    pub fn put_back_repack(&mut self, blocks: impl IntoIterator<Item = (Ino, u64)>) {
        self.repack.extend(blocks);
    }

    /// Puts the bytes of a committed block into the sealed layer, so that this commit packs it;
    /// unless this layer changes the block anyway.
    pub fn repack_sealed(&mut self, ino: Ino, index: u64, bytes: Vec<u8>) {
        let Some(layer) = self.sealed.as_mut() else { return };
        let file = layer.files.entry(ino).or_default();
        if file.freed || file.void.contains(index) || file.blocks.contains_key(&index) {
            return;
        }
        let block = Block::Mem(MemBlock::whole(bytes));
        self.sums += Sums::of(&block);
        file.blocks.insert(index, block);
    }
}
