//! What is not committed, over what is known of what is: the open group, the sealed one, a cache.
//!
//! A pure data structure: it asks nobody and waits for nothing. A key that it does not know is
//! loaded by its owner between [`Overlay::begin_load`] and [`Overlay::end_load`].

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;
use std::sync::Arc;

use lru::LruCache;

use super::whole::{self, Whole};
use super::{Key, Record};
use crate::base::{Ino, Tag};

/// Records that stay in the cache whatever they weigh: an operation must find all that it has just
/// asked for.
const KEPT_MIN: usize = 256;

/// Bytes that a cached record takes beside what it points to: its place in the list, and in the table of keys.
const CACHED_BYTES: usize = size_of::<(Key, Option<Record>)>() + 64;
/// The same of a changed record. Nodes of the map are little more than half full.
const CHANGED_BYTES: usize = size_of::<(Key, Change)>() * 11 / 6;

/// One changed key.
#[derive(Clone, Debug)]
struct Change {
    /// The new record; `None` deletes it.
    record: Option<Record>,
    /// Nothing lies under this key in older layers, so that deleting it leaves nothing to say.
    fresh: bool,
}

type Changes = BTreeMap<Key, Change>;
type Cache = LruCache<Key, Option<Record>>;

/// The layers of records that a reader looks through, newest first.
#[derive(Debug)]
pub struct Overlay {
    open: Changes,
    open_bytes: usize,
    sealed: Option<Changes>,
    sealed_bytes: usize,
    /// Records as the last commit left them; `None` says that there is none.
    cache: Cache,
    cache_bytes: usize,
    cache_bytes_max: usize,
    /// Directories of which every committed entry is in the cache.
    whole: Whole,
    loading: HashMap<Key, Loading>,
    settled_count: u64,
}

#[derive(Debug, Default)]
struct Loading {
    loader_count: u32,
    /// The latest commit that changed the key while it was loaded.
    settled_at: u64,
}

/// What [`Overlay::end_load`] made of a loaded record.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Load {
    /// It is known now.
    Kept,
    /// A commit changed it while it was loaded: load it again.
    Stale,
}

impl Overlay {
    /// An overlay that keeps about `cache_bytes_max` of committed records.
    #[must_use]
    pub fn new(cache_bytes_max: usize) -> Self {
        Self {
            open: BTreeMap::new(),
            open_bytes: 0,
            sealed: None,
            sealed_bytes: 0,
            cache: LruCache::unbounded(),
            cache_bytes: 0,
            cache_bytes_max,
            whole: Whole::default(),
            loading: HashMap::new(),
            settled_count: 0,
        }
    }

    /// The record under `key`: `Some(None)` if there is none, `None` if it must be loaded.
    pub fn get(&mut self, key: &Key) -> Option<Option<Record>> {
        Some(self.look(key)?.cloned())
    }

    /// As [`Overlay::get`], for who needs it only as long as nobody else may change anything.
    pub fn look(&mut self, key: &Key) -> Option<Option<&Record>> {
        let keeps_order = self.keeps_order();
        match self.open.get(key).or_else(|| self.sealed.as_ref()?.get(key)) {
            Some(change) => Some(change.record.as_ref()),
            None => committed(&mut self.cache, &self.whole, keeps_order, key),
        }
    }

    /// The record under `key` as the last commit left it.
    pub fn committed(&mut self, key: &Key) -> Option<Option<Record>> {
        let keeps_order = self.keeps_order();
        Some(committed(&mut self.cache, &self.whole, keeps_order, key)?.cloned())
    }

    /// Whether it matters which record was used last. While the cache is not half full nothing leaves it, and to move one
    /// would touch three others.
    const fn keeps_order(&self) -> bool {
        self.cache_bytes >= self.cache_bytes_max / 2
    }

    /// Whether it is known that the last commit left nothing under `key`.
    fn is_known_absent(&self, key: &Key) -> bool {
        match self.cache.peek(key) {
            Some(record) => record.is_none(),
            None => self.whole.lacks(key),
        }
    }

