//! Segments that nobody knows all owners of: a walk over the extents of all files finds who refers to them.
//!
//! Cleaning leaves such segments alone, because it could only guess. After a rotation of the key they must be sealed anew
//! like all others, and who refers to them is told by the extents, and by nothing else.

use std::collections::BTreeMap;

use crate::base::{BlockPlace, Ino, PAGE_BLOCKS, Run, SegmentId};
use crate::meta::{Body, Key, Record};

use super::renew::next_ino;
use super::survey::{LiveBlock, Survey};
use super::{Vfs, VfsError};

/// Records looked at in one step.
const SCAN_COUNT: usize = 1024;
/// References that are gathered before what they refer to is copied. A block that is shared by more is copied twice.
const REFERENCES_MAX: usize = 200_000;

/// Who refers to what, in segments that are sealed with an older key: by segment and position.
#[derive(Default)]
struct Gathered {
    segments: BTreeMap<SegmentId, BTreeMap<u32, LiveBlock>>,
    count: usize,
}

impl Gathered {
    fn add(&mut self, segment: SegmentId, place: BlockPlace, owner: (Ino, u64)) {
        let blocks = self.segments.entry(segment).or_default();
        let block = blocks.entry(place.pos).or_insert_with(|| LiveBlock { place, owners: Vec::new() });
        block.owners.push(owner);
        self.count += 1;
    }
}

impl Vfs {
    /// Seals anew what is left of segments that are sealed with an older key, by a walk over all files if there are any.
    pub(super) async fn renew_rest(&self) -> Result<(), VfsError> {
        if self.is_renewed().await? {
            return Ok(());
        }
        let _turn = self.clean_turn.lock().await;
        let mut gathered = Gathered::default();
        let mut from = Key::Inode(Ino(0));
        loop {
            let (rows, last) = self.scan(from, Key::Inode(Ino(u64::MAX)), SCAN_COUNT).await?;
            for (key, record) in rows {
                if let (Key::Inode(ino), Record::Inode(inode)) = (key, record)
                    && let Body::Run(run) = &inode.body
                {
                    self.gather(&mut gathered, ino, 0, run).await?;
                }
            }
            self.copy_gathered(&mut gathered, REFERENCES_MAX).await?;
            from = match last {
                Some(Key::Inode(ino)) => Key::Inode(next_ino(ino)),
                _ => break,
            };
        }
        let mut from = Key::Extents(Ino(0), 0);
        loop {
            let (rows, last) = self.scan(from, Key::Extents(Ino(u64::MAX), 0), SCAN_COUNT).await?;
            for (key, record) in rows {
                if let (Key::Extents(ino, page), Record::Extents(extents)) = (key, record) {
                    for run in extents.runs.runs() {
                        self.gather(&mut gathered, ino, page, run).await?;
                    }
                }
            }
            self.copy_gathered(&mut gathered, REFERENCES_MAX).await?;
            from = match last {
                Some(Key::Extents(ino, page)) => Key::Extents(ino, page.saturating_add(1)),
                _ => break,
            };
        }
        self.copy_gathered(&mut gathered, 0).await
    }

    async fn is_renewed(&self) -> Result<bool, VfsError> {
        let mut from = Some(SegmentId([0; 16]));
        while let Some(id) = from {
            let (rows, next) = self.outdated_from(id).await?;
            if !rows.is_empty() {
                return Ok(false);
            }
            from = next;
        }
        Ok(true)
    }

    async fn gather(&self, gathered: &mut Gathered, ino: Ino, page: u64, run: &Run) -> Result<(), VfsError> {
        let key = Key::Segment(run.segment);
        match self.read_txn(|txn| txn.committed(key)).await? {
            Some(Record::Segment(segment)) if !self.ring().is_newest(segment.seal.epoch) => {}
            _ => return Ok(()),
        }
        for (index, place) in run.places() {
            gathered.add(run.segment, place, (ino, page * PAGE_BLOCKS + u64::from(index)));
        }
        Ok(())
    }

    /// Copies what was gathered, if that is more than `count` references.
    async fn copy_gathered(&self, gathered: &mut Gathered, count: usize) -> Result<(), VfsError> {
        if gathered.count <= count {
            return Ok(());
        }
        for (id, blocks) in std::mem::take(gathered).segments {
            let key = Key::Segment(id);
            let Some(Record::Segment(segment)) = self.read_txn(|txn| txn.committed(key)).await? else {
                continue;
            };
            let survey = Survey { id, segment, blocks: blocks.into_values().collect() };
            self.copy_live(&[survey]).await?;
            self.commit(false, false).await?;
        }
        Ok(())
    }
}
