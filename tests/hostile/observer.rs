//! What can be seen from outside: bytes at rest, lengths, names, the order of requests.

use std::collections::BTreeSet;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use coffer::base::Ino;
use coffer::keys::Compression;
use coffer::vfs::{Handle, XattrMode};

use crate::each_object::folder;
use crate::store::{Hostile, Objects};
use crate::world::{BLOCK, World, create, mkdir, open, options, put, runtime};

/// Whether bytes are what they seem to be by chance: no byte is there much too often.
fn looks_random(bytes: &[u8]) -> bool {
    let mut counts = [0u32; 256];
    bytes.iter().for_each(|byte| counts[usize::from(*byte)] += 1);
    let expected = bytes.len() as f64 / 256.0;
    let chi_square: f64 = counts.iter().map(|count| (f64::from(*count) - expected).powi(2) / expected).sum();
    // Of 255 degrees of freedom: beyond this once in many billions.
    chi_square < 450.0
}

#[test]
fn c10_no_byte_string_of_the_tree_is_anywhere_in_the_bucket_and_all_but_heads_look_random() {
    const CANARIES: [&str; 6] = [
        "canary-file-name",
        "canary-directory",
        "canary-target",
        "user.canary",
        "canary-value",
        "canary contents",
    ];
    let store = Hostile::of(Objects::new());
    let machine = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        create(&store, Compression::None, 5).await;
        let opened = open(&store, options(Some(machine.path().to_owned()), 6)).await.unwrap();
        let vfs = &opened.vfs;
        let dir = mkdir(vfs, Ino::ROOT, CANARIES[1]).await;
        let contents = CANARIES[5].repeat(20_000);
        let file = put(vfs, dir, CANARIES[0], contents.as_bytes()).await;
        put(vfs, dir, "small", CANARIES[5].as_bytes()).await;
        let caller = coffer::vfs::Caller::default();
        vfs.symlink(&caller, dir, b"link", CANARIES[2].as_bytes()).await.unwrap();
        vfs.set_xattr(file, CANARIES[3].as_bytes(), CANARIES[4].as_bytes(), XattrMode::Set).await.unwrap();
        vfs.sync_all().await.unwrap();
        vfs.tidy_records().await.unwrap();
        opened.close().await.unwrap();
    });
    let mut bytes_at_rest: Vec<(String, Bytes)> = store.ever();
    assert!(bytes_at_rest.len() > 12);
    for (name, bytes) in &bytes_at_rest {
        if name.starts_with("m/") || name.starts_with("d/") {
            assert_eq!(bytes[..4], *b"CFR1");
            assert!(bytes.len() < 4096 || looks_random(&bytes[64..]), "{name}");
        }
    }
    // Nor is any on the machine's disk.
    let files = files_below(machine.path());
    assert!(!files.is_empty());
    bytes_at_rest.extend(files);
    for (name, bytes) in &bytes_at_rest {
        for canary in CANARIES.iter().flat_map(|canary| [&canary.as_bytes()[..8], canary.as_bytes()]) {
            let is_in = |hay: &[u8]| hay.windows(canary.len()).any(|window| window == canary);
            assert!(!is_in(bytes) && !is_in(name.as_bytes()), "{name} shows {}", canary.escape_ascii());
        }
    }
}

/// Of a machine that has written, read and kept what it could: the state folder holds no plaintext and no key.
#[test]
fn d13_the_state_folder_holds_no_byte_string_of_the_tree() {
    let world = World::new();
    let files = files_below(world.machine.path());
    assert!(files.iter().any(|(name, _)| name.ends_with("pin")), "{files:?}");
    let tree = world.newest();
    let contents = tree.values().flat_map(|seen| seen.contents.iter().flatten());
    let names = tree.keys().filter_map(|path| path.rsplit('/').next()).filter(|name| name.len() > 3);
    let words: Vec<&[u8]> = contents
        .filter(|block| block.len() > 64)
        .map(|block| &block[64..(64 + 12).min(block.len())])
        .chain(names.map(str::as_bytes))
        .collect();
    assert!(words.len() > 20);
    for (name, bytes) in &files {
        for word in &words {
            assert!(
                !bytes.windows(word.len()).any(|window| window == *word),
                "{name}: {}",
                word.escape_ascii()
            );
        }
    }
}

fn files_below(folder: &Path) -> Vec<(String, Bytes)> {
    let (mut found, mut folders) = (Vec::new(), vec![folder.to_owned()]);
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            match path.is_dir() {
                true => folders.push(path),
                false => found.push((path.display().to_string(), std::fs::read(path).unwrap().into())),
            }
        }
    }
    found
}

/// Requests by what they are, without the random names of what they are for.
fn shape(trace: &[String]) -> Vec<String> {
    let mut seen: Vec<String> = Vec::new();
    let one = |request: &String| {
        let mut parts = request.splitn(3, ' ');
        let (verb, name, rest) =
            (parts.next().unwrap(), parts.next().unwrap_or(""), parts.next().unwrap_or(""));
        let at = seen.iter().position(|other| other == name).unwrap_or_else(|| {
            seen.push(name.to_owned());
            seen.len() - 1
        });
        format!("{verb} {} #{at} {rest}", name.split('/').next().unwrap_or(""))
    };
    trace.iter().map(one).collect()
}

