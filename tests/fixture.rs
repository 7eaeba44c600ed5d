//! A volume of format version 1, kept as it was written: every later version must open it.
//!
//! `COFFER_WRITE_FIXTURE=DIR cargo test --test fixture` writes a new one to an empty directory; that is
//! only ever done for a new format version, beside the old ones.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::path::Path;
use std::sync::Arc;

use coffer::base::{FileKind, Ino, ManualClock, SeededEntropy, Time};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::{self, StoreOptions};
use coffer::vfs::{Caller, Handle, SetAttr, SetTime, Vfs, VfsOptions, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions};

const FIXTURE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/v1");
const CALLER: Caller = Caller { uid: 1000, gid: 100, pid: 1, umask: 0 };
const PASSPHRASE: &str = "the passphrase of the fixture";

fn factors() -> Vec<Factor> {
    vec![Factor::Passphrase(Secret::new(PASSPHRASE.into()))]
}

/// The regular files: name, holes and bytes. Sizes around every way in which contents are kept.
fn files() -> Vec<(Vec<u8>, u64, Vec<u8>)> {
    let bytes = |len: usize| (0..len).map(|i| (i * 7 % 251) as u8).collect::<Vec<u8>>();
    vec![
        (b"empty".to_vec(), 0, vec![]),
        (b"in a record".to_vec(), 0, bytes(1000)),
        (b"one block".to_vec(), 0, bytes(5000)),
        (b"three blocks and a tail".to_vec(), 0, bytes(200_001)),
        (b"behind a hole of two pages".to_vec(), 130 << 20, bytes(70_000)),
        (vec![0xC3, 0x28, 0xFF], 0, bytes(3)),
        (vec![b'n'; 255], 0, bytes(255)),
    ]
}

async fn write(vfs: &Vfs) {
    for (name, offset, bytes) in files() {
        let file = vfs.create(&CALLER, Ino::ROOT, &name, 0o640, true).await.unwrap();
        vfs.write(file.ino, offset, &bytes, true).await.unwrap();
    }
    vfs.sync_all().await.unwrap();
    let dir = vfs.mkdir(&CALLER, Ino::ROOT, b"directory", 0o2755).await.unwrap();
    let block = vfs.lookup(Ino::ROOT, b"one block").await.unwrap();
    vfs.link(block.ino, dir.ino, b"hard link").await.unwrap();
    vfs.symlink(&CALLER, dir.ino, b"symbolic link", b"../one block").await.unwrap();
    vfs.mknod(&CALLER, dir.ino, b"pipe", FileKind::Fifo, 0o600, 0).await.unwrap();
    vfs.set_xattr(dir.ino, b"user.colour", b"blue", XattrMode::Set).await.unwrap();
    let time = SetTime::At(Time { secs: -5, nanos: 123_456_789 });
    let set = SetAttr { mtime: Some(time), ..SetAttr::default() };
    vfs.setattr(&CALLER, block.ino, &set).await.unwrap();
    // Leaves a segment partly dead, and two runs.
    let tail = vfs.lookup(Ino::ROOT, b"three blocks and a tail").await.unwrap();
    let again = files()[3].2[65_536..70_000].to_vec();
    vfs.write(tail.ino, 65_536, &again, true).await.unwrap();
}

async fn check(vfs: &Vfs) {
    for (name, offset, bytes) in files() {
        let attr = vfs.lookup(Ino::ROOT, &name).await.unwrap();
        assert_eq!((attr.perm, attr.uid, attr.gid), (0o640, 1000, 100));
        assert_eq!(attr.size, if bytes.is_empty() { 0 } else { offset + bytes.len() as u64 });
        assert_eq!(vfs.read(Handle(0), attr.ino, offset, bytes.len()).await.unwrap(), bytes);
        if offset > 0 {
            assert_eq!(vfs.read(Handle(0), attr.ino, 1 << 20, 10).await.unwrap(), [0; 10]);
        }
    }
    let dir = vfs.lookup(Ino::ROOT, b"directory").await.unwrap();
    assert_eq!((dir.perm, dir.nlink), (0o2755, 2));
    assert_eq!(vfs.get_xattr(dir.ino, b"user.colour").await.unwrap(), b"blue");
    let block = vfs.lookup(dir.ino, b"hard link").await.unwrap();
    assert_eq!(block.nlink, 2);
    assert_eq!(block.mtime, Time { secs: -5, nanos: 123_456_789 });
    let link = vfs.lookup(dir.ino, b"symbolic link").await.unwrap();
    assert_eq!(vfs.readlink(link.ino).await.unwrap(), b"../one block");
    assert_eq!(vfs.lookup(dir.ino, b"pipe").await.unwrap().kind, FileKind::Fifo);
    let names = vfs.readdir(Ino::ROOT, 0, 100).await.unwrap();
    assert_eq!(names.len(), files().len() + 3);
}

async fn write_fixture(folder: &Path) {
    let options = StoreOptions { create: true, ..StoreOptions::default() };
    let bucket = store::open(folder.to_str().unwrap(), &options).unwrap();
    let header = NewVolume { compression: Compression::Lz4, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let spec = NewVolumeSpec { header, quota_bytes: 1 << 40, owner: (1000, 100) };
    let (entropy, clock) =
        (Arc::new(SeededEntropy::new(1)), Arc::new(ManualClock::new(1_800_000_000_000_000_000)));
    volume::create(&bucket, &spec, &factors(), entropy, Arc::clone(&clock) as _).await.unwrap();
    let opened =
        volume::open(bucket, &factors(), OpenOptions { clock, ..OpenOptions::default() }).await.unwrap();
    write(&opened.vfs).await;
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_volume_of_format_version_1_opens() {
    if let Ok(folder) = std::env::var("COFFER_WRITE_FIXTURE") {
        write_fixture(Path::new(&folder)).await;
        return;
    }
    let bucket = store::open(FIXTURE, &StoreOptions::default()).unwrap();
    let vfs = VfsOptions { read_only: true, ..VfsOptions::default() };
    let opened =
        volume::open(bucket, &factors(), OpenOptions { vfs, ..OpenOptions::default() }).await.unwrap();
    check(&opened.vfs).await;
    opened.close().await.unwrap();
}
