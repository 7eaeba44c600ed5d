//! The provider's side: objects in memory, dated by the simulation's clock, that can be copied at any moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use coffer::base::Clock;
use coffer::store::fault::{KeyClass, Verb};
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::clock::SimClock;
use crate::history::{Board, Promise};

/// All objects: contents and the time they were written, in milliseconds since 1970.
pub type Objects = BTreeMap<Path, (Bytes, i64)>;

/// The bucket between two changes, with everything that was promised while it was so: what a crash there leaves.
pub struct Picture {
    /// Counts those of a seed.
    pub number: u64,
    pub objects: Objects,
    /// Simulated time since the beginning.
    pub at: Duration,
    /// Which mount was the newest, and what it had promised.
    pub mount: u64,
    pub promise: Promise,
    /// The last commit that a mount was told is durable.
    pub committed: u64,
    /// What changed the bucket next.
    pub next: (Verb, KeyClass),
}

/// Who takes pictures, and what of.
#[derive(Clone, Default)]
pub struct Camera {
    pub board: Board,
    pub committed: Arc<AtomicU64>,
    pub taken: Arc<Mutex<Vec<Picture>>>,
    count: Arc<AtomicU64>,
}

impl Camera {
    fn take(&self, objects: &Objects, clock: &SimClock, path: &Path, verb: Verb) {
        let (mount, promise) = self.board.lock().clone();
        let next = (verb, KeyClass::of(path));
        let committed = self.committed.load(Ordering::SeqCst);
        let number = self.count.fetch_add(1, Ordering::SeqCst);
        let (objects, at) = (objects.clone(), clock.elapsed());
        self.taken.lock().push(Picture { number, objects, at, mount, promise, committed, next });
    }
}

/// A store in memory. Strict: no object is ever written twice.
pub struct Disk {
    pub objects: Arc<Mutex<Objects>>,
    clock: Arc<SimClock>,
    /// Takes a picture before each change, if there is one.
    camera: Option<Camera>,
    /// Names under which other bytes were written than were there before.
    pub rewritten: Mutex<Vec<Path>>,
}

impl Disk {
    pub fn new(objects: Objects, clock: Arc<SimClock>, camera: Option<Camera>) -> Self {
        Self { objects: Arc::new(Mutex::new(objects)), clock, camera, rewritten: Mutex::default() }
    }
}

impl fmt::Debug for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated disk")
    }
}

impl fmt::Display for Disk {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("simulated disk")
    }
}

fn meta(path: &Path, (bytes, at_ms): &(Bytes, i64)) -> ObjectMeta {
    ObjectMeta {
        location: path.clone(),
        last_modified: DateTime::from_timestamp_millis(*at_ms).unwrap(),
        size: bytes.len() as u64,
        e_tag: None,
        version: None,
    }
}

fn unsupported(what: &str) -> Error {
    Error::NotSupported { source: what.to_owned().into() }
}

#[async_trait]
impl ObjectStore for Disk {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        let now = self.clock.now();
        let at_ms = now.secs * 1000 + i64::from(now.nanos / 1_000_000);
        let (mut objects, bytes) = (self.objects.lock(), Bytes::from(payload));
        if let Some((old, _)) = objects.get(path) {
            if opts.mode == PutMode::Create {
                return Err(Error::AlreadyExists { path: path.to_string(), source: "exists".into() });
            }
            if *old != bytes {
                self.rewritten.lock().push(path.clone());
            }
        }
        if let Some(camera) = &self.camera {
            camera.take(&objects, &self.clock, path, Verb::Put);
        }
        objects.insert(path.clone(), (bytes, at_ms));
        Ok(PutResult { e_tag: None, version: None, extensions: Default::default() })
    }

    async fn put_multipart_opts(&self, _: &Path, _: PutMultipartOptions) -> Result<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let found = self.objects.lock().get(path).cloned();
        let Some(object) = found else {
            return Err(Error::NotFound { path: path.to_string(), source: "absent".into() });
        };
        let meta = meta(path, &object);
        options.check_preconditions(&meta)?;
        let range = match &options.range {
            Some(range) => range
                .as_range(meta.size)
                .map_err(|error| Error::Generic { store: "disk", source: Box::new(error) })?,
            None => 0..meta.size,
        };
        let body = object.0.slice(range.start as usize..range.end as usize);
        let payload = GetResultPayload::Stream(stream::iter([Ok(body)]).boxed());
        let (attributes, extensions) = Default::default();
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let (objects, clock, camera) =
            (Arc::clone(&self.objects), Arc::clone(&self.clock), self.camera.clone());
        let remove = move |path: Result<Path>| {
            path.inspect(|path| {
                let mut objects = objects.lock();
                if let Some(camera) = camera.as_ref().filter(|_| objects.contains_key(path)) {
                    camera.take(&objects, &clock, path, Verb::Delete);
                }
                objects.remove(path);
            })
        };
        paths.map(remove).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let objects = self.objects.lock();
        let within = |path: &Path| {
            prefix
                .is_none_or(|prefix| path.prefix_match(prefix).is_some_and(|mut rest| rest.next().is_some()))
        };
        let found: Vec<_> = objects
            .iter()
            .filter(|(path, _)| within(path))
            .map(|(path, object)| Ok(meta(path, object)))
            .collect();
        stream::iter(found).boxed()
    }

    async fn list_with_delimiter(&self, _: Option<&Path>) -> Result<ListResult> {
        Err(unsupported("the faults in front of this store work it out from a list"))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> Result<()> {
        Err(unsupported("copies"))
    }
}
