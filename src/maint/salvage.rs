//! Finds contents of files whose records are gone, by what the segments say of themselves.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::MaintError;
use super::mend_pages::lost_run;
use super::mend_segments::within;
use super::mender::{Deed, Mender};
use crate::base::{BLOCK_LEN, FileKind, Ino, LiveDelta, PAGE_BLOCKS, Run, RunList};
use crate::data::DataError;
use crate::data::segment::{FooterBlock, open_block, read_seal};
use crate::meta::{Body, Inode, Key, Page, Record, Segment};

/// Pages of one file that are filled in between blocks that were found.
const PAGES_MAX: u64 = 16_384;

impl Mender<'_> {
    /// Makes files anew of blocks that belong to files which are gone: under their old names where those
    /// are left, else below `/lost+found`. What is not found of a file reads as an error, as nobody knows
    /// whether it was a hole.
    pub(super) async fn salvage(&mut self) -> Result<(), MaintError> {
        let missed = self.missed_blocks().await?;
        let mut gained = LiveDelta::new();
        for (ino, file) in missed {
            // What contents are left in records rules; it is made anew from those.
            let has_records = self.survey.findings.kept.iter().any(|finding| {
                finding.subject == super::finding::Subject::Inode(ino)
                    && matches!(finding.problem, super::finding::Problem::ContentsAstray { .. })
            });
            if has_records {
                continue;
            }
            // What is at the end need not be readable: the file is as long as it was.
            let size = file.last_key_value().map_or(0, |(last, end)| {
                last.saturating_mul(BLOCK_LEN).saturating_add(u64::from(end.place.piece.plain))
            });
            let mut readable = BTreeMap::new();
            for (index, block) in file {
                if self.opens(&block).await? {
                    readable.insert(index, block);
                }
            }
            if !readable.is_empty() {
                self.restore(ino, size, &readable, &mut gained).await?;
            }
        }
        self.count_salvaged(&gained).await
    }

    async fn opens(&self, block: &FooterBlock) -> Result<bool, MaintError> {
        let vault = &self.desk.vault;
        let id = block.place.segment;
        let seal = match self.survey.segments.seal(id) {
            Some(seal) => seal,
            None => read_seal(vault, id).await?,
        };
        let key = vault.segment_key(id, &seal)?;
        let range = block.place.sealed_range();
        match vault.get_segment(id, u64::from(range.start)..u64::from(range.end)).await {
            Ok(sealed) => Ok(open_block(&key, &block.place, &sealed).is_ok()),
            Err(error) if error.is_damage() => Ok(false),
            Err(error) => Err(error.into()),
        }
    }

    async fn restore(
        &mut self,
        ino: Ino,
        size: u64,
        blocks: &BTreeMap<u64, FooterBlock>,
        gained: &mut LiveDelta,
    ) -> Result<(), MaintError> {
        let mut pages: BTreeMap<u64, RunList> = BTreeMap::new();
        let end = size.div_ceil(BLOCK_LEN);
        let pages_end = end.div_ceil(PAGE_BLOCKS);
        if pages_end <= PAGES_MAX {
            for page in 0..pages_end {
                let count = end.saturating_sub(page * PAGE_BLOCKS).min(PAGE_BLOCKS);
                let runs = pages.entry(page).or_default();
                runs.put(lost_run(0, count as u32), &mut LiveDelta::new());
            }
        }
        let mut allocated = 0;
        for (index, block) in blocks {
            let (page, within_page) = within(*index);
            pages.entry(page).or_default().put(Run::of(within_page, &block.place), &mut LiveDelta::new());
            gained.gain(block.place.segment, u64::from(block.place.piece.sealed_bytes()));
        }
        for (number, runs) in pages {
            allocated += runs.iter().map(|(_, place)| u64::from(place.piece.plain)).sum::<u64>();
            let page = Page { runs, inline: Vec::new() };
            self.desk.put(Key::Extents(ino, number), Some(Record::Extents(Arc::new(page))));
        }
        let made = Inode { body: Body::Pages, size, allocated, ..self.private(FileKind::Regular) };
        self.desk.put_inode(ino, made);
        self.place(ino, FileKind::Regular).await?;
        self.deeds.push(Deed {
            place: format!("inode {ino}"),
            what: format!("makes the file anew from {} blocks that were found, {size} bytes", blocks.len()),
        });
        Ok(())
    }

    /// Gives segments that files were restored from their records and their live bytes.
    async fn count_salvaged(&mut self, gained: &LiveDelta) -> Result<(), MaintError> {
        for (id, change) in gained.iter() {
            let Some(known) = self.survey.segments.get(id).copied() else { continue };
            let live = known.counted.saturating_add_signed(change);
            let record = match known.record {
                Some(record) => Segment { live, ..record },
                None => {
                    let Some(len) = known.object.and_then(|len| u32::try_from(len).ok()) else { continue };
                    let seal = match read_seal(&self.desk.vault, id).await {
                        Ok(seal) => seal,
                        Err(DataError::Damaged { .. } | DataError::Missing { .. }) => continue,
                        Err(error) => return Err(error.into()),
                    };
                    Segment { len, live, born: self.desk.superblock.commit, seal }
                }
            };
            self.desk.put(Key::Segment(id), Some(Record::Segment(record)));
        }
        Ok(())
    }
}
