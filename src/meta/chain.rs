//! The chain of commits: each is bound to the one before. (`docs/FORMAT.md`, "Commits")

use crate::base::Time;
use crate::crypto::{KeyRing, MacLabel};

/// What stands before the first commit.
pub const GENESIS: [u8; 32] = [0; 32];

/// The hash of commit `number`, made by `device` at `time` upon the commit with hash `previous`.
#[must_use]
pub fn link(ring: &KeyRing, previous: &[u8; 32], number: u64, device: &[u8; 16], time: Time) -> [u8; 32] {
    let (secs, nanos) = (time.secs.to_be_bytes(), time.nanos.to_be_bytes());
    ring.mac(MacLabel::Commit, &[previous, &number.to_be_bytes(), device, &secs, &nanos])
}
