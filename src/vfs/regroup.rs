//! What is removed while the bucket is full need not be sent: the commit under way takes the open group in.
//!
//! A sealed group is sent whole, so that one with a file that does not fit would wait for ever, even if somebody has
//! removed the file meanwhile: that belongs to the next group. Nobody can leave the file out of the sealed one without
//! committing names that have lost their contents. But the two groups can be one, in which the file has come and gone.

use std::time::Duration;

use crate::data::Batch;
use crate::store::OutageKind;

use super::Vfs;
use super::state::Phase;

/// How often what waits for a full bucket is looked at.
const LOOK: Duration = Duration::from_secs(1);

impl Vfs {
    fn is_full(&self) -> bool {
        self.outage() == Some(OutageKind::Full)
    }

    /// Deletes what has been dead for long enough, if the bucket is full: whoever does that otherwise may wait for a commit.
    fn make_room(&self) {
        if self.is_full() {
            self.collect_in_passing();
        }
    }

    /// Waits for `write`, which may wait for room for ever, and deletes what is due meanwhile.
    pub(super) async fn making_room<T>(&self, write: impl Future<Output = T>) -> T {
        tokio::pin!(write);
        loop {
            tokio::select! {
                biased;
                done = &mut write => return done,
                () = tokio::time::sleep(LOOK) => self.make_room(),
            }
        }
    }

    /// Returns when the bucket is full.
    pub(super) async fn until_full(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_full() {
                return;
            }
        }
    }

    /// Returns when the bucket is full and the open group has done away with what the commit waits to send.
    pub(super) async fn overflows(&self) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_full() && self.state.lock().dirty.voids_sealed() {
                return;
            }
            self.make_room();
        }
    }

    /// The commit under way, of which nothing is decided, takes the open group in. Who waits for either waits for both.
    pub(super) fn regroup(&self) {
        let mut state = self.state.lock();
        if state.phase != Phase::Writable {
            return;
        }
        let since = state.unseal();
        state.seal(since);
        let bytes = state.dirty.bytes() as u64;
        state.queue.observe(bytes, || self.clock.elapsed());
        drop(state);
        tracing::info!("the bucket is full; what was removed since is not sent any more");
        self.signals.eased.notify_waiters();
    }

    /// Returns when the bucket is full and some of what is on its way to it is not wanted any more.
    pub(super) async fn outgrows(&self, batch: &Batch) {
        loop {
            tokio::time::sleep(LOOK).await;
            if self.is_full() && self.state.lock().dirty.is_outdated(batch) {
                return;
            }
            self.make_room();
        }
    }

    /// Sends a segment no more. An attempt of which nothing was heard may have brought it into the bucket.
    pub(super) fn withdraw(&self, batch: &Batch, bytes: u64) {
        let found = self.clock.now();
        let mut state = self.state.lock();
        state.dirty.withdraw(batch);
        if state.phase == Phase::Writable {
            self.note_leftover(&mut state, batch.segment, bytes, found);
            self.note_change(&mut state);
        }
        drop(state);
        self.signals.eased.notify_waiters();
    }
}
