//! What a fenced filesystem had not sent: which files, where, with what contents.
//!
//! Nothing changes any more once another writer has the volume, so that all of this can be asked for in peace. What lies
//! under changed blocks is read as the last commit of this filesystem had it.

use std::collections::{HashMap, HashSet};
use std::ops::Range;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use serde::Serialize;

use crate::base::{BLOCK_BYTES, BLOCK_LEN, BlockIndex, FileKind, Ino, Tag};
use crate::data::Beneath;
use crate::meta::{Entry, Inode, Key, Record};

use super::state::Phase;
use super::whereabouts::{Whereabouts, all_entries};
use super::{Attr, Handle, SeekFor, Vfs, VfsError};

/// Larger files of which parts were in the bucket are told by their changed blocks only.
const WHOLE_BYTES_MAX: u64 = 1024 * 1024 * 1024;

/// Pause before it is tried again to save what was not sent.
const RESCUE_PAUSE: Duration = Duration::from_secs(5);

/// Saves what a fenced filesystem had not sent.
pub type OnFenced = Arc<dyn Fn(Arc<Vfs>) -> BoxFuture<'static, Rescue> + Send + Sync>;

/// What became of what was not sent when another writer took over.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Rescue {
    /// Whether it is kept on this machine; without changes there is nothing to keep.
    pub is_saved: bool,
    /// Files with contents or attributes that were not sent.
    pub files: u64,
    /// Bytes of their contents, as far as they could be had.
    pub bytes: u64,
    /// Other changes: removals, new names, attributes.
    pub changes: u64,
    /// The first of the paths, in order.
    pub paths: Vec<String>,
    /// Why it could not be kept.
    pub error: Option<String>,
}

impl Rescue {
    /// What became of it, in a clause.
    #[must_use]
    pub fn clause(&self) -> String {
        let Self { files, bytes, changes, .. } = self;
        let count = |count: u64, one: &str| format!("{count} {one}{}", if count == 1 { "" } else { "s" });
        let (files, bytes) = (count(*files, "file"), count(*bytes, "byte"));
        let what = format!("what was not sent ({files}, {bytes}, {})", count(*changes, "other change"));
        match &self.error {
            Some(error) => format!("{what} could not be kept: {error}"),
            None if self.is_saved => format!("{what} is kept on this machine"),
            None => "everything had been sent".to_owned(),
        }
    }
}

/// What a fenced filesystem had not sent.
#[derive(Clone, Debug, Default)]
pub struct Unsent {
    /// New files of any kind, and files with new contents; directories before what is in them.
    pub files: Vec<UnsentFile>,
    /// What else was done, to be told in words.
    pub changes: Vec<UnsentChange>,
}

/// A file that was not sent as it is.
#[derive(Clone, Debug)]
pub struct UnsentFile {
    /// Its attributes.
    pub attr: Attr,
    /// Its paths from the volume's root; at least one.
    pub paths: Vec<Vec<u8>>,
    /// Whether the volume has never had it.
    pub is_new: bool,
}

/// Something that was done and not sent, beside contents.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum UnsentChange {
    /// A name was removed.
    Removed(Vec<u8>),
    /// A name was exchanged for another.
    Renamed(Vec<u8>, Vec<u8>),
    /// A file got another name.
    Linked(Vec<u8>),
    /// Attributes were changed, to these.
    Attributes(Vec<u8>, String),
}

/// A part of a file's contents. What no part tells is a hole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Part {
    /// Bytes at an offset.
    Data(u64, Vec<u8>),
    /// A range that was in the bucket already and is not repeated, or could not be read, and why.
    Absent(Range<u64>, String),
}

/// A changed entry: as it is and as it was.
struct EntryChange {
    dir: Ino,
    tag: Tag,
    is: Option<Arc<Entry>>,
    was: Option<Arc<Entry>>,
}

impl Vfs {
    /// Saves what was not sent, beside everything else; again and again, if there is no room for it.
    pub(super) fn begin_rescue(&self) {
        if self.options.on_fenced.is_none() {
            return;
        }
        let this = self.me.clone();
        tokio::spawn(async move {
            while let Some(this) = this.upgrade() {
                this.rescue().await;
                let is_kept = this.rescue.lock().as_ref().is_some_and(|done| done.error.is_none());
                if is_kept || this.state.lock().phase != Phase::Fenced {
                    return;
                }
                drop(this);
                tokio::time::sleep(RESCUE_PAUSE).await;
            }
        });
    }

