//! Directories that are known whole: what the cache of records has no entry of is not there.

use std::num::NonZeroUsize;

use lru::LruCache;

use super::Key;
use crate::base::Ino;

/// Directories beyond which those that were asked last about are forgotten.
const DIRECTORIES_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(4095);

/// The directories of which every committed entry is in the cache.
#[derive(Debug)]
pub(super) struct Whole {
    directories: LruCache<Ino, ()>,
    /// How many entries have left the cache.
    losses: u64,
}

impl Default for Whole {
    fn default() -> Self {
        Self { directories: LruCache::new(DIRECTORIES_MAX), losses: 0 }
    }
}

impl Whole {
    /// Every committed entry of `dir` is in the cache.
    pub(super) fn insert(&mut self, dir: Ino) {
        self.directories.put(dir, ());
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
