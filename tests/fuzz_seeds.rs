//! What the targets in `fuzz/` begin with, taken from real volumes. `COFFER_WRITE_SEEDS=fuzz/seeds cargo test --test
//! fuzz_seeds` writes it; `scripts/fuzz` goes on from there. In a build for development each target is built too, and run
//! over it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
// The targets are crates of their own elsewhere.
#![allow(unused_attributes, unreachable_pub, clippy::duplicate_mod)]

mod damaged;

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use coffer::base::{OsEntropy, SeededEntropy};
use coffer::crypto::ObjectHead;
use coffer::fuzzing;
use coffer::keys::{self, RecoveryCode};
use coffer::meta::{Key, Record, decode, encode};
use coffer::vault::Vault;
use coffer::volume::{self, OpenOptions};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};

use damaged::{World, factors};

/// Inputs by target.
type Seeds = BTreeMap<&'static str, Vec<Vec<u8>>>;

/// What people type, an input for each.
const ARGUMENTS: [&str; 14] = [
    "mount\n-o\nro,allow_other,cache-size=64M,expect-commit=7:00112233445566778899aabbccddeeff\ns3://b/p\n/mnt",
    "mount\n--memory\n1GiB\n--commit-age\n5s\n-f\n-vv\n/srv/volume\n/mnt",
    "init\n--compression\nzstd\n--quota\n10GB\n--kdf-log-n\n17\nfile:///srv/v",
    "key\nadd\n--label\nother\n--role\ndata\n--new-key-file\nk\nvol",
    "cp\n-r\nvol\na\nb",
    "check\n--read-data\naz://c/p",
    "ro,nosuid,noexec,x-systemd.automount,passphrase-file=/etc/p,require-locked-keys",
    "gs://bucket/pre/fix",
    "https://user:pass@host/path?sig=secret#x",
    "1.5GiB",
    "1h30m",
    "shoot order arrow mad rhythm lyrics catalog drift lion woman panic bargain",
    "42:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
    "get:slow=5s,put:fail=0.1;list:outage=10s..20s",
];

const CONTROL: [&str; 6] = [
    r#"{"op":"status"}"#,
    r#"{"op":"unmount","detach":true}"#,
    r#"{"op":"clean","dry_run":true}"#,
    r#"{"progress":{"step":"syncing","dirty_bytes":5}}"#,
    r#"{"failed":{"kind":"busy","message":"files are open"}}"#,
    r#"{"mount":{"mountpoint":"/m","url":"s3://b/p","pid":7,"uptime":12.5},"volume":{"is_safe":false,"state":"writable","dirty_bytes":9,"dirty_age":1.5,"committed_at":1.7e9,"cleaned":{"damaged":["x"]},"rescue":{"files":1,"paths":["a"]}},"store":{"outage":"denied","outage_age":3.0},"to_recover":2}"#,
];

