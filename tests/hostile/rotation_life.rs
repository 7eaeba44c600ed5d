//! A volume whose key is rotated in the midst of its life: mounts beside it, what is shared or damaged, what comes after.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer::base::Ino;
use coffer::crypto::MacLabel;
use coffer::keys;
use coffer::meta::engine::EngineMode;
use coffer::vfs::VfsError;
use coffer::volume::unsent::{Item, Shelf};
use coffer::volume::{OpenOptions, VolumeError};

use crate::rotation::{begin, copy_of, end, engine, is_whole, live, read_only, rotate, unlock, vault};
use crate::store::{Hostile, Objects};
use crate::world::{BLOCK, Seen, World, agrees, create, open, options, pattern, put, read, runtime, tree};

/// Nothing that is read needs them, and collecting them needs nothing that does not open.
#[test]
fn what_is_left_of_before_a_rotation_is_collected_as_usual_but_for_fences() {
    let world = World::new();
    let store = world.store();
    runtime().block_on(async {
        rotate(&store, None, 1).await;
        let old = |store: &Arc<Hostile>| -> Vec<(String, Bytes)> {
            let sealed = |name: &String| name.starts_with("m/") || name.starts_with("d/");
            store.objects().into_iter().filter(|(name, bytes)| sealed(name) && bytes[7] == 1).collect()
        };
        let before = old(&store).len();
        let opened = open(&store, options(None, 9)).await.unwrap();
        put(&opened.vfs, Ino::ROOT, "after", b"so that there is something to do").await;
        opened.vfs.sync_all().await.unwrap();
        tokio::time::sleep(Duration::from_secs(3 * 3600)).await;
        opened.vfs.reclaim().await.unwrap();
        opened.close().await.unwrap();
        let left = old(&store);
        println!("{before} objects of before the rotation, {} of them left", left.len());
        assert!(left.len() * 2 < before);
        for (name, bytes) in &left {
            // A head and the tag of no byte.
            assert_eq!(bytes.len(), 80, "{name} is no fence");
        }
        let seen = read(&store, None).await.unwrap();
        assert!(seen.len() == world.newest().len() + 1 && seen.values().all(Seen::is_whole));
    });
}

#[test]
fn a_machine_that_knows_an_earlier_key_follows_two_rotations_and_keeps_its_pin() {
    let world = World::new();
    let (store, busy, away) = (world.store(), copy_of(world.machine.path()), copy_of(world.machine.path()));
    runtime().block_on(async {
        rotate(&store, Some(busy.path()), 1).await;
        is_whole(&world, &store, Some(busy.path())).await;
        let second = rotate(&store, Some(busy.path()), 2).await;
        assert_eq!(second.identity, unlock(&store).header.identity());
        let header = unlock(&store).header;
        assert_eq!((header.epoch, header.earlier.len(), header.is_rotating()), (3, 2, false));
        is_whole(&world, &store, Some(away.path())).await;
        is_whole(&world, &store, Some(busy.path())).await;
        let (_, live) = live(&store).await;
        assert!(live.segments.values().all(|segment| segment.seal.epoch == 3));
    });
    // Its pin is of the history that both share: an older state is refused as before.
    let (older, _) = &world.states[world.states.len() - 2];
    let mut objects = older.clone();
    objects.extend(store.objects().into_iter().filter(|(name, _)| name.starts_with("header/")));
    let read = runtime().block_on(read(&Hostile::of(objects), Some(away.path().to_owned())));
    assert!(read.is_err(), "{read:?}");
}

#[test]
fn a_mount_that_began_before_a_rotation_says_that_there_is_a_new_key() {
    let world = World::new();
    let store = world.store();
    let elsewhere = tempfile::tempdir().unwrap();
    runtime().block_on(async {
        let reading = OpenOptions { vfs: read_only(), ..options(None, 3) };
        let reader = open(&store, reading.clone()).await.unwrap();
        let writer = open(&store, options(Some(elsewhere.path().to_owned()), 4)).await.unwrap();
        let run = writer.vfs.lookup(Ino::ROOT, b"run").await.unwrap();
        put(&writer.vfs, Ino::ROOT, "unsent", &pattern(80, 5000)).await;
        rotate(&store, None, 1).await;

        let refused = reader.vfs.follow().await;
        assert!(matches!(refused, Err(VfsError::NewKey)), "{refused:?}");
        assert_eq!(reader.vfs.status().state, "outdated");
        for error in [
            reader.vfs.lookup(Ino::ROOT, b"run").await.unwrap_err(),
            reader.vfs.getattr(run.ino).await.unwrap_err(),
            reader.vfs.readdir(Ino::ROOT, 0, 10).await.map(|_| ()).unwrap_err(),
        ] {
            assert!(!error.is_damage() && error.errno() == libc::EKEYREVOKED, "{error}");
        }
        drop(reader.close().await);
        let fresh = open(&store, reading).await.unwrap();
        fresh.vfs.lookup(Ino::ROOT, b"run").await.unwrap();
        fresh.close().await.unwrap();

        // The writer was taken over, and keeps what it had not sent under the key that it had.
        let refused = writer.vfs.sync_all().await;
        assert!(matches!(refused, Err(VfsError::Fenced)), "{refused:?}");
        assert!(matches!(writer.close().await, Err(VolumeError::Vfs(VfsError::Fenced))));
        let unlocked = unlock(&store);
        let shelf = Shelf::of(elsewhere.path(), unlocked.volume);
        let ids = shelf.ids().unwrap();
        assert_eq!(ids.len(), 1);
        let mut saved = shelf.open(&unlocked.ring, ids[0]).unwrap();
        let mut bytes = Vec::new();
        while let Some(item) = saved.next_item().unwrap() {
            if let Item::Data(_, part) = item {
                bytes.extend_from_slice(&part);
            }
        }
        assert_eq!(bytes, pattern(80, 5000));
    });
}

