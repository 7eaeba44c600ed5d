//! Rotates the key of a volume: a new epoch begins, everything in use is sealed anew, then what is older is not believed any
//! more. (`docs/ARCHITECTURE.md`, "A rotation is three states")

use super::rekey::{Rekeying, rekey};
use super::{OpenOptions, Opened, VolumeError, open};
use crate::keys::{Factor, Identity, KdfCost, NextEpoch};
use crate::store::Bucket;
use crate::vault::header;
use crate::vfs::{RenewStep, Renewed};

/// What a rotation has come to.
#[derive(Clone, Copy, Debug)]
pub struct Rotated {
    /// What makes the volume this one from now on.
    pub identity: Identity,
    /// What was sealed anew.
    pub renewed: Renewed,
}

/// A key epoch that can begin: the volume is held for writing, and nothing has changed.
pub struct PreparedEpoch {
    rekeying: Rekeying,
    next: NextEpoch,
    held: Opened,
}

/// Prepares a new key epoch and holds the volume. Of the slots those stay for which `kept` has factors.
///
/// # Errors
/// Somebody else has the volume mounted; the slot that was opened is no admin's; a rotation is under way; or as [`open`].
pub async fn prepare_epoch(
    rekeying: Rekeying,
    factors: &[Factor],
    kept: &[(u32, &[Factor])],
    kdf_cost: KdfCost,
    options: &OpenOptions,
) -> Result<PreparedEpoch, VolumeError> {
    let (entropy, now) = (options.entropy.as_ref(), options.clock.now());
    let next = rekeying.unlocked.next_epoch(kept, kdf_cost, entropy, now)?;
    let held = open(rekeying.bucket.clone(), factors, options.clone()).await?;
    Ok(PreparedEpoch { rekeying, next, held })
}

impl PreparedEpoch {
    /// Begins it: whatever is sealed after this is sealed with the new key, what was sealed before still opens. Lets the
    /// volume go.
    ///
    /// # Errors
    /// Somebody else has changed the volume's keys: nothing has begun. Of any other error that is uncertain.
    pub async fn begin(self) -> Result<(), VolumeError> {
        let Self { rekeying, next, held } = self;
        // Create-only: if the keys were changed meanwhile, the number is taken.
        let written = header::write(&rekeying.bucket, next.header.revision, next.bytes.into()).await;
        let closed = held.close().await;
        written?;
        // From here on this machine goes back to no header of before.
        rekeying.note(&next.header, &next.ring)?;
        closed
    }

    /// Lets the volume go, and nothing begins.
    ///
    /// # Errors
    /// As [`Opened::close`].
    pub async fn give_up(self) -> Result<(), VolumeError> {
        self.held.close().await
    }
}

/// Begins a new key epoch.
///
/// # Errors
/// As [`prepare_epoch`] and [`PreparedEpoch::begin`].
pub async fn begin_epoch(
    rekeying: Rekeying,
    factors: &[Factor],
    kept: &[(u32, &[Factor])],
    kdf_cost: KdfCost,
    options: &OpenOptions,
) -> Result<(), VolumeError> {
    prepare_epoch(rekeying, factors, kept, kdf_cost, options).await?.begin().await
}

/// Seals everything anew that is in use and sealed with an older key, and then has nothing older believed. To be called
/// again after whatever interrupted it.
///
/// # Errors
/// Something that is in use is damaged, so that it cannot be sealed anew; or as [`open`]. What was done is done.
pub async fn end_rotation(
    bucket: &Bucket,
    factors: &[Factor],
    options: &OpenOptions,
    tell: &(dyn Fn(RenewStep) + Send + Sync),
) -> Result<Rotated, VolumeError> {
    let held = open(bucket.clone(), factors, OpenOptions { ends_rotation: true, ..options.clone() }).await?;
    let done = async {
        let renewed = held.vfs.renew(tell).await?;
        let mut rekeying = rekey(bucket.clone(), factors, options).await?;
        let bytes = rekeying.unlocked.end_rotation()?;
        rekeying.store(bytes).await?;
        Ok(Rotated { identity: rekeying.unlocked.header.identity(), renewed })
    };
    let done: Result<Rotated, VolumeError> = Box::pin(done).await;
    let closed = held.close().await;
    let done = done?;
    closed?;
    Ok(done)
}
