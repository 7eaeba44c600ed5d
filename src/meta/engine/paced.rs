//! Lets the upkeep of the records ask for no more than its budget where nobody waits for it.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult, UploadPart,
};
use parking_lot::Mutex;
use tokio::time::{Instant, sleep};

/// Who waits looks this often whether it has become urgent.
const LOOK: Duration = Duration::from_millis(100);

/// What may be asked of the bucket each second.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Sealed bytes, either way.
    pub bytes_per_second: u64,
    /// Requests.
    pub requests_per_second: u64,
}

impl Default for Pace {
    fn default() -> Self {
        Self { bytes_per_second: 16 * 1024 * 1024, requests_per_second: 128 }
    }
}

impl Pace {
    /// How long a request of so many bytes lasts.
    fn of(&self, bytes: u64) -> Duration {
        let lasts = |count: u64, each_second: u64| count.saturating_mul(1_000_000) / each_second.max(1);
        let micros = lasts(bytes, self.bytes_per_second).max(lasts(1, self.requests_per_second));
        Duration::from_micros(micros)
    }
}

/// A store in which each request waits until those before it are paid for, unless it is urgent.
#[derive(Clone)]
pub(super) struct Paced(Arc<Inner>);

struct Inner {
    store: Arc<dyn ObjectStore>,
    pace: Pace,
    is_urgent: Box<dyn Fn() -> bool + Send + Sync>,
    paid_at: Mutex<Instant>,
}

impl Paced {
    pub(super) fn new(
        store: Arc<dyn ObjectStore>,
        pace: Pace,
        is_urgent: impl Fn() -> bool + Send + Sync + 'static,
    ) -> Self {
        Self(Arc::new(Inner {
            store,
            pace,
            is_urgent: Box::new(is_urgent),
            paid_at: Mutex::new(Instant::now()),
        }))
    }

    /// Waits for one's turn, and takes it for so many bytes.
    async fn turn(&self, bytes: u64) {
        loop {
            let now = Instant::now();
            let left = {
                let mut paid_at = self.0.paid_at.lock();
                let left = paid_at.saturating_duration_since(now);
                if left.is_zero() || (self.0.is_urgent)() {
                    *paid_at = now + self.0.pace.of(bytes);
                    return;
                }
                left
            };
            sleep(left.min(LOOK)).await;
        }
    }

    /// Adds what a request has turned out to bring.
    fn pay(&self, bytes: u64) {
        *self.0.paid_at.lock() += self.0.pace.of(bytes);
    }
}

impl fmt::Debug for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Paced").field(&self.0.store).finish()
    }
}

impl fmt::Display for Paced {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.store.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Paced {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        self.turn(payload.content_length() as u64).await;
        self.0.store.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        let upload = self.0.store.put_multipart_opts(path, opts).await?;
        Ok(Box::new(Upload { paced: self.clone(), upload, bytes: 0 }))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        self.turn(0).await;
        let got = self.0.store.get_opts(path, options).await?;
        self.pay(got.range.end - got.range.start);
        Ok(got)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let paced = self.clone();
        let paths = paths.and_then(move |path| {
            let paced = paced.clone();
            async move {
                paced.turn(0).await;
                Ok(path)
            }
        });
        self.0.store.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let (paced, listing) = (self.clone(), self.0.store.list(prefix));
        async move {
            paced.turn(0).await;
            listing
        }
        .into_stream()
        .flatten()
        .boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        self.turn(0).await;
        self.0.store.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.0.store.copy_opts(from, to, options).await
    }
}

/// A table on its way: the sealed store sends it whole, at its end.
#[derive(Debug)]
struct Upload {
    paced: Paced,
    upload: Box<dyn MultipartUpload>,
    bytes: u64,
}

#[async_trait]
impl MultipartUpload for Upload {
    fn put_part(&mut self, part: PutPayload) -> UploadPart {
        self.bytes += part.content_length() as u64;
        self.upload.put_part(part)
    }

    async fn complete(&mut self) -> RawResult<PutResult> {
        self.paced.turn(self.bytes).await;
        self.upload.complete().await
    }

    async fn abort(&mut self) -> RawResult<()> {
        self.upload.abort().await
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicBool, Ordering};

    use object_store::ObjectStoreExt;
    use object_store::memory::InMemory;

    use super::*;

    const PACE: Pace = Pace { bytes_per_second: 1000, requests_per_second: 4 };

    #[tokio::test(start_paused = true)]
    async fn requests_and_bytes_keep_to_the_pace_unless_it_is_urgent() {
        let is_urgent = Arc::new(AtomicBool::new(false));
        let seen = Arc::clone(&is_urgent);
        let store = Paced::new(Arc::new(InMemory::new()), PACE, move || seen.load(Ordering::Relaxed));
        let start = Instant::now();
        let path = Path::from("a");
        for _ in 0..9 {
            store.put(&path, vec![7; 10].into()).await.unwrap();
        }
        assert_eq!(start.elapsed().as_secs(), 2, "eight rests of a quarter of a second");
        store.put(&path, vec![7; 3000].into()).await.unwrap();
        let start = Instant::now();
        store.get(&path).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 3, "the bytes that were put are paid for");
        let start = Instant::now();
        let mut upload = store.put_multipart(&path).await.unwrap();
        upload.put_part(vec![7; 2000].into()).await.unwrap();
        upload.complete().await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 3, "and those that were got");
        let start = Instant::now();
        store.delete(&path).await.unwrap();
        assert_eq!(start.elapsed().as_secs(), 2, "and those that went in parts");
        is_urgent.store(true, Ordering::Relaxed);
        let start = Instant::now();
        for _ in 0..100 {
            store.put(&path, vec![7; 100].into()).await.unwrap();
        }
        assert_eq!(start.elapsed(), Duration::ZERO);
    }
}
