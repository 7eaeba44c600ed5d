//! Joins blocks that lie near each other in a segment into few range GETs.

use std::collections::BTreeMap;
use std::ops::Range;

use super::Want;
use crate::base::BlockPlace;
use crate::base::SegmentSeal;
use crate::base::{BLOCK_BYTES, SegmentId};
use crate::crypto::{HEAD_BYTES, TAG_BYTES};
use crate::data::DataError;

/// Sealed bytes of one GET: 64 whole blocks, so that two fetch a full segment.
pub(super) const GET_BYTES_MAX: u32 = 64 * (BLOCK_BYTES + TAG_BYTES) as u32;
/// Bytes between two wanted blocks that are cheaper to fetch and drop than to ask around.
const GAP_BYTES_MAX: u32 = 128 * 1024;

/// One range GET and the blocks it is for, sorted by position and within `range`.
#[derive(Clone, Debug)]
pub(super) struct Batch {
    pub(super) segment: SegmentId,
    pub(super) seal: SegmentSeal,
    pub(super) range: Range<u32>,
    pub(super) blocks: Vec<BlockPlace>,
}

impl Batch {
    pub(super) fn of_block(place: &BlockPlace, seal: &SegmentSeal) -> Self {
        Self { segment: place.segment, seal: *seal, range: place.sealed_range(), blocks: vec![*place] }
    }

    /// What is left of it without the blocks that `drop` names; `None` if nothing is.
    pub(super) fn without(self, drop: impl Fn(&BlockPlace) -> bool) -> Option<Self> {
        let blocks: Vec<_> = self.blocks.into_iter().filter(|place| !drop(place)).collect();
        let range = blocks.first()?.pos..blocks.iter().map(|place| place.sealed_range().end).max()?;
        Some(Self { blocks, range, ..self })
    }

    fn take(&mut self, place: &BlockPlace) -> bool {
        let block = place.sealed_range();
        let near = block.start <= self.range.end.saturating_add(GAP_BYTES_MAX);
        if !near || block.end.saturating_sub(self.range.start) > GET_BYTES_MAX {
            return false;
        }
        self.range.end = self.range.end.max(block.end);
        self.blocks.push(*place);
        true
    }
}

/// Which of the GETs that fetch a whole segment brings the block at `place`.
pub(super) const fn share(place: &BlockPlace) -> u32 {
    place.pos.saturating_sub(HEAD_BYTES as u32) / GET_BYTES_MAX
}

/// Checks that `place` lies inside its segment, before memory is taken for it.
pub(super) fn check_bounds(place: &BlockPlace, segment_bytes: u64) -> Result<(), DataError> {
    place.piece.validate()?;
    if place.pos < HEAD_BYTES as u32
        || u64::from(place.pos) + u64::from(place.piece.sealed_bytes()) > segment_bytes
    {
        return Err(crate::base::ExtentError { why: "a block lies outside its segment" }.into());
    }
    Ok(())
}

/// The GETs for `wants`, in the order in which their first blocks are wanted. Wants out of bounds are left
/// out: reading them will say so.
pub(super) fn plan<'a>(wants: impl Iterator<Item = &'a Want>) -> Vec<Batch> {
    let mut segments: BTreeMap<SegmentId, Vec<(usize, &Want)>> = BTreeMap::new();
    for (order, want) in wants.enumerate() {
        if check_bounds(&want.0, want.2).is_ok() {
            segments.entry(want.0.segment).or_default().push((order, want));
        }
    }
    let mut batches: Vec<(usize, Batch)> = Vec::new();
    for mut wants in segments.into_values() {
        wants.sort_by_key(|(_, want)| want.0.pos);
        wants.dedup_by_key(|(_, want)| want.0.pos);
        let mut open: Option<(usize, Batch)> = None;
        for (order, (place, seal, _)) in wants {
            if let Some((first, batch)) = &mut open
                && batch.take(place)
            {
                *first = order.min(*first);
            } else {
                batches.extend(open.replace((order, Batch::of_block(place, seal))));
            }
        }
        batches.extend(open);
    }
    batches.sort_by_key(|(first, _)| *first);
    batches.into_iter().map(|(_, batch)| batch).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{Codec, Piece};

    const SEAL: SegmentSeal = SegmentSeal { epoch: 1, salt: [0; 24], commitment: [0; 32] };

    fn want(segment: u8, pos: u32, plain: u32) -> Want {
        let piece = Piece { plain, stored: plain, codec: Codec::Raw };
        (BlockPlace { segment: SegmentId([segment; 16]), pos, piece }, SEAL, 8 << 20)
    }

    fn planned(wants: &[Want]) -> Vec<(u8, Range<u32>, usize)> {
        let batches = plan(wants.iter());
        batches.into_iter().map(|b| (b.segment.0[0], b.range, b.blocks.len())).collect()
    }

    #[test]
    fn a_whole_segment_is_two_gets() {
        let wants: Vec<_> = (0..127).map(|n| want(1, 64 + n * 65_552, 65_536)).collect();
        let end = 64 + 127 * 65_552;
        let middle = 64 + GET_BYTES_MAX;
        assert_eq!(planned(&wants), [(1, 64..middle, 64), (1, middle..end, 63)]);
        let backward: Vec<_> = wants.into_iter().rev().collect();
        assert_eq!(planned(&backward), [(1, middle..end, 63), (1, 64..middle, 64)]);
    }

    #[test]
    fn small_gaps_are_fetched_and_wide_ones_skipped() {
        let wants =
            [want(1, 64, 100), want(2, 64, 100), want(1, 1000, 100), want(1, 500_000, 100), want(1, 64, 100)];
        assert_eq!(planned(&wants), [(1, 64..1116, 2), (2, 64..180, 1), (1, 500_000..500_116, 1)]);
    }

    #[test]
    fn wants_outside_their_segment_are_not_fetched() {
        let wants = [
            want(1, 63, 100),
            want(1, 8 << 20, 100),
            want(1, u32::MAX, 100),
            want(1, 64, 65_537),
            want(1, 64, 0),
        ];
        assert_eq!(planned(&wants), []);
    }
}
