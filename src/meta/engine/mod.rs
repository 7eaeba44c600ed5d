//! The ordered store of records: SlateDB behind a narrow seam.

mod ahead;
mod asked_once;
mod cache;
mod clock;
mod error;
mod follower;
mod gap;
mod garbage;
mod judged;
mod listed;
mod logs_read;
mod own;
mod paced;
mod past;
mod renew;
mod scan;
mod schedulers;
mod seam;
mod seeds;
mod settings;
mod spoiled;
mod store_day;
#[cfg(test)]
mod tests;
mod upkeep;
mod view;
mod writer;

use std::future::Future;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use futures::future::join_all;
use object_store::ObjectStore;
use slatedb::config::{CheckpointOptions, CheckpointScope, ReadOptions};
use slatedb::db_cache::DbCache;
use slatedb::{DbCacheManagerOps, WriteBatch};

pub use asked_once::AskedOnce;
pub use error::EngineError;
pub use judged::Judge;
pub use paced::Pace;
pub use seeds::Seeds;
pub use view::{Base, View};

use cache::BlockCache;
use follower::Follower;
use logs_read::LogsRead;
use past::Written;
use scan::{Source, scan};
use seam::Seam;
use writer::Writer;

use crate::base::{Clock, Gauge};
use crate::store::Meter;

/// The database's directory within the sealed store.
const DATABASE: &str = "db";
/// A record of ours in every batch. Its timestamp tells the next session how far the clock had come. No
/// other key may start with a NUL.
const PULSE: &[u8] = b"\0";
/// How the engine is opened.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum EngineMode {
    /// As the one writer; an older writer is fenced.
    Writer,
    /// Following the writer, without writing anything.
    Reader,
    /// Staying at a checkpoint, given by its id.
    Checkpoint(String),
}

/// Limits and surroundings of the engine.
#[derive(Clone, Debug)]
pub struct EngineOptions {
    /// Begins an empty database if there is none; otherwise that is [`EngineError::Missing`].
    pub create: bool,
    /// Bytes of decoded blocks kept in memory.
    pub cache_bytes: u64,
    /// Bytes in memory of records that are durable but in no table yet.
    pub write_bytes: u64,
    /// Reads fail after this.
    pub read_timeout: Duration,
    /// Tells why the bucket does not answer.
    pub meter: Option<Meter>,
    /// What SlateDB's random numbers follow from.
    pub seeds: Seeds,
    /// What merging everything and removing garbage may ask for.
    pub pace: Pace,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            create: false,
            cache_bytes: 64 * 1024 * 1024,
            write_bytes: 128 * 1024 * 1024,
            read_timeout: Duration::from_secs(60),
            meter: None,
            seeds: Seeds::default(),
            pace: Pace::default(),
        }
    }
}

/// An ordered map from keys to values with atomic, durable batches. Clones share it.
#[derive(Clone)]
pub struct Engine(Arc<Inner>);

struct Inner {
    access: Access,
    store: Arc<dyn ObjectStore>,
    options: EngineOptions,
    clock: Arc<dyn Clock>,
    written: Arc<Written>,
    logs: Arc<LogsRead>,
    /// Something was sealed with a newer key than those at hand.
    newer_key: Arc<AtomicBool>,
    /// What a fenced writer goes on reading from.
    past: tokio::sync::OnceCell<Option<Arc<Follower>>>,
    is_fenced: AtomicBool,
    judge: OnceLock<Judge>,
    cached: Gauge,
}

