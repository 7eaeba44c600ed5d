//! Names: of files, of attributes, and components of object paths.
#![no_main]

use coffer::base::{Ino, Name, Tag, VolumeId};
use coffer::crypto::{Epoch, Key, KeyRing};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let ring = KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::from_bytes([2; 32]));
    match Name::new(data) {
        Ok(name) => {
            assert!(!data.is_empty() && data.len() <= 255 && !data.contains(&0) && !data.contains(&b'/'));
            let sealed = ring.seal_name(Ino(9), &name);
            assert_eq!(ring.open_name(Ino(9), sealed.tag, &sealed.bytes), Ok(name));
            assert!(ring.open_name(Ino(10), sealed.tag, &sealed.bytes).is_err());
            assert!(ring.open_xattr_name(Ino(9), sealed.tag, &sealed.bytes).is_err());
        }
        Err(_) => assert!(
            data.is_empty()
                || data.len() > 255
                || data.contains(&0)
                || data.contains(&b'/')
                || data == b"."
                || data == b".."
        ),
    }
    let sealed = ring.seal_xattr_name(Ino(9), data);
    assert_eq!(ring.open_xattr_name(Ino(9), sealed.tag, &sealed.bytes).as_deref(), Ok(data));
    if let Some((tag, bytes)) = data.split_first_chunk() {
        assert!(ring.open_name(Ino(9), Tag(*tag), bytes).is_err(), "nobody has sealed this");
    }
    if let Ok(text) = std::str::from_utf8(data) {
        assert!(ring.open_component("db", text).is_err(), "nobody has sealed this");
        let sealed = ring.seal_component("db", text);
        assert_eq!(ring.open_component("db", &sealed).as_deref(), Ok(text));
    }
});
