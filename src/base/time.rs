//! Time as a seam: the system's clock in use, a clock moved by hand in tests.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// A point in time: seconds since 1970-01-01T00:00:00Z, may be negative, and 0 to 999,999,999 ns more.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash, bincode::Encode, bincode::Decode,
)]
pub struct Time {
    /// Whole seconds, rounded down.
    pub secs: i64,
    /// Nanoseconds past `secs`.
    pub nanos: u32,
}

impl Time {
    /// From the standard library's clock type.
    #[must_use]
    pub fn from_system(time: SystemTime) -> Self {
        match time.duration_since(UNIX_EPOCH) {
            Ok(after) => Self { secs: after.as_secs() as i64, nanos: after.subsec_nanos() },
            Err(error) => {
                let before = error.duration();
                match before.subsec_nanos() {
                    0 => Self { secs: -(before.as_secs() as i64), nanos: 0 },
                    nanos => Self { secs: -(before.as_secs() as i64) - 1, nanos: 1_000_000_000 - nanos },
                }
            }
        }
    }

    /// To the standard library's clock type.
    #[must_use]
    pub fn to_system(self) -> SystemTime {
        let nanos = Duration::from_nanos(u64::from(self.nanos));
        let whole = Duration::from_secs(self.secs.unsigned_abs());
        let start = if self.secs < 0 { UNIX_EPOCH.checked_sub(whole) } else { UNIX_EPOCH.checked_add(whole) };
        start.and_then(|t| t.checked_add(nanos)).unwrap_or(UNIX_EPOCH)
    }
}

/// Where the time comes from.
pub trait Clock: Send + Sync + 'static {
    /// The time of day.
    fn now(&self) -> Time;
    /// Time since some fixed start; never goes backward.
    fn elapsed(&self) -> Duration;
}

/// The system's clocks.
#[derive(Debug)]
pub struct SystemClock(Instant);

impl Default for SystemClock {
    fn default() -> Self {
        Self(Instant::now())
    }
}

impl Clock for SystemClock {
    fn now(&self) -> Time {
        Time::from_system(SystemTime::now())
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// A clock that moves only when told, for tests and simulation.
#[derive(Debug)]
pub struct ManualClock(AtomicU64);

impl ManualClock {
    /// A clock that stands at `nanos` since 1970.
    #[must_use]
    pub const fn new(nanos: u64) -> Self {
        Self(AtomicU64::new(nanos))
    }

    /// Moves the clock forward.
    pub fn advance(&self, by: Duration) {
        self.0.fetch_add(by.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Time {
        let nanos = self.0.load(Ordering::SeqCst);
        Time { secs: (nanos / 1_000_000_000) as i64, nanos: (nanos % 1_000_000_000) as u32 }
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.0.load(Ordering::SeqCst))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_before_1970_survive_the_round_trip() {
        for time in [
            Time { secs: -1, nanos: 999_999_999 },
            Time { secs: -1, nanos: 0 },
            Time { secs: 0, nanos: 1 },
            Time { secs: 4_000_000_000, nanos: 5 },
        ] {
            assert_eq!(Time::from_system(time.to_system()), time);
        }
    }
}
