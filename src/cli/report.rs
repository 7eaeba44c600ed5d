//! What a mount says of itself, as a person reads it: is everything safe, and what is going on?

use std::fmt::Write as _;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::explain;
use super::ls::printable;
use super::units::{show_count, show_duration, show_size};
use crate::base::{Clock, SystemClock};
use crate::vfs::Amount;

/// What a mount says of itself. What an older or newer process does not say is left at its default.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Report {
    /// The mount.
    pub mount: Mount,
    /// Its volume.
    pub volume: Volume,
    store: Store,
    cost: Option<Cost>,
    memory: Memory,
    /// How long it takes to send what is left, in seconds.
    time_left: Option<f64>,
    /// Mounts whose changes are kept on this machine.
    to_recover: u64,
    /// Why keys may be swapped out; `None` if they are locked in memory.
    keys_unlocked: Option<String>,
    error: Option<String>,
}

/// Which mount it is.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Mount {
    /// Where.
    pub mountpoint: String,
    url: String,
    pid: u32,
    uptime: f64,
}

/// What is queued, committed, stored and kept in memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Volume {
    /// Everything that was written is in the bucket.
    pub is_safe: bool,
    state: String,
    dirty_bytes: u64,
    dirty_records: u64,
    dirty_age: Option<f64>,
    queue: Queue,
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
struct Queue {
    waiting_bytes: u64,
    committing_bytes: u64,
    sending_bytes: u64,
    sending_segments: u64,
    median_age: Option<f64>,
    ages: Vec<Age>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Age {
    below: Option<u64>,
    bytes: u64,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Cost {
    requests_usd: f64,
    egress_usd: f64,
    prices: String,
    prices_of: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Memory {
    used: u64,
    allowed: u64,
    resident: Option<u64>,
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
    puts: u64,
    gets: u64,
    heads: u64,
    lists: u64,
    deletes: u64,
    put_bytes: u64,
    get_bytes: u64,
    send_rate: u64,
    errors: u64,
    outage: Option<String>,
    outage_age: Option<f64>,
    last_error: Option<String>,
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
            _ => ", and the store does not answer",
        });
        format!("{}: {what}{}", self.mount.mountpoint, outage.unwrap_or_default())
    }
}

/// Whether everything is safe, and what is not, in one line.
#[must_use]
pub fn first_line(reports: &[Report]) -> String {
    let worries: Vec<String> =
        reports.iter().filter(|report| !report.volume.is_safe).map(Report::worry).collect();
    match (reports, worries.as_slice()) {
        ([], _) => "No volume is mounted.".to_owned(),
        (_, []) => "Safe: everything written is in the bucket.".to_owned(),
        (_, worries) => format!("Not safe yet. {}", worries.join("; ")),
    }
}

/// The same with what is being done about it, for a log.
#[must_use]
pub fn log_line(reports: &[Report]) -> String {
    let mut text = first_line(reports);
    for sending in reports.iter().filter_map(sending) {
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
            for (name, value) in lines(report) {
                let _ = writeln!(text, "  {name:<10} {value}");
            }
        }
    }
    text
}

fn span(secs: f64) -> String {
    show_duration(Duration::try_from_secs_f64(secs.max(0.0)).unwrap_or_default())
}

fn lines(report: &Report) -> Vec<(&'static str, String)> {
    let Report { mount, volume, store, .. } = report;
    let mut lines =
        vec![("mount", format!("{}, for {}, process {}", volume.state, span(mount.uptime), mount.pid))];
    if let (Some(kind), Some(age)) = (&store.outage, store.outage_age) {
        let words = store.last_error.as_deref().unwrap_or("no details");
        lines.push(("outage", format!("{kind} for {}: {words}", span(age))));
    }
    lines.push(("queued", queued(volume)));
    lines.extend(ages(&volume.queue).map(|text| ("ages", text)));
    lines.extend(sending(report).map(|text| ("sending", text)));
    lines.push(("committed", committed(volume)));
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
    lines.push(("cached", cached(volume)));
    lines.extend(memory(&report.memory).map(|text| ("memory", text)));
    if let Some(why) = &report.keys_unlocked {
        lines.push(("keys", format!("not locked in memory, they may be swapped out: {why}")));
    }
    lines.extend(volume.rescue.iter().flat_map(rescued).map(|text| ("unsent", text)));
    if report.to_recover > 0 {
        let mounts = show_count(report.to_recover, "mount", "mounts");
        lines.push(("recover", format!("changes of {mounts} are kept here; {}", explain::TAKEN_OVER)));
    }
    lines.extend(cleaning(volume).map(|text| ("cleaning", text)));
    lines.push(("store", requests(store)));
    lines.extend(report.cost.as_ref().map(|cost| ("cost", price(cost))));
    lines
}

fn queued(volume: &Volume) -> String {
    let changes = show_count(volume.dirty_records, "change", "changes");
    let mut text = format!("{}, {changes}", show_size(volume.dirty_bytes));
    if let Some(age) = volume.dirty_age {
        let _ = write!(text, ", the oldest for {}", span(age));
    }
    if volume.is_committing && volume.queue.committing_bytes > 0 {
        let (now, next) = (volume.queue.committing_bytes, volume.queue.waiting_bytes);
        let _ = write!(text, "; {} are being committed, {} wait", show_size(now), show_size(next));
    } else if volume.is_committing {
        text.push_str(", being committed");
    }
    text
}

