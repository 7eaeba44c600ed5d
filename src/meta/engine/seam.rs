//! Stands between SlateDB and the sealed store: what SlateDB need not ask, and what it must not retry.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};
use slatedb_common::retry::NonRetryable;

use super::DATABASE;
use super::error::{NothingHere, find};
use super::listed::Listed;
use super::past::Written;
use super::store_day::StoreDay;
use crate::vault::VaultError;

/// The directory of SlateDB's notes of merges.
const NOTES: &str = "compactions";
/// Objects deleted with one request, where the provider has such a request.
const DELETED_AT_ONCE: usize = 1000;
/// The first manifest of a database.
const FIRST_MANIFEST: &str = "00000000000000000001.manifest";

/// The store that SlateDB is given.
///
/// - SlateDB's boundary files are the only objects it overwrites. We never write them, so asking for one
///   is answered here and costs no request: the names of manifests are guarded by their age instead
///   (see `upkeep`), those of write-ahead logs by fences that live for months.
/// - What SlateDB notes of merges that are under way is kept in memory, and what lies in the bucket of it is not read. It names
///   what is merged by numbers that are used again and again, and no commit tells one time's notes from another's: by old
///   ones, beside a manifest of their time and all logs since, a merge would bring back old records. A merge that a
///   session did not end begins anew in the next.
/// - SlateDB repeats whatever fails. A damaged object stays damaged, and one that is sealed with a newer key stays so: it
///   is told that. And so is one that is listed again and again and never there.
#[derive(Debug)]
pub(super) struct Seam {
    inner: Arc<dyn ObjectStore>,
    /// Notes of merges.
    notes: Arc<dyn ObjectStore>,
    may_create: bool,
    written: Arc<Written>,
    listed: Arc<Listed>,
    day: Arc<StoreDay>,
    /// Set when an object was sealed with a newer key than those at hand: SlateDB's readers keep what they met to themselves.
    newer_key: Arc<AtomicBool>,
}

impl Seam {
    pub(super) fn new(
        inner: Arc<dyn ObjectStore>,
        may_create: bool,
        written: Arc<Written>,
        newer_key: Arc<AtomicBool>,
    ) -> Self {
        let (listed, day) = (Arc::default(), Arc::default());
        Self { inner, notes: Arc::new(InMemory::new()), may_create, written, listed, day, newer_key }
    }

    /// Where an object, or all below a prefix, is kept.
    fn home(&self, path: Option<&Path>) -> &Arc<dyn ObjectStore> {
        if path.is_some_and(is_note) { &self.notes } else { &self.inner }
    }

    /// What day it is by what is listed.
    pub(super) fn day(&self) -> Arc<StoreDay> {
        Arc::clone(&self.day)
    }

    fn noted(
        &self,
        listing: BoxStream<'static, RawResult<ObjectMeta>>,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let (listed, day) = (Arc::clone(&self.listed), Arc::clone(&self.day));
        let note = move |entry: &RawResult<ObjectMeta>| {
            if let Ok(object) = entry {
                listed.note(&object.location);
                day.note(object.last_modified);
            }
        };
        listing.map(|entry| entry.map_err(final_if_refused)).inspect(note).boxed()
    }
}

impl fmt::Display for Seam {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// Whether it is one of SlateDB's notes of merges, or their directory.
fn is_note(path: &Path) -> bool {
    let mut parts = path.parts().map(|part| part.as_ref().to_owned());
    parts.next().as_deref() == Some(DATABASE) && parts.next().as_deref() == Some(NOTES)
}

fn is_boundary(path: &Path) -> bool {
    path.extension() == Some("boundary")
}

fn no_boundary(path: &Path) -> RawError {
    RawError::NotFound { path: path.to_string(), source: "boundary files are not used".into() }
}

fn final_if_refused(error: RawError) -> RawError {
    let is_final = find(&error, |e: &VaultError| e.is_final().then_some(())).is_some();
    if is_final { never_retried(Box::new(error)) } else { error }
}

fn never_retried(source: Box<dyn StdError + Send + Sync>) -> RawError {
    RawError::Generic { store: "volume", source: Box::new(NonRetryable(source)) }
}

#[async_trait]
impl ObjectStore for Seam {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        if is_boundary(path) {
            let operation = "boundary files".to_owned();
            return Err(RawError::NotImplemented { operation, implementer: self.to_string() });
        }
        if !self.may_create && path.filename() == Some(FIRST_MANIFEST) {
            return Err(never_retried(Box::new(NothingHere)));
        }
        let put = self.home(Some(path)).put_opts(path, payload, opts).await.map_err(final_if_refused)?;
        self.written.note(path);
        Ok(put)
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        self.home(Some(path)).put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        if is_boundary(path) {
            return Err(no_boundary(path));
        }
        match self.home(Some(path)).get_opts(path, options).await {
            Err(RawError::NotFound { .. }) if self.listed.is_withheld(path).await => {
                Err(never_retried(Box::new(VaultError::Missing(path.to_string()))))
            }
            Err(error) => {
                if find(&error, |e: &VaultError| matches!(e, VaultError::NewKey { .. }).then_some(()))
                    .is_some()
                {
                    self.newer_key.store(true, Ordering::Relaxed);
                }
                Err(final_if_refused(error))
            }
            Ok(got) => {
                self.listed.is_there(path);
                Ok(got)
            }
        }
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let (inner, notes) = (Arc::clone(&self.inner), Arc::clone(&self.notes));
        let deleted = paths.chunks(DELETED_AT_ONCE).map(move |paths| {
            let (of_merges, others): (Vec<_>, Vec<_>) =
                paths.into_iter().partition(|path| path.as_ref().is_ok_and(is_note));
            let gone = |store: &Arc<dyn ObjectStore>, paths| store.delete_stream(stream::iter(paths).boxed());
            gone(&notes, of_merges).chain(gone(&inner, others))
        });
        deleted.flatten().boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.noted(self.home(prefix).list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.noted(self.home(prefix).list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        self.home(prefix).list_with_delimiter(prefix).await.map_err(final_if_refused)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.home(Some(from)).copy_opts(from, to, options).await
    }
}
