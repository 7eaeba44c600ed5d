//! `coffer limit`, `pause` and `resume`: how much of the line a running mount may take, and whether it sends at all.

use std::io::{self, Write as _};
use std::path::PathBuf;
use std::time::Duration;

use serde::Deserialize;
use serde_json::Value;

use super::client::{ask_quietly, mounts};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::runtime;
use super::stderr;
use super::units::{parse_duration, parse_timetable, show_duration, show_size};
use crate::control::Request;
use crate::store::Timetable;

/// Shown at the end of `coffer limit --help`.
pub const LIMIT_EXAMPLES: &str = "\
A RATE is bytes a second, like 5M, or `off`; or a timetable in local time, of which the first part that fits counts: \
`08:00-18:00=1M,22:00-06:00=off,else=4M` (in fstab with semicolons). The least is 64K. Without a RATE the limits are shown. They end with the mount.

Examples:
  coffer limit ~/vault
  coffer limit ~/vault --upload 5M --download off
  coffer limit ~/vault --upload 08:00-18:00=1M,else=off";

/// Shown at the end of `coffer pause --help`.
pub const PAUSE_EXAMPLES: &str = "\
Nothing is sent: reads go on, writes until as much waits as may (--dirty-limit), fsync waits. Ends with `coffer resume`, after \
--for, or when the mount ends, which saves everything first. Without DIR, all of your mounts are paused.

Examples:
  coffer pause
  coffer pause ~/vault --for 2h";

/// Shown at the end of `coffer resume --help`.
pub const RESUME_EXAMPLES: &str = "\
Without DIR, all of your mounts go on.

Examples:
  coffer resume
  coffer resume ~/vault";

/// What is said where nothing is limited.
const NO_LIMITS: &str = "no limits";

/// Arguments of `coffer limit`.
#[derive(clap::Args, Debug)]
pub struct LimitArgs {
    /// A mount point, or anything inside a mount
    #[arg(value_name = "DIR")]
    pub point: PathBuf,
    /// Bytes a second that may be sent
    #[arg(long, value_name = "RATE", value_parser = parse_timetable)]
    pub upload: Option<Timetable>,
    /// Bytes a second that may be received
    #[arg(long, value_name = "RATE", value_parser = parse_timetable)]
    pub download: Option<Timetable>,
}

/// Arguments of `coffer pause`.
#[derive(clap::Args, Debug)]
pub struct PauseArgs {
    /// Mount points, or anything inside a mount
    #[arg(value_name = "DIR")]
    pub points: Vec<PathBuf>,
    /// Go on by itself after this time
    #[arg(long = "for", value_name = "TIME", value_parser = parse_duration)]
    pub time: Option<Duration>,
}

/// Arguments of `coffer resume`.
#[derive(clap::Args, Debug)]
pub struct ResumeArgs {
    /// Mount points, or anything inside a mount
    #[arg(value_name = "DIR")]
    pub points: Vec<PathBuf>,
}

/// What a mount says of its limits.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Limited {
    /// As it was written; none if there is no limit.
    pub upload: Option<String>,
    /// Bytes a second now.
    pub upload_rate: Option<u64>,
    /// As it was written; none if there is no limit.
    pub download: Option<String>,
    /// Bytes a second now.
    pub download_rate: Option<u64>,
    /// Nothing is sent.
    pub is_paused: bool,
    /// For how long yet, in seconds.
    pub paused_left: Option<f64>,
}

/// Sets and shows limits.
///
/// # Errors
/// When no volume is mounted there.
pub fn limit(args: &LimitArgs) -> CommandResult {
    let request = Request::Limit { upload: args.upload.clone(), download: args.download.clone() };
    // What was asked for, or what was done.
    let is_question = args.upload.is_none() && args.download.is_none();
    each(std::slice::from_ref(&args.point), &request, if is_question { answer } else { tell })
}

/// Pauses.
///
/// # Errors
/// When no volume is mounted there.
pub fn pause(args: &PauseArgs) -> CommandResult {
    each(&args.points, &Request::Pause { secs: args.time.map(|time| time.as_secs_f64()) }, tell)
}

/// Goes on.
///
/// # Errors
/// When no volume is mounted there.
pub fn resume(args: &ResumeArgs) -> CommandResult {
    each(&args.points, &Request::Resume, |line| tell(&line.replace(NO_LIMITS, "uploads go on")))
}

/// Asks each mount, and says by `say` what its limits are then.
fn each(points: &[PathBuf], request: &Request, say: fn(&str) -> CommandResult) -> CommandResult {
    let entries = mounts(points)?;
    if entries.is_empty() {
        return Err(CommandError::new(Exit::NotMounted, "no volume is mounted"));
    }
    runtime::block_on(async {
        for entry in &entries {
            let limited = Limited::of(&ask_quietly(entry, request).await?);
            say(&format!("{}: {}", entry.mountpoint.display(), limited.words().join("; ")))?;
        }
        Ok(())
    })
}

fn tell(line: &str) -> CommandResult {
    stderr::line(line);
    Ok(())
}

fn answer(line: &str) -> CommandResult {
    let mut out = io::stdout().lock();
    writeln!(out, "{line}").and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

impl Limited {
    fn of(answer: &Value) -> Self {
        Self::deserialize(answer).unwrap_or_default()
    }

    /// What is limited, each in a clause; that nothing is, if nothing is.
    #[must_use]
    pub fn words(&self) -> Vec<String> {
        let mut words = Vec::new();
        if self.is_paused {
            let left = self.paused_left.and_then(|secs| Duration::try_from_secs_f64(secs).ok());
            let left = left.map_or(String::new(), |left| format!(" for {} yet", show_duration(left)));
            words.push(format!("uploads are paused{left}"));
        }
        for (what, text, rate) in
            [("upload", &self.upload, self.upload_rate), ("download", &self.download, self.download_rate)]
        {
            let Some(text) = text else { continue };
            let now = rate.map_or("no limit now".to_owned(), |rate| format!("{}/s", show_size(rate)));
            words.push(format!("{what} {now} ({text})"));
        }
        if words.is_empty() {
            words.push(NO_LIMITS.to_owned());
        }
        words
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn limits_are_told_as_they_were_set_and_as_they_are() {
        assert_eq!(Limited::default().words(), ["no limits"]);
        let both = Limited::of(&json!({
            "upload": "08:00-18:00=1M,else=off", "upload_rate": null, "download": "5M", "download_rate": 5 << 20,
            "is_paused": true, "paused_left": 90.0,
        }));
        let want = [
            "uploads are paused for 1 min 30 s yet",
            "upload no limit now (08:00-18:00=1M,else=off)",
            "download 5.0 MiB/s (5M)",
        ];
        assert_eq!(both.words(), want);
    }
}
