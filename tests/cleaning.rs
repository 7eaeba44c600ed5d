//! Cleaning: what it gives back, what it costs, and that nobody sees it, whatever happens meanwhile.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod cleaning_store;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Clock, Entropy, Ino, ManualClock, SeededEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::{Caller, CleanOptions, Handle, Reclaimed, SeekFor, SetAttr, Vfs, VfsOptions};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened, VolumeError};
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use cleaning_store::TestStore;

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const BLOCK: usize = 65_536;
const GRACE: Duration = Duration::from_secs(600);
const DAY: Duration = Duration::from_secs(24 * 3600);

struct World {
    store: Arc<TestStore>,
    clock: Arc<ManualClock>,
    entropy: Arc<dyn Entropy>,
    vfs: VfsOptions,
    state_dir: Option<PathBuf>,
}

impl World {
    async fn new(vfs: VfsOptions) -> Self {
        Self::with(vfs, Compression::None).await
    }

    async fn with(mut vfs: VfsOptions, compression: Compression) -> Self {
        vfs.clean.is_automatic = false;
        let now = SystemClock::default().now();
        let world = Self {
            store: Arc::new(TestStore::default()),
            // Objects in memory bear the time of day.
            clock: Arc::new(ManualClock::new(now.secs as u64 * 1_000_000_000)),
            entropy: Arc::new(SeededEntropy::new(11)),
            vfs,
            state_dir: None,
        };
        let header = NewVolume { compression, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let (entropy, clock) = (Arc::clone(&world.entropy), Arc::clone(&world.clock));
        volume::create(&world.bucket(), &spec, &factors(), entropy, clock).await.unwrap();
        world
    }

    fn bucket(&self) -> Bucket {
        Bucket::from_store(Arc::clone(&self.store) as _)
    }

    async fn mount(&self) -> Opened {
        self.try_mount().await.unwrap()
    }

    async fn try_mount(&self) -> Result<Opened, VolumeError> {
        let options = OpenOptions {
            takeover: true,
            vfs: self.vfs.clone(),
            state_dir: self.state_dir.clone(),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy),
            ..OpenOptions::default()
        };
        volume::open(self.bucket(), &factors(), options).await
    }

    /// The objects under `prefix`, and their lengths.
    async fn objects(&self, prefix: &str) -> BTreeMap<Path, u64> {
        let listed = self.store.inner.list(Some(&Path::from(prefix)));
        listed.map_ok(|meta| (meta.location, meta.size)).try_collect().await.unwrap()
    }

    async fn segments(&self) -> BTreeMap<Path, u64> {
        self.objects("d").await
    }
}

fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the cleaning tests".to_vec()))]
}

/// Segments of eight blocks, and no bytes too few to bother.
fn small_segments() -> VfsOptions {
    let clean = CleanOptions { slack_bytes: 0, ..CleanOptions::default() };
    VfsOptions { segment_room_bytes: 8 * BLOCK + 1024, clean, ..VfsOptions::default() }
}

fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

async fn make(vfs: &Vfs, name: &str, data: &[u8]) -> Ino {
    let attr = vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
    vfs.write(attr.ino, 0, data, true).await.unwrap();
    vfs.forget(attr.ino, 1);
    attr.ino
}

async fn contents(vfs: &Vfs, ino: Ino) -> Vec<u8> {
    let size = vfs.getattr(ino).await.unwrap().size;
    vfs.read(Handle(0), ino, 0, size as usize).await.unwrap()
}

/// A file of which only every fourth block is left where it was written first.
async fn sparse_file(vfs: &Vfs, name: &str, blocks: u64) -> (Ino, Vec<u8>) {
    let mut data = pattern(blocks, blocks as usize * BLOCK);
    let ino = make(vfs, name, &data).await;
    vfs.sync_all().await.unwrap();
    for block in (0..blocks).filter(|block| block % 4 != 3) {
        let new = pattern(1000 + block, BLOCK);
        vfs.write(ino, block * BLOCK as u64, &new, true).await.unwrap();
        data[block as usize * BLOCK..][..BLOCK].copy_from_slice(&new);
    }
    vfs.sync_all().await.unwrap();
    (ino, data)
}

