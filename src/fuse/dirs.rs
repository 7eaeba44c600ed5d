//! Fills directory replies, and gives back the references of entries that did not fit.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use fuser::{Generation, INodeNo, ReplyDirectory, ReplyDirectoryPlus};

use super::convert::file_type;
use super::core::Core;
use super::listing::Page;
use crate::vfs::{Attr, DirEntry};

const ASK_MIN: usize = 32;
const ASK_MAX: usize = 1024;

/// How many entries to ask for.
///
/// The kernel's buffer has a size that `fuser` does not tell, so it is learnt: ask for a few more than last fitted.
#[derive(Debug)]
pub(super) struct Fit(AtomicUsize);

impl Default for Fit {
    fn default() -> Self {
        Self(AtomicUsize::new(256))
    }
}

impl Fit {
    pub(super) fn ask(&self) -> usize {
        self.0.load(Ordering::Relaxed)
    }

    fn learn(&self, offered: usize, fitted: usize) {
        let asked = self.ask();
        if fitted < offered {
            self.0.store((fitted + 8).clamp(ASK_MIN, ASK_MAX), Ordering::Relaxed);
        } else if offered >= asked {
            self.0.store((asked * 2).clamp(ASK_MIN, ASK_MAX), Ordering::Relaxed);
        }
    }
}

pub(super) fn fill(fit: &Fit, mut reply: ReplyDirectory, entries: &[DirEntry]) {
    let full = |entry: &DirEntry| {
        let name = OsStr::from_bytes(entry.name.as_ref());
        reply.add(INodeNo(entry.ino.0), entry.next, file_type(entry.kind), name)
    };
    let fitted = entries.iter().position(full).unwrap_or(entries.len());
    fit.learn(entries.len(), fitted);
    reply.ok();
}

/// Each entry but `.` and `..` carries a kernel reference, which those that did not fit must not keep.
pub(super) fn fill_plus(core: &Core, mut reply: ReplyDirectoryPlus, entries: &[(DirEntry, Attr)]) {
    let ttl = core.ttl_done();
    let full = |(entry, attr): &(DirEntry, Attr)| {
        let name = OsStr::from_bytes(entry.name.as_ref());
        // One time for both the name and the attributes.
        let ttl = Core::attr_ttl(attr, ttl);
        reply.add(INodeNo(attr.ino.0), entry.next, name, &ttl, &core.tell(attr), Generation(0))
    };
    let fitted = entries.iter().position(full).unwrap_or(entries.len());
    core.fit.learn(entries.len(), fitted);
    for (entry, attr) in entries.iter().skip(fitted) {
        let name: &[u8] = entry.name.as_ref();
        if !matches!(name, b"." | b"..") {
            core.vfs.forget(attr.ino, 1);
        }
    }
    reply.ok();
}

/// Fills a reply with a page of a follower's listing.
pub(super) fn fill_page(_: &Core, mut reply: ReplyDirectory, page: Page, _: Duration) {
    for (entry, _) in page.entries() {
        let name = OsStr::from_bytes(entry.name.as_ref());
        if reply.add(INodeNo(entry.ino.0), entry.next, file_type(entry.kind), name) {
            break;
        }
    }
    reply.ok();
}

/// The same with attributes.
pub(super) fn fill_page_plus(core: &Core, mut reply: ReplyDirectoryPlus, page: Page, _: Duration) {
    // The page may be older than the request.
    let ttl = core.ttl(page.lease());
    for (entry, attr) in page.entries() {
        let name = OsStr::from_bytes(entry.name.as_ref());
        if reply.add(INodeNo(attr.ino.0), entry.next, name, &ttl, &core.tell(attr), Generation(0)) {
            break;
        }
    }
    reply.ok();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ask_follows_what_the_kernel_takes() {
        let fit = Fit::default();
        fit.learn(256, 180);
        assert_eq!(fit.ask(), 188);
        fit.learn(188, 188);
        assert_eq!(fit.ask(), 376);
        fit.learn(376, 20);
        assert_eq!(fit.ask(), ASK_MIN);
        fit.learn(3, 3);
        assert_eq!(fit.ask(), ASK_MIN);
    }
}
