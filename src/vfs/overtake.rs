//! Whom a commit is hurried for, and what it leaves to the next one so that they need not wait for strangers.
//!
//! A file that nobody waits for, and of which the group changes contents and size only, may be put off: it stays as the
//! last commit had it, a new one empty, or is there up to the first block that is not in the bucket yet. Everything else
//! goes with its group, so that no name, link or attribute is ever there without the contents before it. A directory
//! that is renamed gives new names to all that lies below it. Files do not know where they lie, so that nothing is put
//! off in a group that renames one which holds anything.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Duration;

use crate::base::{BLOCK_LEN, BlockIndex, Ino};
use crate::data::Unsent;
use crate::meta::{Inode, Key, Record};

use super::Vfs;
use super::state::State;

/// Who waits for what, and what has been put off for them.
#[derive(Debug, Default)]
pub(super) struct Overtaking {
    /// Files that someone waits for, and how many do.
    awaited: HashMap<Ino, u32>,
    /// How many wait for everything.
    awaiting_all: u32,
    /// Somebody has come since the sealed group was looked through.
    has_come: bool,
    /// Files of which the open group, and the sealed one, change more than contents and size.
    bound: HashSet<Ino>,
    sealed_bound: HashSet<Ino>,
    /// The open group, and the sealed one, rename a directory that is not empty.
    binds_all: bool,
    sealed_binds_all: bool,
    /// Since when contents have been put off again and again.
    since: HashMap<Ino, Duration>,
    /// How often that was done.
    put_off_count: u64,
}

/// Someone who waits, for as long as this lives.
pub(super) struct Waiter<'a> {
    vfs: &'a Vfs,
    ino: Option<Ino>,
}

impl Drop for Waiter<'_> {
    fn drop(&mut self) {
        let overtaking = &mut self.vfs.state.lock().overtaking;
        match self.ino {
            None => {
                overtaking.awaiting_all = overtaking.awaiting_all.saturating_sub(1);
                if overtaking.awaiting_all == 0 {
                    // Whoever came meanwhile may overtake now.
                    overtaking.has_come = true;
                    self.vfs.signals.hurried.notify_waiters();
                }
            }
            Some(ino) => {
                if let Some(count) = overtaking.awaited.get_mut(&ino) {
                    *count -= 1;
                    if *count == 0 {
                        overtaking.awaited.remove(&ino);
                    }
                }
            }
        }
    }
}

impl Overtaking {
    /// The open group changes more of a file than its contents.
    pub(super) fn bind(&mut self, ino: Ino) {
        self.bound.insert(ino);
    }

    /// The open group gives new names to files that are not known.
    pub(super) const fn bind_all(&mut self) {
        self.binds_all = true;
    }

    /// The open group is sealed.
    pub(super) fn seal(&mut self) {
        self.sealed_bound = std::mem::take(&mut self.bound);
        self.sealed_binds_all = std::mem::take(&mut self.binds_all);
    }

    /// The sealed group goes on as part of the open one.
    pub(super) fn unseal(&mut self) {
        self.bound.extend(std::mem::take(&mut self.sealed_bound));
        self.binds_all |= std::mem::take(&mut self.sealed_binds_all);
    }

    /// Contents of `ino` are gone.
    pub(super) fn forget(&mut self, ino: Ino) {
        self.since.remove(&ino);
    }

    /// Since when the oldest contents have been put off that have not got on.
    pub(super) fn oldest(&self) -> Option<Duration> {
        self.since.values().min().copied()
    }

    /// How often contents of a file have been put off.
    pub(super) const fn put_off_count(&self) -> u64 {
        self.put_off_count
    }
}

