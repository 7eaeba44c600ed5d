//! Who refers to the blocks of a segment.
//!
//! The footer says who owned each block when it was written, `R` records which pages have shared some
//! since. Both are hints: the extents as the last commit left them decide. If they do not account for
//! every live byte of the segment's record, somebody unknown refers to it, and it is left alone.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{BlockPlace, Ino, PAGE_BLOCKS, SegmentId};
use crate::data::segment::{object_bytes, read_footer};
use crate::meta::{Body, Key, Record, Segment};

use super::garbage::next_id;
use super::locate;
use super::txn::{Halt, Txn};
use super::{Vfs, VfsError};

/// Blocks asked for at a time: an operation finds 256 records that it has just asked for.
pub(super) const ASKED_MAX: usize = 64;
/// Pages that share blocks of one segment, beyond which it is left alone.
const REFERENCES_MAX: usize = 16 * 1024;
/// Records read from the engine at a time.
const SCAN_COUNT: usize = 1024;

/// Blocks by their positions, and who refers to each.
type Owners = BTreeMap<u32, (BlockPlace, BTreeSet<(Ino, u64)>)>;

/// A block that files refer to.
#[derive(Clone, Debug)]
pub(super) struct LiveBlock {
    pub(super) place: BlockPlace,
    /// Who refers to it: files, and the index in each. Never empty.
    pub(super) owners: Vec<(Ino, u64)>,
}

/// The live blocks of a segment.
#[derive(Clone, Debug)]
pub(super) struct Survey {
    pub(super) id: SegmentId,
    pub(super) segment: Segment,
    /// In the order in which they lie there.
    pub(super) blocks: Vec<LiveBlock>,
}

impl Survey {
    /// Sealed bytes of its live blocks, each counted once.
    pub(super) fn kept_bytes(&self) -> usize {
        self.blocks.iter().map(|block| block.place.piece.sealed_bytes() as usize).sum()
    }

    /// Length of a segment that holds nothing else.
    pub(super) fn rewritten_bytes(&self) -> u64 {
        object_bytes(crate::base::HEAD_BYTES + self.kept_bytes(), self.blocks.len() as u32) as u64
    }
}

impl Vfs {
    /// Finds all who refer to the blocks of a segment. `None` if it is gone, or if somebody unknown
    /// does.
    pub(super) async fn survey(&self, id: SegmentId) -> Result<Option<Survey>, VfsError> {
        let Some(Record::Segment(segment)) = self.read_txn(|txn| txn.committed(Key::Segment(id))).await?
        else {
            return Ok(None);
        };
        let footer = read_footer(&self.vault, id, &segment.seal, segment.len.into()).await?;
        let mut owners = Owners::new();
        for asked in footer.chunks(ASKED_MAX) {
            let named: Vec<(Ino, u64)> = asked.iter().map(|block| (block.ino, block.index.0)).collect();
            let places = self.read_txn(|txn| places_of(txn, &named)).await?;
            for ((block, owner), place) in asked.iter().zip(named).zip(places) {
                if place == Some(block.place) {
                    let entry = owners.entry(block.place.pos).or_insert((block.place, BTreeSet::new()));
                    entry.1.insert(owner);
                }
            }
        }
        if !self.survey_references(id, &mut owners).await? {
            tracing::debug!(segment = %id, "it is shared by too many pages to be cleaned");
            return Ok(None);
        }
        let blocks = owners
            .into_values()
            .map(|(place, owners)| LiveBlock { place, owners: owners.into_iter().collect() });
        let survey = Survey { id, segment, blocks: blocks.collect() };
        let counted: u64 = survey
            .blocks
            .iter()
            .map(|b| u64::from(b.place.piece.sealed_bytes()) * b.owners.len() as u64)
            .sum();
        if counted != segment.live {
            tracing::debug!(segment = %id, counted, live = segment.live, "not all who refer to it are known");
            return Ok(None);
        }
        Ok(Some(survey))
    }

    /// What the pages of some `R` records share of their segments by the last commit.
    pub(super) async fn sharing(&self, references: &[Key]) -> Result<Vec<Vec<(u64, BlockPlace)>>, VfsError> {
        self.read_txn(|txn| places_in(txn, references)).await
    }

