//! Holds the format still: what `tests/vectors/reference.py` makes from `docs/FORMAT.md` and fixed inputs, Coffer makes and
//! opens too. A failure here is a change of the format.

#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // the helpers of these tests are not tests themselves

use coffer::base::{Ino, Name, SeededEntropy, Tag, Time, VolumeId};
use coffer::crypto::{self, Epoch, HEAD_BYTES, Key, KeyRing, MacLabel, ObjectHead, ObjectKind};
use coffer::keys::{self, Compression, Factor, KdfCost, NewSlot, NewVolume, RecoveryCode, Role, Secret};
use data_encoding::HEXLOWER;
use serde_json::Value;

fn vectors() -> Value {
    serde_json::from_str(include_str!("vectors/v1.json")).unwrap()
}

fn text(value: &Value) -> &str {
    value.as_str().unwrap()
}

fn hex(value: &Value) -> Vec<u8> {
    HEXLOWER.decode(text(value).as_bytes()).unwrap()
}

fn array<const N: usize>(value: &Value) -> [u8; N] {
    hex(value).try_into().unwrap()
}

fn list(value: &Value) -> &[Value] {
    value.as_array().unwrap()
}

fn ring(vectors: &Value) -> KeyRing {
    let vmk = Key::from_bytes(array(&vectors["vmk"]));
    KeyRing::new(VolumeId(array(&vectors["volume"])), Epoch(1), &vmk)
}

#[test]
fn names_are_those_of_the_format() {
    let vectors = vectors();
    let ring = ring(&vectors);
    for case in list(&vectors["names"]) {
        let (dir, name) = (Ino(case["dir"].as_u64().unwrap()), Name::new(&hex(&case["name"])).unwrap());
        let sealed = hex(&case["sealed"]);
        let (tag, bytes) = sealed.split_first_chunk::<16>().unwrap();
        let got = ring.seal_name(dir, &name);
        assert_eq!((got.tag, &got.bytes[..]), (Tag(*tag), bytes));
        assert_eq!(ring.open_name(dir, Tag(*tag), bytes), Ok(name));
    }
    for case in list(&vectors["xattrs"]) {
        let (ino, sealed) = (Ino(case["ino"].as_u64().unwrap()), hex(&case["sealed"]));
        let (tag, bytes) = sealed.split_first_chunk::<16>().unwrap();
        assert_eq!(ring.seal_xattr_name(ino, &hex(&case["name"])).tag, Tag(*tag));
        assert_eq!(ring.open_xattr_name(ino, Tag(*tag), bytes), Ok(hex(&case["name"])));
    }
    for case in list(&vectors["components"]) {
        let (parent, component, sealed) =
            (text(&case["parent"]), text(&case["component"]), text(&case["sealed"]));
        assert_eq!(ring.seal_component(parent, component), sealed);
        assert_eq!(ring.open_component(parent, sealed), Ok(component.to_owned()));
    }
}

#[test]
fn macs_and_commitments_are_those_of_the_format() {
    let vectors = vectors();
    let ring = ring(&vectors);
    for case in list(&vectors["macs"]) {
        let label = match text(&case["label"]) {
            "header-mac" => MacLabel::Header,
            "commit-mac" => MacLabel::Commit,
            "pin" => MacLabel::Pin,
            other => panic!("{other}"),
        };
        let parts: Vec<_> = list(&case["parts"]).iter().map(hex).collect();
        let parts: Vec<_> = parts.iter().map(Vec::as_slice).collect();
        assert_eq!(ring.mac(label, &parts), array(&case["mac"]));
    }
    assert_eq!(*ring.cache_key().expose(), array(&vectors["working_keys"]["cache"]));
    let vmk = Key::from_bytes(array(&vectors["vmk"]));
    let commitment = crypto::vmk_commitment(&vmk, ring.volume(), Epoch(1));
    assert_eq!(commitment, array(&vectors["vmk_commitment"]));
}

