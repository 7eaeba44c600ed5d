//! A POSIX filesystem with no FUSE in it: one file for each family of operations.

mod access;
mod account;
mod attr;
mod clean;
mod commit;
mod copy;
mod damage;
mod directory;
mod error;
mod file;
mod fold;
mod follow;
mod garbage;
mod keep;
mod layout;
mod left_out;
mod leftovers;
mod links;
mod locate;
mod memory;
mod metadata;
mod names;
mod neighbours;
mod noted;
mod options;
mod overtake;
mod pace;
mod pack;
mod queue;
mod quota;
mod read;
mod reclaim;
mod recover;
mod refs;
mod regroup;
mod rename;
mod renew;
mod renew_rest;
mod room;
mod settled;
mod space;
mod stale;
mod staleness;
mod state;
mod status;
mod stay;
mod survey;
mod touched;
mod txn;
mod unsent;
mod vicinity;
mod waiting;
mod whereabouts;
mod xattr;

use std::collections::HashMap;
use std::sync::atomic::AtomicU64;
use std::sync::{Arc, OnceLock, Weak};

use futures::FutureExt;
use futures::future::join_all;
use parking_lot::Mutex;
use tokio::sync::{Notify, RwLock, Semaphore, watch};

use crate::base::{Clock, Histogram};
use crate::cache::BlockCache;
use crate::crypto::KeyRing;
use crate::data::segment::Buffers;
use crate::data::{BlockReader, Dirty};
use crate::meta::engine::{Engine, EngineError};
use crate::meta::{Key, Load, MetaError, Overlay, Record, Superblock, decode};
use crate::vault::Vault;

pub use access::Atime;
pub use attr::{Attr, Caller, DirEntry, Handle, RenameMode, SeekFor, SetAttr, SetTime, StatFs, XattrMode};
pub use clean::Cleaned;
pub use damage::{Damage, Damaged};
pub use error::VfsError;
pub use file::Drops;
pub use memory::MemoryUsed;
pub use options::{CleanOptions, Committed, OnCommit, VfsOptions};
pub use queue::{AgeClass, QueueStatus};
pub use reclaim::{Amount, Reclaimable, Reclaimed};
pub use renew::{RenewStep, Renewed};
pub use settled::FileState;
pub use status::{OnSafety, Status};
pub use unsent::{OnFenced, Part, Rescue, Unsent, UnsentChange, UnsentFile};

use file::OpenFile;
use follow::Follow;
use room::Need;
use state::{Phase, State};
use txn::{Halt, Txn};

/// A mounted volume's filesystem. Every operation is cancel-safe: a future that is dropped before it
/// completes has changed nothing.
pub struct Vfs {
    me: Weak<Vfs>,
    state: Mutex<State>,
    engine: Engine,
    vault: Vault,
    reader: BlockReader,
    cache: Arc<BlockCache>,
    clock: Arc<dyn Clock>,
    options: VfsOptions,
    handles: Mutex<HashMap<u64, OpenFile>>,
    neighbours: Mutex<neighbours::Neighbours>,
    walks: Mutex<vicinity::Walks>,
    names: names::SealedNames,
    next_handle: AtomicU64,
    signals: Signals,
    uploads: Arc<Semaphore>,
    /// What segments are made in.
    buffers: Buffers,
    /// Held while a group is committed. What has been decided for it, if that is not written yet.
    commit_turn: tokio::sync::Mutex<Option<commit::Batch>>,
    follow: Follow,
    /// What has been met of damage in the bucket.
    damage: Mutex<Damage>,
    /// Held by whoever cleans, one round at a time.
    clean_turn: tokio::sync::Mutex<()>,
    /// What became of what was not sent when another writer took over. Saved by one at a time.
    rescue: Mutex<Option<Rescue>>,
    rescue_turn: tokio::sync::Mutex<()>,
    /// How long commits took, from the first attempt to the end.
    commit_times: Histogram,
    /// How long whoever asked for durability waited.
    fsync_times: Histogram,
}

