//! What is not committed, over what is known of what is: the open group, the sealed one, a cache.
//!
//! A pure data structure: it asks nobody and waits for nothing. A key that it does not know is
//! loaded by its owner between [`Overlay::begin_load`] and [`Overlay::end_load`].

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use lru::LruCache;

use super::{Key, Record};

/// Records that stay in the cache whatever they weigh: an operation must find all that it has just
/// asked for.
const KEPT_MIN: usize = 256;

/// One changed key.
#[derive(Clone, Debug)]
struct Change {
    /// The new record; `None` deletes it.
    record: Option<Record>,
    /// Nothing lies under this key in older layers, so that deleting it leaves nothing to say.
    fresh: bool,
}

type Changes = BTreeMap<Key, Change>;

/// The layers of records that a reader looks through, newest first.
#[derive(Debug)]
pub struct Overlay {
    open: Changes,
    sealed: Option<Changes>,
    /// Records as the last commit left them; `None` says that there is none.
    cache: LruCache<Key, Option<Record>>,
    cache_bytes: usize,
    cache_bytes_max: usize,
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
            sealed: None,
            cache: LruCache::unbounded(),
            cache_bytes: 0,
            cache_bytes_max,
            loading: HashMap::new(),
            settled_count: 0,
        }
    }

    /// The record under `key`: `Some(None)` if there is none, `None` if it must be loaded.
    pub fn get(&mut self, key: &Key) -> Option<Option<Record>> {
        if let Some(change) = self.uncommitted(key) {
            return Some(change.record.clone());
        }
        self.cache.get(key).cloned()
    }

    /// The record under `key` as the last commit left it.
    pub fn committed(&mut self, key: &Key) -> Option<Option<Record>> {
        self.cache.get(key).cloned()
    }

    fn uncommitted(&self, key: &Key) -> Option<&Change> {
        self.open.get(key).or_else(|| self.sealed.as_ref()?.get(key))
    }

    /// Changes the record under `key` in the open group.
    pub fn put(&mut self, key: Key, record: Option<Record>) {
        let fresh = match self.open.get(&key) {
            Some(change) => change.fresh,
            None => {
                self.sealed.as_ref().is_none_or(|sealed| !sealed.contains_key(&key))
                    && matches!(self.cache.peek(&key), Some(None))
            }
        };
        self.put_change(key, record, fresh);
    }

    /// Adds a record under a key that has never been used.
    pub fn put_new(&mut self, key: Key, record: Record) {
        self.put_change(key, Some(record), true);
    }

    fn put_change(&mut self, key: Key, record: Option<Record>, fresh: bool) {
        if fresh && record.is_none() {
            self.open.remove(&key);
            self.remember(key, None);
        } else {
            self.open.insert(key, Change { record, fresh });
        }
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

    /// Closes the open group and opens the next.
    pub fn seal(&mut self) {
        debug_assert!(self.sealed.is_none(), "one group commits at a time");
        self.sealed = Some(std::mem::take(&mut self.open));
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
        let fresh = change.fresh && instead.is_none();
        if let Some(record) = instead {
            sealed.insert(key, Change { record: Some(record), fresh: change.fresh });
        }
        match self.open.get_mut(&key) {
            None => drop(self.open.insert(key, Change { record: change.record, fresh })),
            Some(newer) => newer.fresh = fresh,
        }
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
        self.settled_count += 1;
        for (key, record) in written {
            if let Some(loading) = self.loading.get_mut(&key) {
                loading.settled_at = self.settled_count;
            }
            self.remember(key, record);
        }
        self.evict();
    }

    /// Gives the open group's copy of an inode what the commit decided about its contents.
    pub fn patch_open(&mut self, key: &Key, patch: impl FnOnce(&mut Record)) {
        if let Some(Change { record: Some(record), .. }) = self.open.get_mut(key) {
            patch(record);
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
        self.cache_bytes += weight(record.as_ref());
        if let Some(old) = self.cache.put(key, record) {
            self.cache_bytes -= weight(old.as_ref());
        }
    }

    fn evict(&mut self) {
        while self.cache_bytes > self.cache_bytes_max && self.cache.len() > KEPT_MIN {
            let Some((_, old)) = self.cache.pop_lru() else { return };
            self.cache_bytes -= weight(old.as_ref());
        }
    }

    /// Bytes of the records that are cached, roughly.
    #[must_use]
    pub const fn cache_bytes(&self) -> usize {
        self.cache_bytes
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

fn weight(record: Option<&Record>) -> usize {
    96 + record.map_or(0, Record::weight)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::base::{FileKind, Ino, Tag};
    use crate::meta::Entry;

    fn entry(ino: u64) -> Record {
        Record::Entry(Arc::new(Entry { name: vec![], ino: Ino(ino), kind: FileKind::Regular }))
    }

    fn key(number: u8) -> Key {
        Key::Entry(Ino(1), Tag([number; 16]))
    }

    #[test]
    fn newer_layers_hide_older_ones() {
        let mut overlay = Overlay::new(1 << 20);
        overlay.put(key(1), Some(entry(1)));
        overlay.seal();
        assert_eq!(overlay.get(&key(1)), Some(Some(entry(1))));
        overlay.put(key(1), None);
        assert_eq!(overlay.get(&key(1)), Some(None));
        overlay.settle(vec![(key(1), Some(entry(1)))]);
        assert_eq!(overlay.get(&key(1)), Some(None));
        assert_eq!(overlay.committed(&key(1)), Some(Some(entry(1))));
        assert_eq!(overlay.get(&key(2)), None);
    }

    #[test]
    fn what_comes_and_goes_within_a_group_leaves_nothing() {
        let mut overlay = Overlay::new(1 << 20);
        overlay.put_new(key(1), entry(1));
        overlay.put(key(1), None);
        assert_eq!(overlay.open_count(), 0);
        let since = overlay.begin_load(key(2));
        overlay.end_load(key(2), since, Some(None));
        overlay.put(key(2), Some(entry(2)));
        overlay.put(key(2), None);
        assert_eq!(overlay.open_count(), 0);
        overlay.put(key(3), None);
        assert_eq!(overlay.open_count(), 1, "nobody knows what lies under it");
    }

    #[test]
    fn a_load_overtaken_by_a_commit_is_not_believed() {
        let mut overlay = Overlay::new(1 << 20);
        let since = overlay.begin_load(key(1));
        overlay.put(key(1), Some(entry(2)));
        overlay.seal();
        overlay.settle(vec![(key(1), Some(entry(2)))]);
        assert_eq!(overlay.end_load(key(1), since, Some(Some(entry(1)))), Load::Stale);
        assert_eq!(overlay.get(&key(1)), Some(Some(entry(2))));
    }

    #[test]
    fn two_that_load_the_same_key_do_not_keep_each_other_from_believing() {
        let mut overlay = Overlay::new(1 << 20);
        let (one, other) = (overlay.begin_load(key(1)), overlay.begin_load(key(1)));
        overlay.put(key(1), Some(entry(2)));
        overlay.seal();
        overlay.settle(vec![(key(1), Some(entry(2)))]);
        assert_eq!(overlay.end_load(key(1), one, Some(None)), Load::Stale);
        let again = overlay.begin_load(key(1));
        assert_eq!(overlay.end_load(key(1), other, Some(None)), Load::Stale);
        let other_again = overlay.begin_load(key(1));
        assert_eq!(overlay.end_load(key(1), again, Some(Some(entry(2)))), Load::Kept);
        assert_eq!(overlay.end_load(key(1), other_again, Some(Some(entry(2)))), Load::Kept);
    }

    #[test]
    fn the_cache_keeps_to_its_bytes() {
        let mut overlay = Overlay::new(1000);
        for number in 0..=255u64 {
            let since = overlay.begin_load(Key::Inode(Ino(number)));
            overlay.end_load(Key::Inode(Ino(number)), since, Some(None));
        }
        for number in 0..100 {
            let since = overlay.begin_load(key(number));
            overlay.end_load(key(number), since, Some(Some(entry(1))));
        }
        assert!(overlay.cache.len() <= KEPT_MIN);
        assert_eq!(overlay.get(&Key::Inode(Ino(0))), None);
        assert_eq!(overlay.get(&key(99)), Some(Some(entry(1))));
    }

    #[test]
    fn a_change_that_is_put_off_is_seen_as_before_and_not_committed() {
        let mut overlay = Overlay::new(1 << 20);
        overlay.put(key(1), Some(entry(1)));
        overlay.put_new(key(2), entry(2));
        overlay.put(key(3), Some(entry(3)));
        overlay.seal();
        overlay.put(key(3), Some(entry(30)));
        overlay.put_off(key(1), None);
        overlay.put_off(key(2), Some(entry(20)));
        overlay.put_off(key(3), None);
        overlay.put_off(key(4), None);
        let seen = [1, 2, 3].map(|number| overlay.get(&key(number)));
        assert_eq!(seen, [entry(1), entry(2), entry(30)].map(|record| Some(Some(record))));
        assert_eq!(overlay.sealed_changes(), vec![(key(2), Some(entry(20)))]);
        assert!(overlay.is_sealed_fresh(&key(2)) && overlay.is_open(&key(2)));
        overlay.settle(vec![(key(2), Some(entry(20)))]);
        overlay.seal();
        assert!(!overlay.is_sealed_fresh(&key(2)));
        assert_eq!(overlay.sealed_changes().len(), 3);
    }

    #[test]
    fn changes_between_merges_both_groups_in_order() {
        let mut overlay = Overlay::new(1 << 20);
        overlay.put(key(1), Some(entry(1)));
        overlay.put(key(3), Some(entry(3)));
        overlay.seal();
        overlay.put(key(2), Some(entry(2)));
        overlay.put(key(3), None);
        let all = overlay.changes_between(&key(0), &key(9), 10);
        assert_eq!(all, vec![(key(1), Some(entry(1))), (key(2), Some(entry(2))), (key(3), None)]);
        assert_eq!(overlay.changes_between(&key(0), &key(9), 2).len(), 2);
    }
}
