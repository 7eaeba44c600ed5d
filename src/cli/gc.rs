//! `coffer gc`: gives back what a volume stores and does not use, or tells how much that is.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::time::Duration;

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::check::ended;
use super::client::ask;
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::SourceArgs;
use super::progress::Progress;
use super::units::{show_count, show_size};
use super::{reach, runtime};
use crate::control::Request;
use crate::vfs::{Amount, Reclaimable, Reclaimed, Vfs};

/// Shown at the end of `coffer gc --help`.
pub const EXAMPLES: &str = "\
A mount does this by itself, slowly and in the background; this is for whoever cannot wait. A volume that you have mounted is \
cleaned by its mount, any other by this command as its only writer. What is dead stays for ten minutes, because mounts on \
other machines may still read it; what no record knows, for a day.

Examples:
  coffer gc --dry-run s3://my-bucket/home
  coffer gc --now s3://my-bucket/home
  coffer gc --now ~/vault
  coffer gc --dry-run --json /srv/volume | jq .sparse.bytes";

/// How often it is looked how far it is.
const LOOK_EVERY: Duration = Duration::from_millis(200);

/// Arguments of `coffer gc`.
#[derive(clap::Args, Debug)]
#[command(group(clap::ArgGroup::new("what").required(true).args(["dry_run", "now"])))]
pub struct GcArgs {
    /// The volume, or where it is mounted.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Tell what would be done; change nothing
    #[arg(long)]
    pub dry_run: bool,
    /// Do it
    #[arg(long)]
    pub now: bool,
    /// Print JSON
    #[arg(long)]
    pub json: bool,
}

/// Cleans, or tells.
///
/// # Errors
/// When the volume cannot be opened, another machine writes to it, or the bucket cannot be read.
pub fn run(args: &GcArgs) -> CommandResult {
    let (text, is_cut) = if args.dry_run {
        let plan = obtain(args, async |vfs| vfs.reclaimable().await)?;
        (print(args, &plan, show_plan)?, plan.is_cut)
    } else {
        let clean = async |vfs: &Vfs| {
            let done = vfs.reclaim().await?;
            vfs.tidy_records().await?;
            Ok(done)
        };
        let done = obtain(args, clean)?;
        (print(args, &done, show_done)?, done.is_cut)
    };
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes()).and_then(|()| out.flush()).map_err(|e| stdout_error(&e))?;
    if is_cut { Err(not_listed()) } else { Ok(()) }
}

fn not_listed() -> CommandError {
    let text =
        "the bucket could not be listed whole; what no record knows may be there unseen: try again later";
    CommandError::new(Exit::Failure, text.to_owned())
}

/// The answer of the mount, if the volume is mounted here; else that of `work` on the volume.
fn obtain<T: DeserializeOwned>(
    args: &GcArgs,
    work: impl AsyncFnOnce(&Vfs) -> Result<T, crate::vfs::VfsError>,
) -> CommandResult<T> {
    let mount = reach::mounted(&args.source)?;
    let mount = if args.dry_run { mount } else { reach::writing(&args.source, mount, "gc --now", "cleans")? };
    if let Some(entry) = mount {
        let request = Request::Clean { dry_run: args.dry_run };
        return reach::understood(runtime::block_on(async { ask(&entry, &request).await })?);
    }
    reach::alone(&args.source, args.dry_run, async |vfs| shown(vfs, work(vfs)).await)
}

/// Does `work`, and shows how far it is.
async fn shown<T, E>(vfs: &Vfs, work: impl Future<Output = Result<T, E>>) -> Result<T, E> {
    let progress = Progress::start("gc");
    let mut look = tokio::time::interval(LOOK_EVERY);
    tokio::pin!(work);
    let result = loop {
        tokio::select! {
            result = &mut work => break result,
            _ = look.tick() => {
                progress.set_bytes(vfs.cleaned_bytes());
                if let Some(total) = vfs.to_clean_bytes() {
                    progress.set_total(total);
                }
            }
        }
    };
    ended(&progress, result.is_ok());
    result
}

