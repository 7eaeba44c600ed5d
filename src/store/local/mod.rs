//! A bucket that is a directory, and stays that directory: one that goes away is an outage.
//!
//! Writing makes missing directories. Without this check a bucket on a disk that is unplugged would go
//! on as a new, empty one beneath the mount point, and reads would call every object missing.
//!
//! Reading and listing are ours, because whoever can write to the directory can put there what is no file:
//! opening it may block a thread for ever, and a name that no object can have ends a listing of `object_store`.
//! So are writing and deleting, because a link in the place of a directory leads to what is not the bucket's.

mod beneath;
mod read;
mod root;
pub(super) mod staged;
mod turns;
pub(super) mod walk;
mod write;

use std::fmt;
use std::path::Path as FilePath;
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt;
use futures::stream::{self, BoxStream};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta,
    ObjectStore, PutMultipartOptions, PutOptions, PutPayload, PutResult, Result as RawResult,
};

use crate::base::behind;

use root::Root;
use turns::Turns;

/// Objects that are written where it is in nobody's way.
const LARGE: usize = 1024 * 1024;

/// Objects of one stream that are deleted at a time.
const DELETES_MAX: usize = 10;

/// A store in a directory.
#[derive(Debug)]
pub(super) struct LocalStore {
    root: Arc<Root>,
    turns: Turns,
}

impl LocalStore {
    /// The store in `directory`, which must be there. Its writes are on the disk when they return.
    pub(super) fn open(directory: &FilePath) -> RawResult<Self> {
        let root = directory.canonicalize().and_then(|path| Root::at(&path));
        let root =
            root.map_err(|error| RawError::Generic { store: "local directory", source: Box::new(error) })?;
        Ok(Self { root: Arc::new(root), turns: Turns::default() })
    }
}

impl fmt::Display for LocalStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "directory {}", self.root.path().display())
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
        let is_large = payload.content_length() >= LARGE;
        let (root, path) = (self.root.path().to_owned(), path.clone());
        let put = on_disk(move || write::put(&root, &path, &payload, &options));
        if !is_large {
            return checked!(self, put);
        }
        let put = async { behind(put).await.map_err(|source| RawError::JoinError { source })? };
        checked!(self, put)
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        Err(write::not_offered("multipart uploads"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let (root, location) = (self.root.path().to_owned(), path.clone());
        let get = self.turns.run(path, move || read::get(&root, &location, &options));
        checked!(self, get)
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let root = Arc::clone(&self.root);
        let delete = move |path: RawResult<Path>| {
            let root = Arc::clone(&root);
            on_disk(move || {
                let path = path?;
                root.check()?;
                let deleted = write::delete(root.path(), &path);
                root.check()?;
                deleted.map(|()| path)
            })
        };
        paths.map(delete).buffered(DELETES_MAX).boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let root = Arc::clone(&self.root);
        let last = stream::once(async move { root.check() });
        let last = last.filter_map(|checked| futures::future::ready(checked.err().map(Err)));
        walk::list(self.root.path(), prefix).chain(last).boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let (root, prefix) = (self.root.path().to_owned(), prefix.cloned());
        checked!(self, on_disk(move || walk::list_one(&root, prefix.as_ref())))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> RawResult<()> {
        Err(write::not_offered("copies"))
    }
}

/// Does `work`, which may block.
async fn on_disk<T: Send + 'static>(work: impl FnOnce() -> RawResult<T> + Send + 'static) -> RawResult<T> {
    tokio::task::spawn_blocking(work).await.map_err(|source| RawError::JoinError { source })?
}

#[cfg(test)]
mod tests {
    use futures::TryStreamExt;
    use object_store::ObjectStoreExt;

    use super::*;
    use crate::store::error::{Trouble, classify};

    fn bucket() -> (tempfile::TempDir, LocalStore) {
        let folder = tempfile::tempdir().unwrap();
        let store = LocalStore::open(folder.path()).unwrap();
        (folder, store)
    }

    async fn listed(store: &LocalStore) -> Vec<(String, u64)> {
        let listed: Vec<_> = store.list(None).try_collect().await.unwrap();
        let mut listed: Vec<_> =
            listed.into_iter().map(|object| (object.location.to_string(), object.size)).collect();
        listed.sort_unstable();
        listed
    }

    #[tokio::test]
    async fn what_is_no_file_is_refused_without_being_opened() {
        let (folder, store) = bucket();
        let at = |name: &str| folder.path().join(name);
        let mode = rustix::fs::Mode::RUSR | rustix::fs::Mode::WUSR;
        rustix::fs::mknodat(rustix::fs::CWD, at("pipe"), rustix::fs::FileType::Fifo, mode, 0).unwrap();
        let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
        std::fs::create_dir(at("folder")).unwrap();
        std::fs::write(at("file"), b"sound").unwrap();
        std::os::unix::fs::symlink("file", at("link")).unwrap();
        std::os::unix::fs::symlink("loop", at("loop")).unwrap();
        for name in ["pipe", "socket", "folder", "link", "loop", "file/below", "loop/below"] {
            let path = Path::from(name);
            for error in [store.get(&path).await.unwrap_err(), store.head(&path).await.unwrap_err()] {
                assert_eq!(classify(&error), Trouble::Unfit, "{name}: {error}");
            }
        }
        assert_eq!(store.get(&Path::from("file")).await.unwrap().bytes().await.unwrap(), "sound");
        let there = [("file", 5), ("link", 0), ("loop", 0), ("pipe", 0), ("socket", 0)];
        assert_eq!(listed(&store).await, there.map(|(name, size)| (name.to_owned(), size)));
    }

