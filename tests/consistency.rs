//! What random work leaves in the records, counted anew: every number in them must be what it counts, and nothing
//! may be left of what is gone.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::sync::Arc;

use coffer::base::{Clock, Entropy, FileKind, Ino, ManualClock, SeededEntropy};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::maint::{self, CheckOptions, Problem};
use coffer::store::Bucket;
use coffer::vfs::{Caller, Handle, RenameMode, SetAttr, Vfs, VfsOptions, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened};
use object_store::ObjectStore;
use object_store::memory::InMemory;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0 };
const NAMES: [&[u8]; 6] = [b"a", b"b", b"c", b"d", b"e", b"f"];
const BLOCK: u64 = 65_536;
/// Blocks of a page of extents.
const PAGE: u64 = 1024;

struct World {
    store: Arc<dyn ObjectStore>,
    clock: Arc<dyn Clock>,
    entropy: Arc<dyn Entropy>,
    options: VfsOptions,
}

impl World {
    async fn new(seed: u64, options: VfsOptions) -> Self {
        let world = Self {
            store: Arc::new(InMemory::new()),
            clock: Arc::new(ManualClock::new(1_700_000_000_000_000_000)),
            entropy: Arc::new(SeededEntropy::new(seed)),
            options,
        };
        let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let (entropy, clock) = (Arc::clone(&world.entropy), Arc::clone(&world.clock));
        volume::create(&world.bucket(), &spec, &factors(), entropy, clock).await.unwrap();
        world
    }

    fn bucket(&self) -> Bucket {
        Bucket::from_store(Arc::clone(&self.store))
    }

    async fn mount(&self) -> Opened {
        let options = OpenOptions {
            takeover: true,
            vfs: self.options.clone(),
            clock: Arc::clone(&self.clock),
            entropy: Arc::clone(&self.entropy),
            ..OpenOptions::default()
        };
        volume::open(self.bucket(), &factors(), options).await.unwrap()
    }
}

fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the consistency test".to_vec()))]
}

/// A user without a plan.
struct Work {
    vfs: Arc<Vfs>,
    rng: SmallRng,
    handles: Vec<(Ino, Handle)>,
    dirs: Vec<Ino>,
}

impl Work {
    fn name(&mut self) -> &'static [u8] {
        NAMES[self.rng.random_range(0..NAMES.len())]
    }

    fn dir(&mut self) -> Ino {
        self.dirs[self.rng.random_range(0..self.dirs.len())]
    }

    /// A file's inode, if the dice find one; sometimes one without a name.
    async fn file(&mut self) -> Option<Ino> {
        if !self.handles.is_empty() && self.rng.random_bool(0.3) {
            return Some(self.handles[self.rng.random_range(0..self.handles.len())].0);
        }
        let (dir, name) = (self.dir(), self.name());
        let attr = self.vfs.lookup(dir, name).await.ok()?;
        self.vfs.forget(attr.ino, 1);
        (attr.kind == FileKind::Regular).then_some(attr.ino)
    }

    fn offset(&mut self) -> u64 {
        let far = if self.rng.random_bool(0.1) { PAGE * BLOCK } else { 0 };
        let near = self.rng.random_range(0..4) * BLOCK;
        far + if self.rng.random_bool(0.5) { near } else { near + self.rng.random_range(0..BLOCK) }
    }

    async fn names(&mut self) {
        let vfs = Arc::clone(&self.vfs);
        let (dir, name, other, new) = (self.dir(), self.name(), self.dir(), self.name());
        match self.rng.random_range(0..8) {
            0 | 1 => {
                if let Ok(attr) = vfs.create(&CALLER, dir, name, 0o644, true).await {
                    vfs.forget(attr.ino, 1);
                }
            }
            2 => {
                if let Ok(attr) = vfs.mkdir(&CALLER, dir, name, 0o755).await {
                    vfs.forget(attr.ino, 1);
                    self.dirs.push(attr.ino);
                }
            }
            3 => drop(vfs.unlink(dir, name).await),
            4 => drop(vfs.rmdir(dir, name).await),
            5 => drop(vfs.rename(dir, name, other, new, RenameMode::Replace).await),
            6 => drop(vfs.rename(dir, name, other, new, RenameMode::Exchange).await),
            _ => {
                if let Some(ino) = self.file().await
                    && let Ok(attr) = vfs.link(ino, dir, name).await
                {
                    vfs.forget(attr.ino, 1);
                }
            }
        }
    }

    async fn contents(&mut self) {
        let Some(ino) = self.file().await else { return };
        let vfs = Arc::clone(&self.vfs);
        let (at, to) = (self.offset(), self.offset());
        match self.rng.random_range(0..9) {
            0..4 => {
                let len = [1, 700, 5000, 65_536, 200_000][self.rng.random_range(0..5)];
                let data: Vec<u8> = (0..len).map(|_| self.rng.random()).collect();
                vfs.write(ino, at, &data, true).await.unwrap();
            }
            4 | 5 => {
                let size = if self.rng.random_bool(0.3) { 0 } else { at };
                let set = SetAttr { size: Some(size), ..SetAttr::default() };
                vfs.setattr(&CALLER, ino, &set).await.unwrap();
            }
            6 => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                vfs.fallocate(ino, mode, at, 1 + to).await.unwrap();
            }
            _ => {
                let Some(target) = self.file().await else { return };
                drop(vfs.copy_file_range(ino, at, target, to, 3 * BLOCK).await);
            }
        }
    }

    async fn rest(&mut self) {
        let vfs = Arc::clone(&self.vfs);
        match self.rng.random_range(0..8) {
            0 | 1 => {
                let Some(ino) = self.file().await else { return };
                let name = [&b"user.x"[..], b"user.y"][self.rng.random_range(0..2)];
                if self.rng.random_bool(0.6) {
                    vfs.set_xattr(ino, name, b"value", XattrMode::Set).await.unwrap();
                } else {
                    drop(vfs.remove_xattr(ino, name).await);
                }
            }
            2 | 3 => {
                if self.handles.len() > 3 {
                    vfs.release(self.handles.swap_remove(0).1);
                } else if let Some(ino) = self.file().await {
                    let truncate = self.rng.random_bool(0.2);
                    self.handles.push((ino, vfs.open(ino, true, truncate).await.unwrap()));
                }
            }
            4 => vfs.sync_all().await.unwrap(),
            5 => drop(tokio::spawn(async move { vfs.sync_all().await })),
            _ => {
                for _ in 0..self.rng.random_range(0..40) {
                    tokio::task::yield_now().await;
                }
            }
        }
    }

    async fn step(&mut self) {
        match self.rng.random_range(0..10) {
            0..4 => self.names().await,
            4..8 => self.contents().await,
            _ => self.rest().await,
        }
    }
}

