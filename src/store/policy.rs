//! Decides how long a request is tried: writes for as long as it takes, reads and deletions until a deadline.

use std::fmt;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::{Bytes, BytesMut};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetRange, GetResult, GetResultPayload, ListResult,
    MultipartUpload, ObjectMeta, ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload,
    PutResult, Result as RawResult,
};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use crate::base::populate;

use super::error::{Trouble, classify};
use super::listing;
use super::meter::Meter;
use super::patience::{ATTEMPT_TIME, AttemptTimes, Core, Patience, attempt_time, fault, stalled};

/// Bodies up to this many bytes are taken whole within one attempt, so that a broken one is fetched again.
const BODY_BYTES_MAX: u64 = 64 * 1024 * 1024;
/// Memory for bodies up to this many bytes is touched at once and not page by page.
const POPULATED_MAX: u64 = 8 * 1024 * 1024;
/// Objects deleted with one request.
const DELETE_CHUNK: usize = 1000;

/// An object store whose requests are repeated until they succeed or their patience ends.
///
/// A create-only write whose answer was lost may find its own object on the next attempt: whenever the
/// store says «exists already», the object is compared with what was to be written.
#[derive(Debug)]
pub(crate) struct PatientStore {
    inner: Arc<dyn ObjectStore>,
    core: Core,
}

impl PatientStore {
    pub(crate) fn new(
        inner: Arc<dyn ObjectStore>,
        meter: Meter,
        patience: Patience,
        slots: [Arc<Semaphore>; 2],
    ) -> Self {
        Self { inner, core: Core { meter, patience, slots, is_let_in: Arc::default() } }
    }

