//! Buffers that segments are made in, used again while a stream goes on: fresh memory costs more than sealing what is put there.

use std::sync::{Arc, Weak};

use bytes::Bytes;
use parking_lot::Mutex;

/// Smaller ones are not worth keeping.
const KEPT_BYTES_MIN: usize = 1024 * 1024;

/// Buffers that nobody uses at present. Cheap to clone; clones share them.
#[derive(Clone, Debug)]
pub struct Buffers(Arc<Free>);

#[derive(Debug)]
struct Free {
    buffers: Mutex<Vec<Vec<u8>>>,
    count_max: usize,
}

/// The contents of a buffer that goes back when they are not needed any more.
struct Lent {
    bytes: Vec<u8>,
    home: Weak<Free>,
}

impl Buffers {
    /// Keeps up to `count_max` of them.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self(Arc::new(Free { buffers: Mutex::default(), count_max }))
    }

    /// An empty buffer with room for `bytes`.
    pub(super) fn take(&self, bytes: usize) -> Vec<u8> {
        let kept = if bytes < KEPT_BYTES_MIN { None } else { self.0.buffers.lock().pop() };
        let mut buffer = kept.unwrap_or_default();
        buffer.clear();
        buffer.reserve_exact(bytes);
        buffer
    }

    /// What was made in a buffer, which comes back when all of it is dropped.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() < KEPT_BYTES_MIN {
            return bytes.into();
        }
        Bytes::from_owner(Lent { bytes, home: Arc::downgrade(&self.0) })
    }

    /// Frees what nobody uses.
    pub fn clear(&self) {
        // Freed after the lock is.
        let _free = std::mem::take(&mut *self.0.buffers.lock());
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let Some(home) = self.home.upgrade() else { return };
        let mut buffers = home.buffers.lock();
        if buffers.len() < home.count_max {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: usize = 1024 * 1024;

    #[test]
    fn a_large_buffer_comes_back_when_all_of_its_contents_are_dropped() {
        let buffers = Buffers::new(1);
        let mut first = buffers.take(2 * MIB);
        first.extend_from_slice(b"contents");
        let (place, lent) = (first.as_ptr(), buffers.lend(first));
        let part = lent.slice(2..5);
        drop(lent);
        let other = buffers.take(2 * MIB);
        assert_ne!(other.as_ptr(), place, "a part of the first is still in use");
        assert_eq!(part, &b"nte"[..]);
        drop(part);
        let again = buffers.take(2 * MIB);
        assert!(again.is_empty());
        assert_eq!((again.as_ptr(), again.capacity()), (place, 2 * MIB));
    }

    #[test]
    fn no_more_are_kept_than_allowed_nor_small_ones_nor_any_after_clearing() {
        let buffers = Buffers::new(2);
        let count = || buffers.0.buffers.lock().len();
        let lent: Vec<Bytes> = (0..4).map(|_| buffers.lend(buffers.take(MIB))).collect();
        drop(lent);
        assert_eq!(count(), 2);
        drop(buffers.lend(buffers.take(1000)));
        assert_eq!(count(), 2);
        buffers.clear();
        assert_eq!(count(), 0);
    }
}
