//! Data segments: many sealed blocks in one object, and a footer that lists them (docs/FORMAT.md, "Segments").

mod buffers;
mod builder;
mod codec;
mod footer;
mod open;
mod salvage;
#[cfg(test)]
mod tests;

pub use crate::base::SegmentSeal;
pub use buffers::Buffers;
pub use builder::{FinishedSegment, SEGMENT_ROOM_BYTES, SegmentBuilder, room_of};
pub use codec::Compression;
pub use footer::{FooterBlock, object_bytes};
pub use open::{open_block, open_block_into, open_stored};
pub use salvage::{read_blocks, read_footer, read_seal};

/// Blocks after which a segment is full, however small they are.
pub const SEGMENT_BLOCKS_MAX: u32 = 65_536;

/// For the fuzz targets: what only authenticated bytes reach otherwise.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub mod fuzzing {
    use crate::base::{Piece, SegmentId};

    /// The blocks of a footer that begins at `pos`.
    #[must_use]
    pub fn footer(pos: u64, plain: &[u8]) -> Option<Vec<super::FooterBlock>> {
        super::footer::decode(SegmentId([0; 16]), pos, plain).ok()
    }

    /// The plaintext of a block as it is stored.
    #[must_use]
    pub fn unpack(piece: Piece, stored: Vec<u8>) -> Option<Vec<u8>> {
        super::codec::unpack(piece, stored)
    }
}
