//! The extents of one page of a file: a sorted list of runs, edited in place.

use std::ops::{ControlFlow, Range};

use super::ExtentError;
use super::{BlockPlace, LiveDelta, Run};

/// Runs sorted by their first block, none overlapping; edits join runs that continue each other.
/// Encodes as its `Vec<Run>` does; check a decoded one with [`RunList::validate`].
#[derive(Clone, Debug, Default, PartialEq, Eq, bincode::Encode, bincode::Decode)]
pub struct RunList(Vec<Run>);

impl RunList {
    /// A page of holes.
    #[must_use]
    pub const fn new() -> Self {
        Self(Vec::new())
    }

    /// Takes over runs that come from a record.
    ///
    /// # Errors
    /// As [`RunList::validate`].
    pub fn from_runs(runs: Vec<Run>, blocks_max: u32) -> Result<Self, ExtentError> {
        let list = Self(runs);
        list.validate(blocks_max)?;
        Ok(list)
    }

    /// Checks a decoded list whose block indexes must stay under `blocks_max`.
    ///
    /// # Errors
    /// [`ExtentError`] with the rule that it breaks.
    pub fn validate(&self, blocks_max: u32) -> Result<(), ExtentError> {
        let mut end = 0;
        for run in &self.0 {
            run.validate(blocks_max)?;
            if run.first < end {
                return Err(ExtentError { why: "runs overlap or are out of order" });
            }
            end = run.end();
        }
        Ok(())
    }

    /// The runs in order.
    #[must_use]
    pub fn runs(&self) -> &[Run] {
        &self.0
    }

    /// The runs in order, by value.
    #[must_use]
    pub fn into_runs(self) -> Vec<Run> {
        self.0
    }

    /// Whether every block is a hole.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// How many blocks are not holes.
    #[must_use]
    pub fn block_count(&self) -> u64 {
        self.0.iter().map(|run| u64::from(run.block_count())).sum()
    }

    /// The index after the last block that is not a hole.
    #[must_use]
    pub fn end(&self) -> u32 {
        self.0.last().map_or(0, Run::end)
    }

    /// The place of one block; `None` for a hole.
    #[must_use]
    pub fn lookup(&self, block: u32) -> Option<BlockPlace> {
        self.0.get(self.first_after(block))?.place(block)
    }

    /// All blocks that are not holes, in order.
    pub fn iter(&self) -> impl Iterator<Item = (u32, BlockPlace)> + '_ {
        self.0.iter().flat_map(Run::places)
    }

    /// The blocks of `range` that are not holes, in order.
    pub fn iter_range(&self, range: Range<u32>) -> impl Iterator<Item = (u32, BlockPlace)> + '_ {
        let runs = self.0.iter().skip(self.first_after(range.start));
        runs.flat_map(Run::places)
            .skip_while(move |(index, _)| *index < range.start)
            .take_while(move |(index, _)| *index < range.end)
    }

    /// The first stretch of data that ends after `from`, cut to begin at or after it.
    #[must_use]
    pub fn next_data(&self, from: u32) -> Option<Range<u32>> {
        let mut runs = self.0.iter().skip(self.first_after(from));
        let first = runs.next()?;
        let end = runs.try_fold(first.end(), |end, run| match run.first == end {
            true => ControlFlow::Continue(run.end()),
            false => ControlFlow::Break(end),
        });
        let (ControlFlow::Continue(end) | ControlFlow::Break(end)) = end;
        Some(first.first.max(from)..end)
    }

    /// The first hole at or after `from`; there is always one after the last block.
    #[must_use]
    pub fn next_hole(&self, from: u32) -> u32 {
        match self.next_data(from) {
            Some(data) if data.start == from => data.end,
            _ => from,
        }
    }

    /// Puts `blocks`, sorted by index and each index once, over what is there.
    pub fn replace(&mut self, blocks: &[(u32, BlockPlace)], live: &mut LiveDelta) {
        let mut pending: Option<Run> = None;
        for (index, place) in blocks {
            let next = Run::of(*index, place);
            let rest = match &mut pending {
                Some(run) => run.absorb(next),
                None => Some(next),
            };
            if let Some(next) = rest
                && let Some(run) = pending.replace(next)
            {
                self.put(run, live);
            }
        }
        if let Some(run) = pending {
            self.put(run, live);
        }
    }

    /// Puts one run over what is there.
    pub fn put(&mut self, run: Run, live: &mut LiveDelta) {
        if run.block_count() == 0 {
            return;
        }
        self.remove(run.first..run.end(), live);
        live.gain(run.segment, run.sealed_bytes());
        let at = self.first_after(run.first);
        let rest = match at.checked_sub(1).and_then(|before| self.0.get_mut(before)) {
            Some(before) => before.absorb(run),
            None => Some(run),
        };
        match rest {
            Some(run) => {
                self.0.insert(at, run);
                self.join_with_next(at);
            }
            None => self.join_with_next(at.saturating_sub(1)),
        }
    }

    /// Makes holes of `range`.
    pub fn remove(&mut self, range: Range<u32>, live: &mut LiveDelta) {
        if range.is_empty() {
            return;
        }
        let from = self.first_after(range.start);
        let to = self.0.partition_point(|run| run.first < range.end);
        let Some(hit) = self.0.get(from..to).filter(|hit| !hit.is_empty()) else { return };
        for run in hit.iter().filter_map(|run| run.clip(range.clone())) {
            live.lose(run.segment, run.sealed_bytes());
        }
        let head = hit.first().and_then(|run| run.clip(0..range.start));
        let tail = hit.last().and_then(|run| run.clip(range.end..u32::MAX));
        self.0.splice(from..to, head.into_iter().chain(tail));
    }

    /// The runs of `range`, moved so that `range.start` becomes block `to`: what another file, or
    /// another place in this one, puts to share the blocks. Ends where an index would pass 2^32.
    #[must_use]
    pub fn clone_range(&self, range: Range<u32>, to: u32) -> Vec<Run> {
        let runs = self.0.iter().skip(self.first_after(range.start));
        runs.take_while(|run| run.first < range.end)
            .filter_map(|run| run.clip(range.clone()))
            .map_while(|run| {
                let first = (run.first - range.start).checked_add(to)?;
                first.checked_add(run.block_count())?;
                Some(Run { first, ..run })
            })
            .collect()
    }

    /// Index of the first run that ends after `block`.
    fn first_after(&self, block: u32) -> usize {
        self.0.partition_point(|run| run.end() <= block)
    }

    fn join_with_next(&mut self, at: usize) {
        let next = at.saturating_add(1);
        match (self.0.get(at), self.0.get(next)) {
            (Some(run), Some(after)) if run.continues_in(after) => {}
            _ => return,
        }
        let run = self.0.remove(next);
        if let Some(before) = self.0.get_mut(at) {
            before.absorb(run);
        }
    }
}
