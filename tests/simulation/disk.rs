//! The provider's side: objects in memory, dated by the simulation's clock, that can be copied at any moment.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use chrono::DateTime;
use coffer::base::Clock;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMode, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

use crate::clock::SimClock;

/// All objects: contents and the time they were written, in milliseconds since 1970.
pub type Objects = BTreeMap<Path, (Bytes, i64)>;

/// A store in memory. Strict: no object is ever written twice.
pub struct Disk {
    pub objects: Arc<Mutex<Objects>>,
    clock: Arc<SimClock>,
    /// Names under which other bytes were written than were there before.
    pub rewritten: Mutex<Vec<Path>>,
}

impl Disk {
    pub fn new(objects: Objects, clock: Arc<SimClock>) -> Self {
        Self { objects: Arc::new(Mutex::new(objects)), clock, rewritten: Mutex::default() }
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
        let objects = Arc::clone(&self.objects);
        let remove = move |path: Result<Path>| path.inspect(|path| drop(objects.lock().remove(path)));
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
