//! Opens a volume: header, keys, records, freshness, hold.

use std::fs::File;
use std::path::PathBuf;
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;

use crate::base::{Clock, Entropy, Ino, OsEntropy, Pool, SystemClock, VolumeId};
use crate::cache::BlockCache;
use crate::crypto::KeyRing;
use crate::data::{BlockReader, Compression};
use crate::keys::{self, Factor, Header, Identity, Signer, Unlocked};
use crate::meta::engine::{AskedOnce, Engine, EngineError, EngineMode};
use crate::meta::{Acceptance, Key, MetaError, Record, Superblock, chain, decode};
use crate::store::Bucket;
use crate::vault::{MetaStore, Vault};
use crate::vfs::{OnCommit, OnFenced, Vfs, VfsOptions};

use super::alone::opened_alone;
use super::fresh::{self, Offer, Verdict};
use super::local::LocalState;
use super::pin::Pin;
use super::trust::{Memory, TrustOptions, meet};
use super::unsent::{self, About, Shelf};
use super::{VolumeError, engine_options, holder};

/// How a volume is opened.
#[derive(Clone)]
pub struct OpenOptions {
    /// Take over from a writer that still holds the volume.
    pub takeover: bool,
    /// Open it in order to end a rotation of its key: that one is unfinished is no news.
    pub ends_rotation: bool,
    /// The newest header as it was a moment ago, and its number: it need not be waited for a second time.
    pub header: Option<(u64, Bytes)>,
    /// The key slot to unlock; if `None`, those that take such factors are tried in turn.
    pub key_slot: Option<u32>,
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
    /// What is known from elsewhere, and how much is asked of the bucket's state.
    pub trust: TrustOptions,
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
            ends_rotation: false,
            header: None,
            key_slot: None,
            cache_bytes: 256 * 1024 * 1024,
            read_buffer_bytes: 96 * 1024 * 1024,
            table_cache_bytes: 64 * 1024 * 1024,
            table_write_bytes: 128 * 1024 * 1024,
            state_dir: None,
            trust: TrustOptions::default(),
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
    /// What makes it this volume and no other.
    pub identity: Identity,
    /// Whether this machine has seen it for the first time.
    pub is_first_contact: bool,
    /// Whether what it remembers is an old copy, so that it goes on as another machine.
    pub is_copy: bool,
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

/// Reads the newest header of the volume in `bucket` and unlocks it, whatever this machine has seen before.
///
/// # Errors
/// [`VolumeError::NoVolume`] if there is none; a factor that does not open it; damage.
pub async fn unlock(bucket: &Bucket, factors: &[Factor]) -> Result<Unlocked, VolumeError> {
    unlock_by(bucket, factors, None).await
}

/// The same by one key slot, if one is named.
///
/// # Errors
/// As [`unlock`].
pub async fn unlock_by(
    bucket: &Bucket,
    factors: &[Factor],
    key_slot: Option<u32>,
) -> Result<Unlocked, VolumeError> {
    let options = OpenOptions { key_slot, ..OpenOptions::default() };
    Ok(meet(bucket, factors, &options).await?.unlocked)
}

/// A volume on its way to be opened.
struct Opening {
    bucket: Bucket,
    options: OpenOptions,
    header: Header,
    signer: Signer,
    ring: Arc<KeyRing>,
    vault: Vault,
    store: Arc<AskedOnce>,
    /// Of what is known of the bucket: sealed records and plain blocks.
    pool: Arc<Pool>,
    memory: Memory,
}

/// Opens the volume in `bucket`.
///
/// # Errors
/// See [`VolumeError`].
pub async fn open(bucket: Bucket, factors: &[Factor], options: OpenOptions) -> Result<Opened, VolumeError> {
    // Boxed, so that callers do not carry its state on their stacks.
    Box::pin(begin(bucket, factors, options)).await
}

async fn begin(bucket: Bucket, factors: &[Factor], options: OpenOptions) -> Result<Opened, VolumeError> {
    let met = meet(&bucket, factors, &options).await?;
    let (header, ring, signer) = met.unlocked.into_parts();
    if header.is_rotating() && !options.ends_rotation {
        tracing::warn!(
            "a rotation of the volume's key is unfinished: what is sealed with the old key is still believed"
        );
    }
    let ring = Arc::new(ring);
    let vault = Vault::new(bucket.clone(), Arc::clone(&ring), Arc::clone(&options.entropy));
    let pool = Pool::new();
    let store = vault.meta_store_in_pool(options.table_cache_bytes / 2, &pool);
    let store = AskedOnce::begin(store, Arc::clone(&options.clock));
    let opening = Opening { bucket, options, header, signer, ring, vault, store, pool, memory: met.memory };
    // Whoever writes relies on it with every commit. Beside what takes at least as long.
    let proof = async {
        match opening.options.vfs.read_only {
            true => Ok(()),
            false => opening.bucket.prove_create_only(opening.options.entropy.as_ref()).await,
        }
    };
    let (reader, proof) = futures::join!(opening.reader(), proof);
    let reader = reader?;
    proof?;
    let whole = async {
        match opening.options.trust.forensic {
            true => Ok(()),
            false => reader.logs_are_whole().await,
        }
    };
    let ((), whole) = futures::join!(opening.look_ahead(&reader), whole);
    let seen = superblock(&reader).await?;
    check_features(&seen)?;
    let accepted = opening.trust(&reader, &seen).await?;
    // A history that does not follow is told first: it is the graver.
    whole?;
    if opening.options.vfs.read_only {
        opening.store.end();
        return opening.read(reader, seen).await;
    }
    opening.write(reader, seen, accepted).await
}

impl Opening {
    async fn reader(&self) -> Result<Engine, EngineError> {
        let engine_options = engine_options(&self.bucket, &self.options);
        let store: MetaStore = self.store.clone();
        Engine::open(store, EngineMode::Reader, engine_options, Arc::clone(&self.options.clock)).await
    }

