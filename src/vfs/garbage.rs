//! Deletes segments: each when it has waited long enough.
//!
//! An object is deleted only if a committed record names it and no other record needs it.

use std::sync::Arc;
use std::time::Duration;

use futures::{FutureExt, StreamExt, stream};

use crate::base::{Ino, SegmentId, Time};
use crate::meta::{Garbage, Key, Record};
use crate::store::tallied;

use super::leftovers::UNLISTED;
use super::waiting::Wait;
use super::{Vfs, VfsError};

/// Segments deleted at a time.
const DELETES_MAX: usize = 16;
/// Segments deleted in the background between two rests.
const BATCH_COUNT: usize = 64;
/// Records read from the engine at a time.
const SCAN_COUNT: usize = 1024;
/// An attempt to delete a segment. However it ends, the segment is offered again unless it is gone.
struct Attempt<'a> {
    vfs: &'a Vfs,
    id: SegmentId,
    wait: Wait,
    is_done: bool,
}

impl Attempt<'_> {
    /// Says whether the segment need not be tried again.
    async fn make(mut self) -> bool {
        match self.vfs.collect(self.id, self.wait).await {
            Ok(()) => self.is_done = true,
            Err(error) => {
                tracing::warn!(segment = %self.id, %error, "a dead segment stays for now");
                self.wait.failures = self.wait.failures.saturating_add(1);
            }
        }
        self.is_done
    }
}

impl Drop for Attempt<'_> {
    fn drop(&mut self) {
        let now = self.vfs.clock.elapsed();
        let mut state = self.vfs.state.lock();
        state.waiting.end(self.id, self.wait, (!self.is_done).then_some(now));
    }
}

impl Vfs {
    /// Deletes what has waited long enough, beside everything else: where the housekeeping goes on, only as many at a time
    /// as it would.
    pub(super) fn collect_in_passing(&self) {
        if !self.is_collection_due() {
            return;
        }
        let is_paced = self.options.clean.is_automatic;
        if is_paced && !self.rest_left().is_zero() {
            return;
        }
        let Some(this) = self.me.upgrade() else { return };
        let turn = Arc::clone(&self.signals.collecting).try_read_owned().ok();
        tokio::spawn(async move {
            if is_paced {
                this.collect_some().await;
            } else {
                this.collect_due().await;
            }
            drop(turn);
        });
    }

    /// Whether something has waited long enough.
    pub(super) fn is_collection_due(&self) -> bool {
        let now = self.clock.elapsed();
        self.state.lock().waiting.next_due().is_some_and(|due| due <= now)
    }

    /// Deletes all that has waited long enough.
    pub(super) async fn collect_due(&self) {
        self.collect_at_most(usize::MAX).await;
    }

    /// Deletes some of what has waited long enough, and rests for it. Says whether anything was.
    pub(super) async fn collect_some(&self) -> bool {
        if !self.is_collection_due() {
            return false;
        }
        let (deleted_count, requests) = tallied(self.collect_at_most(BATCH_COUNT)).await;
        self.rest_after(0, requests);
        deleted_count > 0
    }

    async fn collect_at_most(&self, limit: usize) -> usize {
        let due = self.state.lock().waiting.take_due(self.clock.elapsed(), limit);
        let attempt = |(id, wait)| Attempt { vfs: self, id, wait, is_done: false }.make().boxed();
        let attempts: Vec<_> = due.into_iter().map(attempt).collect();
        let done: Vec<bool> = stream::iter(attempts).buffer_unordered(DELETES_MAX).collect().await;
        let deleted_count = done.into_iter().filter(|is_done| *is_done).count();
        if self.state.lock().waiting.take_cut()
            && let Err(error) = self.remember_waiting().await
        {
            tracing::warn!(%error, "what else waits to be deleted is looked for later");
            self.state.lock().waiting.cut();
        }
        deleted_count
    }

    async fn collect(&self, id: SegmentId, wait: Wait) -> Result<(), VfsError> {
        let names = [Key::Segment(id), Key::Garbage(id), Key::Leftover(id)];
        let (is_needed, garbage, leftover) = self
            .read_txn(|txn| {
                txn.want_committed(&names)?;
                let is_needed = txn.committed(Key::Segment(id))?.is_some() || txn.state().knows_segment(id);
                Ok((is_needed, txn.committed(Key::Garbage(id))?, txn.committed(Key::Leftover(id))?))
            })
            .await?;
        if is_needed {
            tracing::error!(segment = %id, "it is named dead and is in use; it is left alone");
            return Ok(());
        }
        let mut keys = Vec::new();
        match (garbage, leftover) {
            (Some(Record::Garbage(garbage)), _) if !wait.is_leftover => {
                if self.is_held_by_a_snapshot(&garbage) {
                    return Ok(());
                }
                keys.extend(self.references_of(id).await?);
                keys.push(Key::Garbage(id));
            }
            (_, Some(_)) if wait.is_leftover => keys.push(Key::Leftover(id)),
            // Somebody else has done it.
            _ => return Ok(()),
        }
        self.vault.delete_segment(id).await.map_err(|error| {
            VfsError::Data(crate::data::DataError::Unavailable { segment: id, source: Some(Arc::new(error)) })
        })?;
        let mut state = self.state.lock();
        state.collected.extend(keys);
        state.cleaned.deleted_count += 1;
        state.cleaned.deleted_bytes += wait.bytes;
        Ok(())
    }

