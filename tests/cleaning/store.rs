//! A store in memory with gates, an end, a past, and listings that may lie.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::{Notify, Semaphore};

/// A gate that requests of one kind must pass. Open until it is shut.
#[derive(Debug)]
pub struct Gate {
    is_shut: AtomicBool,
    arrived: Semaphore,
    passes: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self { is_shut: AtomicBool::new(false), arrived: Semaphore::new(0), passes: Semaphore::new(0) }
    }
}

impl Gate {
    pub fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }

    /// Waits until a request stands before the gate.
    pub async fn met(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    pub fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
        self.passes.add_permits(1000);
    }

    async fn pass(&self) {
        if self.is_shut.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.passes.acquire().await.unwrap().forget();
        }
    }
}

/// So many requests are answered; then no more.
#[derive(Debug)]
pub struct Requests {
    left: AtomicU64,
    end: Notify,
}

impl Default for Requests {
    fn default() -> Self {
        Self { left: AtomicU64::new(u64::MAX / 2), end: Notify::new() }
    }
}

impl Requests {
    pub fn allow(&self, count: u64) {
        self.left.store(count, Ordering::SeqCst);
    }

    pub async fn used_up(&self) {
        self.end.notified().await;
    }

    async fn take(&self) {
        let taken = self.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, |left| left.checked_sub(1));
        if taken.is_err() {
            self.end.notify_one();
            std::future::pending::<()>().await;
        }
    }
}

#[derive(Debug, Default)]
pub struct TestStore {
    pub inner: Arc<InMemory>,
    pub segment_puts: Gate,
    pub record_puts: Gate,
    /// Behind which segments are in the bucket, and nobody has been told.
    pub segment_acks: Gate,
    /// Before listings of segments.
    pub listings: Arc<Gate>,
    pub requests: Arc<Requests>,
    lies: parking_lot::Mutex<Vec<Path>>,
    locked: Arc<parking_lot::Mutex<Vec<Path>>>,
    /// Listings of segments end with an error.
    pub breaks_listings: AtomicBool,
    /// Deletions that were refused.
    pub refusals: Arc<AtomicU64>,
}

impl TestStore {
    /// Listings show these as well.
    pub fn lie(&self, names: Vec<Path>) {
        *self.lies.lock() = names;
    }

    /// These cannot be deleted.
    pub fn lock(&self, names: Vec<Path>) {
        *self.locked.lock() = names;
    }

    /// All objects under `prefix`.
    pub async fn all_of(&self, prefix: &str) -> Vec<(Path, PutPayload)> {
        let mut copy = Vec::new();
        let listed: Vec<_> = self.inner.list(Some(&Path::from(prefix))).try_collect().await.unwrap();
        for meta in listed {
            let bytes = self.inner.get(&meta.location).await.unwrap().bytes().await.unwrap();
            copy.push((meta.location, PutPayload::from_bytes(bytes)));
        }
        copy
    }

    /// Makes the objects under `prefix` what they were.
    pub async fn put_back(&self, prefix: &str, copy: &[(Path, PutPayload)]) {
        for (path, _) in self.all_of(prefix).await {
            self.inner.delete(&path).await.unwrap();
        }
        for (path, bytes) in copy {
            self.inner.put(path, bytes.clone()).await.unwrap();
        }
    }
}

impl fmt::Display for TestStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("test memory")
    }
}

#[async_trait]
impl ObjectStore for TestStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        match path.as_ref().starts_with("d/") {
            true => self.segment_puts.pass().await,
            false => self.record_puts.pass().await,
        }
        self.requests.take().await;
        let result = self.inner.put_opts(path, payload, opts).await;
        if path.as_ref().starts_with("d/") {
            self.segment_acks.pass().await;
        }
        result
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.requests.take().await;
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.requests.take().await;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (requests, locked) = (Arc::clone(&self.requests), Arc::clone(&self.locked));
        let refusals = Arc::clone(&self.refusals);
        let paths = paths.then(move |path| {
            let requests = Arc::clone(&requests);
            let is_locked = path.as_ref().is_ok_and(|path| locked.lock().contains(path));
            refusals.fetch_add(u64::from(is_locked), Ordering::SeqCst);
            async move {
                requests.take().await;
                match path {
                    Ok(path) if is_locked => {
                        let source = "the object is locked".into();
                        Err(object_store::Error::PermissionDenied { path: path.to_string(), source })
                    }
                    path => path,
                }
            }
        });
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let lies = self.lies.lock().clone();
        let meta = |location| ObjectMeta {
            location,
            last_modified: std::time::SystemTime::UNIX_EPOCH.into(),
            size: 7,
            e_tag: None,
            version: None,
        };
        let wanted = prefix.cloned().unwrap_or_default();
        let lies =
            lies.into_iter().filter(move |path| path.prefix_matches(&wanted)).map(move |path| Ok(meta(path)));
        let listed = self.inner.list(prefix).chain(futures::stream::iter(lies)).boxed();
        if prefix.is_none_or(|prefix| prefix.as_ref() != "d") {
            return listed;
        }
        let is_broken = self.breaks_listings.load(Ordering::SeqCst);
        let end = || Err(object_store::Error::NotSupported { source: "it lists no further".into() });
        let listed = listed.chain(futures::stream::iter(is_broken.then(end))).boxed();
        let gate = Arc::clone(&self.listings);
        let passed = async move {
            gate.pass().await;
            listed
        };
        futures::stream::once(passed).flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.requests.take().await;
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
