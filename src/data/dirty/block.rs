//! One changed block of a file in memory: bytes, and which of them say something.

use std::ops::Range;

use bytes::Bytes;

use crate::base::{BLOCK_BYTES, BLOCK_LEN, BlockPlace, RangeSet, SegmentId};
use crate::data::{BlockBuffers, Moved};

/// A changed block.
#[derive(Clone, Debug)]
pub(crate) enum Block {
    /// In memory, open to further writes.
    Mem(MemBlock),
    /// On its way to the bucket as part of a segment.
    Sent {
        /// The whole block; bytes past its length are zero.
        bytes: Bytes,
        /// The segment it travels in.
        segment: SegmentId,
    },
    /// In the bucket, not committed.
    Stored(BlockPlace),
}

/// What lies under the bytes that a [`MemBlock`] does not cover.
#[derive(Clone, Debug)]
pub(crate) enum Under {
    /// Nothing: they are zero.
    Zeros,
    /// The older layers.
    Older,
    /// A block uploaded since the last commit.
    Place(BlockPlace),
}

/// A block that takes writes.
#[derive(Clone, Debug)]
pub(crate) struct MemBlock {
    bytes: Vec<u8>,
    /// What was written; zeros where `bytes` has nothing. Meaningless once `under` is
    /// [`Under::Zeros`].
    covered: RangeSet,
    under: Under,
    /// How long what lies under it may be.
    beneath: u32,
}

impl MemBlock {
    pub(crate) fn new(under: Under) -> Self {
        let beneath = match &under {
            Under::Place(place) => place.piece.plain,
            Under::Zeros | Under::Older => 0,
        };
        Self { bytes: Vec::new(), covered: RangeSet::default(), under, beneath }
    }

    /// Over older contents, which end at `end` in this block at the latest.
    pub(crate) fn over(end: usize) -> Self {
        Self { beneath: end as u32, ..Self::new(Under::Older) }
    }

    /// Bytes that it grows by when it is completed.
    pub(crate) fn to_come(&self) -> usize {
        match self.under {
            Under::Zeros => 0,
            Under::Older | Under::Place(_) => (self.beneath as usize).saturating_sub(self.bytes.len()),
        }
    }

    /// A block whose contents are `bytes` and zeros after them.
    pub(crate) fn whole(bytes: Vec<u8>) -> Self {
        Self { bytes, covered: RangeSet::default(), under: Under::Zeros, beneath: 0 }
    }

    /// Makes room for a block's first `end` bytes: for the rest as well, where it is all of them or grows beyond half.
    pub(crate) fn make_room(&mut self, end: usize, buffers: &BlockBuffers) {
        let is_to_fill = end == BLOCK_BYTES || (!self.bytes.is_empty() && end > BLOCK_BYTES / 2);
        if is_to_fill && self.bytes.capacity() < end {
            let mut roomy = buffers.take_empty();
            roomy.extend_from_slice(&self.bytes);
            self.bytes = roomy;
        }
    }

    /// Writes `data` at `at`. The file's bytes in this block end at `end_of_file`: what lies under
    /// the block has nothing beyond.
    pub(crate) fn write(&mut self, at: usize, data: &[u8], end_of_file: usize) {
        let end = at + data.len();
        debug_assert!(end <= BLOCK_BYTES);
        if self.bytes.len() <= at {
            self.bytes.resize(at, 0);
            self.bytes.extend_from_slice(data);
        } else {
            if self.bytes.len() < end {
                self.bytes.resize(end, 0);
            }
            if let Some(target) = self.bytes.get_mut(at..end) {
                target.copy_from_slice(data);
            }
        }
        self.cover(at as u64..end as u64, end_of_file);
    }

    /// Makes everything from `at` on zero. The file's bytes in this block ended at `end_of_file`.
    pub(crate) fn cut(&mut self, at: usize, end_of_file: usize) {
        self.bytes.truncate(at);
        // Memory is counted by what blocks hold.
        if self.bytes.capacity() / 2 >= self.bytes.len() {
            self.bytes.shrink_to_fit();
        }
        self.cover(at as u64..end_of_file.max(at) as u64, end_of_file);
    }

    /// Makes `range` zero.
    pub(crate) fn zero(&mut self, range: Range<usize>, end_of_file: usize) {
        let len = self.bytes.len();
        if let Some(target) = self.bytes.get_mut(range.start.min(len)..range.end.min(len)) {
            target.fill(0);
        }
        if !matches!(self.under, Under::Zeros) {
            if len < range.end {
                self.bytes.resize(range.end, 0);
            }
            self.cover(range.start as u64..range.end as u64, end_of_file);
        }
    }

    fn cover(&mut self, range: Range<u64>, end_of_file: usize) {
        if matches!(self.under, Under::Zeros) {
            return;
        }
        self.covered.insert(range);
        if self.covered.covers(&(0..(end_of_file as u64).min(BLOCK_LEN))) {
            self.under = Under::Zeros;
            self.covered = RangeSet::default();
        }
    }

    /// Fills what is not covered from `under`, the block's older contents.
    pub(crate) fn complete(&mut self, under: &[u8]) {
        if matches!(self.under, Under::Zeros) {
            return;
        }
        let mut bytes = under.to_vec();
        self.overlay(&mut bytes, 0);
        *self = Self::whole(bytes);
    }

    /// One block made of this one and the older change `under` it, of which it covers a part.
    pub(crate) fn lay_over(mut self, mut under: Self) -> Self {
        if matches!(under.under, Under::Zeros) {
            self.complete(&under.bytes);
            return self;
        }
        self.overlay(&mut under.bytes, 0);
        for range in self.covered.iter() {
            under.covered.insert(range.clone());
        }
        under
    }

