//! Is everything safe? What is queued, cached, committed, and since when.

use std::time::Duration;

use serde::Serialize;

use crate::base::{HistogramSnapshot, Time};
use crate::store::OutageKind;

use super::clean::Cleaned;
use super::damage::Damage;
use super::queue::QueueStatus;
use super::state::{Phase, State};
use super::{Amount, Rescue, Vfs};

/// The state of a mounted volume at a glance. Sizes in bytes, times in seconds.
#[derive(Clone, Debug, Serialize)]
pub struct Status {
    /// Everything that was written is in the bucket.
    pub is_safe: bool,
    /// `writable`, `ending` (what is left is saved), `read-only`, `outdated` (a reader that has met a newer key than its own), `fenced` or `shut down`.
    pub state: &'static str,
    /// Bytes of file contents that are not in the bucket yet.
    pub dirty_bytes: u64,
    /// Records changed and not committed.
    pub dirty_records: u64,
    /// Age of the oldest change that is not committed, in seconds.
    pub dirty_age: Option<f64>,
    /// What waits for the bucket, and for how long.
    pub queue: QueueStatus,
    /// Whether a commit is under way.
    pub is_committing: bool,
    /// Number of the last commit.
    pub commit: u64,
    /// The first half of its hash, in hexadecimal digits.
    pub head: String,
    /// When this mount made its last commit, in seconds since 1970.
    pub committed_at: Option<f64>,
    /// Age of the newest commit in seconds, where a reader watches it.
    pub newest_age: Option<f64>,
    /// Whether it is older than was allowed.
    pub is_stale: bool,
    /// Inodes in the volume.
    pub files: u64,
    /// Plaintext bytes stored in the volume.
    pub stored_bytes: u64,
    /// Most bytes that may be stored; 0 for no limit.
    pub quota_bytes: u64,
    /// Bytes in the block cache, and its limit.
    pub cache_bytes: u64,
    /// The block cache's limit.
    pub cache_bytes_max: u64,
    /// Reads answered by the block cache.
    pub cache_hits: u64,
    /// Reads that were not.
    pub cache_misses: u64,
    /// Bytes of metadata records in memory.
    pub record_cache_bytes: u64,
    /// How often contents of a file were left to a later commit, because somebody waited for other files.
    pub put_off: u64,
    /// Files of which a write could not be stored.
    pub lost_files: u64,
    /// What has been met of damage in the bucket. It makes nothing unsafe that was written since.
    pub damage: Damage,
    /// Why the newest commit could not be noted on this machine; it is tried again.
    pub unnoted: Option<String>,
    /// Segments that are dead and wait to be deleted, and their bytes as far as they are known.
    pub waiting: Amount,
    /// Bytes of segments in use that nothing refers to; none where that is not known yet.
    pub dead_bytes: Option<u64>,
    /// What the cleaner has done in this mount.
    pub cleaned: Cleaned,
    /// What became of what was not sent when another writer took over.
    pub rescue: Option<Rescue>,
}

/// Takes whether everything is in the bucket. Called under the filesystem's lock: it must be quick and never call back.
pub type OnSafety = Box<dyn Fn(bool) + Send + Sync>;

impl Vfs {
    /// Has `tell` called before the first change to a filesystem of which everything is in the bucket is acknowledged, and
    /// as soon as everything is again. Only the first caller is heard.
    pub fn watch_safety(&self, tell: OnSafety) {
        let state = self.state.lock();
        let is_safe = state.is_open_empty() && !state.is_committing;
        if self.signals.safety.set(tell).is_ok() {
            self.tell_safety(is_safe);
        }
    }

    /// Bytes of file contents that are not in the bucket yet.
    #[must_use]
    pub fn dirty_bytes(&self) -> u64 {
        self.state.lock().dirty.bytes() as u64
    }

    /// Why the bucket takes nothing at present.
    #[must_use]
    pub fn outage(&self) -> Option<OutageKind> {
        self.vault.bucket().meter().outage()
    }

    /// Bytes of segments that this mount has read and written to clean.
    #[must_use]
    pub fn cleaned_bytes(&self) -> u64 {
        let state = self.state.lock();
        state.cleaned.read_bytes + state.cleaned.written_bytes
    }

