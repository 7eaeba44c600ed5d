//! Gives large pieces of memory mappings of their own, which the system gets back when they are let go.
//!
//! mimalloc keeps a page for each thread and each size of piece: of 4 MiB for pieces above 84 KiB. A dozen threads that
//! read and write pieces of all lengths keep more in such pages than a small mount may take in all.
#![allow(unsafe_code)] // an allocator hands out raw memory

use std::alloc::{GlobalAlloc, Layout};
use std::ptr;
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};

use mimalloc::MiMalloc;

/// Pieces from this size on have a mapping. Below it mimalloc's pages are an eighth of the size, and file blocks,
/// of which there are many, fit into them.
const MAPPED_BYTES_MIN: usize = 80 * 1024;
/// The system gives a process 65,530 mappings. Beyond this many pieces, others go to mimalloc.
const MAPPED_COUNT_MAX: usize = 16_384;
const PAGE_BYTES: usize = 4096;
/// Mappings that were let go last are kept for whoever wants as much next, because the first touch of each page of a
/// new one costs as much as sealing it. Only of pieces up to this size: the answer to the largest GET of a reader.
const KEPT_BYTES_MAX: usize = 4 * 1024 * 1024 + 64 * 1024;
const KEPT_COUNT_MAX: usize = 32;
/// All of them together: three of the largest, or with those in use as many bytes as were lately in use at once.
const KEPT_BYTES_SUM: usize = 3 * KEPT_BYTES_MAX;
/// What "lately" is: with each mapping that is let go, the most that was in use at once counts for a part less.
const FORGOTTEN: usize = 64;

unsafe extern "C" {
    fn mi_is_in_heap_region(piece: *const u8) -> bool;
}

/// A mapping's address and length; both are 0 where there is none.
type Mapping = (usize, usize);

/// Mappings that nobody uses, the oldest first, and how much others of their kind are in use.
struct Kept {
    mappings: [Mapping; KEPT_COUNT_MAX],
    count: usize,
    used_bytes: usize,
    /// The most that was lately in use at once.
    peak_bytes: usize,
}

impl Kept {
    const fn new() -> Self {
        Self { mappings: [(0, 0); KEPT_COUNT_MAX], count: 0, used_bytes: 0, peak_bytes: 0 }
    }

    /// The one whose length comes next to `bytes`, if it is neither less than half nor more than twice as much: of one that
    /// is much longer most would be lost to those who want as much.
    fn take(&mut self, bytes: usize) -> Option<Mapping> {
        let near = self.mappings.iter().enumerate().take(self.count);
        let near = near.filter(|(_, (_, len))| bytes / 2 <= *len && *len / 2 <= bytes);
        let (index, _) = near.min_by_key(|(_, (_, len))| len.abs_diff(bytes))?;
        Some(self.remove(index))
    }

    /// Keeps one more. Gives those that are to go for it, the oldest of all.
    fn keep(&mut self, mapping: Mapping) -> [Mapping; KEPT_COUNT_MAX] {
        self.peak_bytes -= self.peak_bytes / FORGOTTEN;
        let room = self.peak_bytes.saturating_sub(self.used_bytes).max(KEPT_BYTES_SUM);
        let mut leaving = [(0, 0); KEPT_COUNT_MAX];
        let mut sum = mapping.1 + self.mappings.iter().map(|(_, bytes)| bytes).sum::<usize>();
        for left in &mut leaving {
            if self.count == 0 || self.count < KEPT_COUNT_MAX && sum <= room {
                break;
            }
            *left = self.remove(0);
            sum -= left.1;
        }
        if let Some(place) = self.mappings.get_mut(self.count) {
            *place = mapping;
            self.count += 1;
        }
        leaving
    }

    fn remove(&mut self, index: usize) -> Mapping {
        let removed = self.mappings.get_mut(index).map(std::mem::take).unwrap_or_default();
        if let Some(later) = self.mappings.get_mut(index..self.count) {
            later.rotate_left(1);
            self.count -= 1;
        }
        removed
    }

    /// Notes that so many more bytes are in use.
    fn begin(&mut self, bytes: usize) {
        self.used_bytes += bytes;
        self.peak_bytes = self.peak_bytes.max(self.used_bytes);
    }

    fn end(&mut self, bytes: usize) {
        self.used_bytes = self.used_bytes.saturating_sub(bytes);
    }
}

/// mimalloc for small pieces, and mappings for large ones.
pub(crate) struct Allocator {
    kept: Mutex<Kept>,
    mapped_count: AtomicUsize,
}

impl Allocator {
    /// One that holds nothing.
    pub(crate) const fn new() -> Self {
        Self { kept: Mutex::new(Kept::new()), mapped_count: AtomicUsize::new(0) }
    }

