//! A store that fails when told to, one request after the other, for tests of single requests.

use std::collections::VecDeque;
use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{FutureExt, StreamExt};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, PutMode,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use parking_lot::Mutex;

/// One fault, used up by the request it meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// The request is not carried out.
    Fail,
    /// The request is carried out but its answer lost.
    LoseAnswer,
    /// Refused: no permission.
    Deny,
    /// Not there, by a server that stands before the store.
    NotFound,
    /// A panic of the client.
    Panic,
    /// Never answered.
    Hang,
}

/// A memory store with a queue of faults for writes and one for reads.
#[derive(Debug, Default)]
pub(crate) struct FaultyStore {
    pub(crate) inner: Arc<InMemory>,
    pub(crate) writes: Mutex<VecDeque<Fault>>,
    pub(crate) reads: Mutex<VecDeque<Fault>>,
    /// Overwrites although told to create.
    pub(crate) overwrites: bool,
    /// How it lists.
    pub(crate) lists: Lists,
}

/// How a store lists: in order and to the end, if nothing else is said.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Lists {
    /// The connection breaks after so many objects.
    pub(crate) break_after: Option<usize>,
    pub(crate) are_backwards: bool,
    /// From the first on, and twice as many, where those after one are asked for.
    pub(crate) ignore_offset: bool,
}

impl Lists {
    fn of(self, entries: BoxStream<'static, Result<ObjectMeta>>) -> BoxStream<'static, Result<ObjectMeta>> {
        let listed = async move {
            let mut all: Vec<_> = entries.collect().await;
            if self.are_backwards {
                all.reverse();
            }
            if let Some(after) = self.break_after.filter(|after| *after < all.len()) {
                all.truncate(after);
                all.push(Err(lost()));
            }
            futures::stream::iter(all)
        };
        listed.into_stream().flatten().boxed()
    }
}

impl FaultyStore {
    pub(crate) fn fail_writes(&self, faults: impl IntoIterator<Item = Fault>) {
        self.writes.lock().extend(faults);
    }

    pub(crate) fn fail_reads(&self, faults: impl IntoIterator<Item = Fault>) {
        self.reads.lock().extend(faults);
    }
}

impl fmt::Display for FaultyStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("faulty memory")
    }
}

fn lost() -> Error {
    Error::Generic { store: "faulty", source: "connection reset".into() }
}

fn denied(path: &Path) -> Error {
    Error::PermissionDenied { path: path.to_string(), source: "403".into() }
}

async fn meet(fault: Option<Fault>, path: &Path) -> Result<bool> {
    match fault {
        None => Ok(true),
        Some(Fault::LoseAnswer) => Ok(false),
        Some(Fault::Fail) => Err(lost()),
        Some(Fault::Deny) => Err(denied(path)),
        Some(Fault::NotFound) => {
            Err(Error::NotFound { path: path.to_string(), source: "404 Not Found: no such route".into() })
        }
        Some(Fault::Panic) => panic!("the client does not understand the answer"),
        Some(Fault::Hang) => std::future::pending().await,
    }
}

fn never<T: Send + 'static>(fault: Fault) -> BoxStream<'static, Result<T>> {
    let failure = async move { meet(Some(fault), &Path::default()).await.and(Err(lost())) };
    failure.into_stream().boxed()
}

#[async_trait]
impl ObjectStore for FaultyStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, mut opts: PutOptions) -> Result<PutResult> {
        let fault = self.writes.lock().pop_front();
        let answered = meet(fault, path).await?;
        if self.overwrites {
            opts.mode = PutMode::Overwrite;
        }
        let result = self.inner.put_opts(path, payload, opts).await;
        if answered { result } else { Err(lost()) }
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        let fault = self.reads.lock().pop_front();
        meet(fault, path).await?;
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        let fault = self.writes.lock().pop_front();
        match fault {
            None => self.inner.delete_stream(paths),
            Some(fault) => never(fault),
        }
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        let fault = self.reads.lock().pop_front();
        match fault {
            None => self.lists.of(self.inner.list(prefix)),
            Some(fault) => never(fault),
        }
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, Result<ObjectMeta>> {
        match self.lists.ignore_offset {
            true => {
                let break_after = self.lists.break_after.map(|after| 2 * after);
                Lists { break_after, ..self.lists }.of(self.inner.list(prefix))
            }
            false => self.lists.of(self.inner.list_with_offset(prefix, offset)),
        }
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}
