//! The limits that a filesystem keeps to.

use std::sync::Arc;
use std::time::Duration;

use super::{Atime, OnFenced};
use crate::data::{Compression, SEGMENT_ROOM_BYTES};

/// A commit that has become durable.
#[derive(Clone, Copy, Debug)]
pub struct Committed {
    /// Its number.
    pub number: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// How many commits this device has made with it; 0 where it does not count.
    pub counter: u64,
}

/// Told of every commit.
pub type OnCommit = Arc<dyn Fn(Committed) -> Result<(), String> + Send + Sync>;

/// A group's records are in memory so often while it is committed: the next group, the sealed one, its batch, the encoded
/// batch, the engine's.
const COMMIT_COPIES: usize = 5;
/// What an access time makes of a group when it becomes a change of its inode.
const ATIME_BYTES: usize = 2048;
const ATIMES_MIN: usize = 64;
const ATIMES_MAX: usize = 50_000;

/// The limits that a filesystem keeps to.
#[derive(Clone)]
pub struct VfsOptions {
    /// Refuse every change.
    pub read_only: bool,
    /// A reader stays at the commit that it was opened at, instead of following.
    pub stays: bool,
    /// Age of the oldest uncommitted change at which a commit starts.
    pub commit_age: Duration,
    /// Bytes of file contents in memory and not in the bucket, with their tables, beyond which writers wait.
    pub dirty_bytes_max: usize,
    /// Uncommitted records beyond which changes wait.
    pub dirty_records_max: usize,
    /// The same in bytes of memory, with what a commit of them takes.
    pub dirty_records_bytes_max: usize,
    /// Bytes of committed records to keep in memory.
    pub record_cache_bytes: usize,
    /// Contents of one urgent commit, up to which they ride in its records.
    pub inline_commit_bytes: usize,
    /// A file's size, up to which it stays in a record for good.
    pub inline_file_bytes: usize,
    /// What the blocks of one segment may come to by [`room_of`](crate::data::room_of); at most
    /// [`SEGMENT_ROOM_BYTES`].
    pub segment_room_bytes: usize,
    /// Segments on their way at once.
    pub uploads_max: usize,
    /// Bytes that one sequential reader may have fetched ahead.
    pub read_ahead_bytes: u64,
    /// How blocks are compressed before they are sealed.
    pub compression: Compression,
    /// The device that commits are made by; it counts them unless it is all zeros.
    pub device: [u8; 16],
    /// How many it has made before.
    pub counter: u64,
    /// Up to this commit, of this hash, an admin has accepted the history as it is, whatever is missing in it.
    pub accepted: Option<(u64, [u8; 32])>,
    /// When and how fast segments are cleaned.
    pub clean: CleanOptions,
    /// Whether an `fsync` may be done before contents of other files that were written earlier.
    pub overtakes: bool,
    /// How long an `fsync` waits for the bucket before it fails; for ever if there is no limit.
    pub fsync_timeout: Option<Duration>,
    /// When reading changes an access time.
    pub atime: Atime,
    /// Whether listing a directory does.
    pub directory_atime: bool,
    /// What a reader shows is at most this old, while the bucket answers.
    pub poll_interval: Duration,
    /// Commit this often although nothing has changed.
    pub heartbeat: Option<Duration>,
    /// A reader warns when the newest commit that it finds is older.
    pub max_staleness: Option<Duration>,
    /// Told of every commit, after it is durable.
    pub on_commit: Option<OnCommit>,
    /// Saves what was not sent when another writer takes over; lost at the end if `None`.
    pub on_fenced: Option<OnFenced>,
}

/// When and how fast segments are cleaned.
#[derive(Clone, Debug)]
pub struct CleanOptions {
    /// Clean in the background.
    pub is_automatic: bool,
    /// How long a dead segment stays for readers on other machines.
    pub grace: Duration,
    /// How long a segment of which no record knows stays, after it was found.
    pub leftover_grace: Duration,
    /// Dead bytes that are not worth a rewrite.
    pub slack_bytes: u64,
    /// Bytes read and written per second while nobody else uses the bucket; an eighth of it while
    /// somebody does.
    pub bytes_per_second: u64,
    /// The same in requests: what is rewritten, merged and deleted in the background asks for no more.
    pub requests_per_second: u64,
}

impl Default for CleanOptions {
    fn default() -> Self {
        Self {
            is_automatic: true,
            grace: Duration::from_secs(10 * 60),
            leftover_grace: Duration::from_secs(24 * 60 * 60),
            slack_bytes: 1024 * 1024,
            bytes_per_second: 16 * 1024 * 1024,
            requests_per_second: 128,
        }
    }
}

impl VfsOptions {
    /// Bytes of records that one group may change: while it is committed the next fills up, and what is written is a
    /// third copy and a fourth.
    pub(super) const fn open_records_bytes_max(&self) -> usize {
        self.dirty_records_bytes_max / COMMIT_COPIES
    }

    /// Access times that may wait in memory: they become part of one group.
    pub(super) fn atimes_max(&self) -> usize {
        (self.open_records_bytes_max() / ATIME_BYTES).clamp(ATIMES_MIN, ATIMES_MAX)
    }
}

impl Default for VfsOptions {
    fn default() -> Self {
        Self {
            read_only: false,
            stays: false,
            commit_age: Duration::from_secs(5),
            dirty_bytes_max: 256 * 1024 * 1024,
            dirty_records_max: 500_000,
            dirty_records_bytes_max: 256 * 1024 * 1024,
            record_cache_bytes: 96 * 1024 * 1024,
            inline_commit_bytes: 128 * 1024,
            inline_file_bytes: 1024,
            segment_room_bytes: SEGMENT_ROOM_BYTES,
            uploads_max: 8,
            read_ahead_bytes: 32 * 1024 * 1024,
            compression: Compression::None,
            device: [0; 16],
            counter: 0,
            accepted: None,
            clean: CleanOptions::default(),
            overtakes: true,
            fsync_timeout: None,
            atime: Atime::default(),
            directory_atime: true,
            poll_interval: Duration::from_secs(5),
            heartbeat: None,
            max_staleness: None,
            on_commit: None,
            on_fenced: None,
        }
    }
}
