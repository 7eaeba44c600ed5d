//! Changes a volume's header: holds it against what was seen, stores the next one, and notes that.

use super::fresh::went_back;
use super::pin::{HeaderSeen, Pin};
use super::trust::{Memory, Met, meet};
use super::{OpenOptions, VolumeError};
use crate::crypto::KeyRing;
use crate::keys::{Factor, Header, Unlocked};
use crate::meta::chain::GENESIS;
use crate::store::Bucket;
use crate::vault::header;

/// A header that is unlocked to be changed.
pub struct Rekeying {
    /// What was unlocked.
    pub unlocked: Unlocked,
    pub(super) bucket: Bucket,
    memory: Memory,
}

/// Unlocks the newest header of the volume in `bucket`, in order to change it.
///
/// # Errors
/// As [`super::open`] has them of headers and local state.
pub async fn rekey(
    bucket: Bucket,
    factors: &[Factor],
    options: &OpenOptions,
) -> Result<Rekeying, VolumeError> {
    let Met { unlocked, memory } = meet(&bucket, factors, options).await?;
    match memory.pin.as_ref().and_then(|pin| went_back(&pin.seen, &unlocked.header)) {
        Some(error) => Err(error),
        None => Ok(Rekeying { unlocked, bucket, memory }),
    }
}

impl Rekeying {
    /// Stores `bytes`, which [`Unlocked`] has made, as the next header, and notes it on this machine.
    ///
    /// # Errors
    /// Somebody else has changed the keys meanwhile; the bucket or the state folder cannot be written.
    pub async fn store(&mut self, bytes: Vec<u8>) -> Result<(), VolumeError> {
        let revision = self.unlocked.header.revision.saturating_add(1);
        header::write(&self.bucket, revision, bytes.clone().into()).await?;
        self.unlocked.adopt(&bytes)?;
        self.note(&self.unlocked.header, &self.unlocked.ring)
    }

    /// Notes on this machine that `header` has been stored, of which `ring` has the keys.
    pub(super) fn note(&self, header: &Header, ring: &KeyRing) -> Result<(), VolumeError> {
        let seen = HeaderSeen::of(header);
        let device = self.memory.device;
        let unseen = Pin { commit: 0, hash: GENESIS, device, counter: 0, seen, accepted: 0 };
        // What a mount of this process has noted meanwhile is newer than what was known at first.
        let current = self.memory.local().map_or(Ok(None), |local| local.current(ring))?;
        let pin = current.or(self.memory.pin).map_or(unseen, |pin| Pin { seen, ..pin });
        self.memory.note(&self.bucket, ring, pin, false)
    }
}
