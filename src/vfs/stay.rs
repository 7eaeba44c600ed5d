//! A reader that stays at one commit: what it copies is of one piece, whatever is written meanwhile.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use crate::base::BlockPlace;
use crate::meta::engine::{Engine, EngineMode, EngineOptions};
use crate::meta::{Key, MetaError};

use super::{Vfs, VfsError};

/// Memory for a second look at the records.
const LOOK_BYTES: u64 = 1024 * 1024;

impl Vfs {
    /// Chooses the commit that a reader stays at: the newest, as the engine shows it from now on.
    ///
    /// # Errors
    /// The bucket cannot be read.
    pub async fn begin_stay(&self) -> Result<(), VfsError> {
        let _gate = self.follow.gate.write().await;
        self.engine.settle().await.map_err(MetaError::from)?;
        self.adopt().await.map(drop)
    }

    /// The engine had to open the database anew, because tables that it knew have been removed: goes on if the commit is
    /// still the same.
    ///
    /// # Errors
    /// [`VfsError::GoneOn`] if it is not, now and ever after; or the bucket cannot be read.
    pub(super) async fn stay(&self) -> Result<(), VfsError> {
        if self.follow.has_gone_on.load(Ordering::Acquire) {
            return Err(VfsError::GoneOn);
        }
        let _gate = self.follow.gate.write().await;
        let before = self.head();
        let (newest, view, base) = self.newest_superblock(before).await?;
        if (newest.commit, newest.head) != before {
            self.follow.has_gone_on.store(true, Ordering::Release);
            tracing::error!(commit = before.0, "the commit that is being read is not kept any more");
            return Err(VfsError::GoneOn);
        }
        *self.follow.view.lock() = view;
        *self.follow.base.lock() = base;
        Ok(())
    }

    /// What it means that a segment of these is missing: that a newer commit has let go of it, or else what `error` says.
    pub(super) async fn why_missing(&self, places: &[BlockPlace], error: VfsError) -> VfsError {
        match self.has_let_go(places).await {
            Ok(true) => VfsError::GoneOn,
            Ok(false) => error,
            Err(look) => {
                tracing::debug!(error = %look, "whether a newer commit has let go of a segment cannot be found out");
                error
            }
        }
    }

    async fn has_let_go(&self, places: &[BlockPlace]) -> Result<bool, MetaError> {
        let options = EngineOptions { cache_bytes: LOOK_BYTES, ..EngineOptions::default() };
        let (store, clock) = (self.vault.meta_store(LOOK_BYTES), Arc::clone(&self.clock));
        let newest = Engine::open(store, EngineMode::Reader, options, clock).await?;
        let mut has_let_go = false;
        for place in places {
            has_let_go |= newest.get(&Key::Segment(place.segment).encode()).await?.is_none();
        }
        newest.close().await?;
        Ok(has_let_go)
    }
}
