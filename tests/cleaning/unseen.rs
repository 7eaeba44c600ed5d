//! Nobody sees cleaning, and whatever happens to a file meanwhile wins.

use std::sync::Arc;
use std::time::Duration;

use coffer::base::Ino;
use coffer::vfs::{Handle, SeekFor, SetAttr, Vfs};

use crate::world::{BLOCK, CALLER, GRACE, World, contents, make, pattern, small_segments, sparse_file};

#[tokio::test]
async fn nothing_that_a_program_can_see_is_changed() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let (ino, data) = sparse_file(vfs, "a", 64).await;
    let punch = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    vfs.fallocate(ino, punch, 7 * BLOCK as u64, 5 * BLOCK as u64).await.unwrap();
    vfs.sync_all().await.unwrap();
    let holes = async || {
        let mut edges = Vec::new();
        let mut at = 0;
        while let Ok(data) = vfs.seek(ino, at, SeekFor::Data).await {
            at = vfs.seek(ino, data, SeekFor::Hole).await.unwrap();
            edges.push((data, at));
        }
        edges
    };
    let (attr, edges, stored) = (vfs.getattr(ino).await.unwrap(), holes().await, vfs.status().stored_bytes);
    world.clock.advance(Duration::from_secs(5));
    let done = vfs.reclaim().await.unwrap();
    assert!(done.rewritten.count > 0);
    assert_eq!(
        (vfs.getattr(ino).await.unwrap(), holes().await, vfs.status().stored_bytes),
        (attr, edges, stored)
    );
    assert!(vfs.status().is_safe);
    let read = contents(vfs, ino).await;
    assert!(read[..7 * BLOCK] == data[..7 * BLOCK] && read[12 * BLOCK..] == data[12 * BLOCK..]);
    assert!(read[7 * BLOCK..12 * BLOCK].iter().all(|byte| *byte == 0));
}

#[tokio::test]
async fn whatever_happens_to_a_file_while_its_blocks_move_wins() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = Arc::clone(&opened.vfs);
    let mut files = Vec::new();
    for name in ["over", "part", "cut", "gone", "named", "copied", "shared-then-written", "kept"] {
        files.push(sparse_file(&vfs, name, 16).await);
    }
    world.store.segment_puts.shut();
    let cleaner = Arc::clone(&vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.segment_puts.met().await;

    let at = 3 * BLOCK as u64;
    let new = pattern(5, BLOCK);
    vfs.write(files[0].0, at, &new, true).await.unwrap();
    files[0].1[3 * BLOCK..4 * BLOCK].copy_from_slice(&new);
    vfs.write(files[1].0, at + 10, b"in part", true).await.unwrap();
    files[1].1[3 * BLOCK + 10..][..7].copy_from_slice(b"in part");
    let cut = SetAttr { size: Some(at), ..SetAttr::default() };
    vfs.setattr(&CALLER, files[2].0, &cut).await.unwrap();
    files[2].1.truncate(at as usize);
    vfs.unlink(Ino::ROOT, b"gone").await.unwrap();
    let mode = coffer::vfs::RenameMode::Replace;
    vfs.rename(Ino::ROOT, b"named", Ino::ROOT, b"renamed", mode).await.unwrap();
    let copy = make(&vfs, "copy", b"").await;
    assert_eq!(
        vfs.copy_file_range(files[5].0, 0, copy, 0, 16 * BLOCK as u64).await.unwrap(),
        16 * BLOCK as u64
    );
    let copy2 = make(&vfs, "copy2", b"").await;
    vfs.copy_file_range(files[6].0, 0, copy2, 0, 16 * BLOCK as u64).await.unwrap();
    // A part of a shared block: what lies under it is the block that moves.
    vfs.write(copy2, at + 20, b"in the copy", true).await.unwrap();
    let mut second = files[6].1.clone();
    second[3 * BLOCK + 20..][..11].copy_from_slice(b"in the copy");
    vfs.write(files[6].0, at, &new, true).await.unwrap();
    files[6].1[3 * BLOCK..4 * BLOCK].copy_from_slice(&new);

    world.store.segment_puts.open();
    cleaning.await.unwrap().unwrap();
    files.push((copy, files[5].1.clone()));
    files.push((copy2, second));
    files.remove(3);
    for round in 0..2 {
        for (number, (ino, data)) in files.iter().enumerate() {
            assert!(contents(&vfs, *ino).await == *data, "round {round}: file {number} differs");
        }
        vfs.sync_all().await.unwrap();
        world.clock.advance(GRACE);
        vfs.reclaim().await.unwrap();
    }
    drop(vfs);
    opened.close().await.unwrap();
    let opened = world.mount().await;
    for (number, (ino, data)) in files.iter().enumerate() {
        assert!(contents(&opened.vfs, *ino).await == *data, "mounted again: file {number} differs");
    }
}

