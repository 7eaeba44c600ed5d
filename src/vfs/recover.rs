//! The first and the last thing a mount does: finish what an earlier one left, and leave nothing.

use std::time::Duration;

use futures::StreamExt;

use crate::base::{Ino, SegmentId};
use crate::meta::engine::EngineError;
use crate::meta::{Holder, Key, MetaError};

use super::state::Phase;
use super::txn::Halt;
use super::{Vfs, VfsError};

/// Records read from the engine at a time.
const SCAN_COUNT: usize = 1024;
/// How long an unmount waits for dead segments to be deleted.
const COLLECT_WAIT: Duration = Duration::from_secs(10);

impl Vfs {
    /// Takes the volume for writing: says who holds it, in a commit of its own, and frees files that
    /// were unlinked but open when an earlier mount ended.
    ///
    /// # Errors
    /// Why the commit could not be made.
    pub async fn take_hold(&self, holder: Holder) -> Result<(), VfsError> {
        self.state.lock().holder = Some(holder);
        for key in self.keys_of(Key::Orphan(Ino(0)), Key::Orphan(Ino(u64::MAX))).await? {
            if let Key::Orphan(ino) = key {
                self.apply(|txn| {
                    match txn.inode(ino) {
                        Ok(_) => txn.put(Key::Inode(ino), None),
                        Err(Halt::Fail(VfsError::NoEntry)) => {}
                        Err(halt) => return Err(halt),
                    }
                    txn.put(Key::Orphan(ino), None);
                    Ok(())
                })
                .await?;
            }
        }
        self.commit(true, true).await
    }

    /// Deletes segments that are dead or, if `had_crashed`, were never committed. Runs beside
    /// everything else.
    ///
    /// # Errors
    /// Why the bucket or the records could not be read.
    pub async fn sweep(&self, had_crashed: bool) -> Result<(), VfsError> {
        let first = Key::Garbage(SegmentId([0; 16]));
        let dead: Vec<SegmentId> = self
            .keys_of(first, Key::Inode(Ino(0)))
            .await?
            .into_iter()
            .filter_map(|key| match key {
                Key::Garbage(id) => Some(id),
                _ => None,
            })
            .collect();
        self.collect(dead);
        if had_crashed {
            self.collect(self.leftovers().await?);
        }
        Ok(())
    }

    /// Segments in the bucket of which no record knows, and which are none of this mount's.
    async fn leftovers(&self) -> Result<Vec<SegmentId>, VfsError> {
        let mut leftovers = Vec::new();
        // Listed before it is asked what is on its way: what comes later is not in the list.
        let mut listed = self.vault.list_segments();
        let mut found = Vec::new();
        while let Some(item) = listed.next().await {
            match item {
                Ok((id, _)) => found.push(id),
                Err(error) => {
                    tracing::warn!(%error, "the bucket cannot be listed; leftovers of a crash stay");
                    return Ok(leftovers);
                }
            }
        }
        // Who is still the writer now was so when the list was made: nothing in it is a newer writer's.
        self.engine.refresh().await.map_err(MetaError::from)?;
        for id in found {
            let is_known = self
                .read_txn(|txn| {
                    let known = txn.get(Key::Segment(id))?.is_some() || txn.get(Key::Garbage(id))?.is_some();
                    Ok(known || txn.state().dirty.knows_segment(id))
                })
                .await?;
            if !is_known {
                leftovers.push(id);
            }
        }
        Ok(leftovers)
    }

    async fn keys_of(&self, from: Key, to: Key) -> Result<Vec<Key>, VfsError> {
        let mut keys = Vec::new();
        let mut from = from;
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            keys.extend(records.into_iter().map(|(key, _)| key));
            match last {
                Some(Key::Orphan(ino)) => from = Key::Orphan(Ino(ino.0.saturating_add(1))),
                Some(Key::Garbage(id)) => {
                    let next = u128::from_be_bytes(id.0).saturating_add(1);
                    from = Key::Garbage(SegmentId(next.to_be_bytes()));
                }
                _ => return Ok(keys),
            }
        }
    }

    /// The last commit, after which nothing is taken any more. Afterwards everything is in the
    /// bucket, or this fails.
    ///
    /// # Errors
    /// Why something is not in the bucket.
    pub async fn shutdown(&self) -> Result<(), VfsError> {
        let phase = {
            let mut state = self.state.lock();
            if state.phase == Phase::Writable {
                state.holder = None;
            }
            state.phase
        };
        let committed = match phase {
            Phase::Writable => self.commit_all().await,
            Phase::ReadOnly | Phase::ShutDown => Ok(()),
            Phase::Fenced => Err(VfsError::Fenced),
        };
        // What a commit let go is deleted now rather than at the next mount, unless that takes long.
        let _ = tokio::time::timeout(COLLECT_WAIT, self.signals.collecting.write()).await;
        self.state.lock().phase = Phase::ShutDown;
        self.tell_progress();
        self.signals.wanted.notify_one();
        match self.engine.close().await {
            Ok(()) | Err(EngineError::Closed) => committed,
            Err(error) => committed.and(Err(MetaError::from(error).into())),
        }
    }

    /// Commits until nothing is left, and then takes nothing more.
    async fn commit_all(&self) -> Result<(), VfsError> {
        loop {
            self.commit(false, true).await?;
            let mut state = self.state.lock();
            if state.is_open_empty() {
                state.phase = Phase::ShutDown;
                return Ok(());
            }
        }
    }
}