/// Random overwrites of many files and of one large one, from memory compared at the end.
struct Workload {
    rng: SmallRng,
    files: Vec<(Ino, Vec<u8>)>,
}

impl Workload {
    async fn begin(vfs: &Vfs, seed: u64, file_count: usize, large_blocks: usize) -> Self {
        let mut rng = SmallRng::seed_from_u64(seed);
        let mut files = Vec::new();
        for number in 0..=file_count {
            let len = if number == 0 { large_blocks * BLOCK } else { rng.random_range(2_000..90_000) };
            let data = pattern(rng.random(), len);
            files.push((make(vfs, &format!("file{number}"), &data).await, data));
        }
        vfs.sync_all().await.unwrap();
        Self { rng, files }
    }

    async fn overwrite(&mut self, vfs: &Vfs, times: usize) {
        for time in 0..times {
            let which =
                if self.rng.random_bool(0.8) { 0 } else { self.rng.random_range(1..self.files.len()) };
            let (ino, data) = &mut self.files[which];
            let at = self.rng.random_range(0..data.len()) / BLOCK * BLOCK;
            let len = (data.len() - at).min(self.rng.random_range(1..=2) * BLOCK);
            let new = pattern(self.rng.random(), len);
            vfs.write(*ino, at as u64, &new, true).await.unwrap();
            data[at..at + len].copy_from_slice(&new);
            if time % 40 == 39 {
                vfs.sync_all().await.unwrap();
            }
        }
        vfs.sync_all().await.unwrap();
    }

    async fn compare(&self, vfs: &Vfs) {
        for (number, (ino, data)) in self.files.iter().enumerate() {
            assert!(contents(vfs, *ino).await == *data, "file{number} differs");
        }
    }
}

#[tokio::test]
async fn after_random_overwrites_the_whole_bucket_holds_at_most_three_tenths_more_than_what_lives() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let mut workload = Workload::begin(vfs, 42, 300, 640).await;
    workload.overwrite(vfs, 2500).await;
    let before: u64 = world.segments().await.values().sum();

    let dead = vfs.reclaimable().await.unwrap().dead.bytes;
    let done = vfs.reclaim().await.unwrap();
    assert_eq!(done.deleted, Default::default(), "readers elsewhere have time to follow");
    world.clock.advance(GRACE);
    let deleted = vfs.reclaim().await.unwrap();
    assert_eq!(deleted.rewritten, Default::default(), "once is enough");
    assert_eq!(deleted.waiting, Default::default());

    let after: u64 = world.segments().await.values().sum();
    let freed_by_rewriting = before + done.rewritten.bytes - after;
    println!(
        "segments: {before} bytes before, {dead} of them dead, {after} after, {} rewritten",
        done.rewritten.bytes
    );
    let freed_by_rewriting = freed_by_rewriting - dead;
    assert!(done.rewritten.bytes <= 4 * freed_by_rewriting, "every byte gained costs at most four written");

    // Old manifests stay for an hour.
    world.clock.advance(Duration::from_secs(3600));
    vfs.tidy_records().await.unwrap();
    let all: u64 = world.objects("").await.values().sum();
    let live = vfs.status().stored_bytes;
    println!("the whole bucket: {all} bytes for {live} live ones");
    assert!(all * 10 <= live * 13, "{all} bytes in the bucket, {live} live");
    workload.compare(vfs).await;
    opened.close().await.unwrap();

    let opened = world.mount().await;
    workload.compare(&opened.vfs).await;
    opened.close().await.unwrap();
}

