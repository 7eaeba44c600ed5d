//! What waits to be deleted, and until when by the monotonic clock.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::time::Duration;

use crate::base::SegmentId;

use super::Amount;

/// First and longest pause before a segment that could not be deleted is tried again.
const RETRY: Duration = Duration::from_secs(60);
const RETRY_MAX: Duration = Duration::from_secs(3600);
/// Segments that wait and are kept in memory. Beyond, their records are read again.
pub(super) const WAITING_MAX: usize = 65_536;

/// What waits.
#[derive(Debug, Default)]
pub(super) struct Waiting {
    by_time: BTreeMap<(Duration, SegmentId, bool), Wait>,
    /// Of which somebody tries to delete them.
    under_way: HashMap<(SegmentId, bool), Wait>,
    /// All of them, those that are being deleted as well; and whether they are leftovers.
    known: HashSet<(SegmentId, bool)>,
    /// There are more than are kept here.
    is_cut: bool,
}

/// One segment that waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Wait {
    pub(super) is_leftover: bool,
    /// The object's length, if known.
    pub(super) bytes: u64,
    /// How often in a row it could not be deleted.
    pub(super) failures: u32,
}

impl Waiting {
    /// A segment that a commit has let go of.
    pub(super) fn dead(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.add(id, Wait { is_leftover: false, bytes, failures: 0 }, due);
    }

    pub(super) fn leftover(&mut self, id: SegmentId, bytes: u64, due: Duration) {
        self.add(id, Wait { is_leftover: true, bytes, failures: 0 }, due);
    }

    fn add(&mut self, id: SegmentId, wait: Wait, due: Duration) {
        if self.known.contains(&(id, wait.is_leftover)) {
            return;
        }
        if self.is_full() {
            self.is_cut = true;
        } else {
            self.known.insert((id, wait.is_leftover));
            self.by_time.insert((due, id, wait.is_leftover), wait);
        }
    }

    /// The lengths of objects have been seen.
    pub(super) fn learn(&mut self, lengths: &HashMap<SegmentId, u64>) {
        for ((_, id, _), wait) in &mut self.by_time {
            if let Some(bytes) = lengths.get(id) {
                wait.bytes = *bytes;
            }
        }
    }

    fn len(&self) -> usize {
        self.known.len()
    }

    pub(super) fn is_full(&self) -> bool {
        self.len() >= WAITING_MAX
    }

    /// There are more than fit in here.
    pub(super) const fn cut(&mut self) {
        self.is_cut = true;
    }

    /// Whether the records must be read again, because there is room for more of them. Then whoever asks reads them.
    pub(super) fn take_cut(&mut self) -> bool {
        self.len() < WAITING_MAX / 2 && std::mem::take(&mut self.is_cut)
    }

    /// What may be deleted by now. None of it is offered again before its attempt has ended.
    pub(super) fn take_due(&mut self, now: Duration, limit: usize) -> Vec<(SegmentId, Wait)> {
        let mut due = Vec::new();
        while due.len() < limit
            && let Some(entry) = self.by_time.first_entry().filter(|entry| entry.key().0 <= now)
        {
            let ((_, id, _), wait) = entry.remove_entry();
            self.under_way.insert((id, wait.is_leftover), wait);
            due.push((id, wait));
        }
        due
    }

    /// An attempt has ended, at a time without success.
    pub(super) fn end(&mut self, id: SegmentId, wait: Wait, failed: Option<Duration>) {
        self.under_way.remove(&(id, wait.is_leftover));
        if let Some(now) = failed {
            let doubled = RETRY.saturating_mul(1 << wait.failures.saturating_sub(1).min(16));
            self.by_time.insert((now.saturating_add(doubled.min(RETRY_MAX)), id, wait.is_leftover), wait);
        } else {
            self.known.remove(&(id, wait.is_leftover));
        }
    }

    /// When the first of them is due.
    pub(super) fn next_due(&self) -> Option<Duration> {
        self.by_time.first_key_value().map(|((due, ..), _)| *due)
    }

