//! Deletes segments: each when it has waited long enough.
//!
//! An object is deleted only if a committed record names it and no other record needs it.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use crate::base::{Ino, SegmentId, Time};
use crate::meta::{Garbage, Key, Record};
use crate::store::tallied;

use super::leftovers::UNLISTED;
use super::{Amount, Vfs, VfsError};

/// Segments deleted at a time.
const DELETES_MAX: usize = 16;
/// Segments deleted in the background between two rests.
const BATCH_COUNT: usize = 64;
/// Pause before a segment that could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Records read from the engine at a time.
const SCAN_COUNT: usize = 1024;
/// Segments that wait and are kept in memory. Beyond, their records are read again.
pub(super) const WAITING_MAX: usize = 65_536;

/// What waits to be deleted, and until when by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_time: BTreeMap<(Duration, SegmentId), Wait>,
    /// There are more than are kept here.
    is_cut: bool,
}

#[derive(Clone, Copy, Debug)]
struct Wait {
    is_leftover: bool,
    /// The object's length, if known.
    bytes: u64,
}

impl Waiting {
    /// A segment that a commit has let go of.
    pub(super) fn dead(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.add(id, Wait { is_leftover: false, bytes }, due);
    }

    pub(super) fn leftover(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.add(id, Wait { is_leftover: true, bytes }, due);
    }

    fn add(&mut self, id: SegmentId, wait: Wait, due: Duration) {
        if self.by_time.len() < WAITING_MAX {
            self.by_time.insert((due, id), wait);
        } else {
            self.is_cut = true;
        }
    }

    /// The lengths of objects have been seen.
    pub(super) fn learn(&mut self, lengths: &HashMap<SegmentId, u64>) {
        for ((_, id), wait) in &mut self.by_time {
            if let Some(bytes) = lengths.get(id) {
                wait.bytes = *bytes;
            }
        }
    }

    fn is_full(&self) -> bool {
        self.by_time.len() >= WAITING_MAX
    }

    /// Whether the records must be read again, because what was kept here is done.
    fn take_cut(&mut self) -> bool {
        self.by_time.is_empty() && std::mem::take(&mut self.is_cut)
    }

    fn take_due(&mut self, now: Duration, limit: usize) -> Vec<(SegmentId, Wait)> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(entry) = self.by_time.first_entry().filter(|entry| entry.key().0 <= now)
        {
            due.push((entry.key().1, *entry.get()));
            entry.remove();
        }
        due
    }

    /// What was to be tried again at this time need not be.
    fn remove(&mut self, id: SegmentId, due: Duration) {
        self.by_time.remove(&(due, id));
    }

    /// When the first of them is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.by_time.first_key_value().map(|((due, _), _)| *due)
    }

    /// How many wait, and the lengths of those of which they are known.
    pub(super) fn amount(&self) -> Amount {
        Amount { count: self.by_time.len() as u64, bytes: self.by_time.values().map(|wait| wait.bytes).sum() }
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

    /// Deletes some of what has waited long enough, and rests for it.
    pub(super) async fn collect_some(&self) {
        if self.is_collection_due() {
            let ((), requests) = tallied(self.collect_at_most(BATCH_COUNT)).await;
            self.rest_after(0, requests);
        }
    }

    async fn collect_at_most(&self, limit: usize) {
        let now = self.clock.elapsed();
        // Whoever asked may go away at any time: what is not deleted by then is tried again.
        let again = now + RETRY;
        let due = {
            let mut state = self.state.lock();
            let due = state.waiting.take_due(now, limit);
            due.iter().for_each(|(id, wait)| state.waiting.add(*id, *wait, again));
            due
        };
        let deletes = stream::iter(due).for_each_concurrent(DELETES_MAX, |(id, wait)| async move {
            match self.collect(id, wait).await {
                Ok(()) => self.state.lock().waiting.remove(id, again),
                Err(error) => tracing::warn!(segment = %id, %error, "a dead segment stays for now"),
            }
        });
        deletes.await;
        if self.state.lock().waiting.take_cut()
            && let Err(error) = self.remember_waiting().await
        {
            tracing::warn!(%error, "what else waits to be deleted is found by the next mount");
        }
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
                keys.extend(self.references_of(id, usize::MAX).await?);
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

    /// Up to `limit` records of pages that share blocks of a segment.
    pub(super) async fn references_of(&self, id: SegmentId, limit: usize) -> Result<Vec<Key>, VfsError> {
        let end = Key::Reference(next_id(id), Ino(0), 0);
        let mut keys = Vec::new();
        let mut from = Key::Reference(id, Ino(0), 0);
        loop {
            let (records, last) = self.scan(from, end, limit.min(SCAN_COUNT)).await?;
            keys.extend(records.into_iter().map(|(key, _)| key));
            match last {
                Some(Key::Reference(id, ino, page)) if keys.len() < limit => {
                    from = Key::Reference(id, ino, page.saturating_add(1));
                }
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
                    state.waiting.is_cut = true;
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
    fn what_waits_is_taken_when_it_is_due_and_not_before() {
        let secs = Duration::from_secs;
        let mut waiting = Waiting::default();
        waiting.dead(SegmentId([1; 16]), 100, secs(10));
        waiting.leftover(SegmentId([2; 16]), 200, secs(5));
        assert_eq!((waiting.next_due(), waiting.amount()), (Some(secs(5)), Amount { count: 2, bytes: 300 }));
        assert!(waiting.take_due(secs(4), usize::MAX).is_empty());
        let due = waiting.take_due(secs(5), usize::MAX);
        assert!(matches!(due[..], [(SegmentId([2, ..]), Wait { is_leftover: true, .. })]));
        assert_eq!(waiting.take_due(secs(100), usize::MAX).len(), 1);
        assert_eq!(waiting.next_due(), None);
    }

    #[test]
    fn more_than_there_is_room_for_is_read_again_when_the_first_are_done() {
        let mut waiting = Waiting::default();
        for number in 0..=WAITING_MAX as u128 {
            waiting.dead(SegmentId(number.to_be_bytes()), 1, Duration::ZERO);
        }
        assert!(waiting.is_full() && !waiting.take_cut());
        assert_eq!(waiting.take_due(Duration::ZERO, usize::MAX).len(), WAITING_MAX);
        assert!(waiting.take_cut() && !waiting.take_cut());
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_older() {
        let (early, late) = (Time { secs: 100, nanos: 0 }, Time { secs: 160, nanos: 0 });
        assert_eq!(age(early, late), Duration::from_secs(60));
        assert_eq!(age(late, early), Duration::ZERO);
        assert_eq!(before(late, Duration::from_secs(60)), early);
    }
}
