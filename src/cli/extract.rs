//! Copies files and trees out of an open volume, several files at a time and never a half one under its own name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::{DirBuilder, File};
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use rustix::fs::{CWD, RenameFlags};
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::deep::Near;
use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::explain;
use super::local::{self, Keep, Xattr};
use super::ls::printable;
use super::progress::Progress;
use super::runtime::Stop;
use super::tree::{Entry, Tree};
use super::units::show_count;
use crate::base::{FileKind, Ino};
use crate::vfs::{Attr, Handle, SeekFor, VfsError};

/// Bytes asked for at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// How a copy is made.
#[derive(Clone, Debug)]
pub struct ExtractOptions {
    /// Attributes that are kept.
    pub keep: Keep,
    /// Existing files are replaced; otherwise they are errors.
    pub replace: bool,
    /// Files copied at the same time.
    pub jobs: usize,
    /// When to leave off.
    pub stop: Stop,
}

/// A copy in progress.
pub struct Extraction {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    begun: HashSet<PathBuf>,
    /// Directories that something that has begun lies in.
    above: HashSet<PathBuf>,
    /// Those that get their attributes at the end.
    directories: Vec<(PathBuf, Attr)>,
    first_paths: HashMap<Ino, PathBuf>,
    links: Vec<(Attr, PathBuf, Links)>,
}

struct Shared {
    tree: Tree,
    options: ExtractOptions,
    progress: Progress,
    failures: AtomicU64,
    tampered: AtomicU64,
    partial_names: AtomicU64,
    /// Which local file was made of one with several names: device and inode.
    made: Mutex<HashMap<Ino, (u64, u64)>>,
    /// Something was left out because it is to stop.
    is_cut_short: AtomicBool,
}

/// What becomes of a link that is where a file is to be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Links {
    /// It goes: it is in a tree that is copied, where links are the volume's.
    Go,
    /// It stays: it is the user's.
    Stay,
}

