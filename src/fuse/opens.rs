//! How files and directories are open. What the kernel may keep of them follows from that.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};

use fuser::OpenFlags;
use parking_lot::Mutex;

use super::core::{writes, writes_only};
use crate::base::Ino;

/// What is open through this mount, where it is the one that writes.
///
/// A direct write makes a file longer than what the kernel keeps of it. Who reads from there meanwhile is given the last
/// page up to the new length, with zeros where the new bytes are. So no file is open for direct writes and for cached
/// reads at once.
#[derive(Debug, Default)]
pub(super) struct Opens(Mutex<State>);

#[derive(Debug, Default)]
struct State {
    handles: HashMap<u64, (Ino, How)>,
    files: HashMap<Ino, Counts>,
    /// How many listings of a directory are open.
    listed: HashMap<Ino, u32>,
    /// Files in whose pages may be what a program wrote through a map and nobody has been told.
    mapped: HashSet<Ino>,
    /// The kernel shares no maps of a file that is open past its pages.
    maps_cached_only: bool,
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
}

impl Counts {
    const fn of(&mut self, how: How) -> Option<&mut u32> {
        match how {
            How::Cached => Some(&mut self.cached),
            How::DirectWriting => Some(&mut self.direct_writing),
            How::DirectReading => None,
        }
    }
}

impl Opens {
    /// Before Linux 6.6 a shared map of what is open past the kernel's pages fails: there readers are left their maps, and may
    /// read zeros at the end of what another appends.
    pub(super) fn map_cached_only(&self) {
        self.0.lock().maps_cached_only = true;
    }

    /// Decides how a file is opened, and counts it until it is [`Self::closed`].
    pub(super) fn open(&self, handle: u64, ino: Ino, flags: OpenFlags) -> How {
        let mut state = self.0.lock();
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
        if let Some(count) = counts.of(how) {
            *count += 1;
        }
        if writes(flags) && !writes_only(flags) {
            state.mapped.insert(ino);
        }
        state.handles.insert(handle, (ino, how));
        how
    }

    /// Whether what is written to it goes past the kernel's pages.
    pub(super) fn is_direct(&self, handle: u64) -> bool {
        self.0.lock().handles.get(&handle).is_some_and(|(_, how)| how.is_direct())
    }

    /// The file is closed.
    pub(super) fn closed(&self, handle: u64) {
        let mut state = self.0.lock();
        if let Some((ino, how)) = state.handles.remove(&handle) {
            state.leave(ino, how);
        }
    }

    /// Whether the kernel may hold pages of the file that were written to through a map. It may do so long after the last
    /// program has closed it.
    pub(super) fn may_be_mapped(&self, ino: Ino) -> bool {
        let state = self.0.lock();
        !state.mapped.is_empty() && state.mapped.contains(&ino)
    }

    /// The kernel has sent all pages of the file that were written to. It may get others while the file is open.
    pub(super) fn flushed(&self, ino: Ino) {
        let mut state = self.0.lock();
        if !state.files.contains_key(&ino) {
            state.mapped.remove(&ino);
        }
    }

    /// The kernel knows the inode no more.
    pub(super) fn forgotten(&self, ino: Ino) {
        let mut state = self.0.lock();
        if !state.mapped.is_empty() && !state.files.contains_key(&ino) {
            state.mapped.remove(&ino);
        }
    }

    /// A listing of a directory is opened. Says whether the kernel may keep it: only where no other is open. It looks
    /// whether what it keeps is of the present directory where a listing begins, and not where one goes on.
    pub(super) fn list(&self, dir: Ino) -> bool {
        let mut state = self.0.lock();
        let count = state.listed.entry(dir).or_default();
        *count += 1;
        *count == 1
    }

    /// A listing is closed.
    pub(super) fn listed(&self, dir: Ino) {
        if let Entry::Occupied(mut count) = self.0.lock().listed.entry(dir) {
            *count.get_mut() -= 1;
            if *count.get() == 0 {
                count.remove();
            }
        }
    }
}

impl State {
    fn leave(&mut self, ino: Ino, how: How) {
        let Entry::Occupied(mut counts) = self.files.entry(ino) else { return };
        if let Some(count) = counts.get_mut().of(how) {
            *count = count.saturating_sub(1);
        }
        let Counts { cached, direct_writing } = counts.get();
        if *cached == 0 && *direct_writing == 0 {
            counts.remove();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FILE: Ino = Ino(7);

    fn open(opens: &Opens, handle: u64, flags: i32) -> How {
        opens.open(handle, FILE, OpenFlags(flags))
    }

    #[test]
    fn no_file_is_open_for_direct_writes_and_for_cached_reads_at_once() {
        let opens = Opens::default();
        assert_eq!(open(&opens, 1, libc::O_WRONLY), How::DirectWriting);
        assert_eq!(open(&opens, 2, libc::O_RDONLY), How::DirectReading);
        assert_eq!(open(&opens, 3, libc::O_RDWR), How::DirectWriting);
        opens.closed(1);
        assert_eq!(open(&opens, 4, libc::O_RDONLY), How::DirectReading, "the third writes past the pages");
        opens.closed(3);
        assert_eq!(open(&opens, 5, libc::O_RDONLY), How::Cached);
        assert_eq!(open(&opens, 6, libc::O_WRONLY), How::Cached);
        for handle in [2, 4, 5, 6, 6] {
            opens.closed(handle);
        }
        opens.flushed(FILE);
        assert_eq!(open(&opens, 7, libc::O_WRONLY), How::DirectWriting);
        opens.closed(7);
        assert!(opens.0.lock().files.is_empty() && opens.0.lock().handles.is_empty());
    }

    #[test]
    fn who_only_writes_goes_through_the_pages_of_what_may_be_mapped() {
        let opens = Opens::default();
        assert_eq!(open(&opens, 1, libc::O_RDWR), How::Cached);
        opens.closed(1);
        assert_eq!(open(&opens, 2, libc::O_WRONLY), How::Cached, "its pages may wait still");
        assert!(!opens.is_direct(2));
        opens.closed(2);
        opens.flushed(FILE);
        assert_eq!(open(&opens, 3, libc::O_WRONLY), How::DirectWriting);
        assert!(opens.is_direct(3) && !opens.is_direct(2));
    }

    #[test]
    fn what_may_have_been_mapped_stays_so_until_its_pages_are_sent_or_it_is_forgotten() {
        let opens = Opens::default();
        open(&opens, 1, libc::O_RDONLY);
        assert!(!opens.may_be_mapped(FILE));
        open(&opens, 2, libc::O_RDWR);
        opens.flushed(FILE);
        assert!(opens.may_be_mapped(FILE), "it is open");
        opens.closed(1);
        opens.closed(2);
        assert!(opens.may_be_mapped(FILE), "its pages may wait still");
        opens.flushed(FILE);
        assert!(!opens.may_be_mapped(FILE));
    }

    #[test]
    fn a_listing_is_kept_only_while_it_is_the_only_one() {
        let opens = Opens::default();
        assert!(opens.list(FILE) && !opens.list(FILE));
        opens.listed(FILE);
        assert!(!opens.list(FILE));
        opens.listed(FILE);
        opens.listed(FILE);
        assert!(opens.list(FILE));
    }
}
