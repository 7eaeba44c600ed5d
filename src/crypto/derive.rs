//! Every derivation of the format, on one screen (`docs/FORMAT.md`, "Derivations").
//!
//! HKDF is HKDF-SHA-256 of RFC 5869. Its `info` is a label, then each part of the context behind its
//! length. Lengths stay below 2^24, so the label ends at the first zero byte and no two contexts collide.

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use aws_lc_rs::hmac::{self, HMAC_SHA256};

use super::label::Label;
use super::ring::{Epoch, Vmk};
use super::{AdminPublicKey, Key, SlotContext, cannot_fail};
use crate::base::VolumeId;

/// One working key of a volume.
pub(super) fn working_key<const N: usize>(vmk: &Vmk, volume: VolumeId, label: Label) -> Key<N> {
    hkdf(vmk.expose(), &volume.0, label, &[])
}

/// What the header states so that a foreign volume key is refused before it is used.
#[must_use]
pub fn vmk_commitment(vmk: &Vmk, volume: VolumeId, epoch: Epoch) -> [u8; 32] {
    *hkdf(vmk.expose(), &volume.0, Label::VmkCommit, &[&epoch.0.to_be_bytes()]).expose()
}

/// Key (first half) and commitment (second half) of one sealed object.
pub(super) fn object_key(
    kind_key: &Key<32>,
    salt: &[u8; 24],
    (suite, epoch, kind): (u8, u16, u8),
    volume: VolumeId,
    name: &[u8],
) -> Key<64> {
    let context: &[&[u8]] = &[&[suite], &epoch.to_be_bytes(), &[kind], &volume.0, name];
    hkdf(kind_key.expose(), salt, Label::Object, context)
}

/// Key of one slot from the list of its factors' digests.
pub(super) fn slot_key(factors: &[u8], slot: &SlotContext<'_>) -> Key<32> {
    hkdf(factors, slot.salt, Label::Slot, &[&slot.bytes()])
}

/// Key that wraps what a slot holds.
pub(super) fn slot_wrap_key(slot_key: &Key<32>, salt: &[u8; 32]) -> Key<64> {
    hkdf(slot_key.expose(), salt, Label::SlotWrap, &[])
}

/// What a slot states so that a wrong factor is refused before anything is opened.
pub(super) fn slot_commitment(slot_key: &Key<32>, salt: &[u8; 32]) -> [u8; 32] {
    *hkdf(slot_key.expose(), salt, Label::SlotCommit, &[]).expose()
}

/// Key by which the newest volume key keeps those of earlier epochs.
pub(super) fn earlier_wrap_key(vmk: &Vmk, volume: VolumeId) -> Key<64> {
    hkdf(vmk.expose(), &volume.0, Label::EarlierVmk, &[])
}

/// Digest of a factor that needs no stretching.
pub(super) fn factor_digest(label: Label, secret: &[u8]) -> Key<32> {
    Key::filled(|out| out.copy_from_slice(hmac(label.bytes(), &[secret]).as_ref()))
}

/// The 20 bits that tell a mistyped recovery code from a wrong one.
#[must_use]
pub fn recovery_checksum(code: &[u8; 20]) -> u32 {
    let mac = hmac(Label::RecoveryChecksum.bytes(), &[code]);
    mac.as_ref().iter().take(3).fold(0, |sum, &byte| sum << 8 | u32::from(byte)) >> 4
}

/// The 128 bits that stand for a volume and its keys where people compare them.
#[must_use]
pub fn fingerprint(volume: VolumeId, admin: &AdminPublicKey, vmk_commitment: &[u8; 32]) -> [u8; 16] {
    let digest = hmac(Label::Fingerprint.bytes(), &[&length_prefixed(&[&volume.0, admin, vmk_commitment])]);
    let mut short = [0; 16];
    short.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
    short
}

fn hkdf<const N: usize>(ikm: &[u8], salt: &[u8], label: Label, context: &[&[u8]]) -> Key<N> {
    let info = [label.bytes(), &length_prefixed(context)].concat();
    let prk = Salt::new(HKDF_SHA256, salt).extract(ikm);
    Key::filled(|out| {
        let done = prk.expand(&[&info], OutputBytes(N)).and_then(|okm| okm.fill(out));
        cannot_fail(done, "HKDF gives up to 8160 bytes and refused fewer");
    })
}

fn hmac(key: &[u8], parts: &[&[u8]]) -> hmac::Tag {
    mac(key, parts.iter().copied())
}

/// HMAC-SHA-256 of `parts` back to back. The key is made ready each time: what the library makes of it is in memory
/// that is not ours, and lives no longer than the call.
pub(super) fn mac<'a>(key: &[u8], parts: impl Iterator<Item = &'a [u8]>) -> hmac::Tag {
    let mut context = hmac::Context::with_key(&hmac::Key::new(HMAC_SHA256, key));
    parts.for_each(|part| context.update(part));
    context.sign()
}