fn print<T: Serialize>(args: &GcArgs, value: &T, show: impl FnOnce(&T) -> String) -> CommandResult<String> {
    if !args.json {
        return Ok(show(value));
    }
    let text = serde_json::to_string_pretty(value);
    text.map(|text| text + "\n").map_err(|e| CommandError::new(Exit::Failure, e.to_string()))
}

fn show_plan(plan: &Reclaimable) -> String {
    let mut text = format!(
        "{} in {}, {} of it in use.\n",
        show_size(plan.segments.bytes),
        segments(plan.segments.count),
        show_size(plan.live_bytes)
    );
    line(&mut text, "mostly dead", plan.sparse, "gained by rewriting");
    line(&mut text, "tiny", plan.tiny, "gained by merging");
    line(&mut text, "dead", plan.dead, "to be deleted when readers have had ten minutes");
    line(&mut text, "unknown", plan.leftovers, "to be deleted a day after they are noted");
    line(&mut text, "noted", plan.noted_leftovers, "to be deleted a day after they were noted");
    let all = [plan.sparse, plan.tiny, plan.dead, plan.leftovers, plan.noted_leftovers];
    let bytes: u64 = all.iter().map(|amount| amount.bytes).sum();
    if all.iter().all(|amount| amount.count == 0) {
        text.push_str(if plan.is_cut { "Nothing to do was found.\n" } else { "There is nothing to do.\n" });
    } else {
        let requests = show_count(plan.requests, "request", "requests");
        let _ = writeln!(text, "To gain: {}, for about {requests}.", show_size(bytes));
    }
    text
}

fn show_done(done: &Reclaimed) -> String {
    let mut text = String::new();
    line(&mut text, "rewritten", done.rewritten, "written anew");
    line(&mut text, "deleted", done.deleted, "given back");
    line(&mut text, "waiting", done.waiting, "known to become free when their time has come");
    line(&mut text, "noted", done.leftovers, "that no record knows, to be deleted in a day");
    if done.damaged_count > 0 {
        let _ = writeln!(text, "  {:<12} {}, left as they are", "damaged", segments(done.damaged_count));
    }
    match text.is_empty() {
        true if done.is_cut => "Nothing to do was found.\n".to_owned(),
        true => "There was nothing to do.\n".to_owned(),
        false => text,
    }
}

fn line(text: &mut String, name: &str, amount: Amount, what: &str) {
    if amount.count > 0 {
        let (count, bytes) = (segments(amount.count), show_size(amount.bytes));
        let _ = writeln!(text, "  {name:<12} {count}, {bytes} {what}");
    }
}

fn segments(count: u64) -> String {
    show_count(count, "segment", "segments")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_says_what_is_to_gain_and_what_that_costs() {
        let amount = |count, bytes| Amount { count, bytes };
        let plan = Reclaimable {
            segments: amount(1000, 8_000_000_000),
            live_bytes: 6_000_000_000,
            sparse: amount(300, 1_500_000_000),
            dead: amount(1, 8_388_608),
            requests: 1234,
            ..Reclaimable::default()
        };
        let text = show_plan(&plan);
        assert!(text.starts_with("7.5 GiB in 1,000 segments, 5.6 GiB of it in use.\n"), "{text}");
        assert!(text.contains("  mostly dead  300 segments, 1.4 GiB gained by rewriting\n"), "{text}");
        assert!(text.contains("  dead         1 segment, 8.0 MiB to be deleted"), "{text}");
        assert!(text.ends_with("To gain: 1.4 GiB, for about 1,234 requests.\n"), "{text}");
        assert!(show_plan(&Reclaimable::default()).ends_with("There is nothing to do.\n"));
        let cut = Reclaimable { is_cut: true, ..Reclaimable::default() };
        assert!(show_plan(&cut).ends_with("Nothing to do was found.\n"));
    }

    #[test]
    fn what_was_done_names_what_was_left() {
        assert_eq!(show_done(&Reclaimed::default()), "There was nothing to do.\n");
        let cut = Reclaimed { is_cut: true, ..Reclaimed::default() };
        assert_eq!(show_done(&cut), "Nothing to do was found.\n");
        let done = Reclaimed { damaged_count: 2, ..Reclaimed::default() };
        assert_eq!(show_done(&done), "  damaged      2 segments, left as they are\n");
    }
}
