//! Stands between SlateDB and the sealed store: what SlateDB need not ask, and what it must not retry.

use std::error::Error as StdError;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as RawResult,
};
use slatedb_common::retry::NonRetryable;

use super::DATABASE;
use super::error::{NothingHere, find};
use super::listed::Listed;
use super::logs_read::LogsRead;
use super::own::Own;
use super::past::Written;
use super::store_day::StoreDay;
use crate::vault::{Damage, VaultError};

/// The directory of SlateDB's notes of merges.
pub(super) const NOTES: &str = "compactions";
/// Of one merge.
const NOTES_KEPT: u64 = 16;
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
/// - A listing that lags behind would have SlateDB take an old manifest for the newest, which ends it where that is one of an
///   earlier writer: the newest that was read or written here is listed in any case.
/// - A writer is given no manifest from its own time but its own and a successor's (see `own`).
/// - SlateDB repeats whatever fails. A damaged object stays damaged, and one that is sealed with a newer key stays so: it
///   is told that. And so is one that is listed again and again and never there.
#[derive(Debug)]
pub(super) struct Seam {
    inner: Arc<dyn ObjectStore>,
    /// Notes of merges.
    notes: Arc<dyn ObjectStore>,
    may_create: bool,
    written: Arc<Written>,
    own: Own,
    listed: Arc<Listed>,
    /// The highest number of a manifest that was read or written.
    newest: Arc<AtomicU64>,
    day: Arc<StoreDay>,
    logs: Arc<LogsRead>,
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
        let (listed, newest, day, logs) = (Arc::default(), Arc::default(), Arc::default(), Arc::default());
        let notes = Arc::new(InMemory::new());
        Self { inner, notes, may_create, written, own: Own::default(), listed, newest, day, logs, newer_key }
    }

    /// Where an object, or all below a prefix, is kept.
    fn home(&self, path: Option<&Path>) -> &Arc<dyn ObjectStore> {
        if path.is_some_and(is_note) { &self.notes } else { &self.inner }
    }

    /// What day it is by what is listed.
    pub(super) fn day(&self) -> Arc<StoreDay> {
        Arc::clone(&self.day)
    }

    /// Which logs were read.
    pub(super) fn logs(&self) -> Arc<LogsRead> {
        Arc::clone(&self.logs)
    }

    /// Each note of a merge tells all of it, and the newest counts: older ones would only take memory.
    async fn forget_older_note(&self, path: &Path) {
        let number = path.filename().and_then(|name| name.strip_suffix(".compactions")?.parse::<u64>().ok());
        if let Some(older) = number.and_then(|number| number.checked_sub(NOTES_KEPT)) {
            let older = Path::from(DATABASE).join(NOTES).join(format!("{older:020}.compactions"));
            // One that is not there is none.
            let _ = self.notes.delete(&older).await;
        }
    }

    /// As it was got, if it may be: a manifest from this writer's time must be its own.
    async fn judged(&self, path: &Path, got: GetResult) -> RawResult<GetResult> {
        let Some(number) = manifest_number(path).filter(|number| self.own.concerns(*number)) else {
            return Ok(got);
        };
        let (meta, range) = (got.meta.clone(), got.range.clone());
        let (attributes, extensions) = (got.attributes.clone(), got.extensions.clone());
        let bytes = got.bytes().await?;
        if !self.own.may_be_read(number, path, &bytes).await {
            let what = "it is of another history than this mount has written".to_owned();
            let damage = Damage { object: path.to_string(), what };
            return Err(never_retried(Box::new(VaultError::Damaged(damage))));
        }
        let payload = GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed());
        Ok(GetResult { payload, meta, range, attributes, extensions })
    }

    /// A manifest has been read or written.
    fn met(&self, path: &Path) {
        if let Some(number) = manifest_number(path) {
            self.newest.fetch_max(number, Ordering::Relaxed);
        }
    }

    /// `listing`, and after it the newest manifest that is known, if it lacks that.
    fn with_newest(
        &self,
        prefix: Option<&Path>,
        listing: BoxStream<'static, RawResult<ObjectMeta>>,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        if prefix.is_none_or(|prefix| *prefix != manifests()) {
            return listing;
        }
        let (newest, highest) = (Arc::clone(&self.newest), Arc::new(AtomicU64::new(0)));
        let seen = Arc::clone(&highest);
        let note = move |entry: &RawResult<ObjectMeta>| {
            let number = entry.as_ref().ok().and_then(|object| manifest_number(&object.location));
            seen.fetch_max(number.unwrap_or(0), Ordering::Relaxed);
        };
        let lacking = stream::once(async move {
            let known = newest.load(Ordering::Relaxed);
            (known > highest.load(Ordering::Relaxed)).then(|| {
                let last_modified = chrono::DateTime::from(std::time::SystemTime::now());
                let location = manifest_path(known);
                Ok(ObjectMeta { location, last_modified, size: 0, e_tag: None, version: None })
            })
        });
        let lacking = lacking.filter_map(|entry| async { entry });
        listing.inspect(note).chain(lacking).boxed()
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

