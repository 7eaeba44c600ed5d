//! What a mount had not sent when another one took over is kept whole on its machine, sealed, and nothing else is.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::collections::{BTreeMap, BTreeSet};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use coffer::base::{FileKind, Ino};
use coffer::vfs::{Handle, RenameMode, SetAttr, Vfs, VfsError, XattrMode};
use coffer::volume::unsent::{Item, SavedFile, Shelf};
use coffer::volume::{OpenOptions, Opened, VolumeError};
use futures::TryStreamExt;
use object_store::ObjectStoreExt;
use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use in_memory::{CALLER, World};

const BLOCK: usize = 65_536;

fn with_state(state: &Path) -> OpenOptions {
    let mut options = OpenOptions { state_dir: Some(state.to_owned()), takeover: true, ..Default::default() };
    options.vfs.clean.is_automatic = false;
    options.vfs.commit_age = std::time::Duration::from_secs(3600);
    options
}

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

async fn put(vfs: &Vfs, dir: Ino, name: &str, bytes: &[u8]) -> Ino {
    let ino = match vfs.lookup(dir, name.as_bytes()).await {
        Ok(attr) => attr.ino,
        Err(_) => vfs.create(&CALLER, dir, name.as_bytes(), 0o640, true).await.unwrap().ino,
    };
    vfs.write(ino, 0, bytes, true).await.unwrap();
    ino
}

async fn contents(vfs: &Vfs, ino: Ino) -> Vec<u8> {
    let size = vfs.getattr(ino).await.unwrap().size as usize;
    vfs.read(Handle(0), ino, 0, size).await.unwrap()
}

/// What can be seen under each path: kind, permissions, and contents or target.
type Seen = BTreeMap<String, (FileKind, u16, Vec<u8>)>;

async fn seen(vfs: &Vfs) -> Seen {
    let mut all = Seen::new();
    let mut waiting = vec![(Ino::ROOT, String::new())];
    while let Some((dir, above)) = waiting.pop() {
        for entry in vfs.readdir(dir, 0, 10_000).await.unwrap() {
            let name = String::from_utf8(entry.name).unwrap();
            if name == "." || name == ".." {
                continue;
            }
            let path = if above.is_empty() { name } else { format!("{above}/{name}") };
            let attr = vfs.getattr(entry.ino).await.unwrap();
            let bytes = match attr.kind {
                FileKind::Directory => {
                    waiting.push((entry.ino, path.clone()));
                    Vec::new()
                }
                FileKind::Symlink => vfs.readlink(entry.ino).await.unwrap(),
                _ => contents(vfs, entry.ino).await,
            };
            all.insert(path, (attr.kind, attr.perm, bytes));
        }
    }
    all
}

/// A file, its contents, and what of them is missing.
type KeptFile = (SavedFile, Vec<u8>, Vec<(u64, u64)>);

/// What was kept, read back.
#[derive(Default, Debug)]
struct Kept {
    files: Vec<KeptFile>,
    xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    changes: BTreeSet<(String, String, String)>,
}

impl Kept {
    fn read(shelf: &Shelf, opened: &Opened) -> Kept {
        let ids = shelf.ids().unwrap();
        assert_eq!(ids.len(), 1);
        let mut changes = shelf.open(opened.vault.ring(), ids[0]).unwrap();
        let mut kept = Kept::default();
        let text = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap();
        while let Some(item) = changes.next_item().unwrap() {
            match item {
                Item::File(file) => {
                    let size = if file.kind == FileKind::Regular { file.size as usize } else { 0 };
                    kept.files.push((file, vec![0; size], Vec::new()));
                }
                Item::Data(offset, bytes) => {
                    let file = kept.files.last_mut().unwrap();
                    file.1[offset as usize..][..bytes.len()].copy_from_slice(&bytes);
                }
                Item::Absent(from, to, _) => kept.files.last_mut().unwrap().2.push((from, to)),
                Item::Xattr(name, value) => kept.xattrs.push((name, value)),
                Item::Change(what, path, other) => drop(kept.changes.insert((what, text(path), text(other)))),
                Item::About(_) | Item::End => {}
            }
        }
        kept
    }

