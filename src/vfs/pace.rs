//! How fast the housekeeping goes: what it asks of the bucket, in bytes and in requests, is followed by a rest.

use std::time::Duration;

use super::Vfs;

/// What the housekeeping gets of its budget while somebody uses the bucket: one part of so many.
const BUSY_SHARE: u64 = 8;

impl Vfs {
    /// How long the housekeeping still rests.
    pub(super) fn rest_left(&self) -> Duration {
        let now = self.clock.elapsed();
        self.state.lock().rests_until.saturating_sub(now)
    }

    /// Begins the rest that follows so much, or makes the present one longer.
    pub(super) fn rest_after(&self, bytes: u64, requests: u64) {
        let is_sending = self.uploads.available_permits() < self.options.uploads_max;
        let now = self.clock.elapsed();
        let mut state = self.state.lock();
        let share = if is_sending || state.dirty.bytes() > 0 { BUSY_SHARE } else { 1 };
        let clean = &self.options.clean;
        let rest = rest_of(bytes, clean.bytes_per_second / share)
            .max(rest_of(requests, clean.requests_per_second / share));
        state.rests_until = state.rests_until.max(now).saturating_add(rest);
    }
}

/// How long `count` lasts at so many a second.
const fn rest_of(count: u64, each_second: u64) -> Duration {
    let each_second = if each_second == 0 { 1 } else { each_second };
    Duration::from_millis(count.saturating_mul(1000) / each_second)
}
