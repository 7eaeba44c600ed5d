//! Damage that a mount meets at work is told: which object, what does not fit, and for which file.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use coffer::base::Ino;
use coffer::vfs::{Damaged, Handle, Vfs, VfsError};
use coffer::volume::OpenOptions;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};

use in_memory::{CALLER, World};

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