#[tokio::test]
async fn segments_of_many_small_commits_are_merged() {
    let clean = CleanOptions { slack_bytes: 0, ..CleanOptions::default() };
    let vfs = VfsOptions { inline_commit_bytes: 0, clean, ..VfsOptions::default() };
    let world = World::new(vfs).await;
    let opened = world.mount().await;
    let mut files = Vec::new();
    for number in 0..200u64 {
        let data = pattern(number, 5000 + number as usize);
        files.push((make(&opened.vfs, &format!("file{number}"), &data).await, data));
        opened.vfs.sync_all().await.unwrap();
    }
    assert!(world.segments().await.len() >= 200);
    let done = opened.vfs.reclaim().await.unwrap();
    assert!(done.rewritten.bytes < 3 * 200 * 5200, "{} bytes written", done.rewritten.bytes);
    world.clock.advance(GRACE);
    opened.vfs.reclaim().await.unwrap();
    let left = world.segments().await.len();
    assert!(left <= 30, "{left} segments left");
    for (ino, data) in &files {
        assert!(contents(&opened.vfs, *ino).await == *data);
    }
    // Files written together lie together: all of them are a few reads, not one for each.
    opened.close().await.unwrap();
    let bucket = world.bucket();
    let options = OpenOptions {
        vfs: world.vfs.clone(),
        clock: Arc::clone(&world.clock) as _,
        ..OpenOptions::default()
    };
    let opened = volume::open(bucket.clone(), &factors(), options).await.unwrap();
    let before = bucket.meter().snapshot().gets;
    for (ino, data) in &files {
        assert!(contents(&opened.vfs, *ino).await == *data);
    }
    let gets = bucket.meter().snapshot().gets - before;
    println!("200 files of 5 KB: {gets} GETs");
    assert!(gets <= 30, "{gets} GETs");
}

/// Under virtual time, so that hours of it pass at once.
#[tokio::test(start_paused = true)]
async fn a_mount_cleans_by_itself_within_its_budget_and_is_then_silent() {
    let mut world = World::new(small_segments()).await;
    world.vfs.clean.is_automatic = true;
    world.vfs.clean.bytes_per_second = 10_000;
    let options = OpenOptions {
        vfs: world.vfs.clone(),
        clock: Arc::clone(&world.clock) as _,
        entropy: Arc::clone(&world.entropy),
        ..OpenOptions::default()
    };
    let bucket = world.bucket();
    let opened = volume::open(bucket.clone(), &factors(), options).await.unwrap();
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    let (before, stored) = (world.segments().await.values().sum::<u64>(), opened.vfs.status().stored_bytes);
    let round_bytes = 2 * world.vfs.segment_room_bytes as u64;
    let pass = async |secs: u64| {
        world.clock.advance(Duration::from_secs(secs));
        tokio::time::sleep(Duration::from_secs(secs)).await;
    };
    for second in 1..=300 {
        pass(1).await;
        let cleaned = opened.vfs.status().cleaned;
        let bytes = cleaned.read_bytes + cleaned.written_bytes;
        assert!(bytes <= round_bytes + second * 10_000, "{bytes} bytes in {second} seconds");
    }
    assert!(opened.vfs.status().cleaned.rewritten_count > 0);
    for _ in 0..360 {
        pass(10).await;
    }
    let after: u64 = world.segments().await.values().sum();
    assert!(
        after * 10 < stored * 12 && before > stored * 14 / 10,
        "{before} bytes, then {after} for {stored}"
    );

    let requests = bucket.meter().snapshot();
    for _ in 0..360 {
        pass(10).await;
    }
    let now = bucket.meter().snapshot();
    let asked = now.requests() - requests.requests();
    println!("the hour after: {asked} requests");
    assert!(asked <= 4 * 60, "{asked} requests in an hour");
    assert_eq!(now.get_bytes, requests.get_bytes, "nothing is read");
    assert!(contents(&opened.vfs, ino).await == data);
}

#[tokio::test]
async fn a_clean_volume_is_not_touched() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 300 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let (before, commit) = (world.segments().await, opened.vfs.head().0);
    assert_eq!(opened.vfs.reclaim().await.unwrap(), Reclaimed::default());
    assert_eq!((world.segments().await, opened.vfs.head().0), (before, commit), "not even a commit was made");
}

#[tokio::test]
async fn the_plan_names_what_is_then_done() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    sparse_file(&opened.vfs, "a", 64).await;
    let before = world.segments().await;
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert!(plan.sparse.count >= 4 && plan.requests > 0, "{plan:?}");
    assert_eq!(plan.segments.count + plan.dead.count, before.len() as u64);
    assert_eq!(world.segments().await, before, "nothing was changed");
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!(done.rewritten.count, plan.sparse.count + plan.tiny.count);
    assert_eq!(opened.vfs.reclaimable().await.unwrap().sparse, Default::default());
}

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