    /// How many wait, and the lengths of those of which they are known.
    pub(super) fn amount(&self) -> Amount {
        let all = self.by_time.values().chain(self.under_way.values());
        Amount { count: self.len() as u64, bytes: all.map(|wait| wait.bytes).sum() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn secs(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn what_waits_is_taken_when_it_is_due_and_not_before() {
        let mut waiting = Waiting::default();
        waiting.dead(SegmentId([1; 16]), 100, secs(10));
        waiting.dead(SegmentId([1; 16]), 100, secs(3));
        waiting.leftover(SegmentId([2; 16]), 200, secs(5));
        assert_eq!((waiting.next_due(), waiting.amount()), (Some(secs(5)), Amount { count: 2, bytes: 300 }));
        assert!(waiting.take_due(secs(4), usize::MAX).is_empty());
        let due = waiting.take_due(secs(5), usize::MAX);
        assert!(matches!(due[..], [(SegmentId([2, ..]), Wait { is_leftover: true, .. })]));
        assert_eq!(waiting.take_due(secs(100), usize::MAX).len(), 1);
        assert_eq!((waiting.next_due(), waiting.amount()), (None, Amount { count: 2, bytes: 300 }));
        let wait = |is_leftover| Wait { is_leftover, bytes: 0, failures: 0 };
        waiting.end(SegmentId([1; 16]), wait(false), None);
        waiting.end(SegmentId([2; 16]), wait(true), None);
        assert_eq!(waiting.amount(), Amount::default());
    }

    /// > The pause doubles with each failure, up to an hour, and what is being tried is offered to nobody else.
    #[test]
    fn what_cannot_be_deleted_is_offered_ever_more_seldom_and_to_one_at_a_time() {
        let (mut waiting, id, mut now) = (Waiting::default(), SegmentId([1; 16]), secs(0));
        waiting.dead(id, 100, now);
        for pause in [60, 120, 240, 480, 960, 1920, 3600, 3600] {
            let due = waiting.take_due(now, usize::MAX);
            let [(_, mut wait)] = due[..] else { panic!("{due:?}") };
            waiting.dead(id, 100, now);
            assert!(waiting.take_due(now + secs(86_400), usize::MAX).is_empty(), "it is under way");
            wait.failures += 1;
            waiting.end(id, wait, Some(now));
            assert!(waiting.take_due(now + secs(pause - 1), usize::MAX).is_empty());
            now += secs(pause);
        }
        assert_eq!(waiting.amount(), Amount { count: 1, bytes: 100 });
    }

    #[test]
    fn more_than_there_is_room_for_is_read_again_when_the_first_are_done() {
        let mut waiting = Waiting::default();
        for number in 0..=WAITING_MAX as u128 {
            waiting.dead(SegmentId(number.to_be_bytes()), 1, Duration::ZERO);
        }
        assert!(waiting.is_full() && !waiting.take_cut());
        for (id, wait) in waiting.take_due(Duration::ZERO, WAITING_MAX / 2) {
            assert!(!waiting.take_cut());
            waiting.end(id, wait, None);
        }
        assert!(!waiting.take_cut(), "half of it is in use");
        let due = waiting.take_due(Duration::ZERO, 1);
        waiting.end(due[0].0, due[0].1, None);
        assert!(waiting.take_cut() && !waiting.take_cut());
        // Whoever has read them again could not.
        waiting.cut();
        assert!(waiting.take_cut());
        waiting.dead(SegmentId(((WAITING_MAX / 2 + 1) as u128).to_be_bytes()), 1, Duration::ZERO);
        assert_eq!(waiting.amount().count, WAITING_MAX as u64 / 2 - 1, "it is known");
        waiting.dead(SegmentId((WAITING_MAX as u128).to_be_bytes()), 1, Duration::ZERO);
        assert_eq!(waiting.amount().count, WAITING_MAX as u64 / 2);
    }
}