    /// A directory has just been made, under a number never used before: no commit has an entry of it.
    pub fn note_new_directory(&mut self, dir: Ino) {
        self.whole.insert(dir, whole::Entries::new());
    }

    /// Someone begins to scan all entries of a directory. Gives what [`Overlay::end_whole_scan`] wants to know.
    #[must_use]
    pub const fn begin_whole_scan(&self) -> (u64, u64) {
        (self.settled_count, self.whole.losses())
    }

    /// Someone who began with `begun` has scanned all entries of a directory, and all have been remembered. It counts
    /// only if no commit came in between and no entry has left the cache.
    pub fn end_whole_scan(&mut self, dir: Ino, begun: (u64, u64), tags: Vec<Tag>) {
        if begun == self.begin_whole_scan() {
            // The scan may have shown some that no commit has.
            let committed = tags.into_iter().filter_map(|tag| match self.cache.peek(&Key::Entry(dir, tag)) {
                Some(Some(Record::Entry(entry))) => Some((tag, Arc::clone(entry))),
                _ => None,
            });
            self.whole.insert(dir, committed.collect());
        }
    }

    /// Whether every committed entry of a directory is in the cache.
    #[must_use]
    pub fn is_whole(&self, dir: Ino) -> bool {
        self.whole.contains(dir)
    }

    /// Up to `limit` records with keys in `from..to` as the last commit left them, in order, if these are entries of one
    /// directory that is known whole.
    pub fn whole_between(&mut self, from: &Key, to: &Key, limit: usize) -> Option<Vec<(Key, Record)>> {
        let found = self.whole.between(from, to, limit)?;
        if self.keeps_order() {
            for (key, _) in &found {
                self.cache.promote(key);
            }
        }
        Some(found)
    }

    /// Changes the record under `key` in the open group.
    pub fn put(&mut self, key: Key, record: Option<Record>) {
        let fresh = match self.open.get(&key) {
            Some(change) => change.fresh,
            None => {
                self.sealed.as_ref().is_none_or(|sealed| !sealed.contains_key(&key))
                    && self.is_known_absent(&key)
            }
        };
        self.put_change(key, record, fresh);
    }

    /// Adds a record under a key that has never been used.
    pub fn put_new(&mut self, key: Key, record: Record) {
        self.put_change(key, Some(record), true);
    }

    fn put_change(&mut self, key: Key, record: Option<Record>, fresh: bool) {
        let old = if fresh && record.is_none() {
            self.remember(key, None);
            self.evict();
            self.open.remove(&key)
        } else {
            self.open_bytes += changed_bytes(record.as_ref());
            self.open.insert(key, Change { record, fresh })
        };
        self.open_bytes -= old.map_or(0, |old| changed_bytes(old.record.as_ref()));
    }

    /// Whether the open group changes `key`.
    #[must_use]
    pub fn is_open(&self, key: &Key) -> bool {
        self.open.contains_key(key)
    }

    /// Whether the sealed group changes `key`.
    #[must_use]
    pub fn is_sealed(&self, key: &Key) -> bool {
        self.sealed.as_ref().is_some_and(|sealed| sealed.contains_key(key))
    }

    /// Whether the sealed group brings `key` as a new one, with nothing under it.
    #[must_use]
    pub fn is_sealed_fresh(&self, key: &Key) -> bool {
        self.sealed.as_ref().and_then(|sealed| sealed.get(key)).is_some_and(|change| change.fresh)
    }

    /// Records changed in the open group.
    #[must_use]
    pub fn open_count(&self) -> usize {
        self.open.len()
    }

    /// Bytes in memory of what the open group changes.
    #[must_use]
    pub const fn open_bytes(&self) -> usize {
        self.open_bytes
    }

    /// Bytes in memory of all that is not committed.
    #[must_use]
    pub const fn changed_bytes(&self) -> usize {
        self.open_bytes + self.sealed_bytes
    }

