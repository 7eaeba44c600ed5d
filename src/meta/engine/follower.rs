//! A reader that follows the writer's commits and starts afresh when it lost its footing.

use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use parking_lot::{Mutex, RwLock};
use slatedb::db_cache::DbCache;
use slatedb::{DbReader, DbReaderMode, DbStatus, ErrorKind};
use tokio::sync::watch;

use super::clock::EngineClock;
use super::error::NothingHere;
use super::seam::{manifest_number, manifests};
use super::seeds::Seeds;
use super::{Access, Base, DATABASE, Engine, EngineError, View, settings};
use crate::base::{Clock, Time};

/// A database opened for reading. Writes nothing to the store.
pub(super) struct Follower {
    current: RwLock<Handle>,
    reopening: tokio::sync::Mutex<()>,
    store: Arc<dyn ObjectStore>,
    cache: Arc<dyn DbCache>,
    clock: Arc<dyn Clock>,
    seeds: Seeds,
    /// Stays at this checkpoint for ever, if given.
    checkpoint: Option<String>,
}

#[derive(Clone)]
struct Handle {
    db: Arc<DbReader>,
    clock: Arc<EngineClock>,
    /// When it was surely up to date: by the time of day, and by the monotonic clock.
    looked_at: Arc<Mutex<(Time, Duration)>>,
    /// When the manifests were listed last, by the monotonic clock.
    listed_at: Arc<Mutex<Duration>>,
    status: watch::Receiver<DbStatus>,
    /// Handles opened before this one.
    number: u64,
}

impl Follower {
    pub(super) async fn open(
        store: Arc<dyn ObjectStore>,
        cache: Arc<dyn DbCache>,
        clock: Arc<dyn Clock>,
        seeds: Seeds,
        checkpoint: Option<String>,
    ) -> Result<Self, slatedb::Error> {
        let opened = Handle::open(&store, &cache, &clock, &seeds, checkpoint.as_deref()).await;
        let handle = match opened {
            Err(error) if error.kind() == ErrorKind::Data && is_empty(&store).await => {
                return Err(error.with_source(Box::new(NothingHere)));
            }
            opened => opened?,
        };
        Ok(Self {
            current: RwLock::new(handle),
            reopening: tokio::sync::Mutex::new(()),
            store,
            cache,
            clock,
            seeds,
            checkpoint,
        })
    }

    /// The handle to read from.
    pub(super) fn db(&self) -> Arc<DbReader> {
        self.current.read().db.clone()
    }

    /// What reads see at present.
    ///
    /// The sequence number is raised before a new state is put in place, so a read that saw the new state is never
    /// given the old view; the pauses tell states apart that differ in nothing but their tables.
    pub(super) fn view(&self) -> View {
        let handle = self.current.read();
        let sequence = handle.status.borrow().durable_seq;
        View { handle: handle.number, pauses: handle.clock.pauses(), sequence }
    }

    /// What the present state was built on.
    pub(super) fn base(&self) -> Base {
        let handle = self.current.read().clone();
        // Of the state itself: the status is told after a new one is in place.
        Base { handle: handle.number, manifest: handle.db.manifest().id() }
    }

    /// The number of the last write that reads see.
    pub(super) fn sequence(&self) -> u64 {
        self.current.read().status.borrow().durable_seq
    }

    /// Waits until the look that a fresh handle takes by itself is over; it takes no other uncalled.
    pub(super) async fn settle(&self) {
        if self.checkpoint.is_some() {
            return;
        }
        let handle = self.current.read().clone();
        let mut status = handle.db.subscribe();
        tokio::select! {
            biased;
            () = handle.clock.polled(1) => {}
            _ = status.wait_for(|status| status.close_reason.is_some()) => {}
        }
    }

    /// Catches up with the writer.
    pub(super) async fn refresh(&self) -> Result<(), slatedb::Error> {
        if self.checkpoint.is_some() {
            return Ok(());
        }
        let handle = self.current.read().clone();
        let now = (self.clock.now(), self.clock.elapsed());
        if handle.may_have_missed_a_manifest(now) {
            return self.reopen(&handle.db).await;
        }
        let mut status = handle.db.subscribe();
        let number = handle.clock.call();
        let has_polled = tokio::select! {
            biased;
            () = handle.clock.polled(number) => true,
            _ = status.wait_for(|status| status.close_reason.is_some()) => false,
        };
        if !has_polled {
            return self.reopen(&handle.db).await;
        }
        *handle.looked_at.lock() = now;
        self.look_anew(settings::LOOK_ANEW).await
    }

