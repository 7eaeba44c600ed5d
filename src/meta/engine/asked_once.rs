//! What an opening asks of a bucket once, although first the reader by whose word the volume is trusted wants to know it, and
//! then the writer; and what it asks before SlateDB does, because it will.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::future::{BoxFuture, Shared};
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};
use parking_lot::Mutex;

use super::DATABASE;
use super::logs_read;
use super::seam::{manifest_number, manifest_path, manifests};

/// How far behind a log, in powers of two, SlateDB looks for the end of its logs at first.
const LOOKS_FOR_LOGS: u32 = 8;

/// An answer that may be under way; `None` if there is none to rely on.
type Answer<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The sealed store of one opening.
///
/// Three things are asked for as soon as it begins: the manifests, the logs, and then what SlateDB asks for to see whether
/// there are newer ones. What the reader was told of them is told the writer again ([`AskedOnce::begin_writing`]), each once.
/// That is no older than what SlateDB may have read itself before it was delayed: its fence is a manifest and a log that must
/// not exist yet, and where they do it looks again.
pub struct AskedOnce {
    inner: Arc<dyn ObjectStore>,
    told: Arc<Mutex<Told>>,
    is_over: AtomicBool,
}

#[derive(Default)]
struct Told {
    listings: HashMap<Path, Answer<Arc<Vec<ObjectMeta>>>>,
    /// Whether an object is not there.
    absent: HashMap<Path, Answer<bool>>,
    /// What the writer will be told.
    for_writer: Option<Box<Told>>,
}

impl fmt::Debug for AskedOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AskedOnce")
    }
}

impl fmt::Display for AskedOnce {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

impl AskedOnce {
    /// Begins to ask, for a reader that will be opened on it.
    #[must_use]
    pub fn begin(inner: Arc<dyn ObjectStore>) -> Arc<Self> {
        let (manifests, logs) = (manifests(), logs());
        let told = Told {
            listings: HashMap::from([
                (manifests.clone(), under_way(list(inner.clone(), manifests))),
                (logs.clone(), under_way(list(inner.clone(), logs))),
            ]),
            absent: HashMap::new(),
            for_writer: Some(Box::default()),
        };
        Arc::new(Self { inner, told: Arc::new(Mutex::new(told)), is_over: AtomicBool::new(false) })
    }

    /// Tells again what was told, to a writer that is opened now.
    pub fn begin_writing(&self) {
        let mut told = self.told.lock();
        *told = told.for_writer.take().map(|told| *told).unwrap_or_default();
    }

    /// From now on everything is asked of the bucket.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        *self.told.lock() = Told::default();
    }

    fn listing(&self, prefix: Option<&Path>) -> Option<Answer<Arc<Vec<ObjectMeta>>>> {
        if self.is_over.load(Ordering::Relaxed) {
            return None;
        }
        let prefix = prefix?;
        let mut told = self.told.lock();
        let answer = told.listings.remove(prefix)?;
        if *prefix == manifests() {
            if let Some(writer) = &mut told.for_writer {
                writer.listings.insert(prefix.clone(), answer.clone());
            }
            let logs = told.listings.get(&logs()).cloned();
            tokio::spawn(ask_for_newer(self.inner.clone(), Arc::clone(&self.told), answer.clone(), logs));
        }
        Some(answer)
    }

    async fn is_absent(&self, path: &Path) -> bool {
        if self.is_over.load(Ordering::Relaxed) {
            return false;
        }
        let answer = self.told.lock().absent.remove(path);
        match answer {
            Some(answer) => answer.await.unwrap_or(false),
            None => false,
        }
    }

    /// Notes for the writer that a log is not there.
    fn note_absent(&self, path: &Path) {
        if self.is_over.load(Ordering::Relaxed) || logs_read::number(path).is_none() {
            return;
        }
        if let Some(writer) = &mut self.told.lock().for_writer {
            writer.absent.insert(path.clone(), futures::future::ready(Some(true)).boxed().shared());
        }
    }
}

fn under_way<T>(work: impl Future<Output = Option<T>> + Send + 'static) -> Answer<T>
where
    T: Clone + Send + Sync + 'static,
{
    let work = tokio::spawn(work);
    async move { work.await.ok().flatten() }.boxed().shared()
}

async fn list(store: Arc<dyn ObjectStore>, prefix: Path) -> Option<Arc<Vec<ObjectMeta>>> {
    store.list(Some(&prefix)).try_collect().await.ok().map(Arc::new)
}

/// Asks for what SlateDB will ask for once it has been told of `manifests`: the one after the newest, and the logs in which it
/// looks for the last, if none is newer than the records in tables.
async fn ask_for_newer(
    store: Arc<dyn ObjectStore>,
    told: Arc<Mutex<Told>>,
    manifests: Answer<Arc<Vec<ObjectMeta>>>,
    logs: Option<Answer<Arc<Vec<ObjectMeta>>>>,
) {
    let ask = |path: Path| {
        let (store, asked) = (store.clone(), path.clone());
        // As the head of it is asked for: what is there is read by whoever wants it.
        let answer = under_way(async move {
            match store.head(&asked).await {
                Ok(_) => Some(false),
                Err(RawError::NotFound { .. }) => Some(true),
                Err(_) => None,
            }
        });
        let mut told = told.lock();
        if told.for_writer.is_some() {
            told.absent.insert(path, answer);
        }
    };
    let newest = |listing: Option<Arc<Vec<ObjectMeta>>>, number: fn(&Path) -> Option<u64>| {
        listing.and_then(|listing| listing.iter().filter_map(|object| number(&object.location)).max())
    };
    if let Some(newer) = newest(manifests.await, manifest_number).and_then(|newest| newest.checked_add(1)) {
        ask(manifest_path(newer));
    }
    let Some(logs) = logs else { return };
    if let Some(last) = newest(logs.await, logs_read::number) {
        let looked_for = (0..LOOKS_FOR_LOGS).filter_map(|power| last.checked_add(1 << power));
        looked_for.for_each(|number| ask(logs_read::path(number)));
    }
}

fn logs() -> Path {
    Path::from(DATABASE).join("wal")
}

#[async_trait]
impl ObjectStore for AskedOnce {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        if !self.is_over.load(Ordering::Relaxed) {
            self.told.lock().absent.remove(path);
        }
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
        if self.is_absent(path).await {
            self.note_absent(path);
            let source = "it was not there a moment ago".into();
            return Err(RawError::NotFound { path: path.to_string(), source });
        }
        let got = self.inner.get_opts(path, options).await;
        if matches!(got, Err(RawError::NotFound { .. })) {
            self.note_absent(path);
        }
        got
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let Some(answer) = self.listing(prefix) else { return self.inner.list(prefix) };
        let (inner, prefix) = (self.inner.clone(), prefix.cloned());
        let entries = async move {
            match answer.await {
                Some(entries) => stream::iter(entries.to_vec()).map(Ok).boxed(),
                None => inner.list(prefix.as_ref()),
            }
        };
        entries.into_stream().flatten().boxed()
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
