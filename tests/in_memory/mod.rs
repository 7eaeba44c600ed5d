//! A volume in memory, for tests that need no mount and no disk.

#![allow(dead_code, unreachable_pub)]

use std::sync::Arc;

use coffer::base::{OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::Bucket;
use coffer::vfs::Caller;
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened};
use object_store::ObjectStore;
use object_store::memory::InMemory;

/// Root, with the usual creation mask.
pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

/// A bucket with a new volume in it.
pub struct World(pub Arc<dyn ObjectStore>);

impl World {
    /// Makes the volume. A key file opens it, because that needs no stretching.
    pub async fn new() -> Self {
        let world = Self(Arc::new(InMemory::new()));
        let clock = Arc::new(SystemClock::default());
        volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
        world
    }

    /// The bucket, with a meter of its own.
    pub fn bucket(&self) -> Bucket {
        Bucket::from_store(Arc::clone(&self.0))
    }

    /// Opens the volume with nothing cached, and gives the meter with it.
    pub async fn open(&self, options: OpenOptions) -> (Opened, Bucket) {
        let bucket = self.bucket();
        let opened = volume::open(bucket.clone(), &factors(), options).await.unwrap();
        (opened, bucket)
    }
}

/// What makes the volume.
pub fn spec() -> NewVolumeSpec {
    let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
    NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) }
}

/// What opens the volume.
pub fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the tests in memory".to_vec()))]
}