    async fn get_whole(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let wanted = options.range.clone();
        let head = options.head;
        let result = self.core.first_byte(self.inner.get_opts(path, options)).await?;
        if head {
            return Ok(result);
        }
        check_range(wanted.as_ref(), &result)?;
        let expected = result.range.end.saturating_sub(result.range.start);
        if expected > BODY_BYTES_MAX {
            return Ok(result);
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let body = take_body(result, expected).await?;
        let payload = GetResultPayload::Stream(stream::once(async { Ok(body) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    /// Whether the object at `path` is exactly `payload`.
    async fn holds(&self, path: &Path, payload: &PutPayload) -> RawResult<bool> {
        let limit = attempt_time(payload.content_length() as u64);
        let result = self.core.attempt(limit, self.inner.get_opts(path, GetOptions::default())).await?;
        if result.meta.size != payload.content_length() as u64 {
            return Ok(false);
        }
        let expected = result.meta.size;
        let stored = timeout(limit, take_body(result, expected)).await.map_err(|_| stalled(limit))??;
        let mut rest: &[u8] = &stored;
        for chunk in payload.iter() {
            match rest.split_at_checked(chunk.len()) {
                Some((same, after)) if same == &chunk[..] => rest = after,
                _ => return Ok(false),
            }
        }
        Ok(rest.is_empty())
    }

    async fn put_once(
        &self,
        path: &Path,
        payload: &PutPayload,
        opts: &PutOptions,
        times: &AttemptTimes,
    ) -> RawResult<PutResult> {
        let limit = times.of(payload.content_length() as u64);
        let result = self.core.attempt(limit, self.inner.put_opts(path, payload.clone(), opts.clone())).await;
        times.note(&result);
        let Err(exists @ RawError::AlreadyExists { .. }) = result else {
            return result;
        };
        if !matches!(opts.mode, PutMode::Create) {
            return Err(fault("the store says that an object is there that was to be replaced"));
        }
        match self.holds(path, payload).await {
            Ok(true) => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
            Ok(false) => Err(exists),
            // Two writers met and the other one withdrew: nobody has the name yet.
            Err(RawError::NotFound { .. }) => Err(fault("a conflicting write was withdrawn")),
            Err(error) => Err(error),
        }
    }
}

impl fmt::Display for PatientStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for PatientStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        let times = AttemptTimes::new();
        self.core.write(|| self.put_once(path, &payload, &opts, &times)).await
    }

    /// Not offered: a part of a multipart upload cannot be repeated, one PUT can.
    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let bytes = match &options.range {
            Some(GetRange::Bounded(range)) => range.end.saturating_sub(range.start),
            Some(GetRange::Suffix(bytes)) => *bytes,
            _ => 0,
        };
        self.core.read(bytes, || self.get_whole(path, options.clone())).await
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let (inner, core) = (self.inner.clone(), self.core.clone());
        paths
            .try_chunks(DELETE_CHUNK)
            .map_err(|error| error.1)
            .and_then(move |chunk| {
                let (inner, core) = (inner.clone(), core.clone());
                async move {
                    core.delete(|| delete_chunk(&inner, &core, &chunk)).await?;
                    Ok(stream::iter(chunk.into_iter().map(Ok)))
                }
            })
            .try_flatten()
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        listing::list(self.core.clone(), self.inner.clone(), prefix.cloned(), None)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        listing::list(self.core.clone(), self.inner.clone(), prefix.cloned(), Some(offset.clone()))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        self.core.read(0, || self.inner.list_with_delimiter(prefix)).await
    }

    /// Not offered: objects are written once under a name of their own.
    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> RawResult<()> {
        Err(unsupported("copies"))
    }
}

/// Deletes all of `chunk`; objects that are gone already are success.
async fn delete_chunk(inner: &Arc<dyn ObjectStore>, core: &Core, chunk: &[Path]) -> RawResult<()> {
    let owned = chunk.to_vec();
    let paths = stream::iter(owned).map(Ok).boxed();
    let deleting = async {
        let mut results = inner.delete_stream(paths);
        let mut failure = None;
        while let Some(result) = results.next().await {
            match result {
                Ok(_) => {}
                Err(error) if classify(&error) == Trouble::Missing => {}
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(()), Err)
    };
    // An answer that tells of objects nobody asked about ends in a panic of the client.
    let deleting = AssertUnwindSafe(deleting).catch_unwind();
    let odd = |_| Err(fault("the store answers a deletion with something else"));
    core.attempt(ATTEMPT_TIME * 4, deleting.map(|deleted| deleted.unwrap_or_else(odd))).await
}

async fn take_body(result: GetResult, expected: u64) -> RawResult<Bytes> {
    if matches!(result.payload, GetResultPayload::File(..)) {
        let body = result.bytes().await?;
        let whole = body.len() as u64 == expected;
        return if whole { Ok(body) } else { Err(fault("the file is shorter than its directory says")) };
    }
    let mut chunks = result.into_stream();
    let mut first: Option<Bytes> = None;
    let mut body = BytesMut::new();
    let mut taken = 0_u64;
    while let Some(chunk) = chunks.try_next().await? {
        taken += chunk.len() as u64;
        if taken > expected {
            return Err(fault("the store sent more bytes than it was asked for"));
        }
        match first.take() {
            None if body.is_empty() => first = Some(chunk),
            held => {
                if let Some(held) = held {
                    body.reserve(usize::try_from(expected).unwrap_or(0));
                    if expected <= POPULATED_MAX {
                        populate(body.spare_capacity_mut());
                    }
                    body.extend_from_slice(&held);
                }
                body.extend_from_slice(&chunk);
            }
        }
    }
    if taken != expected {
        return Err(fault("the store sent fewer bytes than it announced"));
    }
    Ok(first.unwrap_or_else(|| body.freeze()))
}

fn check_range(wanted: Option<&GetRange>, result: &GetResult) -> RawResult<()> {
    let size = result.meta.size;
    let right = match wanted {
        None => 0..size,
        Some(wanted) => wanted.as_range(size).map_err(|_| fault("the store answered with another range"))?,
    };
    if result.range == right {
        Ok(())
    } else {
        Err(fault("the store answered with another range than it was asked for"))
    }
}

fn unsupported(what: &str) -> RawError {
    RawError::NotSupported { source: format!("{what} are not used here").into() }
}
