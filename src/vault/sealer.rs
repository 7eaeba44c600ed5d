//! Seals one object as it comes in, piece by piece and in place.

use bytes::Bytes;

use super::geometry::{Geometry, PIECE_BYTES};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKey, TAG_BYTES};

/// An object being sealed.
pub(super) struct Sealer {
    key: ObjectKey,
    /// The head, sealed pieces, and the plaintext of the piece that is being filled.
    out: Vec<u8>,
    filled: usize,
    piece: u64,
}

impl Sealer {
    /// Begins an object of about `plain_len` bytes.
    pub(super) fn new(head: &ObjectHead, key: ObjectKey, plain_len: usize) -> Self {
        let expected = Geometry { plain_len: plain_len as u64 }.sealed_len();
        let mut out = Vec::with_capacity(usize::try_from(expected).unwrap_or(0));
        out.extend_from_slice(&head.encode());
        Self { key, out, filled: 0, piece: 0 }
    }

    /// Bytes held.
    pub(super) const fn len(&self) -> usize {
        self.out.len()
    }

    /// Takes more plaintext. A full piece stays open until more comes, for it may be the last.
    pub(super) fn push(&mut self, mut plain: &[u8]) {
        const FULL: usize = PIECE_BYTES as usize;
        while !plain.is_empty() {
            if self.filled == FULL {
                self.close(false);
            }
            let (now, later) = plain.split_at(plain.len().min(FULL - self.filled));
            self.out.extend_from_slice(now);
            self.filled += now.len();
            plain = later;
        }
    }

    /// The sealed object, and its key for reading it back.
    pub(super) fn finish(mut self) -> (Bytes, ObjectKey) {
        self.close(true);
        debug_assert!(self.out.len() >= HEAD_BYTES + TAG_BYTES);
        (self.out.into(), self.key)
    }

    fn close(&mut self, last: bool) {
        let start = self.out.len() - self.filled;
        let tag = match self.out.get_mut(start..) {
            Some(piece) => self.key.seal_slice(self.piece, last, piece),
            None => return,
        };
        self.out.extend_from_slice(&tag);
        self.filled = 0;
        self.piece += 1;
    }
}
