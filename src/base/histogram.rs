//! How long things took: counts in fixed classes, added to without a lock.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Upper bounds of the classes, in seconds; a last one has none.
pub const CLASS_SECS: [f64; 12] = [0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

/// Counts of durations by class, and their sum.
#[derive(Debug, Default)]
pub struct Histogram {
    counts: [AtomicU64; CLASS_SECS.len() + 1],
    micros: AtomicU64,
}

/// A histogram at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct HistogramSnapshot {
    /// How many fell into each class of [`CLASS_SECS`], and beyond the last.
    pub counts: [u64; CLASS_SECS.len() + 1],
    /// All durations together, in seconds.
    pub sum_secs: f64,
}

impl Histogram {
    /// Counts one.
    pub fn add(&self, took: Duration) {
        let secs = took.as_secs_f64();
        let class = CLASS_SECS.iter().position(|bound| secs <= *bound).unwrap_or(CLASS_SECS.len());
        if let Some(count) = self.counts.get(class) {
            count.fetch_add(1, Ordering::Relaxed);
        }
        let micros = u64::try_from(took.as_micros()).unwrap_or(u64::MAX);
        self.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// The counts now.
    #[must_use]
    pub fn snapshot(&self) -> HistogramSnapshot {
        let mut counts = [0; CLASS_SECS.len() + 1];
        for (to, from) in counts.iter_mut().zip(&self.counts) {
            *to = from.load(Ordering::Relaxed);
        }
        HistogramSnapshot { counts, sum_secs: self.micros.load(Ordering::Relaxed) as f64 / 1e6 }
    }
}

impl HistogramSnapshot {
    /// How many were counted.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.counts.iter().sum()
    }

    /// The bound that `share` (0 to 1) of them stayed within, in seconds; none if they are too few or too long for that.
    #[must_use]
    pub fn quantile(&self, share: f64) -> Option<f64> {
        let wanted = (self.count() as f64 * share).ceil().max(1.0) as u64;
        let mut seen = 0;
        for (count, bound) in self.counts.iter().zip(CLASS_SECS) {
            seen += count;
            if seen >= wanted {
                return Some(bound);
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_duration_falls_into_one_class_and_the_bound_belongs_to_it() {
        let histogram = Histogram::default();
        for millis in [1, 5, 6, 30_000, 30_001] {
            histogram.add(Duration::from_millis(millis));
        }
        let seen = histogram.snapshot();
        assert_eq!(seen.counts, [2, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 1]);
        assert_eq!((seen.count(), seen.sum_secs), (5, 60.013));
        assert_eq!((seen.quantile(0.4), seen.quantile(0.6)), (Some(0.005), Some(0.01)));
        assert_eq!((seen.quantile(1.0), HistogramSnapshot::default().quantile(0.5)), (None, None));
    }
}
