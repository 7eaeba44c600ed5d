//! A reader follows the writer: when it is used, and not more often than every few seconds.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use tokio::sync::{RwLock, RwLockReadGuard};

use crate::meta::{Key, MetaError, Record, decode};

use super::state::Phase;
use super::{Vfs, VfsError};

/// A reader that is used looks for new commits after this time.
const FOLLOW_AGE: Duration = Duration::from_secs(5);

/// Keeps what a reader loads to one commit.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// Held for reading by loads, for writing while the engine goes to a newer commit, so that no
    /// record of the one is remembered beside records of the other.
    gate: RwLock<()>,
    looked_at_ms: AtomicU64,
    is_looking: AtomicBool,
}

impl Follow {
    /// Lets a load pass.
    pub(super) async fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }
}

impl Vfs {
    /// Looks for new commits beside the operation that calls it, if it is time to.
    pub(super) fn follow_if_due(&self) {
        if !self.options.read_only {
            return;
        }
        let now_ms = self.clock.elapsed().as_millis() as u64;
        let looked_at_ms = self.follow.looked_at_ms.load(Ordering::Relaxed);
        if now_ms.saturating_sub(looked_at_ms) < FOLLOW_AGE.as_millis() as u64
            || self.follow.is_looking.swap(true, Ordering::AcqRel)
        {
            return;
        }
        let Some(this) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            if let Err(error) = this.follow().await {
                tracing::warn!(%error, "the writer's commits cannot be followed at the moment");
            }
            let now_ms = this.clock.elapsed().as_millis() as u64;
            this.follow.looked_at_ms.store(now_ms, Ordering::Relaxed);
            this.follow.is_looking.store(false, Ordering::Release);
        });
    }

    /// Goes to the newest commit; says whether there was a newer one.
    ///
    /// # Errors
    /// The bucket cannot be read, or offers an older commit than before.
    pub async fn follow(&self) -> Result<bool, VfsError> {
        let _gate = self.follow.gate.write().await;
        self.engine.refresh().await.map_err(MetaError::from)?;
        let key = Key::Super;
        let bytes = self.engine.get(&key.encode()).await.map_err(MetaError::from)?;
        let Record::Super(newest) = decode(&key, &bytes.ok_or(MetaError::Missing(key))?)? else {
            return Err(MetaError::Missing(key).into());
        };
        let mut state = self.state.lock();
        if state.phase != Phase::ReadOnly || newest.commit == state.superblock.commit {
            return Ok(false);
        }
        if newest.commit < state.superblock.commit {
            return Err(MetaError::Inconsistent { key, why: "it is older than what was read before" }.into());
        }
        state.overlay.forget_committed();
        state.superblock = (*newest).clone();
        Ok(true)
    }
}
