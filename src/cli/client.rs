//! What `status`, `sync` and `umount` share: finding running mounts and talking to them.

use std::path::PathBuf;

use serde_json::Value;

use super::error::CommandResult;
use super::progress::Progress;
use super::{explain, runtime};
use crate::control::{self, Client, ControlError, MountEntry, Request, Step};
use crate::store::OutageKind;

/// The mounts at `points` or around them, or all of this user's if none is given.
///
/// # Errors
/// When no volume is mounted at one of them.
pub fn mounts(points: &[PathBuf]) -> CommandResult<Vec<MountEntry>> {
    if points.is_empty() {
        let mut entries = control::mounts().map_err(|e| explain::control(&e))?;
        entries.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        return Ok(entries);
    }
    points.iter().map(|point| control::find(point).map_err(|e| explain::control(&e))).collect()
}

/// As [`mounts`], with those whose process has died: they are still listed, and nobody serves them.
///
/// # Errors
/// As [`mounts`], but not for those.
pub fn mounts_and_dead(points: &[PathBuf]) -> CommandResult<(Vec<MountEntry>, Vec<ControlError>)> {
    if points.is_empty() {
        let (mut running, mut dead) = control::look().map_err(|e| explain::control(&e))?;
        running.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        dead.sort_by(|a, b| a.mountpoint.cmp(&b.mountpoint));
        return Ok((running, dead.into_iter().map(ControlError::died).collect()));
    }
    let (mut running, mut dead) = (Vec::new(), Vec::new());
    for point in points {
        match control::find(point) {
            Ok(entry) => running.push(entry),
            Err(error @ ControlError::Died { .. }) => dead.push(error),
            Err(error) => return Err(explain::control(&error)),
        }
    }
    Ok((running, dead))
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
    let work = Progress::start(entry.mountpoint.display().to_string());
    runtime::if_interrupted(Some(left(request, None)));
    let answer = client.request(request, |progress| {
        runtime::if_interrupted(Some(left(request, Some(progress.step))));
        work.note(words(&progress));
        match progress.step {
            Step::Cleaning => work.set_bytes(progress.cleaned_bytes),
            _ => work.set_left(progress.dirty_bytes),
        }
    });
    let answer = answer.await;
    runtime::if_interrupted(None);
    match (&answer, request) {
        // What it has done follows as a report.
        (Ok(_), Request::Clean { .. }) => work.complete(),
        (Ok(_), _) => {
            work.set_left(0);
            work.finish();
        }
        (Err(_), _) => work.finish(),
    }
    answer.map_err(|e| explain::control(&e))
}

/// What becomes of a request that nobody waits for any more.
const fn left(request: &Request, step: Option<Step>) -> &'static str {
    match (request, step) {
        (Request::Unmount { .. }, Some(Step::Closing)) => "it is unmounted, and goes on saving",
        (Request::Unmount { .. }, Some(Step::Unmounting)) => "`coffer status` tells whether it is mounted",
        (Request::Unmount { .. }, _) => "it stays mounted, and goes on saving",
        (Request::Clean { dry_run: false }, _) => "what has been cleaned stays so",
        (Request::Quota { .. }, _) => "`coffer quota` tells whether it is set",
        (Request::Sync, _) => "the mount goes on saving",
        _ => "nothing was changed",
    }
}

/// What a mount is doing, or waits for.
fn words(progress: &control::Progress) -> &'static str {
    match progress.step {
        Step::Cleaning => "cleaning",
        Step::Unmounting => "unmounting",
        Step::Syncing | Step::Closing if progress.is_paused => "uploads are paused",
        Step::Syncing | Step::Closing if let Some(outage) = progress.outage => match outage {
            OutageKind::Full => "waiting, because the store is full",
            OutageKind::Denied => "waiting, because the store refuses the credentials",
            OutageKind::Unavailable => "waiting, because the store does not answer",
        },
        Step::Syncing if progress.dirty_bytes > 0 => "saving",
        Step::Syncing => "committing",
        Step::Closing => "closing the volume",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_is_told_why() {
        let said = |line: &str| words(&serde_json::from_str(line).unwrap());
        assert_eq!(said(r#"{"step":"syncing","dirty_bytes":5}"#), "saving");
        assert_eq!(
            said(r#"{"step":"syncing","dirty_bytes":5,"is_paused":true,"outage":"full"}"#),
            "uploads are paused"
        );
        assert_eq!(
            said(r#"{"step":"syncing","dirty_bytes":5,"outage":"full"}"#),
            "waiting, because the store is full"
        );
        let away = r#"{"step":"closing","dirty_bytes":0,"outage":"of a kind that comes later"}"#;
        assert_eq!(said(away), "waiting, because the store does not answer");
        assert_eq!(said(r#"{"step":"unmounting","dirty_bytes":0,"outage":"denied"}"#), "unmounting");
    }
}
