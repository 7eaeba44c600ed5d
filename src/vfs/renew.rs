//! After a rotation of the key: seals everything anew that is in use and sealed with an older one.
//!
//! Segments go the way of cleaning: their live blocks are copied and the next commit grants the moves. Then the record
//! engine writes its tables anew. A crash at any point leaves a volume in which some is sealed with the one key and some
//! with the other, and the next attempt goes on from there.

use futures::FutureExt;
use futures::future::try_join_all;

use crate::base::{Ino, SegmentId};
use crate::data::{Pick, Weight, parted};
use crate::meta::engine::EngineError;
use crate::meta::{Key, MetaError, Record};
use crate::vault::{VaultError, peek};

use super::account::weigh;
use super::clean::Copied;
use super::garbage::next_id;
use super::{Amount, Vfs, VfsError};

/// Segments looked at in one step.
const SCAN_COUNT: usize = 1024;
/// Picks that are copied side by side before a commit.
const PICKS_AT_ONCE: usize = 4;
/// Times that the records are written anew before it is given up: once is enough, unless a merge that was begun with the
/// older key is ended first.
const RENEWALS_MAX: usize = 4;

/// How far it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RenewStep {
    /// Segments of so many bytes are to be sealed anew.
    Total(u64),
    /// So many of them are.
    Done(u64),
    /// Now the records are.
    Records,
}

/// Told how far it is.
pub(super) type Tell<'a> = &'a (dyn Fn(RenewStep) + Send + Sync);

/// What was sealed anew.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Renewed {
    /// Segments.
    pub segments: Amount,
    /// Objects of the record engine that were sealed with an older key.
    pub objects: u64,
}

impl Vfs {
    /// Seals everything anew that an opening or a read needs and that is sealed with another key than the newest. To be
    /// called by the volume's one writer while nothing else uses the filesystem.
    ///
    /// # Errors
    /// [`VfsError::NotRenewed`] if something is damaged; the bucket fails, or another writer took over. What was done until
    /// then is done.
    pub async fn renew(&self, tell: Tell<'_>) -> Result<Renewed, VfsError> {
        // Boxed, because it is large and its callers need not be.
        self.renew_all(tell).boxed().await
    }

    async fn renew_all(&self, tell: Tell<'_>) -> Result<Renewed, VfsError> {
        // Segments of which nothing is in use go with the commit after the scan.
        while !self.scan_segments().boxed().await? {}
        self.commit(false, true).await?;
        let mut renewed = Renewed { segments: self.outdated_segments().await?, objects: 0 };
        tell(RenewStep::Total(renewed.segments.bytes));
        self.renew_segments(tell).boxed().await?;
        self.renew_rest().boxed().await?;
        self.check_segments().await?;
        tell(RenewStep::Records);
        renewed.objects = self.outdated_objects().await?.len() as u64;
        self.renew_records().await?;
        // Whoever is still the writer now was so when all of this was looked at.
        self.engine.refresh().await.map_err(|error| self.told(error))?;
        Ok(renewed)
    }

    /// Segments in use that are sealed with an older key.
    async fn outdated_segments(&self) -> Result<Amount, VfsError> {
        let (mut amount, mut from) = (Amount::default(), Some(SegmentId([0; 16])));
        while let Some(id) = from {
            let (rows, next) = self.outdated_from(id).await?;
            rows.iter().for_each(|(_, weight)| amount.add(weight.len.into()));
            from = next;
        }
        Ok(amount)
    }

    /// The next of them, and where to go on.
    pub(super) async fn outdated_from(
        &self,
        from: SegmentId,
    ) -> Result<(Vec<(SegmentId, Weight)>, Option<SegmentId>), VfsError> {
        let (rows, last) = self.scan(Key::Segment(from), Key::Super, SCAN_COUNT).await?;
        let outdated = rows.into_iter().filter_map(|(key, record)| match (key, record) {
            (Key::Segment(id), Record::Segment(segment)) if !self.ring().is_newest(segment.seal.epoch) => {
                Some((id, weigh(&segment)))
            }
            _ => None,
        });
        let next = match last {
            Some(Key::Segment(id)) => Some(next_id(id)),
            _ => None,
        };
        Ok((outdated.collect(), next))
    }

    /// Copies what lives in segments that are sealed with an older key, as far as their footers and references tell who
    /// refers to it.
    async fn renew_segments(&self, tell: Tell<'_>) -> Result<(), VfsError> {
        let _turn = self.clean_turn.lock().await;
        let (mut done, mut from) = (0, Some(SegmentId([0; 16])));
        while let Some(id) = from {
            let (rows, next) = self.outdated_from(id).await?;
            let picks = parted(&rows, self.cleaning_room());
            for together in picks.chunks(PICKS_AT_ONCE) {
                let copies: Vec<_> = together.iter().map(|pick| self.copy_pick(pick).boxed()).collect();
                try_join_all(copies).await?;
                self.commit(false, false).await?;
                let victims = together.iter().flat_map(|pick| &pick.victims);
                done += victims.map(|(_, weight)| u64::from(weight.len)).sum::<u64>();
                tell(RenewStep::Done(done));
            }
            from = next;
        }
        Ok(())
    }

    async fn copy_pick(&self, pick: &Pick) -> Result<Copied, VfsError> {
        let surveys = self.survey_all(pick).boxed().await?;
        self.copy_live(&surveys).boxed().await
    }

    /// Fails if a segment in use is still sealed with an older key: something in it is damaged.
    async fn check_segments(&self) -> Result<(), VfsError> {
        let left = self.outdated_segments().await?;
        if left.count == 0 {
            return Ok(());
        }
        let segments = match left.count {
            1 => "1 segment".to_owned(),
            count => format!("{count} segments"),
        };
        let first = self.state.lock().cleaned.damaged.first().cloned();
        Err(VfsError::NotRenewed { segments, first: first.unwrap_or_else(|| "not all is known".to_owned()) })
    }

    /// Has the record engine write everything anew until nothing that is read is sealed with an older key.
    async fn renew_records(&self) -> Result<(), VfsError> {
        for _ in 0..RENEWALS_MAX {
            self.engine.renew().await.map_err(|error| self.told(error))?;
            match self.outdated_objects().await?.first() {
                None => return Ok(()),
                Some(object) => tracing::debug!(object, "it is sealed with the older key; once more"),
            }
        }
        let objects = self.outdated_objects().await?;
        let first = objects.first().cloned().unwrap_or_default();
        Err(VfsError::NotRenewed { segments: format!("{} objects of the records", objects.len()), first })
    }

    /// The objects of the record engine that an opening or a collection reads and that are sealed with an older key.
    async fn outdated_objects(&self) -> Result<Vec<String>, VfsError> {
        let mut outdated = Vec::new();
        for object in self.engine.live_objects().await.map_err(|error| self.told(error))? {
            match peek::engine_epoch(&self.vault, &object).await {
                Ok(epoch) if self.ring().is_newest(epoch) => {}
                Ok(_) => outdated.push(object),
                // A collection was faster.
                Err(VaultError::Missing(_)) => {}
                Err(error) if error.is_damage() => {
                    return Err(MetaError::from(EngineError::Damaged(error.to_string())).into());
                }
                Err(error) => return Err(MetaError::from(EngineError::Unavailable(error.to_string())).into()),
            }
        }
        Ok(outdated)
    }
}

/// The inode after `ino`.
pub(super) const fn next_ino(ino: Ino) -> Ino {
    Ino(ino.0.saturating_add(1))
}
