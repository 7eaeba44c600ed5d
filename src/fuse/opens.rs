//! How files and directories are open. What the kernel may keep of them follows from that.

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
    handles: HashMap<u64, (Ino, How)>,
    files: HashMap<Ino, Counts>,
    /// How many listings of a directory are open.
    listed: HashMap<Ino, u32>,
    /// Files in whose pages may be what a program wrote through a map and nobody has been told.
    mapped: HashSet<Ino>,
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
}

impl Counts {
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
        if writes(flags) {
            state.given.remove(&ino);
        }
        if writes(flags) && !writes_only(flags) {
            state.mapped.insert(ino);
        }
        state.handles.insert(handle, (ino, how));
        how
    }

    /// Whether what is written to it goes past the kernel's pages.
    pub(super) fn is_direct(&self, handle: u64) -> bool {
        self.state.lock().handles.get(&handle).is_some_and(|(_, how)| how.is_direct())
    }

    /// The file is closed. Names it if its opening counted as a read.
    pub(super) fn closed(&self, handle: u64) -> Option<Ino> {
        let mut state = self.state.lock();
        let (ino, how) = state.handles.remove(&handle)?;
        state.leave(ino, how);
        (!state.counted.is_empty() && state.counted.remove(&handle)).then_some(ino)
    }

    /// Whoever opened it has been given its contents, as if he had read them.
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
    /// `None`: not now, or it probably has them, unless `again` asks for that.
    pub(super) fn give(&self, ino: Ino, again: bool) -> Option<Giving<'_>> {
        let mut state = self.state.lock();
        // Who reads past the pages reads them all the same through a map.
        let is_alone =
            matches!(state.files.get(&ino), Some(Counts { cached: 1, direct_writing: 0, direct_reading: 0 }));
        let is_changing = state.changing.contains_key(&ino) || state.mapped.contains(&ino);
        if !is_alone || is_changing || (!again && state.given.contains(&ino)) || !state.giving.insert(ino) {
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
        if !state.mapped.is_empty() && !state.files.contains_key(&ino) {
            state.mapped.remove(&ino);
        }
    }

    /// A listing of a directory is opened. Says whether the kernel may keep it: only where no other is open. It looks
    /// whether what it keeps is of the present directory where a listing begins, and not where one goes on.
    pub(super) fn list(&self, dir: Ino) -> bool {
        let mut state = self.state.lock();
        let count = state.listed.entry(dir).or_default();
        *count += 1;
        *count == 1
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

    fn leave(&mut self, ino: Ino, how: How) {
        let Entry::Occupied(mut counts) = self.files.entry(ino) else { return };
        let count = counts.get_mut().of(how);
        *count = count.saturating_sub(1);
        if matches!(counts.get(), Counts { cached: 0, direct_writing: 0, direct_reading: 0 }) {
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
        assert!(opens.state.lock().files.is_empty() && opens.state.lock().handles.is_empty());
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
    fn contents_are_given_to_who_alone_has_a_file_open_for_reading() {
        let opens = Opens::default();
        assert!(opens.give(FILE, false).is_none(), "it is not open");
        open(&opens, 1, libc::O_RDONLY);
        drop(opens.give(FILE, false).expect("it is read by one"));
        open(&opens, 2, libc::O_RDONLY);
        assert!(opens.give(FILE, true).is_none(), "another may be waiting for a page of it");
        opens.closed(2);
        let changing = (opens.change(FILE), opens.change(FILE));
        drop(changing.0);
        assert!(opens.give(FILE, true).is_none(), "it is being cut");
        drop(changing.1);
        opens.give(FILE, true).expect("it is read by one again").done();
        opens.closed(1);
        open(&opens, 3, libc::O_WRONLY);
        assert!(opens.give(FILE, true).is_none(), "it is written to");
        opens.closed(3);
        open(&opens, 4, libc::O_WRONLY);
        assert_eq!(open(&opens, 5, libc::O_RDONLY), How::DirectReading);
        opens.closed(4);
        open(&opens, 6, libc::O_RDONLY);
        assert!(opens.give(FILE, true).is_none(), "another may have mapped it, and wait for a page");
        opens.closed(5);
        drop(opens.give(FILE, true).expect("it is read by one again"));
        opens.closed(6);
        open(&opens, 7, libc::O_RDWR);
        opens.closed(7);
        open(&opens, 8, libc::O_RDONLY);
        assert!(opens.give(FILE, true).is_none(), "pages may be there that a program wrote to");
    }

    #[test]
    fn what_the_kernel_has_is_not_given_again() {
        let (opens, other) = (Opens::default(), Ino(8));
        let gives = |handle, ino, flags| {
            opens.open(handle, ino, OpenFlags(flags));
            let giving = opens.give(ino, false);
            let gives = giving.is_some();
            giving.into_iter().for_each(Giving::done);
            opens.closed(handle);
            gives
        };
        assert!(gives(1, FILE, libc::O_RDONLY) && gives(1, other, libc::O_RDONLY));
        assert!(!gives(1, FILE, libc::O_RDONLY) && !gives(1, other, libc::O_RDONLY));
        open(&opens, 2, libc::O_WRONLY);
        opens.closed(2);
        assert!(gives(3, FILE, libc::O_RDONLY), "it was written to");
        drop(opens.change(FILE));
        assert!(gives(4, FILE, libc::O_RDONLY), "it was cut");
        opens.forgotten(FILE);
        assert!(gives(5, FILE, libc::O_RDONLY) && !gives(6, other, libc::O_RDONLY));
        opens.asked(FILE);
        assert!(!gives(7, FILE, libc::O_RDONLY), "it has been read");
        assert!(gives(8, other, libc::O_RDONLY), "if one has gone, others may have");
        for number in 0..GIVEN_MAX as u64 {
            opens.asked(Ino(100 + number));
        }
        assert!(opens.state.lock().given.len() <= GIVEN_MAX);
    }

    #[test]
    fn nobody_opens_or_cuts_a_file_while_its_contents_are_given() {
        let (opens, order) = (Opens::default(), Mutex::new(Vec::new()));
        open(&opens, 1, libc::O_RDONLY);
        let giving = opens.give(FILE, false).unwrap();
        assert!(opens.give(FILE, true).is_none(), "it is being given");
        std::thread::scope(|scope| {
            scope.spawn(|| {
                open(&opens, 2, libc::O_WRONLY);
                order.lock().push("opened");
            });
            scope.spawn(|| {
                drop(opens.change(FILE));
                order.lock().push("cut");
            });
            (0..1000).for_each(|_| std::thread::yield_now());
            order.lock().push("given");
            giving.done();
        });
        assert_eq!(order.lock()[0], "given");
        assert!(opens.state.lock().giving.is_empty() && opens.state.lock().changing.is_empty());
    }

    #[test]
    fn who_was_given_contents_has_read_them() {
        let opens = Opens::default();
        open(&opens, 1, libc::O_RDONLY);
        open(&opens, 2, libc::O_RDONLY);
        opens.counts(2);
        assert_eq!((opens.closed(1), opens.closed(2), opens.closed(2)), (None, Some(FILE), None));
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
