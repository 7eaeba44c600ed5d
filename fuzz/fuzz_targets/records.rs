//! Records of every kind: what decodes is encoded to something that decodes to the same.
#![no_main]

use bytes::Bytes;
use coffer::meta::{Key, decode, encode};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let Some((len, rest)) = data.split_first() else { return };
    let (key, value) = rest.split_at(rest.len().min(usize::from(*len % 40)));
    let Some(key) = Key::decode(key) else { return };
    assert_eq!(Key::decode(&key.encode()), Some(key));
    let Ok(record) = decode(&key, &Bytes::copy_from_slice(value)) else { return };
    let _ = record.heap_bytes();
    let bytes = encode(&record).expect("what was decoded can be encoded");
    assert_eq!(decode(&key, &Bytes::from(bytes)).expect("what was encoded can be decoded"), record);
});