    /// Saves what was not sent, unless that has been done; after a failure it is tried again.
    pub(super) async fn rescue(&self) {
        let (Some(save), Some(this)) = (&self.options.on_fenced, self.me.upgrade()) else { return };
        let _turn = self.rescue_turn.lock().await;
        if self.rescue.lock().as_ref().is_some_and(|done| done.error.is_none()) {
            return;
        }
        let done = save(this).await;
        *self.rescue.lock() = Some(done);
    }

    /// What was not sent. Only of a filesystem in which nothing changes any more: one that is fenced, or has ended.
    ///
    /// # Errors
    /// It is neither.
    pub async fn unsent(&self) -> Result<Unsent, VfsError> {
        let (inodes, entries, xattrs, next_ino) = {
            let state = self.state.lock();
            if !matches!(state.phase, Phase::Fenced | Phase::ShutDown) {
                return Err(VfsError::NotPermitted);
            }
            let all = |from, to| state.overlay.changes_between(&from, &to, usize::MAX);
            let (first, last) = all_entries();
            let xattrs = all(Key::Xattr(Ino(0), Tag([0; 16])), Key::Xattr(Ino(u64::MAX), Tag([0xFF; 16])));
            let inodes = all(Key::Inode(Ino(0)), Key::Inode(Ino(u64::MAX)));
            (inodes, all(first, last), xattrs, state.superblock.next_ino)
        };
        let with_xattrs: HashSet<Ino> = xattrs.iter().filter_map(|(key, _)| xattr_owner(*key)).collect();
        let mut is_lost = false;
        let entries = self.entry_changes(entries, &mut is_lost).await;
        let mut unsent = Unsent::default();
        let mut files: Vec<(Ino, Arc<Inode>, bool)> = Vec::new();
        let mut dressed: Vec<(Ino, String)> = Vec::new();
        for (key, record) in inodes {
            let (Key::Inode(ino), Some(Record::Inode(inode))) = (key, record) else { continue };
            let is_named = if inode.kind == FileKind::Directory { inode.nlink > 1 } else { inode.nlink > 0 };
            if !is_named || self.state.lock().orphans.contains(&ino) {
                continue;
            }
            let is_new = ino.0 >= next_ino;
            let before = match is_new {
                true => None,
                false => match self.committed_or_known(key, &mut is_lost).await {
                    Some(Record::Inode(inode)) => Some(inode),
                    _ => None,
                },
            };
            let has_contents = inode.kind == FileKind::Regular
                && (self.state.lock().dirty.is_changed(ino)
                    || before.as_ref().is_none_or(|before| before.size != inode.size));
            if is_new || has_contents {
                files.push((ino, inode, is_new));
            } else if let Some(before) = before
                && let Some(what) = differences(&before, &inode, with_xattrs.contains(&ino))
            {
                dressed.push((ino, what));
            }
        }
        let names = |inode: &Inode| if inode.kind == FileKind::Directory { 1 } else { inode.nlink };
        let above =
            entries.iter().map(|change| (change.dir, 1)).chain(dressed.iter().map(|(ino, _)| (*ino, 1)));
        let wanted = above.chain(files.iter().map(|(ino, inode, _)| (*ino, names(inode)))).collect();
        let found = self.whereabouts(&wanted).await;
        let added = self.added_paths(&entries, &found);
        for (ino, inode, is_new) in files {
            let paths = self.paths_of(&found, ino);
            unsent.files.push(UnsentFile { attr: Attr::of(ino, &inode, None), paths, is_new });
        }
        unsent.files.sort_by(|a, b| a.paths.cmp(&b.paths));
        unsent.changes = self.name_changes(&entries, &added, &found, next_ino);
        let dressed = dressed.into_iter().map(|(ino, what)| (self.path_of(&found, ino), what));
        unsent.changes.extend(dressed.map(|(path, what)| UnsentChange::Attributes(path, what)));
        Ok(unsent)
    }

