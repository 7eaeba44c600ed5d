//! `coffer recover`: gives back what mounts of this machine could not send because another mount took over.

use std::fmt::Write as _;
use std::fs::{DirBuilder, File};
use std::io::{self, Write as _};
use std::ops::Range;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{DirBuilderExt, FileExt};
use std::path::{Path, PathBuf};

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::export::check_destination;
use super::extract::destination;
use super::factors::UnlockArgs;
use super::local::{self, Keep, Xattr};
use super::ls::printable;
use super::open::{BucketArgs, StateArgs, obtain_factors};
use super::place::{Partial, Place};
use super::stderr;
use super::units::{show_count, show_size, show_time};
use super::{explain, runtime};
use crate::base::{FileKind, Ino, SegmentId};
use crate::crypto::KeyRing;
use crate::vfs::Attr;
use crate::volume::unsent::{About, Item, SavedChanges, SavedFile, Shelf};
use crate::volume::{self, VolumeError};

/// Shown at the end of `coffer recover --help`.
pub const EXAMPLES: &str = "\
A mount that another one takes over keeps what it had not sent sealed in its state directory. --to writes those files \
into a new or empty directory, as the mount showed them last, under their paths in the volume; what else it did, such as \
removals and new names, is told in words. Nothing is removed until you say --discard.

Examples:
  coffer recover s3://bucket/home
  coffer recover s3://bucket/home --to ~/recovered
  coffer recover s3://bucket/home --discard";

/// Arguments of `coffer recover`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("what").args(["list", "to", "discard"])))]
pub struct RecoverArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// List what is kept (the default)
    #[arg(long)]
    pub list: bool,
    /// Write the files into this local directory: new or empty
    #[arg(long, value_name = "DIR")]
    pub to: Option<PathBuf>,
    /// Remove what is kept from this machine, for good
    #[arg(long)]
    pub discard: bool,
    /// The keys.
    #[command(flatten)]
    pub unlock: UnlockArgs,
    /// What this machine remembers of volumes.
    #[command(flatten)]
    pub state: StateArgs,
}

/// Lists, recovers or discards.
///
/// # Errors
/// When the volume cannot be unlocked, nothing is kept, what is kept is damaged, or a file cannot be written.
pub fn run(args: &RecoverArgs) -> CommandResult {
    if let Some(dir) = &args.to {
        check_destination(dir)?;
    }
    let factors = obtain_factors(&args.bucket, &args.unlock, &args.state)?;
    let state_dir = args.state.directory()?;
    let unlocked = runtime::block_on(async {
        let bucket = args.bucket.open()?;
        let unlocked = volume::unlock_by(&bucket, &factors, args.unlock.key_slot).await;
        unlocked.map_err(|e| explain::volume(&e, &factors))
    })?;
    let shelf = Shelf::of(&state_dir, unlocked.volume);
    let ids = shelf.ids().map_err(|e| explain::volume(&e, &[]))?;
    if ids.is_empty() {
        let message = format!("nothing of this volume is to be recovered in {}", state_dir.display());
        return Err(CommandError::new(Exit::NothingToRecover, message)
            .hint("if the mount had another state directory, give it with --state-dir DIR"));
    }
    if args.discard {
        return discard(&shelf, &ids);
    }
    match &args.to {
        Some(dir) => recover_all(&shelf, &unlocked.ring, ids, dir),
        None => list_all(&shelf, &unlocked.ring, ids),
    }
}

fn discard(shelf: &Shelf, ids: &[SegmentId]) -> CommandResult {
    for id in ids {
        shelf.discard(*id).map_err(|e| explain::volume(&e, &[]))?;
    }
    stderr::line(format_args!(
        "discarded what {} had not sent",
        show_count(ids.len() as u64, "mount", "mounts")
    ));
    Ok(())
}

/// The changes on the shelf by the time when they were saved, and what could not be opened.
type Opened = (Vec<(About, SavedChanges)>, Vec<VolumeError>);

fn open_all(shelf: &Shelf, ring: &KeyRing, ids: Vec<SegmentId>) -> Opened {
    let (mut opened, mut bad) = (Vec::new(), Vec::new());
    for id in ids {
        let begin = || {
            let mut changes = shelf.open(ring, id)?;
            match changes.next_item()? {
                Some(Item::About(about)) => Ok((about, changes)),
                _ => {
                    Err(VolumeError::BadUnsent { path: shelf.path(id), what: "it does not begin".to_owned() })
                }
            }
        };
        match begin() {
            Ok(begun) => opened.push(begun),
            Err(error) => bad.push(error),
        }
    }
    opened.sort_by_key(|(about, _)| about.saved);
    (opened, bad)
}

