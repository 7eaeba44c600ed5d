//! Footers of segments, and compressed blocks: plaintext that only a bug or a key's holder could put there.
#![no_main]

use coffer::base::{Codec, Piece};
use coffer::fuzzing;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((front, rest)) = data.split_first_chunk::<4>() else { return };
    let pos = u64::from(u32::from_be_bytes(*front));
    if let Some(blocks) = fuzzing::segment::footer(pos, rest) {
        let sealed: u64 = blocks.iter().map(|block| u64::from(block.place.piece.sealed_bytes())).sum();
        assert_eq!(sealed + 64, pos, "the blocks fill the segment up to its footer");
    }
    let [codec, a, b, c] = *front;
    let Some(codec) = Codec::from_number(codec % 4) else { return };
    let piece = Piece { plain: u32::from_be_bytes([0, a & 1, b, c]), stored: rest.len() as u32, codec };
    if let Some(plain) = fuzzing::segment::unpack(piece, rest.to_vec()) {
        assert_eq!(plain.len(), piece.plain as usize);
    }
});
