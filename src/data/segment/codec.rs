//! Compression of single blocks, and decompression to exactly the length that the record states.

use std::cell::RefCell;

use zstd::bulk::{Compressor, Decompressor};

use crate::base::BLOCK_BYTES;
use crate::base::{Codec, Piece};

/// The level whose speed keeps up with a gigabit link on one core.
const ZSTD_LEVEL: i32 = 3;

/// How the blocks of a volume are compressed before sealing: a choice at `init`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Compression {
    /// Not at all: sizes tell nothing about contents.
    #[default]
    None,
    /// LZ4.
    Lz4,
    /// Zstandard, level 3.
    Zstd,
}

/// Compresses block after block with the same buffers.
pub(super) enum Packer {
    Raw,
    Lz4(Box<[u8]>),
    Zstd(Box<[u8]>, Box<Compressor<'static>>),
}

impl Packer {
    /// A packer; without memory for Zstandard's context it packs raw.
    pub(super) fn new(compression: Compression) -> Self {
        match compression {
            Compression::None => Self::Raw,
            Compression::Lz4 => {
                Self::Lz4(vec![0; lz4_flex::block::get_maximum_output_size(BLOCK_BYTES)].into())
            }
            Compression::Zstd => match Compressor::new(ZSTD_LEVEL) {
                Ok(compressor) => {
                    Self::Zstd(vec![0; shrunk_bytes_max(BLOCK_BYTES)].into(), Box::new(compressor))
                }
                Err(_) => Self::Raw,
            },
        }
    }

    /// `plain` as it is to be sealed: raw unless compressing saves at least one sixteenth.
    pub(super) fn pack<'a>(&'a mut self, plain: &'a [u8]) -> (Codec, &'a [u8]) {
        let (codec, packed) = match self {
            Self::Raw => return (Codec::Raw, plain),
            Self::Lz4(buffer) => {
                let bytes = lz4_flex::block::compress_into(plain, buffer).ok();
                (Codec::Lz4, bytes.and_then(|bytes| buffer.get(..bytes)))
            }
            Self::Zstd(buffer, compressor) => {
                let bytes = compressor.compress_to_buffer(plain, &mut **buffer).ok();
                (Codec::Zstd, bytes.and_then(|bytes| buffer.get(..bytes)))
            }
        };
        match packed {
            Some(packed) if packed.len() <= shrunk_bytes_max(plain.len()) => (codec, packed),
            _ => (Codec::Raw, plain),
        }
    }
}

/// Largest compressed form that is worth keeping.
const fn shrunk_bytes_max(plain_bytes: usize) -> usize {
    plain_bytes - plain_bytes.div_ceil(16)
}

/// Undoes the compression of a block. `None` if `stored` does not come to exactly `piece.plain`
/// bytes; never more memory than those, whatever `stored` claims.
pub(super) fn unpack(piece: Piece, stored: Vec<u8>) -> Option<Vec<u8>> {
    let plain_bytes = piece.plain as usize;
    if stored.len() != piece.stored as usize || plain_bytes > BLOCK_BYTES {
        return None;
    }
    let mut plain = match piece.codec {
        Codec::Raw => return (piece.stored == piece.plain).then_some(stored),
        Codec::Lz4 | Codec::Zstd => vec![0; plain_bytes],
    };
    let written = match piece.codec {
        Codec::Zstd => unpack_zstd(&stored, &mut plain)?,
        _ => lz4_flex::block::decompress_into(&stored, &mut plain).ok()?,
    };
    (written == plain_bytes).then_some(plain)
}

