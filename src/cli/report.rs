//! What a mount says of itself, as a person reads it: is everything safe, and what is going on?

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::limit::Limited;
use super::report_lines;
use super::units::{show_count, show_duration, show_size};
use crate::vfs::Amount;

/// What a mount says of itself. What an older or newer process does not say is left at its default.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The mount.
    pub mount: Mount,
    /// Its volume.
    pub volume: Volume,
    pub(super) store: Store,
    pub(super) cost: Option<Cost>,
    pub(super) memory: Memory,
    pub(super) limits: Limited,
    /// How long it takes to send what is left, in seconds.
    pub(super) time_left: Option<f64>,
    /// Mounts whose changes are kept on this machine.
    pub(super) to_recover: u64,
    /// Why keys may be swapped out; `None` if they are locked in memory.
    pub(super) keys_unlocked: Option<String>,
    pub(super) log: Option<String>,
    pub(super) error: Option<String>,
}

/// Which mount it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where.
    pub mountpoint: String,
    pub(super) url: String,
    pub(super) pid: u32,
    pub(super) uptime: f64,
}

/// What is queued, committed, stored and kept in memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Everything that was written is in the bucket.
    pub is_safe: bool,
    pub(super) state: String,
    pub(super) dirty_bytes: u64,
    pub(super) dirty_records: u64,
    pub(super) dirty_age: Option<f64>,
    pub(super) queue: Queue,
    pub(super) is_committing: bool,
    pub(super) commit: u64,
    pub(super) committed_at: Option<f64>,
    pub(super) newest_age: Option<f64>,
    pub(super) is_stale: bool,
    pub(super) files: u64,
    pub(super) stored_bytes: u64,
    pub(super) quota_bytes: u64,
    pub(super) cache_bytes: u64,
    pub(super) cache_bytes_max: u64,
    pub(super) cache_hits: u64,
    pub(super) cache_misses: u64,
    pub(super) lost_files: u64,
    pub(super) damage: Damage,
    pub(super) unnoted: Option<String>,
    pub(super) waiting: Amount,
    pub(super) dead_bytes: Option<u64>,
    pub(super) cleaned: Cleaned,
    pub(super) rescue: Option<Rescue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Damage {
    pub(super) count: u64,
    pub(super) more: u64,
    pub(super) objects: Vec<Damaged>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Damaged {
    pub(super) object: String,
    pub(super) what: String,
    pub(super) file: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Queue {
    pub(super) waiting_bytes: u64,
    pub(super) committing_bytes: u64,
    pub(super) sending_bytes: u64,
    pub(super) sending_segments: u64,
    pub(super) median_age: Option<f64>,
    pub(super) ages: Vec<Age>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Age {
    pub(super) below: Option<u64>,
    pub(super) bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cost {
    pub(super) requests_usd: f64,
    pub(super) egress_usd: f64,
    pub(super) prices: String,
    pub(super) prices_of: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Memory {
    pub(super) used: u64,
    pub(super) allowed: u64,
    pub(super) resident: Option<u64>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Rescue {
    pub(super) is_saved: bool,
    pub(super) files: u64,
    pub(super) bytes: u64,
    pub(super) changes: u64,
    pub(super) paths: Vec<String>,
    pub(super) error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Cleaned {
    pub(super) rewritten_count: u64,
    pub(super) deleted_count: u64,
    pub(super) damaged: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub(super) struct Store {
    pub(super) requests: u64,
    pub(super) puts: u64,
    pub(super) gets: u64,
    pub(super) heads: u64,
    pub(super) lists: u64,
    pub(super) deletes: u64,
    pub(super) put_bytes: u64,
    pub(super) get_bytes: u64,
    pub(super) send_rate: u64,
    pub(super) errors: u64,
    pub(super) outage: Option<String>,
    pub(super) outage_age: Option<f64>,
    pub(super) last_error: Option<String>,
}

impl Report {
    /// Reads what a mount has answered.
    #[must_use]
    pub fn of(answer: &Value) -> Self {
        Self::deserialize(answer).unwrap_or_else(|error| Self {
            error: Some(format!("its answer cannot be understood: {error}")),
            ..Self::default()
        })
    }

    /// Why this mount is not safe, in one clause.
    fn worry(&self) -> String {
        let volume = &self.volume;
        let what = match (&self.error, volume.state.as_str()) {
            (Some(error), _) => format!("nothing is known of it: {error}"),
            (None, "fenced") => "another mount took the volume over".to_owned(),
            _ if volume.lost_files > 0 => {
                format!("writes to {} could not be stored", show_count(volume.lost_files, "file", "files"))
            }
            _ if volume.dirty_bytes > 0 => format!("{} not in the bucket", show_size(volume.dirty_bytes)),
            _ if volume.dirty_records > 0 => {
                format!("{} not in the bucket", show_count(volume.dirty_records, "change", "changes"))
            }
            _ => "a commit is under way".to_owned(),
        };
        let outage = self.store.outage.as_deref().map(|kind| match kind {
            "denied" => ", and the store refuses the credentials",
            "full" => ", and the store is full",
            _ => ", and the store does not answer",
        });
        let paused = if self.limits.is_paused { ", and uploads are paused" } else { "" };
        format!("{}: {what}{paused}{}", self.mount.mountpoint, outage.unwrap_or_default())
    }
}

/// What else is wrong with a mount, in one clause: what it has met of damage, or that it shows nothing any more.
fn trouble(report: &Report) -> Option<String> {
    if report.volume.state == "outdated" {
        let point = &report.mount.mountpoint;
        return Some(format!(
            "{point}: the volume's key was rotated, and nothing can be read there; mount it again"
        ));
    }
    let Damage { count, more, .. } = report.volume.damage;
    let or_more = if more > 0 { " or more" } else { "" };
    let objects = if count == 1 { "object is" } else { "objects are" };
    let point = &report.mount.mountpoint;
    (count > 0).then(|| format!("{point}: {count}{or_more} {objects} damaged in the bucket"))
}

/// Whether everything is safe, and what is not, in one line; then what else is wrong, which is another matter.
#[must_use]
pub fn first_line(reports: &[Report]) -> String {
    let worries: Vec<String> =
        reports.iter().filter(|report| !report.volume.is_safe).map(Report::worry).collect();
    let first = match (reports, worries.as_slice()) {
        ([], _) => "No volume is mounted.".to_owned(),
        (_, []) => "Safe: everything written is in the bucket.".to_owned(),
        (_, worries) => format!("Not safe yet. {}", worries.join("; ")),
    };
    match reports.iter().filter_map(trouble).collect::<Vec<_>>().join("; ") {
        trouble if trouble.is_empty() => first,
        trouble if worries.is_empty() => format!("{first} {trouble}."),
        trouble => format!("{first}. {trouble}."),
    }
}

/// The same with what is being done about it, for a log.
#[must_use]
pub fn log_line(reports: &[Report]) -> String {
    let mut text = first_line(reports);
    for sending in reports.iter().filter_map(report_lines::sending) {
        let _ = write!(text, "; sending {sending}");
    }
    text
}

/// All of it, as text for a person.
#[must_use]
pub fn show(reports: &[Report]) -> String {
    let mut text = first_line(reports) + "\n";
    for report in reports {
        let _ = writeln!(text, "\n{}  {}", report.mount.mountpoint, report.mount.url);
        if report.error.is_none() {
            for (name, value) in report_lines::lines(report) {
                let _ = writeln!(text, "  {name:<10} {value}");
            }
        }
    }
    text
}

/// A span of seconds, as people read it.
pub(super) fn span(secs: f64) -> String {
    show_duration(Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn report(volume: Value, store: Value) -> Report {
        Report::of(
            &json!({ "mount": { "mountpoint": "/m", "url": "s3://b/p" }, "volume": volume, "store": store }),
        )
    }

    #[test]
    fn the_first_line_answers_whether_everything_is_safe() {
        let first = |reports: &[Report]| show(reports).lines().next().unwrap_or_default().to_owned();
        let safe = || report(json!({ "is_safe": true }), json!({}));
        assert_eq!(first(&[]), "No volume is mounted.");
        assert_eq!(first(&[safe()]), "Safe: everything written is in the bucket.");
        let dirty =
            report(json!({ "dirty_bytes": 2048, "dirty_records": 9 }), json!({ "outage": "unreachable" }));
        let want = "Not safe yet. /m: 2.0 KiB not in the bucket, and the store does not answer";
        assert_eq!(first(&[safe(), dirty]), want);
        let outdated = report(json!({ "state": "outdated", "is_safe": true }), json!({}));
        assert!(
            first(&[outdated])
                .ends_with("the volume's key was rotated, and nothing can be read there; mount it again.")
        );
        let fenced = report(json!({ "state": "fenced" }), json!({}));
        assert_eq!(first(&[fenced]), "Not safe yet. /m: another mount took the volume over");
        let damaged = |volume: Value| report(volume, json!({}));
        let two = damaged(json!({ "is_safe": true, "damage": { "count": 2 } }));
        let want = "Safe: everything written is in the bucket. /m: 2 objects are damaged in the bucket.";
        assert_eq!(first(&[safe(), two]), want);
        let one = damaged(json!({ "dirty_bytes": 2048, "damage": { "count": 1 } }));
        let want = "Not safe yet. /m: 2.0 KiB not in the bucket. /m: 1 object is damaged in the bucket.";
        assert_eq!(first(&[one]), want);
        let silent = Report::of(&json!({ "mount": { "mountpoint": "/m" }, "error": "it does not answer" }));
        assert_eq!(first(&[silent]), "Not safe yet. /m: nothing is known of it: it does not answer");
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_never_safe() {
        assert!(!Report::of(&json!({ "volume": { "is_safe": "yes" } })).volume.is_safe);
        assert!(!Report::of(&json!([])).volume.is_safe);
        assert!(!Report::of(&json!({})).volume.is_safe);
    }
}
