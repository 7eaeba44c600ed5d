//! How long what is not in the bucket has waited for it.
//!
//! Blocks carry no time of their own. What is dirty is taken to go in the order in which it came, as it nearly does: older
//! groups before younger ones, and within the open one the blocks that filled first.

use std::collections::VecDeque;
use std::time::Duration;

use serde::Serialize;

/// Arrivals that are told apart; beyond, neighbours are taken together.
const SLOTS_MAX: usize = 64;
/// Arrivals so close together are one.
const SLOT: Duration = Duration::from_secs(1);

/// Bounds of the classes of age, in seconds; a last one has none.
const CLASSES: [u64; 4] = [5, 60, 600, 3600];

/// Bytes of contents that are in memory only, by when they came.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// When, and bytes; oldest first.
    arrivals: VecDeque<(Duration, u64)>,
    bytes: u64,
}

/// Bytes that have waited for less than a time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct AgeClass {
    /// They have waited for less than this, in seconds, and not for less than the class before; no bound if none.
    pub below: Option<u64>,
    /// The bytes.
    pub bytes: u64,
}

/// What waits for the bucket, and for how long. Bytes of contents in memory; ages in seconds.
#[derive(Clone, Debug, Default, Serialize)]
pub struct QueueStatus {
    /// Bytes changed since the last commit began.
    pub waiting_bytes: u64,
    /// Age of the oldest change among those, be it of records.
    pub waiting_age: Option<f64>,
    /// Bytes that the commit under way has still to bring into the bucket.
    pub committing_bytes: u64,
    /// Age of the oldest change that it carries.
    pub committing_age: Option<f64>,
    /// Bytes of either that are on their way, in segments.
    pub sending_bytes: u64,
    /// Segments on their way.
    pub sending_segments: u64,
    /// The age that half of the bytes have reached.
    pub median_age: Option<f64>,
    /// All of the bytes by age.
    pub ages: Vec<AgeClass>,
}

impl Queue {
    /// Notes that there are `bytes` now.
    pub(super) fn observe(&mut self, bytes: u64, now: impl FnOnce() -> Duration) {
        if bytes > self.bytes {
            self.arrived(bytes - self.bytes, now());
        } else {
            self.left(self.bytes - bytes);
        }
        self.bytes = bytes;
    }

    fn arrived(&mut self, bytes: u64, now: Duration) {
        if let Some((at, newest)) = self.arrivals.back_mut()
            && now.saturating_sub(*at) < SLOT
        {
            *newest += bytes;
            return;
        }
        if self.arrivals.len() >= SLOTS_MAX {
            self.thin();
        }
        self.arrivals.push_back((now, bytes));
    }

    /// Takes each two neighbours together, as old as the older one.
    fn thin(&mut self) {
        let mut thinned = VecDeque::with_capacity(SLOTS_MAX);
        while let Some((at, bytes)) = self.arrivals.pop_front() {
            let next = self.arrivals.pop_front().map_or(0, |(_, bytes)| bytes);
            thinned.push_back((at, bytes + next));
        }
        self.arrivals = thinned;
    }

    fn left(&mut self, mut bytes: u64) {
        while let Some((_, oldest)) = self.arrivals.front_mut() {
            if *oldest > bytes {
                *oldest -= bytes;
                return;
            }
            bytes -= *oldest;
            self.arrivals.pop_front();
        }
    }

    /// The bytes by age at `now`.
    pub(super) fn ages(&self, now: Duration) -> Vec<AgeClass> {
        let bounds = CLASSES.into_iter().map(Some).chain([None]);
        let mut classes: Vec<AgeClass> = bounds.map(|below| AgeClass { below, bytes: 0 }).collect();
        for (at, bytes) in &self.arrivals {
            let age = now.saturating_sub(*at).as_secs();
            let class = classes.iter_mut().find(|class| class.below.is_none_or(|below| age < below));
            if let Some(class) = class {
                class.bytes += bytes;
            }
        }
        classes
    }

    /// The age that half of the bytes have reached at `now`.
    pub(super) fn median(&self, now: Duration) -> Option<Duration> {
        let mut left = self.bytes.div_ceil(2);
        for (at, bytes) in &self.arrivals {
            left = left.saturating_sub(*bytes);
            if left == 0 {
                return Some(now.saturating_sub(*at));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    fn bytes(queue: &Queue, now: u64) -> Vec<u64> {
        queue.ages(at(now)).into_iter().map(|class| class.bytes).collect()
    }

    #[test]
    fn what_came_first_leaves_first() {
        let mut queue = Queue::default();
        queue.observe(100, || at(0));
        queue.observe(300, || at(50));
        queue.observe(310, || at(58));
        assert_eq!(bytes(&queue, 59), [10, 300, 0, 0, 0]);
        assert_eq!(bytes(&queue, 60), [10, 200, 100, 0, 0]);
        assert_eq!(queue.median(at(60)), Some(at(10)));
        queue.observe(190, || at(61));
        assert_eq!(bytes(&queue, 61), [10, 180, 0, 0, 0]);
        queue.observe(0, || at(62));
        assert_eq!(queue.median(at(62)), None);
        queue.observe(7, || at(4000));
        assert_eq!(bytes(&queue, 4000), [7, 0, 0, 0, 0]);
    }

    #[test]
    fn a_long_outage_is_told_in_bounded_memory_and_nothing_is_told_as_younger() {
        let mut queue = Queue::default();
        for second in 0..10_000 {
            queue.observe(second + 1, || at(second));
        }
        assert!(queue.arrivals.len() <= SLOTS_MAX);
        let classes = bytes(&queue, 10_000);
        assert_eq!(classes.iter().sum::<u64>(), 10_000);
        assert!(classes[4] >= 6_400, "older than an hour: {classes:?}");
        assert!(queue.median(at(10_000)).unwrap() >= at(5_000));
    }
}
