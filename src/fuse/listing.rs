//! Listings of a mount that follows another's commits: each shows its directory as one commit left it.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use super::core::Lease;
use crate::base::Ino;
use crate::vfs::{Attr, DirEntry, Vfs, VfsError};

/// Entries that are read at once and kept until the listing is closed. A directory with more is shown in parts of this
/// many, each as one commit left it.
const PART_COUNT_MAX: usize = 4096;

/// The listings that are open.
#[derive(Debug, Default)]
pub(super) struct Listings {
    parts: Mutex<HashMap<u64, Part>>,
    opened: AtomicU64,
}

/// What a listing shows at present.
#[derive(Clone, Debug)]
struct Part {
    /// The position after which it begins.
    after: u64,
    entries: Arc<Vec<(DirEntry, Attr)>>,
    /// Until when the kernel may remember it.
    lease: Lease,
}

impl Part {
    /// Where in it a listing goes on that stands at `cookie`; `None`: not in this part.
    fn position(&self, cookie: u64) -> Option<usize> {
        let position = self.entries.partition_point(|(entry, _)| entry.next <= cookie);
        let is_last = self.entries.len() < PART_COUNT_MAX;
        (cookie >= self.after && (position < self.entries.len() || is_last)).then_some(position)
    }
}

/// Entries to be shown next.
#[derive(Debug)]
pub(super) struct Page {
    part: Part,
    from: usize,
}

impl Page {
    pub(super) fn entries(&self) -> &[(DirEntry, Attr)] {
        self.part.entries.get(self.from..).unwrap_or_default()
    }

    pub(super) const fn lease(&self) -> Lease {
        self.part.lease
    }
}

impl Listings {
    /// Begins a listing, and gives its number.
    pub(super) fn open(&self) -> u64 {
        self.opened.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn close(&self, number: u64) {
        self.parts.lock().remove(&number);
    }

    /// What follows `cookie` in a listing; from its start on (cookie 0), the directory is looked at anew. The lease
    /// must be older than the call.
    pub(super) async fn page(
        &self,
        vfs: &Vfs,
        (number, dir): (u64, Ino),
        cookie: u64,
        lease: Lease,
    ) -> Result<Page, VfsError> {
        if cookie > 0
            && let Some(part) = self.parts.lock().get(&number)
            && let Some(from) = part.position(cookie)
        {
            return Ok(Page { part: part.clone(), from });
        }
        let entries = Arc::new(vfs.readdir_unreferred(dir, cookie, PART_COUNT_MAX).await?);
        let part = Part { after: cookie, entries, lease };
        self.parts.lock().insert(number, part.clone());
        Ok(Page { part, from: 0 })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::{FileKind, Time};

    fn part(after: u64, count: usize) -> Part {
        let time = Time { secs: 0, nanos: 0 };
        let attr = Attr {
            ino: Ino(2),
            kind: FileKind::Regular,
            perm: 0,
            nlink: 1,
            uid: 0,
            gid: 0,
            rdev: 0,
            size: 0,
            blocks: 0,
            atime: time,
            mtime: time,
            ctime: time,
            btime: time,
            is_unsettled: false,
        };
        let entry = |number: usize| DirEntry {
            ino: Ino(2),
            kind: FileKind::Regular,
            name: vec![b'x'],
            next: after + 10 * (number as u64 + 1),
        };
        let entries = (0..count).map(|number| (entry(number), attr)).collect();
        Part { after, entries: Arc::new(entries), lease: Lease::default() }
    }

    #[test]
    fn a_listing_goes_on_after_the_entry_it_stands_at() {
        let part = part(0, 3);
        assert_eq!(part.position(10), Some(1));
        assert_eq!(part.position(15), Some(1), "its entry may have gone");
        assert_eq!(part.position(30), Some(3), "the end, and no look at a newer commit");
    }

    #[test]
    fn a_full_part_is_followed_by_another_and_preceded_by_what_was_before_it() {
        let part = part(1000, PART_COUNT_MAX);
        let last = 1000 + 10 * PART_COUNT_MAX as u64;
        assert_eq!(part.position(last), None);
        assert_eq!(part.position(last - 10), Some(PART_COUNT_MAX - 1));
        assert_eq!(part.position(990), None);
    }
}
