//! Plain vocabulary that every room shares: identities, names, time, randomness and units.

mod aside;
mod behind;
mod entropy;
mod extent;
mod gauge;
mod histogram;
mod id;
mod name;
mod pool;
mod populate;
mod ranges;
mod time;

pub use aside::aside;
pub use behind::behind;
pub use entropy::{Entropy, OsEntropy, SeededEntropy};
pub use extent::{BlockPlace, Codec, ExtentError, LiveDelta, NewSegment, Piece, Run, RunList, SegmentSeal};
pub use gauge::Gauge;
pub use histogram::{CLASS_SECS, Histogram, HistogramSnapshot};
pub use id::{BlockIndex, Ino, SegmentId, Tag, VolumeId};
pub use name::{NAME_BYTES_MAX, Name, NameError};
pub use pool::{Pool, PoolMember};
pub use populate::populate;
pub use ranges::RangeSet;
pub use time::{Clock, ManualClock, SystemClock, Time};

/// Plaintext bytes of one block of a file.
pub const BLOCK_BYTES: usize = 64 * 1024;
/// [`BLOCK_BYTES`] as a file offset.
pub const BLOCK_LEN: u64 = BLOCK_BYTES as u64;
/// Blocks whose extents share one record (64 MiB of a file).
pub const PAGE_BLOCKS: u64 = 1024;
/// Sealed bytes of blocks after which a segment is closed.
pub const SEGMENT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Bytes in front of every sealed object. (docs/FORMAT.md, "Sealed objects")
pub const HEAD_BYTES: usize = 64;
/// Bytes that sealing adds to every piece.
pub const TAG_BYTES: usize = 16;
/// Largest file: offsets are signed 64-bit at the kernel's door.
pub const FILE_BYTES_MAX: u64 = i64::MAX as u64;

/// What an inode is. The discriminant is what `docs/FORMAT.md` stores.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, bincode::Encode, bincode::Decode)]
#[repr(u8)]
pub enum FileKind {
    /// A regular file.
    Regular = 0,
    /// A directory.
    Directory = 1,
    /// A symbolic link.
    Symlink = 2,
    /// A named pipe.
    Fifo = 3,
    /// A character device.
    CharDevice = 4,
    /// A block device.
    BlockDevice = 5,
    /// A socket.
    Socket = 6,
}
