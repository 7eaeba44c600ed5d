//! Segments as they are stored: what was sealed comes back, nothing else does.

use std::sync::Arc;

use proptest::prelude::*;

use super::*;
use crate::base::{
    BLOCK_BYTES, BlockIndex, Entropy, Ino, SEGMENT_BYTES_MAX, SeededEntropy, SegmentId, VolumeId,
};
use crate::base::{BlockPlace, Codec};
use crate::crypto::{Epoch, HEAD_BYTES, KeyRing, TAG_BYTES, Vmk};
use crate::data::DataError;
use crate::store::Bucket;
use crate::vault::Vault;

fn vault(seed: u64) -> Vault {
    let vmk = Vmk::from_bytes([9; 32]);
    let ring = KeyRing::new(VolumeId([1; 16]), Epoch(1), &vmk);
    Vault::new(Bucket::memory(), Arc::new(ring), Arc::new(SeededEntropy::new(seed)))
}

fn random(seed: u64, bytes: usize) -> Vec<u8> {
    let mut out = vec![0; bytes];
    SeededEntropy::new(seed).fill(&mut out);
    out
}

fn sealed<'a>(segment: &'a FinishedSegment, place: &BlockPlace) -> &'a [u8] {
    let range = place.sealed_range();
    &segment.bytes[range.start as usize..range.end as usize]
}

async fn footer_of(vault: &Vault, segment: &FinishedSegment) -> Result<Vec<FooterBlock>, DataError> {
    read_footer(vault, segment.id, &segment.seal, segment.bytes.len() as u64).await
}

#[tokio::test]
async fn a_full_segment_is_exactly_8_mib_of_127_whole_blocks() {
    let vault = vault(1);
    let mut builder = SegmentBuilder::new(&vault, Compression::None);
    let reserved = builder.len();
    let block = random(1, BLOCK_BYTES);
    let mut places = Vec::new();
    while !builder.is_full() {
        places.push(builder.push(Ino(7), BlockIndex(places.len() as u64), &block).unwrap());
    }
    assert!(matches!(builder.push(Ino(7), BlockIndex(0), &block), Err(DataError::SegmentFull { .. })));
    assert_eq!((reserved, places.len()), (HEAD_BYTES, 127));
    let segment = builder.finish();
    assert_eq!(segment.bytes.len(), SEGMENT_BYTES_MAX);
    assert_eq!(segment.stored_bytes, 127 * (BLOCK_BYTES + TAG_BYTES) as u64);
    for pair in places.windows(2) {
        assert_eq!(pair[0].sealed_range().end, pair[1].pos);
    }
}

#[tokio::test]
async fn a_segment_holds_thousands_of_small_blocks() {
    let vault = vault(2);
    let mut builder = SegmentBuilder::new(&vault, Compression::None);
    let block = random(2, 4096);
    let mut count = 0;
    while !builder.is_full() {
        builder.push(Ino(count), BlockIndex(0), &block[..4000]).unwrap();
        count += 1;
    }
    assert!(count >= 2048, "{count}");
    let segment = builder.finish();
    assert!(segment.bytes.len() <= SEGMENT_BYTES_MAX);
    vault.put_segment(segment.id, segment.bytes.clone()).await.unwrap();
    let gets = vault.bucket().meter().snapshot().gets;
    let blocks = footer_of(&vault, &segment).await.unwrap();
    assert_eq!(blocks.iter().map(|block| block.ino.0).collect::<Vec<_>>(), (0..count).collect::<Vec<_>>());
    assert_eq!(vault.bucket().meter().snapshot().gets - gets, 1);

    let mut tiny = SegmentBuilder::with_capacity(&vault, Compression::None, 0);
    while !tiny.is_full() {
        tiny.push(Ino(1), BlockIndex(u64::MAX), b"x").unwrap();
    }
    assert_eq!(tiny.block_count(), SEGMENT_BLOCKS_MAX);
    let tiny = tiny.finish();
    vault.put_segment(tiny.id, tiny.bytes.clone()).await.unwrap();
    let gets = vault.bucket().meter().snapshot().gets;
    assert_eq!(footer_of(&vault, &tiny).await.unwrap().len(), SEGMENT_BLOCKS_MAX as usize);
    assert_eq!(vault.bucket().meter().snapshot().gets - gets, 2);
}

#[test]
fn blocks_of_impossible_length_are_refused() {
    let mut builder = SegmentBuilder::new(&vault(3), Compression::None);
    for bytes in [0, BLOCK_BYTES + 1] {
        let refused = builder.push(Ino(1), BlockIndex(0), &vec![0; bytes]);
        assert!(matches!(refused, Err(DataError::BlockLength { bytes: found }) if found == bytes));
    }
    assert!(builder.is_empty());
}

