//! Moves changes of the sealed layer back into the open one, so that a commit need not wait for them.

use bytes::Bytes;

use super::sums::{mem_len, to_come};
use super::{Block, Dirty, MemBlock, Under};
use crate::base::Ino;

/// A file of the sealed layer that a commit still has to wait for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Unsent {
    /// The file.
    pub ino: Ino,
    /// Bytes that are to be sent of it.
    pub bytes: usize,
    /// The first block that is not in the bucket; every changed block before it is.
    pub first: u64,
    /// Older contents are replaced by nothing but the changed blocks, or not at all.
    pub is_plain: bool,
    /// The file was empty at some time, and has grown from there. One of which nothing older is left may have been cut in holes
    /// instead: then it was never as short as its first blocks are.
    pub is_anew: bool,
}

impl Dirty {
    /// The files of the sealed layer that have blocks which are not in the bucket.
    #[must_use]
    pub fn sealed_waits_for(&self) -> Vec<Unsent> {
        let files = self.sealed.iter().flat_map(|layer| layer.files.iter());
        let unsent = files.filter_map(|(ino, file)| {
            let mut waiting =
                file.blocks.iter().filter(|(_, block)| !matches!(block, Block::Stored(_))).peekable();
            let first = *waiting.peek()?.0;
            let bytes = waiting.map(|(_, block)| mem_len(block) + to_come(block)).sum();
            let is_anew = file.emptied;
            let is_plain = !file.freed && file.shared.is_empty() && (is_anew || file.void.is_empty());
            Some(Unsent { ino: *ino, bytes, first, is_plain, is_anew })
        });
        unsent.collect()
    }

    /// Moves what the sealed layer changes of `ino` from the block `from` on into the open layer, under what that has
    /// changed since; with `from` 0 all that it does to the file.
    pub fn put_off(&mut self, ino: Ino, from: u64) {
        let Some(layer) = self.sealed.as_mut() else { return };
        let Some(file) = layer.files.get_mut(&ino) else { return };
        let mut older = match from {
            0 => layer.files.remove(&ino).unwrap_or_default(),
            _ => super::layer::FileChange { blocks: file.blocks.split_off(&from), ..Default::default() },
        };
        let newer = self.open.files.entry(ino).or_default();
        self.sums -= older.sums();
        self.sums -= newer.sums();
        // What was void below and is covered in part above has nothing to shine through.
        for (index, block) in &mut newer.blocks {
            if older.void.contains(*index)
                && !older.blocks.contains_key(index)
                && let Block::Mem(block) = block
                && matches!(block.under(), Under::Older)
            {
                block.complete(&[]);
            }
        }
        for (index, old) in std::mem::take(&mut older.blocks) {
            let (block, is_shared) = match newer.blocks.remove(&index) {
                None if newer.void.contains(index) => continue,
                None => (old, older.shared.contains(&index)),
                Some(new) => (lay_over(new, old), newer.shared.contains(&index)),
            };
            if matches!(&block, Block::Mem(mem) if mem.is_full()) {
                self.full.push_back((ino, index));
            }
            if is_shared {
                newer.shared.insert(index);
            }
            newer.blocks.insert(index, block);
        }
        self.sums += newer.sums();
        newer.emptied |= older.emptied;
        for range in older.void.iter() {
            newer.void.insert(range.clone());
        }
    }
}

/// One block made of a newer and an older change to it.
fn lay_over(new: Block, old: Block) -> Block {
    match new {
        Block::Mem(mut new) if matches!(new.under(), Under::Older) => Block::Mem(match old {
            Block::Mem(old) => new.lay_over(old),
            Block::Sent { bytes, .. } => completed(new, &bytes),
            Block::Stored(place) => {
                new.rest_on(place);
                new
            }
        }),
        new => new,
    }
}

fn completed(mut block: MemBlock, under: &Bytes) -> MemBlock {
    block.complete(under);
    block
}
