//! Commits that would change what stands in records that cannot be read: they leave that out, and tell whom it concerns.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]
#![allow(dead_code)]

mod damaged;

use std::sync::Arc;

use coffer::base::Ino;
use coffer::maint::{Problem, Severity};
use coffer::meta::{Key, encode};
use coffer::vfs::{Handle, SetAttr, Vfs, VfsError};

use damaged::{CALLER, World, put, serious, sync, told};

const MIB: u64 = 1024 * 1024;
/// Of two pages, which are of 64 MiB each.
const SECOND_PAGE: u64 = 70 * MIB;

/// A volume whose file `pages` has contents in several pages, with one record that cannot be read.
struct Bench {
    world: World,
    pages: Ino,
    key: Key,
    sound: Vec<u8>,
}

impl Bench {
    async fn with_damaged(which: impl Fn(Ino) -> Key) -> Self {
        let world = World::with_everything().await;
        let pages = find(&world, b"pages").await;
        let key = which(pages);
        let records = world.records().await;
        let sound = encode(&records[&key]).unwrap();
        world.write_raw(vec![(key.encode(), Some(vec![1, 0xFF, 0xFF]))]).await;
        Self { world, pages, key, sound }
    }

    async fn mend(&self) {
        self.world.write_raw(vec![(self.key.encode(), Some(self.sound.clone()))]).await;
    }
}

async fn find(world: &World, name: &[u8]) -> Ino {
    let opened = world.mount(true).await;
    let found = opened.vfs.lookup(Ino::ROOT, name).await.unwrap().ino;
    opened.close().await.unwrap();
    found
}

async fn read(vfs: &Vfs, ino: Ino, offset: u64, len: usize) -> Result<Vec<u8>, VfsError> {
    vfs.read(Handle(0), ino, offset, len).await.map(|bytes| bytes.to_vec())
}

async fn cut(vfs: &Vfs, ino: Ino, size: u64) {
    let set = SetAttr { size: Some(size), ..SetAttr::default() };
    vfs.setattr(&CALLER, ino, &set).await.unwrap();
}