#[tokio::test]
async fn b1_b2_every_flipped_bit_and_every_swap_is_found() {
    let vault = vault(4);
    let mut builder = SegmentBuilder::new(&vault, Compression::Zstd);
    let (text, noise) = (b"all work and no play ".repeat(40), random(4, 300));
    let places = [
        builder.push(Ino(2), BlockIndex(0), &text).unwrap(),
        builder.push(Ino(2), BlockIndex(1), &noise).unwrap(),
        builder.push(Ino(3), BlockIndex(0), &noise).unwrap(),
    ];
    assert_eq!(places.map(|place| place.piece.codec), [Codec::Zstd, Codec::Raw, Codec::Raw]);
    let segment = builder.finish();
    let key = vault.segment_key(segment.id, &segment.seal).unwrap();
    for (place, plain) in places.iter().zip([&text, &noise, &noise]) {
        let whole = sealed(&segment, place);
        assert_eq!(open_block(&key, place, whole).unwrap(), plain);
        for bit in 0..whole.len() * 8 {
            let mut bad = whole.to_vec();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(matches!(open_block(&key, place, &bad), Err(DataError::Damaged { .. })), "bit {bit}");
        }
        assert!(open_block(&key, place, &whole[1..]).is_err());
    }
    // Two blocks of one length change places; then a block of another segment, under its own key.
    assert!(open_block(&key, &places[1], sealed(&segment, &places[2])).is_err());
    let mut other = SegmentBuilder::new(&vault, Compression::Zstd);
    other.push(Ino(2), BlockIndex(0), &text).unwrap();
    let other = other.finish();
    assert!(open_block(&key, &places[0], sealed(&other, &places[0])).is_err());
    assert!(vault.segment_key(other.id, &segment.seal).is_err());
}

#[tokio::test]
async fn a_damaged_footer_or_head_is_an_error_and_never_a_wrong_list() {
    let vault = vault(5);
    let mut builder = SegmentBuilder::new(&vault, Compression::None);
    builder.push(Ino(2), BlockIndex(9), &random(5, 3000)).unwrap();
    let segment = builder.finish();
    let blocks = {
        vault.put_segment(segment.id, segment.bytes.clone()).await.unwrap();
        assert_eq!(read_seal(&vault, segment.id).await.unwrap(), segment.seal);
        footer_of(&vault, &segment).await.unwrap()
    };
    assert_eq!((blocks[0].ino, blocks[0].index, blocks.len()), (Ino(2), BlockIndex(9), 1));
    let footer_start = blocks[0].place.sealed_range().end as usize;
    for at in footer_start..segment.bytes.len() {
        let mut bad = segment.bytes.to_vec();
        bad[at] ^= 0x10;
        vault.delete_segment(segment.id).await.unwrap();
        vault.put_segment(segment.id, bad.into()).await.unwrap();
        assert!(matches!(footer_of(&vault, &segment).await, Err(DataError::Damaged { .. })), "byte {at}");
    }
    for bytes in [1, 3, 4, 63, 64, 80, 100] {
        vault.delete_segment(segment.id).await.unwrap();
        vault.put_segment(segment.id, segment.bytes.slice(..bytes)).await.unwrap();
        let cut = read_footer(&vault, segment.id, &segment.seal, bytes as u64).await;
        assert!(cut.is_err(), "{bytes} bytes");
        assert_eq!(read_seal(&vault, segment.id).await.is_ok(), bytes >= HEAD_BYTES);
    }
    let absent = read_footer(&vault, SegmentId([0; 16]), &segment.seal, 1000).await;
    assert!(matches!(absent, Err(DataError::Missing { .. })));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(40))]
    #[test]
    fn a_segment_gives_back_what_was_pushed(
        blocks in prop::collection::vec((any::<u64>(), any::<u64>(), 1..BLOCK_BYTES, any::<bool>()), 0..12),
        compression in prop_oneof![Just(Compression::None), Just(Compression::Lz4), Just(Compression::Zstd)],
        seed in any::<u64>(),
    ) {
        let vault = vault(seed);
        let mut builder = SegmentBuilder::new(&vault, compression);
        let mut pushed = Vec::new();
        for (n, (ino, index, bytes, noisy)) in blocks.iter().enumerate() {
            let plain = if *noisy { random(seed ^ n as u64, *bytes) } else { vec![n as u8; *bytes] };
            let place = builder.push(Ino(*ino), BlockIndex(*index), &plain).unwrap();
            pushed.push((FooterBlock { ino: Ino(*ino), index: BlockIndex(*index), place }, plain));
        }
        let blocks_end = builder.len();
        let segment = builder.finish();
        prop_assert_eq!(segment.stored_bytes, (blocks_end - HEAD_BYTES) as u64);
        let key = vault.segment_key(segment.id, &segment.seal).unwrap();
        for (block, plain) in &pushed {
            prop_assert_eq!(&open_block(&key, &block.place, sealed(&segment, &block.place)).unwrap(), plain);
        }
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let listed = runtime.block_on(async {
            vault.put_segment(segment.id, segment.bytes.clone()).await.unwrap();
            footer_of(&vault, &segment).await.unwrap()
        });
        prop_assert_eq!(listed, pushed.iter().map(|(block, _)| *block).collect::<Vec<_>>());
    }

    /// Two trees that differ only in contents leave objects of equal lengths.
    #[test]
    fn without_compression_lengths_do_not_depend_on_contents(
        lengths in prop::collection::vec(1..BLOCK_BYTES, 1..20), seed in any::<u64>(),
    ) {
        let object_bytes = |noisy: bool| {
            let mut builder = SegmentBuilder::new(&vault(seed), Compression::None);
            for bytes in &lengths {
                let plain = if noisy { random(seed, *bytes) } else { vec![0; *bytes] };
                builder.push(Ino(1), BlockIndex(0), &plain).unwrap();
            }
            builder.finish().bytes.len()
        };
        prop_assert_eq!(object_bytes(true), object_bytes(false));
    }
}
