//! `coffer status`: is everything safe, and what is going on? Once, or again and again.

use std::io::{self, IsTerminal, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::time::timeout;

use super::client::{ask_quietly, mounts_and_dead};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::report::{Report, log_line, show};
use super::runtime;
use super::units::{parse_duration, show_time};
use crate::base::{Clock, SystemClock};
use crate::control::{ControlError, MountEntry, Request};

/// Shown at the end of `coffer status --help`.
pub const EXAMPLES: &str = "\
The first line says whether everything written so far is in the bucket, and so does the exit code: 0 if it is, 23 if it is \
not yet or a mount's process has died, 24 if no volume is mounted. Without DIR, all of your mounts are shown. DIR may be anything inside a mount.

With --watch it shows again and again: in place on a terminal, elsewhere a line each time (with --json an object). It ends \
with Ctrl-C, or with --until-safe as soon as everything is in the bucket.

Examples:
  coffer status
  coffer status ~/vault && echo 'safe to unplug'
  coffer status --watch=1s
  coffer status --watch --until-safe ~/vault && systemctl suspend
  coffer status --json | jq .mounts[].volume.dirty_bytes";

/// How long a mount may take to say how it is.
const PATIENCE: Duration = Duration::from_secs(10);
/// Time between two looks where nothing else is asked for.
const WATCH_DEFAULT: Duration = Duration::from_secs(2);
/// Least time between two looks.
const WATCH_MIN: Duration = Duration::from_millis(100);
/// Moves a terminal's cursor to its first line and clears what is below.
const REDRAW: &str = "\x1b[H\x1b[J";

/// Arguments of `coffer status`.
#[derive(clap::Args, Debug)]
pub struct StatusArgs {
    /// Mount points, or anything inside a mount
    #[arg(value_name = "DIR")]
    pub points: Vec<PathBuf>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
    /// Show again and again, this often
    #[arg(long, value_name = "TIME", value_parser = parse_duration, num_args = 0..=1, require_equals = true)]
    #[allow(clippy::option_option)] // not given, given, given with a time
    pub watch: Option<Option<Duration>>,
    /// With --watch, end as soon as everything is in the bucket
    #[arg(long, requires = "watch")]
    pub until_safe: bool,
}

/// What all mounts have answered.
struct Seen {
    answers: Vec<Value>,
    reports: Vec<Report>,
    are_all_dead: bool,
}

/// Shows.
///
/// # Errors
/// When no volume is mounted there; silently, with its exit code, when something is not safe yet.
pub fn run(args: &StatusArgs) -> CommandResult {
    runtime::block_on(async {
        match args.watch {
            Some(every) => watch(args, every).await,
            None => {
                let seen = Seen::now(&args.points).await?;
                print(&if args.json { format!("{:#}\n", seen.json()) } else { show(&seen.reports) })?;
                seen.end()
            }
        }
    })
}

/// The time between two looks and what is to be looked at: a time that follows `--watch` is meant as one.
fn interval_and_points(args: &StatusArgs, every: Option<Duration>) -> (Duration, &[PathBuf]) {
    if every.is_none()
        && let [first, rest @ ..] = args.points.as_slice()
        && let Some(Ok(every)) = first.to_str().map(parse_duration)
        && !first.exists()
    {
        return (every.max(WATCH_MIN), rest);
    }
    (every.unwrap_or(WATCH_DEFAULT).max(WATCH_MIN), &args.points)
}

async fn watch(args: &StatusArgs, every: Option<Duration>) -> CommandResult {
    let (every, points) = interval_and_points(args, every);
    let in_place = io::stdout().is_terminal() && !args.json;
    let mut ticks = tokio::time::interval(every);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let seen = Seen::now(points).await?;
        print(&match (args.json, in_place) {
            (true, _) => format!("{}\n", seen.json()),
            (false, true) => format!("{REDRAW}{}", show(&seen.reports)),
            (false, false) => {
                format!("{}  {}\n", show_time(SystemClock::default().now(), false), log_line(&seen.reports))
            }
        })?;
        // There is nothing left to watch, or nothing left to wait for.
        if seen.reports.is_empty() || (args.until_safe && (seen.is_safe() || seen.are_all_dead)) {
            return seen.end();
        }
    }
}

impl Seen {
    async fn now(points: &[PathBuf]) -> CommandResult<Self> {
        let (entries, dead) = tokio::task::block_in_place(|| mounts_and_dead(points))?;
        let ask =
            async |entry: &MountEntry| match timeout(PATIENCE, ask_quietly(entry, &Request::Status)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => no_answer(entry, &error.to_string()),
                Err(_) => no_answer(entry, "it does not answer"),
            };
        let mut answers = futures::future::join_all(entries.iter().map(ask)).await;
        answers.extend(dead.iter().filter_map(died));
        let reports = answers.iter().map(Report::of).collect();
        Ok(Self { answers, reports, are_all_dead: entries.is_empty() && !dead.is_empty() })
    }

    fn is_safe(&self) -> bool {
        !self.reports.is_empty() && self.reports.iter().all(|report| report.volume.is_safe)
    }

    fn json(&self) -> Value {
        json!({ "is_safe": self.is_safe(), "mounts": self.answers })
    }

    fn end(&self) -> CommandResult {
        match (self.reports.is_empty(), self.is_safe()) {
            (true, _) => Err(CommandError::silent(Exit::NotMounted)),
            (false, true) => Ok(()),
            (false, false) => Err(CommandError::silent(Exit::NotSafeYet)),
        }
    }
}

fn no_answer(entry: &MountEntry, why: &str) -> Value {
    let mountpoint = entry.mountpoint.to_string_lossy();
    json!({ "mount": { "mountpoint": mountpoint, "url": entry.url, "pid": entry.pid }, "error": why })
}

/// What there is to say of a mount whose process has died.
fn died(error: &ControlError) -> Option<Value> {
    let ControlError::Died { point, pid, url } = error else { return None };
    let why =
        "its process has died, and what it had not sent may be lost; `coffer umount` takes the mount away";
    Some(json!({ "mount": { "mountpoint": point.to_string_lossy(), "url": url, "pid": pid }, "error": why }))
}

fn print(text: &str) -> CommandResult {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

/// For the fuzz targets: shows what a mount says of itself.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub fn fuzz_status(answer: &[u8]) {
    if let Ok(answer) = serde_json::from_slice(answer) {
        let _ = show(&[Report::of(&answer)]);
    }
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;
    use crate::cli::args::{Cli, Command};

    fn asked(line: &str) -> (Duration, Vec<PathBuf>) {
        let words = line.split(' ').filter(|word| !word.is_empty());
        let Command::Status(args) =
            Cli::try_parse_from(["coffer", "status"].into_iter().chain(words)).unwrap().command
        else {
            panic!("another command");
        };
        let (every, points) = interval_and_points(&args, args.watch.flatten());
        (every, points.to_vec())
    }

    #[test]
    fn the_time_between_two_looks_may_be_given_in_either_way() {
        let secs = |secs| Duration::from_secs(secs);
        assert_eq!(asked("--watch"), (secs(2), vec![]));
        assert_eq!(asked("--watch=7s /m"), (secs(7), vec!["/m".into()]));
        assert_eq!(asked("--watch 7s /m"), (secs(7), vec!["/m".into()]));
        assert_eq!(asked("--watch /m"), (secs(2), vec!["/m".into()]));
        assert_eq!(asked("--watch=1ms").0, WATCH_MIN);
        assert!(Cli::try_parse_from(["coffer", "status", "--until-safe"]).is_err());
    }
}
