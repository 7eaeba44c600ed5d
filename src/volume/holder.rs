//! Who this process is, and whether another one that held a volume still lives.

use crate::base::{Entropy, Time};
use crate::meta::Holder;

use super::VolumeError;
use super::error::utc;

const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// This process, as it holds a volume from now on.
pub(super) fn this(device: [u8; 16], entropy: &dyn Entropy, since: Time) -> Holder {
    let mut session = [0; 16];
    entropy.fill(&mut session);
    Holder { host: host(), uid: uid(), pid: std::process::id(), device, session, since }
}

/// Whether `holder` was a mount of this device that has ended without saying so. The caller holds the
/// lock that every mount with this device's local state keeps for as long as it lives; process ids say
/// nothing across containers, nor after a restart. That the session was begun with this very state folder, and
/// not with the one that it is a copy of, its own note says.
pub(super) fn is_gone(holder: &Holder, device: [u8; 16], sessions: &[[u8; 16]]) -> bool {
    let is_ours = device != [0; 16] && holder.device == device && sessions.contains(&holder.session);
    is_ours && holder.host == host()
}

/// The refusal that names `holder`.
pub(super) fn refusal(holder: &Holder) -> VolumeError {
    VolumeError::InUse {
        host: holder.host.clone(),
        uid: holder.uid,
        pid: holder.pid,
        since: utc(holder.since),
    }
}

pub(super) fn host() -> String {
    let name = std::fs::read_to_string(HOST_NAME).unwrap_or_default();
    name.trim().chars().take(255).collect()
}

fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map(|meta| meta.uid()).unwrap_or_default()
}