/// The first of several errors, after the others have been told.
fn first_of(bad: Vec<VolumeError>) -> CommandResult {
    let mut errors = bad.iter().map(|error| explain::volume(error, &[]));
    let first = errors.next();
    errors.for_each(|error| stderr::text(error.render()));
    first.map_or(Ok(()), Err)
}

fn print(text: &str) -> CommandResult {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

fn list_all(shelf: &Shelf, ring: &KeyRing, ids: Vec<SegmentId>) -> CommandResult {
    let (opened, mut bad) = open_all(shelf, ring, ids);
    for (about, mut changes) in opened {
        let mut listing = Listing::default();
        let read = (|| {
            while let Some(item) = changes.next_item()? {
                listing.add(&item);
            }
            Ok(())
        })();
        print(&listing.finish(&about))?;
        bad.extend(read.err());
    }
    first_of(bad)
}

/// What one mount left, as it is shown.
#[derive(Default)]
struct Listing {
    text: String,
    file: Option<(SavedFile, u64, bool)>,
    files: u64,
    bytes: u64,
}

impl Listing {
    fn add(&mut self, item: &Item) {
        match item {
            Item::File(file) => {
                self.close_file();
                self.file = Some((file.clone(), 0, false));
            }
            Item::Data(_, bytes) => self.with_file(|file| file.1 += bytes.len() as u64),
            Item::Absent(..) => self.with_file(|file| file.2 = true),
            Item::Change(..) => {
                self.close_file();
                let _ = writeln!(self.text, "  {}", words(item));
            }
            Item::About(_) | Item::Xattr(..) | Item::End => {}
        }
    }

    fn with_file(&mut self, change: impl FnOnce(&mut (SavedFile, u64, bool))) {
        if let Some(file) = &mut self.file {
            change(file);
        }
    }

    fn close_file(&mut self) {
        let Some((file, bytes, is_partial)) = self.file.take() else { return };
        self.files += 1;
        self.bytes += bytes;
        let part = if is_partial { ", not all of it" } else { "" };
        for path in &file.paths {
            let _ = writeln!(self.text, "  {:>10}{part}  {}", show_size(bytes), printable(path));
        }
    }

    fn finish(mut self, about: &About) -> String {
        self.close_file();
        let files = show_count(self.files, "file", "files");
        let (time, host) = (show_time(about.saved, false), printable(about.host.as_bytes()));
        let size = show_size(self.bytes);
        format!("{time} on {host}, after commit {}: {files}, {size}\n{}", about.commit, self.text)
    }
}

/// In words for a terminal, whoever has sealed them.
fn words(item: &Item) -> String {
    let Item::Change(what, path, other) = item else { return String::new() };
    let (what, path) = (printable(what.as_bytes()), printable(path));
    match other.is_empty() {
        true => format!("{what}: {path}"),
        false => format!("{what}: {path} -> {}", printable(other)),
    }
}

fn recover_all(shelf: &Shelf, ring: &KeyRing, ids: Vec<SegmentId>, dir: &Path) -> CommandResult {
    let (opened, mut bad) = open_all(shelf, ring, ids);
    let is_only = opened.len() == 1;
    let mut report = Report::default();
    let made = DirBuilder::new().recursive(true).mode(0o700).create(dir);
    made.map_err(|e| CommandError::writing(dir, &e))?;
    let top = destination(dir)?;
    for (number, (about, mut changes)) in opened.into_iter().enumerate() {
        let root = if is_only { top.clone() } else { top.join((number + 1).to_string()) };
        let mut recovery = Recovery { root, report: &mut report, file: None, directories: Vec::new() };
        print(&format!("{} on {}:\n", show_time(about.saved, false), printable(about.host.as_bytes())))?;
        let read = (|| {
            while let Some(item) = changes.next_item()? {
                recovery.take(item);
            }
            recovery.close_file();
            Ok(())
        })();
        // Where reading broke off, the file under way is not whole and goes.
        recovery.dress_directories();
        bad.extend(read.err());
        print(&std::mem::take(&mut report.text))?;
    }
    stderr::line(format_args!(
        "recovered {}, {} into {}; `coffer recover --discard` removes what is kept",
        show_count(report.files, "file", "files"),
        show_size(report.bytes),
        dir.display()
    ));
    first_of(bad)?;
    match report.flawed {
        0 => Ok(()),
        count => {
            let files = show_count(count, "file was", "files were");
            Err(CommandError::new(Exit::Partial, format!("{files} not recovered in full")))
        }
    }
}

/// What was recovered, and what is to be said.
#[derive(Default)]
struct Report {
    files: u64,
    bytes: u64,
    flawed: u64,
    text: String,
}

impl Report {
    fn say(&mut self, line: &str) {
        let _ = writeln!(self.text, "  {line}");
    }

    fn fail(&mut self, path: &[u8], why: &str) {
        self.flawed += 1;
        stderr::line(format_args!("error: {}: {why}", printable(path)));
    }
}

/// Files on their way into a directory.
struct Recovery<'a> {
    root: PathBuf,
    report: &'a mut Report,
    file: Option<OpenFile>,
    directories: Vec<(PathBuf, Attr, Vec<Xattr>)>,
}

