//! What a filesystem holds in memory, part by part of its budget.

use super::Vfs;

/// Bytes in memory by part of the budget. (`docs/OPERATING.md`, "Memory")
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct MemoryUsed {
    /// Plaintext blocks read or written before.
    pub blocks: u64,
    /// Contents that are not in the bucket, and the tables of whose they are.
    pub dirty: u64,
    /// Segments on their way.
    pub uploads: u64,
    /// Reads in flight, reads ahead, sealed neighbourhoods.
    pub reads: u64,
    /// Committed records.
    pub records: u64,
    /// Changed records, and what their commit takes.
    pub changes: u64,
    /// Blocks of the engine's tables, sealed and opened.
    pub tables: u64,
}

impl Vfs {
    /// What is in memory at this moment.
    #[must_use]
    pub fn memory(&self) -> MemoryUsed {
        let (blocks, reads) = (self.cache.len_bytes(), self.reader.held_bytes());
        let tables = self.engine.cached_bytes() + self.vault.cached().get();
        let room = self.options.segment_room_bytes as u64;
        let state = self.state.lock();
        MemoryUsed {
            blocks,
            dirty: state.dirty.held_bytes() as u64,
            uploads: state.dirty.flights() as u64 * room,
            reads,
            records: state.overlay.cache_bytes() as u64,
            changes: state.overlay.changed_bytes() as u64,
            tables,
        }
    }
}