    async fn writer(&self) -> Result<Engine, EngineError> {
        let engine_options = engine_options(&self.bucket, &self.options);
        self.store.open_writer(engine_options, Arc::clone(&self.options.clock)).await
    }

    /// Asks at once for what is asked for one after the other below, so that it is in memory by then. What comes of it is
    /// judged there: here nothing is believed, and what fails fails again.
    async fn look_ahead(&self, reader: &Engine) {
        let range = |from: Key, to: Key| (from.encode(), to.encode());
        let mut keys = vec![Key::Super, Key::Acceptance];
        let mut ranges = vec![range(Key::Commit(0), Key::Commit(u64::MAX))];
        if let Some(pin) = &self.memory.pin {
            keys.push(Key::History(chain::first_of(pin.commit)));
        }
        if !self.options.vfs.read_only {
            keys.push(Key::Machine(self.memory.device));
            ranges.push(range(Key::Orphan(Ino(0)), Key::Orphan(Ino(u64::MAX))));
        }
        let keys: Vec<_> = keys.iter().map(Key::encode).collect();
        reader.look_ahead(&keys, &ranges).await;
    }

    /// Holds what the bucket offers against what was seen here, and notes it. Gives what is accepted
    /// although it does not follow, to be written with the first commit.
    async fn trust(&self, engine: &Engine, seen: &Superblock) -> Result<Option<Acceptance>, VolumeError> {
        let (options, memory) = (&self.options, &self.memory);
        let offer = Offer { engine, ring: &self.ring, header: &self.header, superblock: seen };
        let (accepted, is_new) = match offer.judge(memory.pin.as_ref(), options).await? {
            Verdict::Follows(ordinal) => (ordinal, false),
            Verdict::Excused(ordinal) => {
                tracing::warn!("the history goes on from an older state, which an admin has accepted");
                (ordinal, true)
            }
            Verdict::Refused(error, _) if !options.trust.accept_rollback || options.vfs.read_only => {
                return Err(error);
            }
            Verdict::Refused(error, acceptance) => {
                let signed = fresh::sign(*acceptance, self.ring.volume(), &self.signer)?;
                tracing::warn!("accepted, and noted in the volume: {error}");
                return Ok(Some(signed));
            }
        };
        let pin = offer.pin(memory.pin.as_ref(), memory.device, accepted);
        match offer.is_woven(&options.trust).await? {
            None => {}
            Some(error) if !options.trust.accept_rollback => return Err(error),
            Some(_) if options.vfs.read_only => {}
            Some(error) => {
                let acceptance = offer.to_sign(&pin, accepted, options.clock.now());
                let signed = fresh::sign(acceptance, self.ring.volume(), &self.signer)?;
                tracing::warn!("accepted, and noted in the volume: {error}");
                return Ok(Some(signed));
            }
        }
        memory.note(&self.bucket, &self.ring, pin, is_new)?;
        Ok(None)
    }

