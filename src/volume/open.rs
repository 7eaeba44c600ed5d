//! Opens a volume: header, keys, records, freshness, hold.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use futures::FutureExt;

use crate::base::{Clock, Entropy, OsEntropy, SystemClock, VolumeId};
use crate::cache::BlockCache;
use crate::crypto::KeyRing;
use crate::data::{BlockReader, Compression};
use crate::keys::{self, Factor, KeyError, Unlocked};
use crate::meta::engine::{Engine, EngineMode};
use crate::meta::{Key, MetaError, Record, Superblock, chain, decode};
use crate::store::Bucket;
use crate::vault::{Vault, VaultError, header};
use crate::vfs::{OnFenced, Vfs, VfsOptions};

use super::pin::{LocalState, Pin};
use super::unsent::{self, About, Shelf};
use super::{VolumeError, holder};

/// How a volume is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Take over from a writer that still holds the volume.
    pub takeover: bool,
    /// Bytes of plaintext blocks to keep in memory.
    pub cache_bytes: u64,
    /// Bytes of reads ahead and of neighbourhoods in memory.
    pub read_buffer_bytes: u64,
    /// Bytes of the record engine's tables to keep in memory, sealed and opened.
    pub table_cache_bytes: u64,
    /// Bytes of committed records in memory that are in none of its tables yet.
    pub table_write_bytes: u64,
    /// Where this machine notes what it has seen; nowhere if `None`.
    pub state_dir: Option<PathBuf>,
    /// The filesystem's limits.
    pub vfs: VfsOptions,
    /// Time.
    pub clock: Arc<dyn Clock>,
    /// Randomness.
    pub entropy: Arc<dyn Entropy>,
}

impl Default for OpenOptions {
    fn default() -> Self {
        Self {
            takeover: false,
            cache_bytes: 256 * 1024 * 1024,
            read_buffer_bytes: 96 * 1024 * 1024,
            table_cache_bytes: 64 * 1024 * 1024,
            table_write_bytes: 128 * 1024 * 1024,
            state_dir: None,
            vfs: VfsOptions::default(),
            clock: Arc::new(SystemClock::default()),
            entropy: Arc::new(OsEntropy),
        }
    }
}

/// An open volume.
pub struct Opened {
    /// The filesystem. [`Vfs::shutdown`] ends it.
    pub vfs: Arc<Vfs>,
    /// The volume.
    pub volume: VolumeId,
    /// Its sealed objects.
    pub vault: Vault,
    lock: Option<File>,
}

impl Opened {
    /// Ends the filesystem with a last commit.
    ///
    /// # Errors
    /// Why something is not in the bucket.
    pub async fn close(self) -> Result<(), VolumeError> {
        let closed = self.vfs.shutdown().await;
        drop(self.lock);
        Ok(closed?)
    }
}

/// Reads the newest header of the volume in `bucket` and unlocks it.
///
/// # Errors
/// [`VolumeError::NoVolume`] if there is none; a factor that does not open it; damage.
pub async fn unlock(bucket: &Bucket, factors: &[Factor]) -> Result<Unlocked, VolumeError> {
    let (number, bytes) = match header::read_newest(bucket).await {
        Ok(found) => found,
        Err(VaultError::NoHeader) => {
            return Err(VolumeError::NoVolume { url: bucket.display_url().to_owned() });
        }
        Err(error) => return Err(error.into()),
    };
    let unlocked = keys::unlock(&bytes, factors)?;
    if unlocked.header.revision != number {
        return Err(KeyError::Damaged { what: "its number is not that of its object".to_owned() }.into());
    }
    Ok(unlocked)
}

