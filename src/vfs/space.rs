//! Holes: making them, finding them, and asking for space that a bucket has anyway.

use std::sync::Arc;

use crate::base::{BLOCK_LEN, BlockIndex, FILE_BYTES_MAX, Ino, PAGE_BLOCKS};
use crate::meta::{Body, Inode, Key, Record};

use super::locate::{self, Located};
use super::txn::{Halt, Txn};
use super::{SeekFor, Vfs, VfsError};

/// Blocks looked at under the lock at a time.
const STEPS_MAX: u64 = 128;
/// Modes of `fallocate(2)` that are understood.
const KEEP_SIZE: i32 = libc::FALLOC_FL_KEEP_SIZE;
const PUNCH_HOLE: i32 = libc::FALLOC_FL_PUNCH_HOLE;
const ZERO_RANGE: i32 = libc::FALLOC_FL_ZERO_RANGE;

/// One step of a seek.
enum Step {
    Found(u64),
    GoOn(u64),
    /// Nothing before the next page of extents; ask the engine which that is.
    NextPage(u64),
}

impl Vfs {
    /// Makes room or holes. Space is never set aside, because a bucket has no end: the default mode
    /// only checks the quota and lengthens the file.
    ///
    /// # Errors
    /// [`VfsError::NotSupported`] for collapse, insert and unshare.
    pub async fn fallocate(&self, ino: Ino, mode: i32, offset: u64, len: u64) -> Result<(), VfsError> {
        if len == 0 {
            return Err(VfsError::InvalidInput);
        }
        let end = offset.checked_add(len).filter(|end| *end <= FILE_BYTES_MAX).ok_or(VfsError::FileTooBig)?;
        let (keeps_size, clears) = match mode {
            0 => (false, false),
            KEEP_SIZE => (true, false),
            mode if mode == PUNCH_HOLE | KEEP_SIZE => (true, true),
            ZERO_RANGE => (false, true),
            mode if mode == ZERO_RANGE | KEEP_SIZE => (true, true),
            _ => return Err(VfsError::NotSupported),
        };
        self.update_within_quota(|txn| {
            let mut inode = txn.regular(ino)?;
            if !clears {
                txn.state().check_quota(end.saturating_sub(inode.size))?;
            }
            let (size, now) = (inode.size, txn.now);
            let cleared = match clears && offset < size {
                true => Some(over_holes(txn, ino, &inode, offset, end.min(size))?),
                false => None,
            };
            let change = Arc::make_mut(&mut inode);
            if !keeps_size {
                change.size = size.max(end);
            }
            change.mtime = now;
            change.ctime = now;
            // Set-id bits the kernel has had cleared where they must be, because it knows who asks.
            self.put_changed(txn, ino, inode)?;
            if let Some((from, to)) = cleared {
                txn.dirty().punch(ino, from, to, size);
            }
            Ok(())
        })
        .await
    }

    /// The first data or hole at or after `offset`; the end of the file counts as a hole.
    ///
    /// # Errors
    /// [`VfsError::NoData`] past the end of the file, or of its last data.
    pub async fn seek(&self, ino: Ino, offset: u64, what: SeekFor) -> Result<u64, VfsError> {
        loop {
            let seen = self.seen_commit();
            let found = self.seek_step_by_step(ino, offset, what).await;
            if seen == self.seen_commit() {
                return found;
            }
        }
    }

    async fn seek_step_by_step(&self, ino: Ino, offset: u64, what: SeekFor) -> Result<u64, VfsError> {
        let mut at = offset;
        loop {
            match self.read_txn(|txn| step(txn, ino, at, what)).await? {
                Step::Found(position) => return Ok(position.max(offset)),
                Step::GoOn(next) => at = next,
                Step::NextPage(page) => {
                    let end = Key::Extents(ino, u64::MAX);
                    let (records, _) = self.scan(Key::Extents(ino, page), end, 1).await?;
                    let next = records.first().and_then(|(key, _)| match key {
                        Key::Extents(_, page) => Some(page.saturating_mul(PAGE_BLOCKS)),
                        _ => None,
                    });
                    let changed = self.state.lock().dirty.next_changed(ino, page.saturating_mul(PAGE_BLOCKS));
                    match [next, changed].into_iter().flatten().min() {
                        Some(block) => at = BlockIndex(block).start(),
                        None => return Err(VfsError::NoData),
                    }
                }
            }
        }
    }
}

/// `from` to `to`, and all of the blocks at both ends where these are holes already: nothing of them has to be stored.
fn over_holes(txn: &mut Txn, ino: Ino, inode: &Inode, from: u64, to: u64) -> Result<(u64, u64), Halt> {
    let (first, last) = (BlockIndex::of(from), BlockIndex::of(to));
    let from =
        if from > first.start() && !has_data(txn, ino, inode, first.0)? { first.start() } else { from };
    let to = match to > last.start() && !has_data(txn, ino, inode, last.0)? {
        true => last.start().saturating_add(BLOCK_LEN),
        false => to,
    };
    Ok((from, to))
}

fn step(txn: &mut Txn, ino: Ino, from: u64, what: SeekFor) -> Result<Step, Halt> {
    let inode = txn.inode(ino)?;
    if from >= inode.size {
        return Err(VfsError::NoData.into());
    }
    let end = inode.size.div_ceil(BLOCK_LEN);
    let start = BlockIndex::of(from).0;
    for index in start..end.min(start.saturating_add(STEPS_MAX)) {
        let is_data = has_data(txn, ino, &inode, index)?;
        if is_data == (what == SeekFor::Data) {
            return Ok(Step::Found(BlockIndex(index).start().min(inode.size).max(from)));
        }
        let page_end = (index / PAGE_BLOCKS + 1) * PAGE_BLOCKS;
        if what == SeekFor::Data && index + 1 < page_end && skips_page(txn, ino, &inode, index)? {
            return Ok(Step::NextPage(index / PAGE_BLOCKS + 1));
        }
    }
    let next = start.saturating_add(STEPS_MAX);
    match (next >= end, what) {
        (false, _) => Ok(Step::GoOn(BlockIndex(next).start())),
        (true, SeekFor::Hole) => Ok(Step::Found(inode.size)),
        (true, SeekFor::Data) => Err(VfsError::NoData.into()),
    }
}

fn has_data(txn: &mut Txn, ino: Ino, inode: &Inode, index: u64) -> Result<bool, Halt> {
    if txn.dirty().has_paint(ino, index) {
        return Ok(true);
    }
    Ok(!matches!(locate::current(txn, ino, inode, index)?, Located::Hole))
}

/// Whether the rest of the block's page holds nothing, so that the next page can be asked for.
fn skips_page(txn: &mut Txn, ino: Ino, inode: &Inode, index: u64) -> Result<bool, Halt> {
    let page = index / PAGE_BLOCKS;
    let page_end = (page + 1) * PAGE_BLOCKS;
    if txn.dirty().next_changed(ino, index).is_some_and(|next| next < page_end) {
        return Ok(false);
    }
    Ok(match &inode.body {
        Body::Empty | Body::Link(_) => true,
        Body::Inline => index > 0,
        Body::Run(run) => index >= u64::from(run.end()),
        Body::Pages => !matches!(txn.get(Key::Extents(ino, page))?, Some(Record::Extents(_))),
    })
}