async fn of_volume(seeds: &mut Seeds) {
    let world = World::with_everything().await;
    seeds.entry("header").or_default().push(world.get("header/1").await.to_vec());
    let unlocked = volume::unlock(&world.bucket(), &factors()).await.unwrap();
    let vault = Vault::new(world.bucket(), Arc::new(unlocked.ring), Arc::new(OsEntropy));
    let mut letters = BTreeSet::new();
    let mut writes = Vec::new();
    for (key, record) in world.records().await {
        let (name, value) = (key.encode(), encode(&record).unwrap());
        letters.insert(char::from(name[0]));
        if name.len() < 256 && value.len() < 256 {
            // As the target takes its input apart: any row, way 5, then key and value behind their lengths.
            writes.push([&[0, 0, 5, name.len() as u8][..], &name, &[value.len() as u8], &value].concat());
        }
        let records = seeds.entry("records").or_default();
        if value.len() < 2000 && records.len() < 60 {
            records.push([&[name.len() as u8][..], &name, &value].concat());
        }
        let (Key::Segment(id), Record::Segment(segment)) = (key, record) else { continue };
        // The sealed footer lies before the last four bytes, which are its length.
        let objects = world.objects().await;
        let (name, _) = objects.iter().find(|(name, _)| name.ends_with(&id.to_string())).unwrap();
        let bytes = world.get(name).await;
        let end = bytes.len() - 4;
        let at = end - u32::from_be_bytes(bytes[end..].try_into().unwrap()) as usize;
        let mut sealed = bytes[at..end].to_vec();
        let key = vault.segment_key(id, &segment.seal).unwrap();
        let plain = key.open_piece(at as u64, true, &mut sealed).unwrap().to_vec();
        let footers = seeds.entry("footer").or_default();
        if footers.len() < 8 {
            footers.push([&(at as u32).to_be_bytes()[..], &plain].concat());
        }
    }
    // Way 4 with nothing altered: the target's volume stays whole, and is read, checked, repaired and written to.
    let whole = (0..4).map(|n| {
        let rows: [_; 6] = std::array::from_fn(|row| [0, (6 * n + row) as u8, 4, 0, 0]);
        [&[0, 5][..], &rows.concat()].concat()
    });
    // Records as they are, of another volume with the same tree: what decodes and does not fit.
    let foreign = writes.chunks(6).map(|rows| [&[0, rows.len() as u8 - 1][..], &rows.concat()].concat());
    seeds.entry("volume").or_default().extend(whole.chain(foreign.take(12)));
    for (name, _) in world.objects().await.iter().filter(|(name, _)| name.starts_with(['d', 'm'])).take(6) {
        let bytes = world.get(name).await;
        seeds.entry("sealed_object").or_default().push(bytes[..bytes.len().min(400)].to_vec());
    }
    // Those that this volume does not have begin with what only their version tells.
    assert!(letters.is_superset(&"BCDEIRSVX".chars().collect()), "{letters:?}");
    for (letter, len) in [(b'A', 1), (b'H', 9), (b'L', 17), (b'G', 17), (b'M', 17), (b'O', 9)] {
        let mut seed = vec![len, letter];
        seed.resize(1 + usize::from(len), 0);
        seed.extend([1; 80]);
        seeds.entry("records").or_default().push(seed);
    }
}