/// Opens the volume in `bucket`.
///
/// # Errors
/// See [`VolumeError`].
pub async fn open(bucket: Bucket, factors: &[Factor], options: OpenOptions) -> Result<Opened, VolumeError> {
    let unlocked = unlock(&bucket, factors).await?;
    let volume = unlocked.volume;
    let ring = Arc::new(unlocked.ring);
    let is_writer = !options.vfs.read_only;
    let local = match &options.state_dir {
        Some(state) => Some(Arc::new(LocalState::open(state, volume)?)),
        None => None,
    };
    let vault = Vault::new(bucket.clone(), Arc::clone(&ring), Arc::clone(&options.entropy));
    let store = vault.meta_store(options.table_cache_bytes / 2);
    let engine_options = super::engine_options(&bucket, &options);
    let open_engine =
        |mode| Engine::open(Arc::clone(&store), mode, engine_options.clone(), Arc::clone(&options.clock));

    // Whoever writes relies on it with every commit. Beside what takes at least as long.
    let proof = async {
        match is_writer {
            true => bucket.prove_create_only(options.entropy.as_ref()).await,
            false => Ok(()),
        }
    };
    let (reader, proof) = futures::join!(open_engine(EngineMode::Reader), proof);
    let reader = reader?;
    proof?;
    let seen = superblock(&reader).await?;
    check_features(&seen)?;
    if let Some(local) = &local {
        check_fresh(&reader, local, &ring, volume, &seen).await?;
        local.write(&ring, Pin { commit: seen.commit, hash: seen.head })?;
    }
    let mut vfs_options = options.vfs.clone();
    vfs_options.compression = match unlocked.header.compression {
        keys::Compression::None => Compression::None,
        keys::Compression::Lz4 => Compression::Lz4,
        keys::Compression::Zstd => Compression::Zstd,
    };
    let cache = Arc::new(BlockCache::new(options.cache_bytes));
    let runtime = tokio::runtime::Handle::current();
    let blocks = BlockReader::new(vault.clone(), Arc::clone(&cache), options.read_buffer_bytes, runtime);
    if !is_writer {
        let vfs = Vfs::new(reader, vault.clone(), blocks, cache, options.clock, seen, vfs_options);
        return Ok(Opened { vfs, volume, vault, lock: None });
    }

    let mut lock = None;
    if let Some(local) = &local {
        lock = local.lock()?;
        if lock.is_none() {
            return Err(match &seen.holder {
                Some(holder) => holder::refusal(holder),
                None => VolumeError::Locked,
            });
        }
        vfs_options.device = local.device(options.entropy.as_ref())?;
    }
    if let Some(held) = &seen.holder
        && !options.takeover
        && !holder::is_gone(held, vfs_options.device)
    {
        return Err(holder::refusal(held));
    }
    reader.close().await?;
    let engine = open_engine(EngineMode::Writer).await?;
    let found = superblock(&engine).await?;
    check_features(&found)?;
    // What the writer was shown need not be what the reader was shown.
    check_reaches(&engine, &ring, volume, Pin { commit: seen.commit, hash: seen.head }, &found).await?;
    let had_crashed = found.holder.is_some();
    if let Some(local) = &local {
        let (local, ring) = (Arc::clone(local), Arc::clone(&ring));
        vfs_options.on_commit = Some(Arc::new(move |commit, hash| {
            if let Err(error) = local.write(&ring, Pin { commit, hash }) {
                tracing::warn!(%error, "the commit could not be noted on this machine");
            }
        }));
    }
    if let Some(state) = &options.state_dir {
        vfs_options.on_fenced = Some(on_fenced(Shelf::of(state, volume), &vault, Arc::clone(&options.clock)));
    }
    let hold = holder::this(vfs_options.device, options.entropy.as_ref(), options.clock.now());
    let vfs = Vfs::new(engine, vault.clone(), blocks, cache, options.clock, found, vfs_options);
    vfs.take_hold(hold).await?;
    vfs.start();
    let sweeping = Arc::clone(&vfs);
    tokio::spawn(async move {
        if let Err(error) = sweeping.sweep(had_crashed).await {
            tracing::warn!(%error, "what an earlier mount left could not be swept");
        }
    });
    Ok(Opened { vfs, volume, vault, lock })
}

/// Keeps on this machine what the mount had not sent when another writer took over.
fn on_fenced(shelf: Shelf, vault: &Vault, clock: Arc<dyn Clock>) -> OnFenced {
    let vault = vault.clone();
    Arc::new(move |vfs| {
        let (shelf, vault) = (shelf.clone(), vault.clone());
        let about = About { host: holder::host(), saved: clock.now(), commit: vfs.head().0 };
        async move { unsent::save(&vfs, &shelf, vault.ring(), vault.entropy(), about).await }.boxed()
    })
}