/// The file that the next items belong to.
struct OpenFile {
    saved: SavedFile,
    partial: Partial,
    out: Option<File>,
    xattrs: Vec<Xattr>,
    absent: Vec<(Range<u64>, String)>,
    bytes: u64,
}

impl Recovery<'_> {
    fn take(&mut self, item: Item) {
        match item {
            Item::File(saved) => {
                self.close_file();
                let path = saved.paths.first().cloned().unwrap_or_default();
                match self.begin(saved) {
                    Ok(file) => self.file = Some(file),
                    Err(error) => self.report.fail(&path, &error.to_string()),
                }
            }
            Item::Xattr(name, value) => {
                if let Some(file) = &mut self.file {
                    file.xattrs.push((name, value));
                }
            }
            Item::Data(offset, bytes) => self.write(offset, &bytes),
            Item::Absent(from, to, why) => {
                if let Some(file) = &mut self.file {
                    file.absent.push((from..to, why));
                }
            }
            Item::Change(..) => {
                self.close_file();
                let line = words(&item);
                self.report.say(&line);
            }
            Item::About(_) | Item::End => {}
        }
    }

    fn begin(&self, saved: SavedFile) -> io::Result<OpenFile> {
        let path = self.place(saved.paths.first().map(Vec::as_slice).unwrap_or_default())?;
        if let Some(above) = path.parent() {
            self.make_way(above)?;
        }
        let name = format!(".coffer-partial-{}", std::process::id());
        let partial = Partial(Place::of(&path.with_file_name(name))?);
        let out = match saved.kind {
            FileKind::Regular => Some(partial.0.create()?),
            FileKind::Directory => None,
            FileKind::Symlink => {
                partial.0.symlink(Path::new(std::ffi::OsStr::from_bytes(&saved.target)))?;
                None
            }
            kind => {
                local::make_special(&partial.0, kind, saved.rdev)?;
                None
            }
        };
        Ok(OpenFile { saved, partial, out, xattrs: Vec::new(), absent: Vec::new(), bytes: 0 })
    }

    fn write(&mut self, offset: u64, bytes: &[u8]) {
        let Some(file) = &mut self.file else { return };
        let Some(out) = &file.out else { return };
        match out.write_all_at(bytes, offset) {
            Ok(()) => file.bytes += bytes.len() as u64,
            Err(error) => {
                let path = file.saved.paths.first().cloned().unwrap_or_default();
                self.file = None;
                self.report.fail(&path, &error.to_string());
            }
        }
    }

    fn close_file(&mut self) {
        let Some(file) = self.file.take() else { return };
        let path = file.saved.paths.first().cloned().unwrap_or_default();
        if let Err(error) = self.finish(file) {
            self.report.fail(&path, &error.to_string());
        }
    }

    fn finish(&mut self, file: OpenFile) -> io::Result<()> {
        let OpenFile { saved, partial, out, xattrs, absent, bytes } = file;
        let first = saved.paths.first().map(Vec::as_slice).unwrap_or_default();
        let (mut path, attr) = (self.place(first)?, attr_of(&saved));
        if saved.kind == FileKind::Directory {
            self.make_way(&path)?;
            self.directories.push((path, attr, xattrs));
            self.report.files += 1;
            return Ok(());
        }
        if let Some(out) = &out {
            out.set_len(saved.size)?;
            out.sync_all()?;
        }
        let made = out.map_or_else(|| partial.0.hold(), |out| Ok(out.into()))?;
        for problem in local::apply(made.as_fd(), &attr, &xattrs, Keep::everything()) {
            stderr::line(format_args!("warning: {}: cannot keep {problem}", printable(first)));
        }
        if !absent.is_empty() {
            let mut name = path.file_name().unwrap_or_default().to_owned();
            name.push(".partial");
            path.set_file_name(name);
            self.report.flawed += 1;
        }
        partial.become_whole(&made, &Place::of(&path)?, false)?;
        self.report.files += 1;
        self.report.bytes += bytes;
        self.report.say(&format!("{:>10}  {}", show_size(bytes), printable(first)));
        for (range, why) in absent {
            self.report
                .say(&format!("            bytes {} to {} are not here: {why}", range.start, range.end));
        }
        for other in saved.paths.iter().skip(1) {
            let link = self.place(other)?;
            link.parent().map_or(Ok(()), |above| self.make_way(above))?;
            std::fs::hard_link(&path, link)?;
        }
        Ok(())
    }

    /// Deepest first, because what is done in a directory changes its times.
    fn dress_directories(&mut self) {
        for (path, attr, xattrs) in self.directories.iter().rev() {
            let held = Place::of(path).and_then(|place| place.hold());
            let problems = match held {
                Ok(held) => local::apply(held.as_fd(), attr, xattrs, Keep::everything()),
                Err(error) => vec![format!("its attributes: {error}")],
            };
            for problem in problems {
                stderr::line(format_args!(
                    "warning: {}: cannot keep {problem}",
                    printable(path.as_os_str().as_bytes())
                ));
            }
        }
    }

    /// Where a path of the volume is recovered to.
    fn place(&self, path: &[u8]) -> io::Result<PathBuf> {
        let names: Vec<&[u8]> = path.split(|byte| *byte == b'/').collect();
        if names.iter().any(|name| matches!(*name, b"" | b"." | b"..") || name.contains(&0)) {
            return Err(io::Error::new(io::ErrorKind::InvalidData, "its path makes no sense"));
        }
        Ok(names.into_iter().fold(self.root.clone(), |at, name| at.join(std::ffi::OsStr::from_bytes(name))))
    }

    /// Makes the directories from the root down to `to`, none of which may be a link that was recovered before.
    fn make_way(&self, to: &Path) -> io::Result<()> {
        let mut at = self.root.clone();
        if !at.is_dir() {
            Place::of(&at)?.make_directory(false)?;
        }
        for name in to.strip_prefix(&self.root).map_err(io::Error::other)? {
            at.push(name);
            Place::of(&at)?.make_directory(false)?;
        }
        Ok(())
    }
}

