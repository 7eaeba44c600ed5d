//! What a repair does about pages of extents that are missing or cannot be read.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use super::MaintError;
use super::finding::{Finding, Problem};
use super::mend_segments::within;
use super::mender::Mender;
use super::segments::LOST;
use crate::base::{BLOCK_LEN, BlockPlace, HEAD_BYTES, Ino, LiveDelta, PAGE_BLOCKS, Run, RunList, SegmentId};
use crate::meta::{Key, Page, Record};

/// Pages that are marked as lost one by one; beyond that a file is as good as a hole.
const PAGES_MAX: u64 = 16_384;

/// What segments tell of a file's missing pages.
#[derive(Default)]
struct Evidence {
    /// Pages of which every block is known.
    found: BTreeMap<u64, RunList>,
    /// Pages that had blocks, but nobody can tell which of those that are listed.
    doubtful: BTreeSet<u64>,
    /// A segment that may have blocks of it cannot be asked.
    is_blind: bool,
}

impl Evidence {
    /// What the pages that were found hold.
    fn plain_bytes(&self) -> u64 {
        let pages = self.found.values();
        let places = pages.flat_map(|runs| runs.iter_range(0..PAGE_BLOCKS as u32));
        places.map(|(_, place)| u64::from(place.piece.plain)).sum()
    }
}

