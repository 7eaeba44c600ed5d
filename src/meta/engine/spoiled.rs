//! Tables that cannot be merged, because they are damaged or missing in the bucket.
//!
//! SlateDB begins a merge that has failed again at once, for ever, and reads all of it up to the damage each time. Here it
//! is given up; what does not need the table is merged without it, and the table is tried again after a while, because
//! somebody may have put it back.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};
use parking_lot::Mutex;
use slatedb::VersionedManifest;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::error::find;
use super::{DATABASE, seam};
use crate::vault::VaultError;

/// How long a table is not tried again.
const REST: Duration = Duration::from_secs(60 * 60);

/// The tables.
#[derive(Clone, Default)]
pub(super) struct Spoiled(Arc<Inner>);

#[derive(Default)]
struct Inner {
    /// When each is tried again.
    tables: Mutex<HashMap<String, Instant>>,
    met: Notify,
}

impl Spoiled {
    /// `store` as merges are given it: what they cannot read of tables is noted.
    pub(super) fn watch(&self, store: &Arc<dyn ObjectStore>) -> Arc<dyn ObjectStore> {
        Arc::new(Watched { inner: Arc::clone(store), spoiled: self.clone() })
    }

    /// Returns when a table has been met that cannot be read.
    pub(super) async fn met(&self) {
        self.0.met.notified().await;
    }

    fn note(&self, table: &str, why: &VaultError) {
        let known = self.0.tables.lock().insert(table.to_owned(), Instant::now() + REST);
        if known.is_none() {
            tracing::error!(table, %why, "tables of records cannot be merged; put the object back from a copy of the bucket");
        }
        self.0.met.notify_one();
    }

    /// Whether anything of it cannot be merged for now.
    pub(super) fn is_in(&self, manifest: &VersionedManifest) -> bool {
        let runs = manifest.compacted().iter().flat_map(|run| run.sst_views());
        self.has_any(runs.map(|view| view.sst.id.value().to_string())) || self.is_newest(manifest)
    }

    /// Whether one of the newest level cannot be merged for now, and with it no other of that level.
    pub(super) fn is_newest(&self, manifest: &VersionedManifest) -> bool {
        self.has_any(manifest.l0().iter().map(|view| view.sst.id.value().to_string()))
    }

    fn has_any(&self, mut tables: impl Iterator<Item = String>) -> bool {
        let spoiled = self.0.tables.lock();
        let now = Instant::now();
        !spoiled.is_empty() && tables.any(|table| spoiled.get(&table).is_some_and(|again| *again > now))
    }
}

/// Forgets what is noted of merges, none of which is under way.
pub(super) async fn forget_merges(store: &Arc<dyn ObjectStore>) -> RawResult<()> {
    let notes: Vec<_> = store.list(Some(&Path::from(DATABASE).join(seam::NOTES))).try_collect().await?;
    let notes = stream::iter(notes).map(|note| Ok(note.location)).boxed();
    store.delete_stream(notes).try_for_each(|_| async { Ok(()) }).await
}

/// The store of a merge.
struct Watched {
    inner: Arc<dyn ObjectStore>,
    spoiled: Spoiled,
}

impl fmt::Debug for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Watched").field(&self.inner).finish()
    }
}

impl fmt::Display for Watched {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for Watched {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
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
        let got = self.inner.get_opts(path, options).await;
        if let Err(error) = &got
            && let Some(table) = path.filename().and_then(|name| name.strip_suffix(".sst"))
        {
            find(error, |why: &VaultError| why.is_damage().then(|| self.spoiled.note(table, why)));
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
        self.inner.list(prefix)
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
