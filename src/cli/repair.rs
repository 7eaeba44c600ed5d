//! `coffer repair`: puts back in order what a check has found, and says what is lost.

use std::io::{self, BufRead, BufWriter, IsTerminal, Write};
use std::sync::Arc;

use serde_json::json;

use super::check::{
    counts_json, end, ended, examine, finding_json, open_options, print_findings, summary, tell,
};
use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::{SourceArgs, obtain_factors};
use super::progress::Progress;
use super::stderr;
use super::units::show_count;
use super::{explain, runtime};
use crate::base::SystemClock;
use crate::keys::Factor;
use crate::maint::{self, Deed, Outcome, Plan, RepairOptions};
use crate::volume::{self, Examined, OpenOptions};

/// Shown at the end of `coffer repair --help`.
pub const EXAMPLES: &str = "\
Shows what it would do and asks. Counts are put right, names of files that are gone removed, files that have lost their \
names put below /lost+found under their numbers, parts of files that are lost made to fail instead of reading as zeros. \
What still reads is never destroyed. The volume must not be mounted. A gap in the history is closed with \
--accept-rollback only: a bucket that withholds what was written looks the same as one that has lost it.

Ends as `coffer check` does after the repair: 0 if nothing is wrong any more, 33 to 35 for what cannot be put back; 36 \
if the repair was not carried out; 18 if the volume is mounted.

Examples:
  coffer repair s3://bucket/home
  coffer repair --dry-run /srv/volume
  coffer repair --yes --salvage /srv/volume
  coffer repair --accept-rollback /srv/volume";

/// What is said where a salvage may find more.
const SALVAGE: &str = "segments hold contents of files that are gone, and keep them for now: \
    --salvage makes files of them again, or lets them go where nothing reads";

/// Arguments of `coffer repair`.
#[derive(clap::Args, Debug)]
pub struct RepairArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Show what would be done, and do nothing
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
    /// Do not ask
    #[arg(short, long)]
    pub yes: bool,
    /// Look into segments for contents of files whose records are gone
    #[arg(long)]
    pub salvage: bool,
    /// Repair although another machine may have the volume mounted; its mount can write no more
    #[arg(long)]
    pub takeover: bool,
    /// Go on from a history with a gap, or an older one than was seen, by the leave of an admin key
    #[arg(long)]
    pub accept_rollback: bool,
    /// Print one JSON object for each thing that is done, for each that is left, then a summary
    #[arg(long)]
    pub json: bool,
}

/// Repairs.
///
/// # Errors
/// When the volume is mounted or cannot be opened, nothing may be asked, or something cannot be put back.
pub fn run(args: &RepairArgs) -> CommandResult {
    let factors = obtain_factors(&args.source.bucket, &args.source.unlock, &args.source.state)?;
    let mut options = OpenOptions { takeover: args.takeover, ..open_options(&args.source)? };
    options.trust.accept_rollback = args.accept_rollback;
    let how = RepairOptions {
        salvage: args.salvage,
        accepts: args.accept_rollback,
        findings_max: maint::CheckOptions::default().findings_max,
        clock: Arc::new(SystemClock::default()),
    };
    runtime::block_on(async {
        let mut plan = None;
        if !args.yes {
            let examined = examine(&args.source, &factors, options.clone()).await?;
            let made = Box::pin(prepare(&examined, &how, args)).await;
            examined.close().await;
            match made? {
                Some(made) => plan = Some(made),
                None => return Ok(()),
            }
        }
        Box::pin(carry_out(args, &factors, options, &how, plan.as_ref())).await
    })
}

/// Shows what would be done, and asks. `None` if there is nothing to do.
async fn prepare(examined: &Examined, how: &RepairOptions, args: &RepairArgs) -> CommandResult<Option<Plan>> {
    let work = Progress::start("check");
    let plan = maint::plan(examined, how, &|step| tell(&work, step)).await;
    ended(&work, plan.is_ok());
    let plan = plan.map_err(|e| explain::maint(&e))?;
    if args.dry_run {
        show(&plan.by_leave, args.json).map_err(|e| stdout_error(&e))?;
        show(&plan.deeds, args.json).map_err(|e| stdout_error(&e))?;
        if plan.kept_for_salvage {
            stderr::line(SALVAGE);
        }
        foretell(&plan, args.json).map_err(|e| stdout_error(&e))?;
        return match would(&plan) == 0 {
            true => end(&plan.found).map(|()| None),
            false => Err(CommandError::silent(Exit::NotRepaired)),
        };
    }
    if would(&plan) > 0 {
        show(&plan.by_leave, false).map_err(|e| stdout_error(&e))?;
        show(&plan.deeds, false).map_err(|e| stdout_error(&e))?;
        if !io::stdin().is_terminal() {
            return Err(CommandError::new(Exit::NotRepaired, "there is no terminal to ask on")
                .hint("look at what --dry-run shows, then give --yes"));
        }
        if !tokio::task::block_in_place(is_agreed)? {
            return Err(CommandError::new(Exit::NotRepaired, "nothing was changed"));
        }
    }
    Ok(Some(plan))
}

