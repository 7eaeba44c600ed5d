//! Fills one segment: each block is compressed and sealed into the object's buffer as it comes.

use bytes::Bytes;

use super::SEGMENT_BLOCKS_MAX;
use super::buffers::Buffers;
use super::codec::{Compression, Packer};
use super::footer::{self, FooterWriter};
use crate::base::SegmentSeal;
use crate::base::{BLOCK_BYTES, BlockIndex, Ino, SEGMENT_BYTES_MAX, SegmentId};
use crate::base::{BlockPlace, Piece};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKey, TAG_BYTES};
use crate::data::DataError;
use crate::vault::Vault;

/// What the blocks of one segment may come to by [`room_of`].
pub const SEGMENT_ROOM_BYTES: usize =
    SEGMENT_BYTES_MAX - HEAD_BYTES - footer::PREFIX_BYTES - TAG_BYTES - footer::TRAILER_BYTES;

/// The room that a block of `plain_bytes` takes in a segment, its tag and its line in the footer
/// included.
#[must_use]
pub const fn room_of(plain_bytes: usize) -> usize {
    plain_bytes + TAG_BYTES + footer::ENTRY_BYTES
}

/// Memory for a segment with so many bytes of contents. Blocks, tags, footer and padding of a full one come to
/// [`SEGMENT_BYTES_MAX`] exactly.
fn reserved(plain_bytes: usize) -> usize {
    plain_bytes.saturating_add(plain_bytes / 16).saturating_add(4096).min(SEGMENT_BYTES_MAX)
}

/// A segment under construction.
pub struct SegmentBuilder {
    id: SegmentId,
    key: ObjectKey,
    seal: SegmentSeal,
    packer: Packer,
    footer: FooterWriter,
    /// The object so far: head and sealed blocks.
    object: Vec<u8>,
    /// Where its buffer comes from.
    buffers: Option<Buffers>,
    head_bytes: usize,
}

/// A segment ready to be stored.
#[derive(Clone)]
pub struct FinishedSegment {
    /// Its id.
    pub id: SegmentId,
    /// The whole object.
    pub bytes: Bytes,
    /// What opens its blocks; goes into its `S` record.
    pub seal: SegmentSeal,
    /// Stored bytes and tags of its blocks: what is live as long as none is overwritten.
    pub stored_bytes: u64,
    /// How many blocks it holds.
    pub block_count: u32,
}

impl SegmentBuilder {
    /// Begins a segment with a new id and key.
    #[must_use]
    pub fn new(vault: &Vault, compression: Compression) -> Self {
        Self::with_capacity(vault, compression, SEGMENT_BYTES_MAX)
    }

    /// As [`SegmentBuilder::with_capacity`], in a buffer of `buffers`, to which it returns when the segment is dropped.
    #[must_use]
    pub fn in_buffer(vault: &Vault, compression: Compression, plain_bytes: usize, buffers: &Buffers) -> Self {
        let id = SegmentId::random(vault.entropy());
        let (head, key) = vault.new_segment(id);
        Self {
            buffers: Some(buffers.clone()),
            ..Self::from_parts(id, &head, key, compression, buffers.take(reserved(plain_bytes)))
        }
    }

    /// As [`SegmentBuilder::new`], for contents known to be small: reserves memory for `plain_bytes`
    /// instead of a whole segment's.
    #[must_use]
    pub fn with_capacity(vault: &Vault, compression: Compression, plain_bytes: usize) -> Self {
        let id = SegmentId::random(vault.entropy());
        let (head, key) = vault.new_segment(id);
        Self::from_parts(id, &head, key, compression, Vec::with_capacity(reserved(plain_bytes)))
    }

    pub(super) fn from_parts(
        id: SegmentId,
        head: &ObjectHead,
        key: ObjectKey,
        compression: Compression,
        mut object: Vec<u8>,
    ) -> Self {
        let head_encoded = head.encode();
        object.extend_from_slice(&head_encoded);
        Self {
            id,
            key,
            seal: SegmentSeal::from(head),
            packer: Packer::new(compression),
            footer: FooterWriter::default(),
            object,
            buffers: None,
            head_bytes: head_encoded.len(),
        }
    }

    /// The segment's id.
    #[must_use]
    pub fn id(&self) -> SegmentId {
        self.id
    }

