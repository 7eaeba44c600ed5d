//! Tells sequential readers from the rest and says what to fetch for them before they ask.

use std::ops::Range;

use crate::base::BLOCK_LEN;

/// Smallest first window of a reader found to be sequential; twice the read if that is more.
const WINDOW_BYTES_MIN: u64 = 256 * 1024;
/// The window grows fourfold up to here, then twofold.
const WINDOW_BYTES_STEEP: u64 = 4 * 1024 * 1024;
/// The window is filled up when so much of it has been used: were more left to be asked for at once, all of it would come at about the
/// same time, and the link would be idle from then until the next is on its way.
const STRIDE_BYTES_MAX: u64 = 8 * 1024 * 1024;
/// How far requests of one stream may overtake each other on their way here.
const DISORDER_BYTES_MAX: u64 = 2 * 1024 * 1024;

/// The reading pattern of one open file.
///
/// A stream is a read that goes on where the last one ended, or a first read of a whole block or more at
/// offset 0. It gets a window of read-ahead that grows each time half of it, or of a large one a stride, is used up. Any
/// other jump ends it.
#[derive(Clone, Debug)]
pub struct ReadAhead {
    window_bytes_max: u64,
    /// 0 while there is no stream.
    window_bytes: u64,
    begun: bool,
    /// Offset after the farthest byte read.
    next: u64,
    /// Offset after the last byte asked for ahead.
    asked: u64,
    /// Bytes of the stream that were jumped over and not read since.
    skipped_bytes: u64,
}

impl ReadAhead {
    /// A file that nobody has read yet; `window_bytes_max` bounds how far ahead it ever asks.
    #[must_use]
    pub const fn new(window_bytes_max: u64) -> Self {
        Self { window_bytes_max, window_bytes: 0, begun: false, next: 0, asked: 0, skipped_bytes: 0 }
    }

    /// Changes the bound, when more or fewer files are read at once.
    pub fn set_window_max(&mut self, window_bytes_max: u64) {
        self.window_bytes_max = window_bytes_max;
        self.window_bytes = self.window_bytes.min(window_bytes_max);
    }

    /// Whether the file is being read from front to back.
    #[must_use]
    pub const fn is_stream(&self) -> bool {
        self.window_bytes > 0
    }

    /// Takes note of a read; returns the blocks to fetch now, which may lie beyond the end of the file.
    pub fn observe(&mut self, offset: u64, bytes: u64) -> Option<Range<u64>> {
        if bytes == 0 {
            return None;
        }
        let end = offset.saturating_add(bytes);
        let opens = !self.begun && offset == 0 && bytes >= BLOCK_LEN;
        let goes_on = self.begun && (offset == self.next || self.is_disorder(offset, end));
        self.begun = true;
        if !opens && !goes_on {
            (self.window_bytes, self.asked, self.skipped_bytes, self.next) = (0, 0, 0, end);
            return None;
        }
        self.next = self.next.max(end);
        self.widen(bytes)
    }

    /// Whether a read a little before or after the expected one still belongs to the stream.
    fn is_disorder(&mut self, offset: u64, end: u64) -> bool {
        if !self.is_stream() || end.saturating_add(DISORDER_BYTES_MAX) < self.next {
            return false;
        }
        if offset < self.next {
            self.skipped_bytes = self.skipped_bytes.saturating_sub(end - offset);
            return true;
        }
        self.skipped_bytes = self.skipped_bytes.saturating_add(offset - self.next);
        self.skipped_bytes <= DISORDER_BYTES_MAX
    }

