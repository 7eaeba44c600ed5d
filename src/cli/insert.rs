//! Copies a local tree into an open volume, several files at a time and never a half one under its own name.

use std::collections::{HashMap, HashSet};
use std::fs::Metadata;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use parking_lot::Mutex;
use tokio::sync::Semaphore;
use tokio::task::{JoinSet, block_in_place};

use super::deep::{Near, Top};
use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::leftovers;
use super::local::{self, Xattr};
use super::ls::printable;
use super::progress::Progress;
use super::runtime::Stop;
use super::source::{Source, SourceError};
use super::tree::{Tree, path_error};
use super::units::show_count;
use crate::base::{FileKind, Ino, Time};
use crate::vfs::{Attr, Caller, RenameMode, SetAttr, SetTime, VfsError, XattrMode};

/// How a copy is made.
#[derive(Clone, Debug)]
pub struct InsertOptions {
    /// Files copied at the same time.
    pub jobs: usize,
    /// When to leave off.
    pub stop: Stop,
}

/// A copy in progress.
pub struct Insertion {
    shared: Arc<Shared>,
    slots: Arc<Semaphore>,
    tasks: JoinSet<()>,
    /// Where the tree begins that is copied, if it is one.
    top: Option<Top>,
    directories: Vec<(PathBuf, Ino)>,
    /// The first of the names of a local file with several, by device and inode.
    first: HashMap<(u64, u64), (Ino, Vec<u8>)>,
    links: Vec<Link>,
}

/// Another name of a file that has one.
struct Link {
    file: (u64, u64),
    first: (Ino, Vec<u8>),
    dir: Ino,
    name: Vec<u8>,
    path: PathBuf,
}

struct Shared {
    tree: Tree,
    progress: Progress,
    failures: AtomicU64,
    /// Whether any of them need not happen again.
    has_passing: AtomicBool,
    kept: AtomicU64,
    /// Local files with several names that are not in the volume under the first, by device and inode.
    without_first: Mutex<HashSet<(u64, u64)>>,
    stop: Stop,
    /// Something was left out because it is to stop.
    is_cut_short: AtomicBool,
}

impl Insertion {
    /// Prepares to copy into `tree`.
    #[must_use]
    pub fn new(tree: Tree, options: InsertOptions) -> Self {
        let (progress, failures, kept) = (Progress::start("import"), AtomicU64::new(0), AtomicU64::new(0));
        Self {
            shared: Arc::new(Shared {
                tree,
                progress,
                failures,
                has_passing: AtomicBool::new(false),
                kept,
                without_first: Mutex::default(),
                stop: options.stop,
                is_cut_short: AtomicBool::new(false),
            }),
            slots: Arc::new(Semaphore::new(options.jobs.max(1))),
            tasks: JoinSet::new(),
            top: None,
            directories: Vec::new(),
            first: HashMap::new(),
            links: Vec::new(),
        }
    }

    /// Finds the directory at `path`, and makes it and those above it as far as they are not there.
    ///
    /// # Errors
    /// When something else than a directory is in the way.
    pub async fn directory(&self, path: &[u8]) -> CommandResult<Ino> {
        let mut dir = Ino::ROOT;
        for name in path.split(|byte| *byte == b'/').filter(|name| !name.is_empty() && *name != b".") {
            dir = self.shared.make_directory(dir, name, false).await.map_err(|e| match e {
                CopyError::Volume(error) => path_error(path, &error),
                other => CommandError::new(Exit::Failure, format!("{}: {other}", path.escape_ascii())),
            })?;
        }
        Ok(dir)
    }