    /// A new mapping of `bytes`, whole pages, all zero. Null if the system gives none, or there are many.
    fn map(&self, bytes: usize) -> *mut u8 {
        if self.mapped_count.fetch_add(1, Ordering::Relaxed) < MAPPED_COUNT_MAX {
            self.count(bytes, Kept::begin);
            let (access, kind) =
                (libc::PROT_READ | libc::PROT_WRITE, libc::MAP_PRIVATE | libc::MAP_ANONYMOUS);
            // SAFETY: a new anonymous mapping, at an address that the system chooses, is nobody else's.
            let piece = unsafe { libc::mmap(ptr::null_mut(), bytes, access, kind, -1, 0) };
            if piece != libc::MAP_FAILED {
                return piece.cast();
            }
            self.count(bytes, Kept::end);
        }
        self.mapped_count.fetch_sub(1, Ordering::Relaxed);
        ptr::null_mut()
    }

    /// Notes that a piece is in use, or not any more, if it is of those that are kept.
    fn count(&self, bytes: usize, note: fn(&mut Kept, usize)) {
        if bytes <= KEPT_BYTES_MAX
            && let Ok(mut kept) = self.kept.lock()
        {
            note(&mut kept, bytes);
        }
    }

    fn take_kept(&self, bytes: usize) -> Option<*mut u8> {
        if bytes > KEPT_BYTES_MAX {
            return None;
        }
        let (piece, len) = {
            let mut kept = self.kept.lock().ok()?;
            let taken = kept.take(bytes)?;
            kept.begin(bytes);
            taken
        };
        // SAFETY: it was mapped by `map`, with this length, and nobody refers to it. What was touched of it stays so.
        let fitting = unsafe { libc::mremap(piece as *mut libc::c_void, len, bytes, libc::MREMAP_MAYMOVE) };
        if fitting == libc::MAP_FAILED {
            self.count(bytes, Kept::end);
            self.unmap_now((piece, len));
            return None;
        }
        Some(fitting.cast())
    }

    /// Lets go of a mapping, or of those that were kept longest if this one is kept.
    fn unmap(&self, piece: *mut u8, bytes: usize) {
        let mapping = (piece as usize, bytes);
        if bytes > KEPT_BYTES_MAX {
            return self.unmap_now(mapping);
        }
        let leaving = match self.kept.lock() {
            Ok(mut kept) => {
                kept.end(bytes);
                kept.keep(mapping)
            }
            Err(_) => return self.unmap_now(mapping),
        };
        leaving.into_iter().filter(|(_, bytes)| *bytes > 0).for_each(|mapping| self.unmap_now(mapping));
    }

    fn unmap_now(&self, (piece, bytes): Mapping) {
        self.mapped_count.fetch_sub(1, Ordering::Relaxed);
        // SAFETY: it was mapped by `map`, with this length, and nobody refers to it.
        unsafe { libc::munmap(piece as *mut libc::c_void, bytes) };
    }
}

/// Whether a piece may have a mapping.
const fn is_large(layout: &Layout) -> bool {
    layout.size() >= MAPPED_BYTES_MIN && layout.align() <= PAGE_BYTES
}

/// Whole pages.
const fn pages(bytes: usize) -> usize {
    bytes.next_multiple_of(PAGE_BYTES)
}

/// Whether a large piece is mimalloc's, because there were too many mappings.
fn is_small_after_all(piece: *const u8) -> bool {
    // SAFETY: it only looks the address up.
    unsafe { mi_is_in_heap_region(piece) }
}

