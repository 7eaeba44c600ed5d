//! The files of the state folder: pins, known volumes, unsent changes; sealed rightly and not at all.
#![no_main]

use std::collections::BTreeMap;
use std::sync::LazyLock;

use coffer::base::{SeededEntropy, VolumeId};
use coffer::crypto::{Epoch, Key, KeyRing, MacLabel};
use coffer::fuzzing;
use coffer::keys::Identity;
use coffer::vault::stream::{OpeningReader, SealingWriter};
use libfuzzer_sys::fuzz_target;

static RING: LazyLock<KeyRing> =
    LazyLock::new(|| KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::from_bytes([2; 32])));

fuzz_target!(|data: &[u8]| {
    assert!(!fuzzing::volume::is_pin(data, &RING), "nobody has made this pin");
    // What only a key's holder could write.
    let mut pin = [b"COFFERP1".as_slice(), &[1; 16], data].concat();
    pin.resize(176, 0);
    let mac = RING.mac(MacLabel::Pin, &[&pin]);
    pin.extend_from_slice(&mac);
    assert!(fuzzing::volume::is_pin(&pin, &RING));

    if let Ok(known) = serde_json::from_slice::<BTreeMap<String, Identity>>(data) {
        let again = serde_json::to_vec_pretty(&known).unwrap();
        assert!(serde_json::from_slice::<BTreeMap<String, Identity>>(&again).unwrap() == known);
    }

    fuzzing::volume::unsent_items(data);
    let mut writer = SealingWriter::begin(&RING, &SeededEntropy::new(1), "unsent/x", Vec::new()).unwrap();
    writer.push(data).unwrap();
    let sealed = writer.finish().unwrap();
    fuzzing::volume::unsent_items(OpeningReader::begin(&RING, "unsent/x", &sealed[..]).unwrap());
});
