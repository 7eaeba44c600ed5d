//! Commits: seal the open group, bring its blocks into the bucket, write its records in one batch.
//!
//! Data before metadata, always; one group at a time; the next one is open meanwhile.

use std::sync::Arc;
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use tokio::time::Instant;

use crate::base::{Ino, NewSegment, SegmentId};
use crate::data::{FileEdit, Moves};
use crate::meta::engine::EngineError;
use crate::meta::{Commit, Key, Machine, MetaError, Record, Superblock, chain, encode};

use super::account::Accounted;
use super::layout::Layout;
use super::options::Committed;
use super::state::Phase;
use super::{Vfs, VfsError};

/// First and longest pause before a commit that failed is tried again.
const PAUSE: Duration = Duration::from_millis(200);
const PAUSE_MAX: Duration = Duration::from_secs(10);
/// Attempts after which a fault that waiting does not cure is told to those who wait.
const TRIES_MAX: u32 = 5;
/// Attempts after which damage is believed: about twelve seconds. A server between may have answered for a bucket that is
/// sound.
const DAMAGE_TRIES: u32 = 7;

/// What a commit has decided, to be written and then to become the past.
#[derive(Debug)]
pub(super) struct Batch {
    written: Vec<(Key, Option<Record>)>,
    layout: Layout,
    superblock: Superblock,
    /// How many commits this device has made with this one.
    counter: u64,
    /// Blocks that ride in records although they belong into a segment.
    repack: Vec<(Ino, u64)>,
    segments: Accounted,
}

impl Vfs {
    /// Starts the tasks that commit by age and on demand, and that keep the volume clean.
    pub fn start(self: &Arc<Self>) {
        self.start_keeping();
        let this = Arc::downgrade(self);
        let age = self.options.commit_age;
        let heartbeat = self.options.heartbeat;
        let mut beat = (self.head().0, Instant::now());
        tokio::spawn(async move {
            loop {
                let Some(vfs) = this.upgrade() else { return };
                if vfs.state.lock().phase == Phase::ShutDown {
                    return;
                }
                let (commit, _) = vfs.head();
                if commit != beat.0 {
                    beat = (commit, Instant::now());
                }
                let aged = async {
                    vfs.signals.dirtied.notified().await;
                    tokio::time::sleep(age).await;
                };
                let idle = async {
                    match heartbeat {
                        Some(every) => tokio::time::sleep_until(beat.1 + every).await,
                        None => std::future::pending().await,
                    }
                };
                let (is_urgent, is_forced) = tokio::select! {
                    biased;
                    () = vfs.signals.wanted.notified() => (true, false),
                    () = aged => (false, false),
                    () = idle => (false, true),
                };
                match vfs.commit(is_urgent, is_forced).await {
                    Ok(()) => {}
                    Err(VfsError::Fenced) => return,
                    Err(_) => {
                        tokio::time::sleep(PAUSE_MAX).await;
                        vfs.signals.wanted.notify_one();
                    }
                }
            }
        });
    }