impl Vfs {
    /// Registers someone who waits for `ino`, or for everything; to be called under the lock under which it was found
    /// what to wait for.
    pub(super) fn wait_in(&self, state: &mut State, ino: Option<Ino>) -> Waiter<'_> {
        let overtaking = &mut state.overtaking;
        match ino {
            Some(ino) => *overtaking.awaited.entry(ino).or_default() += 1,
            None => overtaking.awaiting_all += 1,
        }
        overtaking.has_come = true;
        self.signals.hurried.notify_waiters();
        Waiter { vfs: self, ino }
    }

    /// Waits for `what` on behalf of the commit, which leaves strangers behind as soon as somebody waits.
    pub(super) async fn unless_hurried<T>(&self, what: impl Future<Output = T>) -> T {
        tokio::pin!(what);
        loop {
            let hurried = self.signals.hurried.notified();
            tokio::pin!(hurried);
            hurried.as_mut().enable();
            self.overtake(false);
            tokio::select! {
                biased;
                done = &mut what => return done,
                () = hurried => {}
            }
        }
    }

    /// Puts off what the sealed group would have to wait for and nobody waits for, if somebody waits for something else and
    /// it is more than goes along at no cost. Looks only once for each who comes, unless `is_new`.
    pub(super) fn overtake(&self, is_new: bool) {
        let mut state = self.state.lock();
        let has_come = std::mem::take(&mut state.overtaking.has_come);
        let overtaking = &state.overtaking;
        let is_hurried =
            !overtaking.awaited.is_empty() && overtaking.awaiting_all == 0 && !overtaking.sealed_binds_all;
        if !(has_come || is_new) || !is_hurried || !self.options.overtakes || state.is_closing {
            return;
        }
        let now = self.clock.elapsed();
        let strangers: Vec<Unsent> = state.dirty.sealed_waits_for();
        let strangers: Vec<Unsent> =
            strangers.into_iter().filter(|unsent| state.is_stranger(unsent.ino)).collect();
        let bytes: usize = strangers.iter().map(|unsent| unsent.bytes).sum();
        if bytes <= self.options.inline_commit_bytes {
            return;
        }
        for unsent in strangers {
            self.put_off(&mut state, &unsent, now);
        }
        self.note_change(&mut state);
        drop(state);
        // The commit under way may have nothing left to wait for.
        self.signals.eased.notify_waiters();
    }

    fn put_off(&self, state: &mut State, unsent: &Unsent, now: Duration) {
        let key = Key::Inode(unsent.ino);
        let Some(Record::Inode(inode)) = state.overlay.sealed(&key).cloned() else { return };
        let is_new = state.overlay.is_sealed_fresh(&key);
        if let Some(size) = state.size_sent(unsent, inode.size, is_new) {
            state.overlay.put_off(key, Some(cut(&inode, size)));
            state.dirty.put_off(unsent.ino, unsent.first);
            state.overtaking.since.insert(unsent.ino, now);
            state.overtaking.put_off_count += 1;
            return;
        }
        let since = *state.overtaking.since.entry(unsent.ino).or_insert(now);
        if now.saturating_sub(since) >= self.options.commit_age {
            return;
        }
        state.overlay.put_off(key, is_new.then(|| cut(&inode, 0)));
        state.dirty.put_off(unsent.ino, 0);
        state.overtaking.put_off_count += 1;
    }
}

impl State {
    /// The sealed group is committed, and with it contents that were put off.
    pub(super) fn catch_up(&mut self) {
        if !self.overtaking.since.is_empty() {
            for ino in self.dirty.sealed_files() {
                self.overtaking.since.remove(&ino);
            }
        }
    }

    /// Whether the sealed group may be committed without what it changes of `ino`.
    fn is_stranger(&self, ino: Ino) -> bool {
        !self.overtaking.awaited.contains_key(&ino)
            && !self.overtaking.sealed_bound.contains(&ino)
            && self.overlay.sealed(&Key::Inode(ino)).is_some()
    }

    /// The size up to which a file that only grows is in the bucket, if that is more than the last commit had.
    fn size_sent(&mut self, unsent: &Unsent, size: u64, is_new: bool) -> Option<u64> {
        let committed = match self.overlay.committed(&Key::Inode(unsent.ino)) {
            _ if is_new || unsent.is_anew => 0,
            Some(Some(Record::Inode(inode))) => inode.size,
            _ => return None,
        };
        let sent = BlockIndex(unsent.first).start().min(size);
        // What was overwritten may have been so after what comes later in the file: an index, a header.
        let whole = committed / BLOCK_LEN;
        let only_grows = whole == 0 || !self.dirty.is_sealed_below(unsent.ino, whole);
        let grows = unsent.is_plain
            && only_grows
            && committed <= sent
            && self.dirty.is_sealed_below(unsent.ino, unsent.first);
        (grows && sent > 0).then_some(sent)
    }
}

/// The inode with its contents cut to `size`.
fn cut(inode: &Inode, size: u64) -> Record {
    Record::Inode(Arc::new(Inode { size, ..inode.clone() }))
}
