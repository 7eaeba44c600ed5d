//! How files and directories are open. What the kernel may keep of them follows from that.

#[cfg(test)]
mod tests;

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use fuser::OpenFlags;
use parking_lot::{Condvar, Mutex, MutexGuard};

use super::core::{writes, writes_only};
use crate::base::Ino;

/// What is open through this mount, where it is the one that writes.
///
/// A direct write makes a file longer than what the kernel keeps of it. Who reads from there meanwhile is given the last
/// page up to the new length, with zeros where the new bytes are. So no file is open for direct writes and for cached
/// reads at once.
///
/// Nor does anybody open a file, or change its length, while the kernel is being given its contents: what it is given is neither older nor
/// longer than the file, and no read waits for a page that the giver waits for.
#[derive(Debug, Default)]
pub(super) struct Opens {
    state: Mutex<State>,
    given: Condvar,
}

/// Files of which the kernel is remembered to have the contents; then all are forgotten.
const GIVEN_MAX: usize = 16 * 1024;

#[derive(Debug, Default)]
struct State {
    handles: HashMap<u64, Open>,
    files: HashMap<Ino, Counts>,
    /// How many listings of a directory are open.
    listed: HashMap<Ino, u32>,
    /// Directories that have been moved since they were listed.
    adopted: HashSet<Ino>,
    /// Files in whose pages may be what a program wrote through a map and nobody has been told.
    mapped: HashSet<Ino>,
    /// Files that were written to past their pages, of which a map may have brought some back meanwhile.
    passed: HashSet<Ino>,
    /// The kernel shares no maps of a file that is open past its pages.
    maps_cached_only: bool,
    /// Files whose contents are on their way to the kernel.
    giving: HashSet<Ino>,
    /// How many requests that change the length of a file are under way.
    changing: HashMap<Ino, u32>,
    /// Small files of which the kernel was given the contents, and probably has them still.
    given: HashSet<Ino>,
    /// Handles whose opening counted as a read, which the kernel does not know.
    counted: HashSet<u64>,
}

/// The kernel is being given a file's contents, until this is dropped.
#[derive(Debug)]
pub(super) struct Giving<'a> {
    opens: &'a Opens,
    ino: Ino,
}

/// The length of a file is being changed, until this is dropped.
#[derive(Debug)]
pub(super) struct Changing<'a> {
    opens: &'a Opens,
    ino: Ino,
}

/// What the kernel keeps of a listing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kept {
    /// What it has, and what it gets.
    All,
    /// What it gets.
    Anew,
    /// Nothing.
    Nothing,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    ino: Ino,
    how: How,
    writes: bool,
}

/// How a file is open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum How {
    /// Through the kernel's pages.
    Cached,
    /// Past them, for writing, be it among other things.
    DirectWriting,
    /// Past them, for reading only.
    DirectReading,
}

impl How {
    pub(super) const fn is_direct(self) -> bool {
        !matches!(self, Self::Cached)
    }
}

#[derive(Debug, Default)]
struct Counts {
    cached: u32,
    direct_writing: u32,
    direct_reading: u32,
    /// Handles that may write, among these.
    writing: u32,
}

impl Counts {
    const fn is_one_cached(&self) -> bool {
        self.cached == 1 && self.direct_writing == 0 && self.direct_reading == 0
    }

    const fn is_none(&self) -> bool {
        self.cached == 0 && self.direct_writing == 0 && self.direct_reading == 0
    }

    const fn of(&mut self, how: How) -> &mut u32 {
        match how {
            How::Cached => &mut self.cached,
            How::DirectWriting => &mut self.direct_writing,
            How::DirectReading => &mut self.direct_reading,
        }
    }
}

impl Opens {
    /// Before Linux 6.6 a shared map of what is open past the kernel's pages fails: there readers are left their maps, and may
    /// read zeros at the end of what another appends.
    pub(super) fn map_cached_only(&self) {
        self.state.lock().maps_cached_only = true;
    }

    /// Decides how a file is opened, and counts it until it is [`Self::closed`].
    pub(super) fn open(&self, handle: u64, ino: Ino, flags: OpenFlags) -> How {
        let mut state = self.settled(ino);
        let (maps_cached_only, is_mapped) = (state.maps_cached_only, state.mapped.contains(&ino));
        let counts = state.files.entry(ino).or_default();
        let how = if writes_only(flags) {
            // Who writes through a map while another writes past the pages takes back what that has written to them.
            if counts.cached == 0 && !is_mapped { How::DirectWriting } else { How::Cached }
        } else if counts.direct_writing == 0 || maps_cached_only {
            How::Cached
        } else if writes(flags) {
            How::DirectWriting
        } else {
            How::DirectReading
        };
        *counts.of(how) += 1;
        if how == How::DirectWriting {
            state.passed.insert(ino);
        }
        let counts = state.files.entry(ino).or_default();
        if writes(flags) {
            counts.writing += 1;
            state.given.remove(&ino);
        }
        if writes(flags) && !writes_only(flags) {
            state.mapped.insert(ino);
        }
        state.handles.insert(handle, Open { ino, how, writes: writes(flags) });
        how
    }

    /// Whether anybody has the file open for writing.
    pub(super) fn may_be_written(&self, ino: Ino) -> bool {
        self.state.lock().files.get(&ino).is_some_and(|counts| counts.writing > 0)
    }

    /// Whether anybody has the file open for writing by another handle than this.
    pub(super) fn may_be_written_by_others(&self, ino: Ino, handle: u64) -> bool {
        let state = self.state.lock();
        let own = state.handles.get(&handle).is_some_and(|open| open.ino == ino && open.writes);
        state.files.get(&ino).is_some_and(|counts| counts.writing > u32::from(own))
    }