// SAFETY: each piece comes from mimalloc or from a mapping of at least its size, aligned to a page, and goes back to
// where it came from: small ones always to mimalloc, of large ones mimalloc knows which are its own.
unsafe impl GlobalAlloc for Allocator {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            let bytes = pages(layout.size());
            let piece = self.take_kept(bytes).unwrap_or_else(|| self.map(bytes));
            if !piece.is_null() {
                return piece;
            }
        }
        unsafe { MiMalloc.alloc(layout) }
    }

    unsafe fn alloc_zeroed(&self, layout: Layout) -> *mut u8 {
        if is_large(&layout) {
            let bytes = pages(layout.size());
            if let Some(piece) = self.take_kept(bytes) {
                // SAFETY: it was mapped with this length, and nobody refers to it. Cheaper than to touch new pages.
                unsafe { piece.write_bytes(0, bytes) };
                return piece;
            }
            let piece = self.map(bytes);
            if !piece.is_null() {
                return piece;
            }
        }
        unsafe { MiMalloc.alloc_zeroed(layout) }
    }

    unsafe fn dealloc(&self, piece: *mut u8, layout: Layout) {
        match is_large(&layout) && !is_small_after_all(piece) {
            true => self.unmap(piece, pages(layout.size())),
            false => unsafe { MiMalloc.dealloc(piece, layout) },
        }
    }

    unsafe fn realloc(&self, piece: *mut u8, layout: Layout, size: usize) -> *mut u8 {
        // SAFETY: the caller promises that the size fits the alignment.
        let wanted = unsafe { Layout::from_size_align_unchecked(size, layout.align()) };
        let (was_large, is_large) = (is_large(&layout), is_large(&wanted));
        if !was_large && !is_large || was_large && is_large && is_small_after_all(piece) {
            return unsafe { MiMalloc.realloc(piece, layout, size) };
        }
        if was_large && is_large {
            let (before, after) = (pages(layout.size()), pages(size));
            // SAFETY: it was mapped with this length; who asks for another size gives the old piece up.
            let moved = unsafe { libc::mremap(piece.cast(), before, after, libc::MREMAP_MAYMOVE) };
            if moved == libc::MAP_FAILED {
                return ptr::null_mut();
            }
            self.count(before, Kept::end);
            self.count(after, Kept::begin);
            return moved.cast();
        }
        unsafe {
            let moved = self.alloc(wanted);
            if !moved.is_null() {
                ptr::copy_nonoverlapping(piece, moved, layout.size().min(size));
                self.dealloc(piece, layout);
            }
            moved
        }
    }
}

#[cfg(test)]
mod tests {
    use std::slice;
    use std::sync::Barrier;

    use super::*;

    fn layout(bytes: usize) -> Layout {
        Layout::from_size_align(bytes, 16).unwrap()
    }

    fn mapped_count(allocator: &Allocator) -> usize {
        allocator.mapped_count.load(Ordering::Relaxed)
    }

    #[test]
    fn a_piece_keeps_its_bytes_when_it_grows_and_shrinks_over_every_limit() {
        let sizes =
            [100, MAPPED_BYTES_MIN - 1, MAPPED_BYTES_MIN, 100_000, 3_000_000, 90_000, 50_000, 200_000, 1];
        for is_crowded in [false, true] {
            let allocator = Allocator::new();
            if is_crowded {
                allocator.mapped_count.store(MAPPED_COUNT_MAX, Ordering::Relaxed);
            }
            unsafe {
                let mut piece = allocator.alloc(layout(sizes[0]));
                slice::from_raw_parts_mut(piece, sizes[0]).fill(7);
                let mut sevens = sizes[0];
                for pair in sizes.windows(2) {
                    piece = allocator.realloc(piece, layout(pair[0]), pair[1]);
                    let bytes = slice::from_raw_parts_mut(piece, pair[1]);
                    sevens = sevens.min(bytes.len());
                    assert!(bytes[..sevens].iter().all(|byte| *byte == 7), "{pair:?}");
                    bytes.fill(7);
                    sevens = bytes.len();
                }
                allocator.dealloc(piece, layout(1));
            }
        }
    }

    #[test]
    fn a_zeroed_piece_is_zero_though_a_mapping_was_kept() {
        let (allocator, layout) = (Allocator::new(), layout(100_000));
        unsafe {
            let piece = allocator.alloc(layout);
            slice::from_raw_parts_mut(piece, 100_000).fill(7);
            allocator.dealloc(piece, layout);
            assert_eq!(mapped_count(&allocator), 1);
            let zeroed = allocator.alloc_zeroed(layout);
            assert_eq!(zeroed, piece, "what was let go last is given next");
            assert!(slice::from_raw_parts(zeroed, 100_000).iter().all(|byte| *byte == 0));
            let other = allocator.alloc(layout);
            assert_ne!(other, zeroed);
            slice::from_raw_parts_mut(other, 100_000).fill(7);
            allocator.dealloc(other, layout);
            allocator.dealloc(zeroed, layout);
        }
    }

    #[test]
    fn a_mapping_that_was_kept_is_given_in_another_length_with_what_was_touched_of_it() {
        let allocator = Allocator::new();
        let is_touched = |piece: *mut u8, bytes: usize| {
            let mut pages = vec![0_u8; bytes / PAGE_BYTES];
            let told = unsafe { libc::mincore(piece.cast(), bytes, pages.as_mut_ptr().cast()) };
            assert_eq!(told, 0);
            pages.iter().filter(|page| **page & 1 == 1).count()
        };
        unsafe {
            let bytes = 50 * PAGE_BYTES;
            let piece = allocator.alloc(layout(bytes));
            slice::from_raw_parts_mut(piece, bytes).fill(7);
            allocator.dealloc(piece, layout(bytes));
            let longer = allocator.alloc(layout(2 * bytes));
            assert_eq!(is_touched(longer, 2 * bytes), 50);
            slice::from_raw_parts_mut(longer, 2 * bytes).fill(7);
            allocator.dealloc(longer, layout(2 * bytes));
            let shorter = allocator.alloc(layout(bytes));
            assert_eq!(is_touched(shorter, bytes), 50);
            allocator.dealloc(shorter, layout(bytes));
            assert_eq!(mapped_count(&allocator), 1);
        }
    }