fn attr_of(saved: &SavedFile) -> Attr {
    Attr {
        ino: Ino::ROOT,
        kind: saved.kind,
        perm: saved.perm,
        nlink: 1,
        uid: saved.uid,
        gid: saved.gid,
        rdev: saved.rdev,
        size: saved.size,
        blocks: 0,
        atime: saved.atime,
        mtime: saved.mtime,
        ctime: saved.mtime,
        btime: saved.mtime,
        is_unsettled: false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_words_of_a_change_cannot_drive_the_terminal() {
        let change =
            |other: &[u8]| words(&Item::Change("ren\x1b[2Jamed".into(), b"a\x07".to_vec(), other.to_vec()));
        assert_eq!(change(b""), "ren\\u{1b}[2Jamed: a\\u{7}");
        assert_eq!(change(b"b\n"), "ren\\u{1b}[2Jamed: a\\u{7} -> b\\n");
    }
    use crate::base::Time;

    fn saved(kind: FileKind, path: &str, target: &Path) -> Item {
        let (atime, mtime) = (Time::default(), Time::default());
        let target = target.as_os_str().as_bytes().to_vec();
        let paths = vec![path.into()];
        let (perm, uid, gid, rdev, size, is_new) = (0o777, 0, 0, 0, 0, true);
        Item::File(SavedFile { kind, perm, uid, gid, rdev, size, atime, mtime, is_new, target, paths })
    }

    #[test]
    fn nothing_is_recovered_through_a_link_that_was_recovered_before() {
        let top = tempfile::tempdir().unwrap();
        let (root, victim) = (top.path().join("to"), top.path().join("victim"));
        DirBuilder::new().mode(0o700).create(&victim).unwrap();
        let mut report = Report::default();
        let mut recovery = Recovery { root, report: &mut report, file: None, directories: Vec::new() };
        recovery.take(saved(FileKind::Symlink, "x", &victim));
        let through = [(FileKind::Regular, "x/f"), (FileKind::Directory, "x"), (FileKind::Directory, "x/d")];
        for (kind, path) in through {
            recovery.take(saved(kind, path, Path::new("")));
        }
        recovery.close_file();
        recovery.dress_directories();
        assert_eq!((report.files, report.flawed), (1, 3));
        assert_eq!(std::fs::read_dir(&victim).unwrap().count(), 0);
        assert_eq!(std::fs::read_link(top.path().join("to/x")).unwrap(), victim);
    }
}