    /// What will open its blocks.
    #[must_use]
    pub fn seal(&self) -> SegmentSeal {
        self.seal
    }

    /// Seals one block: `plain` is the contents of block `index` of file `ino`, 1 to [`BLOCK_BYTES`] long.
    ///
    /// # Errors
    /// [`DataError::BlockLength`] for any other length, [`DataError::SegmentFull`] if it does not fit;
    /// nothing changed then. Blocks that come to [`SEGMENT_ROOM_BYTES`] by [`room_of`] fit.
    pub fn push(&mut self, ino: Ino, index: BlockIndex, plain: &[u8]) -> Result<BlockPlace, DataError> {
        if plain.is_empty() || plain.len() > BLOCK_BYTES {
            return Err(DataError::BlockLength { bytes: plain.len() });
        }
        if !self.has_room_for(plain.len()) {
            return Err(DataError::SegmentFull { segment: self.id });
        }
        let start = self.object.len();
        let (codec, stored) = self.packer.pack(plain);
        // Both lengths are at most BLOCK_BYTES.
        let piece = Piece { plain: plain.len() as u32, stored: stored.len() as u32, codec };
        self.object.extend_from_slice(stored);
        self.seal_from(start, ino, index, piece)
    }

    /// Seals one block as it was stored in another segment: `stored` is what `piece` describes.
    ///
    /// # Errors
    /// As [`SegmentBuilder::push`].
    pub fn push_stored(
        &mut self,
        ino: Ino,
        index: BlockIndex,
        piece: Piece,
        stored: &[u8],
    ) -> Result<BlockPlace, DataError> {
        piece.validate()?;
        if stored.len() != piece.stored as usize {
            return Err(DataError::BlockLength { bytes: stored.len() });
        }
        if !self.has_room_for(stored.len()) {
            return Err(DataError::SegmentFull { segment: self.id });
        }
        let start = self.object.len();
        self.object.extend_from_slice(stored);
        self.seal_from(start, ino, index, piece)
    }

    /// Seals what has been appended from `start` on.
    fn seal_from(
        &mut self,
        start: usize,
        ino: Ino,
        index: BlockIndex,
        piece: Piece,
    ) -> Result<BlockPlace, DataError> {
        let Ok(pos) = u32::try_from(start) else {
            return Err(DataError::SegmentFull { segment: self.id });
        };
        let sealed = self.object.get_mut(start..).unwrap_or_default();
        let tag = self.key.seal_slice(u64::from(pos), false, sealed);
        self.object.extend_from_slice(&tag);
        self.footer.push(ino, index, piece);
        Ok(BlockPlace { segment: self.id, pos, piece })
    }

    /// Bytes of the object so far, without footer and padding.
    #[must_use]
    pub fn len(&self) -> usize {
        self.object.len()
    }

    /// Whether it holds no block.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.footer.block_count() == 0
    }

    /// How many blocks it holds.
    #[must_use]
    pub fn block_count(&self) -> u32 {
        self.footer.block_count()
    }

    /// Whether another whole block would make the finished object longer than
    /// [`SEGMENT_BYTES_MAX`], or it has [`SEGMENT_BLOCKS_MAX`] blocks.
    #[must_use]
    pub fn is_full(&self) -> bool {
        !self.has_room_for(BLOCK_BYTES)
    }

    fn has_room_for(&self, plain_bytes: usize) -> bool {
        let blocks_bytes = self.object.len() + plain_bytes + TAG_BYTES;
        let blocks = self.footer.block_count();
        blocks < SEGMENT_BLOCKS_MAX && footer::object_bytes(blocks_bytes, blocks + 1) <= SEGMENT_BYTES_MAX
    }

    /// Seals the footer, padded so that the object's length tells little.
    #[must_use]
    pub fn finish(mut self) -> FinishedSegment {
        let stored_bytes = (self.object.len() - self.head_bytes) as u64;
        let block_count = self.footer.block_count();
        self.footer.seal_onto(&self.key, &mut self.object);
        FinishedSegment {
            id: self.id,
            bytes: match self.buffers {
                Some(buffers) => buffers.lend(self.object),
                None => self.object.into(),
            },
            seal: self.seal,
            stored_bytes,
            block_count,
        }
    }
}