    fn file(&self, path: &str) -> &KeptFile {
        let has = |file: &SavedFile| file.paths.iter().any(|own| own == path.as_bytes());
        self.files.iter().find(|(file, ..)| has(file)).unwrap_or_else(|| panic!("{path} was not kept"))
    }

    fn paths(&self) -> BTreeSet<String> {
        let paths = self.files.iter().flat_map(|(file, ..)| file.paths.iter().cloned());
        paths.map(|path| String::from_utf8(path).unwrap()).collect()
    }
}

/// Has another mount take over, makes the first notice, and ends it.
async fn fence(first: &Opened) {
    let refused = first.vfs.sync_all().await;
    assert!(matches!(refused, Err(VfsError::Fenced)), "{refused:?}");
    let refused = first.vfs.create(&CALLER, Ino::ROOT, b"late", 0o644, true).await;
    assert!(matches!(refused, Err(VfsError::Fenced)), "{refused:?}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_not_sent_is_kept_whole_and_the_successor_is_left_alone() {
    let states = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    let world = World::new().await;
    let (first, _) = world.open(with_state(states[0].path())).await;
    let vfs = &first.vfs;
    let dir = vfs.mkdir(&CALLER, Ino::ROOT, b"dir", 0o755).await.unwrap().ino;
    let old = noise(1, 5 * BLOCK + 77);
    let changed = put(vfs, dir, "changed", &old).await;
    put(vfs, dir, "moved", b"as it was").await;
    put(vfs, dir, "removed", b"as it was").await;
    let dressed = put(vfs, dir, "dressed", b"as it was").await;
    put(vfs, Ino::ROOT, "untouched", &noise(2, 3 * BLOCK)).await;
    vfs.sync_all().await.unwrap();

    vfs.write(changed, 100_000, b"a few new bytes", true).await.unwrap();
    let mut wanted = old.clone();
    wanted[100_000..100_015].copy_from_slice(b"a few new bytes");
    let new = put(vfs, dir, "new", &noise(3, 3 * BLOCK)).await;
    vfs.write(new, 20 * BLOCK as u64, b"far behind a hole", true).await.unwrap();
    vfs.set_xattr(new, b"user.tag", b"secret value", XattrMode::Set).await.unwrap();
    vfs.link(new, Ino::ROOT, b"link").await.unwrap();
    vfs.symlink(&CALLER, Ino::ROOT, b"sym", b"dir/new").await.unwrap();
    let below = vfs.mkdir(&CALLER, dir, b"below", 0o700).await.unwrap().ino;
    put(vfs, below, "deep", b"").await;
    vfs.rename(dir, b"moved", Ino::ROOT, b"moved here", RenameMode::Replace).await.unwrap();
    vfs.unlink(dir, b"removed").await.unwrap();
    let perm = SetAttr { perm: Some(0o600), ..SetAttr::default() };
    vfs.setattr(&CALLER, dressed, &perm).await.unwrap();
    let before = seen(vfs).await;

    let (second, _) = world.open(with_state(states[1].path())).await;
    let theirs = second.vfs.lookup(Ino::ROOT, b"dir").await.unwrap().ino;
    put(&second.vfs, theirs, "changed", b"of the successor").await;
    second.vfs.unlink(Ino::ROOT, b"untouched").await.unwrap();
    put(&second.vfs, Ino::ROOT, "theirs", b"theirs").await;
    second.vfs.sync_all().await.unwrap();
    let successors = seen(&second.vfs).await;

    fence(&first).await;
    assert_eq!(seen(vfs).await, before, "the fenced mount shows what it showed");
    let shelf = Shelf::of(states[0].path(), first.volume);
    assert!(first.close().await.is_err(), "it ends as one that was taken over");
    let kept = Kept::read(&shelf, &second);
    let paths = ["dir/below", "dir/below/deep", "dir/changed", "dir/new", "link", "sym"];
    assert_eq!(kept.paths(), paths.map(str::to_owned).into());
    for path in paths {
        let (file, bytes, absent) = kept.file(path);
        let (kind, perm, contents) = &before[path];
        assert_eq!((file.kind, file.perm), (*kind, *perm), "{path}");
        let found = if file.kind == FileKind::Symlink { &file.target } else { bytes };
        assert!(found == contents && absent.is_empty(), "{path}");
    }
    assert_eq!(kept.file("dir/changed").1, wanted);
    assert_eq!(kept.file("link").0.paths.len(), 2, "one file with two names");
    assert_eq!(kept.xattrs, [(b"user.tag".to_vec(), b"secret value".to_vec())]);
    let change = |what: &str, path: &str, other: &str| (what.to_owned(), path.to_owned(), other.to_owned());
    let changes = [
        change("mode 0600", "dir/dressed", ""),
        change("removed", "dir/removed", ""),
        change("renamed", "dir/moved", "moved here"),
    ];
    assert_eq!(kept.changes, changes.into());

    // Sealed, and for nobody else to read.
    let path = shelf.path(shelf.ids().unwrap()[0]);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let bytes = std::fs::read(&path).unwrap();
    for plain in [&b"a few new bytes"[..], b"dir/changed", b"secret value", &old[..64]] {
        assert!(!bytes.windows(plain.len()).any(|window| window == plain), "plaintext on the disk");
    }
    assert_eq!(seen(&second.vfs).await, successors);
    second.close().await.unwrap();
    let (third, _) = world.open(OpenOptions::default()).await;
    assert_eq!(seen(&third.vfs).await, successors, "the successor's tree is untouched");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_mount_that_had_sent_everything_keeps_nothing() {
    let state = tempfile::tempdir().unwrap();
    let world = World::new().await;
    let (first, _) = world.open(with_state(state.path())).await;
    let file = put(&first.vfs, Ino::ROOT, "file", b"sent").await;
    first.vfs.sync_all().await.unwrap();
    let (second, _) = world.open(OpenOptions { takeover: true, ..Default::default() }).await;
    let shelf = Shelf::of(state.path(), first.volume);
    assert_eq!(contents(&first.vfs, file).await, b"sent");
    assert!(first.close().await.is_err());
    assert_eq!(shelf.count(), 0);
    second.close().await.unwrap();
}

/// > What cannot be read any more is `EIO`, and named as missing where it is recovered.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_read_any_more_is_told_and_what_was_written_is_kept() {
    let state = tempfile::tempdir().unwrap();
    let world = World::new().await;
    let (first, _) = world.open(OpenOptions { cache_bytes: 0, ..with_state(state.path()) }).await;
    let file = put(&first.vfs, Ino::ROOT, "file", &noise(1, 3 * BLOCK)).await;
    first.vfs.sync_all().await.unwrap();
    first.vfs.write(file, BLOCK as u64 + 10, b"written late", true).await.unwrap();
    let (second, _) = world.open(OpenOptions { takeover: true, ..Default::default() }).await;
    // The successor has overwritten the file, and its old contents are gone for good.
    let segments: Vec<_> =
        world.0.list(Some(&"d".into())).map_ok(|entry| entry.location).try_collect().await.unwrap();
    assert!(!segments.is_empty());
    for segment in segments {
        world.0.delete(&segment).await.unwrap();
    }
    fence(&first).await;
    assert!(first.close().await.is_err());
    let kept = Kept::read(&Shelf::of(state.path(), second.volume), &second);
    let (file, bytes, absent) = kept.file("file");
    assert_eq!(file.size, 3 * BLOCK as u64);
    let late = BLOCK as u64 + 10..BLOCK as u64 + 22;
    assert_eq!(&bytes[late.start as usize..late.end as usize], b"written late");
    let lost: u64 = absent.iter().map(|(from, to)| to - from).sum();
    assert_eq!(lost, 3 * BLOCK as u64 - 12, "{absent:?}");
    assert!(absent.iter().all(|(from, to)| *to <= late.start || *from >= late.end));
    second.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn altered_or_foreign_files_of_changes_are_refused() {
    let state = tempfile::tempdir().unwrap();
    let (world, other) = (World::new().await, World::new().await);
    let (first, _) = world.open(with_state(state.path())).await;
    put(&first.vfs, Ino::ROOT, "file", &noise(1, 3 * BLOCK)).await;
    let (second, _) = world.open(OpenOptions { takeover: true, ..Default::default() }).await;
    let (foreign, _) = other.open(OpenOptions::default()).await;
    fence(&first).await;
    assert!(first.close().await.is_err());
    let shelf = Shelf::of(state.path(), second.volume);
    let id = shelf.ids().unwrap()[0];
    let read_all = |opened: &Opened| -> Result<usize, VolumeError> {
        let mut changes = shelf.open(opened.vault.ring(), id)?;
        let mut count = 0;
        while changes.next_item()?.is_some() {
            count += 1;
        }
        Ok(count)
    };
    assert!(read_all(&second).is_ok());
    assert!(matches!(read_all(&foreign), Err(VolumeError::BadUnsent { .. })));
    let path = shelf.path(id);
    let good = std::fs::read(&path).unwrap();
    for at in [0, 5, 70, good.len() / 2, good.len() - 1] {
        let mut bad = good.clone();
        bad[at] ^= 1;
        std::fs::write(&path, bad).unwrap();
        assert!(matches!(read_all(&second), Err(VolumeError::BadUnsent { .. })), "byte {at}");
    }
    std::fs::write(&path, &good[..good.len() - 40]).unwrap();
    assert!(matches!(read_all(&second), Err(VolumeError::BadUnsent { .. })));
    second.close().await.unwrap();
    foreign.close().await.unwrap();
}

/// Something random, done to files in two directories.
async fn act(vfs: &Vfs, dirs: &[Ino], dice: &mut SmallRng) {
    let dir = dirs[dice.random_range(0..dirs.len())];
    let other = dirs[dice.random_range(0..dirs.len())];
    let name = |dice: &mut SmallRng| [b"a", b"b", b"c", b"d"][dice.random_range(0..4)].to_vec();
    let (one, two) = (name(dice), name(dice));
    let found = vfs.lookup(dir, &one).await;
    let file = found.as_ref().ok().filter(|attr| attr.kind == FileKind::Regular);
    let (offset, len) = (dice.random_range(0..300_000), dice.random_range(1..150_000));
    // That an operation is refused is an outcome like any other.
    match (dice.random_range(0..10), file) {
        (0..=3, Some(file)) => {
            let _ = vfs.write(file.ino, offset, &noise(dice.random(), len), true).await;
        }
        (4, Some(file)) => {
            let set = SetAttr { size: Some(offset), ..SetAttr::default() };
            let _ = vfs.setattr(&CALLER, file.ino, &set).await;
        }
        (5, Some(file)) => {
            let set = SetAttr { perm: Some(dice.random_range(0..0o777)), ..SetAttr::default() };
            let _ = vfs.setattr(&CALLER, file.ino, &set).await;
        }
        (6, Some(_)) => drop(vfs.unlink(dir, &one).await),
        (7, _) => drop(vfs.rename(dir, &one, other, &two, RenameMode::Replace).await),
        (8, Some(file)) => drop(vfs.link(file.ino, other, &two).await),
        _ => {
            let _ = vfs.create(&CALLER, dir, &one, 0o644, true).await;
        }
    }
}

/// Every difference between what the bucket had and what the mount showed is kept or told, and what is kept is what
/// was shown, byte for byte.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_difference_is_missing_whatever_was_done() {
    for seed in 0..60 {
        let mut dice = SmallRng::seed_from_u64(seed);
        let state = tempfile::tempdir().unwrap();
        let world = World::new().await;
        let mut options = with_state(state.path());
        // Some of it is on its way when the end comes.
        options.vfs.segment_room_bytes = 4 * BLOCK;
        let (first, _) = world.open(options).await;
        let mut dirs = vec![Ino::ROOT];
        dirs.push(first.vfs.mkdir(&CALLER, Ino::ROOT, b"dir", 0o755).await.unwrap().ino);
        for _ in 0..dice.random_range(0..40) {
            act(&first.vfs, &dirs, &mut dice).await;
        }
        first.vfs.sync_all().await.unwrap();
        let sent = seen(&first.vfs).await;
        for _ in 0..dice.random_range(1..40) {
            act(&first.vfs, &dirs, &mut dice).await;
        }
        let shown = seen(&first.vfs).await;
        let (second, _) = world.open(OpenOptions { takeover: true, ..Default::default() }).await;
        assert_eq!(seen(&second.vfs).await, sent, "seed {seed}");
        let _ = first.vfs.sync_all().await;
        let shown_by = first.vfs.status().state;
        if shown_by == "fenced" {
            assert_eq!(seen(&first.vfs).await, shown, "seed {seed}: what the fenced mount shows has changed");
        }
        assert!(first.close().await.is_err(), "seed {seed}");
        let shelf = Shelf::of(state.path(), second.volume);
        if shelf.count() == 0 {
            assert_eq!(shown, sent, "seed {seed}: nothing was kept");
            continue;
        }
        let kept = Kept::read(&shelf, &second);
        for (file, bytes, absent) in &kept.files {
            for path in &file.paths {
                let path = std::str::from_utf8(path).unwrap();
                let (kind, perm, contents) = &shown[path];
                assert_eq!((file.kind, file.perm), (*kind, *perm), "seed {seed}: {path}");
                assert!(bytes == contents && absent.is_empty(), "seed {seed}: {path} is not what was shown");
            }
        }
        let told: BTreeSet<&String> =
            kept.changes.iter().flat_map(|(_, path, other)| [path, other]).collect();
        let paths = kept.paths();
        for path in shown.keys().chain(sent.keys()) {
            let is_same = shown.get(path) == sent.get(path);
            assert!(
                is_same || paths.contains(path) || told.contains(path),
                "seed {seed}: {path} differs and is not told\n{:?}\n{paths:?}",
                kept.changes
            );
        }
        second.close().await.unwrap();
    }
}

/// Copies objects that are not there.
async fn copy_missing(from: &World, to: &World) {
    for meta in from.0.list(None).try_collect::<Vec<_>>().await.unwrap() {
        if to.0.head(&meta.location).await.is_err() {
            let bytes = from.0.get(&meta.location).await.unwrap().bytes().await.unwrap();
            to.0.put(&meta.location, bytes.into()).await.unwrap();
        }
    }
}

/// The store shows a manifest of another history: from then on nothing can be committed. What was written is not lost with
/// the mount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_cannot_be_committed_at_all_is_kept_when_the_mount_ends() {
    let world = World::new().await;
    let other = World(Arc::new(InMemory::new()));
    copy_missing(&world, &other).await;
    let state = tempfile::tempdir().unwrap();
    let (mount, _) = world.open(with_state(state.path())).await;
    let (beside, _) = other.open(OpenOptions::default()).await;
    put(&beside.vfs, Ino::ROOT, "theirs", b"of another history").await;
    beside.close().await.unwrap();
    copy_missing(&other, &world).await;
    put(&mount.vfs, Ino::ROOT, "mine", b"written here").await;
    mount.vfs.follow().await.expect_err("it is another's");
    mount.vfs.sync_all().await.expect_err("it cannot be committed");
    let volume = mount.volume;
    mount.close().await.expect_err("and so is not in the bucket");

    let (reading, _) = other.open(OpenOptions::default()).await;
    let kept = Kept::read(&Shelf::of(state.path(), volume), &reading);
    let [(file, contents, missing)] = &kept.files[..] else { panic!("{kept:?}") };
    assert_eq!((file.paths[0].as_slice(), contents.as_slice()), (&b"mine"[..], &b"written here"[..]));
    assert!(missing.is_empty());
    reading.close().await.unwrap();
}
