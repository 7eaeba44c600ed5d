//! Accidents that have happened or could have: each test holds one at the moment where it goes wrong.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use coffer::base::{Ino, ManualClock, SeededEntropy};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::{Bucket, StoreOptions};
use coffer::vfs::{Attr, Caller, CleanOptions, Handle, SetAttr, Vfs, VfsError, VfsOptions};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened, VolumeError};
use futures::TryStreamExt;
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore, ObjectStoreExt,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tokio::sync::Semaphore;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const BLOCK: usize = 65_536;

/// A gate that requests of one kind must pass. Open until it is shut.
#[derive(Debug)]
struct Gate {
    is_shut: AtomicBool,
    arrived: Semaphore,
    passes: Semaphore,
}

impl Gate {
    fn new() -> Self {
        Self { is_shut: AtomicBool::new(false), arrived: Semaphore::new(0), passes: Semaphore::new(0) }
    }

    fn shut(&self) {
        self.is_shut.store(true, Ordering::SeqCst);
    }

    /// Waits until a request stands before the gate.
    async fn met(&self) {
        self.arrived.acquire().await.unwrap().forget();
    }

    fn open(&self) {
        self.is_shut.store(false, Ordering::SeqCst);
        self.passes.add_permits(1000);
    }

    async fn pass(&self) {
        if self.is_shut.load(Ordering::SeqCst) {
            self.arrived.add_permits(1);
            self.passes.acquire().await.unwrap().forget();
        }
    }
}

/// A store in memory with gates before what it is asked for.
#[derive(Debug)]
struct GatedStore {
    inner: InMemory,
    record_puts: Gate,
    segment_gets: Gate,
    /// Reads of records fail.
    is_down: AtomicBool,
    /// Putting the next segment is the end of whoever does it.
    is_cursed: AtomicBool,
}

impl fmt::Display for GatedStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("gated memory")
    }
}

fn is_record(path: &Path) -> bool {
    path.as_ref().starts_with("m/")
}

#[async_trait]
impl ObjectStore for GatedStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> Result<PutResult> {
        if is_record(path) {
            self.record_puts.pass().await;
        } else if self.is_cursed.swap(false, Ordering::SeqCst) {
            panic!("no thread could be had");
        }
        self.inner.put_opts(path, payload, opts).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        opts: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.inner.put_multipart_opts(path, opts).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        if path.as_ref().starts_with("d/") {
            self.segment_gets.pass().await;
        } else if is_record(path) && self.is_down.load(Ordering::SeqCst) {
            return Err(object_store::Error::Generic { store: "gated", source: "connection reset".into() });
        }
        self.inner.get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.inner.delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.inner.list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.inner.list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.inner.copy_opts(from, to, options).await
    }
}

struct World {
    store: Arc<GatedStore>,
    clock: Arc<ManualClock>,
    entropy: Arc<SeededEntropy>,
    options: OpenOptions,
    read_timeout: Duration,
}

impl World {
    async fn new(vfs: VfsOptions) -> Self {
        let store = Arc::new(GatedStore {
            inner: InMemory::new(),
            record_puts: Gate::new(),
            segment_gets: Gate::new(),
            is_down: AtomicBool::new(false),
            is_cursed: AtomicBool::new(false),
        });
        let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
        let entropy = Arc::new(SeededEntropy::new(7));
        let options = OpenOptions {
            vfs,
            clock: Arc::clone(&clock) as _,
            entropy: Arc::clone(&entropy) as _,
            ..OpenOptions::default()
        };
        let world = Self { store, clock, entropy, options, read_timeout: Duration::from_secs(60) };
        let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let (entropy, clock) = (Arc::clone(&world.entropy), Arc::clone(&world.clock));
        volume::create(&world.bucket(), &spec, &factors(), entropy, clock).await.unwrap();
        world
    }

    fn bucket(&self) -> Bucket {
        let options = StoreOptions { read_timeout: self.read_timeout, ..StoreOptions::default() };
        Bucket::with_options(Arc::clone(&self.store) as _, "memory:", &options)
    }

    async fn mount(&self) -> Opened {
        self.try_mount(false).await.unwrap()
    }

    async fn try_mount(&self, takeover: bool) -> std::result::Result<Opened, VolumeError> {
        let options = OpenOptions { takeover, ..self.options.clone() };
        volume::open(self.bucket(), &factors(), options).await
    }

    async fn segments(&self) -> Vec<Path> {
        let listed = self.store.inner.list(Some(&Path::from("d")));
        listed.map_ok(|meta| meta.location).try_collect().await.unwrap()
    }
}

fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the regression tests".to_vec()))]
}

