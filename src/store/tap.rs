//! Lets so many bytes a second through in one direction, in order; and none while it is closed.

use std::time::Duration;

use chrono::{Local, Timelike};
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep};

use super::Timetable;

/// What is no larger does not wait behind larger things: an `fsync` of little, names and attributes.
const SMALL_BYTES: u64 = 256 * 1024;
/// The share of the rate that small things may take, so that large ones get on too.
const SMALL_SHARE: f64 = 0.75;
/// What may go at once after a pause, in seconds of the rate.
const BURST_SECS: f64 = 1.0;
/// Longest sleep: the time of day may bring another rate.
const LOOK_AGAIN: Duration = Duration::from_secs(30);

/// One direction.
#[derive(Debug)]
pub(super) struct Tap {
    state: Mutex<State>,
    changed: Notify,
    /// Who waits, first come first served: large things and small ones.
    lines: [tokio::sync::Mutex<()>; 2],
    /// The minute of the local day.
    minute: fn() -> u16,
}

#[derive(Debug)]
struct State {
    table: Timetable,
    closed: Closed,
    /// Bytes that may go at once, or negative what went beyond: of all, and of small things.
    all: f64,
    small: f64,
    at: Instant,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Closed {
    No,
    Until(Instant),
    ForNow,
}

impl Default for Tap {
    fn default() -> Self {
        let now = || {
            let time = Local::now();
            (time.hour() * 60 + time.minute()) as u16
        };
        Self::new(now)
    }
}

impl Tap {
    pub(super) fn new(minute: fn() -> u16) -> Self {
        let state = State {
            table: Timetable::default(),
            closed: Closed::No,
            all: 0.0,
            small: 0.0,
            at: Instant::now(),
        };
        Self { state: Mutex::new(state), changed: Notify::new(), lines: Default::default(), minute }
    }

    /// Limits what goes from now on.
    pub(super) fn set(&self, table: Timetable) {
        self.state.lock().table = table;
        self.changed.notify_waiters();
    }

    /// Lets nothing through, for a time or until [`Tap::open`].
    pub(super) fn close(&self, time: Option<Duration>) {
        let closed = time.map_or(Closed::ForNow, |time| Closed::Until(Instant::now() + time));
        self.state.lock().closed = closed;
        self.changed.notify_waiters();
    }

    /// Ends [`Tap::close`].
    pub(super) fn open(&self) {
        self.state.lock().closed = Closed::No;
        self.changed.notify_waiters();
    }

    /// Whether it is closed, and for how long if that is known.
    pub(super) fn closed(&self) -> Option<Option<Duration>> {
        match self.state.lock().closed {
            Closed::No => None,
            Closed::ForNow => Some(None),
            Closed::Until(end) => {
                let left = end.saturating_duration_since(Instant::now());
                (!left.is_zero()).then_some(Some(left))
            }
        }
    }

    /// The limit, and what it is at this moment.
    pub(super) fn limit(&self) -> (Timetable, Option<u64>) {
        let table = self.state.lock().table.clone();
        let rate = table.rate_at((self.minute)());
        (table, rate)
    }

    /// Returns when `bytes` may go.
    pub(super) async fn pass(&self, bytes: u64) {
        if self.try_pass(bytes).is_none() {
            return;
        }
        let [large, small] = &self.lines;
        let _turn = if bytes > SMALL_BYTES { large.lock().await } else { small.lock().await };
        loop {
            let changed = self.changed.notified();
            tokio::pin!(changed);
            changed.as_mut().enable();
            let Some(wait) = self.try_pass(bytes) else { return };
            tokio::select! {
                () = changed => {}
                () = sleep(wait.min(LOOK_AGAIN)) => {}
            }
        }
    }

