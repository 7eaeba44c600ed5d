//! Makes a volume: an empty tree first, the header last, so that a volume is there whole or not.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use futures::TryStreamExt;

use crate::base::{Clock, Entropy, FileKind, Ino, VolumeId};
use crate::crypto::KeyRing;
use crate::keys::{self, Factor, Identity, NewVolume, RecoveryCode};
use crate::meta::chain::GENESIS;
use crate::meta::engine::{Engine, EngineMode, EngineOptions, Seeds};
use crate::meta::{Body, Inode, Key, MetaError, Record, Superblock, encode};
use crate::store::{Bucket, StoreError};
use crate::vault::{MetaStore, Vault, VaultError, header, peek, unfinished};

use super::known::KnownVolumes;
use super::local::{LocalState, new_device};
use super::pin::{HeaderSeen, Pin};
use super::{RECORDS_CACHE_BYTES, VolumeError};

/// Directories of a bucket, as `docs/FORMAT.md` has them.
const SEGMENTS: &str = "d";
const RECORDS: &str = "m";
/// What the records take of a volume that was never used: so many objects, and none larger. The first mount makes more.
const UNUSED_OBJECTS_MAX: usize = 8;
const UNUSED_OBJECT_BYTES_MAX: u64 = 640;
/// Most that is removed of what others have left: a listing may name as many as it likes.
const REMAINS_MAX: usize = 1024;

/// What is chosen when a volume is made.
#[derive(Clone, Copy, Debug)]
pub struct NewVolumeSpec {
    /// What the header fixes.
    pub header: NewVolume,
    /// Most bytes that may be stored; 0 for no limit.
    pub quota_bytes: u64,
    /// Owner and group of the root directory.
    pub owner: (u32, u32),
}

/// A volume just made.
#[derive(Debug)]
pub struct Created {
    /// Its id.
    pub volume: VolumeId,
    /// What makes it this volume and no other.
    pub identity: Identity,
    /// What opens it when every other factor is lost. Shown once.
    pub recovery_code: RecoveryCode,
    ring: Arc<KeyRing>,
    seen: HeaderSeen,
}

impl Created {
    /// Has this machine know the volume from the start.
    ///
    /// # Errors
    /// The state folder cannot be written.
    pub fn remember(&self, bucket: &Bucket, state: &Path, entropy: &dyn Entropy) -> Result<(), VolumeError> {
        let (device, seen) = (new_device(entropy), self.seen);
        let pin = Pin { commit: 0, hash: GENESIS, device, counter: 0, seen, accepted: 0 };
        LocalState::new(state, self.volume).note(&self.ring, pin)?;
        KnownVolumes::new(state).note(bucket, self.identity)
    }
}

/// A volume of which everything is stored but its header, without which it is none.
pub struct PreparedVolume {
    bucket: Bucket,
    bytes: Vec<u8>,
    created: Created,
    records: MetaStore,
    /// Objects of makings that died before this one began.
    remains: Vec<String>,
}

impl PreparedVolume {
    /// What will open it when every other factor is lost.
    #[must_use]
    pub const fn recovery_code(&self) -> &RecoveryCode {
        &self.created.recovery_code
    }

    /// Stores the header: from then on it is a volume.
    ///
    /// # Errors
    /// [`VolumeError::Exists`] if somebody else was first; of any other error it is uncertain whether the volume is there.
    pub async fn finish(mut self) -> Result<Created, VolumeError> {
        let bytes = bytes::Bytes::from(std::mem::take(&mut self.bytes));
        match header::write(&self.bucket, 1, bytes.clone()).await {
            Ok(()) => {
                // This is the volume here: what others had begun can be none any more.
                unfinished::remove_objects(&self.bucket, std::mem::take(&mut self.remains)).await;
                Ok(self.created)
            }
            Err(VaultError::Store(StoreError::AlreadyExists { .. })) => {
                let url = self.bucket.display_url().to_owned();
                // Not if it might be this one, whose header arrived and was not confirmed.
                if header::read_newest(&self.bucket).await.is_ok_and(|(_, theirs)| theirs != bytes) {
                    self.abandon().await;
                }
                Err(VolumeError::Exists { url })
            }
            Err(error) => Err(error.into()),
        }
    }

    /// Removes what was stored, as far as that can be done: without a header it is of no volume.
    pub async fn abandon(self) {
        unfinished::remove_records(&self.records).await;
    }
}

/// Makes a volume in `bucket`.
///
/// # Errors
/// As [`prepare`] and [`PreparedVolume::finish`].
pub async fn create(
    bucket: &Bucket,
    spec: &NewVolumeSpec,
    factors: &[Factor],
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
) -> Result<Created, VolumeError> {
    prepare(bucket, spec, factors, entropy, clock).await?.finish().await
}