/// Says how much would be done, and how much is wrong that cannot be put back.
fn foretell(plan: &Plan, as_json: bool) -> io::Result<()> {
    if as_json {
        let summary = json!({ "summary": {
            "would": would(plan),
            "commit": plan.found.commit,
            "is_clean": plan.found.is_clean(),
            "salvage_may_find_more": plan.kept_for_salvage,
            "found": counts_json(&plan.found),
        }});
        writeln!(io::stdout().lock(), "{summary}")?;
    }
    let nothing = would(plan) == 0;
    if nothing && !plan.found.is_clean() {
        stderr::line(format_args!(
            "0 things would be done, because what is wrong cannot be put back; {}",
            summary(&plan.found, false)
        ));
    } else if nothing {
        stderr::line("nothing is to be done");
    } else {
        let would = show_count(would(plan) as u64, "thing", "things");
        stderr::line(format_args!("{would} would be done; counts that follow from that are put right after"));
    }
    Ok(())
}

const fn would(plan: &Plan) -> usize {
    plan.by_leave.len() + plan.deeds.len()
}

fn is_agreed() -> CommandResult<bool> {
    stderr::text("Do this? [y/N] ");
    let mut line = String::new();
    io::stdin().lock().read_line(&mut line).map_err(|error| {
        CommandError::new(Exit::NotRepaired, format!("the answer could not be read: {error}"))
    })?;
    Ok(matches!(line.trim(), "y" | "Y" | "yes"))
}

async fn carry_out(
    args: &RepairArgs,
    factors: &[Factor],
    options: OpenOptions,
    how: &RepairOptions,
    plan: Option<&Plan>,
) -> CommandResult {
    let bucket = args.source.bucket.open()?;
    let mut seized =
        volume::seize(bucket, factors, options).await.map_err(|e| explain::volume(&e, factors))?;
    let work = Progress::start("repair");
    let repaired = maint::repair(&mut seized, how, plan, &|step| tell(&work, step)).await;
    ended(&work, repaired.is_ok());
    let closed = seized.close().await;
    let outcome = repaired.map_err(|e| explain::maint(&e))?;
    closed.map_err(|e| explain::volume(&e, factors))?;
    print(&outcome, args).map_err(|e| stdout_error(&e))?;
    end(&outcome.left)
}

fn print(outcome: &Outcome, args: &RepairArgs) -> io::Result<()> {
    show(&outcome.deeds, args.json)?;
    let mut out = BufWriter::new(io::stdout().lock());
    if args.json {
        for finding in &outcome.left.findings {
            writeln!(out, "{}", finding_json(finding))?;
        }
        let summary = json!({ "summary": {
            "done": outcome.deeds.len(),
            "commit": outcome.left.commit,
            "is_clean": outcome.left.is_clean(),
            "salvage_may_find_more": outcome.kept_for_salvage,
            "left": counts_json(&outcome.left),
        }});
        writeln!(out, "{summary}")?;
    } else {
        print_findings(&mut out, &outcome.left, false)?;
        let done = show_count(outcome.deeds.len() as u64, "thing", "things");
        writeln!(out, "{done} done; {}", summary(&outcome.left, false))?;
    }
    out.flush()?;
    if outcome.kept_for_salvage {
        stderr::line(SALVAGE);
    }
    Ok(())
}

fn show(deeds: &[Deed], as_json: bool) -> io::Result<()> {
    let mut out = BufWriter::new(io::stdout().lock());
    for deed in deeds {
        if as_json {
            writeln!(out, "{}", json!({ "repair": deed.what, "place": deed.place }))?;
        } else {
            writeln!(out, "repair: {}: {}.", deed.place, deed.what)?;
        }
    }
    out.flush()
}