async fn of_state_folder(seeds: &mut Seeds) {
    let world = World::new().await;
    let dir = tempfile::tempdir().unwrap();
    let state_dir = Some(dir.path().to_owned());
    let (factors, options) = (factors(), OpenOptions { state_dir, ..OpenOptions::default() });
    let opened = Box::pin(volume::open(world.bucket(), &factors, options)).await.unwrap();
    let folder = dir.path().join(opened.volume.to_string());
    opened.close().await.unwrap();
    let state = seeds.entry("state_folder").or_default();
    let pin = fs::read(folder.join("pin")).unwrap();
    state.push(pin[24..176].to_vec());
    state.push(br#"{"s3://b/p":{"volume":"040g2081040g2081040g208104","admin_public_key":"0202","vmk_commitment":"03"}}"#.to_vec());
    // An `A` item, and the last: docs/FORMAT.md, "Unsent files".
    let about = [&[1, 0, 0, 0, 2][..], b"me", &[0; 8], &[0; 4], &7_u64.to_be_bytes()].concat();
    let item = |letter: u8, body: &[u8]| [&[letter][..], &(body.len() as u32).to_be_bytes(), body].concat();
    let data = [&0_u64.to_be_bytes()[..], b"contents"].concat();
    state.push([item(b'A', &about), item(b'D', &data), item(b'E', &[])].concat());
}

async fn seeds() -> Seeds {
    let mut seeds = Seeds::new();
    Box::pin(of_volume(&mut seeds)).await;
    Box::pin(of_state_folder(&mut seeds)).await;
    let texts = |texts: &[&str]| texts.iter().map(|text| text.as_bytes().to_vec()).collect::<Vec<_>>();
    seeds.insert("arguments", texts(&ARGUMENTS));
    let code = RecoveryCode::random(&SeededEntropy::new(1));
    seeds.get_mut("arguments").unwrap().push(code.reveal().as_bytes().to_vec());
    seeds.insert("control", texts(&CONTROL));
    seeds.insert(
        "names",
        texts(&["name", "a.b", "..", "x/y", "wal", "\u{e4}\u{f6}", "00000000000000000001.sst"]),
    );
    let mut dice = SmallRng::seed_from_u64(1);
    let mut noise = |len: usize| {
        let mut bytes = vec![0; len];
        dice.fill_bytes(&mut bytes);
        bytes
    };
    let ways = (0..12_u8).map(|n| [&[(n << 4) | (n % 8)][..], &noise(60)].concat());
    seeds.entry("sealed_object").or_default().extend(ways);
    seeds.entry("volume").or_default().extend((0..12).map(|n| noise(16 + 16 * n)));
    seeds
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn there_are_seeds_for_every_target_and_they_are_small() {
    let seeds = Box::pin(seeds()).await;
    let targets = fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/fuzz_targets")).unwrap();
    let targets: BTreeSet<String> = targets
        .map(|entry| entry.unwrap().path().file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    assert_eq!(seeds.keys().map(|target| (*target).to_owned()).collect::<BTreeSet<_>>(), targets);
    let bytes: usize = seeds.values().flatten().map(Vec::len).sum();
    assert!(bytes < 100_000, "{bytes} bytes");
    let Ok(to) = std::env::var("COFFER_WRITE_SEEDS") else { return };
    for (target, inputs) in seeds {
        let folder = Path::new(&to).join(target);
        fs::create_dir_all(&folder).unwrap();
        for (number, input) in inputs.iter().enumerate() {
            fs::write(folder.join(format!("real-{number:02}")), input).unwrap();
        }
    }
}

/// Whether the code that the target is for takes it, past all that it checks.
fn is_taken(target: &str, input: &[u8]) -> bool {
    match target {
        "header" => keys::describe(input).is_ok(),
        "footer" => {
            let (at, plain) = input.split_first_chunk().unwrap();
            fuzzing::segment::footer(u32::from_be_bytes(*at).into(), plain).is_some()
        }
        "records" => {
            let (key, value) = input[1..].split_at(input[0].into());
            let key = Key::decode(key).unwrap();
            decode(&key, &Bytes::copy_from_slice(value)).is_ok()
        }
        "sealed_object" => ObjectHead::decode(input).is_ok(),
        other => panic!("{other} has no code that takes or refuses"),
    }
}

/// What is kept in `fuzz/seeds` is still of this format: noise is refused where it begins.
#[test]
fn the_seeds_that_are_kept_are_taken_by_the_code_that_they_are_for() {
    for (target, taken_min) in [("header", 1), ("footer", 3), ("records", 54), ("sealed_object", 6)] {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds").join(target);
        let inputs = fs::read_dir(folder).unwrap().map(|entry| fs::read(entry.unwrap().path()).unwrap());
        let taken = inputs.filter(|input| is_taken(target, input)).count();
        assert!(taken >= taken_min, "{target}: {taken} are taken");
    }
}

#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/arguments.rs"]
mod on_arguments;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/control.rs"]
mod on_control;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/footer.rs"]
mod on_footer;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/header.rs"]
mod on_header;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/names.rs"]
mod on_names;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/records.rs"]
mod on_records;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/sealed_object.rs"]
mod on_sealed_object;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/state_folder.rs"]
mod on_state_folder;
#[cfg(debug_assertions)]
#[path = "../fuzz/fuzz_targets/volume.rs"]
mod on_volume;

#[cfg(debug_assertions)]
#[test]
fn every_target_is_built_and_finds_nothing_in_what_it_begins_with() {
    let mut runs: BTreeMap<&str, fn(&[u8])> = BTreeMap::from([
        ("arguments", on_arguments::run as fn(&[u8])),
        ("control", on_control::run),
        ("footer", on_footer::run),
        ("header", on_header::run),
        ("names", on_names::run),
        ("records", on_records::run),
        ("sealed_object", on_sealed_object::run),
        ("state_folder", on_state_folder::run),
        ("volume", on_volume::run),
    ]);
    let seeds = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/seeds");
    for folder in fs::read_dir(seeds).unwrap() {
        let folder = folder.unwrap();
        let run = runs.remove(folder.file_name().to_str().unwrap()).expect("a target of that name");
        let mut inputs: Vec<_> =
            fs::read_dir(folder.path()).unwrap().map(|entry| entry.unwrap().path()).collect();
        inputs.sort();
        for input in inputs {
            println!("{}", input.display());
            run(&fs::read(input).unwrap());
        }
    }
    assert!(runs.is_empty(), "nothing to begin with for {:?}", runs.keys());
}

/// The targets' own library runs a target for ever; here each is a function.
#[cfg(debug_assertions)]
extern crate self as libfuzzer_sys;

#[cfg(debug_assertions)]
#[macro_export]
macro_rules! fuzz_target {
    (|$data:ident: &[u8]| $body:block) => {
        pub fn run($data: &[u8]) $body
    };
}
