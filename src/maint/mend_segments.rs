//! What a repair does about segments: their records from the objects, and what nobody needs any more.

use std::collections::BTreeMap;

use super::MaintError;
use super::finding::{Finding, Problem, Subject};
use super::mender::Mender;
use crate::base::{Ino, PAGE_BLOCKS, SegmentId};
use crate::data::DataError;
use crate::data::segment::{FooterBlock, read_footer, read_seal};
use crate::meta::{Garbage, Key, Leftover, Record, Segment};

impl Mender<'_> {
    pub(super) async fn mend_segment(&mut self, finding: &Finding, id: SegmentId) -> Result<(), MaintError> {
        let Some(known) = self.survey.segments.get(id).copied() else { return Ok(()) };
        match &finding.problem {
            Problem::SegmentSeal if known.object.is_none() => {
                self.desk.put(Key::Segment(id), None);
                self.tell(finding, "removes its record, of which nothing is right");
            }
            Problem::SegmentSeal | Problem::SegmentUnrecorded { is_there: true, .. }
                if self.restore_segment(id, known.counted).await? =>
            {
                self.tell(finding, "makes its record anew from its head");
            }
            Problem::SegmentUnrecorded { is_there: false, .. } if known.is_broken => {
                self.desk.put(Key::Segment(id), None);
                self.tell(finding, "removes its record, which nothing can be made of");
            }
            Problem::SegmentLength { recorded, actual } => {
                let Some(record) = known.record.filter(|_| known.is_own_seal) else { return Ok(()) };
                let is_appended = *actual > *recorded
                    && read_footer(&self.desk.vault, id, &record.seal, *recorded).await.is_ok();
                if !is_appended && let Ok(len) = u32::try_from(*actual) {
                    self.desk.put(Key::Segment(id), Some(Record::Segment(Segment { len, ..record })));
                    self.tell(finding, format!("notes its length, {actual} bytes"));
                }
            }
            Problem::SegmentMissing { live: 0 } => {
                self.desk.put(Key::Segment(id), None);
                self.tell(finding, "removes its record, as no file needs it");
            }
            Problem::BornAhead => {
                if let Some(record) = known.record {
                    let born = self.desk.superblock.commit;
                    self.desk.put(Key::Segment(id), Some(Record::Segment(Segment { born, ..record })));
                    self.tell(finding, format!("notes that it is as old as commit {born}"));
                }
            }
            Problem::GarbageInUse => {
                self.desk.put(Key::Garbage(id), None);
                self.desk.put(Key::Leftover(id), None);
                self.tell(finding, "takes it off the list of what is to be deleted");
            }
            Problem::Leftover { bytes, .. } => self.mend_leftover(finding, id, *bytes).await?,
            _ => {}
        }
        Ok(())
    }

    /// Makes the record of a segment from what its object says of itself. Only who has the volume's key
    /// can have made a head that opens under this name.
    pub(super) async fn restore_segment(&mut self, id: SegmentId, live: u64) -> Result<bool, MaintError> {
        let vault = &self.desk.vault;
        let seal = match read_seal(vault, id).await {
            Ok(seal) if vault.segment_key(id, &seal).is_ok() => seal,
            Ok(_) | Err(DataError::Damaged { .. } | DataError::Missing { .. }) => return Ok(false),
            Err(error) => return Err(error.into()),
        };
        let Some(len) = vault.segment_len(id).await?.and_then(|len| u32::try_from(len).ok()) else {
            return Ok(false);
        };
        let born = self.desk.superblock.commit;
        let record = Segment { len, live, born, seal };
        self.desk.put(Key::Segment(id), Some(Record::Segment(record)));
        Ok(true)
    }

    /// The blocks that the footer of an object without a record lists; `None` if it is not of this volume.
    pub(super) async fn blocks_of(
        &self,
        id: SegmentId,
        bytes: u64,
    ) -> Result<Option<Vec<FooterBlock>>, MaintError> {
        let vault = &self.desk.vault;
        let seal = match self.survey.segments.seal(id) {
            Some(seal) => Ok(seal),
            None => read_seal(vault, id).await,
        };
        let listed = match seal {
            Ok(seal) => read_footer(vault, id, &seal, bytes).await,
            Err(error) => Err(error),
        };
        match listed {
            Ok(blocks) => Ok(Some(blocks)),
            Err(DataError::Damaged { .. } | DataError::Missing { .. }) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }

    /// Whether a block listed in a footer belongs to a file that is gone without having been removed here.
    /// Numbers that were never given are those of files that were never committed.
    pub(super) fn is_missed(&self, block: &FooterBlock) -> bool {
        self.survey.nodes.get(block.ino).is_none_or(|node| node.is_broken)
            && block.ino.0 < self.desk.superblock.next_ino
            && !self.freed.contains(&block.ino)
            && !self.rebuilt.contains_key(&block.ino)
    }

    /// A segment of which no record knows: what was listed may belong to newer records than these, and there is a day to find
    /// out. One that files need which are gone is kept for a salvage.
    async fn mend_leftover(
        &mut self,
        finding: &Finding,
        id: SegmentId,
        bytes: u64,
    ) -> Result<(), MaintError> {
        let Some(blocks) = self.blocks_of(id, bytes).await? else { return Ok(()) };
        if blocks.iter().any(|block| self.gappy.contains(&block.ino)) {
            // What is missing of that file comes first.
            return Ok(());
        }
        let missed = blocks.iter().filter(|block| self.is_missed(block));
        let missed: u64 = missed.map(|block| u64::from(block.place.piece.sealed_bytes())).sum();
        if missed == 0 {
            let leftover = Leftover { found: self.now };
            self.desk.put(Key::Leftover(id), Some(Record::Leftover(leftover)));
            self.tell(finding, "notes that it is to be deleted in a day");
        } else if !self.salvages {
            self.kept_for_salvage = true;
            // What a crash leaves has such contents, too: of files that were removed later. Nobody waits for those.
            if self.lacks_commits() && self.restore_segment(id, missed).await? {
                self.tell(finding, "keeps it for a salvage, as it has contents of files that are gone");
            }
        }
        Ok(())
    }

    /// Segments of which no record knows, and what their footers list.
    pub(super) async fn unrecorded(&self) -> Result<Vec<(SegmentId, Vec<FooterBlock>)>, MaintError> {
        let mut found = Vec::new();
        for finding in &self.survey.findings.kept {
            if let (Subject::Segment(id), Problem::Leftover { bytes, .. }) =
                (&finding.subject, &finding.problem)
                && let Some(blocks) = self.blocks_of(*id, *bytes).await?
            {
                found.push((*id, blocks));
            }
        }
        Ok(found)
    }

    /// Blocks of segments with more live bytes than files refer to, and of segments without a record,
    /// that belong to files which are gone: by file and block, each from the newest segment that has it.
    pub(super) async fn missed_blocks(
        &self,
    ) -> Result<BTreeMap<Ino, BTreeMap<u64, FooterBlock>>, MaintError> {
        let mut found: BTreeMap<Ino, BTreeMap<u64, (u64, FooterBlock)>> = BTreeMap::new();
        for finding in &self.survey.findings.kept {
            let Subject::Segment(id) = finding.subject else { continue };
            let (bytes, born) = match (&finding.problem, self.survey.segments.get(id)) {
                (Problem::Leftover { bytes, .. }, _) => (*bytes, u64::MAX),
                (Problem::LiveBytes { recorded, counted }, Some(known)) if recorded > counted => {
                    let Some(record) = known.record else { continue };
                    (u64::from(record.len), record.born)
                }
                _ => continue,
            };
            for block in self.blocks_of(id, bytes).await?.unwrap_or_default() {
                if !self.is_missed(&block) {
                    continue;
                }
                let file = found.entry(block.ino).or_default();
                let newest = file.entry(block.index.0).or_insert((born, block));
                if newest.0 <= born {
                    *newest = (born, block);
                }
            }
        }
        let plain = |file: BTreeMap<u64, (u64, FooterBlock)>| {
            file.into_iter().map(|(index, (_, block))| (index, block)).collect()
        };
        Ok(found.into_iter().map(|(ino, file)| (ino, plain(file))).collect())
    }

    /// Segments with more live bytes than files refer to: how many more, and what their footers list, if
    /// those can be read.
    pub(super) async fn overcounted(&self) -> Result<Vec<(u64, Option<Vec<FooterBlock>>)>, MaintError> {
        let mut found = Vec::new();
        for (id, known) in self.survey.segments.iter() {
            let Some(record) = known.record.filter(|record| record.live > known.counted) else { continue };
            let blocks = self.blocks_of(id, u64::from(record.len)).await?;
            found.push((record.live - known.counted, blocks));
        }
        Ok(found)
    }

    /// Live bytes that differ from what files refer to. Where there are more, they may be those of a file
    /// that is gone: then they stay, unless a salvage has had its turn.
    pub(super) async fn recount_segment(
        &mut self,
        finding: &Finding,
        id: SegmentId,
    ) -> Result<(), MaintError> {
        let Problem::LiveBytes { recorded, counted } = finding.problem else { return Ok(()) };
        let Some(record) = self.survey.segments.get(id).and_then(|known| known.record) else { return Ok(()) };
        if recorded > counted && !self.salvages && self.survey.segments.is_there(id) {
            let Some(blocks) = self.blocks_of(id, u64::from(record.len)).await? else { return Ok(()) };
            let missed = blocks.iter().filter(|block| self.is_missed(block));
            let least = missed.map(|block| u64::from(block.place.piece.sealed_bytes())).min();
            let let_go =
                self.let_go.iter().find(|(of, _)| *of == id).map_or(0, |(_, change)| change.unsigned_abs());
            if least.is_some_and(|least| least <= (recorded - counted).saturating_sub(let_go)) {
                self.kept_for_salvage = true;
                return Ok(());
            }
        }
        if counted == 0 {
            let died = self.desk.superblock.commit;
            self.desk.put(Key::Segment(id), None);
            self.desk.put(Key::Garbage(id), Some(Record::Garbage(Garbage { died, born: record.born })));
            self.tell(finding, "lets it be deleted, as no file needs it");
        } else {
            self.desk.put(Key::Segment(id), Some(Record::Segment(Segment { live: counted, ..record })));
            self.tell(finding, format!("notes {counted} live bytes"));
        }
        Ok(())
    }
}

/// The page of a block, and its place in that.
pub(super) const fn within(index: u64) -> (u64, u32) {
    (index / PAGE_BLOCKS, (index % PAGE_BLOCKS) as u32)
}
