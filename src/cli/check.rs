//! `coffer check`: reads a volume's records and objects and says what is wrong with it.

use std::io::{self, BufWriter, Write};

use data_encoding::HEXLOWER;
use serde_json::{Map, Value, json};

use super::error::{CommandError, CommandResult, stdout_error};
use super::exit::Exit;
use super::open::{SourceArgs, obtain_factors};
use super::progress::Progress;
use super::stderr;
use super::units::{show_count, show_size};
use super::{budget, explain, rotate, runtime};
use crate::keys::Factor;
use crate::maint::{self, CheckOptions, Finding, Problem, Report, Severity, Step, Subject};
use crate::volume::{self, Examined, OpenOptions};

/// Memory for caches and buffers while checking.
const MEMORY_BYTES: u64 = 256 * 1024 * 1024;

/// Shown at the end of `coffer check --help`.
pub const EXAMPLES: &str = "\
Nothing is changed and nothing held: a volume that is mounted elsewhere is checked as of its last commit. Without \
--read-data everything about names, places and counts is checked, and that each segment is there; with it, every block \
of every file is fetched and opened too.

Ends with 0 if nothing is wrong, 33 if it is harmless, 34 if contents of files are damaged, 35 if the tree is, 21 if \
the bucket shows an older history than this machine has seen, 37 if another. With --json each finding is one line, and the \
last line is a summary.

Examples:
  coffer check s3://bucket/home
  coffer check --read-data /srv/volume
  coffer check --json /srv/volume | jq 'select(.path) | .path'";

/// Arguments of `coffer check`.
#[derive(clap::Args, Debug)]
pub struct CheckArgs {
    /// The volume and how to open it.
    #[command(flatten)]
    pub source: SourceArgs,
    /// Fetch and open every block of every file
    #[arg(long)]
    pub read_data: bool,
    /// Show notes too: work that the next mount does by itself
    #[arg(long)]
    pub notes: bool,
    /// Print one JSON object for each finding, then a summary
    #[arg(long)]
    pub json: bool,
}

/// Checks.
///
/// # Errors
/// When the volume cannot be opened; silently, with its exit code, when something is wrong with it.
pub fn run(args: &CheckArgs) -> CommandResult {
    let factors = obtain_factors(&args.source.bucket, &args.source.unlock, &args.source.state)?;
    let options = open_options(&args.source)?;
    let (report, is_rotating) = runtime::block_on(async {
        let examined = examine(&args.source, &factors, options).await?;
        let options = CheckOptions { read_data: args.read_data, ..CheckOptions::default() };
        let (report, is_rotating) = (look(&examined, &options).await, examined.is_rotating);
        examined.close().await;
        report.map(|report| (report, is_rotating))
    })?;
    print(&report, args, is_rotating)?;
    if is_rotating {
        stderr::line(rotate::UNFINISHED);
    }
    end(&report)
}

/// How a volume is opened to be looked at or repaired.
///
/// # Errors
/// No state directory, or too little memory.
pub fn open_options(source: &SourceArgs) -> CommandResult<OpenOptions> {
    let state_dir = Some(source.state.directory()?);
    let (trust, key_slot) = (source.trust.options(), source.unlock.key_slot);
    let mut options = OpenOptions { state_dir, key_slot, trust, ..OpenOptions::default() };
    budget::apply(&mut options, Some(source.memory.unwrap_or(MEMORY_BYTES)), None, None)?;
    Ok(options)
}

/// Opens a volume to look at it.
///
/// # Errors
/// When it cannot be opened.
pub async fn examine(
    source: &SourceArgs,
    factors: &[Factor],
    options: OpenOptions,
) -> CommandResult<Examined> {
    let bucket = source.bucket.open()?;
    volume::examine(bucket, factors, options).await.map_err(|e| explain::volume(&e, factors))
}

/// Looks at a volume, with a live line on a terminal.
///
/// # Errors
/// When the store does not answer.
pub async fn look(examined: &Examined, options: &CheckOptions) -> CommandResult<Report> {
    let work = Progress::start("check");
    let report = maint::check(examined, options, &|step| tell(&work, step)).await;
    ended(&work, report.is_ok());
    report.map_err(|e| explain::maint(&e))
}

/// Ends showing how far it is, before a report or an error follows.
pub fn ended(work: &Progress, is_complete: bool) {
    match is_complete {
        true => work.complete(),
        false => work.finish(),
    }
}

/// Notes how far it is.
pub fn tell(work: &Progress, step: Step) {
    match step {
        Step::Part(part) => work.set_part(part.word()),
        Step::Begun { records, bytes } => work.begin(records, bytes),
        Step::Records(count) => work.set_records(count),
        Step::Bytes(bytes) => work.set_bytes(bytes),
    }
}

/// How a command ends that has found this.
///
/// # Errors
/// A silent one with the exit code, unless nothing is wrong.
pub fn end(report: &Report) -> CommandResult {
    let exit = match report.worst() {
        _ if report.is_rollback() => Exit::RolledBack,
        _ if report.is_fork() => Exit::Forked,
        None | Some(Severity::Note) => return Ok(()),
        Some(Severity::Harmless) => Exit::Untidy,
        Some(Severity::Files) => Exit::FilesDamaged,
        Some(Severity::Structure) => Exit::TreeDamaged,
    };
    Err(CommandError::silent(exit))
}