/// `parts`, each behind its length as u32 big-endian.
pub(super) fn length_prefixed(parts: &[&[u8]]) -> Vec<u8> {
    let mut out = Vec::with_capacity(parts.iter().map(|part| part.len() + 4).sum());
    for part in parts {
        out.extend_from_slice(&length(part));
        out.extend_from_slice(part);
    }
    out
}

/// The length of `part` as it stands before it in every list of parts.
pub(super) fn length(part: &[u8]) -> [u8; 4] {
    cannot_fail(u32::try_from(part.len()), "a part of a context is below 4 GiB").to_be_bytes()
}

struct OutputBytes(usize);

impl KeyType for OutputBytes {
    fn len(&self) -> usize {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use data_encoding::HEXLOWER;

    use super::*;

    const VOLUME: VolumeId = VolumeId([0xA0; 16]);

    #[test]
    fn hkdf_gives_what_rfc_5869_says() {
        // Appendix A.1 and A.3, through the same library calls as every derivation.
        for (ikm, salt, info, okm) in [
            (
                vec![0x0B; 22],
                (0..13).collect::<Vec<u8>>(),
                (0xF0..0xFA).collect::<Vec<u8>>(),
                "3cb25f25faacd57a90434f64d0362f2a2d2d0a90cf1a5a4c5db02d56ecc4c5bf34007208d5b887185865",
            ),
            (
                vec![0x0B; 22],
                vec![],
                vec![],
                "8da4e775a563c18f715f802a063c5a31b8a11f5c5ee1879ec3454e5f3c738d2d9d201395faa4b61a96c8",
            ),
        ] {
            let mut out = [0; 42];
            let prk = Salt::new(HKDF_SHA256, &salt).extract(&ikm);
            prk.expand(&[&info], OutputBytes(42)).unwrap().fill(&mut out).unwrap();
            assert_eq!(HEXLOWER.encode(&out), okm);
        }
    }

    #[test]
    fn a8_keys_for_different_purposes_differ() {
        let vmk = Key::from_bytes([1; 32]);
        let mut seen = HashSet::new();
        for label in Label::ALL {
            assert!(seen.insert(working_key::<32>(&vmk, VOLUME, label).expose().to_vec()), "{label:?}");
        }
        for (vmk, volume) in [(&Key::from_bytes([2; 32]), VOLUME), (&vmk, VolumeId([0xA1; 16]))] {
            for label in Label::ALL {
                assert!(seen.insert(working_key::<32>(vmk, volume, label).expose().to_vec()), "{label:?}");
            }
        }
    }

    #[test]
    fn b8_d5_an_object_key_binds_salt_suite_epoch_kind_volume_and_name() {
        let kind_key = Key::from_bytes([1; 32]);
        let okm = |salt: u8, binding, volume: u8, name: &[u8]| {
            object_key(&kind_key, &[salt; 24], binding, VolumeId([volume; 16]), name).expose().to_vec()
        };
        let all = [
            okm(0, (1, 1, 1), 0, b"d/00/x"),
            okm(1, (1, 1, 1), 0, b"d/00/x"),
            okm(0, (2, 1, 1), 0, b"d/00/x"),
            okm(0, (1, 2, 1), 0, b"d/00/x"),
            okm(0, (1, 1, 2), 0, b"d/00/x"),
            okm(0, (1, 1, 1), 1, b"d/00/x"),
            okm(0, (1, 1, 1), 0, b"d/00/y"),
            okm(0, (1, 1, 1), 0, b"d/00/"),
        ];
        let halves: HashSet<_> = all.iter().flat_map(|okm| okm.chunks(32)).collect();
        assert_eq!(halves.len(), 2 * all.len());
    }

    #[test]
    fn context_parts_do_not_run_into_each_other() {
        assert_ne!(length_prefixed(&[b"ab", b"c"]), length_prefixed(&[b"a", b"bc"]));
        assert_ne!(length_prefixed(&[b"a", b""]), length_prefixed(&[b"a"]));
    }

    #[test]
    fn working_keys_are_those_of_the_frozen_vectors() {
        let vectors: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/vectors/v1.json")).unwrap();
        let hex = |value: &serde_json::Value| HEXLOWER.decode(value.as_str().unwrap().as_bytes()).unwrap();
        let vmk = Key::from_bytes(hex(&vectors["vmk"]).try_into().unwrap());
        let volume = VolumeId(hex(&vectors["volume"]).try_into().unwrap());
        let working = vectors["working_keys"].as_object().unwrap();
        assert_eq!(working.len(), 11);
        for (name, want) in working {
            let label =
                *Label::ALL.iter().find(|label| label.text() == format!("coffer/1/{name}")).expect(name);
            let got = match label {
                Label::Name | Label::ObjectName => working_key::<64>(&vmk, volume, label).expose().to_vec(),
                _ => working_key::<32>(&vmk, volume, label).expose().to_vec(),
            };
            assert_eq!(got, hex(want), "{name}");
        }
    }
}
