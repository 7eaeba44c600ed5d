//! Lists the objects of a directory, and passes over what no object can be called.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::io::{self, ErrorKind::DirectoryNotEmpty, ErrorKind::NotFound};
use std::path::Path as FilePath;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as RawError, ListResult, ObjectMeta, Result as RawResult};
use walkdir::{DirEntry, WalkDir};

use super::beneath::leads_through_a_link;
use super::read::{meta, refused};

/// Entries that are looked at before the first of them is given.
const ENTRIES_AT_ONCE: usize = 1024;

/// What a directory holds.
enum Found {
    Object(ObjectMeta),
    Directory(Path),
}

/// Removes `prefix` and the directories below it that hold nothing, then those around it, up to `root`, as far as that goes.
/// Whoever owns the bucket can put links there: none is followed.
pub(in crate::store) fn remove_empty(root: &FilePath, prefix: &Path) -> io::Result<()> {
    if leads_through_a_link(root, prefix) {
        return Ok(());
    }
    let top = prefix.parts().fold(root.to_path_buf(), |path, part| path.join(part.as_ref()));
    let below = WalkDir::new(&top).follow_root_links(false).contents_first(true).into_iter();
    for entry in below.filter_map(Result::ok).filter(|entry| entry.file_type().is_dir()) {
        match std::fs::remove_dir(entry.path()) {
            Err(error) if !matches!(error.kind(), NotFound | DirectoryNotEmpty) => return Err(error),
            _ => {}
        }
    }
    for around in top.ancestors().skip(1).take_while(|above| *above != root) {
        let _ = std::fs::remove_dir(around);
    }
    Ok(())
}

/// All objects below `prefix` of the bucket at `root`.
pub(super) fn list(root: &FilePath, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
    let entries = entries(root, prefix, usize::MAX).filter_map(|found| match found {
        Ok(Found::Object(object)) => Some(Ok(object)),
        Ok(Found::Directory(_)) => None,
        Err(error) => Some(Err(error)),
    });
    stream::try_unfold((entries, VecDeque::new()), |(mut entries, mut batch)| async move {
        if batch.is_empty() {
            let more = tokio::task::spawn_blocking(move || {
                batch.extend(entries.by_ref().take(ENTRIES_AT_ONCE));
                (entries, batch)
            });
            (entries, batch) = more.await.map_err(|source| RawError::JoinError { source })?;
        }
        let next: Option<ObjectMeta> = batch.pop_front().transpose()?;
        Ok(next.map(|object| (object, (entries, batch))))
    })
    .into_stream()
    .boxed()
}

/// What lies directly below `prefix`.
pub(super) fn list_one(root: &FilePath, prefix: Option<&Path>) -> RawResult<ListResult> {
    let (mut objects, mut common_prefixes) = (Vec::new(), Vec::new());
    for found in entries(root, prefix, 1) {
        match found? {
            Found::Object(object) => objects.push(object),
            Found::Directory(directory) => common_prefixes.push(directory),
        }
    }
    common_prefixes.sort_unstable();
    Ok(ListResult { common_prefixes, objects, extensions: Default::default() })
}

/// What lies below `prefix`. A link is an object that does not open, and is not followed: what is behind it is not the bucket's.
fn entries(
    root: &FilePath,
    prefix: Option<&Path>,
    depth_max: usize,
) -> impl Iterator<Item = RawResult<Found>> + Send + 'static + use<> {
    let root = root.to_owned();
    let top = prefix.map_or_else(|| root.clone(), |prefix| root.join(prefix.as_ref()));
    let blocked = prefix.filter(|prefix| leads_through_a_link(&root, prefix));
    let blocked = blocked.map(|_| Err(refused("the way to it is a symbolic link")));
    let walk = WalkDir::new(top).min_depth(1).max_depth(depth_max).into_iter();
    let walk = walk.filter_entry(|entry| entry.depth() == 0 || can_be_ours(entry.file_name()));
    let walk = blocked.is_none().then_some(walk).into_iter().flatten();
    let found = walk.filter_map(move |entry| match entry {
        Ok(entry) => of_entry(&root, &entry).transpose(),
        Err(error) => of_error(error),
    });
    blocked.into_iter().chain(found)
}

/// Whether an object or a directory of objects can be called so.
fn can_be_ours(name: &OsStr) -> bool {
    name.to_str().is_some_and(|name| Path::parse(name).is_ok() && !is_staged(name))
}

/// Whether this is the name of a file that is being written: `OBJECT#N`.
pub(super) fn is_staged(name: &str) -> bool {
    let number = name.split_once('#').map_or("", |(_, number)| number);
    !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit())
}

fn of_entry(root: &FilePath, entry: &DirEntry) -> RawResult<Option<Found>> {
    let Some(location) = location(root, entry.path()) else { return Ok(None) };
    if entry.file_type().is_dir() {
        return Ok(Some(Found::Directory(location)));
    }
    match entry.metadata() {
        Ok(metadata) => Ok(Some(Found::Object(meta(location, &metadata)))),
        Err(error) if is_gone(&error) => Ok(None),
        Err(error) => Err(failed(error)),
    }
}

/// What has gone meanwhile is no reason to give up the rest.
fn of_error(error: walkdir::Error) -> Option<RawResult<Found>> {
    (!is_gone(&error)).then(|| Err(failed(error)))
}

fn is_gone(error: &walkdir::Error) -> bool {
    error.io_error().is_some_and(|error| error.kind() == std::io::ErrorKind::NotFound)
}

fn location(root: &FilePath, path: &FilePath) -> Option<Path> {
    Path::parse(path.strip_prefix(root).ok()?.to_str()?).ok()
}

fn failed(error: walkdir::Error) -> RawError {
    RawError::Generic { store: "local directory", source: Box::new(error) }
}
