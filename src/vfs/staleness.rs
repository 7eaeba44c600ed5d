//! How old the newest commit is that a reader finds: a store that withholds newer ones shows by it.

use std::sync::Arc;
use std::time::Duration;

use crate::base::Time;
use crate::meta::{Key, MetaError, Record, decode};

use super::state::Phase;
use super::{Vfs, VfsError};

/// How often a reader looks, at the least.
const LOOK_MAX: Duration = Duration::from_secs(3600);

impl Vfs {
    /// Starts the task by which a reader notices that nothing new comes any more, if it is asked to.
    pub fn start_watching_age(self: &Arc<Self>) {
        let Some(allowed) = self.options.max_staleness.filter(|_| !self.options.stays) else { return };
        let pause = (allowed / 4).clamp(self.options.poll_interval, LOOK_MAX.max(self.options.poll_interval));
        let this = Arc::downgrade(self);
        tokio::spawn(async move {
            let mut was_stale = false;
            loop {
                let Some(vfs) = this.upgrade() else { return };
                if vfs.state.lock().phase == Phase::ShutDown {
                    return;
                }
                if let Err(error) = vfs.look_at_age().await {
                    tracing::warn!(%error, "whether there is a newer commit cannot be found out");
                }
                let is_stale = vfs.staleness().is_some_and(|(_, is_stale)| is_stale);
                if is_stale && !was_stale {
                    tracing::error!(
                        allowed_secs = allowed.as_secs(),
                        "no commit was found that is new enough; newer ones may be withheld"
                    );
                }
                was_stale = is_stale;
                drop(vfs);
                tokio::time::sleep(pause).await;
            }
        });
    }

    /// Goes to the newest commit and notes when it was made.
    ///
    /// # Errors
    /// The bucket cannot be read, or offers an older commit than before.
    pub async fn look_at_age(&self) -> Result<(), VfsError> {
        self.follow().await?;
        let (number, head) = self.head();
        let key = Key::Commit(number);
        let Some(bytes) = self.engine.get(&key.encode()).await.map_err(MetaError::from)? else {
            return Ok(());
        };
        if let Record::Commit(commit) = decode(&key, &bytes)?
            && commit.hash == head
        {
            self.state.lock().newest_made = Some(commit.time);
        }
        Ok(())
    }

    /// Age of the newest commit in seconds, and whether it is older than allowed; where somebody asked for that.
    pub(super) fn staleness(&self) -> Option<(f64, bool)> {
        let allowed = self.options.max_staleness?;
        let made = self.state.lock().newest_made?;
        let age = seconds(self.clock.now()) - seconds(made);
        Some((age.max(0.0), age > allowed.as_secs_f64()))
    }
}

fn seconds(time: Time) -> f64 {
    time.secs as f64 + f64::from(time.nanos) / 1e9
}
