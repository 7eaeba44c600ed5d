//! Loads what lies around a record, for whoever asks for one after the other.
//!
//! A record that is not in memory costs a look into the engine, one by one. Who looks up many names of one directory, or goes through
//! files in the order in which they were made, is given the rest by a scan, which costs about a quarter for each. A directory that was
//! scanned as a whole also needs no look for names that it does not have.

use std::num::NonZeroUsize;

use lru::LruCache;

use crate::base::{Ino, Tag};
use crate::meta::{Key, Record};

use super::{Vfs, VfsError};

/// Directories that are kept in mind.
const DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(31);
/// Larger directories are not scanned for the sake of single names.
const ENTRIES_MAX: u64 = 8192;
/// Bytes that a record of a directory takes in memory, about.
const ENTRY_BYTES: u64 = 300;
/// Smaller ones are listed by one scan in any case.
const LISTED_MIN: u64 = 32;
/// A directory is scanned when one in so many of its entries has been asked for.
const SHARE: u64 = 32;
/// Entries read from the engine at a time.
const SCAN_COUNT_MAX: usize = 4096;
/// An inode number this little above the last one is taken for the next of a walk.
const STEP_MAX: u64 = 64;
/// Inodes that are loaded at once by who has walked for long.
const WALK_COUNT_MAX: usize = 512;
const WALK_COUNT_MIN: usize = 16;

/// Who asks for what lies together.
#[derive(Debug)]
pub(super) struct Walks {
    /// How often names of a directory have been asked for that were not in memory.
    directories: LruCache<Ino, u64>,
    /// The last inode that was loaded, and how many were loaded with it.
    inode: Option<(Ino, usize)>,
}

impl Default for Walks {
    fn default() -> Self {
        Self { directories: LruCache::new(DIRECTORIES_MAX), inode: None }
    }
}

impl Walks {
    /// A name of a directory with so many entries is looked for. Whether to scan them all.
    fn ask_entry(&mut self, dir: Ino, entries: u64) -> bool {
        let asked = self.directories.get_or_insert_mut(dir, || 0);
        *asked += 1;
        let is_due = *asked > 1 + entries / SHARE;
        if is_due {
            // If that does not help, it will not help again soon.
            *asked = 0;
        }
        is_due
    }

    /// An inode is looked for. How many to load from it on, if it is not the only one.
    fn ask_inode(&mut self, ino: Ino) -> Option<usize> {
        let count = match self.inode {
            Some((last, count)) if ino > last && ino.0 - last.0 <= STEP_MAX => {
                (count * 2).clamp(WALK_COUNT_MIN, WALK_COUNT_MAX)
            }
            _ => 1,
        };
        self.inode = Some((ino, count));
        (count > 1).then_some(count)
    }

    /// Inodes up to `last` have been loaded.
    fn loaded(&mut self, last: Ino) {
        if let Some((reached, _)) = &mut self.inode {
            *reached = (*reached).max(last);
        }
    }
}

impl Vfs {
    /// Loads what lies around `key` if that is likely to be asked for as well. Whether `key` is known by now. An error
    /// is left to be found by who asks for the very record that is at fault.
    pub(super) async fn load_vicinity(&self, key: Key) -> bool {
        let loaded = match key {
            Key::Entry(dir, _) if self.asks_for_all(dir) => self.load_directory(dir).await,
            Key::Inode(ino) => {
                let asked = self.walks.lock().ask_inode(ino);
                let Some(count) = asked else { return false };
                self.load_inodes(ino, count).await
            }
            _ => return false,
        };
        loaded.is_ok() && self.state.lock().overlay.get(&key).is_some()
    }

    async fn load_inodes(&self, first: Ino, count: usize) -> Result<(), VfsError> {
        let (found, _) = self.scan(Key::Inode(first), Key::Inode(Ino(u64::MAX)), count).await?;
        if let Some((Key::Inode(last), _)) = found.last() {
            self.walks.lock().loaded(*last);
        }
        Ok(())
    }

    fn asks_for_all(&self, dir: Ino) -> bool {
        let entries = self.entries_if_few(dir);
        entries.is_some_and(|entries| self.walks.lock().ask_entry(dir, entries))
    }

    /// How many entries a directory has, if it is not known whole, and could be.
    fn entries_if_few(&self, dir: Ino) -> Option<u64> {
        let bytes_max = self.options.record_cache_bytes as u64 / 4;
        let mut state = self.state.lock();
        let Some(Some(Record::Inode(inode))) = state.overlay.get(&Key::Inode(dir)) else { return None };
        let is_small = inode.entries <= ENTRIES_MAX && inode.entries * ENTRY_BYTES <= bytes_max;
        (is_small && !state.overlay.is_whole(dir)).then_some(inode.entries)
    }

    /// Somebody begins to list a directory: he will go on to its end.
    pub(super) async fn begin_listing(&self, dir: Ino) {
        if self.entries_if_few(dir).is_some_and(|entries| entries > LISTED_MIN) {
            // Who lists it finds errors himself.
            let _ = self.load_directory(dir).await;
        }
    }

    async fn load_directory(&self, dir: Ino) -> Result<(), VfsError> {
        let begun = self.state.lock().overlay.begin_whole_scan();
        let (mut from, to) =
            (Key::Entry(dir, Tag([0; 16])), Key::Entry(Ino(dir.0.saturating_add(1)), Tag([0; 16])));
        let mut tags = Vec::new();
        // What other programs add meanwhile must not keep it from ending.
        for _ in 0..=ENTRIES_MAX as usize / SCAN_COUNT_MAX {
            let (found, last) = self.scan(from, to, SCAN_COUNT_MAX).await?;
            tags.extend(found.iter().filter_map(|(key, _)| match key {
                Key::Entry(_, tag) => Some(*tag),
                _ => None,
            }));
            match last {
                Some(Key::Entry(_, tag)) => from = Key::Entry(dir, super::xattr::next_tag(tag)),
                _ => {
                    self.state.lock().overlay.end_whole_scan(dir, begun, tags);
                    break;
                }
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_scanned_when_a_part_of_it_has_been_asked_for() {
        let mut walks = Walks::default();
        let asks = |walks: &mut Walks, dir, entries| {
            (1..10_000).find(|_| walks.ask_entry(Ino(dir), entries)).unwrap_or_default()
        };
        assert_eq!(asks(&mut walks, 1, 0), 2);
        assert_eq!(asks(&mut walks, 2, 31), 2);
        assert_eq!(asks(&mut walks, 3, 3200), 102);
    }

    #[test]
    fn who_goes_from_one_inode_to_the_next_gets_more_and_more() {
        let mut walks = Walks::default();
        assert_eq!(walks.ask_inode(Ino(100)), None);
        assert_eq!(walks.ask_inode(Ino(103)), Some(16));
        walks.loaded(Ino(118));
        assert_eq!(walks.ask_inode(Ino(119)), Some(32));
        walks.loaded(Ino(150));
        assert_eq!(walks.ask_inode(Ino(215)), None, "too far");
        assert_eq!(walks.ask_inode(Ino(214)), None, "backward");
        for ino in 215..225 {
            walks.ask_inode(Ino(ino));
        }
        assert_eq!(walks.ask_inode(Ino(225)), Some(WALK_COUNT_MAX));
    }
}