impl Inner {
    fn of(
        access: Access,
        store: Arc<dyn ObjectStore>,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> Self {
        Self {
            access,
            store,
            options,
            clock,
            written: Arc::default(),
            logs: Arc::default(),
            newer_key: Arc::default(),
            past: tokio::sync::OnceCell::new(),
            is_fenced: AtomicBool::new(false),
            judge: OnceLock::new(),
            cached: Gauge::default(),
        }
    }
}

enum Access {
    Write(Writer),
    Read(Arc<Follower>),
}

impl Engine {
    /// Opens the database in `store`.
    ///
    /// # Errors
    /// The bucket denies access or does not answer within the read timeout, there is no database, or it
    /// is damaged.
    pub async fn open(
        store: Arc<dyn ObjectStore>,
        mode: EngineMode,
        options: EngineOptions,
        clock: Arc<dyn Clock>,
    ) -> Result<Self, EngineError> {
        let may_create = options.create && mode == EngineMode::Writer;
        let written = Arc::new(Written::default());
        let newer_key = Arc::new(AtomicBool::new(false));
        let seam = Seam::new(store, may_create, Arc::clone(&written), Arc::clone(&newer_key));
        let (day, logs) = (seam.day(), seam.logs());
        let store: Arc<dyn ObjectStore> = Arc::new(seam);
        let cached = Gauge::default();
        let cache: Arc<dyn DbCache> = Arc::new(BlockCache::new(options.cache_bytes, cached.clone()));
        let (at, seeds, opening_clock) = (store.clone(), options.seeds.clone(), clock.clone());
        let (table_bytes, pace) = (settings::table_bytes(options.write_bytes), options.pace);
        let opening = async {
            let clock = opening_clock;
            Ok(match mode {
                EngineMode::Writer => {
                    Access::Write(Writer::open(at, cache, clock, seeds, (table_bytes, pace), day).await?)
                }
                EngineMode::Reader => {
                    Access::Read(Follower::open(at, cache, clock, seeds, None).await?.into())
                }
                EngineMode::Checkpoint(id) => {
                    Access::Read(Follower::open(at, cache, clock, seeds, Some(id)).await?.into())
                }
            })
        };
        let access = within(&options, true, opening).await?;
        let inner = Inner { written, logs, newer_key, cached, ..Inner::of(access, store, options, clock) };
        Ok(Self(Arc::new(inner)))
    }

    /// The value of `key`. A writer that was fenced goes on reading what it had written last.
    ///
    /// # Errors
    /// The bucket does not answer in time, or the records are damaged; [`EngineError::Fenced`] if what a fenced writer
    /// had written last is not there any more.
    pub async fn get(&self, key: &[u8]) -> Result<Option<Bytes>, EngineError> {
        let options = ReadOptions::default();
        let value = match &self.0.access {
            Access::Write(writer) => match self.read(writer.db.get_with_options(key, &options)).await {
                Err(EngineError::Fenced | EngineError::NewKey) => {
                    let past = self.past(writer).await?.db();
                    self.read(past.get_with_options(key, &options)).await?
                }
                result => result?,
            },
            Access::Read(follower) => {
                let db = follower.db();
                match self.limited(db.get_with_options(key, &options)).await? {
                    Err(error) if follower::lost_footing(&error) => {
                        self.read(follower.reopen(&db)).await?;
                        self.read(follower.db().get_with_options(key, &options)).await?
                    }
                    result => result.map_err(|error| EngineError::from_slate(&error))?,
                }
            }
        };
        // The value is a slice of a whole block, which it would keep in memory.
        Ok(value.map(|value| Bytes::copy_from_slice(&value)))
    }

    /// Up to `limit` records from `from` (inclusive) to `to` (exclusive), in order.
    ///
    /// # Errors
    /// The bucket does not answer in time, or the records are damaged.
    pub async fn scan(
        &self,
        from: Vec<u8>,
        to: Vec<u8>,
        limit: usize,
    ) -> Result<Vec<(Bytes, Bytes)>, EngineError> {
        if from >= to || limit == 0 {
            return Ok(Vec::new());
        }
        match &self.0.access {
            Access::Write(writer) => {
                match self.read(scan(Source::Writer(&writer.db), &from, &to, limit)).await {
                    Err(EngineError::Fenced | EngineError::NewKey) => {
                        let past = self.past(writer).await?.db();
                        self.read(scan(Source::Reader(&past), &from, &to, limit)).await
                    }
                    result => result,
                }
            }
            Access::Read(follower) => {
                let db = follower.db();
                match self.limited(scan(Source::Reader(&db), &from, &to, limit)).await? {
                    Err(error) if follower::lost_footing(&error) => {
                        self.read(follower.reopen(&db)).await?;
                        self.read(scan(Source::Reader(&follower.db()), &from, &to, limit)).await
                    }
                    result => result.map_err(|error| EngineError::from_slate(&error)),
                }
            }
        }
    }

