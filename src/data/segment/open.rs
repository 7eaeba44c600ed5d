//! Opens one sealed block: verify, decrypt, decompress.

use bytes::Bytes;

use super::codec;
use crate::base::{BLOCK_BYTES, BlockPlace, Codec};
use crate::crypto::ObjectKey;
use crate::data::{BlockBuffers, DataError};

/// The contents of the block at `place`, whose sealed bytes, tag included, are `sealed`. The result
/// owns its memory and is `place.piece.plain` bytes long.
///
/// # Errors
/// [`DataError::Damaged`] if any bit differs from what was sealed at that place of that segment.
pub fn open_block(key: &ObjectKey, place: &BlockPlace, sealed: &[u8]) -> Result<Bytes, DataError> {
    let block = open_stored(key, place, sealed)?;
    let why = "a block does not decompress";
    let damaged = DataError::Damaged { segment: place.segment, pos: place.pos, why };
    codec::unpack(place.piece, block).map(Bytes::from).ok_or(damaged)
}

/// As [`open_block`], into memory of `buffers` where that is worth it.
///
/// # Errors
/// As [`open_block`].
pub fn open_block_into(
    buffers: &BlockBuffers,
    key: &ObjectKey,
    place: &BlockPlace,
    sealed: &[u8],
) -> Result<Bytes, DataError> {
    let piece = place.piece;
    let is_whole = piece.plain as usize == BLOCK_BYTES && piece.stored == piece.plain;
    if piece.codec != Codec::Raw || !is_whole || sealed.len() != piece.sealed_bytes() as usize {
        return open_block(key, place, sealed);
    }
    let mut block = buffers.take_filled();
    if key.open_piece_into(u64::from(place.pos), false, sealed, &mut block).is_err() {
        let why = "a block does not open";
        return Err(DataError::Damaged { segment: place.segment, pos: place.pos, why });
    }
    Ok(buffers.lend(block))
}

/// As [`open_block`], but leaves the contents as they are stored, compressed or not.
///
/// # Errors
/// As [`open_block`].
pub fn open_stored(key: &ObjectKey, place: &BlockPlace, sealed: &[u8]) -> Result<Vec<u8>, DataError> {
    let damaged = |why| DataError::Damaged { segment: place.segment, pos: place.pos, why };
    if sealed.len() != place.piece.sealed_bytes() as usize {
        return Err(damaged("a sealed block has the wrong length"));
    }
    let mut block = sealed.to_vec();
    let opened = key.open_piece(u64::from(place.pos), false, &mut block).map(|plain| plain.len());
    let opened = opened.map_err(|_| damaged("a block does not open"))?;
    block.truncate(opened);
    Ok(block)
}
