//! A volume that may be mounted here: reached through its mount, or else opened by this command.

use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::Value;

use super::client::{ask_quietly, mounts};
use super::error::{CommandError, CommandResult, sentence};
use super::exit::Exit;
use super::open::{SourceArgs, describe, obtain_factors};
use super::{budget, explain, runtime};
use crate::control::{MountEntry, Request};
use crate::vfs::{Vfs, VfsError};
use crate::volume::{self, OpenOptions};

/// Memory for caches and buffers.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// The mount of this user that is meant: by where it is, or by its bucket.
///
/// # Errors
/// When the mounts cannot be listed, or the URL is none.
pub fn mounted(source: &SourceArgs) -> CommandResult<Option<MountEntry>> {
    let url = source.bucket.absolute_url()?;
    let url = source.bucket.open().map_or(url, |bucket| bucket.display_url().to_owned());
    let mut known = mounts(&[])?;
    if let Some(at) = known.iter().position(|entry| is_place(source, entry)) {
        return Ok(Some(known.swap_remove(at)));
    }
    known.retain(|entry| entry.url == url);
    if known.is_empty() {
        return Ok(None);
    }
    // Buckets of several services or accounts may have one URL: which of them is meant, its volume tells.
    let meant = match describe(&source.bucket, &source.state) {
        Ok(header) => known.into_iter().find(|entry| entry.volume == header.volume.to_string()),
        // A mount may have credentials that this command has not, and waits for a bucket that does not answer.
        Err(_) => known.into_iter().next(),
    };
    Ok(meant)
}

/// Whether the volume was named by where it is mounted.
fn is_place(source: &SourceArgs, entry: &MountEntry) -> bool {
    Path::new(&source.bucket.url).canonicalize().ok().as_ref() == Some(&entry.mountpoint)
}

/// The mount, if it writes: one that only reads leaves that to whoever writes, be it this command.
///
/// # Errors
/// When it only reads and the volume was named by it: then `coffer` with these words `does` it by the volume's URL.
pub fn writing(
    source: &SourceArgs,
    mount: Option<MountEntry>,
    words: &str,
    does: &str,
) -> CommandResult<Option<MountEntry>> {
    let Some(entry) = mount else { return Ok(None) };
    let state = runtime::block_on(async { Ok(ask_quietly(&entry, &Request::Status).await) })?;
    if state.map_or(true, |status| !only_reads(&status)) {
        return Ok(Some(entry));
    }
    if is_place(source, &entry) {
        let message = format!("the mount at {} only reads", entry.mountpoint.display());
        return Err(CommandError::new(Exit::Failure, message)
            .hint(format!("`coffer {words} {}` {does} beside it", entry.url)));
    }
    Ok(None)
}

/// By its status. One that is outdated reads, too.
fn only_reads(status: &Value) -> bool {
    matches!(status.pointer("/volume/state").and_then(Value::as_str), Some("read-only" | "outdated"))
}

/// A mount's answer.
///
/// # Errors
/// When it is none.
pub fn understood<T: DeserializeOwned>(answer: Value) -> CommandResult<T> {
    let wrong =
        |error| CommandError::new(Exit::Failure, format!("the mount's answer makes no sense: {error}"));
    serde_json::from_value(answer).map_err(wrong)
}

/// Opens the volume, as its writer unless it is `read_only`, and closes it after `work`.
///
/// # Errors
/// When it cannot be opened or closed, or the work fails.
pub fn alone<T>(
    source: &SourceArgs,
    read_only: bool,
    work: impl AsyncFnOnce(&Vfs) -> Result<T, VfsError>,
) -> CommandResult<T> {
    let factors = obtain_factors(&source.bucket, &source.unlock, &source.state)?;
    let state_dir = source.state.directory()?;
    runtime::block_on(async {
        let bucket = source.bucket.open()?;
        let mut options = OpenOptions {
            state_dir: Some(state_dir),
            key_slot: source.unlock.key_slot,
            trust: source.trust.options(),
            ..OpenOptions::default()
        };
        options.vfs.read_only = read_only;
        options.vfs.clean.is_automatic = false;
        let segment_room_bytes = options.vfs.segment_room_bytes;
        budget::apply(&mut options, Some(source.memory.unwrap_or(MEMORY_BYTES)), None, None)?;
        // Nobody writes here, so that there is memory for segments of full size.
        options.vfs.segment_room_bytes = segment_room_bytes;
        let opened =
            volume::open(bucket, &factors, options).await.map_err(|e| explain::volume(&e, &factors))?;
        let result = work(&opened.vfs).await;
        let result = result.map_err(|e| CommandError::new(explain::vfs_exit(&e), sentence(&e)));
        let closed = opened.close().await.map_err(|e| explain::volume(&e, &factors));
        let value = result?;
        closed?;
        Ok(value)
    })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_mount_that_only_reads_is_known_by_its_state() {
        let of = |state: &str| only_reads(&json!({ "volume": { "state": state } }));
        assert!(of("read-only") && of("outdated"));
        assert!(!of("writable") && !of("ending") && !of("fenced") && !only_reads(&json!({})));
    }
}