/// Why one file was not copied.
#[derive(Debug, thiserror::Error)]
enum FileError {
    #[error(transparent)]
    Volume(#[from] VfsError),
    #[error("{0}")]
    Local(#[from] io::Error),
    #[error("it changed while it was copied")]
    Changed,
    #[error("it was stopped")]
    Stopped,
}

impl Extraction {
    /// Prepares to copy out of `tree`.
    #[must_use]
    pub fn new(tree: Tree, options: ExtractOptions) -> Self {
        let slots = Arc::new(Semaphore::new(options.jobs.max(1)));
        let shared = Shared {
            tree,
            options,
            progress: Progress::start("copy"),
            failures: AtomicU64::new(0),
            tampered: AtomicU64::new(0),
            partial_names: AtomicU64::new(0),
            made: Mutex::default(),
            is_cut_short: AtomicBool::new(false),
        };
        Self {
            shared: Arc::new(shared),
            slots,
            tasks: JoinSet::new(),
            begun: HashSet::new(),
            above: HashSet::new(),
            directories: Vec::new(),
            first_paths: HashMap::new(),
            links: Vec::new(),
        }
    }

    /// So many bytes are to be copied in all, about.
    pub fn expect(&self, bytes: u64) {
        self.shared.progress.set_total(bytes);
    }

    /// Tells and counts what cannot be copied at all.
    pub fn leave_out(&self, error: &CommandError) {
        self.shared.failures.fetch_add(1, Ordering::Relaxed);
        self.shared.tampered.fetch_add(u64::from(error.exit() == Exit::Tampered), Ordering::Relaxed);
        self.shared.progress.say(error.render().trim_end());
    }

    /// Copies what `attr` describes to `to`, and all that is below it, unless it is to stop. Failures of single files are
    /// told and counted.
    ///
    /// Nothing is written through a link at `to` or below. One look at a directory is enough for all that comes into it,
    /// because a file or link that is given its name never replaces a directory.
    pub async fn copy(&mut self, attr: Attr, to: PathBuf) {
        let mut links = Links::Stay;
        if to.ancestors().any(|path| self.begun.contains(path)) || self.above.contains(&to) {
            // Of two sources with one name, the first is there before the second replaces it.
            self.settle().await;
            links = Links::Go;
        }
        self.above.extend(to.ancestors().skip(1).map(Path::to_owned));
        self.begun.insert(to.clone());
        let mut waiting = vec![(attr, to)];
        while let Some((attr, to)) = waiting.pop() {
            if self.shared.is_to_stop() {
                return;
            }
            if attr.kind != FileKind::Directory {
                self.copy_one(attr, to, links).await;
                continue;
            }
            let replace = self.shared.options.replace;
            match Near::of(&to).and_then(|near| make_directory(near.path(), replace)) {
                // One that was there before stays as it is, unless its attributes are to be those of the volume's.
                Ok(is_new) if is_new || self.shared.options.keep.times_and_mode => {
                    self.directories.push((to.clone(), attr));
                }
                Ok(_) => {}
                Err(error) => {
                    self.shared.fail(&to, &error.into());
                    continue;
                }
            }
            let mut cookie = Some(0);
            while let Some(at) = cookie {
                match self.shared.tree.page(attr.ino, at).await {
                    Ok((entries, next)) => {
                        for Entry { name, attr } in entries {
                            if self.shared.is_to_stop() {
                                return;
                            }
                            let path = to.join(OsStr::from_bytes(&name));
                            if attr.kind == FileKind::Directory {
                                waiting.push((attr, path));
                            } else {
                                self.copy_one(attr, path, Links::Go).await;
                            }
                        }
                        cookie = next;
                    }
                    Err(error) => {
                        self.shared.fail(&to, &error.into());
                        break;
                    }
                }
            }
        }
    }

    async fn copy_one(&mut self, attr: Attr, to: PathBuf, links: Links) {
        if attr.nlink > 1 {
            if self.first_paths.contains_key(&attr.ino) {
                self.links.push((attr, to, links));
                return;
            }
            self.first_paths.insert(attr.ino, to.clone());
        }
        self.begin(attr, to, links).await;
    }

    /// Begins to copy a file, as soon as there is a slot for it.
    async fn begin(&mut self, attr: Attr, to: PathBuf, links: Links) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
        while self.tasks.try_join_next().is_some() {}
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let copied = match tokio::task::block_in_place(|| Near::of(&to)) {
                Ok(near) => tokio::select! {
                    copied = shared.copy_file(&attr, near.path(), &to, links) => copied,
                    () = shared.options.stop.asked() => Err(FileError::Stopped),
                },
                Err(error) => Err(error.into()),
            };
            match copied {
                Ok(()) => shared.progress.add_file(),
                Err(FileError::Stopped) => shared.is_cut_short.store(true, Ordering::Relaxed),
                Err(error) => shared.fail(&to, &error),
            }
            drop(slot);
        });
    }

    /// Waits for the files on their way and makes the hard links. Where the first of a file's names has come to nothing, or is
    /// another file's by now, the file is copied once more and its further names are those of the copy.
    async fn settle(&mut self) {
        while self.tasks.join_next().await.is_some() {}
        for (attr, to, links) in std::mem::take(&mut self.links) {
            if self.shared.is_to_stop() {
                return;
            }
            let made = self.shared.made.lock().get(&attr.ino).copied();
            let first = self.first_paths.get(&attr.ino).filter(|_| made.is_some()).cloned();
            let replace = self.shared.options.replace;
            let linked =
                first.map(|first| tokio::task::block_in_place(|| make_link(&first, made, &to, replace)));
            match linked {
                Some(Ok(true)) => self.shared.progress.add_file(),
                Some(Err(error)) => self.shared.fail(&to, &error.into()),
                Some(Ok(false)) | None => {
                    self.first_paths.insert(attr.ino, to.clone());
                    self.begin(attr, to, links).await;
                    while self.tasks.join_next().await.is_some() {}
                }
            }
        }
    }

    /// Waits for the files on their way, makes the hard links and dresses the directories, deepest first.
    ///
    /// # Errors
    /// When it stopped, with `again` on how to go on, or any file was not copied.
    pub async fn finish(mut self, again: &str) -> CommandResult<String> {
        self.settle().await;
        for (path, attr) in self.directories.iter().rev() {
            if self.shared.is_to_stop() {
                break;
            }
            match self.shared.xattrs(attr).await {
                Ok(xattrs) => match Near::of(path) {
                    Ok(near) => self.shared.dress(near.path(), path, attr, &xattrs),
                    Err(error) => self.shared.fail(path, &error.into()),
                },
                Err(error) => self.shared.fail(path, &error),
            }
        }
        self.shared.progress.finish();
        let summary = self.shared.progress.summary();
        if self.shared.is_cut_short.load(Ordering::Relaxed) {
            let message = format!("stopped; copied and whole: {summary}");
            return Err(CommandError::new(Exit::Interrupted, message).hint(again));
        }
        let failures = self.shared.failures.load(Ordering::Relaxed);
        if failures == 0 {
            return Ok(summary);
        }
        let tampered = self.shared.tampered.load(Ordering::Relaxed) > 0;
        let exit = if tampered { Exit::Tampered } else { Exit::Partial };
        let lost = show_count(failures, "file was", "files were");
        Err(CommandError::new(exit, format!("{lost} not copied in full; copied: {summary}")))
    }
}

