//! Simulated time: tokio's paused clock within a life, going on from one life to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer::base::{Clock, Time};
use parking_lot::Mutex;
use tokio::time::Instant;

/// When every simulation begins: a moment in 2023.
const START: Duration = Duration::from_secs(1_700_000_000);

/// The one true time.
#[derive(Default)]
pub struct SimClock {
    /// Nanoseconds that earlier lives took.
    before: AtomicU64,
    /// When the present life began.
    anchor: Mutex<Option<Instant>>,
}

impl SimClock {
    /// A life begins, on the runtime that calls.
    pub fn begin_life(&self) {
        *self.anchor.lock() = Some(Instant::now());
    }

    /// The life ends, and time stands still until the next.
    pub fn end_life(&self) {
        let elapsed = self.elapsed();
        *self.anchor.lock() = None;
        self.before.store(elapsed.as_nanos() as u64, Ordering::SeqCst);
    }

    /// Time passes in which nobody lives.
    pub fn pass(&self, time: Duration) {
        self.before.fetch_add(time.as_nanos() as u64, Ordering::SeqCst);
    }
}

impl Clock for SimClock {
    fn now(&self) -> Time {
        let now = START + self.elapsed();
        Time { secs: now.as_secs() as i64, nanos: now.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        let before = Duration::from_nanos(self.before.load(Ordering::SeqCst));
        before + self.anchor.lock().map_or(Duration::ZERO, |anchor| anchor.elapsed())
    }
}

/// A machine's idea of the time of day, which may be wrong.
pub struct SkewedClock {
    pub truth: Arc<SimClock>,
    pub skew_secs: i64,
}

impl Clock for SkewedClock {
    fn now(&self) -> Time {
        let now = self.truth.now();
        Time { secs: now.secs + self.skew_secs, ..now }
    }

    fn elapsed(&self) -> Duration {
        self.truth.elapsed()
    }
}
