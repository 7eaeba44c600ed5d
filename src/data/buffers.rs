//! Memory of file blocks that is used again: a page that a process touches for the first time costs more than to copy or
//! open what is put there.

use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;

use crate::base::BLOCK_BYTES;

/// Memory of whole blocks that nobody uses at present. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct BlockBuffers(Arc<Free>);

#[derive(Debug, Default)]
struct Free {
    buffers: Mutex<Vec<Vec<u8>>>,
    count_max: usize,
}

/// The contents of a buffer that goes back when they are not needed any more.
struct Lent {
    bytes: Vec<u8>,
    home: Arc<Free>,
}

impl BlockBuffers {
    /// Keeps up to `count_max` of them.
    #[must_use]
    pub fn new(count_max: usize) -> Self {
        Self(Arc::new(Free { buffers: Mutex::default(), count_max }))
    }

    /// An empty buffer with room for a block.
    pub(super) fn take_empty(&self) -> Vec<u8> {
        let mut buffer = self.take_kept().unwrap_or_else(|| Vec::with_capacity(BLOCK_BYTES));
        buffer.clear();
        buffer
    }

    /// A block's bytes, to be written over: what they are is anybody's guess.
    pub(super) fn take_filled(&self) -> Vec<u8> {
        let mut buffer = self.take_kept().unwrap_or_default();
        buffer.resize(BLOCK_BYTES, 0);
        buffer
    }

    fn take_kept(&self) -> Option<Vec<u8>> {
        self.0.buffers.lock().pop()
    }

    /// Contents of a block, whose memory comes back when all of it is dropped, if it has room for just a block.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() != BLOCK_BYTES || self.0.count_max == 0 {
            return bytes.into();
        }
        Bytes::from_owner(Lent { bytes, home: Arc::clone(&self.0) })
    }
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut buffers = self.home.buffers.lock();
        if buffers.len() < self.home.count_max {
            buffers.push(std::mem::take(&mut self.bytes));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_block_s_memory_comes_back_when_all_of_its_contents_are_dropped() {
        let buffers = BlockBuffers::new(1);
        let mut first = buffers.take_empty();
        first.extend_from_slice(&[7; BLOCK_BYTES]);
        let (place, lent) = (first.as_ptr(), buffers.lend(first));
        let part = lent.slice(2..5);
        drop(lent);
        let other = buffers.take_filled();
        assert_ne!(other.as_ptr(), place, "a part of the first is still in use");
        assert_eq!(part, &[7; 3][..]);
        drop(part);
        let again = buffers.take_filled();
        assert_eq!((again.as_ptr(), again.len()), (place, BLOCK_BYTES));
        drop(buffers.lend(again));
        assert!(buffers.take_empty().is_empty());
    }

    #[test]
    fn no_more_are_kept_than_allowed_nor_any_of_another_size() {
        let buffers = BlockBuffers::new(2);
        let count = || buffers.0.buffers.lock().len();
        let lent: Vec<Bytes> = (0..4).map(|_| buffers.lend(buffers.take_filled())).collect();
        drop(lent);
        assert_eq!(count(), 2);
        drop(buffers.lend(Vec::with_capacity(1000)));
        drop(buffers.lend(Vec::with_capacity(2 * BLOCK_BYTES)));
        assert_eq!(count(), 2);
        let none = BlockBuffers::default();
        drop(none.lend(none.take_filled()));
        assert_eq!(none.0.buffers.lock().len(), 0);
    }
}
