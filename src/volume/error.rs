//! Why a volume could not be made or opened.

use crate::base::{Time, VolumeId};
use crate::keys::{Fingerprint, KeyError};
use crate::meta::MetaError;
use crate::meta::engine::EngineError;
use crate::store::StoreError;
use crate::vault::VaultError;
use crate::vfs::VfsError;

/// Why a volume could not be made or opened.
#[derive(Debug, thiserror::Error)]
pub enum VolumeError {
    /// The bucket holds no header.
    #[error("there is no Coffer volume at {url}")]
    NoVolume {
        /// Where.
        url: String,
    },
    /// The bucket holds no header, and did when this machine last looked.
    #[error("there is no header at {url}, where volume {volume} was seen by this machine")]
    HeaderGone {
        /// Where.
        url: String,
        /// The volume seen there.
        volume: VolumeId,
    },
    /// The bucket holds contents of a volume, and no header.
    #[error("there is no header at {url}, but there are contents of a volume")]
    Headless {
        /// Where.
        url: String,
    },
    /// The bucket holds a volume already.
    #[error("there is a Coffer volume at {url} already")]
    Exists {
        /// Where.
        url: String,
    },
    /// Someone else has it mounted.
    #[error("the volume is mounted by process {pid} of user {uid} on {host} since {since} UTC")]
    InUse {
        /// The machine.
        host: String,
        /// The user's id.
        uid: u32,
        /// The process; 0 if it is only known that there is one.
        pid: u32,
        /// Since when, as a date and a time.
        since: String,
    },
    /// Another process of this machine is about to mount it, or to unmount it.
    #[error("the volume is being mounted or unmounted by another process of this machine")]
    Locked,
    /// The bucket offers an older state than this machine has seen.
    #[error(
        "the bucket offers commit {found} of volume {volume}, but commit {expected} was seen before: it has been rolled back"
    )]
    Rollback {
        /// The volume.
        volume: VolumeId,
        /// The last commit seen here.
        expected: u64,
        /// The commit offered.
        found: u64,
    },
    /// The bucket offers another history than this machine has seen.
    #[error(
        "commit {number} of volume {volume} is {found}, but {expected} was seen here before: its history has been exchanged"
    )]
    Fork {
        /// The volume.
        volume: VolumeId,
        /// The commit that differs.
        number: u64,
        /// The first half of its hash as it was seen.
        expected: String,
        /// The first half of its hash as the bucket has it, or that there is none.
        found: String,
    },
    /// A commit does not follow from the one before it.
    #[error(
        "commit {number} of volume {volume} does not follow from the one before it: the bucket offers a mixture of \
         histories"
    )]
    Woven {
        /// The volume.
        volume: VolumeId,
        /// The first such commit.
        number: u64,
    },
    /// A log that an admin has given up is there again, and counts.
    #[error(
        "log {number} of the records of volume {volume}, which an admin has given up, is in the bucket again: it offers a \
         mixture of histories"
    )]
    LogIsBack {
        /// The volume.
        volume: VolumeId,
        /// The engine's number of it.
        number: u64,
    },
    /// The newest commit is older than it may be.
    #[error(
        "the newest commit ({commit}) of volume {volume} was made at {made} UTC, {age_secs} s ago; \
         it may be {allowed_secs} s old: newer ones may be withheld"
    )]
    Stale {
        /// The volume.
        volume: VolumeId,
        /// The commit.
        commit: u64,
        /// When it was made, as a date and a time.
        made: String,
        /// How long ago that is.
        age_secs: u64,
        /// How old it may be.
        allowed_secs: u64,
    },
    /// The bucket offers an older header than this machine has seen.
    #[error(
        "the header of volume {volume} has revision {found}, but revision {expected} was seen before: \
         it has been rolled back, and keys that were removed may open the volume again"
    )]
    HeaderRolledBack {
        /// The volume.
        volume: VolumeId,
        /// The newest revision seen here.
        expected: u64,
        /// The revision offered.
        found: u64,
    },
    /// A passphrase is stretched less than any was.
    #[error(
        "a passphrase of volume {volume} is stretched at a cost of {found} (scrypt's N·r·p), but {expected} was \
         the least before: guessing it has become cheaper"
    )]
    WeakerKeys {
        /// The volume.
        volume: VolumeId,
        /// The least cost that was seen here.
        expected: u64,
        /// The least cost offered.
        found: u64,
    },
    /// The header has other keys than those that were seen.
    #[error(
        "the {what} of volume {volume} is {found}, but {expected} was seen before: it has been exchanged"
    )]
    KeySubstituted {
        /// The volume.
        volume: VolumeId,
        /// Which key.
        what: &'static str,
        /// The first half of what was seen here.
        expected: String,
        /// The first half of what is offered.
        found: String,
    },
    /// Another volume is where one was known to be.
    #[error("at {url} is volume {found}, but volume {expected} was seen there before: it has been exchanged")]
    OtherVolume {
        /// Where.
        url: String,
        /// The volume seen there.
        expected: VolumeId,
        /// The volume that is there now.
        found: VolumeId,
    },
    /// The volume is not the one whose fingerprint was given.
    #[error("the volume's fingerprint is `{found}`, and not `{expected}`")]
    Unexpected {
        /// The fingerprint given.
        expected: Fingerprint,
        /// The volume's.
        found: Fingerprint,
    },
    /// A commit is not the one that was given.
    #[error("commit {number} of volume {volume} is {found}, and not {expected}")]
    UnexpectedCommit {
        /// The volume.
        volume: VolumeId,
        /// The commit's number.
        number: u64,
        /// What was given of its hash.
        expected: String,
        /// As much of its hash as the bucket has it, or that there is none.
        found: String,
    },
    /// The volume needs a feature that this program does not have.
    #[error("the volume uses features of a newer Coffer (bits {0:#x})")]
    NewerFeatures(u64),
    /// The state folder cannot be used.
    #[error("the state folder {path} cannot be used: {source}")]
    State {
        /// Where.
        path: std::path::PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// This machine knows the volume, and its note of what was last seen is gone.
    #[error("this machine knows volume {volume}, but its note of what it has seen of it, {path}, is gone")]
    PinLost {
        /// Where it should be.
        path: std::path::PathBuf,
        /// The volume.
        volume: VolumeId,
    },
    /// The note of what was last seen is of another volume or another machine.
    #[error("the note of what was seen, {path}, is of {found}, and not of {expected}")]
    PinForeign {
        /// Where it is.
        path: std::path::PathBuf,
        /// Whose it should be.
        expected: String,
        /// Whose it is.
        found: String,
    },
    /// The note of what was last seen is not what was written.
    #[error("the note of what was seen, {path}, has been altered: {what}")]
    PinAltered {
        /// Where it is.
        path: std::path::PathBuf,
        /// What is wrong with it.
        what: String,
    },
    /// A file of unsent changes.
    #[error("the unsent changes in {path} are damaged or of another volume: {what}")]
    BadUnsent {
        /// Where.
        path: std::path::PathBuf,
        /// How it shows.
        what: String,
    },
    /// The header or a key.
    #[error(transparent)]
    Key(#[from] KeyError),
    /// The bucket.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// A sealed object.
    #[error(transparent)]
    Vault(#[from] VaultError),
    /// A record.
    #[error(transparent)]
    Meta(#[from] MetaError),
    /// The filesystem.
    #[error(transparent)]
    Vfs(#[from] VfsError),
}

impl From<EngineError> for VolumeError {
    fn from(error: EngineError) -> Self {
        Self::Meta(error.into())
    }
}

/// A time as `YYYY-MM-DD hh:mm:ss`, in UTC. (Days to civil date after Hinnant, "chrono-compatible
/// low-level date algorithms".)
#[must_use]
pub fn utc(time: Time) -> String {
    let (days, seconds) = (time.secs.div_euclid(86_400), time.secs.rem_euclid(86_400));
    let z = days + 719_468;
    let era = z.div_euclid(146_097);
    let day_of_era = z.rem_euclid(146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted + 2) / 5 + 1;
    let month = if shifted < 10 { shifted + 3 } else { shifted - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    let (hour, minute, second) = (seconds / 3600, seconds / 60 % 60, seconds % 60);
    format!("{year:04}-{month:02}-{day:02} {hour:02}:{minute:02}:{second:02}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_shown_as_dates() {
        assert_eq!(utc(Time { secs: 0, nanos: 0 }), "1970-01-01 00:00:00");
        assert_eq!(utc(Time { secs: 951_782_400, nanos: 0 }), "2000-02-29 00:00:00");
        assert_eq!(utc(Time { secs: -1, nanos: 0 }), "1969-12-31 23:59:59");
        assert_eq!(utc(Time { secs: 1_700_000_000, nanos: 0 }), "2023-11-14 22:13:20");
    }
}
