//! The secrets of a volume, derived from `docs/FORMAT.md`, and the search for them in the memory of a process.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;
use std::path::Path;

use aws_lc_rs::hkdf::{HKDF_SHA256, KeyType, Salt};
use coffer::crypto::{Epoch, FactorKind, Secret, SlotContext, slot_key};
use coffer::keys::{FactorName, Role, describe};

/// Something that must not be found, and what it is.
pub(crate) type Needle = (String, Vec<u8>);

/// Every label of a working key, and the bytes of the key.
const WORKING_KEYS: [(&str, usize); 11] = [
    ("content", 32),
    ("meta", 32),
    ("audit", 32),
    ("rescue", 32),
    ("name", 64),
    ("objname", 64),
    ("salt", 32),
    ("header-mac", 32),
    ("commit-mac", 32),
    ("pin", 32),
    ("cache", 32),
];

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

fn derive(ikm: &[u8], salt: &[u8], label: &str, context: &[u8], len: usize) -> Vec<u8> {
    let info = [b"coffer/1/", label.as_bytes(), context].concat();
    let mut out = vec![0; len];
    Salt::new(HKDF_SHA256, salt).extract(ikm).expand(&[&info], Length(len)).unwrap().fill(&mut out).unwrap();
    out
}

fn lp(parts: &[&[u8]]) -> Vec<u8> {
    parts.iter().flat_map(|part| [&(part.len() as u32).to_be_bytes()[..], part].concat()).collect()
}

/// What unlocks a volume by its slot 0.
pub(crate) enum Opener<'a> {
    /// Its bytes.
    Passphrase(&'a [u8]),
    /// Its contents.
    KeyFile(&'a [u8]),
}

/// The secrets behind slot 0 of `header`: those on the way to the volume key, the volume key and the admin key; and
/// apart from them the working keys, which an open volume needs.
pub(crate) fn of_volume(header: &[u8], opener: &Opener<'_>) -> (Vec<Needle>, Vec<Needle>) {
    let header = describe(header).unwrap();
    let slot = &header.slots[0];
    let kdf = slot.kdf.as_ref().map(|kdf| coffer::crypto::ScryptParams::new(kdf.n, kdf.r, kdf.p).unwrap());
    let (kind, secret, digest) = match opener {
        Opener::Passphrase(secret) => {
            assert_eq!(slot.factors, [FactorName::Passphrase]);
            let params = scrypt::Params::new(kdf.unwrap().n().ilog2() as u8, 8, kdf.unwrap().p()).unwrap();
            let mut digest = vec![0; 32];
            scrypt::scrypt(secret, &[&slot.salt.0[..], &[0]].concat(), &params, &mut digest).unwrap();
            (FactorKind::Passphrase, *secret, digest)
        }
        Opener::KeyFile(secret) => {
            let key = aws_lc_rs::hmac::Key::new(aws_lc_rs::hmac::HMAC_SHA256, b"coffer/1/key-file");
            (FactorKind::KeyFile, *secret, aws_lc_rs::hmac::sign(&key, secret).as_ref().to_vec())
        }
    };
    let role = if slot.role == Role::Admin { 2 } else { 1 };
    let context = SlotContext {
        volume: header.volume,
        epoch: Epoch(header.epoch),
        slot: slot.id,
        role,
        salt: &slot.salt.0,
        kdf,
        admin_public_key: &header.admin_public_key.0,
    };
    let key = slot_key(&[(kind, &Secret::copy_of(secret))], &context).unwrap();
    let vmk = key.unwrap("vmk", &slot.wrapped_vmk.0).unwrap();
    let seed = key.unwrap("admin-key", &slot.wrapped_admin_key.unwrap().0).unwrap();
    let (n, r, p) = kdf.map_or((0, 0, 0), |kdf| (kdf.n(), kdf.r(), kdf.p()));
    let context = lp(&[
        &header.volume.0,
        &header.epoch.to_be_bytes(),
        &slot.id.to_be_bytes(),
        &[role],
        &slot.salt.0,
        &n.to_be_bytes(),
        &r.to_be_bytes(),
        &p.to_be_bytes(),
        &header.admin_public_key.0,
    ]);
    let derived = derive(&[&[kind as u8][..], &digest].concat(), &slot.salt.0, "slot", &lp(&[&context]), 32);
    let wrap = derive(&derived, &slot.salt.0, "slot-wrap", &[], 64);
    assert_eq!(
        derive(&derived, &slot.salt.0, "slot-commit", &[], 32),
        slot.commitment.0,
        "derived as it is not"
    );
    let mut behind = vec![
        ("the passphrase or key file".to_owned(), secret.to_vec()),
        ("its digest".to_owned(), digest),
        ("the key of the slot".to_owned(), derived),
        ("the volume key".to_owned(), vmk.expose().to_vec()),
        ("the admin key".to_owned(), seed.expose().to_vec()),
    ];
    behind.extend(halves("the key that wraps", &wrap));
    let working = WORKING_KEYS.iter().flat_map(|(label, len)| {
        halves(&format!("the key `{label}`"), &derive(vmk.expose(), &header.volume.0, label, &[], *len))
    });
    (behind, working.collect())
}

/// A key of 64 bytes is two keys for what uses it.
fn halves(what: &str, key: &[u8]) -> Vec<Needle> {
    key.chunks(32).enumerate().map(|(half, bytes)| (format!("{what}, half {half}"), bytes.to_vec())).collect()
}

/// A run of pages of a process.
#[derive(Clone)]
pub(crate) struct Region {
    start: u64,
    end: u64,
    name: String,
    flags: String,
}

impl Region {
    fn has(&self, flag: &str) -> bool {
        self.flags.split(' ').any(|word| word == flag)
    }

    /// Whether it is never swapped out.
    pub(crate) fn is_locked(&self) -> bool {
        self.has("lo")
    }

    /// Whether it is left out of core dumps.
    pub(crate) fn is_not_dumped(&self) -> bool {
        self.has("dd")
    }
}

/// Where something was found.
pub(crate) struct Found {
    pub(crate) what: String,
    at: u64,
    pub(crate) region: Region,
}

impl std::fmt::Debug for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} at {:x} in {:?}, {}", self.what, self.at, self.region.name, self.region.flags)
    }
}

