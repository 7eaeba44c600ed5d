//! Which logs have been read, and whether anything was in them.

use std::collections::BTreeSet;

use object_store::path::Path;
use parking_lot::Mutex;

use super::{DATABASE, Engine};

/// Logs that are remembered, of each kind. The oldest is forgotten first: it is in a table by then.
const LOGS_MAX: usize = 65_536;

/// The logs that were read since the database was opened.
#[derive(Debug, Default)]
pub(super) struct LogsRead {
    full: Mutex<BTreeSet<u64>>,
    empty: Mutex<BTreeSet<u64>>,
}

impl LogsRead {
    /// An object of `size` bytes was asked for, and `read` bytes of it.
    pub(super) fn note(&self, path: &Path, size: u64, read: u64) {
        let Some(number) = number(path) else { return };
        let logs = match (size, read) {
            (0, _) => &self.empty,
            (_, 0) => return,
            _ => &self.full,
        };
        let mut logs = logs.lock();
        logs.insert(number);
        if logs.len() > LOGS_MAX {
            logs.pop_first();
        }
    }
}

/// The log of a number.
pub(super) fn path(number: u64) -> Path {
    Path::from(format!("{DATABASE}/wal/{number:020}.sst"))
}

/// The number of a log.
pub(super) fn number(path: &Path) -> Option<u64> {
    let logs = Path::from(DATABASE).join("wal");
    path.prefix_match(&logs)?.next()?.as_ref().strip_suffix(".sst")?.parse().ok()
}

impl Engine {
    /// The logs that stand empty in place of lost ones ([`Engine::give_up_missing_logs`]), of those that were read since the
    /// database was opened.
    #[must_use]
    pub fn logs_given_up(&self) -> Vec<u64> {
        self.0.logs.empty.lock().iter().copied().collect()
    }

    /// Whether something was read from the log `number` since the database was opened.
    #[must_use]
    pub fn has_read_log(&self, number: u64) -> bool {
        self.0.logs.full.lock().contains(&number)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_log_is_full_when_something_was_read_of_it_and_what_is_no_log_is_passed_over() {
        let logs = LogsRead::default();
        let log = path;
        logs.note(&log(1), 100, 100);
        logs.note(&log(2), 100, 0);
        logs.note(&log(3), 0, 0);
        logs.note(&Path::from(format!("{DATABASE}/compacted/00000000000000000004.sst")), 100, 100);
        logs.note(&Path::from(format!("{DATABASE}/wal/5.txt")), 100, 100);
        assert_eq!((logs.full.lock().clone(), logs.empty.lock().clone()), ([1].into(), [3].into()));
    }
}
