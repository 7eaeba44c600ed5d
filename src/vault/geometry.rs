//! Where the pieces of a sealed object lie (`docs/FORMAT.md`, "Sealed objects").

use std::ops::Range;

use crate::crypto::{HEAD_BYTES, TAG_BYTES};

/// Plaintext bytes of every piece but the last.
pub(super) const PIECE_BYTES: u64 = 16 * 1024;
/// Pieces that are cached together: 128 KiB, what a single look into a large table fetches.
const CHUNK_PIECES: u64 = 8;
/// Chunks that a scan fetches together: 1 MiB.
pub(super) const SPAN_CHUNKS: u64 = 8;

const HEAD: u64 = HEAD_BYTES as u64;
const TAG: u64 = TAG_BYTES as u64;
const SEALED_PIECE: u64 = PIECE_BYTES + TAG;
const SEALED_CHUNK: u64 = SEALED_PIECE * CHUNK_PIECES;

/// A sealed object of a known length.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Geometry {
    /// Bytes of the plaintext.
    pub plain_len: u64,
}

impl Geometry {
    /// From the length of the sealed object; `None` if nothing seals to that length.
    pub(super) fn of_sealed(sealed_len: u64) -> Option<Self> {
        let body = sealed_len.checked_sub(HEAD)?;
        let (full, rest) = (body / SEALED_PIECE, body % SEALED_PIECE);
        let tail = match rest {
            0 if full > 0 => 0,
            TAG if full > 0 => return None,
            rest => rest.checked_sub(TAG)?,
        };
        Some(Self { plain_len: full * PIECE_BYTES + tail })
    }

    /// Length of the sealed object.
    pub(super) const fn sealed_len(self) -> u64 {
        HEAD + self.plain_len + self.pieces() * TAG
    }

    /// Number of the last chunk.
    pub(super) const fn last_chunk(self) -> u64 {
        place_in_chunk(self.pieces() - 1).0
    }

    /// Number of pieces: at least one, because an empty object has an empty last piece.
    pub(super) const fn pieces(self) -> u64 {
        let pieces = self.plain_len.div_ceil(PIECE_BYTES);
        if pieces == 0 { 1 } else { pieces }
    }

    /// Whether `piece` is the last.
    pub(super) const fn is_last(self, piece: u64) -> bool {
        piece + 1 == self.pieces()
    }

    /// Plaintext bytes of `piece`.
    pub(super) fn piece_len(self, piece: u64) -> u64 {
        self.plain_len.saturating_sub(piece.saturating_mul(PIECE_BYTES)).min(PIECE_BYTES)
    }
}

/// Bytes of the sealed object that hold the chunks `first` to `last`; the first of all also holds the
/// head. May reach past the end.
pub(super) const fn chunk_range(first: u64, last: u64) -> Range<u64> {
    let start = HEAD.saturating_add(first.saturating_mul(SEALED_CHUNK));
    let end = HEAD.saturating_add(last.saturating_add(1).saturating_mul(SEALED_CHUNK));
    Range { start: if first == 0 { 0 } else { start }, end }
}

/// The chunk that holds `piece`, and the position of the sealed piece within the chunk's bytes.
pub(super) const fn place_in_chunk(piece: u64) -> (u64, u64) {
    let (chunk, within) = (piece / CHUNK_PIECES, piece % CHUNK_PIECES);
    let skipped = if chunk == 0 { HEAD } else { 0 };
    (chunk, skipped + within * SEALED_PIECE)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_length_is_known_from_its_sealed_length_and_no_other_length_passes() {
        let mut expected = 0;
        for plain_len in 0..3 * PIECE_BYTES + 2 {
            let sealed = Geometry { plain_len }.sealed_len();
            for impossible in expected..sealed {
                assert_eq!(Geometry::of_sealed(impossible), None, "{impossible}");
            }
            assert_eq!(Geometry::of_sealed(sealed), Some(Geometry { plain_len }));
            expected = sealed + 1;
        }
        assert_eq!(Geometry::of_sealed(u64::MAX).map(|g| g.plain_len < u64::MAX), Some(true));
    }

    #[test]
    fn pieces_lie_in_their_chunks() {
        assert_eq!(chunk_range(0, 0), 0..64 + 8 * 16400);
        assert_eq!(chunk_range(1, 2), 64 + 8 * 16400..64 + 24 * 16400);
        assert_eq!(place_in_chunk(0), (0, 64));
        assert_eq!(place_in_chunk(7), (0, 64 + 7 * 16400));
        assert_eq!(place_in_chunk(8), (1, 0));
        assert_eq!(place_in_chunk(18), (2, 2 * 16400));
        assert!(chunk_range(u64::MAX, u64::MAX).end == u64::MAX);
    }
}