#[tokio::test]
async fn a_damaged_block_is_left_where_it_is_and_told_of() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let (hurt, _) = sparse_file(vfs, "hurt", 8).await;
    let first = world.segments().await;
    let (well, data) = sparse_file(vfs, "well", 32).await;
    for path in first.keys() {
        let mut bytes = world.store.inner.get(path).await.unwrap().bytes().await.unwrap().to_vec();
        // In every block.
        (100..bytes.len()).step_by(BLOCK / 2).for_each(|at| bytes[at] ^= 1);
        world.store.inner.put(path, bytes.into()).await.unwrap();
    }
    for _ in 0..2 {
        let done = vfs.reclaim().await.unwrap();
        assert!(done.damaged_count > 0, "{done:?}");
        world.clock.advance(DAY * 2);
    }
    let left = world.segments().await;
    assert!(first.keys().any(|path| left.contains_key(path)), "what may still be mended is kept");
    assert!(contents(vfs, well).await == data);
    assert!(vfs.status().is_safe);
    opened.close().await.unwrap();
    let opened = world.mount().await;
    let read = opened.vfs.read(Handle(0), hurt, 3 * BLOCK as u64, BLOCK).await;
    assert!(read.is_err(), "nothing else is taken for it");
    assert!(contents(&opened.vfs, well).await == data);
}

#[tokio::test]
async fn a_segment_that_is_missing_stops_nothing() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    sparse_file(vfs, "hurt", 8).await;
    let first = world.segments().await;
    let (well, data) = sparse_file(vfs, "well", 32).await;
    for path in first.keys() {
        world.store.inner.delete(path).await.unwrap();
    }
    let done = vfs.reclaim().await.unwrap();
    assert!(done.damaged_count > 0 && done.rewritten.count > 0, "{done:?}");
    assert!(contents(vfs, well).await == data);
}

#[tokio::test]
async fn compressed_blocks_are_moved_as_they_are() {
    let world = World::with(small_segments(), Compression::Zstd).await;
    let opened = world.mount().await;
    let vfs = &opened.vfs;
    let text = b"compresses well, and is not the same everywhere ".repeat(1400);
    let mut files = Vec::new();
    for number in 0..400u32 {
        let data: Vec<u8> = [&number.to_le_bytes()[..], &text[..BLOCK - 4]].concat();
        files.push((make(vfs, &format!("file{number}"), &data).await, data));
    }
    vfs.sync_all().await.unwrap();
    for number in (0..400).filter(|number| number % 3 != 0) {
        vfs.unlink(Ino::ROOT, format!("file{number}").as_bytes()).await.unwrap();
    }
    vfs.sync_all().await.unwrap();
    let before: u64 = world.segments().await.values().sum();
    let done = vfs.reclaim().await.unwrap();
    world.clock.advance(GRACE);
    vfs.reclaim().await.unwrap();
    let after: u64 = world.segments().await.values().sum();
    assert!(done.rewritten.count > 0 && after < before, "{done:?}: {before} to {after} bytes");
    for (ino, data) in files.iter().step_by(3) {
        assert!(contents(vfs, *ino).await == *data);
    }
}

