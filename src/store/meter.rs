//! Counts what is asked of a bucket and remembers since when it does not answer.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};
use parking_lot::Mutex;
use tokio::sync::watch;
use tokio::time::Instant;

use super::error::{Trouble, classify, detail};

/// Objects that the usual providers return in one page of a listing.
const LIST_PAGE_OBJECTS: u64 = 1000;

/// Why a bucket does not take requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OutageKind {
    /// It cannot be reached or fails.
    Unavailable,
    /// It refuses our credentials, or the bucket is gone: waiting alone will not help.
    Denied,
}

#[derive(Clone, Debug)]
struct Outage {
    kind: OutageKind,
    since: Instant,
    /// Number of the last error that belongs to it.
    error: u64,
}

#[derive(Debug, Default)]
struct Counts {
    puts: AtomicU64,
    gets: AtomicU64,
    heads: AtomicU64,
    lists: AtomicU64,
    deletes: AtomicU64,
    put_bytes: AtomicU64,
    get_bytes: AtomicU64,
    errors: AtomicU64,
    in_flight: AtomicU64,
}

#[derive(Debug)]
struct Shared {
    counts: Counts,
    outage: watch::Sender<Option<Outage>>,
    last_error: Mutex<Option<String>>,
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
        }))
    }
}

impl Meter {
    /// The counters now.
    #[must_use]
    pub fn snapshot(&self) -> MeterSnapshot {
        let counts = &self.0.counts;
        let read = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        let outage = self.0.outage.borrow().clone();
        MeterSnapshot {
            puts: read(&counts.puts),
            gets: read(&counts.gets),
            heads: read(&counts.heads),
            lists: read(&counts.lists),
            deletes: read(&counts.deletes),
            put_bytes: read(&counts.put_bytes),
            get_bytes: read(&counts.get_bytes),
            errors: read(&counts.errors),
            in_flight: read(&counts.in_flight),
            outage_since: outage.as_ref().map(|outage| outage.since.elapsed()),
            outage: outage.map(|outage| outage.kind),
            last_error: self.0.last_error.lock().clone(),
        }
    }

    /// Why the bucket does not answer at this moment, if it does not.
    #[must_use]
    pub fn outage(&self) -> Option<OutageKind> {
        self.0.outage.borrow().as_ref().map(|outage| outage.kind)
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
        let error = self.0.counts.errors.fetch_add(1, Ordering::Relaxed) + 1;
        *self.0.last_error.lock() = Some(words);
        self.0.outage.send_modify(|outage| {
            let since = outage.as_ref().map_or_else(Instant::now, |outage| outage.since);
            *outage = Some(Outage { kind, since, error });
        });
    }

    fn answered(&self) {
        self.0.outage.send_if_modified(|outage| outage.take().is_some());
    }

    fn note<T>(&self, result: &RawResult<T>) {
        match result {
            Ok(_) => self.answered(),
            Err(error) => match classify(error) {
                trouble if trouble.is_answer() => self.answered(),
                Trouble::Denied | Trouble::NoBucket => self.failed(OutageKind::Denied, detail(error)),
                _ => self.failed(OutageKind::Unavailable, detail(error)),
            },
        }
    }

    fn enter(&self) -> InFlight {
        self.0.counts.in_flight.fetch_add(1, Ordering::Relaxed);
        InFlight(self.0.clone())
    }
}

/// Takes a request off the counter of those under way, however it ends.
struct InFlight(Arc<Shared>);

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.counts.in_flight.fetch_sub(1, Ordering::Relaxed);
    }
}

/// An object store whose requests are counted.
#[derive(Debug)]
pub(crate) struct MeteredStore<T> {
    inner: T,
    meter: Meter,
}

impl<T> MeteredStore<T> {
    pub(crate) const fn new(inner: T, meter: Meter) -> Self {
        Self { inner, meter }
    }
}

impl<T: fmt::Display> fmt::Display for MeteredStore<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl<T: ObjectStore> ObjectStore for MeteredStore<T> {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        let _in_flight = self.meter.enter();
        let counts = &self.meter.0.counts;
        counts.puts.fetch_add(1, Ordering::Relaxed);
        counts.put_bytes.fetch_add(payload.content_length() as u64, Ordering::Relaxed);
        let result = self.inner.put_opts(path, payload, opts).await;
        self.meter.note(&result);
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        self.meter.0.counts.puts.fetch_add(1, Ordering::Relaxed);
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let in_flight = self.meter.enter();
        let counts = &self.meter.0.counts;
        let counter = if options.head { &counts.heads } else { &counts.gets };
        counter.fetch_add(1, Ordering::Relaxed);
        let head = options.head;
        let result = self.inner.get_opts(path, options).await;
        self.meter.note(&result);
        let result = result?;
        if head {
            return Ok(result);
        }
        if matches!(result.payload, GetResultPayload::File(..)) {
            // Left as it is: a file is read in one piece, a stream in many small ones.
            let bytes = result.range.end.saturating_sub(result.range.start);
            counts.get_bytes.fetch_add(bytes, Ordering::Relaxed);
            return Ok(result);
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let meter = self.meter.clone();
        let body = result.into_stream().inspect_ok(move |chunk| {
            let _ = &in_flight;
            meter.0.counts.get_bytes.fetch_add(chunk.len() as u64, Ordering::Relaxed);
        });
        let payload = GetResultPayload::Stream(body.boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let counting = self.meter.clone();
        let paths = paths.inspect_ok(move |_| {
            counting.0.counts.deletes.fetch_add(1, Ordering::Relaxed);
        });
        let meter = self.meter.clone();
        self.inner.delete_stream(paths.boxed()).inspect(move |result| meter.note(result)).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        count_pages(self.meter.clone(), self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        count_pages(self.meter.clone(), self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let _in_flight = self.meter.enter();
        self.meter.0.counts.lists.fetch_add(1, Ordering::Relaxed);
        let result = self.inner.list_with_delimiter(prefix).await;
        self.meter.note(&result);
        result
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.meter.0.counts.puts.fetch_add(1, Ordering::Relaxed);
        self.inner.copy_opts(from, to, options).await
    }
}

fn count_pages(
    meter: Meter,
    entries: BoxStream<'static, RawResult<ObjectMeta>>,
) -> BoxStream<'static, RawResult<ObjectMeta>> {
    meter.0.counts.lists.fetch_add(1, Ordering::Relaxed);
    let mut seen = 0_u64;
    let mut entries = entries;
    let mut ended = false;
    futures::stream::poll_fn(move |context| {
        let next = entries.poll_next_unpin(context);
        if let std::task::Poll::Ready(entry) = &next {
            match entry {
                Some(entry) => {
                    seen += 1;
                    if seen.is_multiple_of(LIST_PAGE_OBJECTS) {
                        meter.0.counts.lists.fetch_add(1, Ordering::Relaxed);
                    }
                    if seen == 1 || entry.is_err() {
                        meter.note(entry);
                    }
                }
                None if !ended && seen == 0 => meter.answered(),
                None => {}
            }
            ended |= entry.is_none();
        }
        next
    })
    .boxed()
}