/// Makes everything of a volume in `bucket` but its header, so that its recovery code can be given out before it opens
/// anything.
///
/// # Errors
/// [`VolumeError::Exists`] if there is one, [`VolumeError::Headless`] if there is all of one but its header; a bucket that
/// cannot be used.
pub async fn prepare(
    bucket: &Bucket,
    spec: &NewVolumeSpec,
    factors: &[Factor],
    entropy: Arc<dyn Entropy>,
    clock: Arc<dyn Clock>,
) -> Result<PreparedVolume, VolumeError> {
    bucket.probe().await?;
    bucket.prove_create_only(entropy.as_ref()).await?;
    if header::exists(bucket).await? {
        return Err(VolumeError::Exists { url: bucket.display_url().to_owned() });
    }
    let (bytes, recovery_code, unlocked) =
        keys::create(&spec.header, factors, entropy.as_ref(), clock.now())?;
    let (volume, identity, seen) =
        (unlocked.volume, unlocked.header.identity(), HeaderSeen::of(&unlocked.header));
    let ring = Arc::new(unlocked.ring);
    let vault = Vault::new(bucket.clone(), Arc::clone(&ring), Arc::clone(&entropy));
    let Some(remains) = unused(bucket).await? else {
        return Err(VolumeError::Headless { url: bucket.display_url().to_owned() });
    };
    let options = EngineOptions {
        create: true,
        cache_bytes: RECORDS_CACHE_BYTES,
        write_bytes: RECORDS_CACHE_BYTES,
        read_timeout: bucket.read_timeout(),
        meter: Some(bucket.meter().clone()),
        seeds: Seeds::new(Arc::clone(&entropy)),
        ..EngineOptions::default()
    };
    let store = vault.meta_store(RECORDS_CACHE_BYTES);
    let records = MetaStore::clone(&store);
    let engine = Engine::open(store, EngineMode::Writer, options, Arc::clone(&clock)).await?;
    engine.write_durable(empty_tree(spec, clock.as_ref())?).await?;
    engine.close().await?;
    let created = Created { volume, identity, recovery_code, ring, seen };
    Ok(PreparedVolume { bucket: bucket.clone(), bytes, created, records, remains })
}

/// What makings that died half-way have left in a bucket without a header. `None` if there is more than they could have left: any
/// segment, or records that have grown. Those of each volume lie below a directory of their own.
async fn unused(bucket: &Bucket) -> Result<Option<Vec<String>>, VolumeError> {
    if peek::list(bucket, Some(SEGMENTS)).try_next().await?.is_some() {
        return Ok(None);
    }
    let mut counts = HashMap::<String, usize>::new();
    let mut found = Vec::new();
    let mut records = peek::list(bucket, Some(RECORDS));
    while let Some((path, bytes)) = records.try_next().await? {
        let volume = path.split('/').nth(1).unwrap_or_default();
        let count = counts.entry(volume.to_owned()).or_default();
        *count += 1;
        if *count > UNUSED_OBJECTS_MAX || bytes > UNUSED_OBJECT_BYTES_MAX {
            return Ok(None);
        }
        // The listing is the provider's word: nothing is removed of which it was not asked.
        if found.len() < REMAINS_MAX && path.split('/').next() == Some(RECORDS) {
            found.push(path);
        }
    }
    Ok(Some(found))
}

/// A record's key and bytes, as the engine takes them.
type Row = (Vec<u8>, Option<Vec<u8>>);

fn empty_tree(spec: &NewVolumeSpec, clock: &dyn Clock) -> Result<Vec<Row>, MetaError> {
    let now = clock.now();
    let root = Inode {
        kind: FileKind::Directory,
        perm: 0o755,
        uid: spec.owner.0,
        gid: spec.owner.1,
        nlink: 2,
        rdev: 0,
        size: 0,
        allocated: 0,
        atime: now,
        mtime: now,
        ctime: now,
        btime: now,
        parent: Ino::ROOT,
        entries: 0,
        xattrs: 0,
        body: Body::Empty,
    };
    let superblock = Superblock {
        next_ino: Ino::ROOT.0 + 1,
        files: 1,
        quota_bytes: spec.quota_bytes,
        ..Superblock::default()
    };
    let root = encode(&Record::Inode(Arc::new(root)))?;
    let superblock = encode(&Record::Super(Arc::new(superblock)))?;
    Ok(vec![(Key::Inode(Ino::ROOT).encode(), Some(root)), (Key::Super.encode(), Some(superblock))])
}