/// Dead segments are deleted at once.
fn without_grace() -> VfsOptions {
    let clean = CleanOptions { grace: Duration::ZERO, ..CleanOptions::default() };
    VfsOptions { clean, ..VfsOptions::default() }
}

async fn make(vfs: &Vfs, name: &str, data: &[u8]) -> Attr {
    let attr = vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
    vfs.write(attr.ino, 0, data, true).await.unwrap();
    attr
}

async fn contents(vfs: &Vfs, name: &str) -> Vec<u8> {
    let attr = vfs.lookup(Ino::ROOT, name.as_bytes()).await.unwrap();
    let data = vfs.read(Handle(0), attr.ino, 0, attr.size as usize + 1).await.unwrap();
    vfs.forget(attr.ino, 1);
    data
}

/// Lets all other tasks go as far as they can.
async fn settle_down() {
    for _ in 0..200 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test]
async fn an_unmount_during_a_commit_leaves_nobody_holding_the_volume() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", b"1").await;
    world.store.record_puts.shut();
    let vfs = Arc::clone(&opened.vfs);
    let syncing = tokio::spawn(async move { vfs.sync_all().await });
    world.store.record_puts.met().await;
    let closing = tokio::spawn(opened.close());
    settle_down().await;
    world.store.record_puts.open();
    syncing.await.unwrap().unwrap();
    closing.await.unwrap().unwrap();
    world.mount().await.close().await.unwrap();
}

#[tokio::test]
async fn what_is_accepted_during_an_unmount_is_saved() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let vfs = Arc::clone(&opened.vfs);
    make(&vfs, "a", b"1").await;
    world.store.record_puts.shut();
    let closing = tokio::spawn(opened.close());
    world.store.record_puts.met().await;
    // It is refused or saved.
    let late = vfs.create(&CALLER, Ino::ROOT, b"b", 0o644, true).await;
    assert!(matches!(&late, Ok(_) | Err(VfsError::ShutDown)), "{late:?}");
    world.store.record_puts.open();
    closing.await.unwrap().unwrap();
    let opened = world.mount().await;
    assert_eq!(contents(&opened.vfs, "a").await, b"1");
    assert_eq!(opened.vfs.lookup(Ino::ROOT, b"b").await.is_ok(), late.is_ok());
}

#[tokio::test]
async fn a_writer_that_was_taken_over_sweeps_nothing_of_its_successor() {
    let world = World::new(VfsOptions::default()).await;
    let old = world.mount().await;
    let new = world.try_mount(true).await.unwrap();
    let data = vec![5; 10 * BLOCK];
    make(&new.vfs, "a", &data).await;
    new.vfs.sync_all().await.unwrap();
    assert!(old.vfs.sweep(true).await.is_err(), "it must have noticed");
    let _ = old.close().await;
    new.close().await.unwrap();
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, "a").await == data);
}

#[tokio::test]
async fn an_open_unlinked_file_is_freed_also_when_its_record_has_left_memory() {
    let options = VfsOptions { record_cache_bytes: 1, ..VfsOptions::default() };
    let world = World::new(options).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let attr = make(vfs, "a", b"1").await;
    for number in 0..600 {
        let other = make(vfs, &format!("other{number}"), b"").await;
        vfs.forget(other.ino, 1);
    }
    let handle = vfs.open(attr.ino, false, false).await.unwrap();
    vfs.forget(attr.ino, 1);
    vfs.unlink(Ino::ROOT, b"a").await.unwrap();
    vfs.sync_all().await.unwrap();
    for number in 0..600 {
        let other = vfs.lookup(Ino::ROOT, format!("other{number}").as_bytes()).await.unwrap();
        vfs.forget(other.ino, 1);
    }
    let before = vfs.status().files;
    vfs.release(handle);
    assert_eq!(vfs.status().files, before - 1);
    vfs.sync_all().await.unwrap();
    assert!(vfs.getattr(attr.ino).await.is_err());
    opened.close().await.unwrap();
    let opened = world.mount().await;
    assert_eq!(opened.vfs.status().files, before - 1, "it was freed once");
}

#[tokio::test]
async fn an_open_that_is_given_up_while_it_waits_leaves_no_reference() {
    let options = VfsOptions { dirty_bytes_max: 0, ..VfsOptions::default() };
    let world = World::new(options).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let attr = make(vfs, "a", b"1").await;
    world.store.record_puts.shut();
    {
        let mut opening = std::pin::pin!(vfs.open(attr.ino, true, true));
        assert!(futures::poll!(opening.as_mut()).is_pending(), "there is no room");
    }
    world.store.record_puts.open();
    vfs.sync_all().await.unwrap();
    assert_eq!(vfs.getattr(attr.ino).await.unwrap().size, 1, "nothing has happened");
    vfs.unlink(Ino::ROOT, b"a").await.unwrap();
    let before = vfs.status().files;
    vfs.forget(attr.ino, 1);
    assert_eq!(vfs.status().files, before - 1);
}

