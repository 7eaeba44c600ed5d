//! A second mount that only reads: it follows the writer's commits, and leaves the bucket alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::{Caller, Handle, RenameMode, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened};
use object_store::ObjectStore;
use object_store::memory::InMemory;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the reader test".to_vec()))]
}

async fn open(store: &Arc<dyn ObjectStore>, read_only: bool) -> (Opened, Bucket) {
    let bucket = Bucket::from_store(Arc::clone(store));
    let vfs = VfsOptions { read_only, ..VfsOptions::default() };
    let options = OpenOptions { vfs, ..OpenOptions::default() };
    (volume::open(bucket.clone(), &factors(), options).await.unwrap(), bucket)
}

async fn new_volume() -> Arc<dyn ObjectStore> {
    let store: Arc<dyn ObjectStore> = Arc::new(InMemory::new());
    let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
    let bucket = Bucket::from_store(Arc::clone(&store));
    let clock = Arc::new(SystemClock::default());
    volume::create(&bucket, &spec, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
    store
}

async fn put(vfs: &Vfs, name: &[u8], bytes: &[u8]) -> Ino {
    let file = vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap();
    vfs.write(file.ino, 0, bytes, true).await.unwrap();
    file.ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_commits_changes_nothing_and_sends_no_writes() {
    let store = new_volume().await;
    let (writer, _) = open(&store, false).await;
    put(&writer.vfs, b"one", &[1; 100_000]).await;
    writer.vfs.sync_all().await.unwrap();

    let (reader, bucket) = open(&store, true).await;
    let one = reader.vfs.lookup(Ino::ROOT, b"one").await.unwrap();
    assert_eq!(reader.vfs.read(Handle(0), one.ino, 0, 200_000).await.unwrap(), [1; 100_000]);
    assert!(matches!(reader.vfs.lookup(Ino::ROOT, b"two").await, Err(VfsError::NoEntry)));

    put(&writer.vfs, b"two", &[2; 10]).await;
    writer.vfs.rename(Ino::ROOT, b"one", Ino::ROOT, b"three", RenameMode::Replace).await.unwrap();
    writer.vfs.sync_all().await.unwrap();
    assert!(reader.vfs.follow().await.unwrap(), "there is a newer commit");
    assert!(!reader.vfs.follow().await.unwrap(), "and no other since");
    let two = reader.vfs.lookup(Ino::ROOT, b"two").await.unwrap();
    assert_eq!(reader.vfs.read(Handle(0), two.ino, 0, 100).await.unwrap(), [2; 10]);
    assert!(matches!(reader.vfs.lookup(Ino::ROOT, b"one").await, Err(VfsError::NoEntry)));
    assert_eq!(reader.vfs.lookup(Ino::ROOT, b"three").await.unwrap().ino, one.ino);

    let made = reader.vfs.create(&CALLER, Ino::ROOT, b"four", 0o644, true).await;
    assert!(matches!(made, Err(VfsError::ReadOnly)));
    assert!(matches!(reader.vfs.write(one.ino, 0, b"x", true).await, Err(VfsError::ReadOnly)));
    reader.close().await.unwrap();
    let meter = bucket.meter().snapshot();
    assert_eq!((meter.puts, meter.deletes), (0, 0));
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_is_refused_and_a_takeover_fences_the_first() {
    let store = new_volume().await;
    let (first, _) = open(&store, false).await;
    let ino = put(&first.vfs, b"kept", b"before").await;
    first.vfs.sync_all().await.unwrap();

    let bucket = Bucket::from_store(Arc::clone(&store));
    let refused = volume::open(bucket.clone(), &factors(), OpenOptions::default()).await;
    assert!(matches!(refused.err(), Some(volume::VolumeError::InUse { .. })));

    let options = OpenOptions { takeover: true, ..OpenOptions::default() };
    let second = volume::open(bucket, &factors(), options).await.unwrap();
    put(&second.vfs, b"new", b"second").await;
    second.vfs.sync_all().await.unwrap();

    first.vfs.write(ino, 0, b"lost", true).await.unwrap();
    assert!(matches!(first.vfs.fsync(ino, false).await, Err(VfsError::Fenced)));
    assert!(matches!(first.vfs.write(ino, 0, b"x", true).await, Err(VfsError::Fenced)));
    assert!(!first.vfs.status().is_safe);

    let kept = second.vfs.lookup(Ino::ROOT, b"kept").await.unwrap();
    assert_eq!(second.vfs.read(Handle(0), kept.ino, 0, 10).await.unwrap(), b"before");
    second.close().await.unwrap();
}
