//! What one block, one name and one cache hit cost: the figures behind the hot paths.

use std::hint::black_box;
use std::sync::Arc;

use aws_lc_rs::aead::{AES_256_GCM, Aad, LessSafeKey, Nonce, UnboundKey};
use bytes::Bytes;
use coffer::base::{
    BLOCK_BYTES, BlockIndex, Entropy, Ino, Name, NameError, SeededEntropy, SegmentId, VolumeId,
};
use coffer::cache::BlockCache;
use coffer::crypto::{Epoch, KeyRing, ObjectKind, Vmk};
use coffer::data::segment::{Compression, SegmentBuilder, open_block};
use coffer::store::Bucket;
use coffer::vault::Vault;
use criterion::{BatchSize, Criterion, Throughput, criterion_group, criterion_main};

#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const SEED: u64 = 7;

fn ring() -> KeyRing {
    KeyRing::new(VolumeId([1; 16]), Epoch(1), &Vmk::from_bytes([2; 32]))
}

/// Half noise, half zeros: compresses about two to one.
fn block() -> Vec<u8> {
    let mut block = vec![0; BLOCK_BYTES];
    if let Some(half) = block.get_mut(..BLOCK_BYTES / 2) {
        SeededEntropy::new(SEED).fill(half);
    }
    block
}

fn pieces(c: &mut Criterion) {
    let (_, key) = ring().new_object(ObjectKind::Segment, b"d/00/bench", &SeededEntropy::new(SEED));
    let mut group = c.benchmark_group("block of 64 KiB");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    let mut plain = block();
    group.bench_function("seal in place", |b| b.iter(|| key.seal_slice(64, false, black_box(&mut plain))));
    let mut sealed = block();
    key.seal_piece(64, false, &mut sealed);
    group.bench_function("copy and open in place", |b| {
        b.iter_batched_ref(
            || sealed.clone(),
            |bytes| key.open_piece(64, false, black_box(bytes)).is_ok(),
            BatchSize::LargeInput,
        );
    });
    // The limit: the same library over the same bytes, without what Coffer adds.
    let Ok(raw) = UnboundKey::new(&AES_256_GCM, &[2; 32]).map(LessSafeKey::new) else { return };
    let nonce = || Nonce::assume_unique_for_key([0; 12]);
    group.bench_function("library alone: seal in place", |b| {
        b.iter(|| raw.seal_in_place_separate_tag(nonce(), Aad::empty(), black_box(&mut plain)).is_ok());
    });
    let mut sealed = block();
    if raw.seal_in_place_append_tag(nonce(), Aad::empty(), &mut sealed).is_err() {
        return;
    }
    group.bench_function("library alone: copy and open in place", |b| {
        b.iter_batched_ref(
            || sealed.clone(),
            |bytes| raw.open_in_place(nonce(), Aad::empty(), black_box(bytes)).is_ok(),
            BatchSize::LargeInput,
        );
    });
    group.finish();
}

fn segments(c: &mut Criterion) {
    let vault = Vault::new(Bucket::memory(), Arc::new(ring()), Arc::new(SeededEntropy::new(SEED)));
    let plain = block();
    let mut group = c.benchmark_group("segment");
    group.throughput(Throughput::Bytes(BLOCK_BYTES as u64));
    for compression in [Compression::None, Compression::Lz4, Compression::Zstd] {
        let mut builder = SegmentBuilder::new(&vault, compression);
        group.bench_function(format!("push a block, {compression:?}"), |b| {
            b.iter(|| {
                if builder.is_full() {
                    let full = std::mem::replace(&mut builder, SegmentBuilder::new(&vault, compression));
                    black_box(full.finish());
                }
                builder.push(Ino(2), BlockIndex(0), black_box(&plain)).is_ok()
            });
        });
        let mut builder = SegmentBuilder::new(&vault, compression);
        let Ok(place) = builder.push(Ino(2), BlockIndex(0), &plain) else { return };
        let segment = builder.finish();
        let Ok(key) = vault.segment_key(segment.id, &segment.seal) else { return };
        let range = place.sealed_range();
        let sealed = segment.bytes.slice(range.start as usize..range.end as usize);
        group.bench_function(format!("open a block, {compression:?}"), |b| {
            b.iter(|| open_block(&key, &place, black_box(&sealed)).is_ok());
        });
    }
    group.finish();
}

fn names(c: &mut Criterion) {
    let ring = ring();
    let name: Result<Name, NameError> = Name::new(b"holiday-pictures-2024.tar.zst");
    let Ok(name) = name else { return };
    c.bench_function("seal a name", |b| b.iter(|| ring.seal_name(Ino(2), black_box(&name))));
}

fn cache(c: &mut Criterion) {
    let cache = BlockCache::new(64 << 20);
    let segment = SegmentId([5; 16]);
    let blocks = 200u32;
    for n in 0..blocks {
        cache.insert(segment, n, Bytes::from(block()));
    }
    let mut n = 0;
    c.bench_function("block cache hit", |b| {
        b.iter(|| {
            n = (n + 37) % blocks;
            cache.get(segment, black_box(n)).is_some()
        });
    });
    let full = BlockCache::new(1 << 20);
    let bytes = Bytes::from(block());
    let mut pos = 0u32;
    c.bench_function("block cache insert that evicts", |b| {
        b.iter(|| {
            pos = pos.wrapping_add(1);
            full.insert(segment, pos, bytes.clone());
        });
    });
}

criterion_group!(benches, pieces, segments, names, cache);
criterion_main!(benches);