    /// Opens the database again if a list shows a newer manifest than the one that was found by asking for the next. Looks at
    /// most `every` so often.
    async fn look_anew(&self, every: Duration) -> Result<(), slatedb::Error> {
        let handle = self.current.read().clone();
        let now = self.clock.elapsed();
        if self.checkpoint.is_some() || now.saturating_sub(*handle.listed_at.lock()) < every {
            return Ok(());
        }
        let known = handle.db.manifest().id();
        let newest = newest_manifest(&self.store).await;
        // What cannot be listed is asked for again by whoever comes next.
        match newest.is_ok_and(|newest| newest > known) {
            true => self.reopen(&handle.db).await,
            false => {
                *handle.listed_at.lock() = now;
                Ok(())
            }
        }
    }

    /// Opens the database again unless somebody did since `lost` was in use.
    pub(super) async fn reopen(&self, lost: &Arc<DbReader>) -> Result<(), slatedb::Error> {
        let _only_one = self.reopening.lock().await;
        if !Arc::ptr_eq(&self.db(), lost) {
            return Ok(());
        }
        let checkpoint = self.checkpoint.as_deref();
        let mut fresh = Handle::open(&self.store, &self.cache, &self.clock, &self.seeds, checkpoint).await?;
        fresh.number = self.current.read().number + 1;
        *self.current.write() = fresh;
        if let Err(error) = lost.close().await {
            tracing::debug!(%error, "the lost reader did not close cleanly");
        }
        Ok(())
    }

    pub(super) async fn close(&self) -> Result<(), slatedb::Error> {
        self.db().close().await
    }
}

impl Handle {
    async fn open(
        store: &Arc<dyn ObjectStore>,
        cache: &Arc<dyn DbCache>,
        clock: &Arc<dyn Clock>,
        seeds: &Seeds,
        checkpoint: Option<&str>,
    ) -> Result<Self, slatedb::Error> {
        let mode = match checkpoint {
            None => DbReaderMode::FollowLatest,
            Some(id) => {
                let id =
                    id.parse().map_err(|_| slatedb::Error::invalid(format!("no checkpoint id: {id}")))?;
                DbReaderMode::Checkpoint(id)
            }
        };
        let looked_at = Arc::new(Mutex::new((clock.now(), clock.elapsed())));
        let listed_at = Arc::new(Mutex::new(clock.elapsed()));
        let clock = Arc::new(EngineClock::new(clock.clone()));
        let db = DbReader::builder(DATABASE, store.clone())
            .with_reader_mode(mode)
            .with_options(settings::reader())
            .with_db_cache(cache.clone(), 0)
            .with_system_clock(clock.clone())
            .with_seed(seeds.next())
            .build()
            .await?;
        let status = db.subscribe();
        Ok(Self { db: Arc::new(db), clock, looked_at, listed_at, status, number: 0 })
    }

    /// SlateDB finds newer manifests by asking for the number after the newest it knows. If that one
    /// has been removed already it takes itself for up to date, for ever.
    fn may_have_missed_a_manifest(&self, (now, elapsed): (Time, Duration)) -> bool {
        let (then, elapsed_then) = *self.looked_at.lock();
        let by_day = now.to_system().duration_since(then.to_system());
        // A machine that sleeps stops the monotonic clock, and the time of day can be set back.
        let is_long = |span: Duration| span >= settings::MANIFEST_AGE / 2;
        by_day.map_or(true, is_long) || is_long(elapsed.saturating_sub(elapsed_then))
    }
}

impl Engine {
    /// For a reader that misses something: [`Engine::refresh`] asks for the manifest after the newest that it knows, and takes
    /// itself for up to date where that has been removed already. Does nothing if that was made sure of not long ago.
    ///
    /// # Errors
    /// As [`Engine::refresh`].
    pub async fn look_anew(&self) -> Result<(), EngineError> {
        match &self.0.access {
            Access::Write(_) => Ok(()),
            Access::Read(follower) => self.read(follower.look_anew(settings::LOOK_ANEW_EARLY)).await,
        }
    }
}

/// The highest number of a manifest that is listed.
pub(super) async fn newest_manifest(store: &Arc<dyn ObjectStore>) -> object_store::Result<u64> {
    let listed = store.list(Some(&manifests()));
    let numbers =
        listed.try_filter_map(|object| futures::future::ready(Ok(manifest_number(&object.location))));
    numbers.try_fold(0, |newest: u64, number: u64| futures::future::ready(Ok(newest.max(number)))).await
}

async fn is_empty(store: &Arc<dyn ObjectStore>) -> bool {
    let mut entries = store.list(Some(&Path::from(DATABASE)));
    matches!(entries.try_next().await, Ok(None))
}

/// Whether reading again from a fresh handle may help: tables it knew may have been merged and removed.
pub(super) fn lost_footing(error: &slatedb::Error) -> bool {
    matches!(error.kind(), ErrorKind::Closed(_) | ErrorKind::Data)
}
