//! The first and the last thing a mount does: finish what an earlier one left, and leave nothing.

use std::time::Duration;

use futures::FutureExt;

use crate::base::Ino;
use crate::meta::engine::EngineError;
use crate::meta::{Holder, Key, Leftover, MetaError, Record};

use super::leftovers::{STRAGGLERS, UNLISTED};
use super::state::Phase;
use super::txn::Halt;
use super::{Vfs, VfsError};

/// How long an unmount waits for what an earlier mount left to be found.
const SWEEP_WAIT: Duration = Duration::from_secs(5);
/// How long an unmount waits for dead segments to be deleted.
const COLLECT_WAIT: Duration = Duration::from_secs(10);

impl Vfs {
    /// Takes the volume for writing: says who holds it, in a commit of its own, with a record to be written
    /// beside, and frees files that were unlinked but open when an earlier mount ended.
    ///
    /// # Errors
    /// Why the commit could not be made.
    pub async fn take_hold(&self, holder: Holder, also: Option<(Key, Record)>) -> Result<(), VfsError> {
        {
            let mut state = self.state.lock();
            state.session = holder.session;
            state.holder = Some(holder);
        }
        if let Some((key, record)) = also {
            self.state.lock().overlay.put(key, Some(record));
        }
        self.free_orphans().await?;
        self.commit(true, true).await
    }

    /// Frees files that were unlinked but open; those of which the records cannot be read stay for a later mount.
    async fn free_orphans(&self) -> Result<(), VfsError> {
        let orphans = match self.all_of(Key::Orphan(Ino(0)), Key::Orphan(Ino(u64::MAX))).await {
            Err(error) if error.is_damage() => {
                tracing::warn!(%error, "which unlinked files are to be freed cannot be read; they stay");
                return Ok(());
            }
            orphans => orphans?,
        };
        for ino in orphans.into_iter().filter_map(|(key, _)| orphan(key)) {
            let freed = self.apply(|txn| {
                match txn.inode(ino) {
                    Ok(_) => txn.put(Key::Inode(ino), None),
                    Err(Halt::Fail(VfsError::NoEntry)) => {}
                    Err(halt) => return Err(halt),
                }
                txn.put(Key::Orphan(ino), None);
                Ok(())
            });
            match freed.await {
                Err(error) if error.is_damage() => {
                    tracing::warn!(%ino, %error, "an unlinked file cannot be freed; it stays for a later mount");
                    self.note_damage(Some(ino), &error);
                }
                freed => freed?,
            }
        }
        Ok(())
    }

    /// Sees to it that segments are deleted that are dead or, if `had_crashed`, were never committed,
    /// when their time has come. Runs beside everything else.
    ///
    /// # Errors
    /// Why the bucket or the records could not be read.
    pub async fn sweep(&self, had_crashed: bool) -> Result<(), VfsError> {
        // An unmount waits for it.
        let _turn = self.signals.collecting.read().await;
        self.remember_waiting().await?;
        self.collect_in_passing();
        let is_unlisted = self.read_txn(|txn| Ok(txn.get(UNLISTED)?.is_some())).await?;
        if had_crashed {
            let leftover = Leftover { found: self.clock.now() };
            self.apply(|txn| {
                txn.put(UNLISTED, Some(Record::Leftover(leftover)));
                Ok(())
            })
            .await?;
        }
        if had_crashed || is_unlisted {
            // Whoever was taken over may go on sending for a while.
            let again = self.clock.elapsed().saturating_add(STRAGGLERS);
            self.state.lock().list_again_at = Some(again);
            self.note_leftovers().await?;
        }
        Ok(())
    }

    /// The last commit, after which nothing is taken any more. Afterwards everything is in the
    /// bucket, or this fails.
    ///
    /// # Errors
    /// Why something is not in the bucket.
    pub async fn shutdown(&self) -> Result<(), VfsError> {
        if self.state.lock().phase == Phase::Writable {
            let _ = tokio::time::timeout(SWEEP_WAIT, self.signals.collecting.write()).await;
            self.give_up_moving();
            // Who still has a file open there writes no more, so that there is an end to what is to be saved.
            self.state.lock().is_ending = true;
            self.signals.eased.notify_waiters();
        }
        let phase = {
            let mut state = self.state.lock();
            if state.phase == Phase::Writable {
                state.holder = None;
            }
            state.phase
        };
        let committed = match phase {
            Phase::Writable => match self.commit_all().await {
                Ok(()) => {
                    let kept = self.state.lock().nothing_lost();
                    kept.and_then(|()| self.note_again())
                }
                Err(error) => Err(error),
            },
            Phase::ReadOnly | Phase::ShutDown => Ok(()),
            Phase::Fenced => Err(VfsError::Fenced),
        };
        // That another writer took over may have shown only now. And what cannot be committed at all is kept like what another
        // writer has kept from being committed.
        let is_unsent = {
            let mut state = self.state.lock();
            if state.phase == Phase::Writable {
                state.phase = Phase::ShutDown;
            }
            state.phase == Phase::Fenced || (committed.is_err() && !state.is_clean())
        };
        if is_unsent {
            self.rescue().boxed().await;
        }
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

const fn orphan(key: Key) -> Option<Ino> {
    match key {
        Key::Orphan(ino) => Some(ino),
        _ => None,
    }
}