/// Cleaning is cut off after each of its requests in turn.
#[test]
fn a_crash_after_any_request_of_cleaning_loses_nothing() {
    let runtime = || tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let (mut cut_count, mut is_done) = (0, false);
    while !is_done {
        let preparing = runtime();
        let (world, mut workload) = preparing.block_on(async {
            let world = World::new(small_segments()).await;
            let opened = world.mount().await;
            let mut workload = Workload::begin(&opened.vfs, 7, 6, 24).await;
            workload.overwrite(&opened.vfs, 40).await;
            opened.close().await.unwrap();
            (world, workload)
        });
        preparing.shutdown_background();
        let cut = runtime();
        is_done = cut.block_on(async {
            let opened = world.mount().await;
            world.store.requests.allow(cut_count);
            let cleaning = opened.vfs.reclaim();
            tokio::select! {
                done = cleaning => {
                    assert!(done.unwrap().rewritten.count > 2);
                    true
                }
                () = world.store.requests.used_up() => false,
            }
        });
        cut.shutdown_background();
        world.store.requests.allow(u64::MAX / 2);
        let after = runtime();
        after.block_on(async {
            let opened = world.mount().await;
            workload.compare(&opened.vfs).await;
            workload.overwrite(&opened.vfs, 10).await;
            opened.vfs.reclaim().await.unwrap();
            world.clock.advance(DAY);
            opened.vfs.reclaim().await.unwrap();
            workload.compare(&opened.vfs).await;
            let plan = opened.vfs.reclaimable().await.unwrap();
            assert_eq!(
                (plan.leftovers.count, plan.noted_leftovers.count, plan.dead.count),
                (0, 0, 0),
                "{plan:?}"
            );
            opened.close().await.unwrap();
        });
        after.shutdown_background();
        cut_count += 1;
    }
    println!("cleaning was cut off at each of {cut_count} requests");
    assert!(cut_count > 10);
}

#[tokio::test]
async fn a_dead_segment_waits_for_readers_also_from_one_mount_to_the_next() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let old = world.segments().await;
    opened.vfs.write(ino, 0, &pattern(2, 4 * BLOCK), true).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    let is_there = async || world.segments().await.keys().any(|path| old.contains_key(path));
    world.clock.advance(GRACE - Duration::from_secs(1));
    assert_eq!(opened.vfs.reclaim().await.unwrap().deleted.count, 0);
    opened.close().await.unwrap();
    assert!(is_there().await);

    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    assert_eq!(opened.vfs.reclaim().await.unwrap().deleted.count, 0);
    opened.close().await.unwrap();
    assert!(is_there().await);

    world.clock.advance(Duration::from_secs(1));
    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    assert!(!is_there().await, "its time had come between two mounts");
}

#[tokio::test]
async fn what_only_a_listing_shows_waits_a_day_and_is_deleted_by_its_record() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.close().await.unwrap();
    let name = Path::from("d/00/00000000000000000000000000");
    world.store.inner.put(&name, vec![1; 1000].into()).await.unwrap();
    let is_there = async || world.segments().await.contains_key(&name);

    let opened = world.mount().await;
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!((done.leftovers.count, done.leftovers.bytes, done.deleted.count), (1, 1000, 0));
    world.clock.advance(DAY - Duration::from_secs(1));
    let done = opened.vfs.reclaim().await.unwrap();
    assert_eq!((done.leftovers.count, done.deleted.count), (0, 0), "it is noted once");
    opened.close().await.unwrap();
    assert!(is_there().await);

    world.clock.advance(Duration::from_secs(1));
    let opened = world.mount().await;
    opened.vfs.sweep(false).await.unwrap();
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    assert!(!is_there().await);
    let plan = world.mount().await.vfs.reclaimable().await.unwrap();
    assert_eq!((plan.noted_leftovers.count, plan.segments.count), (0, 1));
}

/// The owner of a store hides the newest records, so that a writer takes the segments of the newer
/// state for leftovers and deletes what the store itself may not.
#[tokio::test]
async fn after_a_rollback_that_nobody_noticed_the_newer_segments_stay_for_a_day() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let old = world.store.all_of("m").await;
    let newer = make(&opened.vfs, "b", &pattern(2, 4 * BLOCK)).await;
    opened.close().await.unwrap();
    let new = world.store.all_of("m").await;

    world.store.put_back("m", &old).await;
    let opened = world.mount().await;
    opened.vfs.sweep(true).await.unwrap();
    world.clock.advance(DAY / 2);
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();

    world.store.put_back("m", &new).await;
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, newer).await == pattern(2, 4 * BLOCK), "there was time to notice");
}