#[tokio::test]
async fn a_read_overtaken_by_a_commit_reads_what_is_there_now() {
    let world = World::new(without_grace()).await;
    let opened = world.mount().await;
    let attr = make(&opened.vfs, "a", &vec![1; 4 * BLOCK]).await;
    opened.close().await.unwrap();
    let opened = world.mount().await;
    let vfs = Arc::clone(&opened.vfs);
    world.store.segment_gets.shut();
    let reader = Arc::clone(&vfs);
    let reading = tokio::spawn(async move { reader.read(Handle(0), attr.ino, 0, 4 * BLOCK).await });
    world.store.segment_gets.met().await;
    let old = world.segments().await;
    vfs.setattr(&CALLER, attr.ino, &SetAttr { size: Some(0), ..SetAttr::default() }).await.unwrap();
    vfs.write(attr.ino, 0, &vec![2; 4 * BLOCK], true).await.unwrap();
    vfs.sync_all().await.unwrap();
    while world.segments().await.iter().any(|path| old.contains(path)) {
        tokio::task::yield_now().await;
    }
    world.store.segment_gets.open();
    assert!(reading.await.unwrap().unwrap() == vec![2; 4 * BLOCK]);
}

#[tokio::test]
async fn a_reader_that_the_writer_has_left_behind_catches_up_when_it_reads() {
    let mut world = World::new(without_grace()).await;
    let writer = world.mount().await;
    let attr = make(&writer.vfs, "a", &vec![1; 4 * BLOCK]).await;
    writer.vfs.sync_all().await.unwrap();
    let old = world.segments().await;
    world.options.vfs.read_only = true;
    let reader = world.mount().await;
    assert_eq!(reader.vfs.getattr(attr.ino).await.unwrap().size, 4 * BLOCK as u64);
    writer.vfs.write(attr.ino, 0, &vec![2; 4 * BLOCK], true).await.unwrap();
    writer.vfs.sync_all().await.unwrap();
    writer.vfs.write(attr.ino, 0, &vec![3; 4 * BLOCK], true).await.unwrap();
    writer.vfs.sync_all().await.unwrap();
    while world.segments().await.iter().any(|path| old.contains(path)) {
        tokio::task::yield_now().await;
    }
    assert!(reader.vfs.read(Handle(0), attr.ino, 0, 4 * BLOCK).await.unwrap() == vec![3; 4 * BLOCK]);
}

#[tokio::test]
async fn blocks_leave_the_records_also_where_one_fsync_follows_the_other() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let attr = make(&opened.vfs, "a", b"1").await;
    for number in 0..300 {
        opened.vfs.write(attr.ino, number * BLOCK as u64, &[number as u8; BLOCK], true).await.unwrap();
        opened.vfs.fsync(attr.ino, true).await.unwrap();
    }
    assert!(!world.segments().await.is_empty());
    let data = contents(&opened.vfs, "a").await;
    assert!(data.chunks(BLOCK).enumerate().all(|(number, block)| block.iter().all(|b| *b == number as u8)));
}

/// A volume with so many records that those of `a` lie apart, mounted with nothing in memory but
/// the inode of `a`.
async fn cold(world: &World) -> (Opened, Attr) {
    let opened = world.mount().await;
    for number in 0..400 {
        let other = make(&opened.vfs, &format!("other{number}"), b"").await;
        opened.vfs.forget(other.ino, 1);
    }
    make(&opened.vfs, "a", &vec![1; 4 * BLOCK]).await;
    opened.close().await.unwrap();
    let opened = world.mount().await;
    let attr = opened.vfs.lookup(Ino::ROOT, b"a").await.unwrap();
    (opened, attr)
}

#[tokio::test]
async fn a_write_outlives_records_that_cannot_be_read_for_a_while() {
    let mut world = World::new(VfsOptions::default()).await;
    world.options.table_cache_bytes = 0;
    world.read_timeout = Duration::from_millis(300);
    let (opened, attr) = cold(&world).await;
    world.store.is_down.store(true, Ordering::SeqCst);
    opened.vfs.write(attr.ino, 5, &[2; 10], true).await.unwrap();
    let vfs = Arc::clone(&opened.vfs);
    let mut syncing = tokio::spawn(async move { vfs.fsync(attr.ino, false).await });
    let early = tokio::time::timeout(world.read_timeout * 5, &mut syncing).await;
    assert!(early.is_err(), "an outage is waited out, but: {early:?}");
    world.store.is_down.store(false, Ordering::SeqCst);
    syncing.await.unwrap().unwrap();
    let data = contents(&opened.vfs, "a").await;
    assert_eq!(data[..20], [1, 1, 1, 1, 1, 2, 2, 2, 2, 2, 2, 2, 2, 2, 2, 1, 1, 1, 1, 1]);
}