    /// How many bytes that will about be when the cleaning ends that was asked for last; `None` until it knows, and where
    /// nothing is to be rewritten. What turns out not to be worth it is counted, too.
    #[must_use]
    pub fn to_clean_bytes(&self) -> Option<u64> {
        self.state.lock().to_clean_bytes
    }

    /// Number and hash of the last commit.
    #[must_use]
    pub fn head(&self) -> (u64, [u8; 32]) {
        let state = self.state.lock();
        (state.superblock.commit, state.superblock.head)
    }

    /// How many commits this device has made.
    #[must_use]
    pub fn counter(&self) -> u64 {
        self.state.lock().counter
    }

    /// How long commits took, and how long those who asked for durability waited.
    #[must_use]
    pub fn times(&self) -> (HistogramSnapshot, HistogramSnapshot) {
        (self.commit_times.snapshot(), self.fsync_times.snapshot())
    }

    /// The state of the volume at a glance.
    #[must_use]
    pub fn status(&self) -> Status {
        let cache = self.cache.stats();
        let rescue = self.rescue.lock().clone();
        let staleness = self.staleness();
        let damage = self.damage.lock().clone();
        let state = self.state.lock();
        let now = self.clock.elapsed();
        let age = |since: Option<Duration>| since.map(|since| now.saturating_sub(since).as_secs_f64());
        Status {
            is_safe: state.is_clean() && state.phase != Phase::Fenced && state.lost.is_empty(),
            state: match state.phase {
                Phase::Writable if state.is_ending => "ending",
                Phase::Writable => "writable",
                Phase::ReadOnly if self.check_key().is_err() => "outdated",
                Phase::ReadOnly => "read-only",
                Phase::Fenced => "fenced",
                Phase::ShutDown => "shut down",
            },
            dirty_bytes: state.dirty.bytes() as u64,
            dirty_records: state.overlay.open_count() as u64,
            dirty_age: age([state.sealed_since, waiting_since(&state)].into_iter().flatten().min()),
            queue: queue_status(&state, now),
            is_committing: state.is_committing,
            newest_age: staleness.map(|(age, _)| age),
            is_stale: staleness.is_some_and(|(_, is_stale)| is_stale),
            commit: state.superblock.commit,
            head: state.superblock.head.iter().take(16).map(|byte| format!("{byte:02x}")).collect(),
            committed_at: state.committed_at.map(seconds),
            files: state.superblock.files.saturating_add_signed(state.files_delta),
            stored_bytes: state.superblock.bytes,
            quota_bytes: state.quota_bytes,
            cache_bytes: self.cache.len_bytes(),
            cache_bytes_max: self.cache.capacity_bytes(),
            cache_hits: cache.hits,
            cache_misses: cache.misses,
            record_cache_bytes: state.overlay.cache_bytes() as u64,
            put_off: state.overtaking.put_off_count(),
            lost_files: state.lost.len() as u64,
            damage,
            unnoted: state.unnoted.as_ref().map(|unnoted| unnoted.why().to_owned()),
            waiting: state.waiting.amount(),
            dead_bytes: state.ledger.is_complete().then(|| state.ledger.totals().dead),
            cleaned: state.cleaned.clone(),
            rescue,
        }
    }
}

/// When the oldest change came that waits for the next commit.
fn waiting_since(state: &State) -> Option<Duration> {
    [state.dirty_since, state.overtaking.oldest()].into_iter().flatten().min()
}

fn queue_status(state: &State, now: Duration) -> QueueStatus {
    let age = |since: Option<Duration>| since.map(|since| now.saturating_sub(since).as_secs_f64());
    let bytes = state.dirty.bytes() as u64;
    let committing_bytes = state.dirty.sealed_bytes() as u64;
    QueueStatus {
        waiting_bytes: bytes.saturating_sub(committing_bytes),
        waiting_age: age(waiting_since(state)),
        committing_bytes,
        committing_age: age(state.sealed_since),
        sending_bytes: state.dirty.in_flight_bytes() as u64,
        sending_segments: state.dirty.flights() as u64,
        median_age: state.queue.median(now).map(|age| age.as_secs_f64()),
        ages: state.queue.ages(now),
    }
}

fn seconds(time: Time) -> f64 {
    time.secs as f64 + f64::from(time.nanos) / 1e9
}
