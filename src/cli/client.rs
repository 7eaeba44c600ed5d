//! What `status`, `sync` and `umount` share: finding running mounts and talking to them.

use std::path::PathBuf;

use serde_json::Value;

use super::error::CommandResult;
use super::explain;
use super::progress::spinner;
use super::units::show_size;
use crate::control::{Client, MountEntry, Registry, Request, Step};

/// The mounts at `points` or around them, or all of this user's if none is given.
///
/// # Errors
/// When no volume is mounted at one of them.
pub fn mounts(points: &[PathBuf]) -> CommandResult<Vec<MountEntry>> {
    let registry = Registry::of_user().map_err(|e| explain::control(&e))?;
    if points.is_empty() {
        let mut entries = registry.entries();
        entries.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        return Ok(entries);
    }
    points.iter().map(|point| registry.find(point).map_err(|e| explain::control(&e))).collect()
}

/// Sends `request` to the mount of `entry`, and returns what came of it.
///
/// # Errors
/// As [`ask`].
pub async fn ask_quietly(entry: &MountEntry, request: &Request) -> CommandResult<Value> {
    let client = Client::connect(entry).await.map_err(|e| explain::control(&e))?;
    client.request(request, |_| ()).await.map_err(|e| explain::control(&e))
}

/// Sends `request` to the mount of `entry`, shows how it goes, and returns what came of it.
///
/// # Errors
/// When the mount does not answer, refuses or fails.
pub async fn ask(entry: &MountEntry, request: &Request) -> CommandResult<Value> {
    let client = Client::connect(entry).await.map_err(|e| explain::control(&e))?;
    let line = spinner();
    let point = entry.mountpoint.display();
    let answer = client.request(request, |progress| {
        let left = show_size(progress.dirty_bytes);
        line.set_message(match progress.step {
            Step::Syncing if progress.dirty_bytes > 0 => format!("{point}: {left} not in the bucket yet"),
            Step::Syncing => format!("{point}: committing"),
            Step::Cleaning => format!("{point}: cleaning"),
            Step::Unmounting => format!("{point}: unmounting"),
            Step::Closing => format!("{point}: closing the volume, {left} not in the bucket yet"),
        });
    });
    let answer = answer.await;
    line.finish_and_clear();
    answer.map_err(|e| explain::control(&e))
}