    /// Closes the open group and opens the next.
    pub fn seal(&mut self) {
        debug_assert!(self.sealed.is_none(), "one group commits at a time");
        self.sealed = Some(std::mem::take(&mut self.open));
        self.sealed_bytes = std::mem::take(&mut self.open_bytes);
    }

    /// The record under `key` as the sealed group leaves it.
    #[must_use]
    pub fn sealed(&self, key: &Key) -> Option<&Record> {
        self.sealed.as_ref()?.get(key)?.record.as_ref()
    }

    /// Moves the sealed group's change of `key` into the open one, under what that has made of it since, and leaves
    /// `instead` in its place; without it the key is what it was before the sealed group.
    pub fn put_off(&mut self, key: Key, instead: Option<Record>) {
        let Some(sealed) = self.sealed.as_mut() else { return };
        let Some(change) = sealed.remove(&key) else { return };
        self.sealed_bytes -= changed_bytes(change.record.as_ref());
        let fresh = change.fresh && instead.is_none();
        if let Some(record) = instead {
            self.sealed_bytes += changed_bytes(Some(&record));
            sealed.insert(key, Change { record: Some(record), fresh: change.fresh });
        }
        match self.open.get_mut(&key) {
            None => {
                self.open_bytes += changed_bytes(change.record.as_ref());
                self.open.insert(key, Change { record: change.record, fresh });
            }
            Some(newer) => newer.fresh = fresh,
        }
    }

    /// Gives the sealed group up: what it changes goes into the open one, under what that has made of it since. Gives the
    /// keys that it brought as new ones and that are gone again.
    pub fn unseal(&mut self) -> Vec<Key> {
        let mut gone = Vec::new();
        for (key, change) in self.sealed.take().unwrap_or_default() {
            match self.open.get_mut(&key) {
                Some(newer) if change.fresh && newer.record.is_none() => {
                    self.put_change(key, None, true);
                    gone.push(key);
                }
                Some(newer) => newer.fresh = change.fresh,
                None => {
                    self.open_bytes += changed_bytes(change.record.as_ref());
                    self.open.insert(key, change);
                }
            }
        }
        self.sealed_bytes = 0;
        gone
    }

    /// The sealed group's changes.
    #[must_use]
    pub fn sealed_changes(&self) -> Vec<(Key, Option<Record>)> {
        let changes = self.sealed.iter().flat_map(|sealed| sealed.iter());
        changes.map(|(key, change)| (*key, change.record.clone())).collect()
    }

    /// The sealed group is committed, as `written`: from now on it is the past.
    pub fn settle(&mut self, written: Vec<(Key, Option<Record>)>) {
        self.sealed = None;
        self.sealed_bytes = 0;
        self.settled_count += 1;
        for (key, record) in written {
            if let Some(loading) = self.loading.get_mut(&key) {
                loading.settled_at = self.settled_count;
            }
            self.remember(key, record);
            self.evict();
        }
    }

    /// Gives the open group's copy of an inode what the commit decided about its contents.
    pub fn patch_open(&mut self, key: &Key, patch: impl FnOnce(&mut Record)) {
        if let Some(Change { record: Some(record), .. }) = self.open.get_mut(key) {
            self.open_bytes -= changed_bytes(Some(record));
            patch(record);
            self.open_bytes += changed_bytes(Some(record));
        }
    }

    /// Commits so far; a scan that saw two values of this must not be remembered.
    #[must_use]
    pub const fn settled_count(&self) -> u64 {
        self.settled_count
    }

    /// Forgets what is known of the past, because someone else has changed it.
    pub fn forget_committed(&mut self) {
        self.cache.clear();
        self.whole.clear();
        self.cache_bytes = 0;
        self.settled_count += 1;
        for loading in self.loading.values_mut() {
            loading.settled_at = self.settled_count;
        }
    }

    /// Someone begins to load `key`. Gives what [`Overlay::end_load`] wants to know.
    pub fn begin_load(&mut self, key: Key) -> u64 {
        self.loading.entry(key).or_default().loader_count += 1;
        self.settled_count
    }

