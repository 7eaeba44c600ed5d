//! `coffer quota`: what a volume may hold.

use std::io::{self, Write as _};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::client::{ask, ask_quietly};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::SourceArgs;
use super::stderr;
use super::units::{parse_size, show_count, show_size};
use super::{reach, runtime};
use crate::control::Request;
use crate::vfs::Vfs;

/// Shown at the end of `coffer quota --help`.
pub const EXAMPLES: &str = "\
The quota is part of the volume: every mount keeps to it, and `df` shows it. It counts the bytes of files before compression. A volume \
that you have mounted is asked through its mount, any other opened by this command, to set the quota as its only writer. What is \
stored stays, also if it is more. Without a SIZE the quota is shown.

Examples:
  coffer quota s3://my-bucket/home
  coffer quota ~/vault 200G
  coffer quota ~/vault off";

/// Arguments of `coffer quota`.
#[derive(clap::Args, Debug)]
pub struct QuotaArgs {
    /// The volume, or where it is mounted.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Refuse to store more than this; `off` for no limit
    #[arg(value_name = "SIZE", value_parser = parse_quota)]
    pub size: Option<u64>,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Reads a size, or `off` as 0.
///
/// # Errors
/// Says how one is written.
pub fn parse_quota(text: &str) -> Result<u64, String> {
    match text.trim() {
        "off" => Ok(0),
        text => parse_size(text).map_err(|why| format!("{why}, or off")),
    }
}

/// What a volume holds and may hold.
#[derive(Debug, PartialEq, Eq, Serialize, Deserialize)]
struct Held {
    stored_bytes: u64,
    quota_bytes: u64,
    files: u64,
}

/// Shows or sets the quota.
///
/// # Errors
/// When the volume cannot be opened, or another machine writes to it.
pub fn run(args: &QuotaArgs) -> CommandResult {
    let mount = reach::mounted(&args.source)?;
    let held = match args.size {
        None => match mount {
            Some(entry) => told(runtime::block_on(async { ask_quietly(&entry, &Request::Status).await })?)?,
            None => reach::alone(&args.source, true, async |vfs| Ok(holds(vfs)))?,
        },
        Some(bytes) => match reach::writing(&args.source, mount, "quota", "sets it")? {
            Some(entry) => told(runtime::block_on(async { ask(&entry, &Request::Quota { bytes }).await })?)?,
            None => reach::alone(&args.source, false, async |vfs| {
                vfs.set_quota(bytes).await?;
                Ok(holds(vfs))
            })?,
        },
    };
    if args.size.is_some() && !args.json {
        stderr::line(held.words());
        return Ok(());
    }
    let text = match args.json {
        true => serde_json::to_string_pretty(&held)
            .map_err(|error| CommandError::new(Exit::Failure, error.to_string()))?,
        false => held.words(),
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{text}").and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

/// From a mount's status.
fn told(mut status: Value) -> CommandResult<Held> {
    reach::understood(status.get_mut("volume").map(Value::take).unwrap_or_default())
}

fn holds(vfs: &Vfs) -> Held {
    let status = vfs.status();
    Held { stored_bytes: status.stored_bytes, quota_bytes: status.quota_bytes, files: status.files }
}

impl Held {
    fn words(&self) -> String {
        let (stored, files) = (show_size(self.stored_bytes), show_count(self.files, "file", "files"));
        match self.quota_bytes {
            0 => format!("{stored} stored in {files}; no quota"),
            quota if quota <= self.stored_bytes => {
                let full = "nothing can be added until something is removed";
                format!("{stored} of {} stored in {files}; {full}", show_size(quota))
            }
            quota => format!("{stored} of {} stored in {files}", show_size(quota)),
        }
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_quota_is_a_size_or_off() {
        assert_eq!((parse_quota("10M"), parse_quota("off")), (Ok(10 << 20), Ok(0)));
        let why = parse_quota("much").unwrap_err();
        assert!(why.ends_with("write it like 512K, 64M or 2G, or off"), "{why}");
    }

    #[test]
    fn what_is_held_is_told_beside_what_may_be() {
        let status = |quota: u64| json!({ "volume": { "stored_bytes": 3 << 20, "quota_bytes": quota, "files": 2, "state": "writable" } });
        let said = |quota: u64| told(status(quota)).unwrap().words();
        assert_eq!(said(0), "3.0 MiB stored in 2 files; no quota");
        assert_eq!(said(4 << 20), "3.0 MiB of 4.0 MiB stored in 2 files");
        assert!(said(3 << 20).ends_with("; nothing can be added until something is removed"));
        assert!(told(json!({})).is_err());
    }
}
