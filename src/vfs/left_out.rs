//! What a commit leaves out, because it would have to change what stands in records that cannot be read.
//!
//! Everything else is committed. What is left out stays as the last commit had it: nothing is made up, and what comes back
//! to the bucket is whole again. Whoever wrote what is lost is told by `fsync`.

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::base::{Ino, PAGE_BLOCKS};
use crate::meta::{Key, Record};

use super::damage::described;
use super::state::State;
use super::{Vfs, VfsError};

/// Changes to contents that a commit leaves out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    /// Files that were removed. They stay, marked as unlinked, until a mount can free them.
    unfreed: BTreeMap<Ino, VfsError>,
    /// Files of which no change to contents or size is taken, each with the size that the last commit has, if it can be read.
    whole: BTreeMap<Ino, (Option<u64>, VfsError)>,
    /// Pages of files to which nothing is written.
    pages: BTreeMap<(Ino, u64), VfsError>,
}

impl LeftOut {
    /// A removed file stays.
    pub(super) fn keep_removed(&mut self, ino: Ino, error: VfsError) {
        self.unfreed.insert(ino, error);
    }

    /// A file of `size` bytes stays as it is.
    pub(super) fn keep_file(&mut self, ino: Ino, size: Option<u64>, error: VfsError) {
        self.whole.insert(ino, (size, error));
    }

    /// Nothing is written to a page.
    pub(super) fn keep_page(&mut self, ino: Ino, page: u64, error: VfsError) {
        self.pages.insert((ino, page), error);
    }

    /// Adds what is left out of another file.
    pub(super) fn add(&mut self, other: Self) {
        self.unfreed.extend(other.unfreed);
        self.whole.extend(other.whole);
        self.pages.extend(other.pages);
    }

    /// Whether a changed block is left out.
    pub(super) fn holds(&self, ino: Ino, index: u64) -> bool {
        self.whole.contains_key(&ino) || self.pages.contains_key(&(ino, index / PAGE_BLOCKS))
    }

    /// Removed files that stay.
    pub(super) fn unfreed_count(&self) -> i64 {
        i64::try_from(self.unfreed.len()).unwrap_or(i64::MAX)
    }

    /// Takes it out of the records of a commit.
    pub(super) fn take_from(&self, records: &mut BTreeMap<Key, Option<Record>>) {
        for ino in self.unfreed.keys() {
            records.remove(&Key::Inode(*ino));
            records.insert(Key::Orphan(*ino), Some(Record::Orphan));
        }
        for (ino, (size, _)) in &self.whole {
            match (size, records.get_mut(&Key::Inode(*ino))) {
                (Some(size), Some(Some(Record::Inode(inode)))) => Arc::make_mut(inode).size = *size,
                (None, Some(Some(_))) => drop(records.remove(&Key::Inode(*ino))),
                _ => {}
            }
        }
    }
}

impl Vfs {
    /// Whether something is damaged, and that is certain: it has been met in each attempt until now, or in those of an
    /// earlier commit.
    pub(super) fn is_certain(&self, error: &VfsError, is_last_try: bool) -> bool {
        let Some((object, _)) = described(error) else { return false };
        let mut state = self.state.lock();
        if is_last_try {
            state.believed.insert(object);
            return true;
        }
        state.believed.contains(&object)
    }

    /// A commit is made that leaves `left` out: says so, and to the open group that it has.
    pub(super) fn leave_out(&self, state: &mut State, left: &LeftOut) {
        for (ino, error) in &left.unfreed {
            tracing::warn!(%ino, %error, "a removed file cannot be freed; it stays as one that was unlinked");
            state.orphans.insert(*ino);
        }
        for (ino, (size, error)) in &left.whole {
            tracing::error!(%ino, %error, "a file stays as it was; what has been done to its contents is dropped");
            // What came later was done to what is not so.
            if matches!(state.overlay.look(&Key::Inode(*ino)), Some(Some(_))) {
                state.dirty.forget(*ino);
                state.overtaking.forget(*ino);
            }
            if let Some(size) = size {
                state.overlay.patch_open(&Key::Inode(*ino), |record| {
                    if let Record::Inode(inode) = record {
                        Arc::make_mut(inode).size = *size;
                    }
                });
            }
            state.lose(*ino, error.to_string());
        }
        for ((ino, page), error) in &left.pages {
            tracing::error!(%ino, page, %error, "what was written to a page of a file is dropped");
            state.lose(*ino, error.to_string());
        }
    }

    /// Notes the damage for which something is left out.
    pub(super) fn note_left_out(&self, left: &LeftOut) {
        let files = left.unfreed.iter().map(|(ino, error)| (*ino, error));
        let whole = left.whole.iter().map(|(ino, (_, error))| (*ino, error));
        let pages = left.pages.iter().map(|((ino, _), error)| (*ino, error));
        for (ino, error) in files.chain(whole).chain(pages) {
            self.note_damage(Some(ino), error);
        }
    }
}
