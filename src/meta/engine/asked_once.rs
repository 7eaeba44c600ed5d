//! What an opening asks of a bucket once, although first the reader by whose word the volume is trusted wants to know it, and
//! then the writer; and what it asks before SlateDB does, because it will.

use std::collections::HashMap;
use std::fmt;
use std::future::Future;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

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

use super::seam::{manifest_number, manifest_path, manifests};
use super::{Access, DATABASE, Engine, EngineError, EngineMode, EngineOptions, follower, logs_read};
use crate::base::{Clock, Time};

/// How far behind a log, in powers of two, SlateDB looks for the end of its logs at first.
const LOOKS_FOR_LOGS: u32 = 8;
/// How old an answer may be that is told again. Those who write an hour later may have removed what it is about.
const AGE_MAX: Duration = Duration::from_secs(30);

/// An answer that may be under way; `None` if there is none to rely on.
type Answer<T> = Shared<BoxFuture<'static, Option<T>>>;

/// The sealed store of one opening.
///
/// Three things are asked for as soon as it begins: the manifests, the logs, and then what SlateDB asks for to see whether
/// there are newer ones. What the reader was told of them is told the writer again ([`AskedOnce::open_writer`]), each once.
/// SlateDB's fence is a manifest and a log that must not exist yet, and where they do it looks again. That leaves those that did
/// exist and were collected: when the fence stands the manifests are listed once more ([`AskedOnce::open_writer`]).
pub struct AskedOnce {
    inner: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    /// By the time of day, and by the monotonic clock.
    begun: (Time, Duration),
    told: Arc<Mutex<Told>>,
    is_over: AtomicBool,
}

type Listing = Arc<Vec<ObjectMeta>>;

#[derive(Default)]
struct Told {
    manifests: Option<Answer<Listing>>,
    /// Asked for to know which to look for. Never told: whether one is missing is for the newest listing to say.
    logs: Option<Answer<Listing>>,
    /// Whether an object is not there.
    absent: HashMap<Path, Answer<bool>>,
    /// What the writer will be told; none if it is told by now.
    for_writer: Option<Box<Told>>,
    /// The newest manifest since the fence was written.
    since_fence: Option<Answer<u64>>,
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
    pub fn begin(inner: Arc<dyn ObjectStore>, clock: Arc<dyn Clock>) -> Arc<Self> {
        let told = Told {
            manifests: Some(under_way(list(inner.clone(), manifests()))),
            logs: Some(under_way(list(inner.clone(), logs()))),
            for_writer: Some(Box::default()),
            ..Told::default()
        };
        let begun = (clock.now(), clock.elapsed());
        Arc::new(Self {
            inner,
            clock,
            begun,
            told: Arc::new(Mutex::new(told)),
            is_over: AtomicBool::new(false),
        })
    }