/// The directory of manifests.
pub(super) fn manifests() -> Path {
    Path::from(DATABASE).join("manifest")
}

/// The manifest of a number.
pub(super) fn manifest_path(number: u64) -> Path {
    manifests().join(format!("{number:020}.manifest"))
}

/// The number of a manifest.
pub(super) fn manifest_number(path: &Path) -> Option<u64> {
    let name = path.filename()?.strip_suffix(".manifest")?;
    name.parse().ok()
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
        let manifest = manifest_number(path).map(|number| (number, Bytes::from(payload.clone())));
        if let Some((number, bytes)) = &manifest {
            self.own.sends(*number, bytes);
        }
        let put = self.home(Some(path)).put_opts(path, payload, opts).await;
        if let (Err(RawError::AlreadyExists { .. }), Some((number, bytes))) = (&put, &manifest) {
            self.own.was_refused(*number, bytes);
        }
        let put = put.map_err(final_if_refused)?;
        if let Some((number, bytes)) = &manifest {
            self.own.has_sent(*number, path, bytes).await;
        }
        self.written.note(path);
        self.met(path);
        self.forget_older_note(path).await;
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
        let is_head = options.head;
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
                self.met(path);
                let read = if is_head { 0 } else { got.range.end.saturating_sub(got.range.start) };
                self.logs.note(path, got.meta.size, read);
                self.judged(path, got).await
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
        self.with_newest(prefix, self.noted(self.home(prefix).list(prefix)))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.with_newest(prefix, self.noted(self.home(prefix).list_with_offset(prefix, offset)))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        self.home(prefix).list_with_delimiter(prefix).await.map_err(final_if_refused)
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        self.home(Some(from)).copy_opts(from, to, options).await
    }
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;

    use super::*;

    #[tokio::test]
    async fn notes_of_merges_take_no_more_memory_the_longer_a_merge_lasts() {
        let seam = Seam::new(Arc::new(InMemory::new()), true, Arc::default(), Arc::default());
        let notes = Path::from(DATABASE).join(NOTES);
        for number in 1..=1000_u64 {
            let note = notes.clone().join(format!("{number:020}.compactions"));
            seam.put(&note, PutPayload::from_static(b"all that is merged")).await.expect("put");
        }
        let kept: Vec<_> = seam.list(Some(&notes)).try_collect().await.expect("listed");
        assert_eq!(kept.len() as u64, NOTES_KEPT);
        assert!(kept.iter().any(|note| note.location.as_ref().ends_with("1000.compactions")));
    }

    #[tokio::test]
    async fn a_listing_that_lags_behind_has_the_newest_manifest_that_is_known() {
        let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
        let seam = Seam::new(Arc::clone(&store), true, Arc::default(), Arc::default());
        let manifest = |number: u64| manifests().join(format!("{number:020}.manifest"));
        let listed = async || {
            let entries: Vec<_> = seam.list(Some(&manifests())).try_collect().await.expect("listed");
            entries.into_iter().map(|entry| entry.location).collect::<Vec<_>>()
        };
        for number in 1..=3 {
            seam.put(&manifest(number), PutPayload::from_static(b"a manifest")).await.expect("put");
        }
        assert_eq!(listed().await, [manifest(1), manifest(2), manifest(3)]);
        store.delete(&manifest(2)).await.expect("removed");
        store.delete(&manifest(3)).await.expect("removed");
        assert_eq!(listed().await, [manifest(1), manifest(3)]);
    }
}
