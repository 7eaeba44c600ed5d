//! What is held in memory, counted by the allocator: the estimates are honest, and a mount keeps to its budget.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::alloc::{GlobalAlloc, Layout, System};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use coffer::base::{BLOCK_BYTES, FileKind, Ino, Name, OsEntropy, SystemClock, Tag, Time};
use coffer::data::Dirty;
use coffer::meta::{Body, Entry, Inode, Key, Overlay, Record};
use coffer::store::{self, Bucket, StoreOptions};
use coffer::vfs::{Handle, Vfs};
use coffer::volume::{self, Budget, OpenOptions};

use in_memory::{CALLER, factors, spec};

/// Counts what is allocated, as a common allocator would round it up.
struct Counting;

static LIVE: AtomicUsize = AtomicUsize::new(0);
static PEAK: AtomicUsize = AtomicUsize::new(0);
/// How often memory for just a block was asked for.
static BLOCKS: AtomicUsize = AtomicUsize::new(0);

fn rounded(bytes: usize) -> usize {
    bytes.next_multiple_of(16) + 8
}

#[allow(unsafe_code)] // it passes everything on to the system's allocator as it comes
unsafe impl GlobalAlloc for Counting {
    unsafe fn alloc(&self, layout: Layout) -> *mut u8 {
        let live = LIVE.fetch_add(rounded(layout.size()), Ordering::Relaxed) + rounded(layout.size());
        PEAK.fetch_max(live, Ordering::Relaxed);
        BLOCKS.fetch_add(usize::from(layout.size() == BLOCK_BYTES), Ordering::Relaxed);
        unsafe { System.alloc(layout) }
    }

    unsafe fn dealloc(&self, at: *mut u8, layout: Layout) {
        LIVE.fetch_sub(rounded(layout.size()), Ordering::Relaxed);
        unsafe { System.dealloc(at, layout) }
    }
}

#[global_allocator]
static ALLOCATOR: Counting = Counting;

const MIB: usize = 1024 * 1024;

fn live() -> usize {
    LIVE.load(Ordering::Relaxed)
}

/// The most that was live since the last time.
fn peak() -> usize {
    PEAK.swap(live(), Ordering::Relaxed)
}

/// Asserts that `counted` bytes is an honest estimate of `measured` ones.
fn assert_honest(what: &str, counted: usize, measured: usize) {
    println!("{what}: counted {counted}, measured {measured}");
    assert!(counted * 100 >= measured * 85, "{what}: {counted} are counted and {measured} taken");
    assert!(counted * 100 <= measured * 160, "{what}: {counted} are counted and only {measured} taken");
}

fn inode() -> Record {
    let now = Time { secs: 1, nanos: 2 };
    Record::Inode(Arc::new(Inode {
        kind: FileKind::Regular,
        perm: 0o644,
        uid: 1,
        gid: 1,
        nlink: 1,
        rdev: 0,
        size: 100,
        allocated: 100,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: Ino(0),
        entries: 0,
        xattrs: 0,
        body: Body::Inline,
    }))
}

fn entry(number: u64) -> (Key, Record) {
    let tag = Tag(u128::from(number).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835).to_be_bytes());
    let entry = Entry::new(vec![7; 24], Ino(number), FileKind::Regular);
    // As a listing leaves it.
    let _ = entry.opened.get_or_open(|| Name::new(&[7; 24]));
    (Key::Entry(Ino(1), tag), Record::Entry(Arc::new(entry)))
}

/// One after the other: they share the allocator's counters.
#[test]
fn memory_is_counted_honestly_and_kept_to() {
    changed_records_weigh_what_they_take();
    cached_records_weigh_what_they_take();
    changed_contents_weigh_what_they_take();
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .max_blocking_threads(8)
        .enable_all()
        .build()
        .unwrap();
    for memory in [64, 256] {
        runtime.block_on(a_mount_keeps_to_its_budget(memory * MIB));
    }
}

fn changed_records_weigh_what_they_take() {
    let before = live();
    let mut overlay = Overlay::new(1);
    for number in 0..20_000 {
        overlay.put_new(Key::Inode(Ino(number)), inode());
        let (key, record) = entry(number);
        overlay.put_new(key, record);
    }
    assert_honest("changed inodes and entries", overlay.changed_bytes(), live() - before);
    overlay.seal();
    assert_honest("the same, sealed", overlay.changed_bytes(), live() - before);
    for number in 0..20_000 {
        overlay.put(Key::Inode(Ino(number)), None);
    }
    assert_honest("with removals over them", overlay.changed_bytes(), live() - before);
    overlay.settle(Vec::new());
    (0..20_000).for_each(|number| overlay.put(Key::Inode(Ino(number)), Some(inode())));
    assert_honest("changed back", overlay.changed_bytes(), live() - before);
}

fn cached_records_weigh_what_they_take() {
    let before = live();
    let mut overlay = Overlay::new(100 * MIB);
    let mut remember = |key, record| {
        let since = overlay.begin_load(key);
        overlay.end_load(key, since, Some(record));
    };
    for number in 0..30_000 {
        remember(Key::Inode(Ino(number)), Some(inode()));
        let (key, record) = entry(number);
        remember(key, Some(record));
        remember(Key::Xattr(Ino(number), Tag([1; 16])), None);
    }
    assert_honest("cached inodes, entries and absences", overlay.cache_bytes(), live() - before);
}

