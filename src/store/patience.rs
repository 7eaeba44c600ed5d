//! How often and how long one request is attempted.

use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use object_store::{Error as RawError, Result as RawResult};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::error::{Trouble, classify, detail};
use super::meter::{Meter, OutageKind};
use crate::base::{Entropy, OsEntropy, SeededEntropy};

/// Time every attempt has, whatever its size.
pub(super) const ATTEMPT_TIME: Duration = Duration::from_secs(30);
/// The slowest link that still carries an attempt to its end.
const LINK_BYTES_PER_SEC: u64 = 32 * 1024;
/// Large writes that may share a link.
const SHARERS_MAX: u32 = 16;
/// First pause between attempts.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
/// Longest pause while the bucket cannot be reached.
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long a deletion is tried. Nothing is lost with it, and whoever deletes comes again.
const DELETION_TIME: Duration = Duration::from_secs(30);
/// Longest pause while the bucket refuses us: only a person can change that.
const BACKOFF_DENIED_MAX: Duration = Duration::from_secs(60);

/// How long requests are tried.
#[derive(Clone, Debug)]
pub(crate) struct Patience {
    /// Reads fail after this.
    pub read: Duration,
    /// Writes fail after this, or at once when denied; `None`: they are tried for ever, deletions excepted.
    pub write: Option<Duration>,
    /// Where the length of pauses comes from.
    pub pauses: Pauses,
}

/// Where the length of pauses comes from. Clones draw from one source.
#[derive(Clone, Debug, Default)]
pub(crate) struct Pauses(Option<Arc<SeededEntropy>>);

impl Pauses {
    /// From a seed, or from the system.
    pub(crate) fn new(seed: Option<u64>) -> Self {
        Self(seed.map(|seed| Arc::new(SeededEntropy::new(seed))))
    }

    /// From half a pause to a whole one.
    fn shorten(&self, full: Duration) -> Duration {
        let mut random = [0; 2];
        match &self.0 {
            Some(seeded) => seeded.fill(&mut random),
            None => OsEntropy.fill(&mut random),
        }
        let share = f64::from(u16::from_le_bytes(random)) / f64::from(u16::MAX);
        full.mul_f64(0.5 + share / 2.0)
    }
}

/// Attempts requests on behalf of a store.
#[derive(Clone, Debug)]
pub(super) struct Core {
    pub(super) meter: Meter,
    pub(super) patience: Patience,
    /// Reads and writes that may be under way at once: reads never wait behind stalled writes.
    pub(super) slots: [Arc<Semaphore>; 2],
    /// Whether a read has been answered as one that may ask.
    pub(super) is_let_in: Arc<AtomicBool>,
}

impl Core {
    /// One attempt at writing, at most `limit` long once it has its slot.
    pub(super) async fn attempt<T>(
        &self,
        limit: Duration,
        request: impl Future<Output = RawResult<T>>,
    ) -> RawResult<T> {
        let [_, slots] = &self.slots;
        let _slot = slots.acquire().await.map_err(|_| fault("the bucket is closed"))?;
        self.limited(limit, request).await
    }

    /// Gives `request` the time in which a bucket that is there begins to answer a read: lost in a dead
    /// connection it is sent again while there is patience left, however large its answer may be.
    pub(super) async fn first_byte<T>(&self, request: impl Future<Output = RawResult<T>>) -> RawResult<T> {
        self.limited((self.patience.read / 4).min(ATTEMPT_TIME), request).await
    }

    async fn limited<T>(&self, limit: Duration, request: impl Future<Output = RawResult<T>>) -> RawResult<T> {
        match timeout(limit, request).await {
            Ok(result) => result,
            Err(_) => {
                let error = stalled(limit);
                self.meter.failed(OutageKind::Unavailable, detail(&error));
                Err(error)
            }
        }
    }