    /// Copies the file `from`, as rsync and cp do: into the directory at `path` if there is one or `path` ends with a slash,
    /// else to `path` itself. Directories above it are made.
    ///
    /// # Errors
    /// When it cannot be looked at, or something else than a directory is in the way.
    pub async fn copy_alone(&mut self, from: &Path, path: &[u8]) -> CommandResult {
        let failed = |error| CommandError::reading(from, &error);
        let about = block_in_place(|| from.symlink_metadata()).map_err(failed)?;
        let own = from.file_name().unwrap_or_default().as_bytes();
        let is_directory = match self.shared.tree.resolve(path, true).await {
            Ok(there) => there.kind == FileKind::Directory,
            Err(_) => path.ends_with(b"/"),
        };
        let mut parts = path.rsplitn(2, |byte| *byte == b'/');
        let (last, before) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
        let (above, name) = if is_directory { (path, own) } else { (before, last) };
        let dir = self.directory(above).await?;
        self.copy_one(from.to_owned(), about, dir, name.to_vec()).await;
        Ok(())
    }

    /// Copies all that is in `from` into the directory `to`, unless it is to stop. Failures of single files are told and
    /// counted.
    pub async fn copy(&mut self, from: &Path, to: Ino) {
        let top = match block_in_place(|| Top::open(from)) {
            Ok(top) => top,
            Err(error) => return self.shared.fail(from, &SourceError::from(error).into()),
        };
        self.top = Some(top.clone());
        self.directories.push((from.to_owned(), to));
        let mut waiting = vec![(from.to_owned(), to)];
        while let Some((from, to)) = waiting.pop() {
            let entries = block_in_place(|| {
                std::fs::read_dir(top.directory(&from)?.path())?.collect::<Result<Vec<_>, _>>()
            });
            let entries = match entries {
                Ok(entries) => entries,
                Err(error) => {
                    self.shared.fail(&from, &SourceError::from(error).into());
                    continue;
                }
            };
            for entry in entries {
                if self.shared.is_to_stop() {
                    return;
                }
                let (path, name) = (from.join(entry.file_name()), entry.file_name().as_bytes().to_vec());
                match block_in_place(|| entry.metadata()) {
                    Err(error) => self.shared.fail(&path, &SourceError::from(error).into()),
                    Ok(about) if about.is_dir() => match self.shared.make_directory(to, &name, true).await {
                        Ok(dir) => {
                            self.directories.push((path.clone(), dir));
                            waiting.push((path, dir));
                        }
                        Err(error) => self.shared.fail(&path, &error),
                    },
                    Ok(about) => self.copy_one(path, about, to, name).await,
                }
            }
        }
    }

    async fn copy_one(&mut self, path: PathBuf, about: Metadata, dir: Ino, name: Vec<u8>) {
        if about.nlink() > 1 {
            let file = (about.dev(), about.ino());
            if let Some(first) = self.first.get(&file) {
                self.links.push(Link { file, first: first.clone(), dir, name, path });
                return;
            }
            self.first.insert(file, (dir, name.clone()));
        }
        let Ok(slot) = Arc::clone(&self.slots).acquire_owned().await else { return };
        while self.tasks.try_join_next().is_some() {}
        let (shared, top) = (Arc::clone(&self.shared), self.top.clone());
        self.tasks.spawn(async move {
            let near = block_in_place(|| top.map_or_else(|| Near::of(&path), |top| top.file(&path)));
            let copied = match near {
                Ok(near) => shared.copy_file(near.path(), &about, dir, &name).await,
                Err(error) => Err(SourceError::from(error).into()),
            };
            if copied.is_err() && about.nlink() > 1 {
                shared.without_first.lock().insert((about.dev(), about.ino()));
            }
            match copied {
                Ok(()) => shared.progress.add_file(),
                Err(CopyError::Stopped) => {}
                Err(error) => shared.fail(&path, &error),
            }
            drop(slot);
        });
    }

