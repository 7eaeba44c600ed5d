//! Reads what a stored segment says about itself: its seal from the head, its blocks from the footer.

use bytes::Bytes;

use super::footer::{self, FooterBlock, TRAILER_BYTES};
use crate::base::SegmentId;
use crate::base::SegmentSeal;
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKind};
use crate::data::DataError;
use crate::vault::Vault;

/// Tail fetched at first: the padding of an object below 8 MiB is under 128 KiB, so that this holds
/// the footers of all but segments of many small blocks.
const TAIL_BYTES: u64 = 160 * 1024;

/// The seal in the head of a stored segment, for salvage where its `S` record is lost. It proves
/// nothing until a key from it has opened something.
///
/// # Errors
/// [`DataError::Damaged`], [`DataError::Missing`] or [`DataError::Unavailable`].
pub async fn read_seal(vault: &Vault, segment: SegmentId) -> Result<SegmentSeal, DataError> {
    let head = vault.get_segment(segment, 0..HEAD_BYTES as u64).await;
    let head = head.map_err(|error| DataError::from_vault(segment, error))?;
    match ObjectHead::decode(&head) {
        Ok(head) if head.kind == ObjectKind::Segment => Ok(SegmentSeal::from(&head)),
        _ => Err(DataError::Damaged { segment, pos: 0, why: "the head is not a segment's" }),
    }
}

/// Which blocks of which files a stored segment of `segment_bytes` holds, in their order there:
/// one GET, or two for a long footer.
///
/// # Errors
/// [`DataError::Damaged`], [`DataError::Missing`] or [`DataError::Unavailable`].
pub async fn read_footer(
    vault: &Vault,
    segment: SegmentId,
    seal: &SegmentSeal,
    segment_bytes: u64,
) -> Result<Vec<FooterBlock>, DataError> {
    let short = DataError::Damaged { segment, pos: 0, why: "it is too short for a footer" };
    if segment_bytes < (HEAD_BYTES + TRAILER_BYTES) as u64 {
        return Err(short);
    }
    let fetch = async |range| {
        let bytes = vault.get_segment(segment, range).await;
        bytes.map_err(|error| DataError::from_vault(segment, error))
    };
    let tail_start = segment_bytes.saturating_sub(TAIL_BYTES);
    let tail: Bytes = fetch(tail_start..segment_bytes).await?;
    let trailer = tail.last_chunk::<TRAILER_BYTES>().ok_or(short.clone())?;
    let range = footer::footer_range(segment, segment_bytes, *trailer)?;
    let mut sealed = match range.start.checked_sub(tail_start) {
        Some(from) => {
            let to = tail.len().saturating_sub(TRAILER_BYTES);
            tail.get(from as usize..to).ok_or(short)?.to_vec()
        }
        None => fetch(range.clone()).await?.to_vec(),
    };
    let key = vault.segment_key(segment, seal).map_err(|error| DataError::from_vault(segment, error))?;
    let pos = range.start;
    let plain = key.open_piece(pos, true, &mut sealed).map_err(|_| DataError::Damaged {
        segment,
        pos: u32::try_from(pos).unwrap_or(u32::MAX),
        why: "the footer does not open",
    })?;
    footer::decode(segment, pos, plain)
}