fn regions(pid: u32) -> Vec<Region> {
    let smaps = fs::read_to_string(format!("/proc/{pid}/smaps")).unwrap();
    let mut regions: Vec<Region> = Vec::new();
    for line in smaps.lines() {
        if let Some(flags) = line.strip_prefix("VmFlags: ") {
            regions.last_mut().unwrap().flags = flags.trim().to_owned();
        } else if !line.split(' ').next().unwrap().ends_with(':') {
            let mut words = line.split_whitespace();
            let (start, end) = words.next().unwrap().split_once('-').unwrap();
            let number = |text| u64::from_str_radix(text, 16).unwrap();
            let name = words.nth(4).unwrap_or_default().to_owned();
            regions.push(Region { start: number(start), end: number(end), name, flags: String::new() });
        }
    }
    regions
}

const PAGE_BYTES: u64 = 4096;

/// The pages of a region that are in memory, as runs of addresses.
fn present(pagemap: &File, region: &Region) -> Vec<(u64, u64)> {
    let mut entries = vec![0; ((region.end - region.start) / PAGE_BYTES * 8) as usize];
    if pagemap.read_exact_at(&mut entries, region.start / PAGE_BYTES * 8).is_err() {
        return Vec::new();
    }
    let mut runs: Vec<(u64, u64)> = Vec::new();
    for (page, entry) in entries.chunks_exact(8).enumerate() {
        let start = region.start + page as u64 * PAGE_BYTES;
        // Bit 63: the page is in memory.
        match runs.last_mut() {
            _ if entry[7] >> 7 == 0 => {}
            Some((_, end)) if *end == start => *end += PAGE_BYTES,
            _ => runs.push((start, start + PAGE_BYTES)),
        }
    }
    runs
}

/// Looks for all of `needles` in all memory of the process, which should do nothing meanwhile.
pub(crate) fn search(pid: u32, needles: &[Needle]) -> Vec<Found> {
    let memory = File::open(format!("/proc/{pid}/mem")).unwrap();
    let pagemap = File::open(format!("/proc/{pid}/pagemap")).unwrap();
    let mut starts = vec![false; 1 << 16];
    let start = |bytes: &[u8]| usize::from(bytes[0]) << 8 | usize::from(bytes[1]);
    needles.iter().for_each(|(_, needle)| starts[start(needle)] = true);
    let (mut found, mut searched) = (Vec::new(), 0);
    for region in regions(pid) {
        for (from, to) in present(&pagemap, &region) {
            let mut bytes = vec![0; (to - from) as usize];
            // Those of the kernel cannot be read.
            if memory.read_exact_at(&mut bytes, from).is_err() {
                continue;
            }
            searched += bytes.len();
            for (at, pair) in bytes.windows(2).enumerate().filter(|(_, pair)| starts[start(pair)]) {
                debug_assert_eq!(pair, &bytes[at..at + 2]);
                for (what, _) in needles.iter().filter(|(_, needle)| bytes[at..].starts_with(needle)) {
                    found.push(Found { what: what.clone(), at: from + at as u64, region: region.clone() });
                }
            }
        }
    }
    println!("searched {searched} bytes of process {pid} for {} secrets", needles.len());
    assert!(searched > 1 << 20, "the memory of process {pid} could not be read");
    found
}

/// Bytes of an image that are looked at together.
const PART_BYTES: usize = 1 << 20;

/// Which of `needles` are in an image of a process.
pub(crate) fn search_image(image: &Path, needles: &[Needle]) -> BTreeSet<String> {
    let image = File::open(image).unwrap();
    let longest = needles.iter().map(|(_, needle)| needle.len()).max().unwrap();
    let mut starts = [false; 256];
    needles.iter().for_each(|(_, needle)| starts[usize::from(needle[0])] = true);
    let (mut found, mut part, mut from) = (BTreeSet::new(), vec![0; PART_BYTES + longest], 0);
    loop {
        let len = image.read_at(&mut part, from).unwrap();
        let here = &part[..len];
        // Most of an image is memory that was never used.
        if !here.iter().all(|byte| *byte == 0) {
            for at in (0..len.min(PART_BYTES)).filter(|at| starts[usize::from(here[*at])]) {
                let here = needles.iter().filter(|(_, needle)| here[at..].starts_with(needle));
                found.extend(here.map(|(what, _)| what.clone()));
            }
        }
        if len <= PART_BYTES {
            return found;
        }
        from += PART_BYTES as u64;
    }
}
