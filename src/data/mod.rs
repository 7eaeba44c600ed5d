//! File contents: dirty blocks, segment packing, upload, block reads, read-ahead.

mod buffers;
mod dirty;
mod error;
mod ledger;
mod moves;
mod orders;
pub mod reader;
pub mod segment;

pub use buffers::BlockBuffers;
pub use dirty::{Batch, Beneath, Dirty, FileEdit, Paint, SentBlock, Unsent};
pub use error::DataError;
pub use ledger::{Ledger, Pick, Reason, Totals, Weight, parted};
pub use moves::{Move, Moved, Moves};
pub use reader::{BlockReader, Neighbourhood, ReadAhead, ReadHint, Want};
pub use segment::{
    Compression, FinishedSegment, SEGMENT_BLOCKS_MAX, SEGMENT_ROOM_BYTES, SegmentBuilder, room_of,
};
