//! Takes a volume as its one writer without a filesystem over it: to repair records that a mount could
//! not rely on.

use std::fs::File;
use std::sync::Arc;

use futures::FutureExt;

use crate::base::{Time, VolumeId};
use crate::keys::{Factor, Header, Signer};
use crate::meta::engine::{Engine, EngineMode};
use crate::meta::{Acceptance, Holder, Key, Record, Superblock, decode};
use crate::store::Bucket;
use crate::vault::Vault;

use super::alone::opened_alone;
use super::fresh::{Offer, Verdict, sign};
use super::open::{OpenOptions, check_features, refuse_if_held, take_lock};
use super::pin::Pin;
use super::trust::{Memory, TrustOptions, meet};
use super::{VolumeError, engine_options, holder};

/// Records that are read at once.
const PAGE: usize = 1024;

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
    /// Whether logs that were missing have been given up.
    pub has_given_up_logs: bool,
    memory: Memory,
    pin: Pin,
    bucket: Bucket,
    header: Header,
    signer: Signer,
    /// Go on from whatever history there is, by the leave of an admin slot.
    accepts: bool,
    past: Past,
    _lock: Option<File>,
}

/// What becomes of what this machine has seen before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Past {
    /// It leads here, so that what is noted is the newer of the two.
    Kept,
    /// It does not, and an admin has accepted that: the first commit is noted instead of it.
    GivenUp,
    /// It does not, and until that is accepted, nothing is noted.
    Owed,
}

/// Takes the volume in `bucket`. Nothing is written yet but what stops an older writer, and, by an admin's leave, what
/// stands for logs that are lost.
///
/// # Errors
/// It is mounted, its history is not the one seen here before and is not to be accepted by an admin, or as
/// [`super::open`]. That its superblock cannot be read, or that the history has a gap, is none.
pub async fn seize(bucket: Bucket, factors: &[Factor], options: OpenOptions) -> Result<Seized, VolumeError> {
    let met = meet(&bucket, factors, &options).await?;
    let mut memory = met.memory;
    let (header, ring, signer) = met.unlocked.into_parts();
    let (ring, volume) = (Arc::new(ring), header.volume);
    let vault = Vault::new(bucket.clone(), Arc::clone(&ring), Arc::clone(&options.entropy));
    let store = vault.meta_store(options.table_cache_bytes / 2);
    let open_engine = |mode| {
        let engine_options = engine_options(&bucket, &options);
        Engine::open(Arc::clone(&store), mode, engine_options, Arc::clone(&options.clock)).boxed()
    };
    let reader = open_engine(EngineMode::Reader).await?;
    let seen = standing(&reader).await?;
    check_features(&seen)?;
    let offer = Offer { engine: &reader, ring: &ring, header: &header, superblock: &seen };
    let accepts = options.trust.accept_rollback;
    let (accepted, past) = match offer.judge(memory.pin.as_ref(), &options).await? {
        Verdict::Follows(ordinal) => (ordinal, Past::Kept),
        Verdict::Refused(error, _) if !accepts => return Err(error),
        Verdict::Excused(ordinal) => {
            tracing::warn!("the history goes on from an older state, which an admin has accepted");
            (ordinal, Past::GivenUp)
        }
        Verdict::Refused(..) => (memory.pin.as_ref().map_or(0, |pin| pin.accepted), Past::Owed),
    };
    let lock = take_lock(memory.local(), &seen)?;
    memory.settle_device(&reader, &ring, &options).await?;
    let device = memory.device;
    refuse_if_held(&seen, &memory, options.takeover)?;
    let pin = offer.pin(memory.pin.as_ref(), device, accepted);
    if accepts {
        // Who cannot sign learns it before anything is changed.
        sign(offer.to_sign(&pin, accepted, options.clock.now()), volume, &signer)?;
    }
    let has_given_up_logs = match accepts {
        // A log that is lost is a gap in the history like another, and closed by the same leave.
        true => reader.give_up_missing_logs().await? > 0,
        false => reader.logs_are_whole().await.map(|()| false)?,
    };
    reader.close().await?;
    let engine = opened_alone(&seen, &memory, || open_engine(EngineMode::Writer)).await?;
    // What the writer is shown need not be what the reader was shown.
    let found = standing(&engine).await?;
    let offer = Offer { engine: &engine, ring: &ring, header: &header, superblock: &found };
    if let Some(error) = offer.reaches(seen.commit, &seen.head).await? {
        return Err(error);
    }
    let holder = holder::this(device, options.entropy.as_ref(), options.clock.now());
    if let Some(local) = memory.local() {
        local.begin_session(holder.session)?;
    }
    let seized = Seized {
        volume,
        vault,
        engine,
        holder,
        has_given_up_logs,
        memory,
        pin,
        bucket,
        header,
        signer,
        accepts,
        past,
        _lock: lock,
    };
    Ok(seized)
}

