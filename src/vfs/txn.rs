//! One operation's view of the tree: it reads, decides, and applies all at once or not at all.
//!
//! An operation is a closure over [`Txn`]. It runs under the lock and never waits. When it needs a
//! record that is not in memory it stops with [`Halt::Missing`]; the caller loads the record and
//! runs the closure again from its start. Changes are kept aside until the closure returns, so a run
//! that stops leaves nothing behind, and so does an operation whose caller goes away.

use std::sync::Arc;

use crate::base::{FileKind, Ino, Name, Tag, Time};
use crate::data::Dirty;
use crate::meta::{Entry, Inode, Key, MetaError, Record};

use super::VfsError;
use super::state::State;

/// Why a run of an operation stopped.
#[derive(Debug)]
pub(super) enum Halt {
    /// These records are needed first.
    Missing(Vec<Key>),
    /// It failed.
    Fail(VfsError),
}

impl From<VfsError> for Halt {
    fn from(error: VfsError) -> Self {
        Self::Fail(error)
    }
}

impl From<MetaError> for Halt {
    fn from(error: MetaError) -> Self {
        Self::Fail(error.into())
    }
}

/// The name of an entry, as it is stored and as it reads.
pub(super) struct EntryName {
    pub(super) tag: Tag,
    pub(super) sealed: Vec<u8>,
    pub(super) plain: Name,
}

/// What an operation sees and changes.
pub(super) struct Txn<'a> {
    state: &'a mut State,
    changes: Vec<(Key, Option<Record>)>,
    born: Vec<(Ino, Inode)>,
    /// The file of which nothing but the contents is changed.
    written: Option<Ino>,
    /// Whether all files below a directory get other paths.
    moves_tree: bool,
    /// The time of the operation.
    pub(super) now: Time,
}

impl<'a> Txn<'a> {
    pub(super) fn new(state: &'a mut State, now: Time) -> Self {
        Self { state, changes: Vec::new(), born: Vec::new(), written: None, moves_tree: false, now }
    }

    /// The record under `key`.
    pub(super) fn get(&mut self, key: Key) -> Result<Option<Record>, Halt> {
        if let Some((_, record)) = self.changes.iter().rev().find(|(changed, _)| *changed == key) {
            return Ok(record.clone());
        }
        self.state.overlay.get(&key).ok_or_else(|| Halt::Missing(vec![key]))
    }

    /// The record under `key` as the last commit left it.
    pub(super) fn committed(&mut self, key: Key) -> Result<Option<Record>, Halt> {
        self.state.overlay.committed(&key).ok_or_else(|| Halt::Missing(vec![key]))
    }

    /// Makes sure that all of `keys` are in memory, so that they are loaded side by side.
    pub(super) fn want(&mut self, keys: &[Key]) -> Result<(), Halt> {
        let missing: Vec<Key> =
            keys.iter().filter(|key| self.state.overlay.get(key).is_none()).copied().collect();
        if missing.is_empty() { Ok(()) } else { Err(Halt::Missing(missing)) }
    }

    /// As [`Txn::want`], for records as the last commit left them.
    pub(super) fn want_committed(&mut self, keys: &[Key]) -> Result<(), Halt> {
        let missing: Vec<Key> =
            keys.iter().filter(|key| self.state.overlay.committed(key).is_none()).copied().collect();
        if missing.is_empty() { Ok(()) } else { Err(Halt::Missing(missing)) }
    }

    /// Changes the record under `key`.
    pub(super) fn put(&mut self, key: Key, record: Option<Record>) {
        self.changes.push((key, record));
    }

    /// The inode `ino`.
    pub(super) fn inode(&mut self, ino: Ino) -> Result<Arc<Inode>, Halt> {
        if let Some((_, inode)) = self.born.iter().find(|(born, _)| *born == ino) {
            return Ok(Arc::new(inode.clone()));
        }
        match self.get(Key::Inode(ino))? {
            Some(Record::Inode(inode)) => Ok(self.state.with_atime(ino, inode)),
            _ => Err(VfsError::NoEntry.into()),
        }
    }

    /// The directory `ino`.
    pub(super) fn directory(&mut self, ino: Ino) -> Result<Arc<Inode>, Halt> {
        let inode = self.inode(ino)?;
        if inode.kind == FileKind::Directory { Ok(inode) } else { Err(VfsError::NotDirectory.into()) }
    }

    /// The regular file `ino`.
    pub(super) fn regular(&mut self, ino: Ino) -> Result<Arc<Inode>, Halt> {
        let inode = self.inode(ino)?;
        match inode.kind {
            FileKind::Regular => Ok(inode),
            FileKind::Directory => Err(VfsError::IsDirectory.into()),
            _ => Err(VfsError::InvalidInput.into()),
        }
    }

