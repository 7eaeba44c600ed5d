//! Finds a log that is missing before newer ones: SlateDB looks for the end of its logs by whether the next is there, would
//! begin its own in the gap, and take what follows for another writer's.

use std::collections::BTreeSet;
use std::time::Duration;

use futures::{FutureExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    Error as RawError, ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload, Result as RawResult,
};

use super::error::find;
use super::logs_read::{number, path};
use super::{Access, DATABASE, Engine, EngineError};
use crate::vault::VaultError;

/// Between attempts at a bucket that does not answer. Whoever waits sets the end.
const PAUSE: Duration = Duration::from_millis(200);

impl Engine {
    /// Makes sure that no log is missing between the tables that this reader sees and the newest log: a reader ends at the
    /// first gap, and a writer begins in it. One listing, and a look at each log that it lacks.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] with the first log that is missing, or the bucket does not answer in time.
    pub async fn logs_are_whole(&self) -> Result<(), EngineError> {
        match self.first_missing_log().await? {
            None => Ok(()),
            Some(missing) => Err(told(&missing)),
        }
    }

    /// The first log, by the engine's name, that is missing between the tables that this reader sees and the newest log;
    /// none for a writer. What is in it and in the logs after it is not among the records. May go to a newer view, as
    /// [`Engine::refresh`] does.
    ///
    /// # Errors
    /// The bucket does not answer in time.
    pub async fn missing_log(&self) -> Result<Option<String>, EngineError> {
        Ok(self.first_missing_log().await?.map(Into::into))
    }

    /// Puts an empty log in place of each that is missing there, so that those after it are read. What was in it is
    /// lost then, also if the bucket has but withheld it. Gives how many that were.
    ///
    /// # Errors
    /// [`EngineError::Damaged`] if the bucket has the log by now, or the bucket does not answer in time.
    pub async fn give_up_missing_logs(&self) -> Result<u64, EngineError> {
        let mut count = 0;
        while let Some(missing) = self.first_missing_log().await? {
            let how = PutOptions::from(PutMode::Create);
            match self.0.store.put_opts(&missing, PutPayload::new(), how).await {
                Ok(_) => {
                    tracing::warn!("{missing} is missing, and given up");
                    count += 1;
                }
                Err(RawError::AlreadyExists { .. }) => return Err(told(&missing)),
                Err(error) => return Err(EngineError::from_store(error)),
            }
        }
        Ok(count)
    }

    async fn first_missing_log(&self) -> Result<Option<Path>, EngineError> {
        let Access::Read(follower) = &self.0.access else {
            // Its own logs are in a row from its fence on.
            return Ok(None);
        };
        let looking = async {
            let mut seen_after = None;
            loop {
                let after = follower.db().manifest().replay_after_wal_id();
                let missing = first_missing(self.0.store.as_ref(), after).await;
                let missing = missing.map_err(EngineError::from_store)?;
                // A table may have come since this reader looked, and what is in it been collected.
                if missing.is_none() || seen_after == Some(after) {
                    return Ok(missing);
                }
                seen_after = Some(after);
                self.refresh().await?;
            }
        };
        // Boxed, so that those who look do not carry its state on their stacks.
        self.limited(looking.boxed()).await?
    }
}

fn told(missing: &Path) -> EngineError {
    EngineError::Damaged(VaultError::Missing(missing.to_string()).to_string())
}

/// The first log after number `after` that is not there although a later one is. A listing may be late: what it
/// lacks is asked for by name.
///
/// Does not return before the bucket has answered.
///
/// # Errors
/// What no other attempt would change.
async fn first_missing(store: &dyn ObjectStore, after: u64) -> RawResult<Option<Path>> {
    loop {
        match look(store, after).await {
            Err(error) if find(&error, |e: &VaultError| e.is_final().then_some(())).is_none() => {
                tracing::debug!(%error, "the logs cannot be listed yet");
                tokio::time::sleep(PAUSE).await;
            }
            seen => return seen,
        }
    }
}

async fn look(store: &dyn ObjectStore, after: u64) -> RawResult<Option<Path>> {
    let logs = store.list(Some(&Path::from(DATABASE).join("wal")));
    let numbers = logs.try_filter_map(|log| futures::future::ready(Ok(number(&log.location))));
    let listed: BTreeSet<u64> = numbers.try_collect().await?;
    let mut next = after.saturating_add(1);
    for number in listed.range(next..) {
        for missing in next..*number {
            let path = path(missing);
            match store.head(&path).await {
                Ok(_) => {}
                Err(RawError::NotFound { .. }) => return Ok(Some(path)),
                Err(error) => return Err(error),
            }
        }
        next = number.saturating_add(1);
    }
    Ok(None)
}

#[cfg(test)]
mod tests {
    use object_store::memory::InMemory;

    use super::*;

    async fn with_logs(numbers: &[u64]) -> InMemory {
        let store = InMemory::new();
        for number in numbers {
            let path = Path::from(format!("{DATABASE}/wal/{number:020}.sst"));
            store.put(&path, Vec::new().into()).await.unwrap();
        }
        store
    }

    #[tokio::test]
    async fn only_what_is_missing_between_the_last_table_and_the_newest_log_is_told() {
        for (numbers, after, missing) in [
            (&[][..], 0, None),
            (&[1, 2, 3], 0, None),
            (&[3, 4], 2, None),
            (&[1, 3, 4], 2, None),
            (&[1, 3, 5], 5, None),
            (&[2, 3], 0, Some(1)),
            (&[1, 2, 4, 6], 0, Some(3)),
            (&[1, 2, 4, 6], 3, Some(5)),
        ] {
            let found = first_missing(&with_logs(numbers).await, after).await.unwrap();
            assert_eq!(found.as_ref().and_then(number), missing, "{numbers:?} after {after}");
        }
    }
}
