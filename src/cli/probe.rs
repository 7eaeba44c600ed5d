//! `coffer probe`: says in plain words what a store can and cannot do.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use serde_json::{Value, json};

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::BucketArgs;
use super::stderr;
use super::units::{parse_size, show_count, show_size};
use super::{explain, runtime};
use crate::base::OsEntropy;
use crate::store::{Bandwidth, Bucket, MeterSnapshot, StoreError, Survey, Surveyor};

/// Shown at the end of `coffer probe --help`.
pub const EXAMPLES: &str = "\
No volume is needed, and none is touched. Everything is tried in a directory of its own below `probe/`, which is removed; \
about 150 small requests, and the traffic of --traffic in each direction. Exit code 29 if the store lacks what a volume \
needs, 15 to 17 if it cannot be asked.

Examples:
  coffer probe s3://my-bucket/home
  coffer probe --traffic 0 --endpoint https://minio.example:9000 s3://bucket
  coffer probe --json gs://bucket/prefix | jq .latency_ms.put";

/// A clock that differs by more is told: S3 refuses requests that differ by 15 minutes.
const CLOCK_MILLIS_MAX: i64 = 60_000;

/// Arguments of `coffer probe`.
#[derive(clap::Args, Debug)]
pub struct ProbeArgs {
    /// The bucket.
    #[command(flatten)]
    pub bucket: BucketArgs,
    /// Send and fetch so much to measure bandwidth; 0 for none
    #[arg(long, value_name = "SIZE", value_parser = parse_size, default_value = "8M")]
    pub traffic: u64,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Tries the store.
///
/// # Errors
/// It cannot be reached, or lacks what a volume needs.
pub fn run(args: &ProbeArgs) -> CommandResult {
    let (bucket, found, cleaned) = runtime::block_on_patiently(async {
        let bucket = args.bucket.open()?;
        let surveyor = Surveyor::new(bucket.clone(), &OsEntropy);
        let found = tokio::select! {
            found = surveyor.run(args.traffic) => found.map_err(|error| explain::store(&error)),
            Ok(()) = tokio::signal::ctrl_c() => Err(CommandError::silent(Exit::Interrupted)),
        };
        // A bucket that never took anything has nothing to be removed.
        let is_touched = bucket.meter().snapshot().put_bytes > 0;
        let cleaned = if is_touched { surveyor.clean().await } else { Ok(()) };
        let cleaned = cleaned.map_err(|error| (surveyor.directory().to_owned(), error));
        Ok::<_, CommandError>((bucket, found, cleaned))
    })?;
    let survey = found.inspect_err(|_| warn(&cleaned))?;
    let seen = bucket.meter().snapshot();
    let text = if args.json {
        format!("{}\n", to_json(&bucket, &survey, &seen, &cleaned))
    } else {
        to_text(&bucket, &survey, &seen)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))?;
    warn(&cleaned);
    match survey.lacks() {
        Some(error) => Err(CommandError::silent(explain::store(error).exit())),
        None => Ok(()),
    }
}

type Cleaned = Result<(), (String, StoreError)>;

fn warn(cleaned: &Cleaned) {
    if let Err((directory, error)) = cleaned {
        stderr::line(format_args!("warning: {directory} in the bucket may not be empty: {error}"));
    }
}

fn to_text(bucket: &Bucket, survey: &Survey, seen: &MeterSnapshot) -> String {
    let mut text = format!("{}\n", bucket.display_url());
    let mut line = |name: &str, told: &str| {
        let _ = writeln!(text, "  {name:<12} {told}");
    };
    if let Some(kind) = bucket.credentials() {
        line("credentials", &kind.to_string());
    }
    for ability in &survey.abilities {
        line(ability.name, &ability.told);
    }
    if let Some(millis) = survey.clock_ahead_millis {
        line("clock", &clock(millis));
    }
    if let Some(latency) = survey.latency {
        let [put, get, list, delete] =
            [latency.put, latency.get, latency.list, latency.delete].map(show_millis);
        line("latency", &format!("PUT {put}, GET {get}, LIST {list}, DELETE {delete} (medians of several)"));
    }
    if let Some(bandwidth) = survey.bandwidth {
        let (up, down, bytes) =
            (rate(&bandwidth, bandwidth.up), rate(&bandwidth, bandwidth.down), bandwidth.bytes);
        line("bandwidth", &format!("up {up:.1} MB/s, down {down:.1} MB/s ({} each way)", show_size(bytes)));
    }
    let (sent, received) = (show_size(seen.put_bytes), show_size(seen.get_bytes));
    let requests = show_count(seen.requests(), "request", "requests");
    line("traffic", &format!("{sent} sent, {received} received, {requests}"));
    text.push_str(match survey.lacks() {
        None => "It can hold a volume.\n",
        Some(_) => "It cannot hold a volume.\n",
    });
    text
}

fn clock(millis: i64) -> String {
    let secs = millis.unsigned_abs() as f64 / 1000.0;
    let way = if millis < 0 { "behind" } else { "ahead of" };
    if secs < 1.5 {
        "that of this machine, to the second or so".to_owned()
    } else if secs * 1000.0 <= CLOCK_MILLIS_MAX as f64 {
        format!("{secs:.0} s {way} this machine's")
    } else {
        format!("{secs:.0} s {way} this machine's: set the right one; S3 refuses requests beyond 900 s")
    }
}

fn show_millis(time: Duration) -> String {
    let millis = time.as_secs_f64() * 1000.0;
    if millis < 9.95 { format!("{millis:.1} ms") } else { format!("{millis:.0} ms") }
}

/// Megabytes (10⁶ bytes) a second.
fn rate(bandwidth: &Bandwidth, time: Duration) -> f64 {
    bandwidth.bytes as f64 / 1e6 / time.as_secs_f64().max(1e-6)
}

fn to_json(bucket: &Bucket, survey: &Survey, seen: &MeterSnapshot, cleaned: &Cleaned) -> Value {
    let millis = |time: Duration| (time.as_secs_f64() * 1e6).round() / 1e3;
    let abilities: serde_json::Map<String, Value> = survey
        .abilities
        .iter()
        .map(|ability| {
            let name = ability.name.replace(' ', "_");
            (name, json!({ "ok": ability.lacks.is_none(), "told": ability.told }))
        })
        .collect();
    json!({
        "url": bucket.display_url(),
        "credentials": bucket.credentials().map(ToString::to_string),
        "fit": survey.lacks().is_none(),
        "abilities": abilities,
        "clock_ahead_ms": survey.clock_ahead_millis,
        "latency_ms": survey.latency.map(|latency| json!({
            "put": millis(latency.put),
            "get": millis(latency.get),
            "list": millis(latency.list),
            "delete": millis(latency.delete),
        })),
        "bandwidth": survey.bandwidth.map(|bandwidth| json!({
            "bytes": bandwidth.bytes,
            "up_mb_per_s": rate(&bandwidth, bandwidth.up),
            "down_mb_per_s": rate(&bandwidth, bandwidth.down),
        })),
        "traffic": json!({
            "requests": seen.requests(),
            "sent_bytes": seen.put_bytes,
            "received_bytes": seen.get_bytes,
        }),
        "left_behind": cleaned.as_ref().err().map(|(directory, _)| directory),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_is_told_by_what_it_means() {
        assert_eq!(clock(-900), "that of this machine, to the second or so");
        assert_eq!(clock(-4000), "4 s behind this machine's");
        assert!(clock(1_000_000).starts_with("1000 s ahead of this machine's: set the right one"));
    }
}
