//! The lines of `coffer status` below its first: what is queued, sent, stored, kept and paid.

use std::fmt::Write as _;
use std::time::Duration;

use super::explain;
use super::ls::printable;
use super::report::{Cost, Damage, Memory, Queue, Report, Rescue, Store, Volume, span};
use super::units::{show_count, show_duration, show_size};
use crate::base::{Clock, SystemClock};

/// Damaged objects that are shown by name.
const DAMAGED_SHOWN: usize = 5;

/// Each with its name.
pub(super) fn lines(report: &Report) -> Vec<(&'static str, String)> {
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
    if report.limits.is_paused || report.limits.upload.is_some() || report.limits.download.is_some() {
        lines.extend(report.limits.words().into_iter().map(|text| ("limits", text)));
    }
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
    lines.extend(damage(&volume.damage).map(|text| ("damaged", text)));
    if let Some(why) = &volume.unnoted {
        let what = "the newest commit could not be noted on this machine, so that an older state would not be noticed";
        lines.push(("not noted", format!("{what}: {}", printable(why.as_bytes()))));
    }
    lines.extend(cleaning(volume).map(|text| ("cleaning", text)));
    lines.push(("store", requests(store)));
    lines.extend(report.cost.as_ref().map(|cost| ("cost", price(cost))));
    lines.extend(report.log.clone().map(|place| ("log", place)));
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
pub(super) fn sending(report: &Report) -> Option<String> {
    let (queue, rate) = (&report.volume.queue, report.store.send_rate);
    if queue.sending_segments == 0 {
        return None;
    }
    let segments = show_count(queue.sending_segments, "segment", "segments");
    let mut text = format!("{segments} of {}", show_size(queue.sending_bytes));
    let goes = !report.limits.is_paused;
    if goes && rate > 0 && report.store.outage.is_none() {
        let _ = write!(text, " at {}/s", show_size(rate));
    }
    if let Some(left) = report.time_left.filter(|_| goes) {
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

/// Objects that are not what was written, as many as fit on a page.
fn damage(damage: &Damage) -> impl Iterator<Item = String> {
    let told = damage.objects.iter().take(DAMAGED_SHOWN).map(|met| {
        let file = met.file.map_or_else(String::new, |ino| format!(" (inode {ino})"));
        format!("{}: {}{file}", printable(met.object.as_bytes()), met.what)
    });
    let left = damage.count.saturating_sub(DAMAGED_SHOWN as u64);
    let more = (left > 0)
        .then(|| format!("and {} more; `coffer check` finds all", show_count(left, "object", "objects")));
    told.chain(more)
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
    use serde_json::{Value, json};

    use super::super::report::show;
    use super::*;

    fn report(volume: Value, store: Value) -> Report {
        Report::of(
            &json!({ "mount": { "mountpoint": "/m", "url": "s3://b/p" }, "volume": volume, "store": store }),
        )
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
    fn damaged_objects_are_told_by_name_and_many_by_their_number() {
        let objects = |count: u64| {
            let objects: Vec<Value> =
                (0..count).map(|n| json!({ "object": format!("d/{n}"), "what": "w", "file": n })).collect();
            report(json!({ "damage": { "count": count, "objects": objects } }), json!({})).volume.damage
        };
        let told = |count| damage(&objects(count)).collect::<Vec<_>>();
        assert!(told(0).is_empty());
        assert_eq!(told(2), ["d/0: w (inode 0)", "d/1: w (inode 1)"]);
        assert_eq!(told(9).len(), DAMAGED_SHOWN + 1);
        assert_eq!(told(9)[DAMAGED_SHOWN], "and 4 objects more; `coffer check` finds all");
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
        let sending_of = |limits: Value| {
            let report = json!({
                "volume": { "queue": { "sending_bytes": 2048, "sending_segments": 1 } }, "store": { "send_rate": 512 },
                "time_left": 6.0, "limits": limits,
            });
            sending(&Report::of(&report))
        };
        let paused = sending_of(json!({ "is_paused": true }));
        assert_eq!(paused.as_deref(), Some("1 segment of 2.0 KiB"), "nobody knows when it goes on");
        assert!(sending_of(json!({ "is_paused": false })).is_some_and(|text| text.contains("6.0 s left")));
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