    /// The inode `ino`, which an entry promises.
    pub(super) fn promised(&mut self, ino: Ino) -> Result<Arc<Inode>, Halt> {
        match self.get(Key::Inode(ino))? {
            Some(Record::Inode(inode)) => Ok(self.state.with_atime(ino, inode)),
            _ => Err(MetaError::Missing(Key::Inode(ino)).into()),
        }
    }

    /// Changes an inode.
    pub(super) fn put_inode(&mut self, ino: Ino, inode: Arc<Inode>) {
        self.put(Key::Inode(ino), Some(Record::Inode(inode)));
    }

    /// Changes the inode of a file of which nothing but contents and size changes, and the times that tell of it.
    pub(super) fn put_written(&mut self, ino: Ino, inode: Arc<Inode>) {
        self.written = Some(ino);
        self.put_inode(ino, inode);
    }

    /// Says that all files below a directory get other paths.
    pub(super) const fn move_tree(&mut self) {
        self.moves_tree = true;
    }

    /// The entry of `dir` under the tag of a name.
    pub(super) fn entry(&mut self, dir: Ino, tag: Tag) -> Result<Option<Arc<Entry>>, Halt> {
        match self.get(Key::Entry(dir, tag))? {
            Some(Record::Entry(entry)) => Ok(Some(entry)),
            _ => Ok(None),
        }
    }

    /// Adds or replaces an entry.
    pub(super) fn put_entry(&mut self, dir: Ino, name: &EntryName, ino: Ino, kind: FileKind) {
        // Who lists it next need not open its name.
        let opened = name.plain.clone().into();
        let entry = Entry { opened, ..Entry::new(name.sealed.clone(), ino, kind) };
        self.put(Key::Entry(dir, name.tag), Some(Record::Entry(Arc::new(entry))));
    }

    /// Adds an inode under a number never used before.
    ///
    /// # Errors
    /// [`VfsError::NoSpace`] if there is none, as nobody makes so many files but who writes the last number down.
    pub(super) fn bear(&mut self, inode: Inode) -> Result<Ino, VfsError> {
        let ino = self.state.next_ino.saturating_add(self.born.len() as u64);
        if ino == u64::MAX {
            return Err(VfsError::NoSpace);
        }
        self.born.push((Ino(ino), inode));
        Ok(Ino(ino))
    }

    /// Bytes that are about to be added to what is stored of `ino`, if anything of it changes.
    pub(super) fn pending_of(&self, ino: Ino) -> Option<u64> {
        self.state.dirty.pending_of(ino)
    }

    /// Whether someone refers to `ino` by other means than a name.
    pub(super) fn is_referred(&self, ino: Ino) -> bool {
        self.state.refs.holds(ino)
    }

    /// File contents. Changes to them are not kept aside: nothing may fail after the first.
    pub(super) const fn dirty(&mut self) -> &mut Dirty {
        &mut self.state.dirty
    }

    /// The rest of the state, for reading.
    pub(super) const fn state(&self) -> &State {
        self.state
    }

    /// Takes one reference to each of `inos`, as the kernel does with every entry it is given.
    pub(super) fn refer(&mut self, ino: Ino) {
        self.state.refs.take(ino);
    }

    /// Gives an inode that has lost its last name to its last users, or frees it.
    pub(super) fn release_unnamed(&mut self, ino: Ino, inode: Arc<Inode>) {
        if self.is_referred(ino) {
            self.put_inode(ino, inode);
            self.put(Key::Orphan(ino), Some(Record::Orphan));
        } else {
            self.put(Key::Inode(ino), None);
        }
    }

    /// Applies the changes.
    pub(super) fn apply(self) {
        let Self { state, changes, born, written, moves_tree, .. } = self;
        if moves_tree {
            state.overtaking.bind_all();
        }
        for (ino, inode) in born {
            state.next_ino = state.next_ino.max(ino.0 + 1);
            state.files_delta += 1;
            if inode.kind == FileKind::Directory {
                state.overlay.note_new_directory(ino);
            }
            state.overlay.put_new(Key::Inode(ino), Record::Inode(Arc::new(inode)));
        }
        for (key, record) in changes {
            match (key, record) {
                (Key::Inode(ino), None) => state.free(ino),
                // An inode loses its last name but once.
                (Key::Orphan(ino), Some(record)) => {
                    state.orphans.insert(ino);
                    state.overlay.put_new(key, record);
                }
                (key, record) => {
                    if let Key::Inode(ino) = key {
                        // The operation has seen it, and its record says so.
                        state.atimes.remove(&ino);
                        if written != Some(ino) {
                            state.overtaking.bind(ino);
                        }
                    }
                    state.overlay.put(key, record);
                }
            }
        }
    }
}