impl Shared {
    /// Whether what comes next is to be left out.
    fn is_to_stop(&self) -> bool {
        let is_asked = self.options.stop.is_asked();
        if is_asked {
            self.is_cut_short.store(true, Ordering::Relaxed);
        }
        is_asked
    }

    fn fail(&self, path: &Path, error: &FileError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        if let FileError::Volume(error) = error
            && explain::vfs_exit(error) == Exit::Tampered
        {
            self.tampered.fetch_add(1, Ordering::Relaxed);
        }
        let name = printable(path.as_os_str().as_bytes());
        self.progress.say(&format!("error: {name}: {}", sentence(error)));
    }

    /// Copies a file to `to`, which is the way to `shown`.
    async fn copy_file(&self, attr: &Attr, to: &Path, shown: &Path, links: Links) -> Result<(), FileError> {
        tokio::task::block_in_place(|| check_replaceable(to, attr, links))?;
        let xattrs = self.xattrs(attr).await?;
        let partial = self.partial(to);
        match attr.kind {
            FileKind::Regular => self.copy_contents(attr, &partial).await?,
            FileKind::Symlink => {
                let target = self.tree.vfs.readlink(attr.ino).await?;
                std::os::unix::fs::symlink(OsStr::from_bytes(&target), &partial.0)?;
            }
            _ => local::make_special(&partial.0, attr.kind, attr.rdev)?,
        }
        tokio::task::block_in_place(|| {
            self.dress(&partial.0, shown, attr, &xattrs);
            let about = partial.0.symlink_metadata()?;
            // Once more, because copying takes its time.
            check_replaceable(to, attr, links)?;
            partial.become_whole(to, self.options.replace)?;
            if attr.nlink > 1 {
                self.made.lock().insert(attr.ino, (about.dev(), about.ino()));
            }
            Ok(())
        })
    }

    async fn copy_contents(&self, attr: &Attr, partial: &Partial) -> Result<(), FileError> {
        let file = File::options().write(true).create_new(true).mode(0o600).open(&partial.0)?;
        let handle = self.tree.vfs.open(attr.ino, false, false).await?;
        let copied = self.copy_extents(attr, handle, &file).await;
        self.tree.vfs.release(handle);
        copied?;
        Ok(file.set_len(attr.size)?)
    }

