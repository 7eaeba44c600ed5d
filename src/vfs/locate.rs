//! Where the bytes of a block are: in memory, in a record, in a segment, or nowhere.

use std::sync::Arc;

use bytes::Bytes;

use crate::base::{BlockPlace, Ino, PAGE_BLOCKS, SegmentId, SegmentSeal};
use crate::data::Beneath;
use crate::meta::{Body, Inode, Key, MetaError, Record};

use super::txn::{Halt, Txn};

/// Where the bytes of a block are, apart from what is painted over them.
#[derive(Clone, Debug)]
pub(super) enum Located {
    /// Nowhere: all zero.
    Hole,
    /// Here; zeros follow.
    Bytes(Bytes),
    /// In a segment.
    Stored(Stored),
}

/// A block in a segment, with all that is needed to open it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Stored {
    /// Where it is.
    pub(super) place: BlockPlace,
    /// What opens the segment.
    pub(super) seal: SegmentSeal,
    /// The segment's length.
    pub(super) segment_len: u32,
}

/// Where the committed block `index` of `ino` is.
pub(super) fn committed(txn: &mut Txn, ino: Ino, inode: &Inode, index: u64) -> Result<Located, Halt> {
    match &inode.body {
        Body::Empty | Body::Link(_) => Ok(Located::Hole),
        Body::Inline if index == 0 => inline(txn, ino, index),
        Body::Inline => Ok(Located::Hole),
        Body::Run(run) => match u32::try_from(index).ok().and_then(|index| run.place(index)) {
            Some(place) => stored(txn, place),
            None => Ok(Located::Hole),
        },
        Body::Pages => {
            let (page, within) = (index / PAGE_BLOCKS, (index % PAGE_BLOCKS) as u32);
            let Some(Record::Extents(extents)) = txn.get(Key::Extents(ino, page))? else {
                return Ok(Located::Hole);
            };
            if extents.inline.binary_search(&within).is_ok() {
                return inline(txn, ino, index);
            }
            match extents.runs.lookup(within) {
                Some(place) => stored(txn, place),
                None => Ok(Located::Hole),
            }
        }
    }
}

/// The place of the committed block `index` of `ino`, if it lies in a segment.
pub(super) fn committed_place(
    txn: &mut Txn,
    ino: Ino,
    inode: &Inode,
    index: u64,
) -> Result<Option<BlockPlace>, Halt> {
    match &inode.body {
        Body::Empty | Body::Link(_) | Body::Inline => Ok(None),
        Body::Run(run) => Ok(u32::try_from(index).ok().and_then(|index| run.place(index))),
        Body::Pages => match txn.committed(Key::Extents(ino, index / PAGE_BLOCKS))? {
            Some(Record::Extents(extents)) => Ok(extents.runs.lookup((index % PAGE_BLOCKS) as u32)),
            _ => Ok(None),
        },
    }
}

/// The inode as the last commit left it; `None` if it was not there.
pub(super) fn committed_inode(txn: &mut Txn, ino: Ino) -> Result<Option<Arc<Inode>>, Halt> {
    match txn.committed(Key::Inode(ino))? {
        Some(Record::Inode(inode)) => Ok(Some(inode)),
        _ => Ok(None),
    }
}

/// Where the block `index` of `ino` is, uncommitted changes included.
pub(super) fn current(txn: &mut Txn, ino: Ino, inode: &Inode, index: u64) -> Result<Located, Halt> {
    match txn.state().dirty.beneath(ino, index) {
        Beneath::Zeros => Ok(Located::Hole),
        Beneath::Bytes(bytes) => Ok(Located::Bytes(bytes)),
        Beneath::Place(place) => stored(txn, place),
        Beneath::Committed => committed(txn, ino, inode, index),
    }
}

/// Where what lies under a block of the sealed group is: what the group has uploaded itself, or what
/// the last commit had. A file that the group makes has had nothing.
pub(super) fn beneath_sealed(txn: &mut Txn, ino: Ino, index: u64, beneath: Beneath) -> Result<Located, Halt> {
    match beneath {
        Beneath::Committed => match committed_inode(txn, ino)? {
            Some(inode) => committed(txn, ino, &inode, index),
            None => Ok(Located::Hole),
        },
        Beneath::Zeros => Ok(Located::Hole),
        Beneath::Bytes(bytes) => Ok(Located::Bytes(bytes)),
        Beneath::Place(place) => stored(txn, place),
    }
}

fn inline(txn: &mut Txn, ino: Ino, index: u64) -> Result<Located, Halt> {
    let key = Key::Inline(ino, index);
    match txn.get(key)? {
        Some(Record::Inline(bytes)) => Ok(Located::Bytes(bytes)),
        _ => Err(MetaError::Missing(key).into()),
    }
}

fn stored(txn: &mut Txn, place: BlockPlace) -> Result<Located, Halt> {
    let (seal, segment_len) = segment(txn, place.segment)?;
    Ok(Located::Stored(Stored { place, seal, segment_len }))
}

/// What opens a segment, and how long it is.
pub(super) fn segment(txn: &mut Txn, id: SegmentId) -> Result<(SegmentSeal, u32), Halt> {
    if let Some(new) = txn.state().dirty.new_segment(id) {
        return Ok((new.seal, new.len));
    }
    let key = Key::Segment(id);
    match txn.get(key)? {
        Some(Record::Segment(segment)) => Ok((segment.seal, segment.len)),
        _ => Err(MetaError::Missing(key).into()),
    }
}