async fn superblock(engine: &Engine) -> Result<Superblock, VolumeError> {
    let key = Key::Super;
    let bytes = engine.get(&key.encode()).await?.ok_or(MetaError::Missing(key))?;
    match decode(&key, &bytes)? {
        Record::Super(superblock) => Ok((*superblock).clone()),
        _ => Err(MetaError::Missing(key).into()),
    }
}

pub(super) const fn check_features(superblock: &Superblock) -> Result<(), VolumeError> {
    match superblock.features {
        0 => Ok(()),
        bits => Err(VolumeError::NewerFeatures(bits)),
    }
}

/// The history must reach from what was seen here before to what the bucket offers.
pub(super) async fn check_fresh(
    engine: &Engine,
    local: &LocalState,
    ring: &KeyRing,
    volume: VolumeId,
    offered: &Superblock,
) -> Result<(), VolumeError> {
    match local.read(ring)? {
        Some(pin) => check_reaches(engine, ring, volume, pin, offered).await,
        None => Ok(()),
    }
}

async fn check_reaches(
    engine: &Engine,
    ring: &KeyRing,
    volume: VolumeId,
    pin: Pin,
    offered: &Superblock,
) -> Result<(), VolumeError> {
    if offered.commit < pin.commit {
        return Err(VolumeError::Rollback { volume, expected: pin.commit, found: offered.commit });
    }
    if pin.commit == 0 {
        return Ok(());
    }
    // The superblock itself says what the last commit was: its record is not needed for that.
    let hash = match offered.commit == pin.commit {
        true => Some(offered.head),
        false => hash_of(engine, ring, pin.commit).await?,
    };
    match hash {
        Some(hash) if hash == pin.hash => Ok(()),
        _ => Err(VolumeError::Fork { volume, number: pin.commit }),
    }
}

/// The hash of a commit: as its own record has it, or as a history gives it.
async fn hash_of(engine: &Engine, ring: &KeyRing, number: u64) -> Result<Option<[u8; 32]>, VolumeError> {
    let first = chain::first_of(number);
    for key in [Key::Commit(number), Key::History(first)] {
        let Some(bytes) = engine.get(&key.encode()).await? else { continue };
        return Ok(match decode(&key, &bytes)? {
            Record::Commit(commit) => Some(commit.hash),
            Record::History(history) => chain::hash_in(ring, &history, first, number),
            _ => None,
        });
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::crypto::{KdfCost, Secret};
    use crate::keys::NewVolume;
    use crate::store::StoreError;
    use crate::store::fault::scripted::FaultyStore;
    use crate::volume::{NewVolumeSpec, create};

    /// A store may change its ways after `init`, or a copy of the bucket may be served by another.
    #[tokio::test]
    async fn a_store_that_overwrites_is_refused_when_mounting_for_writing_too() {
        let store = FaultyStore::default();
        let inner = Arc::clone(&store.inner);
        let good = Bucket::from_store(Arc::new(store));
        let header =
            NewVolume { compression: keys::Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let factors = [Factor::KeyFile(Secret::new(b"the key file of a test".to_vec()))];
        let clock = Arc::new(SystemClock::default());
        create(&good, &spec, &factors, Arc::new(OsEntropy), clock).await.unwrap();

        let bad = Bucket::from_store(Arc::new(FaultyStore { inner, overwrites: true, ..Default::default() }));
        let refused = open(bad.clone(), &factors, OpenOptions::default()).await.map(drop);
        assert!(matches!(refused, Err(VolumeError::Store(StoreError::IgnoresPreconditions { .. }))));
        let mut reading = OpenOptions::default();
        reading.vfs.read_only = true;
        open(bad, &factors, reading).await.unwrap().close().await.unwrap();
        open(good, &factors, OpenOptions::default()).await.unwrap().close().await.unwrap();
    }
}
