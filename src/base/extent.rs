//! Where blocks lie: pieces, runs and places, as the inode and extent records keep them.

mod list;
mod live;
#[cfg(test)]
mod model;

pub use list::RunList;
pub use live::LiveDelta;

use std::ops::Range;

use super::{BLOCK_BYTES, HEAD_BYTES, SegmentId, TAG_BYTES};

/// A decoded extent record breaks a rule of docs/FORMAT.md.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an extent record is damaged: {why}")]
pub struct ExtentError {
    /// The rule.
    pub why: &'static str,
}

/// What opens the blocks of a segment without its head: repeated in the segment's `S` record.
#[derive(Clone, Copy, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct SegmentSeal {
    /// Key epoch.
    pub epoch: u16,
    /// Salt of the object key.
    pub salt: [u8; 24],
    /// Commitment to the object key.
    pub commitment: [u8; 32],
}

/// A segment that has been uploaded and is not in any record yet.
#[derive(Clone, Copy, Debug)]
pub struct NewSegment {
    /// The object's length in bytes.
    pub len: u32,
    /// What opens it.
    pub seal: SegmentSeal,
}

const BLOCK_BYTES_U32: u32 = BLOCK_BYTES as u32;
const TAG_BYTES_U32: u32 = TAG_BYTES as u32;
/// Sealed bytes of one raw block of full length.
const FULL_SEALED_BYTES: u32 = BLOCK_BYTES_U32 + TAG_BYTES_U32;

/// How a block was compressed before it was sealed. The discriminant is what docs/FORMAT.md stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One LZ4 block, without a length in front.
    Lz4 = 1,
    /// One Zstandard frame.
    Zstd = 2,
}

impl Codec {
    /// The codec with this number in docs/FORMAT.md.
    #[must_use]
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Raw),
            1 => Some(Self::Lz4),
            2 => Some(Self::Zstd),
            _ => None,
        }
    }
}

/// The shape of one sealed block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
pub struct Piece {
    /// Plaintext bytes, 1 to [`BLOCK_BYTES`]; what is missing to a full block reads as zeros.
    pub plain: u32,
    /// Bytes in the segment, without the tag; fewer than `plain` exactly when compressed.
    pub stored: u32,
    /// How `plain` became `stored`.
    pub codec: Codec,
}

impl Piece {
    /// A whole block, not compressed.
    pub const FULL: Self = Self { plain: BLOCK_BYTES_U32, stored: BLOCK_BYTES_U32, codec: Codec::Raw };

    /// Bytes that the block takes in its segment, tag included.
    #[must_use]
    pub const fn sealed_bytes(self) -> u32 {
        self.stored.saturating_add(TAG_BYTES_U32)
    }

    /// Checks a decoded piece.
    ///
    /// # Errors
    /// [`ExtentError`] with the rule that it breaks.
    pub const fn validate(self) -> Result<(), ExtentError> {
        let why = match self.codec {
            _ if self.plain == 0 || self.plain > BLOCK_BYTES_U32 => "a block's length is out of bounds",
            Codec::Raw if self.stored != self.plain => "a raw block's two lengths differ",
            Codec::Lz4 | Codec::Zstd if self.stored == 0 => "a compressed block is empty",
            Codec::Lz4 | Codec::Zstd if self.stored >= self.plain => "a compressed block did not shrink",
            _ => return Ok(()),
        };
        Err(ExtentError { why })
    }
}

/// One block, resolved to its place.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct BlockPlace {
    /// The segment that holds it.
    pub segment: SegmentId,
    /// Where its sealed bytes begin in the segment object.
    pub pos: u32,
    /// Its shape.
    pub piece: Piece,
}

impl BlockPlace {
    /// The byte range of the sealed block in its segment, tag included.
    #[must_use]
    pub const fn sealed_range(&self) -> Range<u32> {
        self.pos..self.pos.saturating_add(self.piece.sealed_bytes())
    }
}

/// Blocks that follow each other both in the file and in one segment.
#[derive(Clone, Debug, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct Run {
    /// Index of the first block within its page, or within the file where the inode keeps the run.
    pub first: u32,
    /// The segment that holds them all.
    pub segment: SegmentId,
    /// Where the first sealed block begins in the segment object.
    pub pos: u32,
    /// So many whole raw blocks, back to back.
    pub full: u32,
    /// Then blocks of any shape, back to back; the first of them is not [`Piece::FULL`].
    pub rest: Vec<Piece>,
}

impl Run {
    /// A run of one block.
    #[must_use]
    pub fn of(first: u32, place: &BlockPlace) -> Self {
        let (full, rest) = if place.piece == Piece::FULL { (1, vec![]) } else { (0, vec![place.piece]) };
        Self { first, segment: place.segment, pos: place.pos, full, rest }
    }