    /// Commits the open group, if it holds anything or `is_forced`; before it the sealed one, if a
    /// commit was given up.
    ///
    /// Boxed, so that the many who commit do not carry its state on their stacks.
    pub(super) fn commit(&self, is_urgent: bool, is_forced: bool) -> BoxFuture<'_, Result<(), VfsError>> {
        let committing = async move {
            let mut decided = self.commit_turn.lock().await;
            if self.is_given_up()? {
                self.finish(is_urgent, &mut decided).await?;
            }
            if self.seal(is_urgent, is_forced)? {
                self.finish(is_urgent, &mut decided).await?;
            }
            Ok(())
        };
        committing.boxed()
    }

    /// Whether a group is sealed and nobody commits it.
    fn is_given_up(&self) -> Result<bool, VfsError> {
        let state = self.state.lock();
        match state.phase {
            Phase::Writable => Ok(state.is_committing),
            Phase::ReadOnly | Phase::ShutDown => Ok(false),
            Phase::Fenced => Err(VfsError::Fenced),
        }
    }

    /// Commits the sealed group. Waits an outage out; reports other faults after a few attempts, and
    /// leaves the group sealed for the next.
    async fn finish(&self, is_urgent: bool, decided: &mut Option<Batch>) -> Result<(), VfsError> {
        let (mut pause, mut tries) = (PAUSE, 0);
        let begun = self.clock.elapsed();
        loop {
            match self.commit_sealed(is_urgent, tries + 1 >= DAMAGE_TRIES, decided).await {
                Ok(()) => {
                    self.commit_times.add(self.clock.elapsed().saturating_sub(begun));
                    return Ok(());
                }
                Err(
                    VfsError::Meta(MetaError::Engine(EngineError::Fenced | EngineError::NewKey))
                    | VfsError::Fenced,
                ) => {
                    self.fence();
                    return Err(VfsError::Fenced);
                }
                Err(error) if !error.is_passing() && tries + 1 >= tries_max(&error) => {
                    tracing::error!(%error, "nothing can be committed");
                    self.state.lock().stuck = Some(error.clone());
                    self.tell_progress();
                    return Err(error);
                }
                Err(error) => {
                    tracing::warn!(%error, "a commit failed; trying again");
                    tries += u32::from(!error.is_passing());
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(PAUSE_MAX);
                }
            }
        }
    }

    fn seal(&self, is_urgent: bool, is_forced: bool) -> Result<bool, VfsError> {
        let mut state = self.state.lock();
        match state.phase {
            Phase::Writable => {}
            Phase::ReadOnly | Phase::ShutDown => return Ok(false),
            Phase::Fenced => return Err(VfsError::Fenced),
        }
        let since = state.dirty_since.take();
        let has_work =
            !state.is_open_empty() || !state.moves.is_empty() || (state.dirty.has_repack() && !is_urgent);
        if !has_work && !is_forced {
            self.tell_safety(!state.is_committing);
            return Ok(false);
        }
        state.seal(since);
        drop(state);
        // The open group has room again.
        self.signals.eased.notify_waiters();
        Ok(true)
    }

    async fn commit_sealed(
        &self,
        is_urgent: bool,
        is_last_try: bool,
        decided: &mut Option<Batch>,
    ) -> Result<(), VfsError> {
        // What has been decided once is written again as it is: the engine may show records of a
        // write that failed, and nothing must be decided upon those.
        let begun = self.clock.elapsed();
        let batch = match decided {
            Some(batch) => batch,
            None => decided.insert(self.decide(is_urgent, is_last_try).await?),
        };
        let is_decided = self.clock.elapsed();
        let mut rows = Vec::with_capacity(batch.written.len());
        for (key, record) in &batch.written {
            rows.push((key.encode(), record.as_ref().map(encode).transpose()?));
        }
        let records = rows.len();
        self.making_room(self.engine.write_durable(rows)).boxed().await.map_err(MetaError::from)?;
        let (sending, writing) =
            (is_decided.saturating_sub(begun), self.clock.elapsed().saturating_sub(is_decided));
        tracing::debug!(number = batch.superblock.commit, records, ?sending, ?writing, "committed");
        if let Some(batch) = decided.take() {
            self.settle(batch);
        }
        Ok(())
    }

    /// Brings the sealed group's blocks into the bucket and works out its records.
    async fn decide(&self, is_urgent: bool, is_last_try: bool) -> Result<Batch, VfsError> {
        let mut inline = self.pack_sealed(is_urgent, is_last_try).await?;
        let (mut edits, segments) = {
            let state = self.state.lock();
            inline.retain(|(ino, index, _)| state.dirty.is_sealed(*ino, *index));
            let mut segments = state.dirty.new_segments();
            segments.extend(state.sealed_moves.segments());
            (with_moves(state.dirty.sealed_edits(), &state.sealed_moves), segments)
        };
        for (ino, index, bytes) in &inline {
            if let Ok(at) = edits.binary_search_by_key(ino, |(ino, _)| *ino)
                && let Some((_, edit)) = edits.get_mut(at)
            {
                edit.inline.push((*index, bytes.len() as u32));
            }
        }
        let mut layout = self.lay_out(edits, is_last_try).boxed().await?;
        if !is_urgent {
            self.drop_stale(&mut layout).boxed().await;
        }
        let mut repack = Vec::new();
        inline.retain(|(ino, index, _)| !layout.left_out.holds(*ino, *index));
        for (ino, index, bytes) in inline {
            if bytes.len() > self.options.inline_file_bytes {
                repack.push((ino, index));
            }
            layout.records.insert(Key::Inline(ino, index), Some(Record::Inline(bytes)));
        }
        self.assemble(layout, segments, repack).await
    }

    /// Everything that the commit writes.
    async fn assemble(
        &self,
        mut layout: Layout,
        segments: Vec<(SegmentId, NewSegment)>,
        repack: Vec<(Ino, u64)>,
    ) -> Result<Batch, VfsError> {
        let (changes, before, files_delta, next_ino, (quota_bytes, holder), (session, counted)) = {
            let state = self.state.lock();
            let changes = state.overlay.sealed_changes();
            let (files_delta, next_ino) = (state.sealed_files_delta, state.sealed_next_ino);
            let (superblock, set) = (state.superblock.clone(), (state.quota_bytes, state.holder.clone()));
            (changes, superblock, files_delta, next_ino, set, (state.session, state.counter))
        };
        let mut records = std::mem::take(&mut layout.records);
        records.extend(changes);
        layout.left_out.take_from(&mut records);
        let files_delta = files_delta + layout.left_out.unfreed_count();
        for (ino, body) in &layout.bodies {
            let key = Key::Inode(*ino);
            let inode = match records.get(&key) {
                Some(record) => record.clone(),
                None => self.read_txn(|txn| txn.committed(key)).await?,
            };
            if let Some(Record::Inode(mut inode)) = inode {
                let change = Arc::make_mut(&mut inode);
                change.body = body.body.clone();
                change.allocated = body.allocated;
                records.insert(key, Some(Record::Inode(inode)));
            }
        }
        let number = before.commit.saturating_add(1);
        let segments = self.account(&layout.live, segments, number, &mut records).await?;
        let time = self.clock.now();
        let device = self.options.device;
        let counter = if device == [0; 16] { 0 } else { counted.saturating_add(1) };
        let mut commit = Commit { hash: before.head, device, session, counter, time };
        commit.hash = chain::link(self.ring(), &before.head, number, &commit);
        if counter > 0 {
            let machine = Machine { counter, commit: number };
            records.insert(Key::Machine(device), Some(Record::Machine(machine)));
        }
        let hash = commit.hash;
        records.insert(Key::Commit(number), Some(Record::Commit(Arc::new(commit))));
        let superblock = Superblock {
            next_ino,
            files: before.files.saturating_add_signed(files_delta),
            bytes: before.bytes.saturating_add_signed(layout.allocated),
            commit: number,
            head: hash,
            quota_bytes,
            holder,
            ..before
        };
        records.insert(Key::Super, Some(Record::Super(Arc::new(superblock.clone()))));
        let written = records.into_iter().collect();
        Ok(Batch { written, layout, superblock, counter, repack, segments })
    }

    /// The batch is durable: it becomes the past.
    fn settle(&self, batch: Batch) {
        let mut state = self.state.lock();
        for (ino, new) in &batch.layout.bodies {
            state.overlay.patch_open(&Key::Inode(*ino), |record| {
                if let Record::Inode(inode) = record {
                    let inode = Arc::make_mut(inode);
                    inode.body = new.body.clone();
                    inode.allocated = new.allocated;
                }
            });
        }
        state.overlay.settle(batch.written);
        self.leave_out(&mut state, &batch.layout.left_out);
        state.catch_up();
        state.dirty.settle(&batch.repack, &batch.segments.recorded);
        state.idle.retain(|id| !batch.segments.settled.contains(id));
        state.idle.extend(batch.segments.idle);
        state.dirty.follow(&batch.layout.moved);
        state.sealed_moves = Moves::default();
        state.cleaned.moved_blocks += batch.layout.moved.len() as u64;
        state.has_stirred |= !batch.segments.weights.is_empty();
        for (id, was, is) in batch.segments.weights {
            state.ledger.changed(id, was, is);
        }
        let due = self.clock.elapsed().saturating_add(self.options.clean.grace);
        for (id, len) in batch.segments.dead {
            state.waiting.dead(id, len.into(), due);
        }
        state.superblock = batch.superblock;
        state.counter = batch.counter;
        state.is_committing = false;
        state.settled_group = state.group - 1;
        state.sealed_since = None;
        state.stuck = None;
        state.committed_at = Some(self.clock.now());
        let bytes = state.dirty.bytes() as u64;
        state.queue.observe(bytes, || self.clock.elapsed());
        let is_clean = state.is_open_empty();
        match is_clean {
            true => self.tell_safety(true),
            false => self.note_change(&mut state),
        }
        let (number, hash, counter) = (state.superblock.commit, state.superblock.head, batch.counter);
        if state.dirty.has_repack() && state.is_open_empty() {
            self.signals.dirtied.notify_one();
        }
        drop(state);
        self.note_left_out(&batch.layout.left_out);
        self.note_commit(Committed { number, hash, counter });
        if is_clean {
            self.buffers.clear();
        }
        self.tell_progress();
        self.collect_in_passing();
    }

    /// Another writer has the volume: nothing more can be committed.
    pub(super) fn fence(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Writable {
            return;
        }
        state.phase = Phase::Fenced;
        // What is left cannot be saved any more, so that there is nothing to wait for.
        self.tell_safety(true);
        drop(state);
        tracing::error!("another writer has taken this volume over; this mount is read-only now");
        self.tell_progress();
        self.begin_rescue();
    }
}

const fn tries_max(error: &VfsError) -> u32 {
    if error.is_damage() { DAMAGE_TRIES } else { TRIES_MAX }
}

/// The edits of a group, each with the moves of its file.
fn with_moves(mut edits: Vec<(Ino, FileEdit)>, moves: &Moves) -> Vec<(Ino, FileEdit)> {
    let mut moved_only = Vec::new();
    for (ino, moves) in moves.files() {
        let found = edits.binary_search_by_key(&ino, |(ino, _)| *ino);
        match found.ok().and_then(|at| edits.get_mut(at)) {
            Some((_, edit)) => edit.moves = moves.to_vec(),
            None => moved_only.push((ino, FileEdit { moves: moves.to_vec(), ..FileEdit::default() })),
        }
    }
    edits.extend(moved_only);
    edits.sort_by_key(|(ino, _)| *ino);
    edits
}