fn changed_contents_weigh_what_they_take() {
    for (what, files, blocks, bytes, is_over_older) in [
        ("tiny files", 10_000, 1, 10, false),
        ("small files", 5000, 1, 3000, false),
        ("whole blocks", 10, 100, 65_536, true),
        ("pieces of blocks", 10, 2000, 100, false),
        ("pieces of older blocks", 10, 200, 100, true),
    ] {
        let before = live();
        let mut dirty = Dirty::default();
        for file in 0..files {
            for block in 0..blocks {
                let size = if is_over_older { 1 << 40 } else { block * 65_536 };
                dirty.write(Ino(file), block * 65_536, &vec![7; bytes], size);
            }
        }
        let counted = dirty.held_bytes();
        dirty.seal();
        if is_over_older && bytes < 65_536 {
            let older = vec![1; 65_536];
            for (file, block) in (0..files).flat_map(|file| (0..blocks).map(move |block| (file, block))) {
                dirty.complete_sealed(Ino(file), block, &older);
            }
            drop(older);
        }
        let measured = live() - before;
        println!("{what}: counted {counted}, measured {measured}");
        assert!(counted * 100 >= measured * 85, "{what}: {counted} are counted and {measured} taken");
        // A part is for the commit, which is still to come.
        assert!(counted <= measured * 2, "{what}: {counted} are counted and only {measured} taken");
        dirty.settle(&[], &[]);
        assert_eq!(dirty.held_bytes(), 0);
    }
}

/// A mount without a kernel: what its parts hold together, at the worst moment of each kind of use.
async fn a_mount_keeps_to_its_budget(memory: usize) {
    let dir = tempfile::tempdir().unwrap();
    let bucket = || store::open(dir.path().to_str().unwrap(), &StoreOptions::default()).unwrap();
    create(&bucket()).await;
    let mut options = OpenOptions::default();
    Budget::of(memory as u64, None, None).unwrap().apply(&mut options);
    let before = live();
    let opened = volume::open(bucket(), &factors(), options).await.unwrap();
    let vfs = &opened.vfs;
    let told = |what: &str| {
        let most = peak().saturating_sub(before);
        println!("{} MiB, {what}: at most {} MiB", memory / MIB, most / MIB);
        assert!(most <= memory + 16 * MIB, "{what}: {most} bytes were live, of a budget of {memory}");
    };
    peak();
    make_files(vfs, 0..20_000).await;
    told("20,000 files made");
    vfs.sync_all().await.unwrap();
    told("synced");
    read_files(vfs, 20_000).await;
    told("read");
    let size = 4 * memory as u64;
    let stream = vfs.create(&CALLER, Ino::ROOT, b"stream", 0o644, true).await.unwrap().ino;
    let piece = vec![7; MIB];
    let write = async |range: Range<u64>| {
        for at in range.step_by(MIB) {
            vfs.write(stream, at, &piece, true).await.unwrap();
        }
    };
    write(0..size / 2).await;
    // What a mount of little memory keeps for it is no more than a few blocks.
    let tell_fresh = |what: &str, fresh: usize, most: usize| {
        let blocks = size as usize / 2 / BLOCK_BYTES;
        println!("{} MiB, {what}: memory for {fresh} of {blocks} blocks is new", memory / MIB);
        assert!(memory < 256 * MIB || fresh * 100 < blocks * most, "{what}: {fresh} of {blocks}");
    };
    let fresh = BLOCKS.load(Ordering::Relaxed);
    write(size / 2..size).await;
    // Blocks wait for their segment, and those of one before become free all at once.
    tell_fresh("a stream goes on", BLOCKS.load(Ordering::Relaxed) - fresh, 75);
    vfs.sync_all().await.unwrap();
    told("a stream written");
    let handle = vfs.open(stream, false, false).await.unwrap();
    let read = async |range: Range<u64>| {
        for at in range.step_by(MIB / 8) {
            assert_eq!(vfs.read(handle, stream, at, MIB / 8).await.unwrap().len(), MIB / 8);
        }
    };
    read(0..size / 2).await;
    let fresh = BLOCKS.load(Ordering::Relaxed);
    read(size / 2..size).await;
    tell_fresh("a stream is read on", BLOCKS.load(Ordering::Relaxed) - fresh, 5);
    vfs.release(handle);
    told("a stream read");
    opened.close().await.unwrap();
    told("closed");
}

async fn create(bucket: &Bucket) {
    let clock = Arc::new(SystemClock::default());
    volume::create(bucket, &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
}

fn contents(number: u64) -> Vec<u8> {
    vec![number as u8; 1 + number as usize * 577 % 4096]
}

async fn make_files(vfs: &Vfs, numbers: Range<u64>) {
    for number in numbers {
        let name = format!("file-{number}");
        let file = vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
        vfs.write(file.ino, 0, &contents(number), true).await.unwrap();
    }
}

/// The kernel's references of [`make_files`] stay, as they do while it has memory to spare.
async fn read_files(vfs: &Vfs, count: u64) {
    for number in 0..count {
        let file = vfs.lookup(Ino::ROOT, format!("file-{number}").as_bytes()).await.unwrap();
        let found = vfs.read(Handle(0), file.ino, 0, 1 << 20).await.unwrap();
        assert_eq!(found, contents(number), "file {number}");
    }
}