#[tokio::test]
async fn a_commit_beside_records_that_cannot_be_read_is_made_all_the_same() {
    let mut world = World::new(VfsOptions::default()).await;
    world.options.table_cache_bytes = 0;
    let (opened, attr) = cold(&world).await;
    let tables: Vec<_> = world.store.inner.list(Some(&Path::from("m"))).try_collect().await.unwrap();
    for table in tables {
        let bytes = world.store.inner.get(&table.location).await.unwrap().bytes().await.unwrap();
        let bad: Vec<u8> = bytes.iter().map(|byte| byte ^ 1).collect();
        world.store.inner.put(&table.location, bad.into()).await.unwrap();
    }
    opened.vfs.write(attr.ino, 0, &vec![2; BLOCK], true).await.unwrap();
    let patience = Duration::from_secs(60);
    let synced = tokio::time::timeout(patience, opened.vfs.fsync(attr.ino, false)).await;
    synced.expect("an answer").expect("nothing of what is altered had to be changed");
    assert_eq!(opened.vfs.read(Handle(0), attr.ino, 0, BLOCK).await.unwrap(), vec![2; BLOCK]);
    tokio::time::timeout(patience, opened.close()).await.expect("an answer").unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_machine_whose_clock_is_behind_can_write_after_another() {
    let mut world = World::new(VfsOptions::default()).await;
    let first = world.mount().await;
    make(&first.vfs, "a", b"1").await;
    first.vfs.sync_all().await.unwrap();
    // The records are put into a table long after they were written, and the table is named by the time.
    world.clock.advance(Duration::from_secs(600));
    tokio::time::sleep(Duration::from_secs(200)).await;
    drop(first);
    world.options.clock = Arc::new(ManualClock::new(1_700_000_060_000_000_000));
    let second = world.try_mount(true).await.unwrap();
    make(&second.vfs, "b", b"2").await;
    second.vfs.sync_all().await.unwrap();
    tokio::time::sleep(Duration::from_secs(200)).await;
    make(&second.vfs, "c", b"3").await;
    second.vfs.sync_all().await.unwrap();
    second.close().await.unwrap();
}

#[tokio::test]
async fn whoever_learns_that_the_volume_was_taken_over_tells_everyone() {
    let mut world = World::new(VfsOptions { record_cache_bytes: 1, ..VfsOptions::default() }).await;
    world.options.table_cache_bytes = 0;
    let (old, _) = cold(&world).await;
    let _new = world.try_mount(true).await.unwrap();
    assert!(old.vfs.sweep(true).await.is_err(), "it must have noticed");
    assert_eq!(old.vfs.status().state, "fenced");
    let made = old.vfs.mkdir(&CALLER, Ino::ROOT, b"late", 0o755).await;
    assert!(matches!(made, Err(VfsError::Fenced)), "{made:?}");
    // It shows what it showed, also what it had not asked for before.
    assert!(old.vfs.lookup(Ino::ROOT, b"other7").await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_large_read_whose_request_was_lost_is_asked_for_again() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let attr = make(&opened.vfs, "a", &vec![1; 100 * BLOCK]).await;
    opened.close().await.unwrap();
    let opened = world.mount().await;
    let vfs = Arc::clone(&opened.vfs);
    world.store.segment_gets.shut();
    let reading = tokio::spawn(async move { vfs.read(Handle(0), attr.ino, 0, 100 * BLOCK).await });
    world.store.segment_gets.met().await;
    // Those that wait there are never answered; those that come now are.
    settle_down().await;
    world.store.segment_gets.is_shut.store(false, Ordering::SeqCst);
    assert!(reading.await.unwrap().unwrap() == vec![1; 100 * BLOCK]);
}

#[tokio::test]
async fn an_upload_that_fails_in_an_unforeseen_way_is_made_again() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    world.store.is_cursed.store(true, Ordering::SeqCst);
    let data = vec![9; 10 * BLOCK];
    make(&opened.vfs, "a", &data).await;
    opened.vfs.sync_all().await.unwrap();
    assert!(!world.store.is_cursed.load(Ordering::SeqCst), "nobody has met it");
    assert!(contents(&opened.vfs, "a").await == data);
    opened.close().await.unwrap();
    assert!(contents(&world.mount().await.vfs, "a").await == data);
}