/// How operations and the committer wake each other.
struct Signals {
    /// Someone waits for the open group.
    wanted: Notify,
    /// Someone has come to wait for a file.
    hurried: Notify,
    /// The open group has got its first change.
    dirtied: Notify,
    /// Dirty bytes, records or uploads have become fewer.
    eased: Notify,
    /// Held for reading by whoever deletes dead segments.
    collecting: Arc<RwLock<()>>,
    /// The last group that was committed, and whether there will be more.
    progress: Mutex<Progress>,
    /// That has changed. Who has waited longest goes on first: a watch channel would wake in any order.
    progressed: Notify,
    /// Tells the housekeeping the same, and of the end of the filesystem.
    stirred: watch::Sender<()>,
    /// Told whenever the filesystem starts or ceases to have changes that are not in the bucket.
    safety: OnceLock<OnSafety>,
}

#[derive(Clone, Copy, Debug)]
struct Progress {
    committed: u64,
    phase: Phase,
    /// Nothing can be committed at present.
    is_stuck: bool,
}

impl Progress {
    const fn of(state: &State) -> Self {
        Self { committed: state.settled_group, phase: state.phase, is_stuck: state.stuck.is_some() }
    }
}

impl Vfs {
    fn ring(&self) -> &KeyRing {
        self.vault.ring()
    }

    /// Runs `op` for what it sees.
    async fn read_txn<T>(
        &self,
        mut op: impl FnMut(&mut Txn) -> Result<T, Halt> + Send,
    ) -> Result<T, VfsError> {
        self.keep_up().await;
        self.check_key()?;
        loop {
            let missing = {
                let mut state = self.state.lock();
                match op(&mut Txn::new(&mut state, self.clock.now())) {
                    Ok(value) => return Ok(value),
                    Err(Halt::Fail(error)) => {
                        self.note_damage(None, &error);
                        return Err(error);
                    }
                    Err(Halt::Missing(keys)) => keys,
                }
            };
            // Boxed, so that the state of what is seldom needed is not part of every operation's.
            self.load(missing).boxed().await?;
        }
    }

    /// Runs `op` and applies its changes, as soon as there is room for them.
    async fn update<T>(&self, op: impl FnMut(&mut Txn) -> Result<T, Halt> + Send) -> Result<T, VfsError> {
        self.wait_for_room(Need::Records).await?;
        self.apply(op).await
    }

    /// The same for what goes away, for which there is more room.
    async fn remove<T>(&self, op: impl FnMut(&mut Txn) -> Result<T, Halt> + Send) -> Result<T, VfsError> {
        self.wait_for_room(Need::Removal).await?;
        self.apply(op).await
    }

    /// Runs `op` and applies its changes.
    async fn apply<T>(&self, mut op: impl FnMut(&mut Txn) -> Result<T, Halt> + Send) -> Result<T, VfsError> {
        loop {
            let missing = {
                let mut state = self.state.lock();
                state.check_writable()?;
                let mut txn = Txn::new(&mut state, self.clock.now());
                match op(&mut txn) {
                    Ok(value) => {
                        txn.apply();
                        self.note_change(&mut state);
                        return Ok(value);
                    }
                    Err(Halt::Fail(error)) => {
                        self.note_damage(None, &error);
                        return Err(error);
                    }
                    Err(Halt::Missing(keys)) => keys,
                }
            };
            if let Err(error) = self.load(missing).boxed().await {
                // That another writer took over counts before what cannot be read because of it.
                self.state.lock().check_writable()?;
                return Err(error);
            }
        }
    }

    /// Starts the open group's clock at its first change.
    fn note_change(&self, state: &mut State) {
        if state.dirty_since.is_none() && !state.is_open_empty() {
            state.dirty_since = Some(self.clock.elapsed());
            self.signals.dirtied.notify_one();
            self.tell_safety(false);
        }
        let bytes = state.dirty.bytes() as u64;
        state.queue.observe(bytes, || self.clock.elapsed());
    }

    /// To be called under the state's lock, so that what is told last is true.
    fn tell_safety(&self, is_safe: bool) {
        if let Some(tell) = self.signals.safety.get() {
            tell(is_safe);
        }
    }