    /// Waits for the files on their way, makes the hard links, dresses the directories, deepest first, and brings
    /// everything into the bucket. If it is to stop, only that.
    ///
    /// # Errors
    /// When it stopped, any file was not copied, or the bucket does not take it.
    pub async fn finish(mut self) -> CommandResult<String> {
        while self.tasks.join_next().await.is_some() {}
        for link in &self.links {
            if self.shared.is_to_stop() {
                break;
            }
            match self.shared.link(link).await {
                Ok(()) => self.shared.progress.add_file(),
                Err(error) => self.shared.fail(&link.path, &error),
            }
        }
        for (path, ino) in self.directories.iter().rev() {
            let Some(top) = self.top.as_ref().filter(|_| !self.shared.is_to_stop()) else { break };
            if let Err(error) = self.shared.dress_directory(top, path, *ino).await {
                self.shared.fail(path, &error);
            }
        }
        self.shared.progress.note("saving");
        let saved = self.shared.tree.vfs.sync_all().await;
        self.shared.progress.finish();
        saved.map_err(|e| path_error(b"/", &e))?;
        let mut summary = self.shared.progress.summary();
        let kept = self.shared.kept.load(Ordering::Relaxed);
        if kept > 0 {
            summary.push_str(&format!("; {} there already", show_count(kept, "file was", "files were")));
        }
        if self.shared.is_cut_short.load(Ordering::Relaxed) {
            let message =
                format!("stopped after {summary}; each file that was copied whole is in the bucket");
            return Err(
                CommandError::new(Exit::Interrupted, message).hint("the same command goes on from there")
            );
        }
        match self.shared.failures.load(Ordering::Relaxed) {
            0 => Ok(summary),
            failures => {
                let lost = show_count(failures, "file was", "files were");
                let message = format!("{lost} not copied in full; copied: {summary}");
                let is_worth_it = self.shared.has_passing.load(Ordering::Relaxed);
                let hint = is_worth_it.then_some("the same command tries them again");
                Err(CommandError::new(Exit::Partial, message).maybe_hint(hint))
            }
        }
    }
}

