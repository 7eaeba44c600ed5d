//! What contents leave of their memory is used for records, and given back.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use coffer::base::Ino;
use coffer::vfs::{Handle, Vfs};
use coffer::volume::OpenOptions;

use in_memory::{CALLER, World};

const MIB: u64 = 1024 * 1024;
const DIRS: usize = 20;
const FILES: usize = 1000;
/// Of contents; half as much again is read.
const BLOCKS_BYTES: u64 = 8 * MIB;
const STREAM_BYTES: u64 = BLOCKS_BYTES / 2 * 3;
/// A quarter of the records' tables: half of it for sealed ones, half for opened.
const TABLES_BYTES: u64 = MIB;

fn options() -> OpenOptions {
    let mut options = OpenOptions::default();
    (options.cache_bytes, options.table_cache_bytes) = (BLOCKS_BYTES, TABLES_BYTES);
    options.vfs.record_cache_bytes = 64 * 1024;
    options
}

async fn make(world: &World) {
    let (opened, _) = world.open(options()).await;
    let vfs = &opened.vfs;
    for dir in 0..DIRS {
        let dir = vfs.mkdir(&CALLER, Ino::ROOT, format!("{dir}").as_bytes(), 0o755).await.unwrap().ino;
        for file in 0..FILES {
            let file = vfs.create(&CALLER, dir, format!("{file}").as_bytes(), 0o644, true).await.unwrap();
            vfs.forget(file.ino, 1);
        }
        vfs.sync_all().await.unwrap();
    }
    let stream = vfs.create(&CALLER, Ino::ROOT, b"stream", 0o644, true).await.unwrap().ino;
    for at in (0..STREAM_BYTES).step_by(MIB as usize) {
        vfs.write(stream, at, &vec![7; MIB as usize], true).await.unwrap();
    }
    opened.close().await.unwrap();
}

/// Looks at every file, each directory from end to end before the next.
async fn look_at_all(vfs: &Vfs) {
    for dir in 0..DIRS {
        let dir = vfs.lookup(Ino::ROOT, format!("{dir}").as_bytes()).await.unwrap().ino;
        for file in 0..FILES {
            let file = vfs.lookup(dir, format!("{file}").as_bytes()).await.unwrap().ino;
            vfs.forget(file, 1);
        }
        vfs.forget(dir, 1);
    }
}

async fn read_stream(vfs: &Vfs) {
    let stream = vfs.lookup(Ino::ROOT, b"stream").await.unwrap().ino;
    for at in (0..STREAM_BYTES).step_by(MIB as usize) {
        assert_eq!(vfs.read(Handle(0), stream, at, MIB as usize).await.unwrap().len(), MIB as usize);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn records_that_do_not_fit_into_their_part_stay_in_what_contents_leave_and_give_it_back() {
    let world = World::new().await;
    make(&world).await;
    let (opened, bucket) = world.open(options()).await;
    let vfs = &opened.vfs;
    let gets = || bucket.meter().snapshot().requests();
    let mut seen = Vec::new();
    for is_warm in [false, true, true] {
        let before = gets();
        look_at_all(vfs).await;
        seen.push(gets() - before);
        assert_eq!(is_warm, seen[seen.len() - 1] == 0, "requests of each look at all: {seen:?}");
    }
    let lent = vfs.memory();
    assert!(lent.tables > 2 * TABLES_BYTES, "{lent:?}");
    read_stream(vfs).await;
    let streamed = vfs.memory();
    assert!(streamed.tables <= TABLES_BYTES && streamed.blocks > BLOCKS_BYTES / 8 * 7, "{streamed:?}");
    // Who looks at them again has the place of what was read once.
    look_at_all(vfs).await;
    let before = gets();
    look_at_all(vfs).await;
    assert_eq!(gets() - before, 0, "{:?}", vfs.memory());
    for used in [lent, streamed, vfs.memory()] {
        assert!(used.tables + used.blocks <= TABLES_BYTES + BLOCKS_BYTES, "{used:?}");
    }
    opened.close().await.unwrap();
}
