//! The object store that is counted: every request passes here on its way to the bucket.

use std::fmt;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};
use tokio::time::Instant;

use super::meter::{Meter, Verb};
use super::request_log::{self, Told};

/// Objects that the usual providers return in one page of a listing.
const LIST_PAGE_OBJECTS: u64 = 1000;

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
        let bytes = payload.content_length() as u64;
        let mut in_flight = self.meter.puts(bytes);
        let mut told = Told::new(Verb::Put, || path.to_string());
        let result = self.inner.put_opts(path, payload, opts).await;
        in_flight.note(&result);
        told.answered(&result, Some(bytes));
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        self.meter.asked(Verb::Put);
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let head = options.head;
        let verb = if head { Verb::Head } else { Verb::Get };
        let mut in_flight = self.meter.enter(verb, 0);
        self.meter.asked(verb);
        let mut told = Told::new(verb, || request_log::part(path, &options));
        let result = self.inner.get_opts(path, options).await;
        in_flight.note(&result);
        let bytes = result.as_ref().map_or(0, |result| result.range.end.saturating_sub(result.range.start));
        told.answered(&result, Some(bytes));
        let result = result?;
        if head {
            return Ok(result);
        }
        if matches!(result.payload, GetResultPayload::File(..)) {
            // Left as it is: a file is read in one piece, a stream in many small ones.
            self.meter.received(bytes);
            return Ok(result);
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let meter = self.meter.clone();
        let body = result.into_stream().inspect_ok(move |chunk| {
            let _ = &in_flight;
            meter.received(chunk.len() as u64);
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
            counting.asked(Verb::Delete);
        });
        let (meter, since) = (self.meter.clone(), Instant::now());
        let inform = move |result: &RawResult<Path>| {
            meter.deleted(since, result);
            request_log::deleted(since, result);
        };
        self.inner.delete_stream(paths.boxed()).inspect(inform).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let told = Told::new(Verb::List, || below(prefix));
        count_pages(self.meter.clone(), told, self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let told = Told::new(Verb::List, || format!("{} after {offset}", below(prefix)));
        count_pages(self.meter.clone(), told, self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let mut in_flight = self.meter.enter(Verb::List, 0);
        self.meter.asked(Verb::List);
        let mut told = Told::new(Verb::List, || below(prefix));
        let result = self.inner.list_with_delimiter(prefix).await;
        in_flight.note(&result);
        told.answered(&result, None);
        result
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.meter.asked(Verb::Put);
        self.inner.copy_opts(from, to, options).await
    }
}

fn below(prefix: Option<&Path>) -> String {
    format!("{}/", prefix.map(Path::as_ref).unwrap_or_default())
}

fn count_pages(
    meter: Meter,
    mut told: Told,
    entries: BoxStream<'static, RawResult<ObjectMeta>>,
) -> BoxStream<'static, RawResult<ObjectMeta>> {
    meter.asked(Verb::List);
    let since = Instant::now();
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
                        meter.asked(Verb::List);
                    }
                    if seen == 1 || entry.is_err() {
                        meter.listed(since, entry.is_ok());
                        meter.note(entry);
                        told.answered(entry, None);
                    }
                }
                None if !ended && seen == 0 => {
                    meter.listed(since, true);
                    meter.answered();
                    told.answered(&RawResult::Ok(()), None);
                }
                None => {}
            }
            ended |= entry.is_none();
        }
        next
    })
    .boxed()
}