/// How long what is queued has waited, where that is more than a moment.
fn ages(queue: &Queue) -> Option<String> {
    let is_told = queue.ages.iter().skip(1).any(|class| class.bytes > 0);
    let mut parts = Vec::new();
    let mut from = None;
    for class in &queue.ages {
        let bytes = show_size(class.bytes);
        let whole =
            |secs: u64| show_duration(Duration::from_secs(secs)).replace(" 0 s", "").replace(" 0 min", "");
        if class.bytes > 0 {
            parts.push(match (class.below, from) {
                (Some(below), _) => format!("{bytes} for less than {}", whole(below)),
                (None, Some(from)) => format!("{bytes} for {} or more", whole(from)),
                (None, None) => bytes,
            });
        }
        from = class.below;
    }
    let half =
        queue.median_age.map_or(String::new(), |age| format!("; half of it for {} or more", span(age)));
    is_told.then(|| parts.join(", ") + &half)
}

/// What is on its way, how fast that is, and how long all of it will take.
fn sending(report: &Report) -> Option<String> {
    let (queue, rate) = (&report.volume.queue, report.store.send_rate);
    if queue.sending_segments == 0 {
        return None;
    }
    let segments = show_count(queue.sending_segments, "segment", "segments");
    let mut text = format!("{segments} of {}", show_size(queue.sending_bytes));
    if rate > 0 && report.store.outage.is_none() {
        let _ = write!(text, " at {}/s", show_size(rate));
    }
    if let Some(left) = report.time_left {
        let _ = write!(text, ", about {} left for all", span(left));
    }
    Some(text)
}

fn cached(volume: &Volume) -> String {
    let reads = volume.cache_hits + volume.cache_misses;
    let hits = (volume.cache_hits * 100).checked_div(reads);
    let hits = hits.map_or(String::new(), |hits| format!(", answers {hits} % of reads"));
    format!("{} of {}{hits}", show_size(volume.cache_bytes), show_size(volume.cache_bytes_max))
}

fn memory(memory: &Memory) -> Option<String> {
    let resident =
        memory.resident.map_or(String::new(), |bytes| format!("; the process takes {}", show_size(bytes)));
    let text = || format!("{} of {} allowed{resident}", show_size(memory.used), show_size(memory.allowed));
    (memory.allowed > 0).then(text)
}

fn requests(store: &Store) -> String {
    let kinds = [
        (store.puts, "PUT"),
        (store.gets, "GET"),
        (store.heads, "HEAD"),
        (store.lists, "LIST"),
        (store.deletes, "DELETE"),
    ];
    let kinds: Vec<String> = kinds
        .into_iter()
        .filter(|(count, _)| *count > 0)
        .map(|(count, name)| show_count(count, name, name))
        .collect();
    let kinds = if kinds.is_empty() { String::new() } else { format!(" ({})", kinds.join(", ")) };
    format!(
        "{}{kinds}, {} sent, {} received, {}",
        show_count(store.requests, "request", "requests"),
        show_size(store.put_bytes),
        show_size(store.get_bytes),
        show_count(store.errors, "failure", "failures")
    )
}

fn price(cost: &Cost) -> String {
    let Cost { requests_usd, egress_usd, prices, prices_of } = cost;
    format!(
        "about ${requests_usd:.2} for requests, and ${egress_usd:.2} if what was received has left the provider's \
         network ({prices}, list prices of {prices_of})"
    )
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

fn committed(volume: &Volume) -> String {
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

    #[test]
    fn the_queue_is_told_by_age_and_by_what_is_being_done_about_it() {
        let busy = report(
            json!({
                "dirty_bytes": 3072, "dirty_records": 2, "dirty_age": 700.0, "is_committing": true,
                "queue": {
                    "waiting_bytes": 1024, "committing_bytes": 2048, "sending_bytes": 2048, "sending_segments": 1,
                    "median_age": 650.0,
                    "ages": [{ "below": 5, "bytes": 1024 }, { "below": 600, "bytes": 0 }, { "below": null, "bytes": 2048 }],
                },
            }),
            json!({ "send_rate": 512, "puts": 1200, "requests": 1201, "lists": 1 }),
        );
        let busy = Report { time_left: Some(6.0), ..busy };
        let text = show(&[busy]);
        for line in [
            "  queued     3.0 KiB, 2 changes, the oldest for 11 min 40 s; 2.0 KiB are being committed, 1.0 KiB wait\n",
            "  ages       1.0 KiB for less than 5.0 s, 2.0 KiB for 10 min or more; half of it for 10 min 50 s or more\n",
            "  sending    1 segment of 2.0 KiB at 512 B/s, about 6.0 s left for all\n",
            "  store      1,201 requests (1,200 PUT, 1 LIST), 0 B sent, 0 B received, 0 failures\n",
        ] {
            assert!(text.contains(line), "{line}\n{text}");
        }
        assert!(!text.contains("cost"), "{text}");
        assert_eq!(ages(&Queue::default()), None);
    }

    #[test]
    fn a_price_says_that_it_is_about_and_of_when() {
        let cost =
            json!({ "requests_usd": 0.019, "egress_usd": 0.27, "prices": "S3", "prices_of": "2026-11" });
        let report = Report::of(&json!({ "cost": cost }));
        let text = report.cost.as_ref().map(price);
        let want = "about $0.02 for requests, and $0.27 if what was received has left the provider's network (S3, list \
             prices of 2026-11)";
        assert_eq!(text.as_deref(), Some(want));
    }
}
