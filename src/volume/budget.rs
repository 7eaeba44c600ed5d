//! Divides the memory of a mount among those who hold any: one sum, parts in bytes, each kept where it is used.

use super::OpenOptions;
use crate::data::SEGMENT_ROOM_BYTES;

const MIB: u64 = 1024 * 1024;
/// Segments on their way at once, where there is memory for them.
const UPLOADS_MAX: u64 = 8;
/// The least number, for which segments are made smaller; no smaller than this.
const UPLOADS_MIN: u64 = 4;
const SEGMENT_ROOM_BYTES_MIN: u64 = MIB;
/// Below these, reads in flight and a segment of unsent blocks do not fit.
const READS_BYTES_MIN: u64 = 12 * MIB;
const DIRTY_BYTES_MIN: u64 = 8 * MIB;

/// What each part of a mount may hold in memory, in bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Budget {
    /// Plaintext blocks read or written before.
    pub blocks: u64,
    /// Contents that are not in the bucket, and the tables of whose they are; writers wait beyond it.
    pub dirty: u64,
    /// Sealed copies of those, on their way.
    pub uploads: u64,
    /// Reads in flight, reads ahead, sealed neighbourhoods.
    pub reads: u64,
    /// Committed records.
    pub records: u64,
    /// Changed records, and what their commit takes; operations wait beyond it.
    pub changes: u64,
    /// Blocks of the engine's tables, sealed and opened.
    pub tables: u64,
    /// Committed records that are in no table yet, and tables being written.
    pub table_writes: u64,
}

/// Shares of the parts whose size is not asked for by name. They come to this.
const SHARES: u64 = 20;
const SHARE_OF_BLOCKS: u64 = 9;
const SHARE_OF_DIRTY: u64 = 8;

impl Budget {
    /// The least that keeps a mount going.
    pub const BYTES_MIN: u64 = 64 * MIB;
    /// What a mount takes if nobody says.
    pub const BYTES_DEFAULT: u64 = 1024 * MIB;

    /// Divides `memory` bytes, of which `blocks` and `dirty` get what is asked for by name. Nothing if that leaves the
    /// others less than an eighth.
    #[must_use]
    pub fn of(memory: u64, blocks: Option<u64>, dirty: Option<u64>) -> Option<Self> {
        let named = blocks.unwrap_or(0).saturating_add(dirty.unwrap_or(0));
        let left = memory.checked_sub(named).filter(|left| *left >= memory / 8)?;
        let of_blocks = if blocks.is_none() { SHARE_OF_BLOCKS } else { 0 };
        let of_dirty = if dirty.is_none() { SHARE_OF_DIRTY } else { 0 };
        let share = |shares: u64| left / (SHARES + of_blocks + of_dirty) * shares;
        let reads = share(4).max(READS_BYTES_MIN);
        // What the least of a part takes beyond its share comes from the largest.
        let extra =
            (reads - share(4)) + DIRTY_BYTES_MIN.saturating_sub(share(of_dirty)) * u64::from(dirty.is_none());
        Some(Self {
            blocks: blocks.unwrap_or_else(|| share(of_blocks).saturating_sub(extra)),
            dirty: dirty.unwrap_or_else(|| share(of_dirty).max(DIRTY_BYTES_MIN)),
            uploads: share(3),
            reads,
            records: share(2),
            changes: share(4),
            tables: share(4),
            table_writes: share(3),
        })
    }

    /// The limits that a mount was given.
    #[must_use]
    pub const fn of_options(options: &OpenOptions) -> Self {
        let vfs = &options.vfs;
        Self {
            blocks: options.cache_bytes,
            dirty: vfs.dirty_bytes_max as u64,
            uploads: vfs.uploads_max as u64 * vfs.segment_room_bytes as u64,
            reads: options.read_buffer_bytes,
            records: vfs.record_cache_bytes as u64,
            changes: vfs.dirty_records_bytes_max as u64,
            tables: options.table_cache_bytes,
            table_writes: options.table_write_bytes,
        }
    }

    /// All parts together.
    #[must_use]
    pub const fn total(&self) -> u64 {
        self.blocks
            + self.dirty
            + self.uploads
            + self.reads
            + self.records
            + self.changes
            + self.tables
            + self.table_writes
    }

    /// Sets the limits of a mount.
    pub fn apply(&self, options: &mut OpenOptions) {
        options.cache_bytes = self.blocks.max(1);
        options.read_buffer_bytes = self.reads;
        options.table_cache_bytes = self.tables;
        options.table_write_bytes = self.table_writes;
        options.vfs.dirty_bytes_max = to_usize(self.dirty);
        options.vfs.dirty_records_bytes_max = to_usize(self.changes);
        options.vfs.record_cache_bytes = to_usize(self.records);
        let room_max = SEGMENT_ROOM_BYTES as u64;
        let uploads = (self.uploads / room_max).clamp(UPLOADS_MIN, UPLOADS_MAX);
        options.vfs.uploads_max = to_usize(uploads);
        let room = (self.uploads / uploads).clamp(SEGMENT_ROOM_BYTES_MIN, room_max);
        options.vfs.segment_room_bytes = to_usize(room);
    }
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_parts_together_stay_within_the_memory_given() {
        for memory in [64, 65, 100, 256, 1024, 65_536] {
            for (blocks, dirty) in
                [(None, None), (Some(8 * MIB), None), (None, Some(16 * MIB)), (Some(8 * MIB), Some(8 * MIB))]
            {
                let budget = Budget::of(memory * MIB, blocks, dirty).unwrap();
                let slack = if blocks.is_some() { READS_BYTES_MIN } else { 0 };
                assert!(budget.total() <= memory * MIB + slack, "{memory} MiB: {budget:?}");
                assert!(budget.total() >= memory * MIB / 10 * 9, "{memory} MiB: {budget:?}");
                assert!(blocks.is_none_or(|blocks| blocks == budget.blocks));
                assert!(dirty.is_none_or(|dirty| dirty == budget.dirty));
            }
        }
    }

    #[test]
    fn segments_on_their_way_keep_to_their_part() {
        for memory in [64, 100, 256, 1024, 65_536] {
            let budget = Budget::of(memory * MIB, None, None).unwrap();
            let mut options = OpenOptions::default();
            budget.apply(&mut options);
            let held = (options.vfs.uploads_max * options.vfs.segment_room_bytes) as u64;
            assert!(held <= budget.uploads.max(UPLOADS_MIN * SEGMENT_ROOM_BYTES_MIN), "{memory} MiB: {held}");
            assert!(options.vfs.segment_room_bytes <= SEGMENT_ROOM_BYTES);
        }
    }

    #[test]
    fn what_does_not_fit_is_no_budget() {
        assert!(Budget::of(100 * MIB, Some(90 * MIB), None).is_none());
        assert!(Budget::of(100 * MIB, Some(60 * MIB), Some(60 * MIB)).is_none());
        assert!(Budget::of(100 * MIB, Some(0), None).is_some());
    }
}
