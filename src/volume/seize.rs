//! Takes a volume as its one writer without a filesystem over it: to repair records that a mount could
//! not rely on.

use std::fs::File;
use std::sync::Arc;

use crate::base::VolumeId;
use crate::keys::Factor;
use crate::meta::engine::{Engine, EngineMode};
use crate::meta::{Holder, Key, Record, Superblock, decode};
use crate::store::Bucket;
use crate::vault::Vault;

use super::fresh::{Offer, Verdict};
use super::open::{OpenOptions, check_features, refuse_if_held, take_lock};
use super::pin::Pin;
use super::trust::{Memory, meet};
use super::{VolumeError, engine_options, holder};

/// A volume that is held for writing.
pub struct Seized {
    /// The volume.
    pub volume: VolumeId,
    /// Its sealed objects.
    pub vault: Vault,
    /// Its records. An older writer can write no more.
    pub engine: Engine,
    /// What this process is as the volume's holder.
    pub holder: Holder,
    memory: Memory,
    pin: Pin,
    bucket: Bucket,
    _lock: Option<File>,
}

/// Takes the volume in `bucket`. Nothing is written yet but what stops an older writer.
///
/// # Errors
/// It is mounted, its history is not the one seen here before, or as [`super::open`]. That its superblock
/// cannot be read is none.
pub async fn seize(bucket: Bucket, factors: &[Factor], options: OpenOptions) -> Result<Seized, VolumeError> {
    let met = meet(&bucket, factors, &options).await?;
    let mut memory = met.memory;
    let (header, ring, _) = met.unlocked.into_parts();
    let (ring, volume) = (Arc::new(ring), header.volume);
    let vault = Vault::new(bucket.clone(), Arc::clone(&ring), Arc::clone(&options.entropy));
    let store = vault.meta_store(options.table_cache_bytes / 2);
    let open_engine = |mode| {
        let engine_options = engine_options(&bucket, &options);
        Engine::open(Arc::clone(&store), mode, engine_options, Arc::clone(&options.clock))
    };
    let reader = open_engine(EngineMode::Reader).await?;
    let seen = superblock(&reader).await?;
    if let Some(seen) = &seen {
        check_features(seen)?;
        let offer = Offer { engine: &reader, ring: &ring, header: &header, superblock: seen };
        if let Verdict::Refused(error, _) = offer.judge(memory.pin.as_ref(), &options).await? {
            return Err(error);
        }
    }
    let seen = seen.unwrap_or_default();
    let lock = take_lock(memory.local(), &seen)?;
    memory.settle_device(&reader, &ring, &options).await?;
    let device = memory.device;
    refuse_if_held(&seen, &memory, options.takeover)?;
    let offer = Offer { engine: &reader, ring: &ring, header: &header, superblock: &seen };
    let pin = offer.pin(memory.pin.as_ref(), device, memory.pin.as_ref().map_or(0, |pin| pin.accepted));
    reader.close().await?;
    let engine = open_engine(EngineMode::Writer).await?;
    let holder = holder::this(device, options.entropy.as_ref(), options.clock.now());
    if let Some(local) = memory.local() {
        local.begin_session(holder.session)?;
    }
    Ok(Seized { volume, vault, engine, holder, memory, pin, bucket, _lock: lock })
}

/// The superblock, if there is one that can be read.
async fn superblock(engine: &Engine) -> Result<Option<Superblock>, VolumeError> {
    let key = Key::Super;
    let Some(bytes) = engine.get(&key.encode()).await? else { return Ok(None) };
    match decode(&key, &bytes) {
        Ok(Record::Super(superblock)) => Ok(Some((*superblock).clone())),
        _ => Ok(None),
    }
}

impl Seized {
    /// Notes on this machine that a commit has been made.
    ///
    /// # Errors
    /// The local state cannot be written.
    pub fn note(&self, commit: u64, hash: [u8; 32]) -> Result<(), VolumeError> {
        self.memory.note(&self.bucket, self.vault.ring(), Pin { commit, hash, ..self.pin }, false)
    }

    /// Lets the volume go.
    ///
    /// # Errors
    /// Another writer took over, or the bucket does not answer.
    pub async fn close(self) -> Result<(), VolumeError> {
        Ok(self.engine.close().await?)
    }
}