/// Why one file was not copied.
#[derive(Debug, thiserror::Error)]
enum CopyError {
    #[error(transparent)]
    Volume(#[from] VfsError),
    #[error(transparent)]
    Source(#[from] SourceError),
    #[error("a directory that is not empty is in its place in the volume")]
    DirectoryInPlace,
    #[error("something else than a directory is in its place in the volume")]
    NoDirectoryInPlace,
    #[error("it was not copied under the first of its names")]
    NoFirst,
    #[error("it was stopped")]
    Stopped,
}

impl CopyError {
    /// Whether the next run may do better though nobody has changed anything.
    fn is_passing(&self) -> bool {
        use std::io::ErrorKind::{Interrupted, NotFound, StaleNetworkFileHandle, TimedOut, WouldBlock};
        match self {
            Self::Volume(error) => error.is_passing() || matches!(error, VfsError::NoSpace),
            Self::Source(SourceError::Changed) | Self::Stopped => true,
            Self::Source(SourceError::Local(error)) => {
                matches!(
                    error.kind(),
                    Interrupted | NotFound | StaleNetworkFileHandle | TimedOut | WouldBlock
                ) || error.raw_os_error() == Some(libc::EIO)
            }
            Self::DirectoryInPlace | Self::NoDirectoryInPlace | Self::NoFirst => false,
        }
    }
}

impl Shared {
    /// Whether what comes next is to be left out.
    fn is_to_stop(&self) -> bool {
        let is_asked = self.stop.is_asked();
        if is_asked {
            self.is_cut_short.store(true, Ordering::Relaxed);
        }
        is_asked
    }

    fn fail(&self, path: &Path, error: &CopyError) {
        self.failures.fetch_add(1, Ordering::Relaxed);
        self.has_passing.fetch_or(error.is_passing(), Ordering::Relaxed);
        let name = printable(path.as_os_str().as_bytes());
        self.progress.say(&format!("error: {name}: {}", sentence(error)));
    }

    async fn find(&self, dir: Ino, name: &[u8]) -> Result<Option<Attr>, VfsError> {
        match self.tree.vfs.lookup(dir, name).await {
            Ok(attr) => {
                self.tree.vfs.forget(attr.ino, 1);
                Ok(Some(attr))
            }
            Err(VfsError::NoEntry) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// What is in its place and no directory gives way to it if `replaces`.
    async fn make_directory(&self, dir: Ino, name: &[u8], replaces: bool) -> Result<Ino, CopyError> {
        match self.find(dir, name).await? {
            Some(attr) if attr.kind == FileKind::Directory => return Ok(attr.ino),
            Some(_) if replaces => self.tree.vfs.unlink(dir, name).await?,
            Some(_) => return Err(CopyError::NoDirectoryInPlace),
            None => {}
        }
        // Closed until it has its attributes.
        let attr = self.tree.vfs.mkdir(&Caller::default(), dir, name, 0o700).await?;
        self.tree.vfs.forget(attr.ino, 1);
        Ok(attr.ino)
    }

    /// Takes a directory away that a file is to replace.
    async fn remove_empty(&self, dir: Ino, name: &[u8]) -> Result<(), CopyError> {
        self.tree.vfs.rmdir(dir, name).await.map_err(|error| match error {
            VfsError::NotEmpty => CopyError::DirectoryInPlace,
            error => error.into(),
        })
    }

    async fn copy_file(&self, path: &Path, about: &Metadata, dir: Ino, name: &[u8]) -> Result<(), CopyError> {
        let vfs = &self.tree.vfs;
        if self.is_to_stop() {
            return Err(CopyError::Stopped);
        }
        let there = self.find(dir, name).await?;
        if let Some(there) = &there {
            if there.kind == FileKind::Directory {
                self.remove_empty(dir, name).await?;
            }
            if is_same_contents(there, about) {
                self.kept.fetch_add(1, Ordering::Relaxed);
                return self.dress(path, about, there).await;
            }
        }
        let partial = leftovers::name_of(about);
        if self.find(dir, &partial).await?.is_some() {
            vfs.unlink(dir, &partial).await?;
        }
        let made = self.make(path, about, dir, &partial).await?;
        let copied = async {
            if made.kind == FileKind::Regular {
                self.copy_contents(path, about, made.ino).await?;
            }
            self.dress(path, about, &made).await?;
            Ok(vfs.rename(dir, &partial, dir, name, RenameMode::Replace).await.map(drop)?)
        };
        let copied: Result<(), CopyError> = tokio::select! {
            copied = copied => copied,
            () = self.stop.asked() => Err(CopyError::Stopped),
        };
        vfs.forget(made.ino, 1);
        if matches!(copied, Err(CopyError::Stopped)) {
            self.is_cut_short.store(true, Ordering::Relaxed);
        }
        if copied.is_err()
            && let Err(error) = vfs.unlink(dir, &partial).await
        {
            tracing::debug!(%error, "what was begun stays until the next run");
        }
        copied
    }

    /// Makes the file under its name for the meantime, still empty.
    async fn make(&self, path: &Path, about: &Metadata, dir: Ino, name: &[u8]) -> Result<Attr, CopyError> {
        let (vfs, caller) = (&self.tree.vfs, Caller::default());
        let kind = local::kind_of(about);
        Ok(match kind {
            FileKind::Symlink => {
                let target = block_in_place(|| std::fs::read_link(path)).map_err(SourceError::from)?;
                vfs.symlink(&caller, dir, name, target.as_os_str().as_bytes()).await?
            }
            kind => vfs.mknod(&caller, dir, name, kind, 0o600, local::encode_rdev(about.rdev())).await?,
        })
    }

    async fn copy_contents(&self, path: &Path, about: &Metadata, ino: Ino) -> Result<(), CopyError> {
        let vfs = &self.tree.vfs;
        let mut source = block_in_place(|| Source::open(path, about))?;
        while let Some((offset, bytes)) = block_in_place(|| source.next_data())? {
            vfs.write(ino, offset, &bytes, true).await?;
            self.progress.add_bytes(bytes.len() as u64);
        }
        block_in_place(|| source.check())?;
        // A hole at the end.
        let size = SetAttr { size: Some(about.size()), ..SetAttr::default() };
        vfs.setattr(&Caller::default(), ino, &size).await?;
        Ok(())
    }

    /// Gives a directory its attributes when all is in it, and takes away what earlier runs have left there.
    async fn dress_directory(&self, top: &Top, path: &Path, ino: Ino) -> Result<(), CopyError> {
        let near = block_in_place(|| top.directory(path)).map_err(SourceError::from)?;
        let about = block_in_place(|| near.path().metadata()).map_err(SourceError::from)?;
        leftovers::remove(&self.tree, near.path(), ino).await?;
        let attr = self.tree.vfs.getattr(ino).await?;
        self.dress(near.path(), &about, &attr).await
    }

    /// Gives a file of the volume the attributes of the local one, as far as it does not have them.
    async fn dress(&self, path: &Path, about: &Metadata, attr: &Attr) -> Result<(), CopyError> {
        let vfs = &self.tree.vfs;
        let wanted = block_in_place(|| local::xattrs(path)).map_err(SourceError::from)?;
        let present = self.tree.xattrs(attr.ino).await?;
        for (name, _) in present.iter().filter(|(name, _)| !has(&wanted, name)) {
            vfs.remove_xattr(attr.ino, name).await?;
        }
        for (name, value) in wanted.iter().filter(|pair| !present.contains(pair)) {
            vfs.set_xattr(attr.ino, name, value, XattrMode::Set).await?;
        }
        let (atime, mtime) = times(about);
        let perm = (about.mode() & 0o7777) as u16;
        let set = SetAttr {
            perm: (attr.kind != FileKind::Symlink).then_some(perm),
            uid: Some(about.uid()),
            gid: Some(about.gid()),
            atime: Some(SetTime::At(atime)),
            mtime: Some(SetTime::At(mtime)),
            ..SetAttr::default()
        };
        let is_dressed = (attr.uid, attr.gid, attr.mtime) == (about.uid(), about.gid(), mtime)
            && set.perm.is_none_or(|perm| perm == attr.perm);
        if !is_dressed || wanted != present {
            vfs.setattr(&Caller::default(), attr.ino, &set).await?;
        }
        Ok(())
    }

    async fn link(&self, link: &Link) -> Result<(), CopyError> {
        let vfs = &self.tree.vfs;
        // Something older may have that name.
        if self.without_first.lock().contains(&link.file) {
            return Err(CopyError::NoFirst);
        }
        let (dir, name) = &link.first;
        let first = self.find(*dir, name).await?.ok_or(VfsError::NoEntry)?;
        if let Some(there) = self.find(link.dir, &link.name).await? {
            if there.ino == first.ino {
                return Ok(());
            }
            match there.kind {
                FileKind::Directory => self.remove_empty(link.dir, &link.name).await?,
                _ => vfs.unlink(link.dir, &link.name).await?,
            }
        }
        let made = vfs.link(first.ino, link.dir, &link.name).await?;
        vfs.forget(made.ino, 1);
        Ok(())
    }
}

/// Whether a file of the volume need not be read again, by rsync's rule.
fn is_same_contents(there: &Attr, about: &Metadata) -> bool {
    let kind = local::kind_of(about);
    // What a link says is not worth a rule; a device is its number.
    matches!(kind, FileKind::Regular)
        && there.kind == kind
        && there.size == about.size()
        && there.mtime == times(about).1
}

fn times(about: &Metadata) -> (Time, Time) {
    let time = |secs, nanos: i64| Time { secs, nanos: u32::try_from(nanos).unwrap_or_default() };
    (time(about.atime(), about.atime_nsec()), time(about.mtime(), about.mtime_nsec()))
}

fn has(xattrs: &[Xattr], name: &[u8]) -> bool {
    xattrs.iter().any(|(other, _)| other == name)
}