    /// Tells all who wait where commits stand.
    fn tell_progress(&self) {
        {
            // Under its lock, so that nothing older is told later.
            let mut progress = self.signals.progress.lock();
            *progress = Progress::of(&self.state.lock());
        }
        self.signals.stirred.send_replace(());
        self.signals.progressed.notify_waiters();
        self.signals.eased.notify_waiters();
    }

    /// What an error of the engine means here. Whichever request learns that another writer has the volume
    /// tells all others.
    fn told(&self, error: EngineError) -> VfsError {
        // A key that came after this writer's own is another writer's.
        if matches!(error, EngineError::Fenced | EngineError::NewKey) {
            self.fence();
        }
        self.met(MetaError::from(error))
    }

    /// An error of what the engine holds, noted if it is damage.
    fn met(&self, error: MetaError) -> VfsError {
        let error = error.into();
        self.note_damage(None, &error);
        error
    }

    /// A read that was answered may have shown it as well.
    fn notice_fence(&self) {
        if self.engine.is_fenced() {
            self.fence();
        }
    }

    async fn load(&self, keys: Vec<Key>) -> Result<(), VfsError> {
        if let [key] = keys.as_slice() {
            return if self.load_vicinity(*key).await { Ok(()) } else { self.load_one(*key).await };
        }
        for loaded in join_all(keys.into_iter().map(|key| self.load_one(key))).await {
            loaded?;
        }
        Ok(())
    }

    async fn load_one(&self, key: Key) -> Result<(), VfsError> {
        let bytes = key.encode();
        loop {
            let pass = self.follow.pass().await;
            let guard = LoadGuard::begin(&self.state, key);
            let found = self.engine.get(&bytes).await.map_err(|error| self.told(error))?;
            self.notice_fence();
            if !self.is_current() {
                drop((guard, pass));
                self.follow_early().await?;
                continue;
            }
            let record =
                found.map(|bytes| decode(&key, &bytes)).transpose().map_err(|error| self.met(error))?;
            if guard.end(record) == Load::Kept {
                return Ok(());
            }
        }
    }

    /// Records with keys in `from..to`, at most `limit` of them, committed or not. The second value
    /// is where to go on, if there may be more.
    async fn scan(
        &self,
        from: Key,
        to: Key,
        limit: usize,
    ) -> Result<(Vec<(Key, Record)>, Option<Key>), VfsError> {
        {
            let mut state = self.state.lock();
            if let Some(rows) = state.overlay.whole_between(&from, &to, limit) {
                let is_full = rows.len() >= limit;
                return Ok(merged(rows, is_full, state.overlay.changes_between(&from, &to, limit), limit));
            }
        }
        let (_pass, changes, settled_count, rows) = loop {
            let pass = self.follow.pass().await;
            let (changes, settled_count) = {
                let state = self.state.lock();
                (state.overlay.changes_between(&from, &to, limit), state.overlay.settled_count())
            };
            let scanning = self.engine.scan(from.encode(), to.encode(), limit).boxed();
            let rows = scanning.await.map_err(|error| self.told(error))?;
            self.notice_fence();
            if self.is_current() {
                break (pass, changes, settled_count, rows);
            }
            drop(pass);
            self.follow_early().await?;
        };
        let is_full = rows.len() >= limit;
        let rows = rows.into_iter().filter_map(|(key, value)| Some((Key::decode(&key)?, value)));
        let rows: Vec<_> = rows
            .map(|(key, value)| Ok((key, decode(&key, &value)?)))
            .collect::<Result<_, MetaError>>()
            .map_err(|error| self.met(error))?;
        let mut state = self.state.lock();
        for (key, record) in &rows {
            state.overlay.remember_scanned(settled_count, *key, record.clone());
        }
        drop(state);
        Ok(merged(rows, is_full, changes, limit))
    }