    /// Opens the database for writing. What another writer has written and others have collected since the manifests were listed
    /// does not stop a fence, which would stand among what is past: nobody would see what is written behind it.
    ///
    /// # Errors
    /// As [`Engine::open`]; [`EngineError::Fenced`] if the fence stands there.
    pub async fn open_writer(
        self: &Arc<Self>,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Engine, EngineError> {
        self.begin_writing();
        let engine = Engine::open(self.clone(), EngineMode::Writer, options, clock).await?;
        match self.newest_manifest().await? > engine.manifest_number() {
            true => Err(EngineError::Fenced),
            false => Ok(engine),
        }
    }

    /// Tells again what was told, to a writer that is opened now.
    pub(super) fn begin_writing(&self) {
        let mut told = self.told.lock();
        let again = told.for_writer.take().filter(|_| !self.is_old());
        *told = again.map(|told| *told).unwrap_or_default();
    }

    /// A machine that sleeps stops the monotonic clock, and the time of day can be set.
    fn is_old(&self) -> bool {
        let (day, elapsed) = self.begun;
        let by_day = self.clock.now().to_system().duration_since(day.to_system());
        by_day.map_or(true, |age| age > AGE_MAX) || self.clock.elapsed().saturating_sub(elapsed) > AGE_MAX
    }

    /// The number of the newest manifest that was listed after the writer's fence had been written.
    async fn newest_manifest(&self) -> Result<u64, EngineError> {
        let since_fence = self.told.lock().since_fence.take();
        let newest = match since_fence {
            Some(answer) => answer.await,
            None => None,
        };
        match newest {
            Some(newest) => Ok(newest),
            None => follower::newest_manifest(&self.inner).await.map_err(EngineError::from_store),
        }
    }

    /// From now on everything is asked of the bucket.
    pub fn end(&self) {
        self.is_over.store(true, Ordering::Relaxed);
        *self.told.lock() = Told::default();
    }

    fn listing(&self, prefix: Option<&Path>) -> Option<Answer<Listing>> {
        if self.is_over.load(Ordering::Relaxed) || prefix.is_none_or(|prefix| *prefix != manifests()) {
            return None;
        }
        let mut told = self.told.lock();
        let answer = told.manifests.take()?;
        let logs = told.logs.take();
        if let Some(writer) = &mut told.for_writer {
            writer.manifests = Some(answer.clone());
            tokio::spawn(ask_for_newer(self.inner.clone(), Arc::clone(&self.told), answer.clone(), logs));
        }
        Some(answer)
    }

    /// Something has been written: if it is a writer's log, asks whether it has written beside the newest manifest.
    fn note_written(&self, path: &Path) {
        if self.is_over.load(Ordering::Relaxed) || logs_read::number(path).is_none() {
            return;
        }
        let mut told = self.told.lock();
        if told.for_writer.is_none() {
            let store = self.inner.clone();
            told.since_fence = Some(under_way(async move { follower::newest_manifest(&store).await.ok() }));
        }
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

async fn list(store: Arc<dyn ObjectStore>, prefix: Path) -> Option<Listing> {
    store.list(Some(&prefix)).try_collect().await.ok().map(Arc::new)
}

fn newest_of(listing: &Listing, number: fn(&Path) -> Option<u64>) -> Option<u64> {
    listing.iter().filter_map(|object| number(&object.location)).max()
}

/// Asks for what SlateDB will ask for once it has been told of `manifests`: the one after the newest, and the logs in which it
/// looks for the last, if none is newer than the records in tables.
async fn ask_for_newer(
    store: Arc<dyn ObjectStore>,
    told: Arc<Mutex<Told>>,
    manifests: Answer<Listing>,
    logs: Option<Answer<Listing>>,
) {
    let ask = |path: Path| {
        let mut told = told.lock();
        if told.for_writer.is_none() {
            return;
        }
        let (store, asked) = (store.clone(), path.clone());
        // As the head of it is asked for: what is there is read by whoever wants it.
        let answer = under_way(async move {
            match store.head(&asked).await {
                Ok(_) => Some(false),
                Err(RawError::NotFound { .. }) => Some(true),
                Err(_) => None,
            }
        });
        told.absent.insert(path, answer);
    };
    let newest = manifests.await.and_then(|listing| newest_of(&listing, manifest_number));
    if let Some(newer) = newest.and_then(|newest| newest.checked_add(1)) {
        ask(manifest_path(newer));
    }
    let Some(logs) = logs else { return };
    if let Some(last) = logs.await.and_then(|listing| newest_of(&listing, logs_read::number)) {
        let looked_for = (0..LOOKS_FOR_LOGS).filter_map(|power| last.checked_add(1 << power));
        looked_for.for_each(|number| ask(logs_read::path(number)));
    }
}

impl Engine {
    /// The number of the manifest that this handle goes by.
    pub(super) fn manifest_number(&self) -> u64 {
        match &self.0.access {
            Access::Write(writer) => writer.db.manifest().id(),
            Access::Read(follower) => follower.db().manifest().id(),
        }
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
        let put = self.inner.put_opts(path, payload, opts).await?;
        self.note_written(path);
        Ok(put)
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