    fn parts(&self) -> (Arc<BlockCache>, BlockReader, VfsOptions) {
        let cache = BlockCache::in_pool(self.options.cache_bytes, &self.pool);
        let runtime = tokio::runtime::Handle::current();
        let (vault, bytes) = (self.vault.clone(), self.options.read_buffer_bytes);
        let blocks = BlockReader::new(vault, Arc::clone(&cache), bytes, runtime);
        let mut vfs_options = self.options.vfs.clone();
        vfs_options.compression = match self.header.compression {
            keys::Compression::None => Compression::None,
            keys::Compression::Lz4 => Compression::Lz4,
            keys::Compression::Zstd => Compression::Zstd,
        };
        (cache, blocks, vfs_options)
    }

    fn opened(self, vfs: Arc<Vfs>, lock: Option<File>) -> Opened {
        let (identity, is_first_contact) = (self.header.identity(), self.memory.is_first_contact());
        let (volume, is_copy) = (identity.volume, self.memory.is_copy);
        Opened { vfs, volume, vault: self.vault, identity, is_first_contact, is_copy, lock }
    }

    async fn read(self, reader: Engine, seen: Superblock) -> Result<Opened, VolumeError> {
        let (cache, blocks, mut vfs_options) = self.parts();
        let offer = Offer { engine: &reader, ring: &self.ring, header: &self.header, superblock: &seen };
        vfs_options.accepted = offer.accepted().await?;
        let (vault, clock) = (self.vault.clone(), Arc::clone(&self.options.clock));
        let stays = vfs_options.stays;
        let vfs = Vfs::new(reader, vault, blocks, cache, clock, seen, vfs_options);
        if stays {
            vfs.begin_stay().await?;
        }
        vfs.start_watching_age();
        Ok(self.opened(vfs, None))
    }

