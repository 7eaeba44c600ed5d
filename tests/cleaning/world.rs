//! A volume in memory to be cleaned, and work that makes it worth it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Clock, Entropy, Ino, ManualClock, SeededEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::{Caller, CleanOptions, Handle, Vfs, VfsOptions};
use coffer::volume::{self, Examined, NewVolumeSpec, OpenOptions, Opened, VolumeError};
use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::store::TestStore;

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
pub const BLOCK: usize = 65_536;
pub const GRACE: Duration = Duration::from_secs(600);
pub const DAY: Duration = Duration::from_secs(24 * 3600);

pub struct World {
    pub store: Arc<TestStore>,
    pub clock: Arc<ManualClock>,
    pub entropy: Arc<dyn Entropy>,
    pub vfs: VfsOptions,
    pub state_dir: Option<PathBuf>,
    /// The bucket is there instead of in memory.
    pub directory: Option<PathBuf>,
}

impl World {
    pub async fn new(vfs: VfsOptions) -> Self {
        Self::with(vfs, Compression::None).await
    }

    pub async fn with(vfs: VfsOptions, compression: Compression) -> Self {
        Self::made(vfs, compression, None).await
    }

    pub async fn in_directory(vfs: VfsOptions, directory: PathBuf) -> Self {
        Self::made(vfs, Compression::None, Some(directory)).await
    }

    async fn made(mut vfs: VfsOptions, compression: Compression, directory: Option<PathBuf>) -> Self {
        vfs.clean.is_automatic = false;
        let now = SystemClock::default().now();
        let world = Self {
            store: Arc::new(TestStore::default()),
            // Objects in memory bear the time of day.
            clock: Arc::new(ManualClock::new(now.secs as u64 * 1_000_000_000)),
            entropy: Arc::new(SeededEntropy::new(11)),
            vfs,
            state_dir: None,
            directory,
        };
        let header = NewVolume { compression, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let (entropy, clock) = (Arc::clone(&world.entropy), Arc::clone(&world.clock));
        volume::create(&world.bucket(), &spec, &factors(), entropy, clock).await.unwrap();
        world
    }

    pub fn bucket(&self) -> Bucket {
        match &self.directory {
            Some(directory) => coffer::store::open(directory.to_str().unwrap(), &Default::default()).unwrap(),
            None => Bucket::from_store(Arc::clone(&self.store) as _),
        }
    }

    pub async fn mount(&self) -> Opened {
        self.try_mount().await.unwrap()
    }

    pub async fn try_mount(&self) -> Result<Opened, VolumeError> {
        volume::open(self.bucket(), &factors(), self.options()).await
    }

    /// Opens the volume for a check.
    pub async fn examine(&self) -> Examined {
        volume::examine(self.bucket(), &factors(), self.options()).await.unwrap()
    }

    fn options(&self) -> OpenOptions {
        OpenOptions {
            takeover: true,
            vfs: self.vfs.clone(),
            state_dir: self.state_dir.clone(),
            clock: Arc::clone(&self.clock) as _,
            entropy: Arc::clone(&self.entropy),
            ..OpenOptions::default()
        }
    }

    /// The objects under `prefix`, and their lengths.
    pub async fn objects(&self, prefix: &str) -> BTreeMap<Path, u64> {
        let listed = self.store.inner.list(Some(&Path::from(prefix)));
        listed.map_ok(|meta| (meta.location, meta.size)).try_collect().await.unwrap()
    }

    pub async fn segments(&self) -> BTreeMap<Path, u64> {
        self.objects("d").await
    }
}

pub fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the cleaning tests".to_vec()))]
}

/// Segments of eight blocks, and no bytes too few to bother.
pub fn small_segments() -> VfsOptions {
    let clean = CleanOptions { slack_bytes: 0, ..CleanOptions::default() };
    VfsOptions { segment_room_bytes: 8 * BLOCK + 1024, clean, ..VfsOptions::default() }
}

pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
    bytes
}

pub async fn make(vfs: &Vfs, name: &str, data: &[u8]) -> Ino {
    let attr = vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
    vfs.write(attr.ino, 0, data, true).await.unwrap();
    vfs.forget(attr.ino, 1);
    attr.ino
}

pub async fn contents(vfs: &Vfs, ino: Ino) -> Vec<u8> {
    let size = vfs.getattr(ino).await.unwrap().size;
    vfs.read(Handle(0), ino, 0, size as usize).await.unwrap()
}

/// A file of which only every fourth block is left where it was written first.
pub async fn sparse_file(vfs: &Vfs, name: &str, blocks: u64) -> (Ino, Vec<u8>) {
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
pub struct Workload {
    pub rng: SmallRng,
    pub files: Vec<(Ino, Vec<u8>)>,
}

impl Workload {
    pub async fn begin(vfs: &Vfs, seed: u64, file_count: usize, large_blocks: usize) -> Self {
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

    pub async fn overwrite(&mut self, vfs: &Vfs, times: usize) {
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

    pub async fn compare(&self, vfs: &Vfs) {
        for (number, (ino, data)) in self.files.iter().enumerate() {
            assert!(contents(vfs, *ino).await == *data, "file{number} differs");
        }
    }
}
