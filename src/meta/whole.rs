//! Directories that are known whole: what the cache of records has no entry of is not there, and they are listed from it.

use std::collections::BTreeMap;
use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;

use super::{Entry, Key, Record};
use crate::base::{Ino, Tag};

/// Directories beyond which those that were asked last about are forgotten.
const DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// Bytes that one entry takes here. Nodes of the map are little more than half full.
pub(super) const ENTRY_BYTES: usize = size_of::<(Tag, Arc<Entry>)>() * 11 / 6;

/// The entries of a directory, in the order in which they are listed.
pub(super) type Entries = BTreeMap<Tag, Arc<Entry>>;

/// The directories of which every committed entry is in the cache, and what those are.
#[derive(Debug)]
pub(super) struct Whole {
    directories: LruCache<Ino, Entries>,
    /// How many entries have left the cache.
    losses: u64,
}

impl Default for Whole {
    fn default() -> Self {
        Self { directories: LruCache::new(DIRECTORIES_MAX), losses: 0 }
    }
}

impl Whole {
    /// Every committed entry of `dir` is in the cache: these.
    pub(super) fn insert(&mut self, dir: Ino, entries: Entries) {
        self.directories.put(dir, entries);
    }

    /// A record is in the cache now, or it is known there that there is none.
    pub(super) fn note(&mut self, key: &Key, record: Option<&Record>) {
        let Key::Entry(dir, tag) = key else { return };
        let Some(entries) = self.directories.peek_mut(dir) else { return };
        match record {
            Some(Record::Entry(entry)) => drop(entries.insert(*tag, Arc::clone(entry))),
            _ => drop(entries.remove(tag)),
        }
    }

    /// Up to `limit` records in `from..to`, in order, if these are entries of one directory that is known whole.
    pub(super) fn between(&self, from: &Key, to: &Key, limit: usize) -> Option<Vec<(Key, Record)>> {
        let Key::Entry(dir, first) = *from else { return None };
        let is_all = *to == Key::Entry(Ino(dir.0.saturating_add(1)), Tag([0; 16]));
        let entries = self.directories.peek(&dir).filter(|_| is_all)?;
        let found = entries.range(first..).take(limit);
        Some(found.map(|(tag, entry)| (Key::Entry(dir, *tag), Record::Entry(Arc::clone(entry)))).collect())
    }

    /// Whether every committed entry of `dir` is in the cache.
    pub(super) fn contains(&self, dir: Ino) -> bool {
        self.directories.contains(&dir)
    }

    /// Whether `key`, which is not in the cache, is an entry of such a directory, so that it is nowhere.
    pub(super) fn lacks(&self, key: &Key) -> bool {
        matches!(key, Key::Entry(dir, _) if self.directories.contains(dir))
    }

    /// A record that there is has left the cache.
    pub(super) fn lose(&mut self, key: &Key) {
        if let Key::Entry(dir, _) = key {
            self.losses += 1;
            self.directories.pop(dir);
        }
    }

    /// How many entries have left the cache so far.
    pub(super) const fn losses(&self) -> u64 {
        self.losses
    }

    /// Nothing is in the cache any more.
    pub(super) fn clear(&mut self) {
        self.losses += 1;
        self.directories.clear();
    }
}
