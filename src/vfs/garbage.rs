//! Segments that are to be deleted: those that died, and those that no record ever knew.
//!
//! An object is deleted only if a committed record names it and no other record needs it. A listing
//! only proposes: what it shows and no record knows gets a record of its own and waits longer.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use futures::stream;

use crate::base::{Ino, SegmentId, Time};
use crate::meta::{Garbage, Key, Leftover, MetaError, Record};

use super::{Amount, Vfs, VfsError};

/// Segments deleted at a time.
const DELETES_MAX: usize = 16;
/// Pause before a segment that could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(60);
/// Listed objects that are looked at. More than 128 TiB of segments are not expected; an endless list is.
const LISTED_MAX: usize = 1 << 24;
/// Leftovers noted at a time: the rest is found by the next listing.
const LEFTOVERS_MAX: usize = 65_536;

/// What waits to be deleted, and until when by the monotonic clock.
#[derive(Debug, Default)]
pub(super) struct Waiting(BTreeMap<(Duration, SegmentId), Wait>);

#[derive(Clone, Copy, Debug)]
struct Wait {
    is_leftover: bool,
    /// The object's length, if known.
    bytes: u64,
}

impl Waiting {
    /// A segment that a commit has let go of.
    pub(super) fn dead(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.0.insert((due, id), Wait { is_leftover: false, bytes });
    }

    fn leftover(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.0.insert((due, id), Wait { is_leftover: true, bytes });
    }

    fn take_due(&mut self, now: Duration) -> Vec<(SegmentId, Wait)> {
        let mut due = Vec::new();
        while let Some(entry) = self.0.first_entry().filter(|entry| entry.key().0 <= now) {
            due.push((entry.key().1, *entry.get()));
            entry.remove();
        }
        due
    }

    /// When the first of them is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.0.first_key_value().map(|((due, _), _)| *due)
    }

    /// How many wait, and the lengths of those of which they are known.
    pub(super) fn amount(&self) -> Amount {
        Amount { count: self.0.len() as u64, bytes: self.0.values().map(|wait| wait.bytes).sum() }
    }
}

/// What the records say of a listed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Used,
    Dead,
    Leftover,
    Unknown,
}

/// The segments in the bucket, by what the records say of them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) used: Amount,
    pub(super) dead: Amount,
    /// Leftovers that have a record already.
    pub(super) noted: Amount,
    /// Segments of which no record knows, and which are none of this mount's; with their lengths.
    pub(super) unknown: Vec<(SegmentId, u64)>,
}

impl Vfs {
    /// Deletes what has waited long enough, beside everything else.
    pub(super) fn collect_in_passing(&self) {
        let now = self.clock.elapsed();
        if self.state.lock().waiting.next_due().is_none_or(|due| due > now) {
            return;
        }
        let Some(this) = self.me.upgrade() else { return };
        let turn = Arc::clone(&self.signals.collecting).try_read_owned().ok();
        tokio::spawn(async move {
            this.collect_due().await;
            drop(turn);
        });
    }

    /// Deletes what has waited long enough. Gives how many segments went.
    pub(super) async fn collect_due(&self) -> u64 {
        let now = self.clock.elapsed();
        let due = self.state.lock().waiting.take_due(now);
        let deletes = stream::iter(due).map(|(id, wait)| async move {
            match self.collect(id, wait).await {
                Ok(is_deleted) => u64::from(is_deleted),
                Err(error) => {
                    tracing::warn!(segment = %id, %error, "a dead segment stays for now");
                    self.state.lock().waiting.0.insert((now + RETRY, id), wait);
                    0
                }
            }
        });
        deletes.buffer_unordered(DELETES_MAX).fold(0, |sum, deleted| async move { sum + deleted }).await
    }