    /// A record as the last commit had it. Once that `is_lost`, only what is in memory is asked: rather a file too
    /// many is taken for changed than none is saved.
    async fn committed_or_known(&self, key: Key, is_lost: &mut bool) -> Option<Record> {
        if !*is_lost {
            match self.read_txn(|txn| txn.committed(key)).await {
                Ok(record) => return record,
                Err(error) => {
                    tracing::warn!(%error, "the last commit cannot be read; what is in memory is saved");
                    *is_lost = true;
                }
            }
        }
        self.state.lock().overlay.committed(&key).flatten()
    }

    async fn entry_changes(
        &self,
        changes: Vec<(Key, Option<Record>)>,
        is_lost: &mut bool,
    ) -> Vec<EntryChange> {
        let entry = |record: Option<Record>| match record {
            Some(Record::Entry(entry)) => Some(entry),
            _ => None,
        };
        let mut all = Vec::with_capacity(changes.len());
        for (key, is) in changes {
            let Key::Entry(dir, tag) = key else { continue };
            let was = entry(self.committed_or_known(key, is_lost).await);
            all.push(EntryChange { dir, tag, is: entry(is), was });
        }
        all
    }

    /// The new names of inodes.
    fn added_paths(&self, entries: &[EntryChange], found: &Whereabouts) -> HashMap<Ino, Vec<Vec<u8>>> {
        let mut added: HashMap<Ino, Vec<Vec<u8>>> = HashMap::new();
        for change in entries {
            if let Some(is) = &change.is
                && change.was.as_ref().is_none_or(|was| was.ino != is.ino)
            {
                let path = self.path_in(found, change.dir, change.tag, &is.name);
                added.entry(is.ino).or_default().push(path);
            }
        }
        added
    }

    /// What was done to names of what the volume has, in words.
    fn name_changes(
        &self,
        entries: &[EntryChange],
        added: &HashMap<Ino, Vec<Vec<u8>>>,
        found: &Whereabouts,
        next_ino: u64,
    ) -> Vec<UnsentChange> {
        let mut changes = Vec::new();
        let mut renamed: HashMap<Ino, usize> = HashMap::new();
        for change in entries {
            let Some(was) = &change.was else { continue };
            if change.is.as_ref().is_some_and(|is| is.ino == was.ino) {
                continue;
            }
            let path = self.path_in(found, change.dir, change.tag, &was.name);
            let nth = renamed.entry(was.ino).or_default();
            match added.get(&was.ino).and_then(|paths| paths.get(*nth)) {
                Some(to) => {
                    *nth += 1;
                    changes.push(UnsentChange::Renamed(path, to.clone()));
                }
                // Replaced by what is told of itself, it need not be told.
                None if change.is.is_some() => {}
                None => changes.push(UnsentChange::Removed(path)),
            }
        }
        for (ino, paths) in added.iter().filter(|(ino, _)| ino.0 < next_ino) {
            let told = renamed.get(ino).copied().unwrap_or(0);
            changes.extend(paths.iter().skip(told).cloned().map(UnsentChange::Linked));
        }
        changes.sort_by_key(|change| format!("{change:?}"));
        changes
    }

    /// Gives the contents of `file` to `take`, part by part; what was not in the bucket always, and around it what
    /// can be read. `is_away` says that the bucket shall not be asked, and is set when it does not answer.
    ///
    /// # Errors
    /// Those of `take`.
    pub async fn recall<E>(
        &self,
        file: &UnsentFile,
        is_away: &mut bool,
        take: &mut (dyn FnMut(Part) -> Result<(), E> + Send),
    ) -> Result<(), E> {
        let (ino, size) = (file.attr.ino, file.attr.size);
        let whole = file.is_new || size <= WHOLE_BYTES_MAX;
        let changed = self.state.lock().dirty.changed_blocks(ino);
        let mut at = 0;
        while at < size {
            let next = self.next_block(ino, at, whole, &changed, is_away).await;
            let next = next.map_or(size, |index| BlockIndex(index).start().max(at));
            if next > at && !whole {
                let why = "it was in the bucket already".to_owned();
                take(Part::Absent(at..next.min(size), why))?;
            }
            if next >= size {
                break;
            }
            let end = (BlockIndex::of(next).start() + BLOCK_LEN).min(size);
            for part in self.recall_block(ino, next..end, is_away).await {
                take(part)?;
            }
            at = end;
        }
        Ok(())
    }

