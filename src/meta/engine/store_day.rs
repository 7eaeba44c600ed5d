//! What day it is by the bucket's own clock: this machine's may be wrong.

use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};

/// The latest time that the bucket has told of an object.
#[derive(Debug)]
pub(super) struct StoreDay(AtomicI64);

impl Default for StoreDay {
    fn default() -> Self {
        Self(AtomicI64::new(i64::MIN))
    }
}

impl StoreDay {
    /// Notes when an object was written, by the bucket's word.
    pub(super) fn note(&self, written: DateTime<Utc>) {
        self.0.fetch_max(written.timestamp_millis(), Ordering::Relaxed);
    }

    /// How far `now_ms`, in milliseconds since 1970, is ahead of anything that the bucket has told; `None` if it has told
    /// nothing.
    pub(super) fn lead(&self, now_ms: i64) -> Option<Duration> {
        let latest_ms = self.0.load(Ordering::Relaxed);
        let lead_ms = u64::try_from(now_ms.saturating_sub(latest_ms)).unwrap_or(0);
        (latest_ms > i64::MIN).then(|| Duration::from_millis(lead_ms))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_latest_word_counts_and_none_is_none() {
        let day = StoreDay::default();
        assert_eq!(day.lead(0), None);
        let at = |ms| DateTime::from_timestamp_millis(ms).unwrap();
        day.note(at(5_000));
        day.note(at(3_000));
        assert_eq!(day.lead(5_250), Some(Duration::from_millis(250)));
        assert_eq!(day.lead(4_000), Some(Duration::ZERO), "behind is not ahead");
    }
}
