//! Damage that a mount meets at work is told: which object, what does not fit, and for which file.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::error::Error;
use std::sync::Arc;

use coffer::base::Ino;
use coffer::maint::{self, CheckOptions};
use coffer::vfs::{Damaged, Handle, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, OpenOptions};
use futures::TryStreamExt;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use in_memory::{CALLER, World, factors};

/// More than rides in the records of a commit.
const BYTES: usize = 1 << 20;

async fn put(vfs: &Vfs, name: &[u8], fill: u8) -> Ino {
    let file = vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap();
    vfs.write(file.ino, 0, &vec![fill; BYTES], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    file.ino
}

async fn segments(world: &World) -> Vec<Path> {
    let listed = world.0.list(Some(&Path::from("d")));
    listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
}

fn objects(vfs: &Vfs) -> Vec<Damaged> {
    let status = vfs.status();
    assert!(status.is_safe, "nothing waits for the bucket");
    assert_eq!(status.damage.count, status.damage.objects.len() as u64);
    status.damage.objects
}

/// Three files in segments of their own; the first is altered behind the mount's back, the second deleted.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_damaged_segment_is_told_once_with_its_name_and_file() {
    let world = World::new().await;
    let (first, _) = world.open(OpenOptions::default()).await;
    let mut files = Vec::new();
    for fill in 1..=3 {
        let before = segments(&world).await;
        let ino = put(&first.vfs, &[b'0' + fill], fill).await;
        let after = segments(&world).await;
        let [segment] =
            after.into_iter().filter(|path| !before.contains(path)).collect::<Vec<_>>().try_into().unwrap();
        files.push((ino, segment));
    }
    first.close().await.unwrap();

    let (altered, missing, sound) = (&files[0], &files[1], &files[2]);
    let mut bytes = world.0.get(&altered.1).await.unwrap().bytes().await.unwrap().to_vec();
    bytes.iter_mut().skip(100).for_each(|byte| *byte ^= 1);
    world.0.put(&altered.1, PutPayload::from(bytes)).await.unwrap();
    world.0.delete(&missing.1).await.unwrap();

    let (second, _) = world.open(OpenOptions::default()).await;
    let vfs = &second.vfs;
    let read = async |ino: Ino| vfs.read(Handle(0), ino, 0, BYTES).await;
    assert_eq!(read(sound.0).await.unwrap(), vec![3; BYTES]);
    assert_eq!(objects(vfs), []);
    for _ in 0..2 {
        assert!(matches!(read(altered.0).await, Err(VfsError::Data(_))));
    }
    let [met] = objects(vfs).try_into().unwrap();
    assert_eq!((met.object, met.file), (altered.1.to_string(), Some(altered.0.0)));
    assert!(met.what.contains("does not open"), "{}", met.what);
    for _ in 0..2 {
        assert!(matches!(read(missing.0).await, Err(VfsError::Data(_))));
    }
    let [_, met] = objects(vfs).try_into().unwrap();
    let want =
        Damaged { object: missing.1.to_string(), what: "it is missing".into(), file: Some(missing.0.0) };
    assert_eq!(met, want);
    assert_eq!(read(sound.0).await.unwrap(), vec![3; BYTES]);
    assert_eq!(objects(vfs).len(), 2);
    second.close().await.unwrap();
}

/// Something between answers for a bucket that is sound, for a moment.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_over_contents_that_are_damaged_for_a_moment_only_is_not_lost() {
    let world = World::new().await;
    let (first, _) = world.open(OpenOptions::default()).await;
    let ino = put(&first.vfs, b"1", 1).await;
    first.close().await.unwrap();
    let [segment] = segments(&world).await.try_into().unwrap();
    let sound = world.0.get(&segment).await.unwrap().bytes().await.unwrap();
    for (is_missing, at) in [(false, 100), (true, 100_000)] {
        let (opened, _) = world.open(OpenOptions::default()).await;
        let vfs = &opened.vfs;
        match is_missing {
            true => world.0.delete(&segment).await.unwrap(),
            false => {
                let altered: Vec<u8> = sound.iter().map(|byte| byte ^ 1).collect();
                drop(world.0.put(&segment, PutPayload::from(altered)).await.unwrap());
            }
        }
        vfs.write(ino, at, b"new bytes", true).await.unwrap();
        let syncing = tokio::spawn({
            let vfs = Arc::clone(vfs);
            async move { vfs.fsync(ino, false).await }
        });
        while vfs.status().damage.count == 0 {
            tokio::task::yield_now().await;
        }
        world.0.put(&segment, PutPayload::from_bytes(sound.clone())).await.unwrap();
        syncing.await.unwrap().expect("it is as it was");
        assert_eq!(&vfs.read(Handle(0), ino, at - 2, 13).await.unwrap()[..], b"\x01\x01new bytes\x01\x01");
        opened.close().await.unwrap();
    }
}

/// A copy of the bucket in which the object at `emptied` has no bytes.
async fn without_bytes_of(world: &World, emptied: &Path) -> World {
    let copy = InMemory::new();
    for meta in world.0.list(None).try_collect::<Vec<_>>().await.unwrap() {
        let bytes = if meta.location == *emptied {
            Default::default()
        } else {
            world.0.get(&meta.location).await.unwrap().bytes().await.unwrap()
        };
        copy.put(&meta.location, PutPayload::from_bytes(bytes)).await.unwrap();
    }
    World(Arc::new(copy))
}

async fn check_finds_nothing(world: &World) -> bool {
    let (bucket, factors) = (world.bucket(), factors());
    let opening = volume::examine(bucket, &factors, OpenOptions::default());
    let Ok(examined) = Box::pin(opening).await else { return false };
    let report = Box::pin(maint::check(&examined, &CheckOptions::default(), &|_| ())).await;
    examined.close().await;
    report.is_ok_and(|report| report.is_clean())
}

/// As a disk leaves it that lost power. Were it passed over, the volume would be there as it was before.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_object_of_the_records_that_has_no_bytes_is_damage_and_never_an_older_state() {
    let world = World::new().await;
    let (first, _) = world.open(OpenOptions::default()).await;
    for fill in 1..=3 {
        put(&first.vfs, &[b'0' + fill], fill).await;
    }
    // The process ends here, so that the newest records lie in logs.
    let records = world.0.list(Some(&Path::from("m"))).try_collect::<Vec<_>>().await.unwrap();
    let mut refused = 0;
    for emptied in records.iter().map(|meta| &meta.location) {
        let is_sound = check_finds_nothing(&without_bytes_of(&world, emptied).await).await;
        for read_only in [true, false] {
            let copy = without_bytes_of(&world, emptied).await;
            let vfs = VfsOptions { read_only, ..VfsOptions::default() };
            let options = OpenOptions { takeover: true, vfs, ..OpenOptions::default() };
            match Box::pin(volume::open(copy.bucket(), &factors(), options)).await {
                Ok(opened) => {
                    let names = opened.vfs.readdir(Ino::ROOT, 0, 100).await.unwrap();
                    assert_eq!(names.len(), 5, "{emptied}, read_only {read_only}: {names:?}");
                    opened.close().await.unwrap();
                }
                Err(error) => {
                    refused += 1;
                    assert!(!is_sound, "{emptied}: a check finds nothing");
                    let (mut told, mut cause) = (error.to_string(), error.source());
                    while let Some(source) = cause {
                        told = format!("{told}: {source}");
                        cause = source.source();
                    }
                    assert!(told.contains(emptied.as_ref()), "{emptied}, read_only {read_only}: {told}");
                }
            }
        }
    }
    assert!(refused > 0);
}
