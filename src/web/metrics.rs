//! A mount's figures as Prometheus wants them: names, units, help. (`docs/OPERATING.md`, "Figures for Prometheus")

use super::{Exposition, Kind};
use crate::base::HistogramSnapshot;
use crate::store::{MeterSnapshot, OutageKind, Verb, VerbSnapshot};
use crate::vfs::Status;

/// A mount at one moment.
pub struct Sample {
    /// The filesystem.
    pub status: Status,
    /// How long commits took.
    pub commits: HistogramSnapshot,
    /// How long those waited who asked for durability.
    pub fsyncs: HistogramSnapshot,
    /// The bucket.
    pub meter: MeterSnapshot,
    /// The bucket, verb by verb.
    pub verbs: [VerbSnapshot; Verb::ALL.len()],
    /// Parts of memory: name, bytes used if that is known, bytes allowed.
    pub memory: Vec<(&'static str, Option<u64>, u64)>,
    /// Bytes of memory that the process takes.
    pub resident: Option<u64>,
    /// Requests of the kernel by their kind.
    pub operations: Vec<(&'static str, u64)>,
}

/// The figures of `sample` in the text format of Prometheus.
#[must_use]
pub fn metrics(sample: &Sample) -> String {
    let mut text = Exposition::default();
    text.family("coffer_build_info", Kind::Gauge, "Always 1; the program's version is its label.");
    text.sample("coffer_build_info", &[("version", env!("CARGO_PKG_VERSION"))], 1.0);
    volume(&mut text, sample);
    queue(&mut text, &sample.status);
    cache_and_memory(&mut text, sample);
    store(&mut text, sample);
    text.family("coffer_fuse_operations_total", Kind::Counter, "Requests of the kernel.");
    for (operation, count) in &sample.operations {
        text.sample("coffer_fuse_operations_total", &[("operation", operation)], *count as f64);
    }
    text.into_text()
}

fn volume(text: &mut Exposition, sample: &Sample) {
    let status = &sample.status;
    let safe = f64::from(u8::from(status.is_safe));
    text.single(
        "coffer_safe",
        Kind::Gauge,
        "1 if everything that was written is in the bucket, else 0.",
        safe,
    );
    text.family("coffer_state", Kind::Gauge, "1 for the state that the mount is in, 0 for the others.");
    for state in ["writable", "ending", "read-only", "outdated", "fenced", "shut down"] {
        text.sample("coffer_state", &[("state", state)], f64::from(u8::from(status.state == state)));
    }
    let gauges: [(&str, &str, u64); 6] = [
        ("coffer_files", "Inodes in the volume.", status.files),
        ("coffer_stored_bytes", "Plaintext bytes stored in the volume.", status.stored_bytes),
        ("coffer_quota_bytes", "Plaintext bytes that may be stored, 0 for no limit.", status.quota_bytes),
        ("coffer_lost_files", "Files of which a write could not be stored.", status.lost_files),
        ("coffer_damaged_objects", "Objects met that are damaged or missing.", status.damage.count),
        ("coffer_commit_number", "Number of the last commit.", status.commit),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, value as f64);
    }
    let made = status.committed_at.unwrap_or(0.0);
    let help = "When this mount made its last commit, 0 if it has made none.";
    text.single("coffer_commit_timestamp_seconds", Kind::Gauge, help, made);
    text.family("coffer_commit_duration_seconds", Kind::Histogram, "How long commits took.");
    text.histogram("coffer_commit_duration_seconds", &[], &sample.commits);
    let help = "How long fsync took, and what waits as it does.";
    text.family("coffer_fsync_duration_seconds", Kind::Histogram, help);
    text.histogram("coffer_fsync_duration_seconds", &[], &sample.fsyncs);
    let counters: [(&str, &str, u64); 3] = [
        ("coffer_put_off_total", "How often contents of a file were left to a later commit.", status.put_off),
        (
            "coffer_cleaned_segments_total",
            "Segments rewritten by the cleaner.",
            status.cleaned.rewritten_count,
        ),
        ("coffer_deleted_segments_total", "Segments deleted.", status.cleaned.deleted_count),
    ];
    for (name, help, value) in counters {
        text.single(name, Kind::Counter, help, value as f64);
    }
}

fn queue(text: &mut Exposition, status: &Status) {
    let queue = &status.queue;
    let gauges: [(&str, &str, f64); 4] = [
        ("coffer_dirty_bytes", "Contents that are not in the bucket.", status.dirty_bytes as f64),
        ("coffer_dirty_records", "Changed records of the next commit.", status.dirty_records as f64),
        (
            "coffer_dirty_age_seconds",
            "Age of the oldest change that is not committed, 0 if there is none.",
            status.dirty_age.unwrap_or(0.0),
        ),
        ("coffer_sending_bytes", "Contents on their way in segments.", queue.sending_bytes as f64),
    ];
    for (name, help, value) in gauges {
        text.single(name, Kind::Gauge, help, value);
    }
    let help = "Contents that are not in the bucket, by what they wait for.";
    text.family("coffer_queue_bytes", Kind::Gauge, help);
    for (stage, bytes) in [("waiting", queue.waiting_bytes), ("committing", queue.committing_bytes)] {
        text.sample("coffer_queue_bytes", &[("stage", stage)], bytes as f64);
    }
}

fn cache_and_memory(text: &mut Exposition, sample: &Sample) {
    let status = &sample.status;
    let help = "Reads of blocks that were in memory.";
    text.single("coffer_cache_hits_total", Kind::Counter, help, status.cache_hits as f64);
    let help = "Reads of blocks that were not.";
    text.single("coffer_cache_misses_total", Kind::Counter, help, status.cache_misses as f64);
    text.single("coffer_cache_bytes", Kind::Gauge, "Blocks in memory.", status.cache_bytes as f64);
    text.family("coffer_memory_bytes", Kind::Gauge, "Memory by part of the budget, where it is counted.");
    for (part, used, _) in &sample.memory {
        if let Some(used) = used {
            text.sample("coffer_memory_bytes", &[("part", part)], *used as f64);
        }
    }
    text.family("coffer_memory_limit_bytes", Kind::Gauge, "Memory that each part of the budget may take.");
    for (part, _, allowed) in &sample.memory {
        text.sample("coffer_memory_limit_bytes", &[("part", part)], *allowed as f64);
    }
    if let Some(resident) = sample.resident {
        let help = "Resident memory size in bytes.";
        text.single("process_resident_memory_bytes", Kind::Gauge, help, resident as f64);
    }
}

fn store(text: &mut Exposition, sample: &Sample) {
    let meter = &sample.meter;
    let name = "coffer_store_requests_total";
    let help = "Requests sent to the bucket, repeated ones too; pages of listings; objects deleted.";
    text.family(name, Kind::Counter, help);
    for verb in &sample.verbs {
        text.sample(name, &[("verb", verb.verb.word())], verb.requests as f64);
    }
    let name = "coffer_store_errors_total";
    text.family(name, Kind::Counter, "Those of them that failed or were given up.");
    for verb in &sample.verbs {
        text.sample(name, &[("verb", verb.verb.word())], verb.errors as f64);
    }
    let name = "coffer_store_request_duration_seconds";
    text.family(name, Kind::Histogram, "How long the bucket took to begin its answer.");
    for verb in &sample.verbs {
        text.histogram(name, &[("verb", verb.verb.word())], &verb.latency);
    }
    let help = "Bytes of objects sent, repeated requests too.";
    text.single("coffer_store_sent_bytes_total", Kind::Counter, help, meter.put_bytes as f64);
    let help = "Bytes of objects received.";
    text.single("coffer_store_received_bytes_total", Kind::Counter, help, meter.get_bytes as f64);
    text.single(
        "coffer_store_requests_in_flight",
        Kind::Gauge,
        "Requests under way.",
        meter.in_flight as f64,
    );
    let help =
        "For how long the bucket has not answered, has refused the credentials or was full; 0 if it answers.";
    text.family("coffer_store_outage_seconds", Kind::Gauge, help);
    let since = meter.outage_since.map_or(0.0, |since| since.as_secs_f64());
    let kinds = [
        (OutageKind::Unavailable, "unreachable"),
        (OutageKind::Denied, "denied"),
        (OutageKind::Full, "full"),
    ];
    for (kind, word) in kinds {
        let secs = if meter.outage == Some(kind) { since } else { 0.0 };
        text.sample("coffer_store_outage_seconds", &[("kind", word)], secs);
    }
}
