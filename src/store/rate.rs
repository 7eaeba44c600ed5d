//! How fast bytes have gone lately: sums of the last half minute, second by second.

use std::collections::VecDeque;
use std::time::Duration;

/// Seconds that a rate is taken over.
const WINDOW_SECS: u64 = 30;

/// Bytes by the second in which they went.
#[derive(Debug, Default)]
pub(super) struct Rate {
    /// Second and bytes, oldest first.
    slots: VecDeque<(u64, u64)>,
}

impl Rate {
    /// Counts `bytes` that went evenly between `from` and `to`: a large object tells only at its end that it is there.
    pub(super) fn add(&mut self, from: Duration, to: Duration, bytes: u64) {
        let last = to.as_secs();
        let first = from.as_secs().min(last);
        let share = bytes / (last - first + 1);
        let oldest = last.saturating_sub(WINDOW_SECS);
        for second in first.max(oldest)..last {
            self.put(second, share);
        }
        self.put(last, bytes - share * (last - first));
        while self.slots.front().is_some_and(|(second, _)| *second < oldest) {
            self.slots.pop_front();
        }
    }

    fn put(&mut self, second: u64, bytes: u64) {
        match self.slots.binary_search_by_key(&second, |(known, _)| *known) {
            Ok(at) => {
                if let Some((_, sum)) = self.slots.get_mut(at) {
                    *sum += bytes;
                }
            }
            Err(at) => self.slots.insert(at, (second, bytes)),
        }
    }

    /// Bytes a second over the last half minute, or since they began to go if that is less.
    pub(super) fn per_second(&self, now: Duration) -> u64 {
        let oldest = now.as_secs().saturating_sub(WINDOW_SECS);
        let recent = || self.slots.iter().filter(|(second, _)| *second >= oldest);
        let Some((first, _)) = recent().next() else { return 0 };
        let bytes: u64 = recent().map(|(_, bytes)| bytes).sum();
        let span = now.saturating_sub(Duration::from_secs(*first)).as_secs_f64().max(1.0);
        (bytes as f64 / span) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn at(secs: u64) -> Duration {
        Duration::from_secs(secs)
    }

    #[test]
    fn an_object_counts_over_the_time_that_it_took() {
        let mut rate = Rate::default();
        rate.add(at(100), at(109), 1000);
        assert_eq!(rate.per_second(at(110)), 100);
        assert_eq!(rate.per_second(at(120)), 50, "since it began");
        assert_eq!(rate.per_second(at(150)), 0, "half a minute later nothing is going");
    }

    #[test]
    fn a_rate_forgets_what_lies_further_back_than_its_window() {
        let mut rate = Rate::default();
        rate.add(at(0), at(1000), 1001 * 7);
        assert_eq!(rate.per_second(at(1001)), 7);
        assert!(rate.slots.len() as u64 <= WINDOW_SECS + 1, "{}", rate.slots.len());
        assert_eq!(Rate::default().per_second(at(5)), 0);
    }

    #[test]
    fn what_goes_at_once_is_never_divided_by_less_than_a_second() {
        let mut rate = Rate::default();
        rate.add(at(5), at(5), 300);
        assert_eq!(rate.per_second(at(5)), 300);
    }
}