/// Nothing is wrong, and nothing is left over but segments that wait for their deletion.
async fn check_all(world: &World) {
    let options = OpenOptions {
        clock: Arc::clone(&world.clock),
        entropy: Arc::clone(&world.entropy),
        ..OpenOptions::default()
    };
    let examined = volume::examine(world.bucket(), &factors(), options).await.unwrap();
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    let report = maint::check(&examined, &options, &|_| ()).await.unwrap();
    examined.close().await;
    let found: Vec<_> = report.findings.iter().filter(|found| found.problem != Problem::Garbage).collect();
    assert!(found.is_empty(), "{:#?}", found);
}

fn runtime() -> tokio::runtime::Runtime {
    tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap()
}

fn run(seed: u64, options: VfsOptions) {
    println!("COFFER_TEST_SEED={seed}");
    let world = runtime().block_on(World::new(seed, options));
    let mut rng = SmallRng::seed_from_u64(seed);
    for _ in 0..6 {
        let runtime = runtime();
        let crashes = rng.random_bool(0.3);
        runtime.block_on(async {
            let opened = world.mount().await;
            let (vfs, rng) = (Arc::clone(&opened.vfs), SmallRng::seed_from_u64(rng.random()));
            let mut work = Work { vfs, rng, handles: Vec::new(), dirs: vec![Ino::ROOT] };
            for _ in 0..400 {
                work.step().await;
            }
            if !crashes {
                for (_, handle) in work.handles {
                    work.vfs.release(handle);
                }
                opened.close().await.unwrap();
                check_all(&world).await;
            }
        });
        runtime.shutdown_background();
    }
}

fn seeds() -> Vec<u64> {
    match std::env::var("COFFER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()) {
        Some(seed) => vec![seed],
        None => (1..4).collect(),
    }
}

#[test]
fn the_records_count_what_is_there_with_usual_limits() {
    seeds().into_iter().for_each(|seed| run(seed, VfsOptions::default()));
}

#[test]
fn the_records_count_what_is_there_with_tiny_limits() {
    let options = VfsOptions {
        dirty_bytes_max: 400_000,
        record_cache_bytes: 8192,
        inline_commit_bytes: 70_000,
        segment_room_bytes: 140_000,
        ..VfsOptions::default()
    };
    seeds().into_iter().for_each(|seed| run(seed, options.clone()));
}