/// The superblock; where it cannot be read, what stands in for it: the newest commit that there is. So a lost
/// superblock is no way round what was seen.
async fn standing(engine: &Engine) -> Result<Superblock, VolumeError> {
    if let Some(superblock) = superblock(engine).await? {
        return Ok(superblock);
    }
    let mut newest = Superblock::default();
    let (mut from, to) = (Key::Commit(0), Key::Commit(u64::MAX).encode());
    loop {
        let rows = engine.scan(from.encode(), to.clone(), PAGE).await?;
        for (key, value) in &rows {
            if let Some(key @ Key::Commit(number)) = Key::decode(key) {
                from = Key::Commit(number.saturating_add(1));
                if let Ok(Record::Commit(commit)) = decode(&key, value) {
                    (newest.commit, newest.head) = (number, commit.hash);
                }
            }
        }
        if rows.len() < PAGE {
            return Ok(newest);
        }
    }
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
    /// Notes on this machine that a commit has been made, which is its own commit number `counter`. A machine that does
    /// not know of its own commits takes itself for a copy.
    ///
    /// # Errors
    /// The local state cannot be written.
    pub fn note(&mut self, commit: u64, hash: [u8; 32], counter: u64) -> Result<(), VolumeError> {
        if self.past == Past::Owed {
            return Ok(());
        }
        let pin = Pin { commit, hash, counter, ..self.pin };
        self.memory.note(&self.bucket, self.vault.ring(), pin, self.past == Past::GivenUp)?;
        self.past = Past::Kept;
        Ok(())
    }

    /// Notes on this machine that a commit with `accepted` has been made, whatever was seen here before.
    ///
    /// # Errors
    /// The local state cannot be written.
    pub fn note_accepted(
        &mut self,
        commit: u64,
        hash: [u8; 32],
        counter: u64,
        accepted: &Acceptance,
    ) -> Result<(), VolumeError> {
        self.past = Past::GivenUp;
        self.pin.accepted = accepted.ordinal;
        self.note(commit, hash, counter)
    }

    /// The superblock; where it cannot be read, what the newest commit says of it.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn superblock(&self) -> Result<Superblock, VolumeError> {
        standing(&self.engine).await
    }

    /// The commit up to which an admin has accepted the history as it is.
    ///
    /// # Errors
    /// The records cannot be read.
    pub async fn accepted_upto(&self) -> Result<Option<u64>, VolumeError> {
        let superblock = self.superblock().await?;
        self.offer(&superblock).accepted_upto().await
    }

    /// What is to be written so that every machine goes on from `superblock`, signed by the admin's key; `None` if
    /// nobody has asked for that, or there is nothing to accept.
    ///
    /// # Errors
    /// The records cannot be read; the key is no admin's.
    pub async fn accept(
        &self,
        superblock: &Superblock,
        now: Time,
    ) -> Result<Option<Acceptance>, VolumeError> {
        let offer = self.offer(superblock);
        let has_gap = offer.is_woven(&TrustOptions::default()).await?.is_some();
        if !self.accepts || !(self.past == Past::Owed || has_gap) {
            return Ok(None);
        }
        let ordinal = offer.acceptance().await?.map_or(0, |accepted| accepted.ordinal);
        let commit = self.memory.pin.map_or(0, |pin| pin.commit).max(superblock.commit);
        let seen = Pin { commit, ..self.pin };
        sign(offer.to_sign(&seen, ordinal, now), self.volume, &self.signer).map(Some)
    }

    fn offer<'a>(&'a self, superblock: &'a Superblock) -> Offer<'a> {
        Offer { engine: &self.engine, ring: self.vault.ring(), header: &self.header, superblock }
    }

    /// Lets the volume go.
    ///
    /// # Errors
    /// Another writer took over, or the bucket does not answer.
    pub async fn close(self) -> Result<(), VolumeError> {
        Ok(self.engine.close().await?)
    }
}
