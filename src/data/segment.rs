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
pub use open::{open_block, open_stored};
pub use salvage::{read_blocks, read_footer, read_seal};

/// Blocks after which a segment is full, however small they are.
pub const SEGMENT_BLOCKS_MAX: u32 = 65_536;
