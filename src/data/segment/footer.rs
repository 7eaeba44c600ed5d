//! The footer's bytes: which block of which file each sealed block is, then padding
//! (docs/FORMAT.md, "Segment footer").

use std::ops::Range;

use crate::base::{BlockIndex, Ino, SegmentId};
use crate::base::{BlockPlace, Codec, Piece};
use crate::crypto::{HEAD_BYTES, ObjectKey, TAG_BYTES};
use crate::data::DataError;

use super::SEGMENT_BLOCKS_MAX;

const VERSION: u8 = 1;
/// Version and block count.
pub(super) const PREFIX_BYTES: usize = 1 + 4;
/// Inode number 8, block index 8, plain length - 1: 2, stored length - 1: 2, codec 1.
pub(super) const ENTRY_BYTES: usize = 21;
/// The footer's sealed length, the last bytes of the object.
pub(super) const TRAILER_BYTES: usize = 4;

/// One block of a segment, as its footer lists it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FooterBlock {
    /// The file it was written to.
    pub ino: Ino,
    /// Which block of that file it was.
    pub index: BlockIndex,
    /// Where it lies.
    pub place: BlockPlace,
}

/// Collects a footer's entries in their encoded form.
#[derive(Default)]
pub(super) struct FooterWriter {
    entries: Vec<u8>,
    block_count: u32,
}

impl FooterWriter {
    pub(super) const fn block_count(&self) -> u32 {
        self.block_count
    }

    /// Lists one block; its lengths are 1 to 65,536.
    pub(super) fn push(&mut self, ino: Ino, index: BlockIndex, piece: Piece) {
        self.entries.extend_from_slice(&ino.0.to_be_bytes());
        self.entries.extend_from_slice(&index.0.to_be_bytes());
        self.entries.extend_from_slice(&(piece.plain.wrapping_sub(1) as u16).to_be_bytes());
        self.entries.extend_from_slice(&(piece.stored.wrapping_sub(1) as u16).to_be_bytes());
        self.entries.push(piece.codec as u8);
        self.block_count += 1;
    }

    /// Appends the sealed footer and the trailer to an object that ends with its last block.
    pub(super) fn seal_onto(&self, key: &ObjectKey, object: &mut Vec<u8>) {
        let pos = object.len();
        let end = object_bytes(pos, self.block_count);
        object.reserve_exact(end.saturating_sub(pos));
        object.push(VERSION);
        object.extend_from_slice(&self.block_count.to_be_bytes());
        object.extend_from_slice(&self.entries);
        object.resize(end.saturating_sub(TAG_BYTES + TRAILER_BYTES), 0);
        let tag = key.seal_slice(pos as u64, true, object.get_mut(pos..).unwrap_or_default());
        object.extend_from_slice(&tag);
        // An object is at most 8 MiB and its padding.
        let footer_bytes = (object.len() - pos) as u32;
        object.extend_from_slice(&footer_bytes.to_be_bytes());
    }
}

/// Length of the finished object whose blocks end at `blocks_end`, padding included.
pub fn object_bytes(blocks_end: usize, block_count: u32) -> usize {
    padme(blocks_end + PREFIX_BYTES + block_count as usize * ENTRY_BYTES + TAG_BYTES + TRAILER_BYTES)
}

/// The next length of the Padmé family ("Reducing Metadata Leakage from Encrypted Files and
/// Communication with PURBs", section 4): at most 12 % more, under 4 % beyond a few hundred KiB.
fn padme(bytes: usize) -> usize {
    let Some(exponent) = bytes.checked_ilog2().filter(|exponent| *exponent > 0) else { return bytes };
    let kept_bits = exponent.ilog2() + 1;
    bytes.next_multiple_of(1 << exponent.saturating_sub(kept_bits))
}

/// Where the sealed footer of an object of `segment_bytes` lies, by the object's last bytes.
pub(super) fn footer_range(
    segment: SegmentId,
    segment_bytes: u64,
    trailer: [u8; TRAILER_BYTES],
) -> Result<Range<u64>, DataError> {
    let end = segment_bytes.saturating_sub(TRAILER_BYTES as u64);
    let start = end.checked_sub(u64::from(u32::from_be_bytes(trailer)));
    match start {
        Some(start) if start >= HEAD_BYTES as u64 && end - start >= (PREFIX_BYTES + TAG_BYTES) as u64 => {
            Ok(start..end)
        }
        _ => Err(damaged(segment, end, "the footer's length is impossible")),
    }
}

