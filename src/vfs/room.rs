//! Room in memory for what is not in the bucket yet: who changes something waits until there is some.

use super::state::{Phase, State};
use super::{Vfs, VfsError};

/// What somebody needs room for.
#[derive(Clone, Copy, Debug)]
pub(super) enum Need {
    /// So many bytes of contents, and records.
    Bytes(usize),
    /// Records only.
    Records,
    /// Records only, of what goes away. It may be what does not fit into the bucket, and must not wait for it.
    Removal,
}

/// What is kept of each limit for removals.
const MARGIN_SHARE: usize = 16;

impl Vfs {
    /// Waits until there is room for a change of names or attributes, or, if it frees something, as much as that needs.
    ///
    /// # Errors
    /// Why there will be none.
    pub async fn room(&self, frees: bool) -> Result<(), VfsError> {
        match self.options.read_only {
            true => Ok(()),
            false => self.wait_for_room(if frees { Need::Removal } else { Need::Records }).await,
        }
    }

    /// Waits until there is room in the limits of what is not in the bucket yet.
    pub(super) async fn wait_for_room(&self, need: Need) -> Result<(), VfsError> {
        let (bytes, is_removal) = match need {
            Need::Bytes(bytes) => (bytes, false),
            Need::Records => (0, false),
            Need::Removal => (0, true),
        };
        let limit = |max: usize| if is_removal { max.saturating_add(max / MARGIN_SHARE) } else { max };
        let records_max = limit(self.options.dirty_records_max);
        let records_bytes_max = limit(self.options.open_records_bytes_max());
        let dirty_bytes_max = limit(self.options.dirty_bytes_max);
        let has_records = |state: &State| {
            state.overlay.open_count() <= records_max && state.overlay.open_bytes() <= records_bytes_max
        };
        let has_room = |state: &State| {
            let dirty = state.dirty.held_bytes();
            has_records(state) && (dirty == 0 || dirty.saturating_add(bytes) <= dirty_bytes_max)
        };
        // Uploads make room without a commit, unless most of it is taken by blocks that only a commit completes and packs.
        let needs_commit = |state: &State| {
            let in_flight = state.dirty.in_flight_bytes();
            let going = in_flight.saturating_add(state.dirty.full_bytes());
            let staying = state.dirty.held_bytes().saturating_sub(going);
            !has_records(state) || staying > self.options.dirty_bytes_max / 2 || in_flight == 0
        };
        loop {
            let eased = self.signals.eased.notified();
            tokio::pin!(eased);
            {
                let state = self.state.lock();
                if has_room(&state) || state.phase != Phase::Writable {
                    return Ok(());
                }
                if let Some(why) = &state.stuck {
                    return Err(why.clone());
                }
                eased.as_mut().enable();
                if needs_commit(&state) {
                    self.signals.wanted.notify_one();
                }
            }
            eased.await;
        }
    }
}