#[tokio::test]
async fn a_listing_of_lies_deletes_nothing_that_is_in_use() {
    let world = World::new(VfsOptions::default()).await;
    let opened = world.mount().await;
    let ino = make(&opened.vfs, "a", &pattern(1, 4 * BLOCK)).await;
    opened.vfs.sync_all().await.unwrap();
    let known = world.segments().await.into_keys().next().unwrap();
    world.store.lie(vec![
        known.clone(),
        known,
        Path::from("d/0v/0vvvvvvvvvvvvvvvvvvvvvvvvv"),
        Path::from("d/zz"),
    ]);
    for _ in 0..3 {
        opened.vfs.sweep(true).await.unwrap();
        opened.vfs.reclaim().await.unwrap();
        world.clock.advance(DAY);
    }
    assert!(contents(&opened.vfs, ino).await == pattern(1, 4 * BLOCK));
    opened.close().await.unwrap();
}

#[tokio::test]
async fn a_listing_in_the_middle_of_cleaning_takes_nothing_for_a_leftover() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    world.store.segment_acks.shut();
    let cleaner = Arc::clone(&opened.vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.segment_acks.met().await;
    opened.vfs.sweep(true).await.unwrap();
    world.store.segment_acks.open();
    assert!(cleaning.await.unwrap().unwrap().rewritten.count > 0);
    let noted = opened.vfs.status().waiting.count;
    assert_eq!(noted, opened.vfs.reclaimable().await.unwrap().dead.count, "only dead ones wait");
    world.clock.advance(DAY);
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
    let opened = world.mount().await;
    assert!(contents(&opened.vfs, ino).await == data);
}

#[tokio::test]
async fn an_unmount_in_the_middle_of_cleaning_leaves_nothing_unknown() {
    let world = World::new(small_segments()).await;
    let opened = world.mount().await;
    let (ino, data) = sparse_file(&opened.vfs, "a", 64).await;
    world.store.segment_puts.shut();
    let cleaner = Arc::clone(&opened.vfs);
    let cleaning = tokio::spawn(async move { cleaner.reclaim().await });
    world.store.segment_puts.met().await;
    opened.close().await.unwrap();
    world.store.segment_puts.open();
    assert!(cleaning.await.unwrap().is_err());
    let opened = world.mount().await;
    let plan = opened.vfs.reclaimable().await.unwrap();
    assert_eq!((plan.leftovers.count, plan.noted_leftovers.count), (0, 1), "{plan:?}");
    assert!(contents(&opened.vfs, ino).await == data);
    opened.close().await.unwrap();
}

/// Makes commits, as a machine that notes them in `folder`, and gives the number of the last.
async fn commit_often(world: &mut World, folder: &std::path::Path, commits: u64) -> u64 {
    world.state_dir = Some(folder.to_owned());
    let opened = world.mount().await;
    let ino = match opened.vfs.lookup(Ino::ROOT, b"a").await {
        Ok(found) => found.ino,
        Err(_) => make(&opened.vfs, "a", b"1").await,
    };
    for commit in 0..commits {
        opened.vfs.write(ino, 0, &commit.to_le_bytes(), true).await.unwrap();
        opened.vfs.fsync(ino, false).await.unwrap();
    }
    opened.vfs.reclaim().await.unwrap();
    let (last, _) = opened.vfs.head();
    opened.close().await.unwrap();
    last
}

#[tokio::test]
async fn old_commits_are_folded_and_every_pin_is_still_checked() {
    let mut world = World::new(VfsOptions::default()).await;
    let folders: Vec<_> = (0..4).map(|_| tempfile::tempdir().unwrap()).collect();
    let first = commit_often(&mut world, folders[0].path(), 700).await;
    // A history that is put aside again, of which one machine knows.
    let before = world.store.all_of("m").await;
    let other = commit_often(&mut world, folders[3].path(), 5).await;
    world.store.put_back("m", &before).await;
    let second = commit_often(&mut world, folders[1].path(), 1500).await;
    let third = commit_often(&mut world, folders[2].path(), 1500).await;
    assert!(other < 1024 && first < 1024 && second > 2048 && third > 3 * 1024, "{first} {second} {third}");

    for folder in &folders[..3] {
        world.state_dir = Some(folder.path().to_owned());
        world.mount().await.close().await.unwrap();
    }
    world.state_dir = Some(folders[3].path().to_owned());
    let refused = world.try_mount().await.err();
    assert!(matches!(refused, Some(VolumeError::Fork { number, .. }) if number <= other + 1), "{refused:?}");
}
