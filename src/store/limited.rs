//! A bucket's limits: how fast objects go up and down, and whether any go up at all.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetRange, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};

use super::Timetable;
use super::tap::Tap;

/// Nothing larger is read whole.
const CHARGED_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// The limits of one bucket; clones are the same. They hold for whole objects, or parts of them, as they are asked for: each
/// goes at the speed of the line, and then the next one waits.
#[derive(Clone, Debug, Default)]
pub struct Limits(Arc<Taps>);

#[derive(Debug, Default)]
struct Taps {
    up: Tap,
    down: Tap,
}

/// What the limits are at one moment.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LimitsSnapshot {
    /// What was set for sending.
    pub upload: Timetable,
    /// Bytes a second that may be sent now.
    pub upload_rate: Option<u64>,
    /// What was set for receiving.
    pub download: Timetable,
    /// Bytes a second that may be received now.
    pub download_rate: Option<u64>,
    /// Nothing is sent; for how long, if that is known.
    pub paused: Option<Option<Duration>>,
}

impl Limits {
    /// Limits what is sent from now on.
    pub fn set_upload(&self, table: Timetable) {
        self.0.up.set(table);
    }

    /// Limits what is received from now on.
    pub fn set_download(&self, table: Timetable) {
        self.0.down.set(table);
    }

    /// Sends nothing, for a time or until [`Limits::resume`].
    pub fn pause(&self, time: Option<Duration>) {
        self.0.up.close(time);
    }

    /// Sends again. Whether it was paused.
    pub fn resume(&self) -> bool {
        let was_paused = self.0.up.closed().is_some();
        self.0.up.open();
        was_paused
    }

    /// What the limits are.
    #[must_use]
    pub fn snapshot(&self) -> LimitsSnapshot {
        let (upload, upload_rate) = self.0.up.limit();
        let (download, download_rate) = self.0.down.limit();
        LimitsSnapshot { upload, upload_rate, download, download_rate, paused: self.0.up.closed() }
    }
}

/// An object store that keeps to [`Limits`]. It stands above all that has patience: to wait here is no failure of the store.
#[derive(Debug)]
pub(super) struct LimitedStore {
    inner: Arc<dyn ObjectStore>,
    limits: Limits,
}

impl LimitedStore {
    pub(super) const fn new(inner: Arc<dyn ObjectStore>, limits: Limits) -> Self {
        Self { inner, limits }
    }
}

impl fmt::Display for LimitedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for LimitedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        self.limits.0.up.pass(payload.content_length() as u64).await;
        self.inner.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let wanted = match (&options.range, options.head) {
            (_, true) => Some(0),
            (Some(GetRange::Bounded(range)), _) => Some(range.end.saturating_sub(range.start)),
            (Some(GetRange::Suffix(bytes)), _) => Some(*bytes),
            _ => None,
        };
        self.limits.0.down.pass(wanted.unwrap_or(0)).await;
        let result = self.inner.get_opts(path, options).await?;
        if wanted.is_none() {
            // Only now is it known how much that was; whoever comes next waits for it. The store says it, and shall not make
            // us wait for ever by saying too much.
            let said = result.range.end.saturating_sub(result.range.start);
            self.limits.0.down.pass(said.min(CHARGED_BYTES_MAX)).await;
        }
        Ok(result)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.inner.list(prefix)
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.inner.list_with_offset(prefix, offset)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;
    use tokio::time::Instant;

    use super::*;
    use crate::store::Bucket;

    #[tokio::test(start_paused = true)]
    async fn a_bucket_keeps_to_its_limits_and_reads_go_on_while_it_is_paused() {
        let bucket = Bucket::memory();
        let limit = || Timetable { otherwise: Some(1 << 20), ..Timetable::default() };
        bucket.limits().set_upload(limit());
        let start = Instant::now();
        for number in 0..30 {
            bucket.objects.put(&Path::from(format!("d/{number}")), vec![7; 1 << 20].into()).await.unwrap();
        }
        let took = start.elapsed().as_secs();
        assert!(
            (28..=30).contains(&took),
            "thirty objects of a second each took {took} s of the simulated time"
        );

        bucket.limits().pause(None);
        let (objects, late) = (Arc::clone(&bucket.objects), Path::from("d/late"));
        let writing = tokio::spawn(async move { objects.put(&late, vec![1].into()).await });
        let read = bucket.objects.get_range(&Path::from("d/3"), 0..100).await.unwrap();
        assert_eq!(read.len(), 100);
        tokio::time::sleep(Duration::from_secs(24 * 3600)).await;
        assert!(!writing.is_finished(), "a day is no outage and no failure");
        assert_eq!((bucket.meter().snapshot().errors, bucket.meter().snapshot().puts), (0, 30));
        assert!(bucket.limits().resume() && !bucket.limits().resume());
        writing.await.unwrap().unwrap();

        bucket.limits().set_download(limit());
        let start = Instant::now();
        for number in 0..10 {
            bucket.objects.get(&Path::from(format!("d/{number}"))).await.unwrap();
        }
        let took = start.elapsed().as_secs();
        assert!((8..=10).contains(&took), "ten objects of a second each took {took} s of the simulated time");
    }
}
