//! Data segments: many sealed blocks in one object, and the footer that lists them (docs/FORMAT.md, "Segments").

mod builder;
mod codec;
mod footer;
mod open;
mod salvage;
#[cfg(test)]
mod tests;

pub use builder::{FinishedSegment, SegmentBuilder};
pub use codec::Compression;
pub use footer::FooterBlock;
pub use open::open_block;
pub use salvage::{read_footer, read_seal};

/// Blocks after which a segment is full, however small they are.
pub const SEGMENT_BLOCKS_MAX: u32 = 65_536;

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

impl From<&crate::crypto::ObjectHead> for SegmentSeal {
    fn from(head: &crate::crypto::ObjectHead) -> Self {
        Self { epoch: head.epoch, salt: head.salt, commitment: head.commitment }
    }
}