    /// How many blocks it has.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.full.saturating_add(u32::try_from(self.rest.len()).unwrap_or(u32::MAX))
    }

    /// The index after its last block.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.first.saturating_add(self.block_count())
    }

    /// The segment position after its last block.
    #[must_use]
    pub fn end_pos(&self) -> u32 {
        self.pos_at(self.block_count())
    }

    /// Bytes that it takes in its segment, tags included.
    #[must_use]
    pub fn sealed_bytes(&self) -> u64 {
        let rest: u64 = self.rest.iter().map(|piece| u64::from(piece.sealed_bytes())).sum();
        u64::from(self.full) * u64::from(FULL_SEALED_BYTES) + rest
    }

    fn piece(&self, offset: u32) -> Option<Piece> {
        match offset.checked_sub(self.full) {
            None => Some(Piece::FULL),
            Some(past) => self.rest.get(past as usize).copied(),
        }
    }

    /// The place of block `index`, counted as `first` is.
    #[must_use]
    pub fn place(&self, index: u32) -> Option<BlockPlace> {
        let offset = index.checked_sub(self.first)?;
        let piece = self.piece(offset)?;
        Some(BlockPlace { segment: self.segment, pos: self.pos_at(offset), piece })
    }

    /// Its blocks in order.
    pub fn places(&self) -> impl Iterator<Item = (u32, BlockPlace)> + '_ {
        let mut pos = self.pos;
        (0..self.block_count()).map_while(move |offset| {
            let piece = self.piece(offset)?;
            let place = BlockPlace { segment: self.segment, pos, piece };
            pos = pos.saturating_add(piece.sealed_bytes());
            Some((self.first.saturating_add(offset), place))
        })
    }

    /// The part of it that lies in `range`, counted as `first` is; `None` when none does.
    #[must_use]
    pub fn clip(&self, range: Range<u32>) -> Option<Self> {
        let (start, end) = (range.start.max(self.first), range.end.min(self.end()));
        let (from, to) = (start.checked_sub(self.first)?, end.checked_sub(self.first)?);
        if from >= to {
            return None;
        }
        let past = |offset: u32| offset.saturating_sub(self.full) as usize;
        let rest = self.rest.get(past(from)..past(to))?;
        let leading = rest.iter().take_while(|piece| **piece == Piece::FULL).count();
        let whole = if from < self.full { 0 } else { leading };
        let full = to.min(self.full).saturating_sub(from).saturating_add(whole as u32);
        let rest = rest.get(whole..)?.to_vec();
        Some(Self { first: start, segment: self.segment, pos: self.pos_at(from), full, rest })
    }

    /// Whether `next` begins exactly where this run ends, in the file and in the segment.
    pub(super) fn continues_in(&self, next: &Self) -> bool {
        self.segment == next.segment && self.end() == next.first && self.end_pos() == next.pos
    }

    /// Appends `next` if this run continues in it; gives it back if not.
    pub(super) fn absorb(&mut self, next: Self) -> Option<Self> {
        if !self.continues_in(&next) {
            return Some(next);
        }
        if self.rest.is_empty() {
            self.full = self.full.saturating_add(next.full);
            self.rest = next.rest;
        } else {
            self.rest.extend(std::iter::repeat_n(Piece::FULL, next.full as usize));
            self.rest.extend(next.rest);
        }
        None
    }

    /// Checks a decoded run whose block indexes must stay under `blocks_max`.
    ///
    /// # Errors
    /// [`ExtentError`] with the rule that it breaks.
    pub fn validate(&self, blocks_max: u32) -> Result<(), ExtentError> {
        let count = (self.full as usize).saturating_add(self.rest.len());
        let end = (self.first as usize).saturating_add(count);
        let why = if count == 0 {
            "a run has no blocks"
        } else if end > blocks_max as usize {
            "a run leaves its page"
        } else if (self.pos as usize) < HEAD_BYTES {
            "a run begins in its segment's head"
        } else {
            self.rest.iter().try_for_each(|piece| piece.validate())?;
            if u64::from(self.pos).saturating_add(self.sealed_bytes()) <= u64::from(u32::MAX) {
                return Ok(());
            }
            "a run ends beyond the largest segment position"
        };
        Err(ExtentError { why })
    }

    fn pos_at(&self, offset: u32) -> u32 {
        let full = offset.min(self.full).saturating_mul(FULL_SEALED_BYTES);
        let past = self.rest.iter().take(offset.saturating_sub(self.full) as usize);
        past.fold(self.pos.saturating_add(full), |pos, piece| pos.saturating_add(piece.sealed_bytes()))
    }
}