    /// Counts `bytes` as gone, or says how long they must wait at least.
    fn try_pass(&self, bytes: u64) -> Option<Duration> {
        let mut state = self.state.lock();
        let now = Instant::now();
        match state.closed {
            Closed::ForNow => return Some(LOOK_AGAIN),
            Closed::Until(end) if end > now => return Some(end - now),
            Closed::Until(_) => state.closed = Closed::No,
            Closed::No => {}
        }
        if state.table.is_off() {
            return None;
        }
        let rate = state.table.rate_at((self.minute)())? as f64;
        let secs = now.saturating_duration_since(state.at).as_secs_f64();
        state.at = now;
        state.all = (state.all + secs * rate).min(BURST_SECS * rate);
        state.small = (state.small + secs * rate * SMALL_SHARE).min(BURST_SECS * rate);
        let is_small = bytes <= SMALL_BYTES;
        let (level, rate) = if is_small { (state.small, rate * SMALL_SHARE) } else { (state.all, rate) };
        if level < 0.0 {
            // Never nothing, or whoever waits would go round without end.
            return Some(Duration::from_secs_f64(-level / rate).max(Duration::from_millis(1)));
        }
        state.all -= bytes as f64;
        if is_small {
            state.small -= bytes as f64;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    const MIB: u64 = 1024 * 1024;

    fn limited(rate: u64) -> Arc<Tap> {
        let tap = Tap::new(|| 0);
        tap.set(Timetable { otherwise: Some(rate), ..Timetable::default() });
        Arc::new(tap)
    }

    /// Sends objects of `bytes` without end, and counts.
    fn stream(tap: &Arc<Tap>, bytes: u64) -> Arc<AtomicU64> {
        let (tap, sent) = (Arc::clone(tap), Arc::new(AtomicU64::new(0)));
        let count = Arc::clone(&sent);
        tokio::spawn(async move {
            loop {
                tap.pass(bytes).await;
                count.fetch_add(bytes, Ordering::Relaxed);
                tokio::task::yield_now().await;
            }
        });
        sent
    }

    async fn after(secs: u64, sent: &AtomicU64) -> u64 {
        sleep(Duration::from_secs(secs)).await;
        sent.load(Ordering::Relaxed)
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_goes_than_the_limit_allows_and_not_much_less() {
        for object in [8 * MIB, 300_000, 4096] {
            let sent = stream(&limited(MIB), object);
            let bytes = after(100, &sent).await;
            let share = if object <= SMALL_BYTES { 75 } else { 100 };
            assert!(bytes <= share * MIB + MIB + object, "{object}: {bytes}");
            assert!(bytes >= (share - 1) * MIB - object, "{object}: {bytes}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn small_things_do_not_wait_behind_large_ones_nor_starve_them() {
        let tap = limited(MIB);
        let bulk = stream(&tap, 8 * MIB);
        assert!(after(30, &bulk).await >= 24 * MIB);
        let before = Instant::now();
        for _ in 0..10 {
            tap.pass(4096).await;
        }
        assert_eq!(Instant::now(), before, "ten small things went at once");
        // However many there are, both get on, and together they keep to the limit.
        let (bulk_before, small) = (bulk.load(Ordering::Relaxed), stream(&tap, 4096));
        let small = after(400, &small).await;
        let bulk = bulk.load(Ordering::Relaxed) - bulk_before;
        assert!(bulk >= 80 * MIB && small >= 280 * MIB, "{bulk} {small}");
        assert!(bulk + small <= 410 * MIB, "{bulk} {small}");
    }

    #[tokio::test(start_paused = true)]
    async fn nothing_goes_while_it_is_closed_and_all_goes_on_after() {
        let tap = limited(10 * MIB);
        let sent = stream(&tap, MIB);
        tap.close(None);
        let before = after(1, &sent).await;
        assert_eq!(after(3600, &sent).await, before);
        assert_eq!(tap.closed(), Some(None));
        tap.open();
        let opened = after(10, &sent).await;
        assert!(opened >= before + 99 * MIB, "{opened}");
        tap.close(Some(Duration::from_secs(60)));
        assert_eq!(tap.closed(), Some(Some(Duration::from_secs(60))));
        let closed = after(59, &sent).await;
        let again = after(10, &sent).await;
        assert!(closed <= opened + 2 * MIB && again >= closed + 80 * MIB, "{opened} {closed} {again}");
        assert_eq!(tap.closed(), None);
    }

    #[tokio::test(start_paused = true)]
    async fn a_new_limit_holds_at_once_for_those_who_wait() {
        let tap = limited(Timetable::RATE_MIN);
        tap.pass(64 * MIB).await;
        let waiting = tokio::spawn({
            let tap = Arc::clone(&tap);
            async move { tap.pass(MIB).await }
        });
        sleep(Duration::from_secs(5)).await;
        assert!(!waiting.is_finished());
        let before = Instant::now();
        tap.set(Timetable::default());
        waiting.await.unwrap();
        assert_eq!(Instant::now(), before);
        assert_eq!(tap.limit(), (Timetable::default(), None));
    }
}
