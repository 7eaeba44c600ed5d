//! A bucket that is a directory, and stays that directory: one that goes away is an outage.
//!
//! Writing makes missing directories. Without this check a bucket on a disk that is unplugged would go
//! on as a new, empty one beneath the mount point, and reads would call every object missing.

use std::fmt;
use std::io;
use std::ops::Range;
use std::os::unix::fs::MetadataExt;
use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::local::LocalFileSystem;
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};

/// A directory by path and identity.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Root {
    path: PathBuf,
    device: u64,
    ino: u64,
}

impl Root {
    fn of(path: &FilePath) -> io::Result<Self> {
        let metadata = std::fs::metadata(path)?;
        Ok(Self { path: path.to_owned(), device: metadata.dev(), ino: metadata.ino() })
    }

    /// Fails unless the directory is where it was, and is the same.
    fn check(&self) -> RawResult<()> {
        let is_there = Self::of(&self.path).is_ok_and(|now| now == *self);
        if is_there {
            return Ok(());
        }
        // Not `NotFound`: the objects are not gone, the way to them is.
        let source = io::Error::other(format!("the directory {} has gone away", self.path.display()));
        Err(RawError::Generic { store: "local directory", source: Box::new(source) })
    }
}

/// A store in a directory.
#[derive(Debug)]
pub(super) struct LocalStore {
    inner: Arc<LocalFileSystem>,
    root: Root,
}

impl LocalStore {
    /// The store in `directory`, which must be there. Its writes are on the disk when they return.
    pub(super) fn open(directory: &FilePath) -> RawResult<Self> {
        let inner = Arc::new(LocalFileSystem::new_with_prefix(directory)?.with_fsync(true));
        let root = directory.canonicalize().and_then(|path| Root::of(&path));
        let root =
            root.map_err(|error| RawError::Generic { store: "local directory", source: Box::new(error) })?;
        Ok(Self { inner, root })
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.inner.fmt(f)
    }
}

/// An answer counts only if the directory was still there after it.
macro_rules! checked {
    ($self:ident, $answer:expr) => {{
        $self.root.check()?;
        let answer = $answer.await;
        $self.root.check()?;
        answer
    }};
}

#[async_trait]
impl ObjectStore for LocalStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> RawResult<PutResult> {
        checked!(self, self.inner.put_opts(path, payload, options))
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        checked!(self, self.inner.put_multipart_opts(path, options))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        checked!(self, self.inner.get_opts(path, options))
    }

    async fn get_ranges(&self, path: &Path, ranges: &[Range<u64>]) -> RawResult<Vec<Bytes>> {
        checked!(self, self.inner.get_ranges(path, ranges))
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let root = self.root.clone();
        let paths = paths.and_then(move |path| futures::future::ready(root.check().map(|()| path)));
        self.inner.delete_stream(paths.boxed())
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let root = self.root.clone();
        let last = stream::once(async move { root.check() });
        let last = last.filter_map(|checked| futures::future::ready(checked.err().map(Err)));
        self.inner.list(prefix).chain(last).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        checked!(self, self.inner.list_with_delimiter(prefix))
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> RawResult<()> {
        checked!(self, self.inner.copy_opts(from, to, options))
    }
}

#[cfg(test)]
mod tests {
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::store::error::{Trouble, classify};

    #[tokio::test]
    async fn a_directory_that_goes_away_is_an_outage_and_is_not_made_anew() {
        let folder = tempfile::tempdir().unwrap();
        let (here, away) = (folder.path().join("bucket"), folder.path().join("away"));
        std::fs::create_dir(&here).unwrap();
        let store = LocalStore::open(&here).unwrap();
        let path = Path::from("a/b");
        store.put(&path, "old".into()).await.unwrap();

        std::fs::rename(&here, &away).unwrap();
        let is_outage = |error: RawError| classify(&error) == Trouble::Transient;
        assert!(is_outage(store.put(&Path::from("c/d"), "new".into()).await.unwrap_err()));
        assert!(is_outage(store.get(&path).await.unwrap_err()));
        assert!(is_outage(store.delete(&path).await.unwrap_err()));
        assert!(is_outage(store.list(None).try_collect::<Vec<_>>().await.unwrap_err()));
        assert!(!here.exists());
        std::fs::create_dir(&here).unwrap();
        assert!(is_outage(store.get(&path).await.unwrap_err()), "another directory is not the bucket");

        std::fs::remove_dir(&here).unwrap();
        std::fs::rename(&away, &here).unwrap();
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "old");
    }
}