/// The group that commits the moves is sealed; the next one shares a block from where it was found.
#[tokio::test]
async fn a_copy_made_while_the_moves_are_committed_follows_them() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = Arc::clone(&opened.vfs);
    let (ino, data) = sparse_file(&vfs, "a", 16).await;
    world.store.record_puts.shut();
    let cleaner = Arc::clone(&vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.record_puts.met().await;
    assert!(vfs.status().is_safe, "what is committed has been in the bucket before");
    let whole = vfs.create(&CALLER, Ino::ROOT, b"whole", 0o644, true).await.unwrap().ino;
    let part = vfs.create(&CALLER, Ino::ROOT, b"part", 0o644, true).await.unwrap().ino;
    for copy in [whole, part] {
        vfs.copy_file_range(ino, 0, copy, 0, 16 * BLOCK as u64).await.unwrap();
    }
    vfs.write(part, 3 * BLOCK as u64 + 5, b"part", true).await.unwrap();
    vfs.unlink(Ino::ROOT, b"a").await.unwrap();
    world.store.record_puts.open();
    cleaning.await.unwrap().unwrap();
    vfs.sync_all().await.unwrap();
    for _ in 0..2 {
        world.clock.advance(GRACE);
        vfs.reclaim().await.unwrap();
    }
    let mut changed = data.clone();
    changed[3 * BLOCK + 5..][..4].copy_from_slice(b"part");
    drop(vfs);
    opened.close().await.unwrap();
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, whole).await == data);
    assert!(contents(&opened.vfs, part).await == changed);
}

#[tokio::test]
async fn shared_blocks_are_moved_once_and_stay_shared() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let data = pattern(3, 32 * BLOCK);
    let original = make(vfs, "original", &data).await;
    vfs.sync_all().await.unwrap();
    let mut copies = Vec::new();
    for name in ["one", "two"] {
        let copy = make(vfs, name, b"").await;
        // Every fourth block, at another place than in the original.
        for block in (0..32u64).filter(|block| block % 4 == 1) {
            let (from, to) = (block * BLOCK as u64, (block + 2000) * BLOCK as u64);
            assert_eq!(
                vfs.copy_file_range(original, from, copy, to, BLOCK as u64).await.unwrap(),
                BLOCK as u64
            );
        }
        copies.push(copy);
    }
    vfs.sync_all().await.unwrap();
    vfs.unlink(Ino::ROOT, b"original").await.unwrap();
    vfs.sync_all().await.unwrap();
    let check = async |vfs: &Vfs, copy: Ino| {
        for block in (0..32).filter(|block| block % 4 == 1) {
            let at = (block as u64 + 2000) * BLOCK as u64;
            let read = vfs.read(Handle(0), copy, at, BLOCK).await.unwrap();
            assert!(read == data[block * BLOCK..][..BLOCK], "block {block}");
        }
    };
    for _ in 0..3 {
        let done = vfs.reclaim().await.unwrap();
        println!("{done:?}");
        world.clock.advance(GRACE);
    }
    let bytes: u64 = world.segments().await.values().sum();
    assert!(bytes < 9 * BLOCK as u64, "{bytes} bytes for eight blocks that two files share");
    check(vfs, copies[0]).await;
    vfs.unlink(Ino::ROOT, b"one").await.unwrap();
    vfs.sync_all().await.unwrap();
    check(vfs, copies[1]).await;
    vfs.unlink(Ino::ROOT, b"two").await.unwrap();
    vfs.sync_all().await.unwrap();
    world.clock.advance(GRACE);
    vfs.reclaim().await.unwrap();
    assert!(world.segments().await.is_empty());
}

/// A mount that was taken over, and has not heard of it, called what its successor has deleted damaged.
#[tokio::test]
async fn what_a_successor_has_deleted_is_no_damage() {
    let world = World::new(coffer::vfs::VfsOptions::default()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 40 * BLOCK)).await;
    opened.close().await.unwrap();
    let earlier = world.mount().await;
    let later = world.mount().await;
    later.vfs.unlink(coffer::base::Ino::ROOT, b"a").await.unwrap();
    later.vfs.sync_all().await.unwrap();
    world.clock.advance(GRACE);
    later.vfs.reclaim().await.unwrap();
    assert!(world.segments().await.is_empty());

    let read = earlier.vfs.read(coffer::vfs::Handle(0), ino, 0, BLOCK).await;
    assert!(matches!(read, Err(coffer::vfs::VfsError::Fenced)), "{read:?}");
    let status = earlier.vfs.status();
    assert_eq!((status.state, status.damage.objects.len()), ("fenced", 0));
    later.close().await.unwrap();
}
