//! Folding: old `C` records, a thousand at a time, become one `H` record from which each of their
//! hashes is computed again. (`docs/FORMAT.md`, "Commits")

use std::sync::Arc;

use crate::meta::chain::{self, HISTORY_COMMITS};
use crate::meta::{Commit, Key, MetaError, Record};

use super::{Vfs, VfsError};

impl Vfs {
    /// Folds the oldest commits, if there are so many that those of the last thousand stay as they
    /// are. The records change with the next commit. Says whether it did.
    pub(super) async fn fold_history(&self) -> Result<bool, VfsError> {
        let newest = self.state.lock().superblock.commit;
        let (oldest, _) = self.scan(Key::Commit(0), Key::Commit(u64::MAX), 1).await?;
        let Some((Key::Commit(first), _)) = oldest.first() else { return Ok(false) };
        let first = *first;
        let end = first.saturating_add(HISTORY_COMMITS);
        if first != chain::first_of(first) || end.saturating_add(HISTORY_COMMITS) > newest {
            return Ok(false);
        }
        let commits = self.commits(first, end).await?;
        let before = match first {
            1 => Some(chain::GENESIS),
            _ => self.last_hash_before(first).await?,
        };
        let folded = before.and_then(|before| chain::fold(self.ring(), before, first, &commits));
        let Some(history) = folded.filter(|_| commits.len() as u64 == HISTORY_COMMITS) else {
            let why = "the chain of old commits is broken";
            return Err(MetaError::Inconsistent { key: Key::Commit(first), why }.into());
        };
        let mut state = self.state.lock();
        state.check_writable()?;
        state.overlay.put(Key::History(first), Some(Record::History(Arc::new(history))));
        for number in first..end {
            state.overlay.put(Key::Commit(number), None);
        }
        self.note_change(&mut state);
        Ok(true)
    }

    async fn commits(&self, first: u64, end: u64) -> Result<Vec<Arc<Commit>>, VfsError> {
        let (rows, _) = self.scan(Key::Commit(first), Key::Commit(end), HISTORY_COMMITS as usize).await?;
        let commits = rows.into_iter().filter_map(|(_, record)| match record {
            Record::Commit(commit) => Some(commit),
            _ => None,
        });
        Ok(commits.collect())
    }

    async fn last_hash_before(&self, first: u64) -> Result<Option<[u8; 32]>, VfsError> {
        let earlier = first.saturating_sub(HISTORY_COMMITS);
        let record = self.read_txn(|txn| txn.get(Key::History(earlier))).await?;
        Ok(match record {
            Some(Record::History(history)) => chain::hash_in(self.ring(), &history, earlier, first - 1),
            _ => None,
        })
    }
}