#[test]
fn c8_b10_two_trees_that_differ_in_contents_only_look_alike_to_the_store() {
    let life = |filler: u8| {
        let store = Hostile::of(Objects::new());
        runtime().block_on(async {
            create(&store, Compression::None, 8).await;
            let opened = open(&store, options(None, 9)).await.unwrap();
            let vfs = &opened.vfs;
            let dir = mkdir(vfs, Ino::ROOT, "dir").await;
            for (number, len) in [0usize, 10, 1000, 3000, BLOCK, 3 * BLOCK + 9].into_iter().enumerate() {
                // All zeros, all equal, or noise: without compression nobody can tell.
                let contents = match filler {
                    0 => vec![0; len],
                    1 => vec![b'x'; len],
                    seed => crate::world::pattern(u64::from(seed) + number as u64, len),
                };
                if len > 0 {
                    put(vfs, dir, &format!("file{number}"), &contents).await;
                }
                vfs.sync_all().await.unwrap();
            }
            vfs.tidy_records().await.unwrap();
            opened.close().await.unwrap();
        });
        let lengths: Vec<(String, usize)> = store
            .ever()
            .iter()
            .map(|(name, bytes)| (folder(name).split('/').next().unwrap().to_owned(), bytes.len()))
            .collect();
        (shape(&store.take_trace()), lengths)
    };
    let first = life(0);
    assert!(first.0.len() > 30 && first.1.len() > 15);
    for filler in [1, 2, 7] {
        let other = life(filler);
        assert_eq!(first.1, other.1, "lengths of objects, in the order in which they came");
        assert_eq!(first.0, other.0, "requests");
    }
}

/// What the page of threats owns up to, and no more: a read shows which segment and where, and only when it is not at hand.
#[test]
fn c9_a_store_sees_which_segment_is_read_and_where_and_nothing_of_what_is_read_again() {
    let page = include_str!("../../docs/THREATS.md");
    assert!(page.contains("which segment is read when, and at which offset and length"));
    let world = World::new();
    let store = world.store();
    runtime().block_on(async {
        let mut options = options(world.state_dir(true), 99);
        options.vfs.read_only = true;
        let opened = open(&store, options).await.unwrap();
        // A reader looks for something newer of its own accord, first as soon as it is open: that is over after this.
        opened.vfs.follow().await.unwrap();
        let run = opened.vfs.lookup(Ino::ROOT, b"run").await.unwrap().ino;
        store.take_trace();
        let read = async || opened.vfs.read(Handle(0), run, 0, BLOCK).await.unwrap();
        let first = read().await;
        let seen = store.take_trace();
        let is_of_a_segment = |request: &String| request.starts_with("GET d/") && request.contains("Bounded");
        assert!(!seen.is_empty() && seen.iter().all(is_of_a_segment), "{seen:#?}");
        assert_eq!(read().await, first);
        assert_eq!(store.take_trace(), Vec::<String>::new(), "a repeated read is seen");
        drop(opened.close().await);
    });
}

/// Whoever alters an object learns nothing from what is asked for next: it is the same whatever is wrong with it.
#[test]
fn a7_requests_and_errors_do_not_depend_on_why_an_object_does_not_open() {
    let world = World::new();
    let segments: Vec<&String> = world.objects.keys().filter(|name| name.starts_with("d/")).collect();
    for name in segments {
        let bytes = &world.objects[name];
        let mut outcomes: BTreeSet<(Vec<String>, Vec<String>)> = BTreeSet::new();
        // Every byte of what is read of it: commitment, first piece and its tag.
        for what in 0..6 {
            let mut altered = bytes.to_vec();
            match what {
                0 => altered.iter_mut().for_each(|byte| *byte ^= 0xFF),
                1 => altered.iter_mut().skip(64).for_each(|byte| *byte ^= 1),
                2 => altered.iter_mut().skip(64).for_each(|byte| *byte = 0),
                3 => altered.iter_mut().skip(64).step_by(16).for_each(|byte| *byte ^= 0x80),
                4 => altered[64..].reverse(),
                _ => altered[64..].rotate_left(1),
            }
            let mut objects = world.objects.clone();
            objects.insert(name.clone(), altered.into());
            let store: Arc<Hostile> = Hostile::of(objects);
            let tree = runtime().block_on(world.read(&store, true)).unwrap();
            let errors = tree.iter().map(|(path, seen)| {
                let blocks: Vec<_> = seen.contents.iter().map(|block| block.as_ref().err()).collect();
                format!("{path} {blocks:?}")
            });
            outcomes.insert((store.take_trace(), errors.collect()));
        }
        assert_eq!(
            outcomes.len(),
            1,
            "{name}: {:#?}",
            outcomes.iter().map(|(t, e)| (t.len(), e)).collect::<Vec<_>>()
        );
    }
}