impl Mender<'_> {
    /// Some of a file's stored bytes are not referred to, and it has pages without a record: holes, or lost.
    /// Where the live bytes of a segment that are missing come to exactly the blocks of those pages that its
    /// footer lists, those are what the record said. Where nothing is missing, the file's count is wrong.
    pub(super) async fn mend_gaps(
        &mut self,
        finding: &Finding,
        ino: Ino,
        counted: u64,
    ) -> Result<(), MaintError> {
        let Some(inode) = self.desk.inode(ino).await? else { return Ok(()) };
        let count = inode.size.div_ceil(PAGE_BLOCKS * BLOCK_LEN);
        let there: BTreeSet<u64> = self.pages_of(ino).await?;
        let is_gap = |page: u64| page < count && !there.contains(&page);
        let mut evidence = self.evidence(ino, is_gap).await?;
        let missing = inode.allocated.saturating_sub(counted).saturating_sub(evidence.plain_bytes());
        let is_found = missing == 0 || self.ask_unrecorded(ino, is_gap, missing, &mut evidence).await?;
        // Where commits are missing their pages may be, too, and with them all that tells of them.
        let is_blind = (evidence.is_blind || self.lacks_commits()) && !is_found;
        // What was found once leaves no more than holes.
        let is_blind = is_blind && self.settled.insert(ino) && count <= PAGES_MAX;
        let gaps = if is_blind { 0..count } else { 0..0 };
        let mut lost = std::mem::take(&mut evidence.doubtful);
        lost.extend(gaps.filter(|page| is_gap(*page) && !evidence.found.contains_key(page)));
        for page in &lost {
            self.mark_page_lost(ino, *page).await?;
            evidence.found.remove(page);
        }
        let restored = evidence.found.len();
        for (page, runs) in evidence.found {
            self.put_runs(ino, page, runs).await?;
        }
        if restored > 0 {
            self.tell(finding, format!("makes {restored} of them anew from what segments list"));
        }
        if !lost.is_empty() {
            self.tell(finding, "marks these parts of the file as lost, so that reading them fails");
        }
        if restored + lost.len() == 0 && !self.is_taken_back(ino, &there).await? {
            self.desk.change(ino, |inode| inode.allocated = counted).await?;
            self.tell(finding, format!("notes {counted} stored bytes"));
        }
        Ok(())
    }

    async fn pages_of(&self, ino: Ino) -> Result<BTreeSet<u64>, MaintError> {
        let keys = self.keys_of(ino, b'E').await?;
        let numbers = keys.into_iter().filter_map(|key| match key {
            Key::Extents(_, page) => Some(page),
            _ => None,
        });
        Ok(numbers.collect())
    }

    /// Whether records of blocks have just given a missing page back.
    async fn is_taken_back(&self, ino: Ino, there: &BTreeSet<u64>) -> Result<bool, MaintError> {
        for key in self.keys_of(ino, b'B').await? {
            if let Key::Inline(_, index) = key
                && !there.contains(&within(index).0)
            {
                return Ok(true);
            }
        }
        Ok(false)
    }

    async fn evidence(&self, ino: Ino, is_gap: impl Fn(u64) -> bool) -> Result<Evidence, MaintError> {
        let mut evidence = Evidence::default();
        for (missing, blocks) in self.overcounted().await? {
            let Some(blocks) = blocks else {
                evidence.is_blind = true;
                continue;
            };
            let own = blocks.iter().filter(|block| block.ino == ino && is_gap(within(block.index.0).0));
            let own: BTreeMap<u64, _> = own.map(|block| (block.index.0, block.place)).collect();
            let bytes: u64 = own.values().map(|place| u64::from(place.piece.sealed_bytes())).sum();
            for (index, place) in own {
                let (page, block) = within(index);
                if bytes == missing {
                    let runs = evidence.found.entry(page).or_default();
                    runs.put(Run::of(block, &place), &mut LiveDelta::new());
                } else {
                    evidence.doubtful.insert(page);
                }
            }
        }
        Ok(evidence)
    }

    /// Asks segments without records, which were lost with the pages: where their blocks come to exactly the bytes that are
    /// missing, they are what the pages said. Says whether that is so.
    async fn ask_unrecorded(
        &mut self,
        ino: Ino,
        is_gap: impl Fn(u64) -> bool,
        missing: u64,
        evidence: &mut Evidence,
    ) -> Result<bool, MaintError> {
        let mut blocks: BTreeMap<u64, BlockPlace> = BTreeMap::new();
        let mut is_clear = true;
        for (_, listed) in self.unrecorded().await? {
            for block in listed.iter().filter(|block| block.ino == ino && is_gap(within(block.index.0).0)) {
                is_clear &= blocks.insert(block.index.0, block.place).is_none();
            }
        }
        let plain: u64 = blocks.values().map(|place| u64::from(place.piece.plain)).sum();
        let mut live: BTreeMap<SegmentId, u64> = BTreeMap::new();
        for place in blocks.values() {
            *live.entry(place.segment).or_default() += u64::from(place.piece.sealed_bytes());
        }
        is_clear &= plain == missing;
        for (id, live) in live {
            is_clear = is_clear && self.restore_segment(id, live).await?;
        }
        for (index, place) in blocks {
            let (page, block) = within(index);
            if is_clear {
                let runs = evidence.found.entry(page).or_default();
                runs.put(Run::of(block, &place), &mut LiveDelta::new());
            } else {
                evidence.doubtful.insert(page);
            }
        }
        Ok(is_clear)
    }

    /// Whether the history lacks commits.
    pub(super) fn lacks_commits(&self) -> bool {
        let mut findings = self.survey.findings.kept.iter();
        findings.any(|finding| matches!(finding.problem, Problem::CommitMissing { .. }))
    }

    /// Notes in a page that cannot be read the blocks that are records.
    pub(super) async fn keep_inline(&mut self, ino: Ino, page: u64) -> Result<(), MaintError> {
        let keys = self.keys_of(ino, b'B').await?;
        let inline = keys.into_iter().filter_map(|key| match key {
            Key::Inline(_, index) if within(index).0 == page => Some(within(index).1),
            _ => None,
        });
        let page_record = Page { runs: RunList::new(), inline: inline.collect() };
        self.desk.put(Key::Extents(ino, page), Some(Record::Extents(Arc::new(page_record))));
        Ok(())
    }

    /// Puts extents in the place of a page that lead nowhere, as far as the file reaches.
    pub(super) async fn mark_page_lost(&mut self, ino: Ino, page: u64) -> Result<(), MaintError> {
        let size = self.desk.inode(ino).await?.map_or(u64::MAX, |inode| inode.size);
        let first = page.saturating_mul(PAGE_BLOCKS);
        let blocks = size.div_ceil(BLOCK_LEN).saturating_sub(first).min(PAGE_BLOCKS);
        let mut runs = RunList::new();
        if blocks > 0 {
            runs.put(lost_run(0, blocks as u32), &mut LiveDelta::new());
        }
        self.put_runs(ino, page, runs).await
    }

    /// Writes a page anew; blocks of it that are records stay.
    async fn put_runs(&mut self, ino: Ino, page: u64, mut runs: RunList) -> Result<(), MaintError> {
        let key = Key::Extents(ino, page);
        let inline = match self.desk.get(key).await? {
            Some(Record::Extents(before)) => before.inline.clone(),
            _ => Vec::new(),
        };
        for block in &inline {
            runs.remove(*block..block.saturating_add(1), &mut LiveDelta::new());
        }
        let is_hole = runs.is_empty() && inline.is_empty();
        let record = (!is_hole).then(|| Record::Extents(Arc::new(Page { runs, inline })));
        self.desk.put(key, record);
        Ok(())
    }
}

/// Blocks that are lost.
pub(super) const fn lost_run(first: u32, blocks: u32) -> Run {
    Run { first, segment: LOST, pos: HEAD_BYTES as u32, full: blocks, rest: Vec::new() }
}