fn print(report: &Report, args: &CheckArgs, is_rotating: bool) -> CommandResult {
    let mut out = BufWriter::new(io::stdout().lock());
    let written = match args.json {
        true => print_json(&mut out, report, is_rotating),
        false => print_text(&mut out, report, args),
    };
    written.and_then(|()| out.flush()).map_err(|e| stdout_error(&e))
}

fn print_text(out: &mut impl Write, report: &Report, args: &CheckArgs) -> io::Result<()> {
    print_findings(out, report, args.notes)?;
    writeln!(out, "{}", summary(report, args.read_data))
}

/// The findings, one a line, the worst first.
///
/// # Errors
/// Those of writing.
pub fn print_findings(out: &mut impl Write, report: &Report, with_notes: bool) -> io::Result<()> {
    for severity in Severity::ALL.into_iter().rev() {
        if severity == Severity::Note && !with_notes {
            continue;
        }
        for finding in report.findings.iter().filter(|finding| finding.problem.severity() == severity) {
            writeln!(out, "{}: {}.", severity.word(), finding.sentence())?;
        }
    }
    Ok(())
}

/// What was checked and what came out, in one line, with whether contents were read.
#[must_use]
pub fn summary(report: &Report, reads_data: bool) -> String {
    let totals = &report.totals;
    let commit = report.commit.map_or("the volume".to_owned(), |commit| format!("commit {commit}"));
    let beside = if report.is_held { ", which is or was mounted" } else { "" };
    let read = match reads_data {
        true => format!(", {} opened", show_size(totals.read_bytes)),
        false => ", contents not read".to_owned(),
    };
    let mut text = format!(
        "checked {commit}{beside}: {}, {}, {} of {}{read}: ",
        show_count(totals.files, "inode", "inodes"),
        show_size(totals.stored_bytes),
        show_count(totals.objects, "object", "objects"),
        show_size(totals.object_bytes),
    );
    let [notes, harmless, files, structure] = report.counts;
    let mut found = Vec::new();
    for (count, one, many) in [
        (structure, "damage to the structure", "damages to the structure"),
        (files, "damage to files", "damages to files"),
        (harmless, "harmless finding", "harmless findings"),
        (notes, "note", "notes"),
    ] {
        if count > 0 {
            found.push(show_count(count, one, many));
        }
    }
    if report.is_clean() {
        found.insert(0, "nothing is wrong".to_owned());
    }
    text.push_str(&found.join(", "));
    let kept = report.findings.len() as u64;
    let all: u64 = report.counts.iter().sum();
    if all > kept {
        text.push_str(&format!("; only {} are shown", show_count(kept, "finding", "findings")));
    }
    text
}

/// How many findings of each severity there are.
#[must_use]
pub fn counts_json(report: &Report) -> Value {
    let [notes, harmless, files, structure] = report.counts;
    json!({ "note": notes, "harmless": harmless, "files": files, "structure": structure })
}

fn print_json(out: &mut impl Write, report: &Report, is_rotating: bool) -> io::Result<()> {
    for finding in &report.findings {
        writeln!(out, "{}", finding_json(finding))?;
    }
    let totals = &report.totals;
    let summary = json!({ "summary": {
        "commit": report.commit,
        "is_held": report.is_held,
        "is_rotating": is_rotating,
        "is_clean": report.is_clean(),
        "findings": counts_json(report),
        "inodes": totals.files,
        "stored_bytes": totals.stored_bytes,
        "objects": totals.objects,
        "object_bytes": totals.object_bytes,
        "read_bytes": totals.read_bytes,
    }});
    writeln!(out, "{summary}")
}

/// A finding as one JSON object.
#[must_use]
pub fn finding_json(finding: &Finding) -> Value {
    let (meaning, advice) = finding.problem.meaning();
    let mut fields = Map::new();
    fields.insert("severity".into(), finding.problem.severity().word().into());
    fields.insert("problem".into(), finding.problem.word().into());
    if let Some(path) = &finding.path {
        match std::str::from_utf8(path) {
            Ok(path) => drop(fields.insert("path".into(), path.into())),
            Err(_) => drop(fields.insert("path_hex".into(), HEXLOWER.encode(path).into())),
        }
    }
    let (name, value) = match &finding.subject {
        Subject::Volume => ("volume", true.into()),
        Subject::Inode(ino) => ("inode", ino.0.into()),
        Subject::Entry { dir, .. } => ("directory", dir.0.into()),
        Subject::Segment(id) => ("segment", id.to_string().into()),
        Subject::Commit(number) => ("commit", (*number).into()),
        Subject::Header(number) => ("header", (*number).into()),
        Subject::Object(path) => ("object", path.as_str().into()),
        Subject::Record(key) => ("record", HEXLOWER.encode(key).into()),
    };
    fields.insert(name.into(), value);
    if let Problem::BlocksLost { segment, ranges, bytes, .. } = &finding.problem {
        let ranges: Vec<Value> = ranges.iter().map(|range| json!([range.start, range.end])).collect();
        fields.insert("ranges".into(), ranges.into());
        fields.insert("bytes".into(), (*bytes).into());
        if let Some(id) = segment {
            fields.insert("segment".into(), id.to_string().into());
        }
    }
    fields.insert("what".into(), finding.problem.what().into());
    fields.insert("meaning".into(), meaning.into());
    fields.insert("advice".into(), advice.into());
    fields.into()
}
