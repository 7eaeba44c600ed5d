//! What is said over the socket: one line of JSON asks, lines of progress may follow, one line ends it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

use crate::store::{OutageKind, Timetable};

/// Longest line that a mount reads.
pub(super) const REQUEST_BYTES_MAX: u64 = 64 * 1024;
/// Longest line that a command reads.
pub(super) const REPLY_BYTES_MAX: u64 = 1024 * 1024;

/// What a mount can be asked.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// Is everything safe, and what goes on.
    Status,
    /// Return when everything written so far is in the bucket.
    Sync,
    /// Clean segments and delete what is due.
    Clean {
        /// Only tell what would be done.
        #[serde(default)]
        dry_run: bool,
    },
    /// Set what the volume may hold.
    Quota {
        /// In plaintext bytes; 0 for no limit.
        bytes: u64,
    },
    /// Set limits to what goes to and from the bucket, and tell what they are.
    Limit {
        /// Of what is sent; as it is if none.
        #[serde(default)]
        upload: Option<Timetable>,
        /// Of what is received; as it is if none.
        #[serde(default)]
        download: Option<Timetable>,
    },
    /// Send nothing.
    Pause {
        /// For so many seconds; until `Resume` if none.
        #[serde(default)]
        secs: Option<f64>,
    },
    /// Send again.
    Resume,
    /// As `Sync`, then unmount, then end.
    Unmount {
        /// Unmount even while files are open: the mount ends when the last is closed.
        #[serde(default)]
        detach: bool,
    },
}

/// One line of an answer.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Reply {
    /// Still at it.
    Progress(Progress),
    /// The last line: it is done, and this came of it.
    Done(Value),
    /// The last line: it was not done.
    Failed(Failure),
}

/// How far a request has come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Progress {
    /// What is being done.
    pub step: Step,
    /// File contents that are not in the bucket yet.
    pub dirty_bytes: u64,
    /// Nothing is sent, because somebody wants that.
    #[serde(default)]
    pub is_paused: bool,
    /// Bytes of segments that were read and written to clean, in this mount.
    #[serde(default)]
    pub cleaned_bytes: u64,
    /// Why the bucket takes nothing at present.
    #[serde(default)]
    pub outage: Option<OutageKind>,
}

/// A step of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Step {
    /// Writing what has not been written.
    Syncing,
    /// Cleaning segments.
    Cleaning,
    /// Taking the mount off the tree.
    Unmounting,
    /// Committing the last changes and closing the volume.
    Closing,
}

/// Why a request was not done.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Failure {
    /// What kind of reason.
    pub kind: FailureKind,
    /// One sentence for a person.
    pub message: String,
}

/// Kinds of failures that a command treats differently.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FailureKind {
    /// Files are open there; nothing was unmounted.
    Busy,
    /// Something could not be written to the bucket.
    NotSaved,
    /// Everything is in the bucket but writes that could not be stored.
    Lost,
    /// Everything is in the bucket, and this machine could not note that.
    Unnoted,
    /// Another mount has taken the volume over.
    TakenOver,
    /// Cleaning failed.
    NotCleaned,
    /// It is unmounted here, and another mount namespace still has it.
    Elsewhere,
    /// Unmounting failed for another reason.
    NotUnmounted,
    /// The request was not understood.
    BadRequest,
    /// A kind that a newer version knows.
    #[serde(other)]
    Other,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_short_lines_that_a_person_can_type() {
        let read = |text: &str| serde_json::from_str::<Request>(text);
        assert_eq!(read(r#"{"op":"status"}"#).unwrap(), Request::Status);
        assert_eq!(read(r#"{"op":"sync"}"#).unwrap(), Request::Sync);
        assert_eq!(read(r#"{"op":"clean"}"#).unwrap(), Request::Clean { dry_run: false });
        assert_eq!(read(r#"{"op":"quota","bytes":5}"#).unwrap(), Request::Quota { bytes: 5 });
        assert_eq!(read(r#"{"op":"unmount"}"#).unwrap(), Request::Unmount { detach: false });
        assert_eq!(read(r#"{"op":"unmount","detach":true}"#).unwrap(), Request::Unmount { detach: true });
        for wrong in [
            "",
            "{}",
            r#"{"op":"format"}"#,
            r#"{"op":"quota"}"#,
            r#"{"op":"unmount","force":true}"#,
            "[1",
            "null",
        ] {
            assert!(read(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_kind_of_failure_not_known_yet_is_still_a_failure() {
        let reply: Reply =
            serde_json::from_str(r#"{"failed":{"kind":"moon_phase","message":"no"}}"#).unwrap();
        assert_eq!(reply, Reply::Failed(Failure { kind: FailureKind::Other, message: "no".into() }));
    }
}