async fn nothing_is_wrong(world: &World) {
    let report = world.check(true).await;
    assert!(serious(&report).is_empty(), "{}", told(&report));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_removed_file_whose_records_cannot_be_read_stops_no_commit_and_is_freed_when_they_can() {
    let bench = Bench::with_damaged(|pages| Key::Extents(pages, 0)).await;
    let first = bench.world.mount(false).await;
    let files = first.vfs.status().files;
    first.vfs.unlink(Ino::ROOT, b"pages").await.unwrap();
    put(&first.vfs, Ino::ROOT, b"beside", b"written beside").await;
    sync(&first.vfs).await;
    let status = first.vfs.status();
    assert!(status.is_safe && status.lost_files == 0, "nobody has lost anything: {status:?}");
    assert_eq!(status.files, files + 1, "the removed file is there still, and the new one");
    assert_eq!(status.damage.objects[0].file, Some(bench.pages.0));
    first.close().await.unwrap();
    let report = bench.world.check(false).await;
    assert!(report.findings.iter().any(|found| found.problem == Problem::Orphan), "{}", told(&report));
    let grave = report.findings.iter().filter(|found| found.problem.severity() == Severity::Structure);
    assert_eq!(grave.count(), 1, "the record itself, and nothing more: {}", told(&report));

    // A later mount tries again, in vain.
    let second = bench.world.mount(false).await;
    let beside = second.vfs.lookup(Ino::ROOT, b"beside").await.unwrap().ino;
    assert_eq!(read(&second.vfs, beside, 0, 100).await.unwrap(), b"written beside");
    second.close().await.unwrap();

    bench.mend().await;
    bench.world.mount(false).await.close().await.unwrap();
    let records = bench.world.records().await;
    let left: Vec<_> = records.keys().filter(|key| is_of(key, bench.pages)).collect();
    assert!(left.is_empty(), "{left:?}");
    nothing_is_wrong(&bench.world).await;
}

fn is_of(key: &Key, file: Ino) -> bool {
    matches!(key, Key::Inode(ino) | Key::Orphan(ino) | Key::Extents(ino, _) | Key::Inline(ino, _) | Key::Xattr(ino, _)
        if *ino == file)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_written_to_a_page_that_cannot_be_read_is_told_as_lost_and_the_rest_committed() {
    let bench = Bench::with_damaged(|pages| Key::Extents(pages, 0)).await;
    let opened = bench.world.mount(false).await;
    let vfs = &opened.vfs;
    let block = vec![0xA5; 64 * 1024];
    vfs.write(bench.pages, 0, &block, true).await.unwrap();
    vfs.write(bench.pages, SECOND_PAGE, &block, true).await.unwrap();
    let beside = put(vfs, Ino::ROOT, b"beside", b"written beside").await;
    vfs.fsync(beside, false).await.unwrap();
    let error = vfs.fsync(bench.pages, false).await.unwrap_err();
    assert!(matches!(error, VfsError::LostWrite(_)), "{error}");
    vfs.fsync(bench.pages, false).await.expect("it is told once");
    assert!(read(vfs, bench.pages, 0, 100).await.is_err(), "nothing is made up");
    assert_eq!(read(vfs, bench.pages, SECOND_PAGE, block.len()).await.unwrap(), block);
    opened.close().await.unwrap();

    bench.mend().await;
    let opened = bench.world.mount(true).await;
    let older = read(&opened.vfs, bench.pages, 0, block.len()).await.unwrap();
    assert_eq!(older[..3], [4, 5, 6], "as it was committed last");
    assert_eq!(read(&opened.vfs, bench.pages, SECOND_PAGE, block.len()).await.unwrap(), block);
    opened.close().await.unwrap();
    nothing_is_wrong(&bench.world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_cannot_be_cut_keeps_its_size_and_what_it_held() {
    let bench = Bench::with_damaged(|pages| Key::Extents(pages, 0)).await;
    let golden = {
        let sound = bench.world.fork().await;
        sound.write_raw(vec![(bench.key.encode(), Some(bench.sound.clone()))]).await;
        sound.tree().await.unwrap()
    };
    let opened = bench.world.mount(false).await;
    let vfs = &opened.vfs;
    let size = vfs.getattr(bench.pages).await.unwrap().size;
    cut(vfs, bench.pages, 10).await;
    let syncing = tokio::spawn({
        let vfs = Arc::clone(vfs);
        async move { vfs.sync_all().await }
    });
    // In the next group, on top of a file of ten bytes that there will not be.
    while !vfs.status().is_committing {
        tokio::task::yield_now().await;
    }
    vfs.write(bench.pages, 5, b"more", true).await.unwrap();
    syncing.await.unwrap().expect_err("it is told");
    vfs.fsync(bench.pages, false).await.expect_err("it is told to who asks for the file");
    sync(vfs).await;
    assert_eq!(vfs.getattr(bench.pages).await.unwrap().size, size);
    assert_eq!(read(vfs, bench.pages, SECOND_PAGE, 3).await.unwrap(), [5, 6, 7]);
    opened.close().await.unwrap();

    bench.mend().await;
    assert_eq!(bench.world.tree().await.unwrap(), golden);
    nothing_is_wrong(&bench.world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_whose_inode_cannot_be_read_any_more_is_removed_when_it_can() {
    let bench = Bench::with_damaged(Key::Inode).await;
    // It is known from before that it cannot be read.
    let opened = bench.world.mount(false).await;
    let error = opened.vfs.unlink(Ino::ROOT, b"pages").await.unwrap_err();
    assert!(error.is_damage(), "{error}");
    put(&opened.vfs, Ino::ROOT, b"beside", b"written beside").await;
    sync(&opened.vfs).await;
    opened.close().await.unwrap();
    bench.mend().await;
    nothing_is_wrong(&bench.world).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_segment_whose_record_cannot_be_read_is_let_go_and_counted_too_high() {
    let world = World::with_everything().await;
    let late = find(&world, b"run").await;
    let records = world.records().await;
    let segments: Vec<_> = records.keys().filter(|key| matches!(key, Key::Segment(_))).copied().collect();
    let sound = segments.iter().map(|key| (key.encode(), Some(encode(&records[key]).unwrap()))).collect();
    world.write_raw(segments.iter().map(|key| (key.encode(), Some(vec![1, 0xFF, 0xFF]))).collect()).await;

    let opened = world.mount(false).await;
    cut(&opened.vfs, late, 0).await;
    put(&opened.vfs, Ino::ROOT, b"beside", b"written beside").await;
    sync(&opened.vfs).await;
    opened.close().await.unwrap();
    world.write_raw(sound).await;
    let report = world.check(true).await;
    assert!(
        serious(&report).iter().all(|found| format!("{:?}", found.problem).contains("Live")),
        "{}",
        told(&report)
    );
    assert!(!serious(&report).is_empty());
    world.repair(false).await;
    nothing_is_wrong(&world).await;
}
