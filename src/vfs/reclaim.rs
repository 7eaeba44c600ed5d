//! What could be given back, and giving it back at once, for whoever asks for it.

use futures::FutureExt;
use serde::{Deserialize, Serialize};
use tokio::runtime::Handle;

use crate::data::{Ledger, Pick, Reason};
use crate::meta::{Key, Record};

use super::account::weigh;
use super::garbage::next_id;
use super::stale::STALE_COMMITS;
use super::{Vfs, VfsError};
use crate::base::{SegmentId, aside};

/// Segments looked at in one step.
const SCAN_COUNT: usize = 4096;
/// Bytes of live blocks that one GET brings.
const GET_BYTES: u64 = 4 * 1024 * 1024;

/// So many objects, so many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Amount {
    /// Objects.
    pub count: u64,
    /// Bytes.
    pub bytes: u64,
}

impl Amount {
    pub(super) const fn add(&mut self, bytes: u64) {
        self.count += 1;
        self.bytes = self.bytes.saturating_add(bytes);
    }
}

/// What cleaning would find to do.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reclaimable {
    /// All segments that hold live bytes.
    pub segments: Amount,
    /// Live bytes in them.
    pub live_bytes: u64,
    /// Segments without live bytes, which wait to be deleted.
    pub dead: Amount,
    /// Segments that would be rewritten because much of them is dead, and the bytes gained.
    pub sparse: Amount,
    /// Tiny segments that would be merged, and the bytes gained.
    pub tiny: Amount,
    /// Segments that no record knows and that were not noted before.
    pub leftovers: Amount,
    /// Those that were, and wait to be deleted.
    pub noted_leftovers: Amount,
    /// Requests that all of it would take, roughly.
    pub requests: u64,
    /// The bucket could not be listed whole: there may be more leftovers.
    pub is_cut: bool,
}

/// What was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct Reclaimed {
    /// Segments whose live blocks were copied, and the bytes written for that.
    pub rewritten: Amount,
    /// Segments deleted.
    pub deleted: Amount,
    /// Segments that are dead and wait to be deleted.
    pub waiting: Amount,
    /// Segments found that no record knew, and files that a write has left half done; they wait as well.
    pub leftovers: Amount,
    /// Segments left alone because something in them is damaged or missing.
    pub damaged_count: u64,
    /// The bucket could not be listed whole: there may be more leftovers.
    pub is_cut: bool,
}

impl Vfs {
    /// What cleaning would find to do. Changes nothing, but commits what was written: what that frees counts.
    ///
    /// # Errors
    /// Why the bucket or the records could not be read.
    pub async fn reclaimable(&self) -> Result<Reclaimable, VfsError> {
        self.find_reclaimable().boxed().await
    }

    async fn find_reclaimable(&self) -> Result<Reclaimable, VfsError> {
        self.commit(false, false).await?;
        let (ledger, live_bytes) = self.whole_ledger().await?;
        let listing = self.list().await?;
        let totals = ledger.totals();
        let mut found = Reclaimable {
            segments: Amount { count: totals.count, bytes: totals.len },
            live_bytes,
            dead: listing.dead,
            noted_leftovers: listing.noted,
            is_cut: listing.is_cut,
            ..Reclaimable::default()
        };
        listing.unknown.iter().for_each(|(_, bytes)| found.leftovers.add(*bytes));
        let staged = self.vault.staged().await.map_err(|error| {
            let source = Some(std::sync::Arc::new(error));
            VfsError::Data(crate::data::DataError::Unavailable { segment: SegmentId([0; 16]), source })
        })?;
        staged.iter().for_each(|file| found.leftovers.add(file.bytes));
        for pick in self.plan(ledger).await {
            let amount = match pick.reason {
                Reason::Sparse => &mut found.sparse,
                Reason::Tiny | Reason::Outdated => &mut found.tiny,
            };
            for (_, weight) in &pick.victims {
                amount.add(weight.dead());
                // The footer, the blocks, and in the end the object itself.
                found.requests += 2 + weight.live.div_ceil(GET_BYTES);
            }
            // A new segment and a commit.
            found.requests += 2;
        }
        found.requests += found.dead.count + found.leftovers.count + found.noted_leftovers.count;
        Ok(found)
    }

