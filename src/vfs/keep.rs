//! Housekeeping of a mount: deletes what is due, cleans what is worth it, folds old commits, a little
//! at a time and only after something has changed. An idle mount is left in peace.

use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;

use crate::base::SegmentId;
use crate::meta::{Key, Record};
use crate::store::tallied;

use super::account::weigh;
use super::garbage::next_id;
use super::state::Phase;
use super::{Vfs, VfsError};

/// After a commit changes are given this time to settle.
const SETTLE: Duration = Duration::from_secs(5);
/// Pause after something failed.
const RETRY: Duration = Duration::from_secs(60);
/// Segments looked at in one step of the scan, and the pause between two steps.
const SCAN_COUNT: usize = 1024;
const SCAN_PAUSE: Duration = Duration::from_secs(1);
/// Shortest pause between two rounds of cleaning.
const ROUND_PAUSE: Duration = Duration::from_millis(200);
/// Shortest pause before waiting segments are looked at again.
const DUE_PAUSE: Duration = Duration::from_secs(10);
/// Commits between two looks at the history.
const FOLD_EVERY: u64 = 256;

/// When there is something to do again.
enum Next {
    /// After this, whatever happens meanwhile.
    After(Duration),
    /// After the next commit, or after this.
    AtCommit(Duration),
}

impl Vfs {
    /// Starts the housekeeping, unless it is to be done by hand.
    pub(super) fn start_keeping(self: &Arc<Self>) {
        if !self.options.clean.is_automatic {
            return;
        }
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut folded_at = 0;
            loop {
                let Some(vfs) = this.upgrade() else { return };
                let mut stirred = vfs.signals.stirred.subscribe();
                if vfs.state.lock().phase != Phase::Writable {
                    return;
                }
                let tended = AssertUnwindSafe(vfs.tend(&mut folded_at).boxed()).catch_unwind().await;
                let next = match tended.unwrap_or_else(|_| {
                    tracing::error!("housekeeping ended in an unforeseen way; it goes on later");
                    Ok(Next::After(RETRY))
                }) {
                    Ok(next) => next,
                    Err(VfsError::Fenced | VfsError::ShutDown | VfsError::ReadOnly) => return,
                    Err(error) => {
                        tracing::warn!(%error, "housekeeping failed; it goes on later");
                        Next::After(RETRY)
                    }
                };
                drop(vfs);
                match next {
                    Next::After(pause) => tokio::time::sleep(pause).await,
                    Next::AtCommit(or_after) => tokio::select! {
                        biased;
                        () = tokio::time::sleep(or_after) => {}
                        changed = stirred.changed() => match changed {
                            Ok(()) => tokio::time::sleep(SETTLE).await,
                            Err(_) => return,
                        },
                    },
                }
            }
        });
    }

    /// Does what is next unless it is time to rest, and says when to come again.
    async fn tend(&self, folded_at: &mut u64) -> Result<Next, VfsError> {
        let rest = self.rest_left();
        if !rest.is_zero() {
            return Ok(Next::After(rest));
        }
        // What cannot be deleted, however much it is, keeps nothing else waiting.
        if self.collect_some().boxed().await && self.is_collection_due() {
            return Ok(Next::After(ROUND_PAUSE));
        }
        let (tended, requests) = tallied(self.tend_rest(folded_at).boxed()).await;
        let bytes = tended.as_ref().map_or(0, |(_, bytes)| *bytes);
        self.rest_after(bytes, requests);
        tended.map(|(next, _)| next)
    }

    /// What is next beside deleting, and the bytes read and written for it.
    async fn tend_rest(&self, folded_at: &mut u64) -> Result<(Next, u64), VfsError> {
        let now = self.clock.elapsed();
        let (lists, has_stirred, is_complete, commit) = {
            let mut state = self.state.lock();
            let lists = state.list_again_at.take_if(|at| *at <= now).is_some();
            (lists, state.has_stirred, state.ledger.is_complete(), state.superblock.commit)
        };
        if lists {
            self.note_leftovers().boxed().await?;
        }
        if has_stirred && !is_complete {
            self.scan_segments().await?;
            return Ok((Next::After(SCAN_PAUSE), 0));
        }
        if let Some(round) = self.clean_round().boxed().await? {
            return Ok((Next::After(ROUND_PAUSE), round.bytes));
        }
        if has_stirred && commit >= *folded_at + FOLD_EVERY {
            if self.fold_history().await? {
                return Ok((Next::After(SETTLE), 0));
            }
            *folded_at = commit;
        }
        let state = self.state.lock();
        let next = [state.waiting.next_due(), state.list_again_at].into_iter().flatten().min();
        let pause = next.map_or(Duration::MAX, |due| due.saturating_sub(now).max(DUE_PAUSE));
        Ok((Next::AtCommit(pause), 0))
    }

    /// Takes the next segments into account. Says whether all are now.
    pub(super) async fn scan_segments(&self) -> Result<bool, VfsError> {
        // No commit meanwhile, so that each segment is counted once.
        let _turn = self.commit_turn.lock().await;
        if self.state.lock().ledger.is_complete() {
            return Ok(true);
        }
        let from = self.state.lock().ledger.scanned_to().map_or(SegmentId([0; 16]), next_id);
        let (rows, last) = self.scan(Key::Segment(from), Key::Super, SCAN_COUNT).await?;
        let weights = rows.into_iter().filter_map(|(key, record)| match (key, record) {
            (Key::Segment(id), Record::Segment(segment)) => Some((id, weigh(&segment))),
            _ => None,
        });
        let weights: Vec<_> = weights.collect();
        let idle: Vec<_> = weights.iter().filter(|(_, weight)| weight.live == 0).map(|(id, _)| *id).collect();
        let upto = match last {
            Some(Key::Segment(id)) => Some(id),
            _ => None,
        };
        let mut state = self.state.lock();
        state.ledger.scanned(weights, upto);
        state.idle.extend(idle);
        Ok(upto.is_none())
    }
}
