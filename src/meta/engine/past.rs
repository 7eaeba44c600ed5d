//! The database as one writer left it: what another wrote after taking over is hidden.
//!
//! SlateDB reads nothing any more once it is fenced. But manifests and write-ahead logs are numbered, and whoever took
//! over only ever added higher numbers. So a reader that is shown no number above this writer's own sees its last state,
//! for as long as nobody has removed what that consists of.

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use async_trait::async_trait;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};

use super::DATABASE;

/// The highest numbers under which this process has written.
#[derive(Debug, Default)]
pub(super) struct Written {
    manifest: AtomicU64,
    log: AtomicU64,
}

impl Written {
    /// Notes that the object at `path` has been written.
    pub(super) fn note(&self, path: &Path) {
        if let Some((series, number)) = self.place(path) {
            series.fetch_max(number, Ordering::Relaxed);
        }
    }

    /// The series that an object belongs to, if it is one of a series, and its number.
    fn place(&self, path: &Path) -> Option<(&AtomicU64, u64)> {
        let mut parts = path.as_ref().strip_prefix(DATABASE)?.strip_prefix('/')?.split('/');
        let (folder, name) = (parts.next()?, parts.next()?);
        let series = match folder {
            "manifest" => &self.manifest,
            "wal" => &self.log,
            _ => return None,
        };
        let number = name.split('.').next()?.parse().ok()?;
        Some((series, number))
    }

    fn hides(&self, path: &Path) -> bool {
        self.place(path).is_some_and(|(series, number)| number > series.load(Ordering::Relaxed))
    }
}

/// The store with everything hidden that is newer than what was [`Written`]. It takes nothing.
#[derive(Debug)]
pub(super) struct PastStore {
    inner: Arc<dyn ObjectStore>,
    written: Arc<Written>,
}

impl PastStore {
    pub(super) const fn new(inner: Arc<dyn ObjectStore>, written: Arc<Written>) -> Self {
        Self { inner, written }
    }

    fn seen(
        &self,
        entries: BoxStream<'static, RawResult<ObjectMeta>>,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let written = Arc::clone(&self.written);
        entries.try_filter(move |entry| futures::future::ready(!written.hides(&entry.location))).boxed()
    }

    fn refusal(&self) -> RawError {
        RawError::NotImplemented {
            operation: "writing to the past".to_owned(),
            implementer: self.to_string(),
        }
    }
}

impl fmt::Display for PastStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

#[async_trait]
impl ObjectStore for PastStore {
    async fn put_opts(&self, _: &Path, _: PutPayload, _: PutOptions) -> RawResult<PutResult> {
        Err(self.refusal())
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        Err(self.refusal())
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        if self.written.hides(path) {
            return Err(RawError::NotFound { path: path.to_string(), source: "it is too new".into() });
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, _: BoxStream<'static, RawResult<Path>>) -> BoxStream<'static, RawResult<Path>> {
        futures::stream::iter([Err(self.refusal())]).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.seen(self.inner.list(prefix))
    }

    fn list_with_offset(
        &self,
        prefix: Option<&Path>,
        offset: &Path,
    ) -> BoxStream<'static, RawResult<ObjectMeta>> {
        self.seen(self.inner.list_with_offset(prefix, offset))
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let mut listed = self.inner.list_with_delimiter(prefix).await?;
        listed.objects.retain(|entry| !self.written.hides(&entry.location));
        Ok(listed)
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> RawResult<()> {
        Err(self.refusal())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_higher_numbers_of_the_two_series_are_hidden() {
        let written = Written::default();
        let path = |text: &str| Path::from(text);
        written.note(&path("db/manifest/00000000000000000007.manifest"));
        written.note(&path("db/wal/00000000000000000012.sst"));
        written.note(&path("db/wal/00000000000000000003.sst"));
        for seen in [
            "db/manifest/00000000000000000007.manifest",
            "db/wal/00000000000000000012.sst",
            "db/compacted/01J79C21YKR31J2BS1EFXJZ7MR.sst",
            "db/compactions/00000000000000000099.compactions",
        ] {
            assert!(!written.hides(&path(seen)), "{seen}");
        }
        for hidden in ["db/manifest/00000000000000000008.manifest", "db/wal/00000000000000000013.sst"] {
            assert!(written.hides(&path(hidden)), "{hidden}");
        }
    }
}
