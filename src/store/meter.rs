//! Counts what is asked of a bucket and remembers since when it does not answer.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use object_store::Result as RawResult;
use object_store::path::Path;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::{Trouble, classify, detail, is_full};
use super::rate::Rate;
use super::tally;
use crate::base::{Histogram, HistogramSnapshot};

/// Why a bucket does not take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutageKind {
    /// It refuses our credentials, or the bucket is gone: waiting alone will not help.
    Denied,
    /// There is no space left in it.
    Full,
    /// It cannot be reached or fails.
    #[serde(rename = "unreachable", other)]
    Unavailable,
}

#[derive(Clone, Debug)]
struct Outage {
    kind: OutageKind,
    since: Instant,
    /// Number of the last error that belongs to it.
    error: u64,
}

/// What can be asked of a bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Write an object.
    Put,
    /// Read one, or a part.
    Get,
    /// Ask whether it is there, and how long it is.
    Head,
    /// A page of a listing.
    List,
    /// Delete an object.
    Delete,
}

impl Verb {
    /// All of them, in the order of [`Meter::verbs`].
    pub const ALL: [Self; 5] = [Self::Put, Self::Get, Self::Head, Self::List, Self::Delete];

    /// Its name in figures.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Put => "put",
            Self::Get => "get",
            Self::Head => "head",
            Self::List => "list",
            Self::Delete => "delete",
        }
    }
}

/// What is counted of one verb.
#[derive(Debug, Default)]
struct Tally {
    requests: AtomicU64,
    errors: AtomicU64,
    latency: Histogram,
}

/// What was counted of one verb, at one moment.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct VerbSnapshot {
    /// Which.
    pub verb: Verb,
    /// Requests sent; of deletions the objects, of which one request may name a thousand.
    pub requests: u64,
    /// Those of them that failed, or were given up.
    pub errors: u64,
    /// How long those took that were answered, to the first byte of what came.
    pub latency: HistogramSnapshot,
}

#[derive(Debug, Default)]
struct Counts {
    verbs: [Tally; Verb::ALL.len()],
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU64,
    sending_bytes: AtomicU64,
}

impl Counts {
    const fn of(&self, verb: Verb) -> &Tally {
        let [put, get, head, list, delete] = &self.verbs;
        match verb {
            Verb::Put => put,
            Verb::Get => get,
            Verb::Head => head,
            Verb::List => list,
            Verb::Delete => delete,
        }
    }
}

#[derive(Debug)]
struct Shared {
    counts: Counts,
    outage: watch::Sender<Option<Outage>>,
    last_error: Mutex<Option<String>>,
    started: Instant,
    sent: Mutex<Rate>,
    received: Mutex<Rate>,
}

/// The counters of one bucket; clones count together.
#[derive(Clone, Debug)]
pub struct Meter(Arc<Shared>);

/// The counters at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MeterSnapshot {
    /// PUT requests sent, retries included.
    pub puts: u64,
    /// GET requests sent.
    pub gets: u64,
    /// HEAD requests sent.
    pub heads: u64,
    /// Pages of listings asked for.
    pub lists: u64,
    /// Objects asked to be deleted.
    pub deletes: u64,
    /// Bytes of the objects sent.
    pub put_bytes: u64,
    /// Bytes of the objects received.
    pub get_bytes: u64,
    /// Requests that failed; an absent object or a failed condition is no failure.
    pub errors: u64,
    /// Requests under way.
    pub in_flight: u64,
    /// Bytes of the objects that are being sent.
    pub sending_bytes: u64,
    /// Bytes sent a second, over the last half minute.
    pub send_rate: u64,
    /// Bytes received a second, likewise.
    pub receive_rate: u64,
    /// How long requests have been failing without one success.
    pub outage_since: Option<Duration>,
    /// Why they fail.
    pub outage: Option<OutageKind>,
    /// The last failure's words.
    pub last_error: Option<String>,
}

impl MeterSnapshot {
    /// All requests together.
    #[must_use]
    pub const fn requests(&self) -> u64 {
        self.puts + self.gets + self.heads + self.lists + self.deletes
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self(Arc::new(Shared {
            counts: Counts::default(),
            outage: watch::Sender::new(None),
            last_error: Mutex::new(None),
            started: Instant::now(),
            sent: Mutex::default(),
            received: Mutex::default(),
        }))
    }
}

impl Meter {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> MeterSnapshot {
        let counts = &self.0.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let requests = |verb| read(&counts.of(verb).requests);
        let outage = self.0.outage.borrow().clone();
        let now = self.0.started.elapsed();
        MeterSnapshot {
            puts: requests(Verb::Put),
            gets: requests(Verb::Get),
            heads: requests(Verb::Head),
            lists: requests(Verb::List),
            deletes: requests(Verb::Delete),
            put_bytes: read(&counts.put_bytes),
            get_bytes: read(&counts.get_bytes),
            errors: read(&counts.errors),
            in_flight: read(&counts.in_flight),
            sending_bytes: read(&counts.sending_bytes),
            send_rate: self.0.sent.lock().per_second(now),
            receive_rate: self.0.received.lock().per_second(now),
            outage_since: outage.as_ref().map(|outage| outage.since.elapsed()),
            outage: outage.map(|outage| outage.kind),
            last_error: self.0.last_error.lock().clone(),
        }
    }

    /// What was counted of each verb, in the order of [`Verb::ALL`].
    #[must_use]
    pub fn verbs(&self) -> [VerbSnapshot; Verb::ALL.len()] {
        Verb::ALL.map(|verb| {
            let tally = self.0.counts.of(verb);
            VerbSnapshot {
                verb,
                requests: tally.requests.load(Ordering::Relaxed),
                errors: tally.errors.load(Ordering::Relaxed),
                latency: tally.latency.snapshot(),
            }
        })
    }