    fn widen(&mut self, bytes: u64) -> Option<Range<u64>> {
        let left = self.window_bytes - (self.window_bytes / 2).min(STRIDE_BYTES_MAX);
        if self.asked > self.next.saturating_add(left) {
            return None;
        }
        let wider = match self.window_bytes {
            0 => WINDOW_BYTES_MIN.max(bytes.saturating_mul(2)),
            steep if steep < WINDOW_BYTES_STEEP => steep * 4,
            flat => flat.saturating_mul(2),
        };
        self.window_bytes = wider.min(self.window_bytes_max);
        let from = self.asked.max(self.next).div_ceil(BLOCK_LEN);
        let to = self.next.saturating_add(self.window_bytes).div_ceil(BLOCK_LEN);
        if self.window_bytes == 0 || from >= to {
            return None;
        }
        self.asked = to.saturating_mul(BLOCK_LEN);
        Some(from..to)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1024 * 1024;
    const MAX: u64 = 32 * MIB;

    /// Reads `count` times `bytes` on from `offset`; what was asked for.
    fn stream(ahead: &mut ReadAhead, offset: u64, bytes: u64, count: u64) -> Vec<Range<u64>> {
        (0..count).filter_map(|n| ahead.observe(offset + n * bytes, bytes)).collect()
    }

    #[test]
    fn a_stream_is_asked_for_once_without_gaps_and_in_growing_strides() {
        for bytes in [4096, 65_536, 131_072, MIB, 3 * MIB + 5] {
            let mut ahead = ReadAhead::new(MAX);
            let asked = stream(&mut ahead, 0, bytes, 256 * MIB / bytes);
            for pair in asked.windows(2) {
                assert_eq!(pair[0].end, pair[1].start, "reads of {bytes}");
            }
            assert!(asked[0].start * BLOCK_LEN < 2 * bytes.max(BLOCK_LEN));
            assert!(asked.last().unwrap().end * BLOCK_LEN >= 256 * MIB - bytes + MAX / 2);
            let widest = asked.iter().map(|blocks| (blocks.end - blocks.start) * BLOCK_LEN).max().unwrap();
            assert!((STRIDE_BYTES_MAX..=MAX).contains(&widest), "{widest}");
            assert!(asked.len() < 40 || bytes > MIB, "{} requests for reads of {bytes}", asked.len());
        }
    }

    #[test]
    fn of_a_wide_window_three_quarters_are_under_way_or_here_at_any_moment() {
        let mut ahead = ReadAhead::new(MAX);
        let mut asked = 0;
        for n in 0..256 {
            let read = n * MIB..(n + 1) * MIB;
            asked = ahead.observe(read.start, MIB).map_or(asked, |blocks| blocks.end * BLOCK_LEN);
            assert!(
                n < 32 || asked - read.end >= MAX - STRIDE_BYTES_MAX,
                "{} ahead at {n}",
                asked - read.end
            );
        }
    }

    #[test]
    fn it_never_asks_farther_than_its_bound() {
        for bound in [0, 1, 100_000, MIB, 5 * MIB] {
            let mut ahead = ReadAhead::new(bound);
            for n in 0..1000 {
                if let Some(blocks) = ahead.observe(n * 65_536, 65_536) {
                    assert!(blocks.end * BLOCK_LEN <= (n + 1) * 65_536 + bound.next_multiple_of(BLOCK_LEN));
                    assert!(bound > 0);
                }
            }
        }
    }

    #[test]
    fn random_backward_and_strided_readers_get_nothing() {
        let mut random = ReadAhead::new(MAX);
        let mut at = 1u64;
        for _ in 0..1000 {
            at = at.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            assert_eq!(random.observe(at >> 30, 4096), None);
        }
        let mut backward = ReadAhead::new(MAX);
        assert!((1..500).rev().all(|n| backward.observe(n * 65_536, 65_536).is_none()));
        let mut strided = ReadAhead::new(MAX);
        assert!((0..500).all(|n| strided.observe(n * MIB, 4096).is_none()));
        let mut peek = ReadAhead::new(MAX);
        assert_eq!(peek.observe(0, 4096), None);
    }

    #[test]
    fn a_jump_ends_a_stream_and_a_new_one_starts_small() {
        let mut ahead = ReadAhead::new(MAX);
        stream(&mut ahead, 0, MIB, 64);
        assert!(ahead.is_stream());
        assert_eq!(ahead.observe(500 * MIB, 4096), None);
        assert!(!ahead.is_stream());
        assert_eq!(ahead.observe(500 * MIB + 4096, 4096), Some(8001..8005));
    }

    #[test]
    fn a_stream_that_starts_to_stride_is_given_up() {
        let mut ahead = ReadAhead::new(MAX);
        stream(&mut ahead, 0, 65_536, 100);
        let strides = (0..10).filter(|n| ahead.observe(100 * 65_536 + n * MIB, 4096).is_some()).count();
        assert!(strides <= 2 && !ahead.is_stream());
    }

    #[test]
    fn requests_that_overtake_each_other_stay_one_stream() {
        let mut ahead = ReadAhead::new(MAX);
        let mut asked = stream(&mut ahead, 0, MIB, 2);
        for n in (2..64).step_by(2) {
            asked.extend(ahead.observe((n + 1) * MIB, MIB));
            asked.extend(ahead.observe(n * MIB, MIB));
        }
        assert!(ahead.is_stream());
        assert!(asked.windows(2).all(|pair| pair[0].end == pair[1].start));
    }
}