/// Reads the opened footer that begins at `pos`. Positions follow from the lengths, as blocks lie
/// back to back between the head and the footer.
pub(super) fn decode(segment: SegmentId, pos: u64, plain: &[u8]) -> Result<Vec<FooterBlock>, DataError> {
    let bad = |why| damaged(segment, pos, why);
    let (version, rest) = plain.split_first().ok_or(bad("the footer is empty"))?;
    if *version != VERSION {
        return Err(bad("the footer has an unknown version"));
    }
    let (count, rest) = rest.split_first_chunk().ok_or(bad("the footer is cut"))?;
    let count = u32::from_be_bytes(*count);
    let (entries, _padding) = rest.as_chunks::<ENTRY_BYTES>();
    let Some(entries) = entries.get(..count as usize).filter(|_| count <= SEGMENT_BLOCKS_MAX) else {
        return Err(bad("the footer lists more blocks than it holds"));
    };
    let mut next = HEAD_BYTES as u32;
    let mut blocks = Vec::with_capacity(entries.len());
    for entry in entries {
        let (ino, index, piece) = decode_entry(entry).ok_or(bad("the footer names an unknown codec"))?;
        piece.validate().map_err(|_| bad("the footer lists an impossible block"))?;
        let place = BlockPlace { segment, pos: next, piece };
        blocks.push(FooterBlock { ino, index, place });
        // At most 65,536 blocks of 64 KiB and a tag may pass 2^32 only in a forged footer.
        next = next.checked_add(piece.sealed_bytes()).ok_or(bad("the footer's blocks are too long"))?;
    }
    if u64::from(next) == pos { Ok(blocks) } else { Err(bad("the footer's blocks do not end at the footer")) }
}

fn decode_entry(entry: &[u8; ENTRY_BYTES]) -> Option<(Ino, BlockIndex, Piece)> {
    let (ino, rest) = entry.split_first_chunk()?;
    let (index, rest) = rest.split_first_chunk()?;
    let (plain, rest) = rest.split_first_chunk()?;
    let (stored, rest) = rest.split_first_chunk()?;
    let piece = Piece {
        plain: u32::from(u16::from_be_bytes(*plain)) + 1,
        stored: u32::from(u16::from_be_bytes(*stored)) + 1,
        codec: Codec::from_number(*rest.first()?)?,
    };
    Some((Ino(u64::from_be_bytes(*ino)), BlockIndex(u64::from_be_bytes(*index)), piece))
}

fn damaged(segment: SegmentId, pos: u64, why: &'static str) -> DataError {
    DataError::Damaged { segment, pos: u32::try_from(pos).unwrap_or(u32::MAX), why }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::base::SEGMENT_BYTES_MAX;

    const ID: SegmentId = SegmentId([3; 16]);

    proptest! {
        #[test]
        fn decoding_any_bytes_never_panics(
            bytes in prop::collection::vec(any::<u8>(), 0..600), pos in any::<u64>(),
            count in 0u32..30, segment_bytes in any::<u64>(), trailer in any::<[u8; 4]>(),
        ) {
            let _ = decode(ID, pos, &bytes);
            let mut likely = vec![VERSION];
            likely.extend(count.to_be_bytes());
            likely.extend(&bytes);
            let _ = decode(ID, pos, &likely);
            if let Ok(range) = footer_range(ID, segment_bytes, trailer) {
                prop_assert!(range.start < range.end && range.end <= segment_bytes);
            }
        }

        #[test]
        fn padding_costs_at_most_an_eighth_and_hides_most_lengths(bytes in 64usize..SEGMENT_BYTES_MAX) {
            let padded = padme(bytes);
            prop_assert!(padded >= bytes && padded * 100 <= bytes * 112);
            prop_assert_eq!(padme(padded), padded);
            prop_assert!(bytes < 512 * 1024 || padded * 100 <= bytes * 104);
            prop_assert!(padded <= SEGMENT_BYTES_MAX);
        }
    }

    #[test]
    fn lengths_come_in_few_classes() {
        let classes = std::iter::successors(Some(64), |bytes| Some(padme(bytes + 1)));
        assert!(classes.take_while(|bytes| *bytes <= SEGMENT_BYTES_MAX).count() < 500);
    }
}