    /// All that cleaning would pick, worked out where nobody waits for it.
    async fn plan(&self, ledger: Ledger) -> Vec<Pick> {
        let room_bytes = self.cleaning_room();
        aside(&Handle::current(), move || ledger.plan(room_bytes)).await.unwrap_or_default()
    }

    /// Notes how much there is to be rewritten: what is alive is read and written.
    async fn foretell_cleaning(&self) {
        let ledger = self.state.lock().ledger.clone();
        let plan = self.plan(ledger).await;
        let kept: u64 = plan.iter().flat_map(|pick| &pick.victims).map(|(_, weight)| weight.kept()).sum();
        let mut state = self.state.lock();
        let done = state.cleaned.read_bytes + state.cleaned.written_bytes;
        state.to_clean_bytes = (kept > 0).then(|| done + 2 * kept);
    }

    /// An account of all segments, made for the occasion.
    async fn whole_ledger(&self) -> Result<(Ledger, u64), VfsError> {
        let mut ledger = Ledger::new(self.options.clean.slack_bytes);
        let mut live_bytes = 0u64;
        let mut from = SegmentId([0; 16]);
        loop {
            let (rows, last) = self.scan(Key::Segment(from), Key::Super, SCAN_COUNT).await?;
            let mut weights = Vec::with_capacity(rows.len());
            for (key, record) in rows {
                if let (Key::Segment(id), Record::Segment(segment)) = (key, record) {
                    live_bytes = live_bytes.saturating_add(segment.live);
                    weights.push((id, weigh(&segment)));
                }
            }
            match last {
                Some(Key::Segment(id)) => {
                    ledger.scanned(weights, Some(id));
                    from = next_id(id);
                }
                _ => {
                    ledger.scanned(weights, None);
                    return Ok((ledger, live_bytes));
                }
            }
        }
    }

    /// Cleans until nothing is left that is worth it, without regard to anybody else, and deletes what
    /// is due.
    ///
    /// # Errors
    /// Why it cannot go on; what was done until then is done.
    pub async fn reclaim(&self) -> Result<Reclaimed, VfsError> {
        // Boxed, because it is large and its callers need not be.
        self.reclaim_all().boxed().await
    }

    async fn reclaim_all(&self) -> Result<Reclaimed, VfsError> {
        // What was freed since the last commit is free only then.
        self.commit(false, false).await?;
        let before = self.state.lock().cleaned.clone();
        let (leftovers, is_cut) = self.note_leftovers().boxed().await?;
        // A full bucket has no room for copies before this.
        self.collect_due().boxed().await;
        while !self.scan_segments().boxed().await? {}
        self.foretell_cleaning().boxed().await;
        while self.clean_round().boxed().await?.is_some() {}
        while self.fold_history().boxed().await? {
            self.commit(false, false).await?;
        }
        self.commit(false, false).await?;
        self.collect_due().boxed().await;
        let has_collected = !self.state.lock().collected.is_empty();
        self.commit(false, has_collected).await?;
        for _ in 0..STALE_COMMITS {
            let has_stale = !self.state.lock().stale.is_empty();
            self.commit(false, has_stale).await?;
        }
        let state = self.state.lock();
        let after = &state.cleaned;
        Ok(Reclaimed {
            rewritten: Amount {
                count: after.rewritten_count - before.rewritten_count,
                bytes: after.written_bytes - before.written_bytes,
            },
            deleted: Amount {
                count: after.deleted_count - before.deleted_count,
                bytes: after.deleted_bytes - before.deleted_bytes,
            },
            waiting: state.waiting.amount(),
            leftovers,
            damaged_count: after.damaged.len() as u64,
            is_cut,
        })
    }

    /// Makes the records as small as they can be now: merges their tables and removes what is garbage
    /// of them.
    ///
    /// # Errors
    /// Another writer took over.
    pub async fn tidy_records(&self) -> Result<(), VfsError> {
        self.engine.tidy().await.map_err(|error| self.told(error))
    }
}
