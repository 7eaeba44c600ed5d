//! Each commit is noted on this machine, so that an older state is noticed later. A note that cannot be made is made again
//! and again, and whoever ends the mount is told if it never was.

use std::time::Duration;

use super::options::Committed;
use super::state::Phase;
use super::{Vfs, VfsError};

/// Pause before a note that could not be made is tried again.
const AGAIN: Duration = Duration::from_secs(5);

/// The newest commit, where it could not be noted.
#[derive(Clone, Debug)]
pub(super) struct Unnoted {
    made: Committed,
    why: String,
}

impl Unnoted {
    /// Why it could not be noted.
    pub(super) fn why(&self) -> &str {
        &self.why
    }
}

impl Vfs {
    /// Notes a commit that has been made.
    pub(super) fn note_commit(&self, made: Committed) {
        let Some(note) = &self.options.on_commit else { return };
        let unnoted = note(made).err().map(|why| Unnoted { made, why });
        let mut state = self.state.lock();
        let was_noted = state.unnoted.is_none();
        // Another commit may have been made meanwhile.
        if state.superblock.commit == made.number {
            state.unnoted.clone_from(&unnoted);
        }
        drop(state);
        match unnoted {
            Some(unnoted) if was_noted => {
                tracing::warn!(
                    why = unnoted.why,
                    "the commit could not be noted on this machine; it is tried again"
                );
                self.begin_noting_again();
            }
            None if !was_noted => tracing::info!("commits are noted on this machine again"),
            _ => {}
        }
    }

    /// Tries again until it is done, or the filesystem has ended.
    fn begin_noting_again(&self) {
        let vfs = self.me.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(AGAIN).await;
                let Some(vfs) = vfs.upgrade() else { return };
                if vfs.note_again().is_ok() || vfs.state.lock().phase != Phase::Writable {
                    return;
                }
            }
        });
    }

    /// Tries again what could not be noted.
    ///
    /// # Errors
    /// [`VfsError::Unnoted`] if it still cannot be.
    pub(super) fn note_again(&self) -> Result<(), VfsError> {
        let Some(unnoted) = self.state.lock().unnoted.clone() else { return Ok(()) };
        self.note_commit(unnoted.made);
        match &self.state.lock().unnoted {
            Some(unnoted) => Err(VfsError::Unnoted(unnoted.why.clone())),
            None => Ok(()),
        }
    }
}