    async fn collect(&self, id: SegmentId, wait: Wait) -> Result<bool, VfsError> {
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
            return Ok(false);
        }
        let mut keys = Vec::new();
        match (garbage, leftover) {
            (Some(Record::Garbage(garbage)), _) if !wait.is_leftover => {
                if self.is_held_by_a_snapshot(&garbage) {
                    return Ok(false);
                }
                keys.extend(self.references_of(id, usize::MAX).await?);
                keys.push(Key::Garbage(id));
            }
            (_, Some(_)) if wait.is_leftover => keys.push(Key::Leftover(id)),
            // Somebody else has done it.
            _ => return Ok(false),
        }
        self.vault.delete_segment(id).await.map_err(|error| {
            VfsError::Data(crate::data::DataError::Unavailable { segment: id, source: Some(Arc::new(error)) })
        })?;
        let mut state = self.state.lock();
        state.collected.extend(keys);
        state.cleaned.deleted_count += 1;
        state.cleaned.deleted_bytes += wait.bytes;
        Ok(true)
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
            let (records, last) = self.scan(from, end, limit.min(1024)).await?;
            keys.extend(records.into_iter().map(|(key, _)| key));
            match last {
                Some(Key::Reference(id, ino, page)) if keys.len() < limit => {
                    from = Key::Reference(id, ino, page.saturating_add(1));
                }
                _ => return Ok(keys),
            }
        }
    }

    /// Remembers the records of segments that wait to be deleted.
    pub(super) async fn remember_waiting(&self) -> Result<(), VfsError> {
        let (now, elapsed) = (self.clock.now(), self.clock.elapsed());
        let dead = self.all_of(Key::Garbage(SegmentId([0; 16])), Key::History(0)).await?;
        let grace = self.options.clean.grace;
        let old = match dead.is_empty() {
            true => 0,
            false => self.last_commit_before(before(now, grace)).await?,
        };
        let leftovers = self.all_of(Key::Leftover(SegmentId([0; 16])), Key::Orphan(Ino(0))).await?;
        let mut state = self.state.lock();
        for (key, record) in dead {
            if let (Key::Garbage(id), Record::Garbage(garbage)) = (key, record) {
                let wait = if garbage.died <= old { Duration::ZERO } else { grace };
                state.waiting.dead(id, 0, elapsed.saturating_add(wait));
            }
        }
        for (key, record) in leftovers {
            if let (Key::Leftover(id), Record::Leftover(leftover)) = (key, record) {
                let wait = self.options.clean.leftover_grace.saturating_sub(age(leftover.found, now));
                state.waiting.leftover(id, 0, elapsed.saturating_add(wait));
            }
        }
        Ok(())
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

    /// Asks the bucket for its segments and the records for what they are. What is listed is the
    /// provider's word, and no reason to delete anything.
    pub(super) async fn list(&self) -> Result<Listing, VfsError> {
        let mut listed = self.vault.list_segments();
        let (mut listing, mut unknown, mut listed_count) = (Listing::default(), Vec::new(), 0);
        while let Some(item) = listed.next().await {
            listed_count += 1;
            if unknown.len() >= LEFTOVERS_MAX || listed_count > LISTED_MAX {
                tracing::warn!(
                    listed_count,
                    "the bucket lists more than is looked at; the rest is left for later"
                );
                break;
            }
            match item {
                Ok((id, bytes)) => match self.standing(id).await? {
                    Standing::Used => listing.used.add(bytes),
                    Standing::Dead => listing.dead.add(bytes),
                    Standing::Leftover => listing.noted.add(bytes),
                    Standing::Unknown => unknown.push((id, bytes)),
                },
                Err(error) => {
                    tracing::warn!(%error, "the bucket cannot be listed; leftovers of a crash stay");
                    return Ok(listing);
                }
            }
        }
        if self.options.read_only {
            self.follow().await?;
        } else {
            // Who is still the writer now was so when the list was made: nothing in it is a newer writer's.
            self.engine.refresh().await.map_err(MetaError::from)?;
        }
        // Asked again after the list was made: what has been on its way is known by now.
        for (id, bytes) in unknown {
            if self.standing(id).await? == Standing::Unknown {
                listing.unknown.push((id, bytes));
            }
        }
        Ok(listing)
    }

    async fn standing(&self, id: SegmentId) -> Result<Standing, VfsError> {
        self.read_txn(|txn| {
            if txn.state().knows_segment(id) || txn.get(Key::Segment(id))?.is_some() {
                return Ok(Standing::Used);
            }
            if txn.get(Key::Garbage(id))?.is_some() {
                return Ok(Standing::Dead);
            }
            Ok(if txn.get(Key::Leftover(id))?.is_some() { Standing::Leftover } else { Standing::Unknown })
        })
        .await
    }

    /// Gives every leftover a record, with the next commit; it is deleted when that has aged.
    pub(super) async fn note_leftovers(&self) -> Result<Amount, VfsError> {
        let leftovers = self.list().await?.unknown;
        let (found, elapsed) = (self.clock.now(), self.clock.elapsed());
        let due = elapsed.saturating_add(self.options.clean.leftover_grace);
        let mut state = self.state.lock();
        state.check_writable()?;
        let mut amount = Amount::default();
        for (id, bytes) in leftovers {
            amount.add(bytes);
            state.overlay.put(Key::Leftover(id), Some(Record::Leftover(Leftover { found })));
            state.waiting.leftover(id, bytes, due);
        }
        self.note_change(&mut state);
        Ok(amount)
    }

    /// Segments that the cleaner has begun and will not hand over any more become leftovers.
    pub(super) fn give_up_moving(&self) {
        let found = self.clock.now();
        let mut state = self.state.lock();
        state.is_closing = true;
        for id in std::mem::take(&mut state.moving) {
            state.overlay.put(Key::Leftover(id), Some(Record::Leftover(Leftover { found })));
        }
    }

    /// All records with keys in `from..to`.
    pub(super) async fn all_of(&self, from: Key, to: Key) -> Result<Vec<(Key, Record)>, VfsError> {
        let (mut all, mut from) = (Vec::new(), from);
        loop {
            let (records, last) = self.scan(from, to, 1024).await?;
            all.extend(records);
            from = match last {
                Some(Key::Orphan(ino)) => Key::Orphan(Ino(ino.0.saturating_add(1))),
                Some(Key::Garbage(id)) => Key::Garbage(next_id(id)),
                Some(Key::Leftover(id)) => Key::Leftover(next_id(id)),
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
        assert!(waiting.take_due(secs(4)).is_empty());
        let due = waiting.take_due(secs(5));
        assert!(matches!(due[..], [(SegmentId([2, ..]), Wait { is_leftover: true, .. })]));
        assert_eq!(waiting.take_due(secs(100)).len(), 1);
        assert_eq!(waiting.next_due(), None);
    }

    #[test]
    fn a_clock_that_went_back_makes_nothing_older() {
        let (early, late) = (Time { secs: 100, nanos: 0 }, Time { secs: 160, nanos: 0 });
        assert_eq!(age(early, late), Duration::from_secs(60));
        assert_eq!(age(late, early), Duration::ZERO);
        assert_eq!(before(late, Duration::from_secs(60)), early);
    }
}
