//! Simulated time: tokio's paused clock within a life, going on from one life to the next.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use coffer::base::{Clock, Time};
use parking_lot::Mutex;
use rand::Rng;
use rand::rngs::SmallRng;
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

/// A machine's idea of the time of day, which may be wrong, and be set while it runs: by hand, by a time server, or because
/// the machine has slept, during which no other clock of its own goes on.
pub struct SkewedClock {
    truth: Arc<SimClock>,
    skew_secs: i64,
    /// When it is set, by [`Clock::elapsed`], and by how many seconds.
    jumps: Vec<(Duration, i64)>,
}

impl SkewedClock {
    /// One that is set so often in the next `within`.
    pub fn new(
        truth: Arc<SimClock>,
        skew_secs: i64,
        jumps: u32,
        within: Duration,
        rng: &mut SmallRng,
    ) -> Self {
        let begun = truth.elapsed();
        let jump = |_| {
            let days = [0.02, 1.5, 400.0][rng.random_range(0..3)];
            let secs = (days * 86_400.0 * rng.random_range(-1.0..1.0)) as i64;
            (begun + within.mul_f64(rng.random_range(0.0..1.0)), secs)
        };
        let jumps = (0..jumps).map(jump).collect();
        Self { truth, skew_secs, jumps }
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> Time {
        let (now, elapsed) = (self.truth.now(), self.truth.elapsed());
        let set: i64 = self.jumps.iter().filter(|(at, _)| *at <= elapsed).map(|(_, secs)| secs).sum();
        Time { secs: now.secs + self.skew_secs + set, ..now }
    }

    fn elapsed(&self) -> Duration {
        self.truth.elapsed()
    }
}
