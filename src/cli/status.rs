//! `coffer status`: is everything safe, and what is going on?

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{ask, mounts};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::ls::printable;
use super::units::{show_count, show_duration, show_size};
use super::{explain, runtime};
use crate::base::{Clock, SystemClock};
use crate::control::{MountEntry, Request};
use crate::vfs::Amount;

/// Shown at the end of `coffer status --help`.
pub const EXAMPLES: &str = "\
The first line says whether everything written so far is in the bucket, and so does the exit code: 0 if it is, 23 if it is \
not yet, 24 if no volume is mounted. Without DIR, all of your mounts are shown.

Examples:
  coffer status
  coffer status ~/vault && echo 'safe to unplug'
  coffer status --json | jq .mounts[].volume.dirty_bytes";

/// How long a mount may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);

/// Arguments of `coffer status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Mount points
    #[arg(value_name = "DIR")]
    pub points: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Shows.
///
/// # Errors
/// When no volume is mounted there; silently, with its exit code, when something is not safe yet.
pub fn run(args: &StatusArgs) -> CommandResult {
    let entries = mounts(&args.points)?;
    let answers = runtime::block_on(async {
        let ask = async |entry: &MountEntry| match timeout(PATIENCE, ask(entry, &Request::Status)).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(error)) => no_answer(entry, &error.to_string()),
            Err(_) => no_answer(entry, "it does not answer"),
        };
        Ok(futures::future::join_all(entries.iter().map(ask)).await)
    })?;
    let reports: Vec<Report> = answers.iter().map(Report::of).collect();
    let is_safe = reports.iter().all(|report| report.volume.is_safe);
    let text = if args.json {
        format!("{:#}\n", json!({ "is_safe": is_safe && !reports.is_empty(), "mounts": answers }))
    } else {
        show(&reports)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))?;
    match (reports.is_empty(), is_safe) {
        (true, _) => Err(CommandError::silent(Exit::NotMounted)),
        (false, true) => Ok(()),
        (false, false) => Err(CommandError::silent(Exit::NotSafeYet)),
    }
}

fn no_answer(entry: &MountEntry, why: &str) -> Value {
    let mountpoint = entry.mountpoint.to_string_lossy();
    json!({ "mount": { "mountpoint": mountpoint, "url": entry.url, "pid": entry.pid }, "error": why })
}

