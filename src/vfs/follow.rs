//! A reader follows the writer: when it is used, and in whole commits only.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, RwLockReadGuard};

use crate::meta::engine::{Base, Engine, EngineError, Judge, View};
use crate::meta::{Key, MetaError, Record, Superblock, decode, links, lost_logs};

use super::state::Phase;
use super::{Vfs, VfsError};

/// Keeps all that a reader knows, and all that it lets others remember, to one commit.
#[derive(Debug, Default)]
pub(super) struct Follow {
    /// Held for reading by loads, for writing while the engine goes to a newer commit, so that no
    /// record of the one is remembered beside records of the other.
    pub(super) gate: RwLock<()>,
    /// What the engine showed when the records in memory were loaded.
    pub(super) view: Mutex<View>,
    /// What that was built on.
    pub(super) base: Mutex<Base>,
    /// When the last look was over, and when the last one began, by the clock's `elapsed`.
    looked_at_us: AtomicU64,
    began_at_us: AtomicU64,
    is_looking: AtomicBool,
    has_looked: Notify,
    /// Until when others may remember what they were told.
    leased_until_us: AtomicU64,
    /// The writer has a newer key than this reader: there is nothing to follow with.
    is_outdated: AtomicBool,
    /// The commit that this reader stays at cannot be read from the bucket any more.
    pub(super) has_gone_on: AtomicBool,
}

impl Follow {
    /// What was read up to now came from `view`, on this base, at this time.
    pub(super) fn starting_with((view, base): (View, Base), now: Duration) -> Self {
        let follow = Self { view: Mutex::new(view), base: Mutex::new(base), ..Self::default() };
        follow.looked_at_us.store(micros(now), Ordering::Relaxed);
        follow
    }

    /// Lets a load pass.
    pub(super) async fn pass(&self) -> RwLockReadGuard<'_, ()> {
        self.gate.read().await
    }

    fn looked_at(&self) -> Duration {
        Duration::from_micros(self.looked_at_us.load(Ordering::Acquire))
    }
}

impl Vfs {
    /// At this age of the last look the next one begins, beside whatever asks for it; once it is
    /// as old as the interval, operations wait for it.
    fn look_age(&self) -> Duration {
        self.options.poll_interval * 3 / 4
    }

    /// Until when (by the clock's `elapsed`) what an operation that begins now tells may be
    /// remembered: no newer commit is gone to before that. To be asked before the operation reads.
    #[must_use]
    pub fn lease(&self) -> Duration {
        let until = self.follow.looked_at() + self.look_age() - self.options.poll_interval / 4;
        self.follow.leased_until_us.fetch_max(micros(until), Ordering::AcqRel);
        until
    }

    /// What is left of a lease.
    #[must_use]
    pub fn lease_left(&self, until: Duration) -> Duration {
        until.saturating_sub(self.clock.elapsed())
    }

    /// Looks for new commits, if it is time to: beside the operation that calls it, or, if nothing
    /// has been asked for so long that what is known may be older than the interval, before it.
    pub(super) async fn keep_up(&self) {
        if !self.options.read_only || self.options.stays || self.check_key().is_err() {
            return;
        }
        let age = self.clock.elapsed().saturating_sub(self.follow.looked_at());
        if age < self.look_age() {
            return;
        }
        self.begin_look();
        if age >= self.options.poll_interval {
            self.await_look().await;
        }
    }

    fn begin_look(&self) {
        if self.follow.is_looking.swap(true, Ordering::AcqRel) {
            return;
        }
        self.follow.began_at_us.store(micros(self.clock.elapsed()), Ordering::Release);
        let Some(this) = self.me.upgrade() else { return };
        tokio::spawn(async move {
            match this.follow().await {
                // Told already.
                Ok(_) | Err(VfsError::NewKey) => {}
                Err(error) => tracing::warn!(%error, "the writer's commits cannot be followed at the moment"),
            }
            this.follow.looked_at_us.store(micros(this.clock.elapsed()), Ordering::Release);
            this.follow.is_looking.store(false, Ordering::Release);
            this.follow.has_looked.notify_waiters();
        });
    }

    /// A bucket that does not answer holds operations up for one interval in all, not each of them.
    async fn await_look(&self) {
        let looked = self.follow.has_looked.notified();
        tokio::pin!(looked);
        looked.as_mut().enable();
        if !self.follow.is_looking.load(Ordering::Acquire) {
            return;
        }
        let began_at = Duration::from_micros(self.follow.began_at_us.load(Ordering::Acquire));
        let patience = (began_at + self.options.poll_interval).saturating_sub(self.clock.elapsed());
        // Late or not: what is known is the best there is.
        let _ = tokio::time::timeout(patience, looked).await;
    }

    /// Goes to the newest commit; says whether there was a newer one.
    ///
    /// # Errors
    /// The bucket cannot be read, or offers an older commit than before; [`VfsError::NewKey`] if the key was rotated since
    /// this reader began.
    pub async fn follow(&self) -> Result<bool, VfsError> {
        self.check_key()?;
        match self.go_on().await {
            Err(VfsError::Meta(MetaError::Engine(EngineError::NewKey))) => {
                // What is in memory is of a commit that will never be followed by another here.
                self.follow.is_outdated.store(true, Ordering::Release);
                tracing::error!("{}", VfsError::NewKey);
                Err(VfsError::NewKey)
            }
            followed => followed,
        }
    }

    async fn go_on(&self) -> Result<bool, VfsError> {
        let _gate = self.follow.gate.write().await;
        self.engine.refresh().await.map_err(MetaError::from)?;
        self.adopt().await
    }