    /// Adds the pages that have come to share blocks of a segment. `false` if they are too many. Those that share none any more are
    /// noted, so that a later commit forgets them.
    async fn survey_references(&self, id: SegmentId, owners: &mut Owners) -> Result<bool, VfsError> {
        let (mut from, end) = (Key::Reference(id, Ino(0), 0), Key::Reference(next_id(id), Ino(0), 0));
        let mut sharing = 0;
        loop {
            let (records, last) = self.scan(from, end, SCAN_COUNT).await?;
            let mut stale = Vec::new();
            let references: Vec<Key> = records.into_iter().map(|(key, _)| key).collect();
            for asked in references.chunks(ASKED_MAX) {
                for (key, places) in asked.iter().zip(self.sharing(asked).await?) {
                    let Key::Reference(_, ino, _) = key else { continue };
                    match places.is_empty() {
                        true => stale.push(*key),
                        false => sharing += 1,
                    }
                    for (index, place) in places {
                        owners.entry(place.pos).or_insert((place, BTreeSet::new())).1.insert((*ino, index));
                    }
                }
            }
            self.note_stale(stale);
            match last {
                _ if sharing > REFERENCES_MAX => return Ok(false),
                Some(Key::Reference(id, ino, page)) => from = Key::Reference(id, ino, page.saturating_add(1)),
                _ => return Ok(true),
            }
        }
    }
}

/// Where committed blocks lie.
fn places_of(txn: &mut Txn, blocks: &[(Ino, u64)]) -> Result<Vec<Option<BlockPlace>>, Halt> {
    let inodes: Vec<Key> = blocks.iter().map(|(ino, _)| Key::Inode(*ino)).collect();
    txn.want_committed(&inodes)?;
    let mut pages = Vec::new();
    for (ino, index) in blocks {
        let inode = locate::committed_inode(txn, *ino)?;
        if inode.is_some_and(|inode| inode.body == Body::Pages) {
            pages.push(Key::Extents(*ino, index / PAGE_BLOCKS));
        }
    }
    txn.want_committed(&pages)?;
    let mut places = Vec::with_capacity(blocks.len());
    for (ino, index) in blocks {
        places.push(match locate::committed_inode(txn, *ino)? {
            Some(inode) => locate::committed_place(txn, *ino, &inode, *index)?,
            None => None,
        });
    }
    Ok(places)
}

/// For each of some `R` records, the committed blocks of its page that lie in its segment, and their indexes in the file.
fn places_in(txn: &mut Txn, references: &[Key]) -> Result<Vec<Vec<(u64, BlockPlace)>>, Halt> {
    let parts = |key: &Key| match key {
        Key::Reference(id, ino, page) => Some((*id, *ino, *page)),
        _ => None,
    };
    let inodes: Vec<Key> = references.iter().filter_map(parts).map(|(_, ino, _)| Key::Inode(ino)).collect();
    txn.want_committed(&inodes)?;
    let mut pages = Vec::new();
    for (_, ino, page) in references.iter().filter_map(parts) {
        if locate::committed_inode(txn, ino)?.is_some_and(|inode| inode.body == Body::Pages) {
            pages.push(Key::Extents(ino, page));
        }
    }
    txn.want_committed(&pages)?;
    references.iter().map(|key| parts(key).map_or(Ok(Vec::new()), |of| places_in_page(txn, of))).collect()
}

fn places_in_page(
    txn: &mut Txn,
    (id, ino, page): (SegmentId, Ino, u64),
) -> Result<Vec<(u64, BlockPlace)>, Halt> {
    let Some(inode) = locate::committed_inode(txn, ino)? else { return Ok(Vec::new()) };
    let here = |runs: &[crate::base::Run]| {
        let runs = runs.iter().filter(|run| run.segment == id);
        let places = runs.flat_map(|run| run.places().collect::<Vec<_>>());
        places.map(|(index, place)| (page * PAGE_BLOCKS + u64::from(index), place)).collect()
    };
    Ok(match &inode.body {
        Body::Run(run) if page == 0 => here(std::slice::from_ref(run)),
        Body::Pages => match txn.committed(Key::Extents(ino, page))? {
            Some(Record::Extents(extents)) => here(extents.runs.runs()),
            _ => Vec::new(),
        },
        _ => Vec::new(),
    })
}
