//! Volumes for the tests of this room: opened by key files, which cost no stretching.

use super::{Compression, Factor, KdfCost, NewVolume, RecoveryCode, Secret, Unlocked, create};
use crate::base::{Entropy, SeededEntropy, Time};

pub(super) const FLOOR: KdfCost = KdfCost::Fixed { log_n: 15 };
pub(super) const NOW: Time = Time { secs: 1_767_225_600, nanos: 0 };
pub(super) const SPEC: NewVolume = NewVolume { compression: Compression::None, kdf_cost: FLOOR };

pub(super) fn key_file(text: &str) -> [Factor; 1] {
    [Factor::KeyFile(Secret::from(text))]
}

pub(super) fn passphrase(text: &str) -> [Factor; 1] {
    [Factor::Passphrase(Secret::from(text))]
}

/// A volume that `key_file("owner")` opens.
pub(super) fn volume(seed: u64) -> (Vec<u8>, RecoveryCode, Unlocked, impl Entropy) {
    println!("seed {seed}");
    let entropy = SeededEntropy::new(seed);
    let (bytes, code, unlocked) = create(&SPEC, &key_file("owner"), &entropy, NOW).unwrap();
    (bytes, code, unlocked, entropy)
}