    /// A new filesystem over an engine whose superblock has been read. The caller starts its
    /// committer with [`Vfs::start`].
    #[must_use]
    pub fn new(
        engine: Engine,
        vault: Vault,
        reader: BlockReader,
        cache: Arc<BlockCache>,
        clock: Arc<dyn Clock>,
        superblock: Superblock,
        options: VfsOptions,
    ) -> Arc<Self> {
        let phase = if options.read_only { Phase::ReadOnly } else { Phase::Writable };
        let names_bytes = options.record_cache_bytes / names::SHARE;
        let overlay = Overlay::new(options.record_cache_bytes - names_bytes);
        let dirty = Dirty::in_buffers(reader.buffers());
        let mut state = State::new(overlay, dirty, superblock, phase, options.clean.slack_bytes);
        state.counter = options.counter;
        let progress = Progress::of(&state);
        let follow = Follow::starting_with((engine.view(), engine.base()), clock.elapsed());
        let vfs = Arc::new_cyclic(|me: &Weak<Self>| Self {
            me: me.clone(),
            state: Mutex::new(state),
            engine,
            vault,
            reader,
            cache,
            clock,
            handles: Mutex::new(HashMap::new()),
            neighbours: Mutex::default(),
            walks: Mutex::default(),
            names: names::SealedNames::new(names_bytes),
            buffers: Buffers::new(options.uploads_max),
            next_handle: AtomicU64::new(1),
            signals: Signals {
                wanted: Notify::new(),
                hurried: Notify::new(),
                dirtied: Notify::new(),
                eased: Notify::new(),
                collecting: Arc::default(),
                progress: Mutex::new(progress),
                progressed: Notify::new(),
                stirred: watch::Sender::new(()),
                safety: OnceLock::new(),
            },
            uploads: Arc::new(Semaphore::new(options.uploads_max)),
            commit_turn: tokio::sync::Mutex::new(None),
            follow,
            damage: Mutex::default(),
            clean_turn: tokio::sync::Mutex::new(()),
            rescue: Mutex::new(None),
            rescue_turn: tokio::sync::Mutex::new(()),
            commit_times: Histogram::default(),
            fsync_times: Histogram::default(),
            options,
        });
        if phase == Phase::Writable {
            vfs.engine.judged_by(follow::judge(&vfs));
        }
        vfs
    }
}

/// What the last commit left, `limit` records of it if `is_full`, with at most `limit` changes laid over it; and where to go
/// on, if there may be more.
fn merged(
    rows: Vec<(Key, Record)>,
    is_full: bool,
    changes: Vec<(Key, Option<Record>)>,
    limit: usize,
) -> (Vec<(Key, Record)>, Option<Key>) {
    let last_row = rows.last().map(|(key, _)| *key).filter(|_| is_full);
    if changes.is_empty() {
        return (rows, last_row);
    }
    let last_change = changes.last().map(|(key, _)| *key).filter(|_| changes.len() >= limit);
    let bound = match (last_row, last_change) {
        (Some(row), Some(change)) => Some(row.min(change)),
        (row, change) => row.or(change),
    };
    let mut merged = Vec::with_capacity(rows.len() + changes.len());
    let mut changes = changes.into_iter().peekable();
    for (key, record) in rows {
        while let Some((changed, new)) = changes.next_if(|(changed, _)| *changed < key) {
            merged.extend(new.map(|new| (changed, new)));
        }
        match changes.next_if(|(changed, _)| *changed == key) {
            Some((_, new)) => merged.extend(new.map(|new| (key, new))),
            None => merged.push((key, record)),
        }
    }
    merged.extend(changes.filter_map(|(key, new)| Some((key, new?))));
    if let Some(bound) = bound {
        merged.retain(|(key, _)| *key <= bound);
    }
    (merged, bound)
}

/// Registers a load for as long as it runs, also when it is dropped half-way.
struct LoadGuard<'a> {
    state: &'a Mutex<State>,
    key: Key,
    /// Which commits the load may have missed.
    since: u64,
    has_ended: bool,
}

impl<'a> LoadGuard<'a> {
    fn begin(state: &'a Mutex<State>, key: Key) -> Self {
        let since = state.lock().overlay.begin_load(key);
        Self { state, key, since, has_ended: false }
    }

    fn end(mut self, record: Option<Record>) -> Load {
        self.has_ended = true;
        self.state.lock().overlay.end_load(self.key, self.since, Some(record))
    }
}

impl Drop for LoadGuard<'_> {
    fn drop(&mut self) {
        if !self.has_ended {
            self.state.lock().overlay.end_load(self.key, self.since, None);
        }
    }
}