/// A volume in which files share blocks, and nothing tells who does.
async fn sharing(store: &Arc<Hostile>) -> coffer::volume::Opened {
    create(store, coffer::keys::Compression::None, 3).await;
    let opened = open(store, options(None, 4)).await.unwrap();
    let vfs = &opened.vfs;
    let first = put(vfs, Ino::ROOT, "first", &pattern(1, 5 * BLOCK)).await;
    vfs.sync_all().await.unwrap();
    for (name, from) in [("second", 0), ("third", 2 * BLOCK as u64)] {
        let copy = put(vfs, Ino::ROOT, name, b"").await;
        vfs.copy_file_range(first, from, copy, 0, 3 * BLOCK as u64).await.unwrap();
        vfs.copy_file_range(first, 0, copy, 65 << 20, BLOCK as u64).await.unwrap();
    }
    vfs.unlink(Ino::ROOT, b"first").await.unwrap();
    vfs.forget(first, 1);
    vfs.sync_all().await.unwrap();
    opened
}

async fn drop_references(store: &Arc<Hostile>) -> usize {
    let vault = vault(store, unlock(store).ring);
    let engine = engine(&vault, EngineMode::Writer).await;
    let found = engine.scan(b"R".to_vec(), b"S".to_vec(), 1000).await.unwrap();
    let count = found.len();
    engine.write_durable(found.into_iter().map(|(key, _)| (key.to_vec(), None)).collect()).await.unwrap();
    engine.close().await.unwrap();
    count
}

#[test]
fn what_nobody_knows_the_owners_of_is_sealed_anew_too() {
    let store = Hostile::of(Objects::new());
    runtime().block_on(async {
        let opened = sharing(&store).await;
        let before = tree(&opened.vfs).await;
        opened.close().await.unwrap();
        assert!(drop_references(&store).await > 0);
        let rotated = rotate(&store, None, 5).await;
        assert!(rotated.renewed.segments.count > 0);
        let after = read(&store, None).await.unwrap();
        agrees(&after, &before).unwrap();
        assert!(after.len() == before.len() && after.values().all(Seen::is_whole));
        let (_, live) = live(&store).await;
        assert!(!live.segments.is_empty() && live.segments.values().all(|segment| segment.seal.epoch == 2));
    });
}

#[test]
fn a_rotation_does_not_end_while_something_in_use_is_damaged_and_ends_when_it_is_not() {
    let world = World::new();
    let store = world.store();
    runtime().block_on(async {
        let (_, before) = live(&store).await;
        let id = before.segments.iter().max_by_key(|(_, segment)| segment.live).unwrap().0.to_string();
        let name = world.objects.keys().find(|name| name.ends_with(&id)).unwrap().clone();
        let mut damaged = world.objects[&name].to_vec();
        damaged[70] ^= 1;
        store.plant(&name, damaged.into());
        let options = options(None, 6);
        begin(&store, &options).await.unwrap();
        let refused = end(&store, &options).await;
        assert!(
            matches!(&refused, Err(VolumeError::Vfs(VfsError::NotRenewed { first, .. })) if *first == id),
            "{refused:?}"
        );
        assert!(unlock(&store).header.is_rotating());
        // Everything else reads, and a new rotation is not begun in the middle of this one.
        let seen = read(&store, None).await.unwrap();
        agrees(&seen, world.newest()).unwrap();
        assert!(seen.values().any(|seen| !seen.is_whole()));
        assert!(matches!(begin(&store, &options).await, Err(VolumeError::Key(keys::KeyError::Rotating))));
        store.plant(&name, world.objects[&name].clone());
        end(&store, &options).await.unwrap();
        is_whole(&world, &store, None).await;
    });
}

#[test]
fn a_mounted_volume_is_not_rotated_unless_it_is_taken_over() {
    let world = World::new();
    let store = world.store();
    runtime().block_on(async {
        // A session that has ended without a word still holds it.
        let options = OpenOptions { takeover: false, ..options(None, 8) };
        assert!(matches!(begin(&store, &options).await, Err(VolumeError::InUse { .. })));
        assert_eq!(unlock(&store).header.epoch, 1);
        rotate(&store, None, 8).await;
    });
}

#[test]
fn the_chain_of_commits_is_one_through_a_rotation() {
    let world = World::new();
    let (store, machine) = (world.store(), copy_of(world.machine.path()));
    let mac = |store| unlock(store).ring.mac(MacLabel::Commit, &[b"the same"]);
    let before = mac(&store);
    runtime().block_on(async {
        rotate(&store, Some(machine.path()), 1).await;
        // A writer goes on from there, and whoever knew the volume before follows.
        let opened = open(&store, options(Some(machine.path().to_owned()), 9)).await.unwrap();
        put(&opened.vfs, Ino::ROOT, "after", b"written with the new key").await;
        opened.vfs.tidy_records().await.unwrap();
        opened.vfs.reclaim().await.unwrap();
        opened.close().await.unwrap();
        let seen = read(&store, Some(world.machine.path().to_owned())).await.unwrap();
        assert!(seen["/after"].is_whole() && seen.values().all(Seen::is_whole));
    });
    assert_eq!(mac(&store), before);
}