    async fn copy_extents(&self, attr: &Attr, handle: Handle, file: &File) -> Result<(), FileError> {
        let vfs = &self.tree.vfs;
        let mut offset = 0;
        while offset < attr.size {
            let start = match vfs.seek(attr.ino, offset, SeekFor::Data).await {
                Ok(start) => start,
                Err(VfsError::NoData) => break,
                Err(error) => return Err(error.into()),
            };
            let end = vfs.seek(attr.ino, start, SeekFor::Hole).await?.min(attr.size);
            offset = start;
            while offset < end {
                let want = usize::try_from(end - offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
                let bytes = vfs.read(handle, attr.ino, offset, want).await?;
                if bytes.is_empty() {
                    return Err(FileError::Changed);
                }
                tokio::task::block_in_place(|| file.write_all_at(&bytes, offset))?;
                self.progress.add_bytes(bytes.len() as u64);
                offset += bytes.len() as u64;
            }
        }
        Ok(())
    }

    async fn xattrs(&self, attr: &Attr) -> Result<Vec<Xattr>, FileError> {
        if !self.options.keep.xattrs {
            return Ok(Vec::new());
        }
        Ok(self.tree.xattrs(attr.ino).await?)
    }

    fn dress(&self, path: &Path, shown: &Path, attr: &Attr, xattrs: &[Xattr]) {
        for problem in local::apply(path, attr, xattrs, self.options.keep) {
            let name = printable(shown.as_os_str().as_bytes());
            self.progress.say(&format!("warning: {name}: cannot keep {problem}"));
        }
    }

    /// A name beside `to` that nothing has, for the time until the file is whole.
    fn partial(&self, to: &Path) -> Partial {
        let number = self.partial_names.fetch_add(1, Ordering::Relaxed);
        let name = format!(".coffer-partial-{}-{number}", std::process::id());
        Partial(to.with_file_name(name))
    }
}

/// A file that is not whole yet; removed when dropped before it is.
pub(super) struct Partial(pub(super) PathBuf);

impl Partial {
    /// Gives the file its name.
    pub(super) fn become_whole(self, to: &Path, replace: bool) -> io::Result<()> {
        if replace {
            return std::fs::rename(&self.0, to);
        }
        match rustix::fs::renameat_with(CWD, &self.0, CWD, to, RenameFlags::NOREPLACE) {
            // Some network filesystems know no such rename.
            Err(rustix::io::Errno::INVAL | rustix::io::Errno::NOSYS) if to.symlink_metadata().is_err() => {
                std::fs::rename(&self.0, to)
            }
            other => Ok(other?),
        }
    }
}

impl Drop for Partial {
    fn drop(&mut self) {
        // After a successful rename there is nothing left to remove.
        let _ = std::fs::remove_file(&self.0);
    }
}

/// Where a copy to `given` goes: to what it leads to if it is a link, which only what the user names may be.
///
/// # Errors
/// When the system cannot say where that is.
pub(super) fn destination(given: &Path) -> CommandResult<PathBuf> {
    if given.is_symlink() && given.exists() {
        return given.canonicalize().map_err(|e| CommandError::writing(given, &e));
    }
    Ok(given.to_owned())
}

/// Whether a file like `attr` may take the place of what is at `path`: of a regular file, of what is of its own kind, and of a
/// link if `links` go. What is a directory there the system refuses.
fn check_replaceable(path: &Path, attr: &Attr, links: Links) -> io::Result<()> {
    let Ok(there) = path.symlink_metadata() else { return Ok(()) };
    let goes = match local::kind_of(&there) {
        FileKind::Regular | FileKind::Directory => true,
        FileKind::Symlink => links == Links::Go || attr.kind == FileKind::Symlink,
        kind => kind == attr.kind && local::encode_rdev(there.rdev()) == attr.rdev,
    };
    if goes {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is in its place is no regular file, and stays"))
}

/// Makes a directory, or takes the one that is there. Links are made by whoever can write to the volume, so that one in its
/// place is not followed: it goes if `replace`. Says whether it is new.
///
/// # Errors
/// The system's; [`io::ErrorKind::AlreadyExists`] for what stays in its place.
pub(super) fn make_directory(path: &Path, replace: bool) -> io::Result<bool> {
    let make = || DirBuilder::new().mode(0o700).create(path).map(|()| true);
    match make() {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
        made => return made,
    }
    let found = path.symlink_metadata()?.file_type();
    if found.is_dir() {
        return Ok(false);
    }
    if found.is_symlink() && replace {
        std::fs::remove_file(path)?;
        return make();
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is in its place is not a directory"))
}

/// Makes `link` a further name of the file `made` (device and inode), of which `first` was the first. Says whether it still
/// is.
fn make_link(first: &Path, made: Option<(u64, u64)>, link: &Path, replace: bool) -> io::Result<bool> {
    let (first, link) = (Near::of(first)?, Near::of(link)?);
    let (first, link) = (first.path(), link.path());
    let found = first.symlink_metadata().map(|about| (about.dev(), about.ino())).ok();
    if found.is_none() || found != made {
        return Ok(false);
    }
    match std::fs::hard_link(first, link) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists && replace => {
            if link.symlink_metadata().is_ok_and(|about| Some((about.dev(), about.ino())) == made) {
                return Ok(true);
            }
            std::fs::remove_file(link)?;
            std::fs::hard_link(first, link)?;
        }
        other => other?,
    }
    Ok(true)
}
