//! Copying within the volume: whole stored blocks are shared, everything else goes through memory.

use std::sync::Arc;

use crate::base::{BLOCK_LEN, BlockIndex, BlockPlace, FILE_BYTES_MAX, Ino};
use crate::meta::Inode;

use super::locate::{self, Located};
use super::txn::{Halt, Txn};
use super::{Drops, Handle, Vfs, VfsError};

/// Blocks shared by one step.
const SHARE_COUNT_MAX: u64 = 4096;
/// Bytes copied through memory by one step.
const COPY_BYTES_MAX: u64 = 1024 * 1024;

/// What is asked for.
#[derive(Clone, Copy)]
struct Copy {
    from: Ino,
    from_offset: u64,
    to: Ino,
    to_offset: u64,
    len: u64,
}

/// What has been done, or is to be done otherwise.
enum Step {
    /// So many bytes share their blocks now.
    Shared(u64),
    /// So many must go through memory; what follows them may be shared again.
    Unshareable(u64),
}

/// What a block is shared as.
enum Shared {
    Hole,
    Place(BlockPlace),
}

impl Vfs {
    /// Copies bytes from one file to another, or within one. Gives how many; fewer than asked for is
    /// no error, and none means the end of the source.
    ///
    /// # Errors
    /// [`VfsError::InvalidInput`] if the two ranges overlap in one file.
    pub async fn copy_file_range(
        &self,
        from: Ino,
        from_offset: u64,
        to: Ino,
        to_offset: u64,
        len: u64,
    ) -> Result<u64, VfsError> {
        if to_offset.checked_add(len).is_none_or(|end| end > FILE_BYTES_MAX) {
            return Err(VfsError::FileTooBig);
        }
        if from == to && from_offset.abs_diff(to_offset) < len {
            return Err(VfsError::InvalidInput);
        }
        let copy = Copy { from, from_offset, to, to_offset, len };
        let is_aligned = from_offset.is_multiple_of(BLOCK_LEN) && to_offset.is_multiple_of(BLOCK_LEN);
        let most = COPY_BYTES_MAX - from_offset % BLOCK_LEN;
        let most = match is_aligned {
            true => match self.update_within_quota(|txn| share(self, txn, &copy)).await? {
                Step::Shared(bytes) => return Ok(bytes),
                Step::Unshareable(bytes) => bytes,
            },
            false => most,
        };
        let bytes = self.read(Handle(0), from, from_offset, len.min(most) as usize).await?;
        // Set-id bits the kernel has had cleared where they must be, because it knows who asks.
        Ok(self.write_dropping(to, to_offset, &bytes, Drops::Capabilities).await? as u64)
    }
}

/// Shares blocks from the start of the range on, as many as can be.
fn share(vfs: &Vfs, txn: &mut Txn, copy: &Copy) -> Result<Step, Halt> {
    let source = txn.regular(copy.from)?;
    let mut target = txn.regular(copy.to)?;
    let len = copy.len.min(source.size.saturating_sub(copy.from_offset));
    let mut blocks = Vec::new();
    let mut bytes = 0;
    while bytes < len && (blocks.len() as u64) < SHARE_COUNT_MAX {
        let rest = len - bytes;
        // A part of a block can only be shared where both files end with it.
        let ends_both = copy.from_offset + len == source.size && copy.to_offset + len >= target.size;
        if rest < BLOCK_LEN && !ends_both {
            break;
        }
        let index = BlockIndex::of(copy.from_offset + bytes).0;
        let Some(shared) = shareable(txn, copy.from, &source, index)? else { break };
        blocks.push((BlockIndex::of(copy.to_offset + bytes).0, shared));
        bytes += rest.min(BLOCK_LEN);
    }
    if bytes == 0 {
        let mut unshareable = BLOCK_LEN;
        while unshareable < len.min(COPY_BYTES_MAX) {
            let index = BlockIndex::of(copy.from_offset + unshareable).0;
            if shareable(txn, copy.from, &source, index)?.is_some() {
                break;
            }
            unshareable += BLOCK_LEN;
        }
        return Ok(Step::Unshareable(unshareable));
    }
    txn.state().check_quota(bytes)?;
    let (size, now) = (target.size, txn.now);
    let change = Arc::make_mut(&mut target);
    change.size = size.max(copy.to_offset + bytes);
    change.mtime = now;
    change.ctime = now;
    vfs.take_capabilities(txn, copy.to, change)?;
    txn.put_inode(copy.to, target);
    for (index, shared) in blocks {
        match shared {
            Shared::Hole => txn.dirty().void_block(copy.to, index),
            Shared::Place(place) => txn.dirty().share(copy.to, index, place),
        }
    }
    Ok(Step::Shared(bytes))
}

fn shareable(txn: &mut Txn, ino: Ino, inode: &Inode, index: u64) -> Result<Option<Shared>, Halt> {
    if txn.dirty().has_paint(ino, index) {
        return Ok(None);
    }
    Ok(match locate::current(txn, ino, inode, index)? {
        Located::Hole => Some(Shared::Hole),
        Located::Stored(stored) => Some(Shared::Place(stored.place)),
        Located::Bytes(_) => None,
    })
}
