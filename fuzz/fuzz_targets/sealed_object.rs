//! Sealed objects: bytes that are cut, lengthened and altered below the seal's reader give the plaintext or an error.
#![no_main]

use std::io::Read;
use std::sync::{Arc, LazyLock};

use coffer::base::{OsEntropy, SeededEntropy, VolumeId};
use coffer::crypto::{Epoch, Key, KeyRing, ObjectHead, ObjectKind};
use coffer::store::Bucket;
use coffer::vault::Vault;
use coffer::vault::stream::{OpeningReader, SealingWriter};
use libfuzzer_sys::fuzz_target;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use tokio::runtime::Builder;

static RING: LazyLock<Arc<KeyRing>> =
    LazyLock::new(|| Arc::new(KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::from_bytes([2; 32]))));

/// What is done to the bytes of an object, told by six bytes of input.
fn spoil(object: &mut Vec<u8>, how: &[u8; 6]) {
    let [what, a, b, c, by, _] = *how;
    let at = usize::try_from(u32::from_be_bytes([0, a, b, c])).unwrap_or(0) % (object.len() + 1);
    match what % 4 {
        0 => object.truncate(at),
        1 => object.insert(at, by),
        2 => object.extend(std::iter::repeat_n(by, at.min(40_000))),
        _ => {
            if let Some(byte) = object.get_mut(at) {
                *byte ^= by;
            }
        }
    }
}

/// As a metadata object: read whole and by ranges through the store that the engine gets.
fn as_metadata(plain: &[u8], ways: &[[u8; 6]]) {
    let memory = Arc::new(InMemory::new());
    let bucket = Bucket::from_store(Arc::clone(&memory) as Arc<dyn ObjectStore>);
    let vault = Vault::new(bucket.clone(), Arc::clone(&RING), Arc::new(OsEntropy));
    let name = Path::from("db/wal/00000000000000000001.sst");
    let runtime = Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        vault.meta_store(1 << 20).put(&name, PutPayload::from(plain.to_vec())).await.unwrap();
        let sealed = coffer::vault::peek::list(&bucket, None);
        let (object, _) = futures::TryStreamExt::try_collect::<Vec<_>>(sealed).await.unwrap().remove(0);
        let object = Path::from(object);
        let mut bytes = memory.get(&object).await.unwrap().bytes().await.unwrap().to_vec();
        let before = bytes.clone();
        ways.iter().for_each(|how| spoil(&mut bytes, how));
        let is_altered = bytes != before;
        memory.put(&object, PutPayload::from(bytes)).await.unwrap();
        // A store that has nothing in its cache.
        let store = vault.meta_store(1 << 20);
        match async { store.get(&name).await?.bytes().await }.await {
            Ok(read) => assert!(read == plain && !is_altered, "an altered object was read"),
            Err(_) => assert!(is_altered, "an object that nobody has altered was not read"),
        }
        for range in [0..1, 0..16_384, 16_383..16_390, 40_000..50_000] {
            let read = vault.meta_store(1 << 20).get_range(&name, range.clone()).await;
            if let Ok(read) = read {
                let end = plain.len().min(range.end as usize);
                assert_eq!(Some(&read[..]), plain.get(range.start as usize..end));
            }
        }
    });
}

/// As a file of unsent changes, read front to back.
fn as_rescue(plain: &[u8], ways: &[[u8; 6]]) {
    let mut writer = SealingWriter::begin(&RING, &SeededEntropy::new(1), "unsent/x", Vec::new()).unwrap();
    writer.push(plain).unwrap();
    let mut bytes = writer.finish().unwrap();
    let before = bytes.clone();
    ways.iter().for_each(|how| spoil(&mut bytes, how));
    let mut read = Vec::new();
    let opened =
        OpeningReader::begin(&RING, "unsent/x", &bytes[..]).and_then(|mut r| r.read_to_end(&mut read));
    assert_eq!(opened.is_ok(), bytes == before);
    assert!(plain.starts_with(&read), "bytes were given that were never sealed");
}

fuzz_target!(|data: &[u8]| {
    let _ = ObjectHead::decode(data).map(|head| {
        for kind in [ObjectKind::Segment, ObjectKind::Meta, ObjectKind::Audit, ObjectKind::Rescue] {
            assert!(RING.open_object(kind, b"name", &head).is_err());
        }
    });
    let Some((control, rest)) = data.split_first() else { return };
    let (ways, seed) = rest.as_chunks::<6>();
    let (ways, fill) = ways.split_at(ways.len().min(usize::from(control & 7)));
    // The rest of the input, repeated up to a few pieces.
    let pattern = [fill.as_flattened(), seed].concat();
    let len = usize::from(control >> 3) * 2000;
    let plain: Vec<u8> = pattern.iter().copied().chain(std::iter::repeat(*control)).take(len).collect();
    as_metadata(&plain, ways);
    as_rescue(&plain, ways);
});
