//! Memory of file blocks that is used again: a page that a process touches for the first time costs more than to copy or
//! open what is put there.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::runtime::{Handle, RuntimeFlavor};

use crate::base::{BLOCK_BYTES, populate};

/// New buffers after which somebody is taken to stream, so that those he is about to need are made ready for him: 1 MiB.
const NEW_MAX: usize = 16;

/// Memory of whole blocks that nobody uses at present. Cheap to clone; clones share it.
#[derive(Clone, Debug, Default)]
pub struct BlockBuffers(Arc<Free>);

#[derive(Debug, Default)]
struct Free {
    stock: Mutex<Stock>,
    count_max: usize,
    /// Makes buffers ready beside whoever takes them.
    helper: Option<Handle>,
}

#[derive(Debug, Default)]
struct Stock {
    buffers: Vec<Vec<u8>>,
    /// Buffers that had to be made while somebody waited.
    new_count: usize,
    is_filling: bool,
}

impl Stock {
    /// Makes none ready, until somebody streams again.
    const fn give_up(&mut self) {
        (self.is_filling, self.new_count) = (false, 0);
    }
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
        Self(Arc::new(Free { count_max, ..Free::default() }))
    }

    /// As [`BlockBuffers::new`], and has half as many made ready on threads of `runtime` that may block, while streams take more
    /// than come back. In a runtime of one thread there is nobody to do it beside them.
    #[must_use]
    pub fn stocked(count_max: usize, runtime: &Handle) -> Self {
        let helper = (runtime.runtime_flavor() != RuntimeFlavor::CurrentThread).then(|| runtime.clone());
        Self(Arc::new(Free { count_max, helper, ..Free::default() }))
    }

    /// An empty buffer with room for a block.
    pub(super) fn take_empty(&self) -> Vec<u8> {
        let mut buffer = self.take_kept().unwrap_or_else(fresh);
        buffer.clear();
        buffer
    }

    /// A block's bytes, to be written over: what they are is anybody's guess.
    pub(super) fn take_filled(&self) -> Vec<u8> {
        let mut buffer = self.take_kept().unwrap_or_else(fresh);
        buffer.resize(BLOCK_BYTES, 0);
        buffer
    }

    fn take_kept(&self) -> Option<Vec<u8>> {
        let mut stock = self.0.stock.lock();
        let taken = stock.buffers.pop();
        if taken.is_none() {
            stock.new_count += 1;
        }
        let is_low = stock.buffers.len() < self.0.ready_count() / 2 && stock.new_count > NEW_MAX;
        if let Some(helper) = self.0.helper.as_ref().filter(|_| is_low && !stock.is_filling) {
            stock.is_filling = true;
            let free = Arc::clone(&self.0);
            drop(stock);
            // Where the system gives no thread, it panics; the callers hold what they are about to change.
            if catch_unwind(AssertUnwindSafe(|| helper.spawn_blocking(move || free.fill()))).is_err() {
                self.0.stock.lock().give_up();
            }
        }
        taken
    }

    /// Contents of a block, whose memory comes back when all of it is dropped, if it has room for just a block.
    pub(super) fn lend(&self, bytes: Vec<u8>) -> Bytes {
        if bytes.capacity() != BLOCK_BYTES || self.0.count_max == 0 {
            return bytes.into();
        }
        Bytes::from_owner(Lent { bytes, home: Arc::clone(&self.0) })
    }
}

impl Free {
    /// How many are made ready: half of those that may be kept, so that there is room for those that come back.
    const fn ready_count(&self) -> usize {
        self.count_max / 2
    }

    /// Makes them.
    fn fill(&self) {
        loop {
            let buffer = fresh();
            let mut stock = self.stock.lock();
            if stock.buffers.len() >= self.ready_count() {
                stock.is_filling = false;
                return;
            }
            stock.buffers.push(buffer);
        }
    }
}

/// New memory for a block.
fn fresh() -> Vec<u8> {
    let mut buffer = Vec::with_capacity(BLOCK_BYTES);
    populate(buffer.spare_capacity_mut());
    buffer
}

impl AsRef<[u8]> for Lent {
    fn as_ref(&self) -> &[u8] {
        &self.bytes
    }
}

impl Drop for Lent {
    fn drop(&mut self) {
        let mut stock = self.home.stock.lock();
        if stock.buffers.len() < self.home.count_max {
            stock.buffers.push(std::mem::take(&mut self.bytes));
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

    #[tokio::test(flavor = "multi_thread")]
    async fn whoever_takes_many_finds_more_made_ready() {
        let buffers = BlockBuffers::stocked(16, &Handle::current());
        let stock = || {
            let stock = buffers.0.stock.lock();
            (stock.buffers.len(), stock.is_filling)
        };
        let taken: Vec<_> = (0..NEW_MAX).map(|_| buffers.take_empty()).collect();
        assert_eq!(stock(), (0, false), "who takes {} is not taken for a stream", taken.len());
        drop(buffers.take_empty());
        while stock() != (8, false) {
            tokio::task::yield_now().await;
        }
        let more: Vec<_> = (0..4).map(|_| buffers.take_filled()).collect();
        assert_eq!((more.len(), stock()), (4, (4, false)));
        drop(buffers.take_filled());
        while stock() != (8, false) {
            tokio::task::yield_now().await;
        }
    }

    #[test]
    fn a_runtime_that_has_ended_leaves_buffers_to_be_made_by_who_needs_them() {
        let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(1).build().unwrap();
        let buffers = BlockBuffers::stocked(16, runtime.handle());
        drop(runtime);
        let taken: Vec<_> = (0..3 * NEW_MAX).map(|_| buffers.take_filled()).collect();
        assert!(taken.iter().all(|buffer| buffer.len() == BLOCK_BYTES));
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_makes_none_ready() {
        let buffers = BlockBuffers::stocked(8, &Handle::current());
        let taken: Vec<_> = (0..3 * NEW_MAX).map(|_| buffers.take_empty()).collect();
        assert_eq!(buffers.0.stock.lock().buffers.len(), 0, "{} are taken", taken.len());
    }

    #[test]
    fn no_more_are_kept_than_allowed_nor_any_of_another_size() {
        let buffers = BlockBuffers::new(2);
        let count = || buffers.0.stock.lock().buffers.len();
        let lent: Vec<Bytes> = (0..4).map(|_| buffers.lend(buffers.take_filled())).collect();
        drop(lent);
        assert_eq!(count(), 2);
        drop(buffers.lend(Vec::with_capacity(1000)));
        drop(buffers.lend(Vec::with_capacity(2 * BLOCK_BYTES)));
        assert_eq!(count(), 2);
        let none = BlockBuffers::default();
        drop(none.lend(none.take_filled()));
        assert_eq!(none.0.stock.lock().buffers.len(), 0);
    }
}
