//! What is not committed, over what is known of what is: the open group, the sealed one, a cache.
//!
//! A pure data structure: it asks nobody and waits for nothing. A key that it does not know is
//! loaded by its owner between [`Overlay::begin_load`] and [`Overlay::end_load`].

use std::collections::{BTreeMap, HashMap};
use std::ops::Bound;

use lru::LruCache;

use super::whole::Whole;
use super::{Key, Record};
use crate::base::Ino;

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

/// The layers of records that a reader looks through, newest first.
#[derive(Debug)]
pub struct Overlay {
    open: Changes,
    open_bytes: usize,
    sealed: Option<Changes>,
    sealed_bytes: usize,
    /// Records as the last commit left them; `None` says that there is none.
    cache: LruCache<Key, Option<Record>>,
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
        if let Some(change) = self.uncommitted(key) {
            return Some(change.record.clone());
        }
        self.committed(key)
    }

    /// The record under `key` as the last commit left it.
    pub fn committed(&mut self, key: &Key) -> Option<Option<Record>> {
        match self.cache.get(key) {
            Some(record) => Some(record.clone()),
            None => self.whole.lacks(key).then_some(None),
        }
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
        self.whole.insert(dir);
    }

    /// Someone begins to scan all entries of a directory. Gives what [`Overlay::end_whole_scan`] wants to know.
    #[must_use]
    pub const fn begin_whole_scan(&self) -> (u64, u64) {
        (self.settled_count, self.whole.losses())
    }

    /// Someone who began with `begun` has scanned all entries of a directory, and all have been remembered. It counts
    /// only if no commit came in between and no entry has left the cache.
    pub fn end_whole_scan(&mut self, dir: Ino, begun: (u64, u64)) {
        if begun == self.begin_whole_scan() {
            self.whole.insert(dir);
        }
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

fn cached_bytes(record: Option<&Record>) -> usize {
    CACHED_BYTES + record.map_or(0, Record::heap_bytes)
}

fn changed_bytes(record: Option<&Record>) -> usize {
    CHANGED_BYTES + record.map_or(0, Record::heap_bytes)
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
    fn of_a_directory_that_is_known_whole_nothing_need_be_loaded() {
        let mut overlay = Overlay::new(1 << 20);
        assert_eq!(overlay.get(&key(1)), None);
        overlay.note_new_directory(Ino(1));
        assert_eq!(overlay.get(&key(1)), Some(None));
        overlay.put(key(1), Some(entry(1)));
        overlay.put(key(1), None);
        assert_eq!(overlay.open_count(), 0, "nothing lies under it");
        overlay.put(key(2), Some(entry(2)));
        overlay.seal();
        overlay.settle(overlay.sealed_changes());
        assert_eq!(overlay.get(&key(2)), Some(Some(entry(2))));
        assert_eq!(overlay.committed(&key(3)), Some(None));
        overlay.forget_committed();
        assert_eq!([overlay.get(&key(2)), overlay.get(&key(3))], [None, None]);
    }

    #[test]
    fn a_directory_is_whole_no_more_when_an_entry_of_it_leaves_the_cache() {
        let mut overlay = Overlay::new(0);
        overlay.note_new_directory(Ino(1));
        overlay.put(key(1), Some(entry(1)));
        overlay.seal();
        overlay.settle(overlay.sealed_changes());
        assert_eq!(overlay.get(&key(2)), Some(None));
        for number in 0..KEPT_MIN as u64 {
            let since = overlay.begin_load(Key::Inode(Ino(number)));
            overlay.end_load(Key::Inode(Ino(number)), since, Some(None));
        }
        assert_eq!([overlay.get(&key(1)), overlay.get(&key(2))], [None, None]);
    }

    #[test]
    fn a_scan_that_a_commit_or_a_loss_has_overtaken_makes_nothing_whole() {
        let mut overlay = Overlay::new(0);
        let begun = overlay.begin_whole_scan();
        overlay.remember_scanned(0, key(1), entry(1));
        overlay.end_whole_scan(Ino(1), begun);
        assert_eq!(overlay.get(&key(2)), Some(None));

        let begun = overlay.begin_whole_scan();
        overlay.seal();
        overlay.settle(vec![]);
        overlay.end_whole_scan(Ino(7), begun);
        assert_eq!(overlay.get(&Key::Entry(Ino(7), Tag([0; 16]))), None);

        let begun = overlay.begin_whole_scan();
        (0..=255).for_each(|number| overlay.remember_scanned(1, key(number), entry(1)));
        overlay.remember_scanned(1, Key::Inode(Ino(5)), entry(1));
        overlay.end_whole_scan(Ino(1), begun);
        let missing = (0..=255).filter(|number| overlay.get(&key(*number)).is_none()).count();
        assert_eq!(missing, 1, "the one that left is asked for again");
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
    fn bytes_are_counted_along_with_every_change() {
        fn recount(overlay: &Overlay) {
            let sum =
                |changes: &Changes| changes.values().map(|c| changed_bytes(c.record.as_ref())).sum::<usize>();
            assert_eq!(overlay.open_bytes(), sum(&overlay.open));
            let sealed = overlay.sealed.as_ref().map_or(0, sum);
            assert_eq!(overlay.changed_bytes(), overlay.open_bytes() + sealed);
        }
        let named = |bytes: usize| {
            Record::Entry(Arc::new(Entry { name: vec![1; bytes], ino: Ino(1), kind: FileKind::Regular }))
        };
        let mut overlay = Overlay::new(1 << 20);
        for number in 0..20 {
            overlay.put_new(key(number), named(10 * usize::from(number)));
            overlay.put(key(number / 2), Some(named(7)));
            overlay.put(key(number / 3), None);
            recount(&overlay);
        }
        overlay.seal();
        recount(&overlay);
        for number in 0..20 {
            if number % 3 == 0 {
                overlay.put(key(number), Some(named(100)));
            }
            overlay.put_off(key(number), (number % 2 == 0).then(|| named(3)));
            overlay.patch_open(&key(number), |record| *record = named(50));
            recount(&overlay);
        }
        overlay.settle(overlay.sealed_changes());
        recount(&overlay);
        (0..20).for_each(|number| overlay.put(key(number), None));
        recount(&overlay);
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