/// What a mount says of itself. What an older or newer process does not say is left at its default.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Report {
    mount: Mount,
    volume: Volume,
    store: Store,
    /// Mounts whose changes are kept on this machine.
    to_recover: u64,
    /// Why keys may be swapped out; `None` if they are locked in memory.
    keys_unlocked: Option<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Mount {
    mountpoint: String,
    url: String,
    pid: u32,
    uptime: f64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Volume {
    is_safe: bool,
    state: String,
    dirty_bytes: u64,
    dirty_records: u64,
    dirty_age: Option<f64>,
    is_committing: bool,
    commit: u64,
    committed_at: Option<f64>,
    newest_age: Option<f64>,
    is_stale: bool,
    files: u64,
    stored_bytes: u64,
    quota_bytes: u64,
    cache_bytes: u64,
    cache_bytes_max: u64,
    cache_hits: u64,
    cache_misses: u64,
    lost_files: u64,
    waiting: Amount,
    dead_bytes: Option<u64>,
    cleaned: Cleaned,
    rescue: Option<Rescue>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Rescue {
    is_saved: bool,
    files: u64,
    bytes: u64,
    changes: u64,
    paths: Vec<String>,
    error: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cleaned {
    rewritten_count: u64,
    deleted_count: u64,
    damaged: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Store {
    requests: u64,
    put_bytes: u64,
    get_bytes: u64,
    errors: u64,
    outage: Option<String>,
    outage_age: Option<f64>,
    last_error: Option<String>,
}

impl Report {
    fn of(answer: &Value) -> Self {
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
            _ => ", and the store does not answer",
        });
        format!("{}: {what}{}", self.mount.mountpoint, outage.unwrap_or_default())
    }
}

fn show(reports: &[Report]) -> String {
    let worries: Vec<String> =
        reports.iter().filter(|report| !report.volume.is_safe).map(Report::worry).collect();
    let mut text = match (reports, worries.as_slice()) {
        ([], _) => return "No volume is mounted.\n".to_owned(),
        (_, []) => "Safe: everything written is in the bucket.\n".to_owned(),
        (_, worries) => format!("Not safe yet. {}\n", worries.join("; ")),
    };
    for report in reports {
        let _ = writeln!(text, "\n{}  {}", report.mount.mountpoint, report.mount.url);
        if report.error.is_none() {
            for (name, value) in lines(report) {
                let _ = writeln!(text, "  {name:<10} {value}");
            }
        }
    }
    text
}

fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let Report { mount, volume, store, .. } = report;
    let span = |secs: f64| show_duration(Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default());
    let mut lines =
        vec![("mount", format!("{}, for {}, process {}", volume.state, span(mount.uptime), mount.pid))];
    if let (Some(kind), Some(age)) = (&store.outage, store.outage_age) {
        let words = store.last_error.as_deref().unwrap_or("no details");
        lines.push(("outage", format!("{kind} for {}: {words}", span(age))));
    }
    let mut queued = format!(
        "{}, {}",
        show_size(volume.dirty_bytes),
        show_count(volume.dirty_records, "change", "changes")
    );
    if let Some(age) = volume.dirty_age {
        let _ = write!(queued, ", the oldest for {}", span(age));
    }
    if volume.is_committing {
        queued.push_str(", being committed");
    }
    lines.push(("queued", queued));
    lines.push(("committed", committed(volume, &span)));
    if volume.is_stale {
        let age = span(volume.newest_age.unwrap_or_default());
        lines.push(("stale", format!("no commit is newer than {age}; the store may withhold newer ones")));
    }
    let quota = match volume.quota_bytes {
        0 => String::new(),
        quota => format!(" of {}", show_size(quota)),
    };
    let files = show_count(volume.files, "file", "files");
    lines.push(("stored", format!("{}{quota} in {files}", show_size(volume.stored_bytes))));
    let reads = volume.cache_hits + volume.cache_misses;
    let hits =
        (volume.cache_hits * 100).checked_div(reads).map(|hits| format!(", answers {hits} % of reads"));
    lines.push((
        "cached",
        format!(
            "{} of {}{}",
            show_size(volume.cache_bytes),
            show_size(volume.cache_bytes_max),
            hits.unwrap_or_default()
        ),
    ));
    if let Some(why) = &report.keys_unlocked {
        lines.push(("keys", format!("not locked in memory, they may be swapped out: {why}")));
    }
    lines.extend(volume.rescue.iter().flat_map(rescued).map(|text| ("unsent", text)));
    if report.to_recover > 0 {
        let mounts = show_count(report.to_recover, "mount", "mounts");
        lines.push(("recover", format!("changes of {mounts} are kept here; {}", explain::TAKEN_OVER)));
    }
    lines.extend(cleaning(volume).map(|text| ("cleaning", text)));
    lines.push((
        "store",
        format!(
            "{}, {} sent, {} received, {}",
            show_count(store.requests, "request", "requests"),
            show_size(store.put_bytes),
            show_size(store.get_bytes),
            show_count(store.errors, "failure", "failures")
        ),
    ));
    lines
}

/// What this mount had not sent when another one took over, and what became of it.
fn rescued(rescue: &Rescue) -> Vec<String> {
    let files = show_count(rescue.files, "file", "files");
    let changes = show_count(rescue.changes, "other change", "other changes");
    let what = format!("{files}, {}, {changes}", show_size(rescue.bytes));
    let mut lines = match &rescue.error {
        Some(error) => vec![format!("{what}: could not be kept: {error}")],
        None if rescue.is_saved => vec![format!("{what}: kept on this machine")],
        None => vec!["nothing".to_owned()],
    };
    lines.extend(rescue.paths.iter().map(|path| printable(path.as_bytes())));
    lines
}

/// What could be given back, and what was; nothing if there is nothing to tell.
fn cleaning(volume: &Volume) -> Option<String> {
    let segments = |count| show_count(count, "segment", "segments");
    let mut parts = Vec::new();
    if let Some(dead) = volume.dead_bytes.filter(|dead| *dead > 0) {
        parts.push(format!("{} not in use", show_size(dead)));
    }
    if volume.waiting.count > 0 {
        parts.push(format!("{} to be deleted", segments(volume.waiting.count)));
    }
    if volume.cleaned.rewritten_count > 0 {
        parts.push(format!("{} rewritten", segments(volume.cleaned.rewritten_count)));
    }
    if volume.cleaned.deleted_count > 0 {
        parts.push(format!("{} deleted", segments(volume.cleaned.deleted_count)));
    }
    if !volume.cleaned.damaged.is_empty() {
        parts.push(format!("{} damaged and left alone", segments(volume.cleaned.damaged.len() as u64)));
    }
    (!parts.is_empty()).then(|| parts.join(", "))
}

fn committed(volume: &Volume, span: &dyn Fn(f64) -> String) -> String {
    let now = SystemClock::default().now();
    match volume.committed_at {
        Some(at) => format!(
            "{} ago, commit {}",
            span(now.secs as f64 + f64::from(now.nanos) / 1e9 - at),
            volume.commit
        ),
        None => format!("before this mount, commit {}", volume.commit),
    }
}

/// For the fuzz targets: shows what a mount says of itself.
#[cfg(fuzzing)]
#[doc(hidden)]
pub fn fuzz_status(answer: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(answer) {
        let _ = show(&[Report::of(&answer)]);
    }
}

#[cfg(test)]
mod tests {
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
        let fenced = report(json!({ "state": "fenced" }), json!({}));
        assert_eq!(first(&[fenced]), "Not safe yet. /m: another mount took the volume over");
        let silent = Report::of(&json!({ "mount": { "mountpoint": "/m" }, "error": "it does not answer" }));
        assert_eq!(first(&[silent]), "Not safe yet. /m: nothing is known of it: it does not answer");
    }

    #[test]
    fn what_waits_and_what_was_cleaned_is_told_where_there_is_any() {
        let volume = |value: Value| report(value, json!({})).volume;
        assert_eq!(cleaning(&volume(json!({}))), None);
        let busy = volume(json!({
            "waiting": { "count": 3, "bytes": 9 }, "dead_bytes": 2048,
            "cleaned": { "rewritten_count": 1, "damaged": ["x"] },
        }));
        let want = "2.0 KiB not in use, 3 segments to be deleted, 1 segment rewritten, 1 segment damaged and left alone";
        assert_eq!(cleaning(&busy).as_deref(), Some(want));
    }

    #[test]
    fn an_answer_that_makes_no_sense_is_never_safe() {
        assert!(!Report::of(&json!({ "volume": { "is_safe": "yes" } })).volume.is_safe);
        assert!(!Report::of(&json!([])).volume.is_safe);
        assert!(!Report::of(&json!({})).volume.is_safe);
    }
}
