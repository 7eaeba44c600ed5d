//! The changes to file contents of one group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::base::{Ino, NewSegment, RangeSet, SegmentId};

use super::block::Block;

/// How a group changes the contents of one file.
#[derive(Debug, Default)]
pub(crate) struct FileChange {
    /// Blocks of which older layers have nothing any more.
    pub(crate) void: RangeSet,
    /// Changed blocks, by their index. They count even where `void` holds them.
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// Blocks that were made to lie where another file's block, or another block of this one, lies.
    pub(crate) shared: BTreeSet<u64>,
    /// The file is gone.
    pub(crate) freed: bool,
}

impl FileChange {
    /// Drops the blocks in `range` and declares older ones void. Gives the bytes of contents that left memory, and the
    /// number of blocks.
    pub(crate) fn void_range(&mut self, range: Range<u64>) -> (usize, usize) {
        let gone: Vec<u64> = self.blocks.range(range.clone()).map(|(index, _)| *index).collect();
        self.void.insert(range);
        let bytes = gone.iter().filter_map(|index| self.blocks.remove(index)).map(|block| mem_len(&block)).sum();
        (bytes, gone.len())
    }
}

/// Bytes of memory that a block holds on its own account.
pub(crate) fn mem_len(block: &Block) -> usize {
    match block {
        Block::Mem(mem) => mem.len(),
        Block::Sent { bytes, .. } => bytes.len(),
        Block::Stored(_) => 0,
    }
}

/// The changes to file contents of one group.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    /// Tells layers apart.
    pub(crate) number: u64,
    /// The files.
    pub(crate) files: BTreeMap<Ino, FileChange>,
    /// Segments uploaded for this group.
    pub(crate) segments: BTreeMap<SegmentId, NewSegment>,
    /// Segments still on their way.
    pub(crate) in_flight: usize,
}

impl Layer {
    pub(crate) fn is_empty(&self) -> bool {
        self.files.is_empty() && self.segments.is_empty() && self.in_flight == 0
    }
}
