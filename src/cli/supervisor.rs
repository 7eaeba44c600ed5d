//! Tells systemd how a mount in the foreground is: ready, ending, and how much is left to save (sd_notify(3)).

use std::time::Duration;

use sd_notify::NotifyState;

/// What is left of the time to stop is made as long as this each time something is said while ending.
const PATIENCE: Duration = Duration::from_secs(90);

/// Says that files can be used now.
pub fn ready(status: &str) {
    tell(&[NotifyState::Ready, NotifyState::Status(status)]);
}

/// Says that it is ending and what it is at, and asks not to be killed over it.
pub fn ending(status: &str) {
    let patience = u32::try_from(PATIENCE.as_micros()).unwrap_or(u32::MAX);
    tell(&[NotifyState::Stopping, NotifyState::Status(status), NotifyState::ExtendTimeoutUsec(patience)]);
}

/// Without systemd, `NOTIFY_SOCKET` is not set and nobody is told.
fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        tracing::warn!(%error, "the service manager cannot be told");
    }
}
