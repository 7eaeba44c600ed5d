//! Blocks that copies shared: cleaned however many have shared them, and forgotten when they do no more.

use coffer::base::Ino;
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::vfs::{CleanOptions, Vfs, VfsOptions};
use coffer::volume::Opened;

use crate::world::{GRACE, World, contents, make, pattern};

/// More than a survey once looked at, after three rounds.
const FILES: u64 = 1500;
const BYTES: usize = 3000;

async fn copy(vfs: &Vfs, original: Ino, name: &str) -> Ino {
    let copied = make(vfs, name, b"").await;
    assert_eq!(vfs.copy_file_range(original, 0, copied, 0, BYTES as u64).await.unwrap(), BYTES as u64);
    copied
}

/// Records that tell of pages which share blocks.
async fn references(world: &World, opened: &Opened) -> usize {
    let store = opened.vault.meta_store(1 << 20);
    let options = EngineOptions::default();
    let reader = Engine::open(store, EngineMode::Reader, options, world.clock.clone()).await.unwrap();
    let found = reader.scan(b"R".to_vec(), b"S".to_vec(), usize::MAX).await.unwrap().len();
    reader.close().await.unwrap();
    found
}

#[tokio::test]
async fn segments_that_copies_shared_are_cleaned_when_the_copies_are_gone() {
    let clean = CleanOptions { slack_bytes: 0, ..CleanOptions::default() };
    let world = World::new(VfsOptions { clean, ..VfsOptions::default() }).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let mut originals = Vec::new();
    for number in 0..FILES {
        originals.push(make(vfs, &format!("original {number}"), &pattern(number, BYTES)).await);
    }
    vfs.sync_all().await.unwrap();
    for _ in 0..3 {
        for (number, original) in originals.iter().enumerate() {
            copy(vfs, *original, &format!("copy {number}")).await;
        }
        vfs.sync_all().await.unwrap();
        for number in 0..FILES {
            vfs.unlink(Ino::ROOT, format!("copy {number}").as_bytes()).await.unwrap();
        }
        vfs.sync_all().await.unwrap();
    }
    assert_eq!(references(&world, &opened).await, 3 * FILES as usize, "they shared what they copied");
    let kept = copy(vfs, originals[0], "kept").await;
    for number in (0..FILES).filter(|number| number % 10 != 0) {
        vfs.unlink(Ino::ROOT, format!("original {number}").as_bytes()).await.unwrap();
    }
    vfs.sync_all().await.unwrap();
    for _ in 0..2 {
        println!("{:?}", vfs.reclaim().await.unwrap());
        world.clock.advance(GRACE);
    }
    let stored: u64 = world.segments().await.values().sum();
    let live = FILES / 10 * BYTES as u64;
    assert!(stored * 10 <= live * 13, "{stored} bytes in segments, {live} live");
    assert_eq!(references(&world, &opened).await, 1, "one copy is left");
    for number in (0..FILES as usize).step_by(10) {
        assert!(contents(vfs, originals[number]).await == pattern(number as u64, BYTES), "{number}");
    }
    assert!(contents(vfs, kept).await == pattern(0, BYTES));
    opened.close().await.unwrap();
}
