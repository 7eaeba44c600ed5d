//! Reads what a stored segment says about itself: its seal from the head, its blocks from the footer.

use std::ops::Range;

use bytes::Bytes;

use super::footer::{self, FooterBlock, TRAILER_BYTES};
use super::open::open_stored;
use crate::base::{BlockPlace, SegmentId, SegmentSeal};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKind};
use crate::data::DataError;
use crate::vault::Vault;

/// Tail fetched at first: the padding of an object below 8 MiB is under 128 KiB, so that this holds
/// the footers of all but segments of many small blocks.
const TAIL_BYTES: u64 = 160 * 1024;

/// Gaps between blocks that are fetched along rather than asked around.
const GAP_BYTES_MAX: u64 = 256 * 1024;
/// Longest range asked for at once.
const RANGE_BYTES_MAX: u64 = 4 * 1024 * 1024;

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

/// Reads blocks of a stored segment, `places` in the order in which they lie there, and verifies them.
/// Gives each as it is stored, compressed or not. A few GETs of up to 4 MiB.
///
/// # Errors
/// [`DataError::Damaged`] for the first block that is not what was sealed, [`DataError::Missing`] or
/// [`DataError::Unavailable`].
pub async fn read_blocks(
    vault: &Vault,
    segment: SegmentId,
    seal: &SegmentSeal,
    places: &[BlockPlace],
) -> Result<Vec<Vec<u8>>, DataError> {
    let key = vault.segment_key(segment, seal).map_err(|error| DataError::from_vault(segment, error))?;
    let mut blocks = Vec::with_capacity(places.len());
    let mut rest = places;
    while !rest.is_empty() {
        let (range, count) = next_range(rest);
        let (here, later) = rest.split_at(count);
        let fetched = vault.get_segment(segment, range.clone()).await;
        let fetched = fetched.map_err(|error| DataError::from_vault(segment, error))?;
        for place in here {
            let from = (u64::from(place.pos) - range.start) as usize;
            let sealed = fetched.get(from..from.saturating_add(place.piece.sealed_bytes() as usize));
            blocks.push(open_stored(&key, place, sealed.unwrap_or_default())?);
        }
        rest = later;
    }
    Ok(blocks)
}

/// The range that brings the first of `places` and those close behind it, and how many those are.
fn next_range(places: &[BlockPlace]) -> (Range<u64>, usize) {
    let mut ranges = places.iter().map(|place| {
        let range = place.sealed_range();
        u64::from(range.start)..u64::from(range.end)
    });
    let Some(mut all) = ranges.next() else { return (0..0, 0) };
    let mut count = 1;
    for range in ranges {
        let is_near = range.start >= all.end && range.start - all.end <= GAP_BYTES_MAX;
        if !is_near || range.end - all.start > RANGE_BYTES_MAX {
            break;
        }
        all.end = range.end;
        count += 1;
    }
    (all, count)
}