    #[test]
    fn of_large_pieces_that_many_threads_have_let_go_only_a_few_are_kept() {
        const THREADS: usize = 12;
        let (allocator, all_done) = (Allocator::new(), Barrier::new(THREADS));
        std::thread::scope(|scope| {
            for _ in 0..THREADS {
                scope.spawn(|| {
                    for bytes in (MAPPED_BYTES_MIN..512 * 1024).step_by(16 * 1024) {
                        unsafe {
                            let piece = allocator.alloc(layout(bytes));
                            slice::from_raw_parts_mut(piece, bytes).fill(7);
                            allocator.dealloc(piece, layout(bytes));
                        }
                    }
                    // While all of the threads are there, each would keep pages of its own.
                    all_done.wait();
                    assert!(mapped_count(&allocator) <= KEPT_COUNT_MAX);
                });
            }
        });
    }

    fn sum(kept: &Kept) -> usize {
        kept.mappings.iter().map(|(_, bytes)| bytes).sum()
    }

    #[test]
    fn what_is_kept_is_bounded_in_bytes_and_the_oldest_goes() {
        let mut kept = Kept::new();
        let gone = |leaving: [Mapping; KEPT_COUNT_MAX]| -> Vec<usize> {
            leaving.into_iter().filter(|(_, bytes)| *bytes > 0).map(|(piece, _)| piece).collect()
        };
        for piece in 1..=3 {
            assert!(gone(kept.keep((piece, KEPT_BYTES_MAX))).is_empty());
        }
        assert_eq!(gone(kept.keep((4, PAGE_BYTES))), [1]);
        assert_eq!(gone(kept.keep((5, KEPT_BYTES_MAX))), [2]);
        assert_eq!(kept.take(KEPT_BYTES_MAX), Some((3, KEPT_BYTES_MAX)));
        for piece in 6..=36 {
            assert!(sum(&kept) <= KEPT_BYTES_SUM);
            kept.keep((piece, MAPPED_BYTES_MIN));
        }
        assert_eq!(kept.take(PAGE_BYTES), None, "thirty-one have come since, all of them much longer");
        assert_eq!(kept.take(KEPT_BYTES_MAX / 2), Some((5, KEPT_BYTES_MAX)));
        assert_eq!((0..).map_while(|_| kept.take(MAPPED_BYTES_MIN)).count(), 31);
    }

    #[test]
    fn what_is_taken_and_let_go_again_and_again_pushes_nothing_out() {
        let mut kept = Kept::new();
        kept.keep((1, KEPT_BYTES_MAX));
        for _ in 0..100 {
            kept.keep((2, MAPPED_BYTES_MIN));
            assert_eq!(kept.take(MAPPED_BYTES_MIN), Some((2, MAPPED_BYTES_MIN)));
        }
        assert_eq!(kept.take(KEPT_BYTES_MAX), Some((1, KEPT_BYTES_MAX)));
    }

    #[test]
    fn as_much_is_kept_as_was_lately_in_use_at_once() {
        let mut kept = Kept::new();
        kept.begin(10 * KEPT_BYTES_MAX);
        for piece in 1..=10 {
            kept.end(KEPT_BYTES_MAX);
            kept.keep((piece, KEPT_BYTES_MAX));
        }
        assert!(sum(&kept) >= 8 * KEPT_BYTES_MAX, "{}", sum(&kept));
        for _ in 0..300 {
            kept.keep((11, MAPPED_BYTES_MIN));
            kept.take(MAPPED_BYTES_MIN);
        }
        assert!(sum(&kept) <= KEPT_BYTES_SUM);
    }

    #[test]
    fn beyond_as_many_mappings_as_the_system_gives_pieces_come_from_elsewhere() {
        let allocator = Allocator::new();
        let many: Vec<*mut u8> = (0..MAPPED_COUNT_MAX + 10)
            .map(|_| unsafe { allocator.alloc(layout(MAPPED_BYTES_MIN)) })
            .collect();
        assert!(many.iter().all(|piece| !piece.is_null()));
        assert_eq!(mapped_count(&allocator), MAPPED_COUNT_MAX);
        many.into_iter().for_each(|piece| unsafe { allocator.dealloc(piece, layout(MAPPED_BYTES_MIN)) });
        assert!(mapped_count(&allocator) <= KEPT_COUNT_MAX);
    }
}