    /// Whether a snapshot was born in the lifetime of a dead segment and so may need it. There are no
    /// snapshots yet: this is where they will be asked.
    #[allow(clippy::unused_self)] // snapshots will be part of the state
    const fn is_held_by_a_snapshot(&self, _garbage: &Garbage) -> bool {
        false
    }

    /// The records of pages that share blocks of a segment.
    async fn references_of(&self, id: SegmentId) -> Result<Vec<Key>, VfsError> {
        let end = Key::Reference(next_id(id), Ino(0), 0);
        let mut keys = Vec::new();
        let mut from = Key::Reference(id, Ino(0), 0);
        loop {
            let (records, last) = self.scan(from, end, SCAN_COUNT).await?;
            keys.extend(records.into_iter().map(|(key, _)| key));
            match last {
                Some(Key::Reference(id, ino, page)) => from = Key::Reference(id, ino, page.saturating_add(1)),
                _ => return Ok(keys),
            }
        }
    }

    /// Remembers the records of segments that wait to be deleted, as many as there is room for.
    pub(super) async fn remember_waiting(&self) -> Result<(), VfsError> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let first = Key::Garbage(SegmentId([0; 16]));
        let (any, _) = self.scan(first, Key::History(0), 1).await?;
        if !any.is_empty() {
            let grace = self.options.clean.grace;
            let old = self.last_commit_before(before(now, grace)).await?;
            let wait = |record: &Record| match record {
                Record::Garbage(garbage) if garbage.died <= old => Some(elapsed),
                Record::Garbage(_) => Some(elapsed.saturating_add(grace)),
                _ => None,
            };
            self.remember(first, Key::History(0), wait).await?;
        }
        let wait = |record: &Record| match record {
            Record::Leftover(leftover) => {
                let wait = self.options.clean.leftover_grace.saturating_sub(age(leftover.found, now));
                Some(elapsed.saturating_add(wait))
            }
            _ => None,
        };
        self.remember(Key::Leftover(SegmentId([0; 16])), UNLISTED, wait).await
    }

    /// Remembers the segments of the records in `from..to`, each until `due_of` it.
    async fn remember(
        &self,
        mut from: Key,
        to: Key,
        due_of: impl Fn(&Record) -> Option<Duration> + Send + Sync,
    ) -> Result<(), VfsError> {
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            let mut state = self.state.lock();
            for (key, record) in records {
                // If its object is gone already, the record goes with the next commit.
                let due = due_of(&record).filter(|_| !state.collected.contains(&key));
                match (key, due) {
                    (Key::Garbage(id), Some(due)) => state.waiting.dead(id, 0, due),
                    (Key::Leftover(id), Some(due)) => state.waiting.leftover(id, 0, due),
                    _ => {}
                }
            }
            from = match last {
                Some(_) if state.waiting.is_full() => {
                    state.waiting.cut();
                    return Ok(());
                }
                Some(Key::Garbage(id)) => Key::Garbage(next_id(id)),
                Some(Key::Leftover(id)) => Key::Leftover(next_id(id)),
                _ => return Ok(()),
            };
        }
    }

    /// The last commit that was made at or before `time`, or an earlier one.
    async fn last_commit_before(&self, time: Time) -> Result<u64, VfsError> {
        let mut low = 0;
        let mut high = self.state.lock().superblock.commit;
        while low < high {
            let middle = low + (high - low).div_ceil(2);
            // Where old commits are folded the next one that is not is taken: it is no older.
            let (next, _) = self.scan(Key::Commit(middle), Key::Commit(u64::MAX), 1).await?;
            match next.first() {
                Some((_, Record::Commit(commit))) if commit.time <= time => low = middle,
                _ => high = middle - 1,
            }
        }
        Ok(low)
    }

    /// All records with keys in `from..to`.
    pub(super) async fn all_of(&self, from: Key, to: Key) -> Result<Vec<(Key, Record)>, VfsError> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            all.extend(records);
            from = match last {
                Some(Key::Orphan(ino)) => Key::Orphan(Ino(ino.0.saturating_add(1))),
                _ => return Ok(all),
            };
        }
    }
}

/// The id after `id`.
pub(super) const fn next_id(id: SegmentId) -> SegmentId {
    SegmentId(u128::from_be_bytes(id.0).saturating_add(1).to_be_bytes())
}

/// How long ago `then` was; nothing if the clock has gone back since.
fn age(then: Time, now: Time) -> Duration {
    now.to_system().duration_since(then.to_system()).unwrap_or_default()
}

/// The time `by` before `now`.
fn before(now: Time, by: Duration) -> Time {
    now.to_system().checked_sub(by).map_or(Time::default(), Time::from_system)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_went_back_makes_nothing_older() {
        let (early, late) = (Time { secs: 100, nanos: 0 }, Time { secs: 160, nanos: 0 });
        assert_eq!(age(early, late), Duration::from_secs(60));
        assert_eq!(age(late, early), Duration::ZERO);
        assert_eq!(before(late, Duration::from_secs(60)), early);
    }
}
