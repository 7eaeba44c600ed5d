//! Nothing of what users store can be found in the bucket, in the log or in the local state.

use std::collections::{HashMap, HashSet};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

use rand::distr::{Alphanumeric, SampleString};
use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::fs::XattrFlags;

use crate::support::seed;
use crate::support::volume::Volume;

/// A string that occurs nowhere by chance.
fn canary(dice: &mut SmallRng) -> String {
    Alphanumeric.sample_string(dice, 24)
}

/// The forms in which `secret` could leak: as it is, and in the encodings that programs like to use.
fn forms(secret: &[u8]) -> Vec<Vec<u8>> {
    use data_encoding::{BASE32, BASE32_NOPAD, BASE32HEX_NOPAD, BASE64, BASE64URL_NOPAD, HEXLOWER, HEXUPPER};
    let mut forms =
        vec![secret.to_vec(), secret.iter().rev().copied().collect(), secret.to_ascii_lowercase()];
    for encoding in [&HEXLOWER, &HEXUPPER] {
        forms.push(encoding.encode(secret).into_bytes());
    }
    // What stands at a multiple of 3 or 5 bytes in a longer text looks the same wherever the text begins and ends.
    for skip in 0..3 {
        let whole = &secret[skip..];
        for encoding in [&BASE64, &BASE64URL_NOPAD] {
            forms.push(encoding.encode(&whole[..whole.len() / 3 * 3]).into_bytes());
        }
    }
    for skip in 0..5 {
        let whole = &secret[skip..];
        for encoding in [&BASE32, &BASE32_NOPAD, &BASE32HEX_NOPAD] {
            let text = encoding.encode(&whole[..whole.len() / 5 * 5]);
            forms.push(text.to_ascii_lowercase().into_bytes());
            forms.push(text.into_bytes());
        }
    }
    forms
}

/// Finds any of many strings in a lot of bytes, by the first eight bytes of each.
pub(crate) struct Search {
    by_start: HashMap<[u8; 8], Vec<(Vec<u8>, String)>>,
}

impl Search {
    pub(crate) fn new(secrets: &[(String, Vec<u8>)]) -> Search {
        let mut by_start: HashMap<[u8; 8], Vec<(Vec<u8>, String)>> = HashMap::new();
        for (what, secret) in secrets {
            for form in forms(secret) {
                let start = form[..8].try_into().unwrap();
                by_start.entry(start).or_default().push((form, what.clone()));
            }
        }
        Search { by_start }
    }

    pub(crate) fn find(&self, bytes: &[u8]) -> Option<String> {
        (0..bytes.len().saturating_sub(7)).find_map(|at| {
            let start: [u8; 8] = bytes[at..at + 8].try_into().unwrap();
            let (form, what) =
                self.by_start.get(&start)?.iter().find(|(form, _)| bytes[at..].starts_with(form))?;
            Some(format!("{what}, as {}, at byte {at}", form.escape_ascii()))
        })
    }
}

/// All files below a directory.
fn files(root: &Path) -> Vec<PathBuf> {
    let mut pending = vec![root.to_owned()];
    let mut files = Vec::new();
    while let Some(dir) = pending.pop() {
        for entry in fs::read_dir(&dir).unwrap().map(|entry| entry.unwrap().path()) {
            if entry.is_dir() {
                pending.push(entry);
            } else {
                files.push(entry);
            }
        }
    }
    files
}

#[test]
fn no_canary_is_found_in_bucket_log_or_local_state() {
    let mut dice = SmallRng::seed_from_u64(seed("canaries"));
    let volume = Volume::local();
    let mut secrets = vec![("the passphrase".to_owned(), volume.passphrase.clone().into_bytes())];
    let mut new = |what: &str| {
        let canary = canary(&mut dice);
        secrets.push((what.to_owned(), canary.clone().into_bytes()));
        canary
    };
    let mount = volume.mount_spec().args(&["-vv"]).mount();
    let (mnt, state_dir, log) = (mount.dir.clone(), mount.state_dir.clone(), mount.log.clone());
    for round in 0..6 {
        let dir = mount.path(new("a directory's name"));
        fs::create_dir(&dir).unwrap();
        let file = dir.join(new("a file's name"));
        let body = new("a file's content");
        fs::write(&file, body.repeat(if round % 2 == 0 { 1 } else { 20_000 })).unwrap();
        let name = format!("user.{}", new("an xattr's name"));
        rustix::fs::lsetxattr(&file, name.as_str(), new("an xattr's value").as_bytes(), XattrFlags::empty())
            .unwrap();
        symlink(new("a link's target"), dir.join(new("a link's name"))).unwrap();
        mount.sync();
        fs::rename(&file, dir.join(new("a new name"))).unwrap();
        fs::remove_dir_all(mount.path(new("a name that never was"))).unwrap_err();
        let removed = dir.join(new("a removed name"));
        fs::write(&removed, new("a removed file's content")).unwrap();
        mount.sync();
        fs::remove_file(&removed).unwrap();
    }
    mount.unmount();

    let search = Search::new(&secrets);
    let places = files(&volume.bucket()).into_iter().chain(files(&state_dir)).chain([log]);
    let mut searched = 0;
    for path in places.filter(|path| !path.starts_with(&mnt)) {
        let bytes = fs::read(&path).unwrap();
        searched += bytes.len();
        let name = path.as_os_str().as_encoded_bytes();
        for (kind, bytes) in [("content", bytes.as_slice()), ("name", name)] {
            if let Some(found) = search.find(bytes) {
                panic!("in the {kind} of {}: {found}", path.display());
            }
        }
    }
    println!("searched {searched} bytes for {} secrets", secrets.len());
    assert!(searched > 1_400_000, "the bucket does not hold what was written");
}