    /// Whether the kernel's pages of the file may be older than the file, and nobody can be using them but who has opened it just
    /// now. They are to be dropped then, of which this is the only word.
    pub(super) fn has_old_pages(&self, ino: Ino) -> bool {
        let mut state = self.state.lock();
        !state.passed.is_empty()
            && state.files.get(&ino).is_some_and(Counts::is_one_cached)
            && state.passed.remove(&ino)
    }

    /// Whether what is written to it goes past the kernel's pages.
    pub(super) fn is_direct(&self, handle: u64) -> bool {
        self.state.lock().handles.get(&handle).is_some_and(|open| open.how.is_direct())
    }

    /// The file is closed. Names it if its opening counted as a read.
    pub(super) fn closed(&self, handle: u64) -> Option<Ino> {
        let mut state = self.state.lock();
        let open = state.handles.remove(&handle)?;
        state.leave(open);
        (!state.counted.is_empty() && state.counted.remove(&handle)).then_some(open.ino)
    }

    /// The opening stands for the first read.
    pub(super) fn counts(&self, handle: u64) {
        self.state.lock().counted.insert(handle);
    }

    /// Whether the kernel may hold pages of the file that were written to through a map. It may do so long after the last
    /// program has closed it.
    pub(super) fn may_be_mapped(&self, ino: Ino) -> bool {
        let state = self.state.lock();
        !state.mapped.is_empty() && state.mapped.contains(&ino)
    }

    /// The kernel has sent all pages of the file that were written to. It may get others while the file is open.
    pub(super) fn flushed(&self, ino: Ino) {
        let mut state = self.state.lock();
        if !state.files.contains_key(&ino) {
            state.mapped.remove(&ino);
        }
    }

    /// Begins to give the kernel the contents of a file that has just been opened for reading through its pages, and by nobody else.
    /// `None`: not now, or it probably has them.
    pub(super) fn give(&self, ino: Ino) -> Option<Giving<'_>> {
        let mut state = self.state.lock();
        // Who reads past the pages reads them all the same through a map.
        let is_alone = state.files.get(&ino).is_some_and(Counts::is_one_cached);
        let is_changing = state.changing.contains_key(&ino) || state.mapped.contains(&ino);
        if !is_alone || is_changing || state.given.contains(&ino) || !state.giving.insert(ino) {
            return None;
        }
        Some(Giving { opens: self, ino })
    }

    /// The kernel has asked for the beginning of a small file. If it had been given that, it has let go of pages, and who knows
    /// of which others.
    pub(super) fn asked(&self, ino: Ino) {
        let mut state = self.state.lock();
        if state.given.contains(&ino) {
            state.given.clear();
        }
        state.give(ino);
    }

    /// To be held by whoever changes the length of a file.
    pub(super) fn change(&self, ino: Ino) -> Changing<'_> {
        let mut state = self.settled(ino);
        state.given.remove(&ino);
        *state.changing.entry(ino).or_default() += 1;
        Changing { opens: self, ino }
    }

    /// Waits for who gives the kernel the file's contents, who waits for nobody.
    fn settled(&self, ino: Ino) -> MutexGuard<'_, State> {
        let mut state = self.state.lock();
        while state.giving.contains(&ino) {
            self.given.wait(&mut state);
        }
        state
    }

    /// The kernel knows the inode no more.
    pub(super) fn forgotten(&self, ino: Ino) {
        let mut state = self.state.lock();
        state.given.remove(&ino);
        state.adopted.remove(&ino);
        state.passed.remove(&ino);
        if !state.mapped.is_empty() && !state.files.contains_key(&ino) {
            state.mapped.remove(&ino);
        }
    }

    /// A listing of a directory is opened. Says what the kernel may keep of it: something only where no other is open. It looks
    /// whether what it keeps is of the present directory where a listing begins, and not where one goes on.
    pub(super) fn list(&self, dir: Ino) -> Kept {
        let mut state = self.state.lock();
        let count = state.listed.entry(dir).or_default();
        *count += 1;
        if *count > 1 {
            return Kept::Nothing;
        }
        if !state.adopted.is_empty() && state.adopted.remove(&dir) { Kept::Anew } else { Kept::All }
    }

    /// These directories have another parent now, to which their `..` is to lead. That is no change of theirs by which the kernel would see that
    /// what it keeps of them is old.
    pub(super) fn adopted(&self, dirs: Vec<Ino>) {
        if !dirs.is_empty() {
            self.state.lock().adopted.extend(dirs);
        }
    }

    /// A listing is closed.
    pub(super) fn listed(&self, dir: Ino) {
        if let Entry::Occupied(mut count) = self.state.lock().listed.entry(dir) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl Giving<'_> {
    /// The kernel has them.
    pub(super) fn done(self) {
        self.opens.state.lock().give(self.ino);
    }
}

impl Drop for Giving<'_> {
    fn drop(&mut self) {
        self.opens.state.lock().giving.remove(&self.ino);
        self.opens.given.notify_all();
    }
}

impl Drop for Changing<'_> {
    fn drop(&mut self) {
        if let Entry::Occupied(mut count) = self.opens.state.lock().changing.entry(self.ino) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl State {
    fn give(&mut self, ino: Ino) {
        if self.given.len() >= GIVEN_MAX {
            self.given.clear();
        }
        self.given.insert(ino);
    }

    fn leave(&mut self, open: Open) {
        let Entry::Occupied(mut entry) = self.files.entry(open.ino) else { return };
        let counts = entry.get_mut();
        counts.writing = counts.writing.saturating_sub(u32::from(open.writes));
        let count = counts.of(open.how);
        *count = count.saturating_sub(1);
        if counts.is_none() {
            entry.remove();
        }
    }
}
