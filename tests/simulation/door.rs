//! A process's door to the bucket: it counts and records requests, and shuts for good when the process dies.

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use coffer::store::fault::{KeyClass, Verb};
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::trace::Trace;

/// Where a process dies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Death {
    /// At its request of this number, counted from 1.
    pub request: u64,
    /// Only requests that change something are counted.
    pub counts_writes: bool,
    /// The request takes effect, but the process does not live to learn it.
    pub takes_effect: bool,
}

/// What the process was doing when it died.
pub type Deathbed = (Verb, KeyClass, bool);

pub struct Door {
    inner: Arc<dyn ObjectStore>,
    /// The process's number in its seed.
    process: u64,
    death: Mutex<Option<Death>>,
    requests: AtomicU64,
    writes: AtomicU64,
    is_dead: AtomicBool,
    pub died: Notify,
    pub deathbed: Mutex<Option<Deathbed>>,
    trace: Arc<Trace>,
}

impl Door {
    pub fn new(inner: Arc<dyn ObjectStore>, process: u64, death: Option<Death>, trace: Arc<Trace>) -> Self {
        Self {
            inner,
            process,
            death: Mutex::new(death),
            requests: AtomicU64::new(0),
            writes: AtomicU64::new(0),
            is_dead: AtomicBool::new(false),
            died: Notify::new(),
            deathbed: Mutex::new(None),
            trace,
        }
    }

    /// The process dies now.
    pub fn shut(&self) {
        self.is_dead.store(true, Ordering::SeqCst);
        self.died.notify_one();
    }

    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::SeqCst)
    }

    /// Carries a request out, if the process lives to send it, and answers, if it lives to hear it.
    async fn pass<T>(
        &self,
        verb: Verb,
        path: &Path,
        bytes: u64,
        request: impl Future<Output = Result<T>>,
    ) -> Result<T> {
        if self.is_dead.load(Ordering::SeqCst) {
            return pending().await;
        }
        let number = self.requests.fetch_add(1, Ordering::SeqCst) + 1;
        self.trace.event(&[
            b"request",
            &self.process.to_be_bytes(),
            &[verb as u8],
            path.as_ref().as_bytes(),
            &bytes.to_be_bytes(),
        ]);
        let is_write = matches!(verb, Verb::Put | Verb::Delete);
        let writes = self.writes.fetch_add(u64::from(is_write), Ordering::SeqCst) + 1;
        let death = self.death.lock().filter(|death| match death.counts_writes {
            true => is_write && death.request == writes,
            false => death.request == number,
        });
        let class = KeyClass::of(path);
        if let Some(death) = death {
            *self.deathbed.lock() = Some((verb, class, death.takes_effect));
            if !death.takes_effect {
                self.shut();
                return pending().await;
            }
        }
        let result = request.await;
        if death.is_some() {
            self.shut();
        }
        if self.is_dead.load(Ordering::SeqCst) {
            return pending().await;
        }
        self.trace.event(&[
            b"answer",
            &self.process.to_be_bytes(),
            &number.to_be_bytes(),
            &[u8::from(result.is_ok())],
        ]);
        result
    }
}

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "door of process {}", self.process)
    }
}

impl fmt::Display for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "door of process {}", self.process)
    }
}

/// The one owner of a door can be asked for its store; requests hold it alive.
#[derive(Clone, Debug)]
pub struct DoorStore(pub Arc<Door>);

impl fmt::Display for DoorStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for DoorStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let bytes = payload.content_length() as u64;
        self.0.pass(Verb::Put, path, bytes, self.0.inner.put_opts(path, payload, opts)).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.0.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.0.pass(Verb::Get, path, 0, self.0.inner.get_opts(path, options)).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let door = Arc::clone(&self.0);
        let deletion = move |path: Result<Path>| {
            let door = Arc::clone(&door);
            async move {
                let path = path?;
                door.pass(Verb::Delete, &path, 0, door.inner.delete(&path)).await?;
                Ok(path)
            }
        };
        paths.then(deletion).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let (door, prefix) = (Arc::clone(&self.0), prefix.cloned());
        let listing = async move {
            let top = prefix.clone().unwrap_or_default();
            let all = door.inner.list(prefix.as_ref()).try_collect::<Vec<_>>();
            door.pass(Verb::List, &top, 0, all).await
        };
        stream::once(listing).map_ok(|found| stream::iter(found.into_iter().map(Ok))).try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        let top = prefix.cloned().unwrap_or_default();
        self.0.pass(Verb::List, &top, 0, self.0.inner.list_with_delimiter(prefix)).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.0.inner.copy_opts(from, to, options).await
    }
}
