//! Who this process is, and whether another one that held a volume still lives.

use crate::base::{Entropy, Time};
use crate::meta::Holder;

use super::VolumeError;
use super::error::utc;

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";
const HOST_NAME: &str = "/proc/sys/kernel/hostname";

/// This process, as it holds a volume from now on.
pub(super) fn this(entropy: &dyn Entropy, since: Time) -> Holder {
    let mut session = [0; 16];
    entropy.fill(&mut session);
    Holder { host: read(HOST_NAME), uid: uid(), pid: std::process::id(), boot: boot(), session, since }
}

/// Whether `holder` was a process of this machine that has ended, so that it can never write again.
pub(super) fn is_gone(holder: &Holder) -> bool {
    let here = holder.host == read(HOST_NAME);
    if !here {
        return false;
    }
    let is_this_boot = holder.boot == boot() && holder.boot != [0; 16];
    !is_this_boot || !std::path::Path::new("/proc").join(holder.pid.to_string()).exists()
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

fn read(path: &str) -> String {
    std::fs::read_to_string(path).map(|text| text.trim().chars().take(255).collect()).unwrap_or_default()
}

fn boot() -> [u8; 16] {
    let digits: String = read(BOOT_ID).chars().filter(|c| *c != '-').collect();
    u128::from_str_radix(&digits, 16).unwrap_or_default().to_be_bytes()
}

fn uid() -> u32 {
    use std::os::unix::fs::MetadataExt;
    std::fs::metadata("/proc/self").map(|meta| meta.uid()).unwrap_or_default()
}