    pub(super) async fn read<T, F>(&self, bytes: u64, mut request: impl FnMut() -> F) -> RawResult<T>
    where
        F: Future<Output = RawResult<T>>,
    {
        let deadline = Instant::now() + self.patience.read;
        let mut backoff = Backoff::default();
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let with_slot = async {
                let [slots, _] = &self.slots;
                let _slot = slots.acquire().await.map_err(|_| fault("the bucket is closed"))?;
                request().await
            };
            let error = match self.limited(attempt_time(bytes).min(left), with_slot).await {
                Ok(value) => {
                    self.is_let_in.store(true, Ordering::Relaxed);
                    return Ok(value);
                }
                Err(error) => error,
            };
            match classify(&error) {
                Trouble::Transient => {}
                // Who was let in before may be so again: the clock is put right after waking, credentials are renewed.
                Trouble::Denied | Trouble::NoBucket if self.is_let_in.load(Ordering::Relaxed) => {}
                _ => return Err(error),
            }
            let pause = self.patience.pauses.shorten(backoff.next(BACKOFF_MAX));
            if Instant::now() + pause >= deadline {
                return Err(error);
            }
            tracing::debug!(%error, "reading again");
            tokio::time::sleep(pause).await;
        }
    }

    pub(super) async fn write<T, F>(&self, request: impl FnMut() -> F) -> RawResult<T>
    where
        F: Future<Output = RawResult<T>>,
    {
        self.write_within(self.patience.write, true, request).await
    }

    /// Deletes for a while at most, and not where that is refused: one object that may not be deleted keeps nobody waiting,
    /// and is no outage.
    pub(super) async fn delete<T, F>(&self, request: impl FnMut() -> F) -> RawResult<T>
    where
        F: Future<Output = RawResult<T>>,
    {
        let patience = self.patience.write.map_or(DELETION_TIME, |patience| patience.min(DELETION_TIME));
        self.write_within(Some(patience), false, request).await
    }

    async fn write_within<T, F>(
        &self,
        patience: Option<Duration>,
        tells_refusals: bool,
        mut request: impl FnMut() -> F,
    ) -> RawResult<T>
    where
        F: Future<Output = RawResult<T>>,
    {
        let deadline = patience.map(|patience| Instant::now() + patience);
        let mut backoff = Backoff::default();
        loop {
            let error = match request().await {
                Ok(value) => return Ok(value),
                Err(error) => error,
            };
            let trouble = classify(&error);
            if trouble == Trouble::Rejected && tells_refusals {
                self.meter.failed(OutageKind::Denied, detail(&error));
            }
            let pause_max = match trouble {
                Trouble::Exists | Trouble::Unfit => return Err(error),
                // That something is not there is no answer to a write.
                Trouble::Transient | Trouble::Missing => BACKOFF_MAX,
                _ if deadline.is_some() => return Err(error),
                Trouble::Denied | Trouble::NoBucket | Trouble::Rejected | Trouble::Final => {
                    BACKOFF_DENIED_MAX
                }
            };
            let pause = self.patience.pauses.shorten(backoff.next(pause_max));
            if deadline.is_some_and(|deadline| Instant::now() + pause >= deadline) {
                return Err(error);
            }
            if backoff.attempts == 1 {
                tracing::warn!(error = %detail(&error), "the bucket does not take a write; it will be repeated");
            } else {
                tracing::debug!(error = %detail(&error), ?pause, "the bucket still does not take a write");
            }
            tokio::time::sleep(pause).await;
        }
    }
}

pub(super) fn attempt_time(bytes: u64) -> Duration {
    ATTEMPT_TIME + Duration::from_secs(bytes / LINK_BYTES_PER_SEC)
}

pub(super) fn fault(what: &'static str) -> RawError {
    RawError::Generic { store: "bucket", source: what.into() }
}

/// Nothing came within so many seconds.
#[derive(Debug, thiserror::Error)]
#[error("no answer within {0} s")]
struct Stalled(u64);

pub(super) fn stalled(limit: Duration) -> RawError {
    RawError::Generic { store: "bucket", source: Stalled(limit.as_secs()).into() }
}

/// Whether an attempt was given up because nothing came.
pub(super) fn is_stall(error: &RawError) -> bool {
    matches!(error, RawError::Generic { source, .. } if source.is::<Stalled>())
}

/// How long the attempts to write one object may take. What is slow may only be one of many on a slow line: after each
/// attempt that was given up the next has twice the time, up to what all of them at once would need.
#[derive(Debug)]
pub(super) struct AttemptTimes(AtomicU32);

impl AttemptTimes {
    pub(super) const fn new() -> Self {
        Self(AtomicU32::new(1))
    }

    /// For the next attempt to write so many bytes.
    pub(super) fn of(&self, bytes: u64) -> Duration {
        attempt_time(bytes.saturating_mul(self.0.load(Ordering::Relaxed).into()))
    }

    /// Notes how an attempt ended.
    pub(super) fn note<T>(&self, result: &RawResult<T>) {
        if result.as_ref().is_err_and(is_stall) {
            let factor = self.0.load(Ordering::Relaxed);
            self.0.store((factor * 2).min(SHARERS_MAX), Ordering::Relaxed);
        }
    }
}

/// Pauses that double from [`BACKOFF_MIN`]. Each is then shortened by up to half, so that clients do not
/// meet.
#[derive(Debug, Default)]
struct Backoff {
    attempts: u32,
}

impl Backoff {
    fn next(&mut self, max: Duration) -> Duration {
        let full = BACKOFF_MIN.saturating_mul(1 << self.attempts.min(16)).min(max);
        self.attempts = self.attempts.saturating_add(1);
        full
    }
}
