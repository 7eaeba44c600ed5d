//! Access times: noted in memory when something is read, stored with the next commit that has another reason.

use std::collections::HashMap;
use std::sync::Arc;

use crate::base::{FileKind, Ino, Time};
use crate::data::Dirty;
use crate::meta::{Inode, Key, Record};

use super::state::{Phase, State};
use super::{Attr, Vfs};

/// With [`Atime::Relative`], an access time is never older than this after a read.
const RELATIVE_AGE_SECS: i64 = 24 * 3600;

/// When reading changes an access time, as the mount options of mount(8) have it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Atime {
    /// `noatime`: never.
    Never,
    /// `relatime`: when it is not later than the last change, or a day old.
    #[default]
    Relative,
    /// `strictatime`: always.
    Always,
}

impl Atime {
    fn is_due(self, inode: &Inode, atime: Time, now: Time) -> bool {
        match self {
            Self::Never => false,
            Self::Always => true,
            Self::Relative => {
                let age_secs = now.secs.saturating_sub(atime.secs);
                atime <= inode.mtime || atime <= inode.ctime || age_secs >= RELATIVE_AGE_SECS
            }
        }
    }
}

impl Vfs {
    /// Notes that `ino` was read. What is noted is shown at once, and reaches the bucket with the next commit.
    pub fn touch(&self, ino: Ino) {
        if self.options.atime == Atime::Never {
            return;
        }
        let mut state = self.state.lock();
        let Some(now) = self.due(&mut state, ino) else { return };
        if state.atimes.len() < self.options.atimes_max() || state.atimes.contains_key(&ino) {
            state.atimes.insert(ino, now);
            return;
        }
        if state.overlay.open_bytes() > self.options.open_records_bytes_max() {
            // No reader waits for a commit: this reading is not noted, and the next one will be.
            self.signals.wanted.notify_one();
            return;
        }
        // The record is changed at once: of those that wait, many may have left memory and cannot be.
        let key = Key::Inode(ino);
        if let Some(Some(Record::Inode(mut inode))) = state.overlay.get(&key) {
            Arc::make_mut(&mut inode).atime = now;
            state.overlay.put(key, Some(Record::Inode(inode)));
            self.note_change(&mut state);
        }
    }

    /// Whether reading `ino` now would change its access time, so that the read must not be answered without us.
    #[must_use]
    pub fn would_touch(&self, ino: Ino) -> bool {
        self.options.atime != Atime::Never && self.due(&mut self.state.lock(), ino).is_some()
    }

    /// Whether each reading changes an access time. Elsewhere it tells at most that something was read since it was changed, or
    /// today, and an opening may stand for the first read.
    #[must_use]
    pub fn notes_each_read(&self) -> bool {
        self.options.atime == Atime::Always
    }

    /// The new access time. An inode that is not in memory has not been read just now.
    fn due(&self, state: &mut State, ino: Ino) -> Option<Time> {
        if state.phase != Phase::Writable {
            return None;
        }
        let Some(Some(Record::Inode(inode))) = state.overlay.get(&Key::Inode(ino)) else { return None };
        if inode.kind == FileKind::Directory && !self.options.directory_atime {
            return None;
        }
        let atime = state.atimes.get(&ino).copied().unwrap_or(inode.atime);
        let now = self.clock.now();
        self.options.atime.is_due(&inode, atime, now).then_some(now)
    }
}

impl State {
    /// An inode as its readers see it.
    pub(super) fn with_atime(&self, ino: Ino, mut inode: Arc<Inode>) -> Arc<Inode> {
        if !self.atimes.is_empty()
            && let Some(atime) = self.atimes.get(&ino)
        {
            Arc::make_mut(&mut inode).atime = *atime;
        }
        inode
    }

    /// The attributes of an inode that is in memory; `Some(None)` if it is known that there is none.
    pub(super) fn attr_of(&mut self, ino: Ino) -> Option<Option<Attr>> {
        let Self { overlay, dirty, atimes, .. } = self;
        // Not cloned: a listing asks for thousands, and counting who shares them would take as long as finding them.
        match overlay.look(&Key::Inode(ino))? {
            Some(Record::Inode(inode)) => Some(Some(attr(dirty, atimes, ino, inode))),
            _ => Some(None),
        }
    }

    /// The attributes of an inode as its readers see it.
    pub(super) fn seen(&self, ino: Ino, inode: &Inode) -> Attr {
        attr(&self.dirty, &self.atimes, ino, inode)
    }

    /// Moves the noted access times into the open group. Those of inodes that have left memory stay noted.
    pub(super) fn fold_atimes(&mut self) {
        for (ino, atime) in std::mem::take(&mut self.atimes) {
            let key = Key::Inode(ino);
            match self.overlay.get(&key) {
                Some(Some(Record::Inode(mut inode))) => {
                    Arc::make_mut(&mut inode).atime = atime;
                    self.overlay.put(key, Some(Record::Inode(inode)));
                }
                Some(_) => {}
                None => drop(self.atimes.insert(ino, atime)),
            }
        }
    }
}

/// The attributes of an inode with what is neither committed nor in its record.
fn attr(dirty: &Dirty, atimes: &HashMap<Ino, Time>, ino: Ino, inode: &Inode) -> Attr {
    let mut attr = Attr::of(ino, inode, dirty.pending_of(ino));
    if !atimes.is_empty() {
        attr.atime = atimes.get(&ino).copied().unwrap_or(attr.atime);
    }
    attr
}
