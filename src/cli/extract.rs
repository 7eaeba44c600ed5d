//! Copies files and trees out of an open volume, several files at a time and never a half one under its own name.

use std::collections::{HashMap, HashSet};
use std::ffi::OsStr;
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::explain;
use super::local::{self, Keep, Xattr};
use super::ls::printable;
use super::place::{FileId, Partial, Place, Root, id_of};
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
    /// What the work is called where its progress is told.
    pub work: &'static str,
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
    directories: Vec<Directory>,
    first_paths: HashMap<Ino, PathBuf>,
    links: Vec<(Attr, PathBuf, Links)>,
}

/// A local directory that gets the attributes of one of the volume.
struct Directory {
    path: PathBuf,
    id: FileId,
    attr: Attr,
}

struct Shared {
    tree: Tree,
    root: Root,
    options: ExtractOptions,
    progress: Progress,
    failures: AtomicU64,
    tampered: AtomicU64,
    partial_names: AtomicU64,
    /// Which local file was made of one with several names.
    made: Mutex<HashMap<Ino, FileId>>,
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
    #[error("another directory is in its place by now")]
    Replaced,
    #[error("it was stopped")]
    Stopped,
}

impl Extraction {
    /// Prepares to copy out of `tree` into `root`, or to places below it.
    #[must_use]
    pub fn new(tree: Tree, root: Root, options: ExtractOptions) -> Self {
        let slots = Arc::new(Semaphore::new(options.jobs.max(1)));
        let shared = Shared {
            tree,
            root,
            progress: Progress::start(options.work),
            options,
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

    /// Copies what `attr` describes to `to`, which is the root or below it, and all that is below it, unless it is to stop.
    /// Failures of single files are told and counted. Nothing is written through a link at `to` or below.
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
                match self.shared.place(&to) {
                    Ok(place) => self.copy_one(attr, to, place, links).await,
                    Err(error) => self.shared.fail(&to, &error.into()),
                }
                continue;
            }
            let directory = match tokio::task::block_in_place(|| self.make_directory(attr, &to)) {
                Ok(directory) => directory,
                Err(error) => {
                    self.shared.fail(&to, &error.into());
                    continue;
                }
            };
            let mut cookie = Some(0);
            while let Some(at) = cookie {
                match self.shared.tree.page(attr.ino, at).await {
                    Ok((entries, next)) => {
                        for Entry { name, attr } in entries {
                            if self.shared.is_to_stop() {
                                return;
                            }
                            let name = OsStr::from_bytes(&name);
                            let path = to.join(name);
                            if attr.kind == FileKind::Directory {
                                waiting.push((attr, path));
                            } else {
                                let place = Place::within(Arc::clone(&directory), name.to_owned());
                                self.copy_one(attr, path, place, Links::Go).await;
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

    /// Makes the directory at `to`, or takes the one that is there.
    fn make_directory(&mut self, attr: Attr, to: &Path) -> io::Result<Arc<OwnedFd>> {
        let shared = &self.shared;
        let (is_new, directory) = match shared.root.place(to)? {
            Some(place) => place.make_directory(shared.options.replace)?,
            None => (false, shared.root.directory(to)?),
        };
        // One that was there before stays as it is, unless its attributes are to be those of the volume's.
        if is_new || shared.options.keep.times_and_mode {
            self.directories.push(Directory { path: to.to_owned(), id: id_of(&directory)?, attr });
        }
        Ok(directory)
    }

    async fn copy_one(&mut self, attr: Attr, to: PathBuf, place: Place, links: Links) {
        if attr.nlink > 1 {
            if self.first_paths.contains_key(&attr.ino) {
                self.links.push((attr, to, links));
                return;
            }
            self.first_paths.insert(attr.ino, to.clone());
        }
        self.begin(attr, to, place, links).await;
    }

    /// Begins to copy a file, as soon as there is a slot for it.
    async fn begin(&mut self, attr: Attr, to: PathBuf, place: Place, links: Links) {
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
        while self.tasks.try_join_next().is_some() {}
        let shared = Arc::clone(&self.shared);
        self.tasks.spawn(async move {
            let copied = tokio::select! {
                copied = shared.copy_file(&attr, &place, &to, links) => copied,
                () = shared.options.stop.asked() => Err(FileError::Stopped),
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
            let linked = tokio::task::block_in_place(|| {
                let place = self.shared.place(&to)?;
                Ok((self.make_link(&attr, &place, links)?, place))
            });
            match linked {
                Ok((true, _)) => self.shared.progress.add_file(),
                Ok((false, place)) => {
                    self.first_paths.insert(attr.ino, to.clone());
                    self.begin(attr, to, place, links).await;
                    while self.tasks.join_next().await.is_some() {}
                }
                Err(error) => self.shared.fail(&to, &FileError::Local(error)),
            }
        }
    }

    /// Makes `link` a further name of the file of `attr`. Says whether what was made under its first name is still there.
    fn make_link(&self, attr: &Attr, link: &Place, links: Links) -> io::Result<bool> {
        let made = self.shared.made.lock().get(&attr.ino).copied();
        let (Some(made), Some(first)) = (made, self.first_paths.get(&attr.ino)) else { return Ok(false) };
        let first = self.shared.place(first)?;
        if first.id() != Some(made) {
            return Ok(false);
        }
        match link.link(&first) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists && self.shared.options.replace => {
                if link.id() != Some(made) {
                    check_replaceable(link, attr, links)?;
                    link.remove()?;
                    link.link(&first)?;
                }
            }
            other => other?,
        }
        Ok(true)
    }

    /// Waits for the files on their way, makes the hard links and dresses the directories, deepest first.
    ///
    /// # Errors
    /// When it stopped, with `again` on how to go on, or any file was not copied.
    pub async fn finish(mut self, again: &str) -> CommandResult<String> {
        self.settle().await;
        for directory in self.directories.iter().rev() {
            if self.shared.is_to_stop() {
                break;
            }
            if let Err(error) = self.shared.dress_directory(directory).await {
                self.shared.fail(&directory.path, &error);
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

    /// The place at `path`, below the root.
    fn place(&self, path: &Path) -> io::Result<Place> {
        self.root.place(path)?.ok_or_else(|| io::ErrorKind::IsADirectory.into())
    }

    /// Copies a file to `to`, which is at `shown`.
    async fn copy_file(&self, attr: &Attr, to: &Place, shown: &Path, links: Links) -> Result<(), FileError> {
        tokio::task::block_in_place(|| check_replaceable(to, attr, links))?;
        let xattrs = self.xattrs(attr).await?;
        let partial = self.partial(to);
        let made: OwnedFd = match attr.kind {
            FileKind::Regular => self.copy_contents(attr, &partial.0).await?.into(),
            FileKind::Symlink => {
                let target = self.tree.vfs.readlink(attr.ino).await?;
                partial.0.symlink(Path::new(OsStr::from_bytes(&target)))?;
                partial.0.hold()?
            }
            _ => {
                local::make_special(&partial.0, attr.kind, attr.rdev)?;
                partial.0.hold()?
            }
        };
        tokio::task::block_in_place(|| {
            self.dress(made.as_fd(), shown, attr, &xattrs);
            let id = id_of(&made)?;
            // Once more, because copying takes its time.
            check_replaceable(to, attr, links)?;
            partial.become_whole(&made, to, self.options.replace)?;
            if attr.nlink > 1 {
                self.made.lock().insert(attr.ino, id);
            }
            Ok(())
        })
    }

    async fn copy_contents(&self, attr: &Attr, partial: &Place) -> Result<File, FileError> {
        let file = partial.create()?;
        let handle = self.tree.vfs.open(attr.ino, false, false).await?;
        let copied = self.copy_extents(attr, handle, &file).await;
        self.tree.vfs.release(handle);
        copied?;
        file.set_len(attr.size)?;
        Ok(file)
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

    /// Gives a directory its attributes, unless somebody has put another one in its place.
    async fn dress_directory(&self, made: &Directory) -> Result<(), FileError> {
        let xattrs = self.xattrs(&made.attr).await?;
        tokio::task::block_in_place(|| {
            let directory = self.root.directory(&made.path)?;
            if id_of(&directory)? != made.id {
                return Err(FileError::Replaced);
            }
            self.dress(directory.as_fd(), &made.path, &made.attr, &xattrs);
            Ok(())
        })
    }

    fn dress(&self, file: BorrowedFd<'_>, shown: &Path, attr: &Attr, xattrs: &[Xattr]) {
        for problem in local::apply(file, attr, xattrs, self.options.keep) {
            let name = printable(shown.as_os_str().as_bytes());
            self.progress.say(&format!("warning: {name}: cannot keep {problem}"));
        }
    }

    /// A name beside `to` that nothing has, for the time until the file is whole.
    fn partial(&self, to: &Place) -> Partial {
        let number = self.partial_names.fetch_add(1, Ordering::Relaxed);
        Partial(to.beside(format!(".coffer-partial-{}-{number}", std::process::id())))
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

/// The directory in which a copy to `to` is made: itself if it is there, else what it is to be in.
///
/// # Errors
/// When it cannot be opened.
pub(super) fn root_of(to: &Path) -> CommandResult<Root> {
    let path = if to.is_dir() { to } else { to.parent().unwrap_or(to) };
    Root::open(path).map_err(|e| CommandError::writing(path, &e))
}

/// Whether a file like `attr` may take the place of what is at `place`: of a regular file, of what is of its own kind, and of
/// a link if `links` go. What is a directory there the system refuses.
fn check_replaceable(place: &Place, attr: &Attr, links: Links) -> io::Result<()> {
    let Some(there) = place.about()? else { return Ok(()) };
    let goes = match local::kind_of_mode(there.st_mode) {
        FileKind::Regular | FileKind::Directory => true,
        FileKind::Symlink => links == Links::Go || attr.kind == FileKind::Symlink,
        kind => kind == attr.kind && local::encode_rdev(there.st_rdev) == attr.rdev,
    };
    if goes {
        return Ok(());
    }
    Err(io::Error::new(io::ErrorKind::AlreadyExists, "what is in its place is no regular file, and stays"))
}
