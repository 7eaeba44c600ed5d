//! Whether files agree on where the blocks of a segment begin and end.
//!
//! Files may share blocks, but only whole ones. Of every run 16 bytes are kept; where two runs meet in a
//! way that is not plainly right, the segment's footer decides.

use std::collections::HashMap;

use super::MaintError;
use super::check::Survey;
use super::finding::LostBecause;
use super::rows::Rows;
use crate::base::{BLOCK_BYTES, Ino, PAGE_BLOCKS, Piece, Run, SegmentId, TAG_BYTES};
use crate::data::segment::read_footer;
use crate::meta::{Body, Key, Record};

const FULL_BYTES: u32 = (BLOCK_BYTES + TAG_BYTES) as u32;

/// Where one run lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct Span {
    segment: u32,
    pos: u32,
    end: u32,
    /// Where its whole raw blocks end.
    full_end: u32,
}

/// Where all runs lie.
#[derive(Debug, Default)]
pub(super) struct Overlap(Vec<Span>);

impl Overlap {
    pub(super) fn note(&mut self, segment: u32, run: &Run) {
        let full_end = run.pos.saturating_add(run.full.saturating_mul(FULL_BYTES));
        self.0.push(Span { segment, pos: run.pos, end: run.end_pos(), full_end });
    }

    /// Segments in which runs meet in a way that is not plainly right.
    fn doubtful(mut self) -> Vec<u32> {
        self.0.sort_unstable();
        self.0.dedup();
        let mut found = Vec::new();
        let mut reach: Option<Span> = None;
        for span in self.0 {
            if let Some(last) = reach.filter(|last| last.segment == span.segment) {
                let shared_end = last.end.min(span.end);
                let is_apart = span.pos >= last.end;
                let is_full = shared_end <= last.full_end.min(span.full_end);
                let is_even = span.pos.wrapping_sub(last.pos).is_multiple_of(FULL_BYTES);
                if !(is_apart || is_full && is_even) && found.last() != Some(&span.segment) {
                    found.push(span.segment);
                }
                if last.end > span.end {
                    continue;
                }
            }
            reach = Some(span);
        }
        found
    }
}

impl Survey<'_> {
    /// Compares all runs in doubtful segments with the segments' footers.
    pub(super) async fn look_at_overlaps(&mut self) -> Result<(), MaintError> {
        let doubtful = std::mem::take(&mut self.overlap).doubtful();
        let mut footers: HashMap<SegmentId, HashMap<u32, Piece>> = HashMap::new();
        for id in doubtful.into_iter().filter_map(|place| self.segments.id(place)) {
            let Some(record) = self.segments.get(id).and_then(|known| known.record) else { continue };
            // A footer that does not open is found where contents are read.
            if let Ok(blocks) = read_footer(&self.source.vault, id, &record.seal, u64::from(record.len)).await
            {
                let pieces = blocks.iter().map(|block| (block.place.pos, block.place.piece));
                footers.insert(id, pieces.collect());
            }
        }
        if footers.is_empty() {
            return Ok(());
        }
        let engine = self.source.engine.clone();
        for letter in *b"IE" {
            let mut rows = Rows::of(&engine, letter);
            while let Some(row) = rows.next().await? {
                match (row.key, row.record) {
                    (Some(Key::Inode(ino)), Ok(Record::Inode(inode))) => {
                        if let Body::Run(run) = &inode.body {
                            self.compare(&footers, ino, 0, run);
                        }
                    }
                    (Some(Key::Extents(ino, page)), Ok(Record::Extents(extents))) => {
                        for run in extents.runs.runs() {
                            self.compare(&footers, ino, page.saturating_mul(PAGE_BLOCKS), run);
                        }
                    }
                    _ => {}
                }
            }
        }
        Ok(())
    }

    fn compare(&mut self, footers: &HashMap<SegmentId, HashMap<u32, Piece>>, ino: Ino, base: u64, run: &Run) {
        let Some(footer) = footers.get(&run.segment) else { return };
        for (index, place) in run.places() {
            if footer.get(&place.pos) != Some(&place.piece) {
                let block = base.saturating_add(u64::from(index));
                let blocks = block..block.saturating_add(1);
                self.lost.add(ino, LostBecause::Misplaced, Some(run.segment), blocks, u64::MAX);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn run(pos: u32, full: u32, rest: &[u32]) -> Run {
        let rest =
            rest.iter().map(|bytes| Piece { plain: *bytes, stored: *bytes, codec: crate::base::Codec::Raw });
        Run { first: 0, segment: SegmentId([1; 16]), pos, full, rest: rest.collect() }
    }

    fn doubts(runs: &[Run]) -> usize {
        let mut overlap = Overlap::default();
        runs.iter().for_each(|run| overlap.note(0, run));
        overlap.doubtful().len()
    }

    #[test]
    fn whole_blocks_may_be_shared_and_half_ones_are_doubtful() {
        assert_eq!(doubts(&[run(64, 4, &[]), run(64, 4, &[])]), 0, "a copy");
        assert_eq!(doubts(&[run(64, 4, &[]), run(64 + FULL_BYTES, 1, &[])]), 0, "a copy of a part");
        assert_eq!(doubts(&[run(64, 1, &[10]), run(64 + FULL_BYTES + 26, 1, &[])]), 0, "neighbours");
        assert_eq!(doubts(&[run(64, 4, &[]), run(65, 1, &[])]), 1, "a block off by one byte");
        assert_eq!(doubts(&[run(64, 1, &[10, 20]), run(64 + FULL_BYTES, 0, &[11])]), 1, "another length");
        assert_eq!(
            doubts(&[run(64, 9, &[]), run(64, 1, &[]), run(70 + FULL_BYTES, 1, &[])]),
            1,
            "under a long one"
        );
    }
}