    /// Someone who began at `since` has loaded `key`, or given up (`None`).
    pub fn end_load(&mut self, key: Key, since: u64, loaded: Option<Option<Record>>) -> Load {
        let mut stale = false;
        if let Some(loading) = self.loading.get_mut(&key) {
            stale = loading.settled_at > since;
            loading.loader_count = loading.loader_count.saturating_sub(1);
            if loading.loader_count == 0 {
                self.loading.remove(&key);
            }
        }
        match loaded {
            Some(_) if stale => Load::Stale,
            Some(record) => {
                self.remember(key, record);
                self.evict();
                Load::Kept
            }
            None => Load::Kept,
        }
    }

    /// Remembers a committed record found by a scan that began at `settled_count`.
    pub fn remember_scanned(&mut self, settled_count: u64, key: Key, record: Record) {
        if settled_count == self.settled_count && !self.cache.contains(&key) {
            self.remember(key, Some(record));
            self.evict();
        }
    }

    fn remember(&mut self, key: Key, record: Option<Record>) {
        self.whole.note(&key, record.as_ref());
        self.cache_bytes += cached_bytes(record.as_ref());
        if let Some(old) = self.cache.put(key, record) {
            self.cache_bytes -= cached_bytes(old.as_ref());
        }
    }

    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max && self.cache.len() > KEPT_MIN {
            let Some((key, old)) = self.cache.pop_lru() else { return };
            self.cache_bytes -= cached_bytes(old.as_ref());
            if old.is_some() {
                self.whole.lose(&key);
            }
        }
    }

    /// Bytes in memory of the records that are cached.
    #[must_use]
    pub const fn cache_bytes(&self) -> usize {
        self.cache_bytes
    }

    /// The committed records that are in memory, in no particular order.
    pub fn cached(&self) -> impl Iterator<Item = (&Key, &Record)> {
        self.cache.iter().filter_map(|(key, record)| Some((key, record.as_ref()?)))
    }

    /// Up to `limit` uncommitted changes with keys in `from..to`, in order.
    #[must_use]
    pub fn changes_between(&self, from: &Key, to: &Key, limit: usize) -> Vec<(Key, Option<Record>)> {
        let range = (Bound::Included(*from), Bound::Excluded(*to));
        let mut newer = self.open.range(range).peekable();
        let empty = Changes::new();
        let mut older = self.sealed.as_ref().unwrap_or(&empty).range(range).peekable();
        let mut merged = Vec::new();
        while merged.len() < limit {
            let (new, old) = (newer.peek().map(|(key, _)| **key), older.peek().map(|(key, _)| **key));
            let take_newer = match (new, old) {
                (None, None) => break,
                (Some(_), None) => true,
                (None, Some(_)) => false,
                (Some(new), Some(old)) => new <= old,
            };
            if take_newer && new == old {
                older.next();
            }
            let next = if take_newer { newer.next() } else { older.next() };
            merged.extend(next.map(|(key, change)| (*key, change.record.clone())));
        }
        merged
    }
}

fn committed<'a>(
    cache: &'a mut Cache,
    whole: &Whole,
    keeps_order: bool,
    key: &Key,
) -> Option<Option<&'a Record>> {
    let cached = if keeps_order { cache.get(key) } else { cache.peek(key) };
    match cached {
        Some(record) => Some(record.as_ref()),
        None => whole.lacks(key).then_some(None),
    }
}

fn cached_bytes(record: Option<&Record>) -> usize {
    let whole = if matches!(record, Some(Record::Entry(_))) { whole::ENTRY_BYTES } else { 0 };
    CACHED_BYTES + whole + record.map_or(0, Record::heap_bytes)
}

fn changed_bytes(record: Option<&Record>) -> usize {
    CHANGED_BYTES + record.map_or(0, Record::heap_bytes)
}

#[cfg(test)]
mod tests;