fn unpack_zstd(stored: &[u8], plain: &mut [u8]) -> Option<usize> {
    // A context is 95 KiB of tables: each thread keeps its own.
    thread_local!(static CONTEXT: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) });
    CONTEXT.with_borrow_mut(|context| {
        let context = match context {
            Some(context) => context,
            None => context.insert(Decompressor::new().ok()?),
        };
        context.decompress_to_buffer(stored, plain).ok()
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packed(compression: Compression, plain: &[u8]) -> (Piece, Vec<u8>) {
        let mut packer = Packer::new(compression);
        let (codec, stored) = packer.pack(plain);
        (Piece { plain: plain.len() as u32, stored: stored.len() as u32, codec }, stored.to_vec())
    }

    #[test]
    fn what_does_not_shrink_by_a_sixteenth_stays_raw() {
        let mut random = vec![0; BLOCK_BYTES];
        crate::base::Entropy::fill(&crate::base::SeededEntropy::new(1), &mut random);
        for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
            for plain in [&random[..], &random[..1], b"abc", &vec![7; BLOCK_BYTES]] {
                let (piece, stored) = packed(compression, plain);
                assert!(piece.validate().is_ok(), "{piece:?}");
                assert!(piece.codec == Codec::Raw || stored.len() <= shrunk_bytes_max(plain.len()));
                assert_eq!(unpack(piece, stored).as_deref(), Some(plain));
            }
            let (piece, _) = packed(compression, &vec![7; BLOCK_BYTES]);
            assert_eq!(piece.codec == Codec::Raw, compression == Compression::None);
        }
    }

    #[test]
    fn d11_a_bomb_stops_at_the_length_that_was_stated() {
        for compression in [Compression::Lz4, Compression::Zstd] {
            let (piece, stored) = packed(compression, &vec![0; BLOCK_BYTES]);
            for plain in [0, 1, piece.stored, piece.plain - 1, piece.plain + 1, u32::MAX] {
                assert_eq!(unpack(Piece { plain, ..piece }, stored.clone()), None);
            }
        }
    }

    /// `docs/FORMAT.md`, "Segments".
    #[test]
    fn zstandard_is_written_as_one_plain_frame_and_read_however_it_was_written() {
        let plain = [7; 4096];
        let frame = |plain: &[u8], checksum, size| {
            let mut encoder = zstd::stream::Encoder::new(Vec::new(), ZSTD_LEVEL).unwrap();
            encoder.include_checksum(checksum).unwrap();
            encoder.include_contentsize(size).unwrap();
            std::io::Write::write_all(&mut encoder, plain).unwrap();
            encoder.finish().unwrap()
        };
        let read = |stored: &[u8]| {
            let piece = Piece { plain: 4096, stored: stored.len() as u32, codec: Codec::Zstd };
            unpack(piece, stored.to_vec()).as_deref() == Some(&plain[..])
        };
        let (_, stored) = packed(Compression::Zstd, &plain);
        let descriptor = stored[4];
        assert_eq!(
            descriptor & 0b0010_0111,
            0b0010_0000,
            "one segment, so a size; no checksum, no dictionary"
        );
        assert!(read(&stored) && read(&frame(&plain, true, false)) && read(&frame(&plain, false, false)));
        let mut wrong = frame(&plain, true, false);
        *wrong.last_mut().unwrap() ^= 1;
        assert!(!read(&wrong), "the checksum");
        let halves = [frame(&plain[..2048], false, false), frame(&plain[2048..], true, false)].concat();
        let skipped = [&b"\x50\x2a\x4d\x18\x02\0\0\0??"[..], &stored].concat();
        assert!(read(&halves) && read(&skipped));
        let dictionary = [&stored[..4], &[descriptor | 1, 9], &stored[5..]].concat();
        assert!(!read(&dictionary) && !read(&[&stored[..], b"?"].concat()));
    }

    proptest! {
        #[test]
        fn unpacking_any_bytes_gives_the_stated_length_or_nothing(
            stored in prop::collection::vec(any::<u8>(), 0..300), plain in 0u32..70_000, codec in 0u8..3,
        ) {
            let codec = Codec::from_number(codec).unwrap();
            let piece = Piece { plain, stored: stored.len() as u32, codec };
            if let Some(got) = unpack(piece, stored) {
                prop_assert_eq!(got.len(), plain as usize);
            }
        }
    }
}