#[test]
fn sealed_objects_are_those_of_the_format() {
    let vectors = vectors();
    for case in list(&vectors["objects"]) {
        let kind = match case["kind"].as_u64() {
            Some(1) => ObjectKind::Segment,
            Some(2) => ObjectKind::Meta,
            Some(3) => ObjectKind::Audit,
            Some(4) => ObjectKind::Rescue,
            other => panic!("{other:?}"),
        };
        let name = text(&case["name"]).as_bytes();
        let entropy = SeededEntropy::new(case["entropy_seed"].as_u64().unwrap());
        let ring = ring(&vectors).with_repeating_salts(array(&case["process"]));
        let (made, sealing) = ring.new_object(kind, name, &entropy);
        let head = hex(&case["head"]);
        assert_eq!(head.len(), HEAD_BYTES);
        assert_eq!(made.encode(), head[..]);
        let opening = ring.open_object(kind, name, &ObjectHead::decode(&head).unwrap()).unwrap();
        for piece in list(&case["pieces"]) {
            let (number, last) = (piece["number"].as_u64().unwrap(), piece["last"].as_bool().unwrap());
            let (plain, mut sealed) = (hex(&piece["plain"]), hex(&piece["sealed"]));
            let mut got = plain.clone();
            sealing.seal_piece(number, last, &mut got);
            assert_eq!(got, sealed);
            assert_eq!(opening.open_piece(number, last, &mut sealed).unwrap(), plain);
        }
    }
}

#[test]
fn headers_are_those_of_the_format() {
    let vectors = vectors();
    let case = &vectors["unlocked"];
    let cost = KdfCost::Fixed { log_n: case["log_n"].as_u64().unwrap().try_into().unwrap() };
    let now = Time { secs: case["created_unix_secs"].as_i64().unwrap(), nanos: 5 };
    let entropy = SeededEntropy::new(case["seed"].as_u64().unwrap());
    let passphrase = || Factor::Passphrase(Secret::new(hex(&case["passphrase"])));
    let key_file = || Factor::KeyFile(Secret::new(hex(&case["key_file"])));

    let spec = NewVolume { compression: Compression::Zstd, kdf_cost: cost };
    let (first, code, made) = keys::create(&spec, &[passphrase()], &entropy, now).unwrap();
    assert_eq!(first, hex(&case["header_1"]));
    assert_eq!(*code.reveal(), text(&case["recovery_code"]));
    let both = [passphrase(), key_file()];
    let slot = NewSlot { label: "für zwei", role: Role::Data, factors: &both, kdf_cost: cost };
    let second = made.add_slot(&slot, &entropy, now).unwrap();
    assert_eq!(second, hex(&case["header_2"]));

    let mut made = made;
    made.adopt(&second).unwrap();
    let third = made.next_epoch(&[(0, &[passphrase()])], cost, &entropy, now).unwrap().bytes;
    assert_eq!(third, hex(&case["header_3"]));
    let rotated = keys::unlock(&third, &[passphrase()]).unwrap();
    assert_eq!(rotated.end_rotation().unwrap(), hex(&case["header_4"]));
    assert_eq!(rotated.ring.mac(MacLabel::Commit, &[b"x"]), made.ring.mac(MacLabel::Commit, &[b"x"]));

    let code = RecoveryCode::parse(text(&case["recovery_code"]).as_bytes()).unwrap();
    for (slot, role, factors) in [
        (0, Role::Admin, &[passphrase()][..]),
        (1, Role::Admin, &[code.factor()]),
        (2, Role::Data, &[passphrase(), key_file()]),
    ] {
        let unlocked = keys::unlock(&second, factors).unwrap();
        assert_eq!((unlocked.slot, unlocked.role), (slot, role));
        assert_eq!(unlocked.ring.mac(MacLabel::Header, &[b"same keys"]), array(&case["header_mac"]));
    }
}
