//! Opens a volume to be looked at as it is: what is wrong with its records does not stand in the way.

use std::sync::Arc;

use crate::base::VolumeId;
use crate::keys::Factor;
use crate::meta::engine::{Engine, EngineError, EngineMode, EngineOptions};
use crate::store::Bucket;
use crate::vault::Vault;

use super::fresh::{Offer, Verdict, went_back};
use super::open::{OpenOptions, superblock};
use super::pin::{HeaderSeen, Pin};
use super::trust::{Memory, Met, meet};
use super::{VolumeError, engine_options};

/// A volume that is looked at. Nothing is held, and nothing written to the bucket.
pub struct Examined {
    /// The volume.
    pub volume: VolumeId,
    /// Its sealed objects.
    pub vault: Vault,
    /// Its records as of one commit, or why they cannot be read.
    pub engine: Result<Engine, EngineError>,
    /// The commit that this machine has seen last, and its hash; none where an admin has accepted that it is given up.
    pub pin: Option<(u64, [u8; 32])>,
    /// The commit up to which an admin has accepted the history as it is.
    pub accepted: Option<u64>,
    /// Whether its key was rotated and not everything is sealed anew.
    pub is_rotating: bool,
    memory: Memory,
    seen: HeaderSeen,
    options: OpenOptions,
}

/// Opens the volume in `bucket` to look at it.
///
/// # Errors
/// There is no volume, the factors do not open it, or the bucket does not answer.
pub async fn examine(
    bucket: Bucket,
    factors: &[Factor],
    options: OpenOptions,
) -> Result<Examined, VolumeError> {
    let Met { unlocked, memory } = meet(&bucket, factors, &options).await?;
    let (header, ring, _) = unlocked.into_parts();
    let (ring, volume) = (Arc::new(ring), header.volume);
    let vault = Vault::new(bucket, ring, Arc::clone(&options.entropy));
    let engine = match open_reader(&vault, &options).await {
        Err(error @ (EngineError::Denied(_) | EngineError::Unavailable(_))) => return Err(error.into()),
        opened => opened,
    };
    let (seen, is_rotating) = (HeaderSeen::of(&header), header.is_rotating());
    let (mut pin, mut accepted) = (memory.pin, None);
    if let Ok(engine) = &engine {
        let superblock = match superblock(engine).await {
            // Nothing is expected of it: the check will say what is wrong.
            Err(_) if options.trust.expect_commit.is_none() && options.trust.max_staleness.is_none() => None,
            superblock => Some(superblock?),
        };
        if let Some(superblock) = &superblock {
            let offer = Offer { engine, ring: vault.ring(), header: &header, superblock };
            if options.trust.expect_commit.is_some() || options.trust.max_staleness.is_some() {
                offer.judge(None, &options).await?;
            }
            accepted = offer.accepted_upto().await.unwrap_or_default();
            // What cannot be read excuses nothing.
            if let Ok(Verdict::Excused(_)) = offer.judge(pin.as_ref(), &options).await {
                pin = None;
            }
        }
    }
    if let Some(error) = pin.and_then(|pin| went_back(&pin.seen, &header)) {
        return Err(error);
    }
    let pin = pin.map(|pin| (pin.commit, pin.hash));
    Ok(Examined { volume, vault, engine, pin, accepted, is_rotating, memory, seen, options })
}

async fn open_reader(vault: &Vault, options: &OpenOptions) -> Result<Engine, EngineError> {
    let store = vault.meta_store(options.table_cache_bytes / 2);
    let engine_options: EngineOptions = engine_options(vault.bucket(), options);
    Engine::open(store, EngineMode::Reader, engine_options, Arc::clone(&options.clock)).await
}

impl Examined {
    /// The records as they are by now.
    ///
    /// # Errors
    /// They cannot be read any more.
    pub async fn latest(&self) -> Result<Engine, VolumeError> {
        Ok(open_reader(&self.vault, &self.options).await?)
    }

    /// Notes on this machine that a commit has been seen.
    ///
    /// # Errors
    /// The local state cannot be written.
    pub fn note(&self, commit: u64, hash: [u8; 32]) -> Result<(), VolumeError> {
        let before = self.memory.pin.as_ref();
        let counter = before.map_or(0, |pin| pin.counter);
        let accepted = before.map_or(0, |pin| pin.accepted);
        let device = self.memory.device;
        let pin = Pin { commit, hash, device, counter, seen: self.seen, accepted };
        self.memory.note(self.vault.bucket(), self.vault.ring(), pin, false)
    }

    /// Ends looking.
    pub async fn close(self) {
        if let Ok(engine) = self.engine
            && let Err(error) = engine.close().await
        {
            tracing::debug!(%error, "closing after looking");
        }
    }
}