    /// Why the bucket does not answer at this moment, if it does not.
    #[must_use]
    pub fn outage(&self) -> Option<OutageKind> {
        self.0.outage.borrow().as_ref().map(|outage| outage.kind)
    }

    /// Waits until there is an outage, or none.
    pub async fn until_outage(&self, is_there: bool) {
        let mut outage = self.0.outage.subscribe();
        if outage.wait_for(|outage| outage.is_some() == is_there).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Waits until the bucket refuses us, from now on.
    pub async fn denied(&self) {
        let mut outage = self.0.outage.subscribe();
        let before = self.0.counts.errors.load(Ordering::Relaxed);
        let is_new = |outage: &Option<Outage>| {
            outage.as_ref().is_some_and(|outage| outage.kind == OutageKind::Denied && outage.error > before)
        };
        if outage.wait_for(is_new).await.is_err() {
            std::future::pending::<()>().await;
        }
    }

    /// Notes that a request failed without an answer, or was refused.
    pub(crate) fn failed(&self, kind: OutageKind, words: String) {
        let error = self.note_error(words);
        self.0.outage.send_modify(|outage| {
            let since = outage.as_ref().map_or_else(Instant::now, |outage| outage.since);
            *outage = Some(Outage { kind, since, error });
        });
    }

    /// Counts an error, and gives its number.
    fn note_error(&self, words: String) -> u64 {
        *self.0.last_error.lock() = Some(words);
        self.0.counts.errors.fetch_add(1, Ordering::Relaxed) + 1
    }

    pub(crate) fn answered(&self) {
        self.0.outage.send_if_modified(|outage| outage.take().is_some());
    }

    pub(super) fn note<T>(&self, result: &RawResult<T>) {
        match result {
            Ok(_) => self.answered(),
            Err(error) => match classify(error) {
                trouble if trouble.is_answer() => self.answered(),
                Trouble::Denied | Trouble::NoBucket => self.failed(OutageKind::Denied, detail(error)),
                _ if is_full(error) => self.failed(OutageKind::Full, detail(error)),
                _ => self.failed(OutageKind::Unavailable, detail(error)),
            },
        }
    }

    /// A request, or a page of a listing, is asked for.
    pub(super) fn asked(&self, verb: Verb) {
        self.0.counts.of(verb).requests.fetch_add(1, Ordering::Relaxed);
        tally::count();
    }

    /// An object of `bytes` is asked to be written.
    pub(super) fn puts(&self, bytes: u64) -> InFlight {
        self.asked(Verb::Put);
        self.0.counts.put_bytes.fetch_add(bytes, Ordering::Relaxed);
        self.enter(Verb::Put, bytes)
    }

    /// Begins a request that may carry `bytes`.
    pub(super) fn enter(&self, verb: Verb, bytes: u64) -> InFlight {
        let counts = &self.0.counts;
        counts.in_flight.fetch_add(1, Ordering::Relaxed);
        counts.sending_bytes.fetch_add(bytes, Ordering::Relaxed);
        InFlight { meter: self.clone(), verb, bytes, since: Instant::now(), is_answered: false }
    }

    /// Bytes of an object have come.
    pub(super) fn received(&self, bytes: u64) {
        self.0.counts.get_bytes.fetch_add(bytes, Ordering::Relaxed);
        let now = self.0.started.elapsed();
        self.0.received.lock().add(now, now, bytes);
    }

    /// A listing begun at `since` has begun to be answered, or failed.
    pub(super) fn listed(&self, since: Instant, is_answered: bool) {
        let tally = self.0.counts.of(Verb::List);
        if is_answered {
            tally.latency.add(since.elapsed());
        } else {
            tally.errors.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// What came of one deletion of a request made at `since`.
    pub(super) fn deleted(&self, since: Instant, result: &RawResult<Path>) {
        let tally = self.0.counts.of(Verb::Delete);
        if result.as_ref().err().is_some_and(|error| !classify(error).is_answer()) {
            tally.errors.fetch_add(1, Ordering::Relaxed);
        } else {
            tally.latency.add(since.elapsed());
        }
        match result {
            // What may not be deleted stays: no outage, because nobody waits for it, and no sign that another is over.
            Err(error) if classify(error) == Trouble::Denied => {
                self.note_error(detail(error));
            }
            result => self.note(result),
        }
    }
}

/// A request under way. Takes itself off the counters, however it ends; what ends without an answer has failed.
pub(super) struct InFlight {
    meter: Meter,
    verb: Verb,
    bytes: u64,
    since: Instant,
    is_answered: bool,
}

impl InFlight {
    /// Notes what came of it.
    pub(super) fn note<T>(&mut self, result: &RawResult<T>) {
        self.is_answered = match result {
            Ok(_) => true,
            Err(error) => classify(error).is_answer(),
        };
        if self.is_answered {
            self.meter.0.counts.of(self.verb).latency.add(self.since.elapsed());
        }
        if result.is_ok() && self.bytes > 0 {
            let shared = &self.meter.0;
            let now = shared.started.elapsed();
            shared.sent.lock().add(now.saturating_sub(self.since.elapsed()), now, self.bytes);
        }
        self.meter.note(result);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        let counts = &self.meter.0.counts;
        counts.in_flight.fetch_sub(1, Ordering::Relaxed);
        counts.sending_bytes.fetch_sub(self.bytes, Ordering::Relaxed);
        if !self.is_answered {
            counts.of(self.verb).errors.fetch_add(1, Ordering::Relaxed);
        }
    }
}