    /// The next block to be told, from the one at `offset` on; `None` if the rest is a hole, or not to be told.
    async fn next_block(
        &self,
        ino: Ino,
        offset: u64,
        whole: bool,
        changed: &std::collections::BTreeSet<u64>,
        is_away: &mut bool,
    ) -> Option<u64> {
        let index = BlockIndex::of(offset).0;
        if !whole {
            return changed.range(index..).next().copied();
        }
        if *is_away {
            return Some(index);
        }
        match self.seek(ino, offset, SeekFor::Data).await {
            Ok(found) => Some(BlockIndex::of(found).0),
            Err(VfsError::NoData) => None,
            Err(error) => {
                *is_away |= error.is_passing();
                Some(index)
            }
        }
    }

    async fn recall_block(&self, ino: Ino, range: Range<u64>, is_away: &mut bool) -> Vec<Part> {
        let why = if *is_away {
            "the bucket does not answer".to_owned()
        } else {
            let len = (range.end - range.start) as usize;
            match self.read(Handle(0), ino, range.start, len).await {
                Ok(bytes) => return vec![Part::Data(range.start, bytes)],
                Err(error) => {
                    *is_away |= error.is_passing();
                    error.to_string()
                }
            }
        };
        self.remembered(ino, range, &why)
    }

    /// What is in memory of a part of one block, and what is not.
    fn remembered(&self, ino: Ino, range: Range<u64>, why: &str) -> Vec<Part> {
        let index = BlockIndex::of(range.start);
        let from = (range.start - index.start()) as usize;
        let len = ((range.end - range.start) as usize).min(BLOCK_BYTES);
        // Painted over two backgrounds, what was written is what comes out the same.
        let (mut over_zeros, mut over_ones) = (vec![0; len], vec![0xFF; len]);
        let state = self.state.lock();
        let paint = state.dirty.paint_of(ino, index.0);
        match state.dirty.beneath(ino, index.0) {
            Beneath::Zeros => over_ones.fill(0),
            Beneath::Bytes(bytes) => {
                let known = bytes.get(from.min(bytes.len())..).unwrap_or_default();
                over_zeros.iter_mut().zip(known).for_each(|(to, byte)| *to = *byte);
                over_ones.clone_from(&over_zeros);
            }
            Beneath::Place(_) | Beneath::Committed => {}
        }
        drop(state);
        paint.apply(&mut over_zeros, from);
        paint.apply(&mut over_ones, from);
        let is_known: Vec<bool> = over_zeros.iter().zip(&over_ones).map(|(zero, one)| zero == one).collect();
        let mut parts = Vec::new();
        let mut at = 0;
        for run in is_known.chunk_by(|a, b| a == b) {
            let (start, end) = (at, at + run.len());
            at = end;
            let offset = range.start + start as u64;
            parts.push(match run.first() {
                Some(true) => {
                    Part::Data(offset, over_zeros.get(start..end).map(<[u8]>::to_vec).unwrap_or_default())
                }
                _ => Part::Absent(offset..range.start + end as u64, why.to_owned()),
            });
        }
        parts
    }

    /// Every extended attribute of an unsent file: name and value.
    ///
    /// # Errors
    /// One cannot be read.
    pub async fn unsent_xattrs(&self, ino: Ino) -> Result<Vec<(Vec<u8>, Vec<u8>)>, VfsError> {
        let names = self.list_xattr(ino).await?;
        let mut all = Vec::new();
        for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
            all.push((name.to_vec(), self.get_xattr(ino, name).boxed().await?));
        }
        Ok(all)
    }
}

const fn xattr_owner(key: Key) -> Option<Ino> {
    match key {
        Key::Xattr(ino, _) => Some(ino),
        _ => None,
    }
}

/// What is different about attributes that somebody has set, as they are now.
fn differences(before: &Inode, now: &Inode, has_xattrs: bool) -> Option<String> {
    let mut words = Vec::new();
    if before.perm != now.perm {
        words.push(format!("mode {:04o}", now.perm));
    }
    if (before.uid, before.gid) != (now.uid, now.gid) {
        words.push(format!("owner {}:{}", now.uid, now.gid));
    }
    // A directory's changes with every entry.
    if before.mtime != now.mtime && now.kind != FileKind::Directory {
        words.push(format!("time of change {}.{:09}", now.mtime.secs, now.mtime.nanos));
    }
    if has_xattrs {
        words.push("extended attributes".to_owned());
    }
    (!words.is_empty()).then(|| words.join(", "))
}
