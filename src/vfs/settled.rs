//! Whether one file's changes are in the bucket.

use crate::base::Ino;

use super::state::State;
use super::{Vfs, VfsError};

/// How far the changes to one file, or to one directory's own attributes, have come.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FileState {
    /// Some wait for the next commit, though contents of theirs may be on their way.
    Dirty,
    /// All that are not in the bucket are in the commit under way.
    Queued,
    /// All are in the bucket.
    Stored,
    /// A write could not be stored; the next `fsync` says why.
    Lost,
}

impl FileState {
    /// Its name, as programs are told it.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Dirty => "dirty",
            Self::Queued => "queued",
            Self::Stored => "stored",
            Self::Lost => "lost",
        }
    }
}

impl Vfs {
    /// How far the changes to `ino` have come.
    ///
    /// # Errors
    /// [`VfsError::NoEntry`] if there is no such inode.
    pub async fn file_state(&self, ino: Ino) -> Result<FileState, VfsError> {
        self.read_txn(|txn| {
            txn.inode(ino)?;
            Ok(txn.state().file_state(ino))
        })
        .await
    }
}

impl State {
    fn file_state(&self, ino: Ino) -> FileState {
        if self.lost.contains_key(&ino) {
            return FileState::Lost;
        }
        match self.group_of(ino) {
            Some(group) if group == self.group => FileState::Dirty,
            // What only tidies up holds nothing that was not in the bucket before.
            Some(_) if !self.is_tidying => FileState::Queued,
            Some(_) | None => FileState::Stored,
        }
    }
}
