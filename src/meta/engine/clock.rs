//! Gives SlateDB our time: never backward, and with polls that can be called for.

use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use chrono::{DateTime, Utc};
use slatedb_common::clock::{SystemClock, SystemClockTicker};
use tokio::sync::{Notify, watch};

use crate::base::Clock;

/// Sleeps at least this long are pauses between polls; shorter ones are pauses before a retry.
const POLL_PAUSE_MIN: Duration = Duration::from_secs(60);

/// A clock for one database handle.
pub(super) struct EngineClock {
    clock: Arc<dyn Clock>,
    /// Milliseconds since 1970 when the clock's `elapsed` was nought.
    start_ms: AtomicI64,
    /// The latest time given out.
    latest_ms: AtomicI64,
    wake: Notify,
    pauses: watch::Sender<Pauses>,
}

/// What the poller is doing.
#[derive(Clone, Copy, Debug, Default)]
struct Pauses {
    begun: u64,
    resting: bool,
}

impl EngineClock {
    /// Starts at the time of day and then follows the monotonic clock.
    pub(super) fn new(clock: Arc<dyn Clock>) -> Self {
        let now = clock.now();
        let day_ms = now.secs.saturating_mul(1000).saturating_add(i64::from(now.nanos / 1_000_000));
        let start_ms = day_ms.saturating_sub(millis(clock.elapsed()));
        Self {
            clock,
            start_ms: AtomicI64::new(start_ms),
            latest_ms: AtomicI64::new(i64::MIN),
            wake: Notify::new(),
            pauses: watch::Sender::new(Pauses::default()),
        }
    }

    /// Milliseconds since 1970.
    pub(super) fn now_ms(&self) -> i64 {
        let now = self.start_ms.load(Ordering::SeqCst).saturating_add(millis(self.clock.elapsed()));
        self.latest_ms.fetch_max(now, Ordering::SeqCst).max(now)
    }

    /// Moves on to `tick_ms` if that is later: another machine's clock may have been ahead of ours.
    pub(super) fn raise(&self, tick_ms: i64) {
        let behind = tick_ms.saturating_sub(self.now_ms());
        if behind > 0 {
            self.start_ms.fetch_add(behind, Ordering::SeqCst);
        }
    }

    /// Calls for a poll now; returns the number that [`EngineClock::polled`] waits for.
    pub(super) fn call(&self) -> u64 {
        let pauses = *self.pauses.borrow();
        self.wake.notify_one();
        pauses.begun + if pauses.resting { 1 } else { 2 }
    }

    /// Pauses between polls so far. Each poll ends with one.
    pub(super) fn pauses(&self) -> u64 {
        self.pauses.borrow().begun
    }

    /// Waits until a poll that began after the call is over.
    pub(super) async fn polled(&self, number: u64) {
        let mut pauses = self.pauses.subscribe();
        if pauses.wait_for(|pauses| pauses.begun >= number).await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

struct Resting<'a>(&'a EngineClock);

impl Drop for Resting<'_> {
    fn drop(&mut self) {
        self.0.pauses.send_modify(|pauses| pauses.resting = false);
    }
}

fn millis(duration: Duration) -> i64 {
    i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)
}

impl fmt::Debug for EngineClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EngineClock").field("now_ms", &self.now_ms()).finish_non_exhaustive()
    }
}

impl SystemClock for EngineClock {
    fn now(&self) -> DateTime<Utc> {
        DateTime::from_timestamp_millis(self.now_ms()).unwrap_or(DateTime::<Utc>::UNIX_EPOCH)
    }

    fn sleep<'a>(&'a self, duration: Duration) -> Pin<Box<dyn Future<Output = ()> + Send + 'a>> {
        if duration < POLL_PAUSE_MIN {
            return Box::pin(tokio::time::sleep(duration));
        }
        Box::pin(async move {
            self.pauses.send_modify(|pauses| {
                pauses.begun += 1;
                pauses.resting = true;
            });
            let _resting = Resting(self);
            tokio::select! {
                biased;
                () = tokio::time::sleep(duration) => {}
                () = self.wake.notified() => {}
            }
        })
    }

    fn ticker<'a>(&'a self, duration: Duration) -> SystemClockTicker<'a> {
        SystemClockTicker::new(self, duration)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::ManualClock;

    #[test]
    fn time_never_goes_backward_and_can_be_raised() {
        let manual = Arc::new(ManualClock::new(5_000_000_000));
        let clock = EngineClock::new(manual.clone());
        assert_eq!(clock.now_ms(), 5000);
        clock.raise(9000);
        clock.raise(1000);
        assert_eq!(clock.now_ms(), 9000);
        manual.advance(Duration::from_millis(7));
        assert_eq!(clock.now_ms(), 9007);
    }

    #[tokio::test(start_paused = true)]
    async fn a_call_ends_the_pause_between_polls() {
        let clock = Arc::new(EngineClock::new(Arc::new(ManualClock::new(0))));
        let poller = {
            let clock = clock.clone();
            tokio::spawn(async move {
                loop {
                    clock.sleep(Duration::from_secs(3600)).await;
                }
            })
        };
        let started = tokio::time::Instant::now();
        for _ in 0..3 {
            clock.polled(clock.call()).await;
        }
        assert_eq!(started.elapsed(), Duration::ZERO);
        poller.abort();
    }
}
