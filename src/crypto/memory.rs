//! Memory for secrets: pages of their own that are locked, left out of core dumps, and wiped before anybody gets them next.
//!
//! A heap gives memory back to whoever asks next, moves what grows and keeps what was freed. Here nothing moves, and
//! nothing but secrets lies in these pages. Locks are not inherited by a forked process: see [`after_fork`].

use std::fmt;
use std::io;
use std::sync::OnceLock;

use memmap2::{Advice, MmapMut};
use parking_lot::Mutex;
use zeroize::Zeroize;

/// What one key gets: a page of the machines we know. Where pages are larger the kernel rounds up.
const PAGE_BYTES: usize = 4096;
/// Wiped and locked pages that are kept for the next keys.
const SPARE_PAGES_MAX: usize = 64;

static SPARE_PAGES: Mutex<Vec<MmapMut>> = Mutex::new(Vec::new());
/// Why the first of the pages that are not locked is not.
static UNLOCKED: OnceLock<String> = OnceLock::new();

/// A run of secret bytes in pages of its own.
pub(super) struct Guarded {
    memory: Option<Memory>,
    len: usize,
}

enum Memory {
    Pages(MmapMut),
    /// The system gives no pages.
    Heap(Box<[u8]>),
}

impl Guarded {
    /// `len` zero bytes.
    pub(super) fn zeroed(len: usize) -> Self {
        let spare = if len <= PAGE_BYTES { SPARE_PAGES.lock().pop() } else { None };
        let memory = spare.map_or_else(|| fresh(len), Memory::Pages);
        Self { memory: Some(memory), len }
    }

    /// The bytes.
    pub(super) fn bytes(&self) -> &[u8] {
        let whole: &[u8] = match &self.memory {
            Some(Memory::Pages(pages)) => pages,
            Some(Memory::Heap(bytes)) => bytes,
            None => &[],
        };
        whole.get(..self.len).unwrap_or_default()
    }

    /// The bytes, to be written in place.
    pub(super) fn bytes_mut(&mut self) -> &mut [u8] {
        let whole: &mut [u8] = match &mut self.memory {
            Some(Memory::Pages(pages)) => pages,
            Some(Memory::Heap(bytes)) => bytes,
            None => &mut [],
        };
        whole.get_mut(..self.len).unwrap_or_default()
    }

    /// Forgets all bytes behind the first `len`.
    pub(super) fn truncate(&mut self, len: usize) {
        if let Some(behind) = self.bytes_mut().get_mut(len..) {
            behind.zeroize();
            self.len = len;
        }
    }
}

impl Drop for Guarded {
    fn drop(&mut self) {
        self.bytes_mut().zeroize();
        if let Some(Memory::Pages(pages)) = self.memory.take()
            && self.len <= PAGE_BYTES
            && pages.len() == PAGE_BYTES
        {
            let mut spare = SPARE_PAGES.lock();
            if spare.len() < SPARE_PAGES_MAX {
                spare.push(pages);
            }
        }
    }
}

impl fmt::Debug for Guarded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Guarded(..)")
    }
}

fn fresh(len: usize) -> Memory {
    let pages = match MmapMut::map_anon(len.max(PAGE_BYTES)) {
        Ok(pages) => pages,
        Err(error) => {
            note(&error);
            return Memory::Heap(vec![0; len].into_boxed_slice());
        }
    };
    if let Err(error) = pages.lock() {
        note(&error);
    }
    if let Err(error) = pages.advise(Advice::DontDump) {
        tracing::debug!(%error, "pages of keys would be in a core dump");
    }
    Memory::Pages(pages)
}

fn note(error: &io::Error) {
    if UNLOCKED.set(error.to_string()).is_ok() {
        tracing::warn!(%error, "keys cannot be locked in memory: they may be swapped out");
    }
}

/// Why some of the secrets of this process may be swapped out; `None` while all of them are locked in memory.
#[must_use]
pub fn unlocked_because() -> Option<&'static str> {
    UNLOCKED.get().map(String::as_str)
}

/// To be called in a process that has just been forked, and before its secrets are [moved](super::Secret::moved): the
/// pages it has inherited are not locked.
pub fn after_fork() {
    SPARE_PAGES.lock().clear();
}

/// Overwrites `BYTES` of what calls that have returned have left on the stack below the caller.
#[inline(never)]
pub(crate) fn scrub_stack<const BYTES: usize>() {
    // Not byte by byte, as wiping does it: whoever seals a name waits for this.
    let mut below = [0_u8; BYTES];
    std::hint::black_box(&mut below);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_dropped_is_wiped_before_the_next_gets_it() {
        for _ in 0..200 {
            let mut secret = Guarded::zeroed(PAGE_BYTES);
            assert!(secret.bytes().iter().all(|byte| *byte == 0));
            secret.bytes_mut().fill(0xA5);
        }
        assert!(SPARE_PAGES.lock().len() <= SPARE_PAGES_MAX);
    }

    #[test]
    fn what_is_cut_off_is_wiped() {
        let mut secret = Guarded::zeroed(100);
        secret.bytes_mut().fill(7);
        secret.truncate(10);
        assert_eq!(secret.bytes(), [7; 10]);
        secret.len = 100;
        assert_eq!(secret.bytes()[10..], [0; 90]);
    }

    #[test]
    fn a_secret_of_any_length_has_its_own_memory() {
        for len in [0, 1, PAGE_BYTES, PAGE_BYTES + 1, 1 << 20] {
            let (mut one, other) = (Guarded::zeroed(len), Guarded::zeroed(len));
            one.bytes_mut().fill(1);
            assert_eq!((one.bytes().len(), other.bytes().iter().any(|byte| *byte != 0)), (len, false));
        }
    }
}
