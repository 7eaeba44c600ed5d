//! Folding: old `C` records, a thousand at a time, become one `H` record from which each of their
//! hashes is computed again. (`docs/FORMAT.md`, "Commits")

use std::ops::Range;
use std::sync::Arc;

use crate::meta::chain::{self, HISTORY_COMMITS};
use crate::meta::{Commit, History, Key, MetaError, Record};

use super::{Vfs, VfsError};

impl Vfs {
    /// Folds the oldest commits, if there are so many that those of the last thousand stay as they
    /// are. The records change with the next commit. Says whether it did.
    ///
    /// A thousand in which one is missing or does not follow stays as it is. An admin must have accepted that, or
    /// nothing more is folded.
    pub(super) async fn fold_history(&self) -> Result<bool, VfsError> {
        let newest = self.state.lock().superblock.commit;
        let mut from = 0;
        loop {
            let (oldest, _) = self.scan(Key::Commit(from), Key::Commit(u64::MAX), 1).await?;
            let Some((Key::Commit(number), _)) = oldest.first() else { return Ok(false) };
            let first = chain::first_of(*number);
            let end = first.saturating_add(HISTORY_COMMITS);
            if end.saturating_add(HISTORY_COMMITS) > newest {
                return Ok(false);
            }
            if let Some(history) = self.folded(first, end).await? {
                self.replace_by(history, first..end)?;
                return Ok(true);
            }
            if self.options.accepted.is_none_or(|(accepted, _)| first > accepted) {
                let why = "the chain of old commits is broken";
                return Err(MetaError::Inconsistent { key: Key::Commit(first), why }.into());
            }
            from = end;
        }
    }

    /// The commits `first..end` folded; `None` unless all are there and each follows from the one before.
    async fn folded(&self, first: u64, end: u64) -> Result<Option<History>, VfsError> {
        let commits = self.commits(first, end).await?;
        if commits.len() as u64 != HISTORY_COMMITS {
            return Ok(None);
        }
        let before = self.hash_before(first).await?;
        Ok(before.and_then(|before| chain::fold(self.ring(), before, first, &commits)))
    }

    fn replace_by(&self, history: History, commits: Range<u64>) -> Result<(), VfsError> {
        let mut state = self.state.lock();
        state.check_writable()?;
        state.overlay.put(Key::History(commits.start), Some(Record::History(Arc::new(history))));
        for number in commits {
            state.overlay.put(Key::Commit(number), None);
        }
        self.note_change(&mut state);
        Ok(())
    }

    async fn commits(&self, first: u64, end: u64) -> Result<Vec<Arc<Commit>>, VfsError> {
        let (rows, _) = self.scan(Key::Commit(first), Key::Commit(end), HISTORY_COMMITS as usize).await?;
        let commits = rows.into_iter().filter_map(|(_, record)| match record {
            Record::Commit(commit) => Some(commit),
            _ => None,
        });
        Ok(commits.collect())
    }

    /// The hash of the commit before `first`: of its own record, where it could not be folded.
    async fn hash_before(&self, first: u64) -> Result<Option<[u8; 32]>, VfsError> {
        if first == 1 {
            return Ok(Some(chain::GENESIS));
        }
        let earlier = first.saturating_sub(HISTORY_COMMITS);
        let keys = [Key::Commit(first - 1), Key::History(earlier)];
        let [own, folded] = self
            .read_txn(|txn| {
                txn.want(&keys)?;
                Ok([txn.get(keys[0])?, txn.get(keys[1])?])
            })
            .await?;
        Ok(match (own, folded) {
            (Some(Record::Commit(commit)), _) => Some(commit.hash),
            (_, Some(Record::History(history))) => chain::hash_in(self.ring(), &history, earlier, first - 1),
            _ => None,
        })
    }
}
