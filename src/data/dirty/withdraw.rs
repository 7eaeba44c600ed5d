//! What is not to be sent any more: the sealed layer taken back, and batches whose blocks are gone.

use super::{Batch, Block, Dirty, FileChange, MemBlock};
use crate::base::Ino;

use super::sums::Sums;

impl Dirty {
    /// Whether the open layer has done away with blocks of the sealed one that are not in the bucket.
    #[must_use]
    pub fn voids_sealed(&self) -> bool {
        let is_unsent = |block: &Block| !matches!(block, Block::Stored(_));
        let voids = |ino: &Ino, file: &FileChange| {
            let newer = self.open.files.get(ino);
            newer.is_some_and(|newer| {
                file.blocks.iter().any(|(index, block)| is_unsent(block) && newer.void.contains(*index))
            })
        };
        self.sealed.iter().flat_map(|layer| layer.files.iter()).any(|(ino, file)| voids(ino, file))
    }

    /// Gives the sealed layer up: what it changes goes into the open one, under what that has changed since.
    pub fn unseal(&mut self) {
        let files = self.sealed.iter().flat_map(|layer| layer.files.iter());
        let files: Vec<(Ino, bool)> = files.map(|(ino, file)| (*ino, file.freed)).collect();
        for (ino, is_freed) in files {
            self.put_off(ino, 0);
            self.open.files.entry(ino).or_default().freed |= is_freed;
        }
        self.sealed = None;
    }

    /// Whether blocks of a batch on its way are gone, or have been changed since.
    pub fn is_outdated(&mut self, batch: &Batch) -> bool {
        let Self { open, sealed, .. } = self;
        batch.blocks.iter().any(|sent| {
            let mut layers = [Some(&mut *open), sealed.as_mut()].into_iter().flatten();
            !layers.any(|layer| layer.sent_slot(sent, batch.segment).is_some())
        })
    }

    /// Takes a batch back that was on its way: what is left of it waits in memory again.
    pub fn withdraw(&mut self, batch: &Batch) {
        self.flights.remove(&batch.segment);
        for sent in &batch.blocks {
            let back = || Block::Mem(MemBlock::whole(sent.bytes.to_vec()));
            if let Some(slot) = self.open.sent_slot(sent, batch.segment) {
                self.sums -= Sums::of(slot);
                *slot = back();
                self.sums += Sums::of(slot);
                if matches!(slot, Block::Mem(block) if block.is_full()) {
                    self.full.push_back((sent.ino, sent.index));
                }
            }
            let sealed = self.sealed.as_mut();
            if let Some(slot) = sealed.and_then(|layer| layer.sent_slot(sent, batch.segment)) {
                self.sums -= Sums::of(slot);
                *slot = back();
                self.sums += Sums::of(slot);
                self.has_withdrawn = true;
            }
        }
    }

    /// Whether blocks of the sealed layer have come back since this was asked last.
    pub fn take_withdrawn(&mut self) -> bool {
        std::mem::take(&mut self.has_withdrawn)
    }
}
