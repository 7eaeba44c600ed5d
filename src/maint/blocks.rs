//! Gathers the parts of a file that cannot be read.

use std::collections::BTreeMap;
use std::ops::Range;

use super::finding::{Findings, LostBecause, Problem};
use crate::base::{BLOCK_LEN, Ino, SegmentId};

/// Ranges of one finding that are named one by one.
const RANGES_MAX: usize = 64;

/// Byte ranges in ascending order: the first ones, and how many bytes in all.
#[derive(Clone, Debug, Default)]
pub(super) struct Ranges {
    pub(super) first: Vec<Range<u64>>,
    pub(super) bytes: u64,
}

impl Ranges {
    pub(super) fn add(&mut self, range: Range<u64>) {
        self.bytes = self.bytes.saturating_add(range.end.saturating_sub(range.start));
        let has_room = self.first.len() < RANGES_MAX;
        match self.first.last_mut() {
            Some(last) if last.end == range.start => last.end = range.end,
            _ if has_room => self.first.push(range),
            _ => {}
        }
    }
}

/// What is lost of files, by file, reason and segment.
#[derive(Debug, Default)]
pub(super) struct Lost(BTreeMap<(Ino, LostBecause, Option<SegmentId>), Ranges>);

impl Lost {
    /// Block `index` of `ino`, of which `plain` bytes are stored.
    pub(super) fn add(
        &mut self,
        ino: Ino,
        because: LostBecause,
        segment: Option<SegmentId>,
        blocks: Range<u64>,
        size: u64,
    ) {
        let start = blocks.start.saturating_mul(BLOCK_LEN);
        let end = blocks.end.saturating_mul(BLOCK_LEN).min(size).max(start);
        if start < end {
            self.0.entry((ino, because, segment)).or_default().add(start..end);
        }
    }

    pub(super) fn len(&self) -> usize {
        self.0.len()
    }

    /// Forgets what was said of segments that `is_current` does not know any more.
    pub(super) fn retain(&mut self, is_current: impl Fn(SegmentId) -> bool) {
        self.0.retain(|(_, _, segment), _| segment.is_none_or(&is_current));
    }

    pub(super) fn segments(&self) -> impl Iterator<Item = SegmentId> {
        self.0.keys().filter_map(|(_, _, segment)| *segment)
    }

    /// Makes findings of it all.
    pub(super) fn tell(self, findings: &mut Findings) {
        for ((ino, because, segment), ranges) in self.0 {
            let (ranges, bytes) = (ranges.first, ranges.bytes);
            findings.inode(ino, Problem::BlocksLost { because, segment, ranges, bytes });
        }
    }
}