    /// Whoever owns one bucket could have the objects of another counted as its own, read, written over and deleted.
    #[tokio::test]
    async fn a_link_in_the_place_of_a_directory_is_not_entered() {
        let (other, there) = bucket();
        let path = Path::from("d/ab/one");
        there.put(&path, "other's".into()).await.unwrap();
        std::fs::write(other.path().join("d/ab/two#1"), "half").unwrap();
        let of_other = || {
            let names = std::fs::read_dir(other.path().join("d/ab")).unwrap();
            let mut names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
            names.sort_unstable();
            (names, std::fs::read(other.path().join("d/ab/one")).unwrap())
        };
        let before = of_other();
        for (link, target) in [("d/ab", "d/ab"), ("d", "d")] {
            let (folder, store) = bucket();
            let link = folder.path().join(link);
            std::fs::create_dir_all(link.parent().unwrap()).unwrap();
            std::os::unix::fs::symlink(other.path().join(target), &link).unwrap();

            assert_eq!(listed(&store).await.iter().map(|(_, size)| size).sum::<u64>(), 0);
            let below: Vec<_> = store.list(Some(&Path::from("d/ab"))).collect().await;
            assert!(matches!(&below[..], [Err(error)] if classify(error) == Trouble::Unfit), "{below:?}");
            store.list_with_delimiter(Some(&Path::from("d/ab"))).await.unwrap_err();
            assert_eq!(staged::list(folder.path()).unwrap(), []);
            let overwrite = store.put(&path, "ours".into()).await;
            let create = PutOptions { mode: object_store::PutMode::Create, ..PutOptions::default() };
            let create = store.put_opts(&Path::from("d/ab/new/new"), "ours".into(), create).await;
            let errors = [
                store.get(&path).await.unwrap_err(),
                store.head(&path).await.unwrap_err(),
                store.delete(&path).await.unwrap_err(),
                overwrite.unwrap_err(),
                create.unwrap_err(),
            ];
            for error in errors {
                assert_eq!(classify(&error), Trouble::Unfit, "{error}");
            }
            let half = staged::Staged {
                path: "d/ab/two#1".into(),
                object: "d/ab/two".into(),
                bytes: 4,
                age: std::time::Duration::MAX,
            };
            staged::remove(folder.path(), &half).unwrap_err();
            std::fs::create_dir_all(other.path().join("d/ab/empty")).unwrap();
            walk::remove_empty(folder.path(), &Path::from("d/ab/empty")).unwrap();
            std::fs::remove_dir(other.path().join("d/ab/empty")).expect("it was left alone");
            assert_eq!(of_other(), before);
        }
    }

    #[tokio::test]
    async fn the_bucket_itself_may_be_reached_by_links_and_a_create_overwrites_nothing() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::create_dir(folder.path().join("bucket")).unwrap();
        std::os::unix::fs::symlink("bucket", folder.path().join("link")).unwrap();
        let store = LocalStore::open(&folder.path().join("link")).unwrap();
        let path = Path::from("d/ab/one");
        let create = || PutOptions { mode: object_store::PutMode::Create, ..PutOptions::default() };
        store.put_opts(&path, "first".into(), create()).await.unwrap();
        let error = store.put_opts(&path, "second".into(), create()).await.unwrap_err();
        assert_eq!(classify(&error), Trouble::Exists, "{error}");
        assert_eq!(store.get(&path).await.unwrap().bytes().await.unwrap(), "first");
        store.put(&path, "third".into()).await.unwrap();
        assert_eq!(listed(&store).await, [("d/ab/one".to_owned(), 5)]);
        assert_eq!(std::fs::read_dir(folder.path().join("bucket/d/ab")).unwrap().count(), 1);
        store.delete(&path).await.unwrap();
        assert_eq!(classify(&store.delete(&path).await.unwrap_err()), Trouble::Missing);
    }

    #[tokio::test]
    async fn names_that_no_object_can_have_are_passed_over() {
        use std::os::unix::ffi::OsStrExt;
        let (folder, store) = bucket();
        store.put(&Path::from("d/ab/sound"), "sound".into()).await.unwrap();
        for name in [&b"\xFFbytes"[..], b"new\nline", b"d/ab/staged#1", b"d/ab/\xFF"] {
            std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(name)), b"x").unwrap();
        }
        std::fs::create_dir(folder.path().join(std::ffi::OsStr::from_bytes(b"\xFE"))).unwrap();
        std::fs::write(folder.path().join(std::ffi::OsStr::from_bytes(b"\xFE/below")), b"x").unwrap();
        assert_eq!(listed(&store).await, [("d/ab/sound".to_owned(), 5)]);
        let below = store.list_with_delimiter(Some(&Path::from("d"))).await.unwrap();
        assert_eq!((below.common_prefixes, below.objects.len()), (vec![Path::from("d/ab")], 0));
        let none: Vec<_> = store.list(Some(&Path::from("none"))).try_collect().await.unwrap();
        assert!(none.is_empty());
    }

    #[tokio::test]
    async fn parts_of_a_file_are_read_as_they_were_asked_for() {
        let (_folder, store) = bucket();
        let path = Path::from("a");
        store.put(&path, "0123456789".into()).await.unwrap();
        assert_eq!(store.get_range(&path, 3..5).await.unwrap(), "34");
        assert_eq!(store.get_range(&path, 8..20).await.unwrap(), "89");
        assert_eq!(store.get_ranges(&path, &[0..1, 9..10]).await.unwrap(), ["0", "9"]);
        assert_eq!(classify(&store.get_range(&path, 10..11).await.unwrap_err()), Trouble::Rejected);
        assert_eq!(classify(&store.get(&Path::from("b")).await.unwrap_err()), Trouble::Missing);
    }

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