    /// Becomes the volume's writer, unless somebody else is.
    async fn write(
        mut self,
        reader: Engine,
        seen: Superblock,
        accepted: Option<Acceptance>,
    ) -> Result<Opened, VolumeError> {
        let (cache, blocks, mut vfs_options) = self.parts();
        let lock = take_lock(self.memory.local(), &seen)?;
        vfs_options.counter = self.memory.settle_device(&reader, &self.ring, &self.options).await?;
        vfs_options.device = self.memory.device;
        reader.close().await?;
        refuse_if_held(&seen, &self.memory, self.options.takeover)?;
        // Boxed, so that whoever opens does not carry its state on the stack.
        let engine = opened_alone(&seen, &self.memory, || self.writer().boxed()).await?;
        self.store.end();
        let found = superblock(&engine).await?;
        check_features(&found)?;
        // What the writer was shown need not be what the reader was shown.
        let offer = Offer { engine: &engine, ring: &self.ring, header: &self.header, superblock: &found };
        if let Some(error) = offer.reaches(seen.commit, &seen.head).await? {
            return Err(error);
        }
        if let Some(error) = offer.is_woven(&self.options.trust).await?
            && accepted.is_none()
        {
            return Err(error);
        }
        // After a rotation the word of the admin key before counts no more.
        let renewed = match self.header.is_rotating() && self.signer.is_admin() {
            true => offer.signed_anew(&self.signer).await?,
            false => None,
        };
        vfs_options.accepted = match &accepted {
            Some(accepted) => Some((accepted.commit, accepted.hash)),
            None => offer.accepted().await?,
        };
        let ordinal = accepted.as_ref().map_or(0, |accepted| accepted.ordinal);
        let pin = offer.pin(self.memory.pin.as_ref(), vfs_options.device, ordinal);
        let had_crashed = found.holder.is_some();
        if let Some(local) = self.memory.local() {
            vfs_options.on_commit = Some(noting(local, &self.ring, pin));
        }
        if let Some(state) = &self.options.state_dir {
            let shelf = Shelf::of(state, self.header.identity().volume);
            vfs_options.on_fenced = Some(on_fenced(shelf, &self.vault, Arc::clone(&self.options.clock)));
        }
        let (entropy, clock) = (self.options.entropy.as_ref(), Arc::clone(&self.options.clock));
        let hold = holder::this(vfs_options.device, entropy, clock.now());
        let session = hold.session;
        if let Some(local) = self.memory.local() {
            local.begin_session(session)?;
        }
        let vfs = Vfs::new(engine, self.vault.clone(), blocks, cache, clock, found, vfs_options);
        let is_accepting = accepted.is_some();
        let also = accepted.or(renewed);
        let also = also.map(|accepted| (Key::Acceptance, Record::Acceptance(Arc::new(accepted))));
        vfs.take_hold(hold, also).await?;
        if let Some(local) = self.memory.local() {
            local.hold_session(session)?;
        }
        if is_accepting {
            // Durable by now: from here on this is what was seen.
            let ((commit, hash), counter) = (vfs.head(), vfs.counter());
            self.memory.note(&self.bucket, &self.ring, Pin { commit, hash, counter, ..pin }, true)?;
        }
        vfs.start();
        let sweeping = Arc::clone(&vfs);
        tokio::spawn(async move {
            if let Err(error) = sweeping.sweep(had_crashed).await {
                tracing::warn!(%error, "what an earlier mount left could not be swept");
            }
        });
        Ok(self.opened(vfs, lock))
    }
}

/// Notes each commit on this machine.
fn noting(local: &Arc<LocalState>, ring: &Arc<KeyRing>, pin: Pin) -> OnCommit {
    let (local, ring) = (Arc::clone(local), Arc::clone(ring));
    Arc::new(move |made| {
        let pin = Pin { commit: made.number, hash: made.hash, counter: made.counter, ..pin };
        local.note(&ring, pin).map(drop).map_err(|error| error.to_string())
    })
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

/// Takes the lock of this machine's one writer, for as long as the file lives.
pub(super) fn take_lock(
    local: Option<&Arc<LocalState>>,
    seen: &Superblock,
) -> Result<Option<File>, VolumeError> {
    let Some(local) = local else { return Ok(None) };
    match local.lock()? {
        None => Err(seen.holder.as_ref().map_or(VolumeError::Locked, holder::refusal)),
        held => Ok(held),
    }
}

/// Refuses a volume that somebody else may be writing to.
pub(super) fn refuse_if_held(seen: &Superblock, memory: &Memory, takeover: bool) -> Result<(), VolumeError> {
    let Some(held) = seen.holder.as_ref().filter(|_| !takeover) else { return Ok(()) };
    let sessions = memory.local().map_or(Ok(Vec::new()), |local| local.sessions())?;
    match holder::is_gone(held, memory.device, &sessions) {
        true => Ok(()),
        false => Err(holder::refusal(held)),
    }
}

pub(super) async fn superblock(engine: &Engine) -> Result<Superblock, VolumeError> {
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
    async fn d8_a_store_that_overwrites_is_refused_when_mounting_for_writing_too() {
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
