//! Notices objects that the bucket lists and does not give: SlateDB would ask for them without end and without a pause.

use std::collections::HashMap;
use std::time::Duration;

use object_store::path::Path;
use parking_lot::Mutex;

/// How often an object that was listed may be missing: a collector may have been faster.
const MISSES_MAX: u32 = 6;
/// First pause after a miss; each is twice the one before.
const PAUSE: Duration = Duration::from_millis(20);
/// Names that are remembered; far more than the engine ever lists.
const NAMES_MAX: usize = 10_000;

/// What was in listings, and how often each was missing since.
#[derive(Debug, Default)]
pub(super) struct Listed(Mutex<HashMap<Path, u32>>);

impl Listed {
    /// Notes that `path` was in a listing.
    pub(super) fn note(&self, path: &Path) {
        let mut misses = self.0.lock();
        // Of these SlateDB reads the newest that is listed, and lists again if it is not there.
        if matches!(path.extension(), Some("manifest" | "compactions")) && misses.len() < NAMES_MAX {
            misses.entry(path.clone()).or_insert(0);
        }
    }

    /// `path` was read: whatever was missed before is forgotten, and so are older names.
    pub(super) fn is_there(&self, path: &Path) {
        let mut misses = self.0.lock();
        if misses.remove(path).is_some() && misses.values().all(|count| *count == 0) {
            misses.clear();
        }
    }

    /// `path` was not there. Waits a little if it was listed; `true` if that was so too often.
    pub(super) async fn is_withheld(&self, path: &Path) -> bool {
        let count = match self.0.lock().get_mut(path) {
            Some(count) => {
                *count += 1;
                *count
            }
            None => return false,
        };
        if count >= MISSES_MAX {
            return true;
        }
        tokio::time::sleep(PAUSE * (1 << count)).await;
        false
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn what_is_listed_and_missing_is_given_up_and_what_was_never_listed_is_not() {
        let (listed, there, gone) =
            (Listed::default(), Path::from("db/1.manifest"), Path::from("db/2.manifest"));
        [&there, &gone].into_iter().for_each(|path| listed.note(path));
        for _ in 1..MISSES_MAX {
            assert!(!listed.is_withheld(&gone).await);
            listed.note(&gone);
        }
        assert!(listed.is_withheld(&gone).await);
        listed.is_there(&there);
        assert!(listed.is_withheld(&gone).await, "another object changes nothing");
        listed.is_there(&gone);
        // The next manifest is probed for again and again.
        for _ in 0..100 {
            assert!(!listed.is_withheld(&gone).await);
            assert!(!listed.is_withheld(&Path::from("db/3.manifest")).await);
        }
    }
}
