//! How SlateDB is set up: one PUT a commit, few tables, silence when idle.

use std::time::Duration;

use slatedb::config::{
    CompactionWorkerOptions, CompactorOptions, DbReaderOptions, GarbageCollectorDirectoryOptions,
    GarbageCollectorOptions, Settings, SizeTieredCompactionSchedulerOptions,
};

/// A table of the newest level is written when this many bytes of encoded records wait in memory, at most and at least.
const TABLE_BYTES_MAX: usize = 16 * 1024 * 1024;
const TABLE_BYTES_MIN: usize = 1024 * 1024;
/// Records in memory take four times their encoded bytes; a table may fill while another is written.
const MEMORY_PER_TABLE: u64 = 8;
/// Tables of the newest level that are never exceeded: writers wait for the compactor instead.
pub(super) const NEWEST_TABLES_MAX: usize = 12;
/// Tables of the newest level at which they are merged.
pub(super) const NEWEST_TABLES_MERGED_AT: usize = 4;
/// Sorted runs above which the smallest are merged whatever their sizes.
const SORTED_RUNS_MAX: usize = 8;
/// A merged table is closed at twice the size of a newest one, but not below this. Each is one PUT and is held in memory
/// until sent.
const MERGED_TABLE_BYTES_MIN: usize = 4 * 1024 * 1024;
/// The writer looks for a newer writer this often even if it writes nothing.
const WRITER_POLL: Duration = Duration::from_secs(15 * 60);
/// Readers are polled by call (see `EngineClock::call`), not by time.
const READER_POLL: Duration = Duration::from_secs(24 * 60 * 60);

/// Replaced tables stay for scans that are under way and readers that have not polled yet.
pub(super) const GARBAGE_AGE: Duration = Duration::from_secs(10 * 60);
/// Old manifests likewise. A writer that slept longer may write one again under a name that was removed:
/// nobody reads it, because the newest rules, and what it acknowledges is guarded by the fences.
pub(super) const MANIFEST_AGE: Duration = Duration::from_secs(60 * 60);
/// How often a reader in use looks for the newest manifest in a list, and how often it may because something is missing. A
/// writer whose clock is ahead of the bucket's removes manifests early.
pub(super) const LOOK_ANEW: Duration = Duration::from_secs(5 * 60);
pub(super) const LOOK_ANEW_EARLY: Duration = Duration::from_secs(30);
/// A fence refuses the commits of a writer that was taken over. It must outlive every machine's sleep, by the bucket's clock:
/// a successor whose own is a year ahead must not remove what it has just put there.
const FENCE_AGE: Duration = Duration::from_secs(90 * 24 * 60 * 60);

/// Size of a table of the newest level where records that are in no table may take `memory_bytes`.
pub(super) fn table_bytes(memory_bytes: u64) -> usize {
    let bytes = usize::try_from(memory_bytes / MEMORY_PER_TABLE).unwrap_or(usize::MAX);
    bytes.clamp(TABLE_BYTES_MIN, TABLE_BYTES_MAX)
}

/// For the writer's handle. Merging and garbage collection are not part of it: `upkeep` starts them.
pub(super) fn writer(table_bytes: usize) -> Settings {
    Settings {
        flush_interval: None,
        manifest_poll_interval: WRITER_POLL,
        min_filter_keys: 1,
        l0_sst_size_bytes: table_bytes,
        l0_max_ssts: NEWEST_TABLES_MAX,
        l0_max_ssts_per_key: NEWEST_TABLES_MAX,
        l0_flush_parallelism: 1,
        // Writers wait when more is in no table yet.
        max_unflushed_bytes: table_bytes * 2,
        compactor_options: None,
        garbage_collector_options: None,
        object_store_max_retries: None,
        ..Settings::default()
    }
}

/// For a reader's handle.
pub(super) fn reader() -> DbReaderOptions {
    DbReaderOptions {
        manifest_poll_interval: READER_POLL,
        checkpoint_lifetime: READER_POLL * 3,
        object_store_max_retries: None,
        ..DbReaderOptions::default()
    }
}

/// How much is merged.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Thoroughness {
    /// What keeps reads fast.
    Usual,
    /// All, so that nothing is kept twice.
    Everything,
}

/// For the compactor, which runs only while there is something to merge and may therefore poll often.
pub(super) fn compactor(how: Thoroughness, table_bytes: usize) -> CompactorOptions {
    let scheduler = match how {
        Thoroughness::Usual => SizeTieredCompactionSchedulerOptions {
            min_compaction_sources: NEWEST_TABLES_MERGED_AT,
            sorted_run_consolidation_threshold: SORTED_RUNS_MAX,
            ..SizeTieredCompactionSchedulerOptions::default()
        },
        Thoroughness::Everything => SizeTieredCompactionSchedulerOptions {
            min_compaction_sources: 2,
            max_compaction_sources: NEWEST_TABLES_MAX + SORTED_RUNS_MAX,
            include_size_threshold: f32::MAX,
            sorted_run_consolidation_threshold: 2,
        },
    };
    CompactorOptions {
        poll_interval: Duration::from_secs(1),
        commit_compacted_interval: Duration::from_millis(500),
        max_concurrent_compactions: 1,
        scheduler_options: scheduler.into(),
        checkpoint_lifetime: GARBAGE_AGE,
        object_store_max_retries: None,
        worker: Some(CompactionWorkerOptions {
            max_concurrent_compactions: 1,
            compactions_poll_interval: Duration::from_millis(500),
            max_sst_size: (table_bytes * 2).max(MERGED_TABLE_BYTES_MIN),
            max_fetch_tasks: 2,
            bytes_to_fetch: 1024 * 1024,
            max_subcompactions: 1,
            min_filter_keys: 1,
            ..CompactionWorkerOptions::default()
        }),
        ..CompactorOptions::default()
    }
}

/// For one run of the garbage collector, on a machine whose clock has such a lead over all that the bucket has told.
/// If that has told nothing, fences stay.
pub(super) fn garbage_collector(lead: Option<Duration>) -> GarbageCollectorOptions {
    let older_than =
        |min_age| Some(GarbageCollectorDirectoryOptions { interval: None, min_age, dry_run: false });
    GarbageCollectorOptions {
        manifest_options: older_than(MANIFEST_AGE),
        wal_options: older_than(GARBAGE_AGE),
        wal_fence_options: lead.and_then(|lead| older_than(FENCE_AGE.saturating_add(lead))),
        // See `garbage`.
        compacted_options: None,
        compactions_options: older_than(MANIFEST_AGE),
        detach_options: None,
        metric_level: None,
        boundary_files_enabled: false,
        object_store_max_retries: Some(5),
    }
}
