//! A second mount that only reads: it follows the writer's commits, and leaves the bucket alone.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::time::Duration;

use coffer::base::Ino;
use coffer::data::DataError;
use coffer::meta::{Key, Record, decode, links};
use coffer::store::Bucket;
use coffer::vfs::{Handle, RenameMode, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, OpenOptions, Opened};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt};

use in_memory::{CALLER, World, factors};

async fn open(world: &World, read_only: bool) -> (Opened, Bucket) {
    let vfs = VfsOptions { read_only, ..VfsOptions::default() };
    world.open(OpenOptions { vfs, ..OpenOptions::default() }).await
}

async fn put(vfs: &Vfs, name: &[u8], bytes: &[u8]) -> Ino {
    let file = vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap();
    vfs.write(file.ino, 0, bytes, true).await.unwrap();
    file.ino
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_follows_commits_changes_nothing_and_sends_no_writes() {
    let world = World::new().await;
    let (writer, _) = open(&world, false).await;
    put(&writer.vfs, b"one", &[1; 100_000]).await;
    writer.vfs.sync_all().await.unwrap();

    let (reader, bucket) = open(&world, true).await;
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

/// What the reader is asked for after the superblock may be of a commit that is newer than the superblock.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_meets_a_newer_commit_while_it_opens_does_not_refuse_the_volume() {
    let world = World::new().await;
    let (writer, _) = open(&world, false).await;
    put(&writer.vfs, b"one", b"1").await;
    writer.vfs.sync_all().await.unwrap();
    let examined = volume::examine(world.bucket(), &factors(), OpenOptions::default()).await.unwrap();
    let engine = examined.engine.as_ref().unwrap();
    let superblock = engine.get(&Key::Super.encode()).await.unwrap().unwrap();
    let Record::Super(superblock) = decode(&Key::Super, &superblock).unwrap() else {
        panic!("another record")
    };

    put(&writer.vfs, b"two", b"2").await;
    writer.vfs.sync_all().await.unwrap();
    engine.refresh().await.unwrap();
    let newer = Key::Commit(superblock.commit + 1).encode();
    assert!(engine.get(&newer).await.unwrap().is_some(), "the reader has gone on");
    links::walk(engine, examined.vault.ring(), &superblock, None).await.unwrap();
    examined.close().await;
    writer.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_second_writer_is_refused_and_a_takeover_fences_the_first() {
    let world = World::new().await;
    let (first, _) = open(&world, false).await;
    let ino = put(&first.vfs, b"kept", b"before").await;
    first.vfs.sync_all().await.unwrap();

    let bucket = world.bucket();
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

/// What is missing while the writer has let go of nothing is damage, and no change.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stays_tells_what_was_removed_from_what_is_missing() {
    let world = World::new().await;
    let (writer, _) = open(&world, false).await;
    let ino = put(&writer.vfs, b"one", &[1; 300_000]).await;
    writer.vfs.sync_all().await.unwrap();
    let options = || VfsOptions {
        read_only: true,
        stays: true,
        poll_interval: Duration::from_millis(1),
        ..VfsOptions::default()
    };
    let segments: Vec<_> = world.0.list(Some(&"d".into())).try_collect().await.unwrap();
    let [segment] = &segments[..] else { panic!("{segments:?}") };
    let bytes = world.0.get(&segment.location).await.unwrap().bytes().await.unwrap();
    world.0.delete(&segment.location).await.unwrap();
    let (first, _) = world.open(OpenOptions { vfs: options(), ..OpenOptions::default() }).await;
    let missing = first.vfs.read(Handle(0), ino, 0, 10).await;
    assert!(matches!(missing, Err(VfsError::Data(DataError::Missing { .. }))), "{missing:?}");

    world.0.put(&segment.location, bytes.into()).await.unwrap();
    let (second, _) = world.open(OpenOptions { vfs: options(), ..OpenOptions::default() }).await;
    assert_eq!(second.vfs.lookup(Ino::ROOT, b"one").await.unwrap().size, 300_000);
    writer.vfs.forget(ino, 1);
    writer.vfs.unlink(Ino::ROOT, b"one").await.unwrap();
    put(&writer.vfs, b"two", b"2").await;
    writer.vfs.sync_all().await.unwrap();
    world.0.delete(&segment.location).await.unwrap();
    tokio::time::sleep(Duration::from_millis(50)).await;
    let two = second.vfs.lookup(Ino::ROOT, b"two").await;
    assert!(matches!(two, Err(VfsError::NoEntry)), "{two:?}");
    let removed = second.vfs.read(Handle(0), ino, 0, 10).await;
    assert!(matches!(removed, Err(VfsError::GoneOn)), "{removed:?}");
    for reader in [first, second] {
        reader.close().await.unwrap();
    }
    writer.close().await.unwrap();
}