    /// Goes to the commit that the engine shows. To be called while [`Follow::gate`] is held for writing.
    pub(super) async fn adopt(&self) -> Result<bool, VfsError> {
        let (newest, view, base) = self.newest_superblock(self.head()).await?;
        let mut state = self.state.lock();
        if state.phase != Phase::ReadOnly {
            return Ok(false);
        }
        // Only now: whoever is dropped or fails before this leaves loads that do not fit, and they notice.
        *self.follow.view.lock() = view;
        *self.follow.base.lock() = base;
        if newest.commit == state.superblock.commit {
            return Ok(false);
        }
        state.overlay.forget_committed();
        state.quota_bytes = newest.quota_bytes;
        state.superblock = newest;
        Ok(true)
    }

    /// The superblock of the newest commit, which follows from the commit `before`.
    pub(super) async fn newest_superblock(
        &self,
        before: (u64, [u8; 32]),
    ) -> Result<(Superblock, View, Base), VfsError> {
        loop {
            let (view, base) = (self.engine.view(), self.engine.base());
            let newest = superblock_in(&self.engine).await?;
            let has_same_base = *self.follow.base.lock() == base;
            let led = self.leads_on(&self.engine, before, &newest, has_same_base).await;
            if (self.engine.view(), self.engine.base()) == (view, base) {
                led?;
                return Ok((newest, view, base));
            }
        }
    }

    /// Whether one history leads from the commit `before` to `newest`. On the same base only what came since has to be
    /// walked over. Beneath another may lie another history, with the logs of this one above: then all of it.
    async fn leads_on(
        &self,
        engine: &Engine,
        before: (u64, [u8; 32]),
        newest: &Superblock,
        has_same_base: bool,
    ) -> Result<(), MetaError> {
        let ring = self.ring();
        if newest.commit < before.0 {
            let why = "it is older than what was read before";
            return Err(MetaError::Inconsistent { key: Key::Super, why });
        }
        if has_same_base {
            return links::walk(engine, ring, newest, Some(before)).await;
        }
        links::walk(engine, ring, newest, self.options.accepted).await?;
        if self.options.accepted.is_some() {
            lost_logs::stay_away(engine).await?;
        }
        match links::passes(engine, ring, newest, before).await? {
            true => Ok(()),
            false => {
                let why = "it is not the one that was read before: the history has been exchanged";
                Err(MetaError::Inconsistent { key: Key::Commit(before.0), why })
            }
        }
    }

    /// Judges what this writer is shown of its past: whether that is the history that it has written.
    pub(super) async fn judge(&self, shown: &Engine) -> Result<(), EngineError> {
        let before = {
            let state = self.state.lock();
            (state.superblock.commit, state.superblock.head)
        };
        let judged = async {
            let newest = superblock_in(shown).await?;
            self.leads_on(shown, before, &newest, false).await
        };
        judged.await.map_err(|error| match error {
            MetaError::Engine(error) => error,
            error => {
                tracing::error!(%error, "the bucket shows another history than this mount has written");
                EngineError::Damaged(format!(
                    "the bucket shows another history than this mount has written: {error}"
                ))
            }
        })
    }

    /// Follows out of turn, because what is known cannot be read any more; but not before all that others
    /// were told may be remembered no longer.
    pub(super) async fn follow_early(&self) -> Result<(), VfsError> {
        if self.options.stays {
            return self.stay().boxed().await;
        }
        let until = Duration::from_micros(self.follow.leased_until_us.load(Ordering::Acquire));
        tokio::time::sleep(self.lease_left(until)).await;
        // Boxed: what it holds while it waits would be part of every operation that may come here.
        let following = async {
            self.engine.look_anew().await.map_err(MetaError::from)?;
            self.follow().await.map(drop)
        };
        following.boxed().await
    }

    /// Fails once this reader has met a newer key than its own: from then on every operation says that the volume is to be
    /// mounted again.
    pub(super) fn check_key(&self) -> Result<(), VfsError> {
        match self.follow.is_outdated.load(Ordering::Acquire) {
            true => Err(VfsError::NewKey),
            false => Ok(()),
        }
    }

    /// Whether what the engine has just been asked for is of the commit that is in memory. To be asked while
    /// [`Follow::pass`] is held.
    pub(super) fn is_current(&self) -> bool {
        !self.options.read_only || *self.follow.view.lock() == self.engine.view()
    }

    /// The commit that a reader is at. A writer is at none: its own commits change nothing of what it sees.
    pub(super) fn seen_commit(&self) -> Option<u64> {
        self.options.read_only.then(|| self.state.lock().superblock.commit)
    }
}

/// Who says whether an engine shows the history that `vfs` has written.
pub(super) fn judge(vfs: &Arc<Vfs>) -> Judge {
    let vfs = Arc::downgrade(vfs);
    Arc::new(move |shown| {
        let vfs = vfs.upgrade();
        async move {
            match vfs {
                Some(vfs) => vfs.judge(&shown).await,
                None => Ok(()),
            }
        }
        .boxed()
    })
}

pub(super) async fn superblock_in(engine: &Engine) -> Result<Superblock, MetaError> {
    let key = Key::Super;
    let bytes = engine.get(&key.encode()).await?.ok_or(MetaError::Missing(key))?;
    match decode(&key, &bytes)? {
        Record::Super(superblock) => Ok((*superblock).clone()),
        _ => Err(MetaError::Missing(key)),
    }
}

fn micros(duration: Duration) -> u64 {
    u64::try_from(duration.as_micros()).unwrap_or(u64::MAX)
}