    /// Brings into memory what reads of `keys` and `ranges` ask for one after the other, all of it at once. What fails fails
    /// again when it is read.
    pub async fn look_ahead(&self, keys: &[Vec<u8>], ranges: &[(Vec<u8>, Vec<u8>)]) {
        let single = |key: &Vec<u8>| (key.clone(), [key.as_slice(), &[0]].concat());
        let all: Vec<_> = keys.iter().map(single).chain(ranges.iter().cloned()).collect();
        let (db, manifest): (Arc<dyn DbCacheManagerOps>, _) = match &self.0.access {
            Access::Write(writer) => (writer.db.clone(), writer.db.manifest()),
            Access::Read(follower) => (follower.db(), follower.db().manifest()),
        };
        let look = async {
            ahead::tables(&*db, &manifest, &all).await;
            let gets = join_all(keys.iter().map(|key| async { self.get(key).await.is_ok() }));
            futures::join!(ahead::blocks(&*db, &manifest, ranges), gets)
        };
        let _ = self.limited(look).await;
    }

    /// Whether a read has shown that another writer took over, although it was answered.
    #[must_use]
    pub fn is_fenced(&self) -> bool {
        self.0.is_fenced.load(Ordering::Relaxed)
    }

    /// Writes all of `records` at once, `None` removing one, and returns when they are in the bucket: one
    /// PUT. An outage is waited out. If the future is dropped before, the records may be written or not,
    /// but never in part.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if another writer took over, [`EngineError::ReadOnly`] for readers.
    pub async fn write_durable(&self, records: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> Result<(), EngineError> {
        let Access::Write(writer) = &self.0.access else {
            return Err(EngineError::ReadOnly);
        };
        if records.is_empty() {
            return Ok(());
        }
        let mut batch = WriteBatch::new();
        batch.put(PULSE, b"");
        for (key, value) in records {
            match value {
                Some(value) => batch.put_bytes(key.into(), value.into()),
                None => batch.delete(key),
            }
        }
        writer.write(batch).await.map_err(|error| EngineError::from_slate(&error))
    }

    /// Pins the present state for readers, for `lifetime` or until dropped; returns its id.
    ///
    /// # Errors
    /// As [`Engine::write_durable`].
    pub async fn checkpoint(&self, lifetime: Option<Duration>) -> Result<String, EngineError> {
        let Access::Write(writer) = &self.0.access else {
            return Err(EngineError::ReadOnly);
        };
        let options = CheckpointOptions { lifetime, ..CheckpointOptions::default() };
        let made = writer.db.create_checkpoint(CheckpointScope::All, &options).await;
        Ok(made.map_err(|error| EngineError::from_slate(&error))?.id.to_string())
    }

    /// Lets a checkpoint go.
    ///
    /// # Errors
    /// The id is not one, or as [`Engine::write_durable`].
    pub async fn drop_checkpoint(&self, id: &str) -> Result<(), EngineError> {
        let id = id.parse().map_err(|_| EngineError::Broken(format!("no checkpoint id: {id}")))?;
        let admin = self.0.options.seeds.admin(&self.0.store);
        admin.delete_checkpoint(id).await.map_err(|error| EngineError::from_slate(&error))
    }

    /// Catches up: a reader with the writer's commits, a writer with what others did (and whether one took
    /// over).
    ///
    /// # Errors
    /// The bucket does not answer in time, the writer was fenced, the key was rotated, or the records are damaged.
    pub async fn refresh(&self) -> Result<(), EngineError> {
        match &self.0.access {
            Access::Write(writer) => self.read(writer.db.refresh_manifest()).await,
            Access::Read(follower) => {
                self.read(follower.refresh()).await?;
                // A reader goes on with the manifest that it has when it cannot read a newer one.
                match self.0.newer_key.load(Ordering::Relaxed) {
                    true => Err(EngineError::NewKey),
                    false => Ok(()),
                }
            }
        }
    }

    /// Waits until what a reader sees changes no more unless it is refreshed, or loses its footing: right after it was opened
    /// it goes to the newest commit once more by itself.
    ///
    /// # Errors
    /// The bucket does not answer in time.
    pub async fn settle(&self) -> Result<(), EngineError> {
        match &self.0.access {
            Access::Write(_) => Ok(()),
            Access::Read(follower) => self.limited(follower.settle()).await,
        }
    }

    /// Makes sure that no merge of the writer before this one, which may be asleep, adds anything any more.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] if one has just done so: the database is to be opened again. That it did not come to be made
    /// sure of is [`EngineError::Unavailable`].
    pub async fn refuse_other_merges(&self) -> Result<(), EngineError> {
        match &self.0.access {
            Access::Write(writer) => self.read(writer.refuse_other_merges()).await,
            Access::Read(_) => Ok(()),
        }
    }

    /// Makes the database as small as it can be now: merges its tables and removes garbage that is old
    /// enough. For readers there is nothing to do.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if another writer took over.
    pub async fn tidy(&self) -> Result<(), EngineError> {
        match &self.0.access {
            Access::Write(writer) => {
                writer.tidy().await;
                self.refresh().await
            }
            Access::Read(_) => Ok(()),
        }
    }

    /// Writes all of the database anew, so that whatever an opening or a collection reads is written by this process: logs
    /// come into tables, tables are merged into new ones, and what keeps older manifests is let go. Takes as long as that
    /// takes.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if another writer took over, [`EngineError::ReadOnly`] for readers; damage.
    pub async fn renew(&self) -> Result<(), EngineError> {
        let Access::Write(writer) = &self.0.access else {
            return Err(EngineError::ReadOnly);
        };
        writer.renew().await.map_err(|error| EngineError::from_slate(&error))
    }

    /// The objects that an opening or a collection reads, as the engine calls them.
    ///
    /// # Errors
    /// The bucket does not answer in time, or the records are damaged.
    pub async fn live_objects(&self) -> Result<Vec<String>, EngineError> {
        self.read(renew::live_objects(&self.0.store, &self.0.options.seeds)).await
    }

    /// What a reader sees at present. It changes with [`Engine::refresh`], also when that was given up and completes
    /// later, and when a read has to open the database anew. Always the same for a writer.
    #[must_use]
    pub fn view(&self) -> View {
        match &self.0.access {
            Access::Write(_) => View::default(),
            Access::Read(follower) => follower.view(),
        }
    }

    /// What the present state was built on. Always the same for a writer.
    #[must_use]
    pub fn base(&self) -> Base {
        match &self.0.access {
            Access::Write(_) => Base::default(),
            Access::Read(follower) => follower.base(),
        }
    }

    /// Ends the use of the database. Everything written is durable already; the writer also leaves its
    /// records in a table, so that the next opening has no logs to read. A table that could not be written is
    /// no error: no commit depends on it, and the next opening reads the logs.
    ///
    /// # Errors
    /// [`EngineError::Fenced`] if another writer took over.
    pub async fn close(&self) -> Result<(), EngineError> {
        let closed = match &self.0.access {
            Access::Write(writer) => writer.close().await,
            Access::Read(follower) => follower.close().await,
        };
        match closed.map_err(|error| EngineError::from_slate(&error)) {
            Ok(()) | Err(EngineError::Closed) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Bytes of opened blocks in memory.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.0.cached.get()
    }

    /// Tables and runs a read may have to look into, newest level first.
    #[must_use]
    pub fn tables(&self) -> (usize, usize) {
        let manifest = match &self.0.access {
            Access::Write(writer) => writer.db.manifest(),
            Access::Read(follower) => follower.db().manifest(),
        };
        (manifest.l0().len(), manifest.compacted().len())
    }

    async fn read<T>(&self, work: impl Future<Output = Result<T, slatedb::Error>>) -> Result<T, EngineError> {
        within(&self.0.options, false, work).await
    }

    async fn limited<T>(&self, work: impl Future<Output = T>) -> Result<T, EngineError> {
        let silence = |_| EngineError::from_silence(self.0.options.meter.as_ref());
        tokio::time::timeout(self.0.options.read_timeout, work).await.map_err(silence)
    }
}

/// Gives `work` the time that reads have. SlateDB repeats what fails without end, because giving up would
/// close the database; so the end is set here. With `prompt`, it also ends as soon as access is denied.
async fn within<T>(
    options: &EngineOptions,
    prompt: bool,
    work: impl Future<Output = Result<T, slatedb::Error>>,
) -> Result<T, EngineError> {
    let denied = async {
        match &options.meter {
            Some(meter) if prompt => meter.denied().await,
            _ => std::future::pending().await,
        }
    };
    let limited = tokio::time::timeout(options.read_timeout, work);
    tokio::select! {
        // First, so that it watches before the work begins.
        biased;
        () = denied => Err(EngineError::from_silence(options.meter.as_ref())),
        result = limited => match result {
            Ok(result) => result.map_err(|error| EngineError::from_slate(&error)),
            Err(_) => Err(EngineError::from_silence(options.meter.as_ref())),
        },
    }
}
