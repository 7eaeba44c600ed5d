//! The changes to file contents of one group.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use crate::base::{Ino, RangeSet, SegmentId};

use super::SentBlock;
use super::block::{Block, Under};
use super::sums::Sums;

/// How a group changes the contents of one file.
#[derive(Debug, Default)]
pub(crate) struct FileChange {
    /// Blocks of which older layers have nothing any more.
    pub(crate) void: RangeSet,
    /// Changed blocks, by their index. They count even where `void` holds them.
    pub(crate) blocks: BTreeMap<u64, Block>,
    /// Blocks that were made to lie where another file's block, or another block of this one, lies.
    pub(crate) shared: BTreeSet<u64>,
    /// The file was empty at some time.
    pub(crate) emptied: bool,
    /// The file is gone.
    pub(crate) freed: bool,
}

impl FileChange {
    /// Drops the blocks in `range` and declares older ones void. Gives what the blocks came to.
    pub(crate) fn void_range(&mut self, range: Range<u64>) -> Sums {
        let gone: Vec<u64> = self.blocks.range(range.clone()).map(|(index, _)| *index).collect();
        self.void.insert(range);
        gone.iter().filter_map(|index| self.blocks.remove(index)).map(|block| Sums::of(&block)).sum()
    }

    /// What its blocks come to.
    pub(crate) fn sums(&self) -> Sums {
        self.blocks.values().map(Sums::of).sum()
    }
}

/// The changes to file contents of one group.
#[derive(Debug, Default)]
pub(crate) struct Layer {
    /// The files.
    pub(crate) files: BTreeMap<Ino, FileChange>,
}

impl Layer {
    /// The block that was sent as `sent` in `segment`, unless it has been changed since.
    pub(crate) fn sent_slot(&mut self, sent: &SentBlock, segment: SegmentId) -> Option<&mut Block> {
        let slot = self.files.get_mut(&sent.ino)?.blocks.get_mut(&sent.index)?;
        matches!(slot, Block::Sent { segment: of, .. } if *of == segment).then_some(slot)
    }

    /// The segments that its blocks lie in, or lie over, or are on their way in.
    pub(crate) fn segments(&self) -> BTreeSet<SegmentId> {
        let blocks = self.files.values().flat_map(|file| file.blocks.values());
        let segments = blocks.filter_map(|block| match block {
            Block::Stored(place) => Some(place.segment),
            Block::Sent { segment, .. } => Some(*segment),
            Block::Mem(mem) => match mem.under() {
                Under::Place(place) => Some(place.segment),
                Under::Zeros | Under::Older => None,
            },
        });
        segments.collect()
    }
}