    /// What is not covered is what lies at `place`.
    pub(crate) fn rest_on(&mut self, place: BlockPlace) {
        self.under = Under::Place(place);
        self.beneath = place.piece.plain;
    }

    /// Lays the covered bytes over `target`, which holds the block's bytes from `from` on and grows
    /// if need be.
    fn overlay(&self, target: &mut Vec<u8>, from: usize) {
        for range in self.covered.iter() {
            let (start, end) = (range.start as usize, range.end as usize);
            if target.len() < end - from {
                target.resize(end - from, 0);
            }
            self.copy(target, from, start, end);
        }
    }

    /// Lays the bytes `start..end` over `target`, which begins at `from`; zeros where there are none.
    fn copy(&self, target: &mut [u8], from: usize, start: usize, end: usize) {
        let have = self.bytes.len().clamp(start, end);
        if let (Some(to), Some(source)) =
            (target.get_mut(start - from..have - from), self.bytes.get(start..have))
        {
            to.copy_from_slice(source);
        }
        if let Some(rest) = target.get_mut(have - from..end - from) {
            rest.fill(0);
        }
    }

    /// Lays the covered bytes over `target`, which is the part of the block that begins at `from`.
    pub(crate) fn paint(&self, target: &mut [u8], from: usize) {
        let mut ranges = self.covered.clone();
        if matches!(self.under, Under::Zeros) {
            ranges.insert(0..BLOCK_LEN);
        }
        for range in ranges.iter() {
            let start = (range.start as usize).max(from);
            let end = (range.end as usize).min(from + target.len());
            if start >= end {
                continue;
            }
            self.copy(target, from, start, end);
        }
    }

    /// What lies under it has been moved, perhaps.
    pub(crate) fn follow(&mut self, moved: &Moved) {
        if let Under::Place(place) = &mut self.under {
            *place = moved.get(place).unwrap_or(*place);
        }
    }

    /// What lies under the bytes that are not covered.
    pub(crate) const fn under(&self) -> &Under {
        &self.under
    }

    /// The contents, if nothing under the block matters any more.
    pub(crate) fn whole_bytes(&self) -> Option<&[u8]> {
        matches!(self.under, Under::Zeros).then_some(&self.bytes)
    }

    /// The contents by value, if nothing under the block matters any more.
    pub(crate) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// Whether every byte of a full block is known.
    pub(crate) fn is_full(&self) -> bool {
        matches!(self.under, Under::Zeros) && self.bytes.len() == BLOCK_BYTES
    }

    /// Bytes in memory.
    pub(crate) fn len(&self) -> usize {
        self.bytes.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn covering_the_file_to_its_end_makes_the_block_whole() {
        let mut block = MemBlock::new(Under::Older);
        block.write(100, &[1; 100], 200);
        assert!(block.whole_bytes().is_none());
        block.write(0, &[2; 100], 200);
        assert_eq!(block.whole_bytes().unwrap().len(), 200);
    }

    #[test]
    fn painting_shows_what_is_covered_and_nothing_else() {
        let mut block = MemBlock::new(Under::Older);
        block.write(4, &[7; 4], BLOCK_BYTES);
        block.zero(6..10, BLOCK_BYTES);
        let mut target = vec![9; 12];
        block.paint(&mut target, 2);
        assert_eq!(target, [9, 9, 7, 7, 0, 0, 0, 0, 9, 9, 9, 9]);

        let mut whole = MemBlock::whole(vec![5; 3]);
        whole.cut(2, 3);
        let mut target = vec![9; 4];
        whole.paint(&mut target, 1);
        assert_eq!(target, [5, 0, 0, 0]);
    }

    #[test]
    fn what_is_cut_off_is_not_held_in_memory() {
        let mut block = MemBlock::new(Under::Zeros);
        block.make_room(BLOCK_BYTES, &BlockBuffers::new(1));
        block.write(0, &[7; BLOCK_BYTES], BLOCK_BYTES);
        block.cut(40_000, BLOCK_BYTES);
        assert!(block.bytes.capacity() <= BLOCK_BYTES);
        block.cut(2000, 40_000);
        assert!(block.bytes.capacity() <= 4000, "{}", block.bytes.capacity());
        block.cut(0, 2000);
        assert_eq!(block.bytes.capacity(), 0);
    }

    #[test]
    fn cutting_takes_no_memory_and_hides_what_lies_under() {
        let mut block = MemBlock::new(Under::Older);
        block.write(0, &[7; 4], 100);
        block.cut(2, 100);
        assert_eq!(block.len(), 2);
        block.write(50, &[8; 1], 60);
        let mut target = vec![9; 55];
        block.paint(&mut target, 0);
        assert_eq!(target[..3], [7, 7, 0]);
        assert_eq!(target[49..53], [0, 8, 0, 0]);
        block.complete(&[1; 100]);
        let whole = block.whole_bytes().unwrap();
        assert_eq!((&whole[..3], whole[50]), (&[7, 7, 0][..], 8));
        assert!(whole[51..].iter().all(|byte| *byte == 0));
    }

    #[test]
    fn completing_keeps_what_was_written() {
        let mut block = MemBlock::new(Under::Older);
        block.write(2, &[7; 2], BLOCK_BYTES);
        block.write(8, &[8; 2], BLOCK_BYTES);
        block.complete(&[1; 5]);
        assert_eq!(block.whole_bytes().unwrap(), [1, 1, 7, 7, 1, 0, 0, 0, 8, 8]);
    }
}
