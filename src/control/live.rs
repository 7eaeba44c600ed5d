//! A mounted volume as the control socket sees it.

use std::sync::{Arc, OnceLock};
use std::time::Instant;

use async_trait::async_trait;
use futures::FutureExt;
use futures::future::{BoxFuture, Shared};
use serde_json::{Map, Value, json};
use tokio::task::JoinError;

use super::protocol::{Failure, FailureKind};
use super::server::limits_status;
use super::{MountEntry, Subject};
use crate::fuse::{MountError, Mounted, Unmount};
use crate::store::{Limits, OutageKind};
use crate::vfs::{Vfs, VfsError};

/// A volume, its mount, and what is known of both.
pub struct Live {
    vfs: Arc<Vfs>,
    mounted: Mounted,
    entry: MountEntry,
    limits: Limits,
    started: Instant,
    more: Box<dyn Fn() -> Map<String, Value> + Send + Sync>,
    finished: OnceLock<Shared<BoxFuture<'static, Result<(), Failure>>>>,
}

impl Live {
    /// `more` gives what the `vfs` does not know, such as the state of the bucket: its keys are added to the status.
    pub fn new(
        vfs: Arc<Vfs>,
        mounted: Mounted,
        entry: MountEntry,
        limits: Limits,
        more: impl Fn() -> Map<String, Value> + Send + Sync + 'static,
    ) -> Self {
        let finished = OnceLock::new();
        Self { vfs, mounted, entry, limits, started: Instant::now(), more: Box::new(more), finished }
    }
}

#[async_trait]
impl Subject for Live {
    fn status(&self) -> Value {
        let mut status = json!({
            "mount": {
                "mountpoint": self.entry.mountpoint.to_string_lossy(),
                "url": self.entry.url,
                "volume": self.entry.volume,
                "pid": self.entry.pid,
                "since": self.entry.since,
                "uptime": self.started.elapsed().as_secs_f64(),
            },
            "volume": self.vfs.status(),
            "limits": limits_status(&self.limits),
        });
        if let Some(status) = status.as_object_mut() {
            status.extend((self.more)());
            // The rate is that of the last half minute, which says nothing of when it goes on.
            if self.limits.snapshot().paused.is_some() {
                status.insert("time_left".to_owned(), Value::Null);
            }
        }
        status
    }

    fn dirty_bytes(&self) -> u64 {
        self.vfs.dirty_bytes()
    }

    fn outage(&self) -> Option<OutageKind> {
        self.vfs.outage()
    }

    fn limits(&self) -> &Limits {
        &self.limits
    }

    fn cleaned_bytes(&self) -> u64 {
        self.vfs.cleaned_bytes()
    }

    async fn sync(&self) -> Result<(), Failure> {
        // The kernel may hold pages that programs wrote through memory maps; those are written data too.
        let flushed = self.mounted.flush_pages().await.map_err(|error| {
            let kind = match error {
                MountError::LostPages { .. } => FailureKind::Lost,
                _ => FailureKind::NotSaved,
            };
            Failure { kind, message: in_full(&error) }
        });
        if let Err(failure) = &flushed
            && failure.kind != FailureKind::Lost
        {
            return flushed;
        }
        let synced = self.vfs.sync_all().await;
        if matches!(synced, Ok(()) | Err(VfsError::LostWrites { .. })) {
            self.mounted.let_go().await;
        }
        synced.map_err(not_saved).and(flushed)
    }

    async fn clean(&self, dry_run: bool) -> Result<Value, Failure> {
        let failed = |message: String| Failure { kind: FailureKind::NotCleaned, message };
        let answer = if dry_run {
            serde_json::to_value(self.vfs.reclaimable().await.map_err(|error| failed(error.to_string()))?)
        } else {
            let done = self.vfs.reclaim().await.map_err(|error| failed(error.to_string()))?;
            self.vfs.tidy_records().await.map_err(|error| failed(error.to_string()))?;
            serde_json::to_value(done)
        };
        answer.map_err(|error| failed(error.to_string()))
    }

    async fn set_quota(&self, bytes: u64) -> Result<Value, Failure> {
        self.vfs.set_quota(bytes).await.map_err(not_saved)?;
        Ok(self.status())
    }

    async fn unmount(&self, detach: bool) -> Result<(), Failure> {
        if let Some(rescue) = self.vfs.status().rescue.filter(|rescue| rescue.error.is_some() && !detach) {
            let message = format!(
                "another mount has taken this volume over, and {}; make room for it, or copy it from the mount, which \
                 still shows it; --lazy lets it go",
                rescue.clause()
            );
            return Err(Failure { kind: FailureKind::NotSaved, message });
        }
        let how = if detach { Unmount::Detach } else { Unmount::WhenIdle };
        self.mounted.unmount(how).await.map_err(|error| {
            let kind = match error {
                MountError::Busy(_) => FailureKind::Busy,
                MountError::Elsewhere { .. } | MountError::Lingers(_) => FailureKind::Elsewhere,
                _ => FailureKind::NotUnmounted,
            };
            Failure { kind, message: in_full(&error) }
        })
    }

    /// Whoever asks first may go away: what was begun goes on, and who asks after that is told how it ended.
    async fn finish(&self) -> Result<(), Failure> {
        let begin = || {
            let vfs = Arc::clone(&self.vfs);
            let finishing = tokio::spawn(async move {
                let mut failure = vfs.shutdown().await.map_err(not_saved);
                if let (Err(failure), Some(rescue)) = (&mut failure, vfs.status().rescue) {
                    failure.message = match failure.kind {
                        FailureKind::TakenOver => {
                            format!("another mount has taken this volume over; {}", rescue.clause())
                        }
                        _ => format!("{}; {}", failure.message, rescue.clause()),
                    };
                }
                failure
            });
            let ended = |ended: Result<_, JoinError>| {
                let broken = |error: JoinError| {
                    Err(Failure { kind: FailureKind::NotSaved, message: error.to_string() })
                };
                ended.unwrap_or_else(broken)
            };
            finishing.map(ended).boxed().shared()
        };
        self.finished.get_or_init(begin).clone().await
    }
}

/// An error with the system's reason, where there is one.
fn in_full(error: &MountError) -> String {
    std::error::Error::source(error).map_or_else(|| error.to_string(), |cause| format!("{error}: {cause}"))
}

#[allow(clippy::needless_pass_by_value)] // it is passed to `map_err`
fn not_saved(error: VfsError) -> Failure {
    let kind = match error {
        VfsError::Fenced => FailureKind::TakenOver,
        VfsError::LostWrites { .. } => FailureKind::Lost,
        VfsError::Unnoted(_) => FailureKind::Unnoted,
        _ => FailureKind::NotSaved,
    };
    Failure { kind, message: error.to_string() }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    #[test]
    fn whoever_asked_is_told_the_systems_reason() {
        let source = io::Error::from_raw_os_error(libc::EIO);
        let error = MountError::Io { what: "syncing the mount", path: "/m".into(), source };
        let said = in_full(&error);
        assert!(said.starts_with("syncing the mount failed at /m: Input/output error"), "{said}");
        assert_eq!(in_full(&MountError::Busy("/m".into())), "/m is in use; nothing was unmounted");
    }
}