#[test]
fn the_search_for_canaries_finds_them() {
    let secret = b"0123456789abcdefghijklmn".to_vec();
    let search = Search::new(&[("it".to_owned(), secret.clone())]);
    for at in 0..7 {
        let mut text = vec![b'x'; at];
        text.extend_from_slice(&secret);
        text.extend_from_slice(b"tail");
        for encoded in [
            data_encoding::BASE64.encode(&text),
            data_encoding::BASE32HEX_NOPAD.encode(&text).to_lowercase(),
            data_encoding::HEXLOWER.encode(&text),
        ] {
            assert!(search.find(encoded.as_bytes()).is_some(), "{encoded}");
        }
        assert!(search.find(&text).is_some());
    }
    assert_eq!(search.find(b"0123456789abcdefghijklm and not what follows"), None);
}

/// Whether `byte` may stand in an object's name below the first level.
fn is_base32hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'v')
}

#[test]
fn object_names_are_opaque() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), vec![1; 300_000]).unwrap();
    mount.unmount();
    for path in files(&volume.bucket()) {
        let below = path.strip_prefix(volume.bucket()).unwrap().to_str().expect("names are ASCII").to_owned();
        let (kind, rest) = below.split_once('/').unwrap_or_else(|| panic!("{below} lies outside"));
        match kind {
            "header" => assert!(rest.parse::<u64>().is_ok(), "{below}"),
            "d" | "m" | "a" => {
                assert!(rest.bytes().all(|byte| byte == b'/' || is_base32hex(byte)), "{below}")
            }
            // 32 bytes of noise, the same name in every volume (docs/FORMAT.md, "Bucket layout").
            "probe" => assert_eq!(rest, "kept", "{below}"),
            _ => panic!("what is {below}?"),
        }
    }
}

/// All stored objects of a volume that holds `copies` equal files with equal names, but for the header, which is public.
fn sealed_objects(volume: &Volume, copies: u32) -> Vec<Vec<u8>> {
    let mut content = vec![0; 600_000];
    SmallRng::seed_from_u64(5).fill_bytes(&mut content);
    let mount = volume.mount();
    for copy in 0..copies {
        let dir = mount.path(format!("dir{copy}"));
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("the same name in each"), &content).unwrap();
        fs::write(dir.join("small"), &content[..300]).unwrap();
        fs::write(dir.join("zeros"), vec![0; 300_000]).unwrap();
        mount.sync();
    }
    mount.unmount();
    let header = volume.bucket().join("header");
    files(&volume.bucket())
        .iter()
        .filter(|path| !path.starts_with(&header))
        .map(|path| fs::read(path).unwrap())
        .collect()
}

#[test]
fn equal_files_and_names_leave_nothing_equal_in_the_bucket() {
    const WINDOW: usize = 32;
    let (one, two) = (Volume::local(), Volume::local());
    let objects: Vec<_> = sealed_objects(&one, 3).into_iter().chain(sealed_objects(&two, 2)).collect();
    // Each aligned window of every object, then every window at every offset: any repetition of 63 bytes is found, and
    // most of 32. By chance there is none.
    let mut aligned: HashMap<&[u8], (usize, usize)> = HashMap::new();
    for (number, object) in objects.iter().enumerate() {
        for (step, window) in object.chunks_exact(WINDOW).enumerate() {
            if let Some(earlier) = aligned.insert(window, (number, step * WINDOW)) {
                panic!("object {number} at {} repeats {earlier:?}: {}", step * WINDOW, window.escape_ascii());
            }
        }
    }
    let starts: HashSet<[u8; 8]> = aligned.keys().map(|window| window[..8].try_into().unwrap()).collect();
    for (number, object) in objects.iter().enumerate() {
        for at in 0..object.len().saturating_sub(WINDOW - 1) {
            let window = &object[at..at + WINDOW];
            let start: [u8; 8] = window[..8].try_into().unwrap();
            if starts.contains(&start) {
                let place = aligned.get(window);
                assert!(
                    place.is_none_or(|place| *place == (number, at)),
                    "object {number} at {at} repeats {place:?}"
                );
            }
        }
    }
    println!("{} windows of {} objects are all different", aligned.len(), objects.len());
}

#[test]
fn sealed_objects_look_random() {
    let volume = Volume::local();
    for (number, object) in sealed_objects(&volume, 2).iter().enumerate() {
        // The head of an object says what it is; all after it should be noise.
        let sealed = &object[64.min(object.len())..];
        if sealed.len() < 20_000 {
            continue;
        }
        let mut counts = [0_f64; 256];
        sealed.iter().for_each(|byte| counts[usize::from(*byte)] += 1.0);
        let expected = sealed.len() as f64 / 256.0;
        let chi_square: f64 = counts.iter().map(|count| (count - expected).powi(2) / expected).sum();
        // 255 degrees of freedom: 400 is passed by chance less than once in a hundred million.
        assert!(chi_square < 400.0, "object {number} of {} bytes: chi-square {chi_square}", object.len());
    }
}
