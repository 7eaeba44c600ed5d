//! Repairs a volume: puts back what can be put back, keeps what still reads, says what is lost.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use super::MaintError;
use super::check::{CheckOptions, Report, Source, Survey, Watch, survey};
use super::desk::{Desk, Maker};
use super::finding::{Finding, Problem, Subject};
use super::mender::{Deed, Mender};
use crate::base::{Clock, Ino, LiveDelta};
use crate::meta::engine::Engine;
use crate::meta::{Holder, Key, Record, Superblock};
use crate::volume::{Examined, Seized};

/// Rounds after which something must be going in circles.
const ROUNDS_MAX: usize = 12;

/// How a volume is repaired.
#[derive(Clone)]
pub struct RepairOptions {
    /// Look into segments for contents of files whose records are gone.
    pub salvage: bool,
    /// Whether the history is to be gone on from as it is, by the leave of an admin's key.
    pub accepts: bool,
    /// Findings that are worked on in one round.
    pub findings_max: usize,
    /// Time.
    pub clock: Arc<dyn Clock>,
}

/// What a repair would do.
#[derive(Clone, Debug, Default)]
pub struct Plan {
    /// What an admin's key gives leave for, which comes before all else and cannot be undone.
    pub by_leave: Vec<Deed>,
    /// What it does at first. Counts that follow from that are put right after.
    pub deeds: Vec<Deed>,
    /// Contents of files that are gone may be found by a salvage, and stay until then.
    pub kept_for_salvage: bool,
    /// What is wrong.
    pub found: Report,
}

/// What a repair has done.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// What was done, in order.
    pub deeds: Vec<Deed>,
    /// What is still wrong.
    pub left: Report,
    /// Contents of files that are gone may be found by a salvage, and stay until then.
    pub kept_for_salvage: bool,
}

/// How a round is made, and what earlier ones leave to it.
struct Round {
    freed: HashSet<Ino>,
    let_go: LiveDelta,
    settled: HashSet<Ino>,
    maker: Maker,
    holder: Option<Holder>,
}

/// Says what a repair of an examined volume would do. Changes nothing.
///
/// # Errors
/// The records cannot be read at all, or the bucket does not answer.
pub async fn plan(volume: &Examined, options: &RepairOptions, watch: Watch<'_>) -> Result<Plan, MaintError> {
    let engine = volume.engine.clone()?;
    let (vault, accepted) = (volume.vault.clone(), volume.accepted);
    let by_leave = if options.accepts { logs_to_give_up(&engine).await? } else { Vec::new() };
    let source = Source { engine, vault, pin: volume.pin, accepted, is_alone: true };
    let round = Round {
        freed: HashSet::new(),
        let_go: LiveDelta::new(),
        settled: HashSet::new(),
        maker: Maker::default(),
        holder: None,
    };
    let found = look(&source, options, watch).await?;
    let Mender { deeds, kept_for_salvage, .. } = Box::pin(decide(&found, options, round)).await?;
    let found = found.into_report().await?;
    let has_gap = found.findings.iter().any(|finding| is_unaccepted_gap(&finding.problem));
    let is_other = found.is_rollback() || found.is_fork() || has_gap || !by_leave.is_empty();
    let accepts = options.accepts && is_other;
    let place = "the volume".to_owned();
    let what = "accepts the history as it is, by the admin's key".to_owned();
    let by_leave = by_leave.into_iter().chain(accepts.then_some(Deed { place, what })).collect();
    Ok(Plan { by_leave, deeds, kept_for_salvage, found })
}

const fn is_unaccepted_gap(problem: &Problem) -> bool {
    matches!(
        problem,
        Problem::CommitMissing { is_accepted: false } | Problem::CommitBroken { is_accepted: false }
    )
}

/// The first log that is missing before newer ones: there may be more.
async fn logs_to_give_up(engine: &Engine) -> Result<Vec<Deed>, MaintError> {
    let missing = engine.missing_log().await?;
    let what = "gives it up, and whatever other logs are missing, with all that was committed in them";
    Ok(missing.map(|place| Deed { place, what: what.to_owned() }).into_iter().collect())
}

/// Repairs a volume that is held, in commits like those of a mount. Given a `plan`, does nothing if that is
/// not what would be done any more.
///
/// # Errors
/// As [`plan`]; [`MaintError::Moving`] if it is another plan by now; another writer takes over.
pub async fn repair(
    volume: &mut Seized,
    options: &RepairOptions,
    plan: Option<&Plan>,
    watch: Watch<'_>,
) -> Result<Outcome, MaintError> {
    let (engine, vault) = (volume.engine.clone(), volume.vault.clone());
    let accepted = volume.accepted_upto().await?;
    let mut source = Source { engine, vault, pin: None, accepted, is_alone: true };
    let (mut deeds, mut kept_for_salvage) = (Vec::new(), false);
    let (mut freed, mut let_go, mut settled) = (HashSet::new(), LiveDelta::new(), HashSet::new());
    for number in 0..ROUNDS_MAX {
        let holder = Some(volume.holder.clone());
        let round =
            Round { freed, let_go, settled, maker: (volume.holder.device, volume.holder.session), holder };
        let found = look(&source, options, watch).await?;
        let mut mender = Box::pin(decide(&found, options, round)).await?;
        if number == 0
            && let Some(plan) = plan
            && plan.deeds != mender.deeds
            // Behind a log that is given up there is more to be seen.
            && !volume.has_given_up_logs
        {
            return Err(MaintError::Moving);
        }
        kept_for_salvage = mender.kept_for_salvage;
        if mender.desk.is_empty() {
            break;
        }
        mender.desk.commit(mender.now, |commit, hash, counter| volume.note(commit, hash, counter)).await?;
        deeds.append(&mut mender.deeds);
        (freed, let_go, settled) = (mender.freed, mender.let_go, mender.settled);
    }
    deeds.extend(Box::pin(accept(volume, &mut source, options)).await?);
    let left = Box::pin(finish(volume, &source, options, watch)).await?;
    Ok(Outcome { deeds, left, kept_for_salvage })
}

/// A commit from which every machine goes on, whatever came before it: only if an admin has asked for that, and there
/// is something to accept. What a store has withheld looks the same as what was damaged, so that no repair does it by
/// itself.
async fn accept(
    volume: &mut Seized,
    source: &mut Source,
    options: &RepairOptions,
) -> Result<Option<Deed>, MaintError> {
    let superblock = volume.superblock().await?;
    let now = options.clock.now();
    let Some(acceptance) = volume.accept(&superblock, now).await? else { return Ok(None) };
    let maker = (volume.holder.device, volume.holder.session);
    let mut desk = Desk::new(source.engine.clone(), source.vault.clone(), superblock, maker);
    for number in source.engine.logs_given_up() {
        desk.put(Key::LostLog(number), Some(Record::LostLog));
    }
    desk.put(Key::Acceptance, Some(Record::Acceptance(Arc::new(acceptance.clone()))));
    desk.commit(now, |commit, hash, counter| volume.note_accepted(commit, hash, counter, &acceptance))
        .await?;
    source.accepted = volume.accepted_upto().await?;
    let what = format!("accepts the history as it is at commit {}, by the admin's key", acceptance.commit);
    Ok(Some(Deed { place: "the volume".to_owned(), what }))
}

/// Looks once more, and lets the volume go.
async fn finish(
    volume: &mut Seized,
    source: &Source,
    options: &RepairOptions,
    watch: Watch<'_>,
) -> Result<Report, MaintError> {
    let found = look(source, options, watch).await?;
    if let Some(superblock) = &found.superblock {
        let_go(volume, source, superblock, options).await?;
    }
    found.into_report().await
}

/// A last commit that says that nobody holds the volume, if one says that somebody does.
async fn let_go(
    volume: &mut Seized,
    source: &Source,
    superblock: &Superblock,
    options: &RepairOptions,
) -> Result<(), MaintError> {
    if superblock.holder.is_none() {
        return Ok(());
    }
    let maker = (volume.holder.device, volume.holder.session);
    let free = Superblock { holder: None, ..superblock.clone() };
    let mut desk = Desk::new(source.engine.clone(), source.vault.clone(), free, maker);
    desk.commit(options.clock.now(), |commit, hash, counter| volume.note(commit, hash, counter)).await
}

async fn look<'a>(
    source: &'a Source,
    options: &RepairOptions,
    watch: Watch<'a>,
) -> Result<Survey<'a>, MaintError> {
    let check = CheckOptions { read_data: false, findings_max: options.findings_max };
    let mut found = Box::pin(survey(source, &check, watch, async || Ok(None))).await?;
    found.find_paths().await?;
    Ok(found)
}

async fn decide<'a>(
    found: &'a Survey<'a>,
    options: &RepairOptions,
    round: Round,
) -> Result<Mender<'a>, MaintError> {
    let mut superblock = found.superblock.clone().unwrap_or_default();
    superblock.holder = round.holder.or(superblock.holder);
    let source = found.source;
    let desk = Desk::new(source.engine.clone(), source.vault.clone(), superblock, round.maker);
    let mut mender = Mender {
        survey: found,
        desk,
        deeds: Vec::new(),
        now: options.clock.now(),
        salvages: options.salvage,
        lost_and_found: None,
        rebuilt: BTreeMap::new(),
        freed: round.freed,
        let_go: round.let_go,
        settled: round.settled,
        kept_for_salvage: false,
        gappy: found.findings.kept.iter().filter_map(gappy).collect(),
    };
    mender.decide().await?;
    // Counts are those of records as they are; where those change, they are counted again.
    let counts = mender.desk.is_empty();
    for finding in &found.findings.kept {
        if counts {
            mender.recount(finding).await?;
        }
    }
    Ok(mender)
}

/// The file, if it is one of whose pages some are missing.
const fn gappy(finding: &Finding) -> Option<Ino> {
    match (&finding.subject, &finding.problem) {
        (Subject::Inode(ino), Problem::PagesMissing { .. }) => Some(*ino),
        _ => None,
    }
}

impl Mender<'_> {
    /// Writes down what was counted.
    async fn recount(&mut self, finding: &Finding) -> Result<(), MaintError> {
        match (&finding.subject, &finding.problem) {
            (Subject::Volume, Problem::Totals { counted, .. }) => {
                let (files, bytes) = *counted;
                self.desk.change_super(|superblock| {
                    (superblock.files, superblock.bytes) = (files, bytes);
                });
                self.tell(finding, format!("notes {files} inodes and {bytes} bytes"));
            }
            (Subject::Segment(id), Problem::LiveBytes { .. }) => self.recount_segment(finding, *id).await?,
            (Subject::Inode(ino), problem) => {
                let text = match *problem {
                    Problem::LinkCount { counted, .. } => {
                        self.desk.change(*ino, |inode| inode.nlink = counted).await?;
                        format!("notes {counted} links")
                    }
                    Problem::EntryCount { counted, .. } => {
                        self.desk.change(*ino, |inode| inode.entries = counted).await?;
                        format!("notes {counted} entries")
                    }
                    Problem::XattrCount { counted, .. } => {
                        self.desk.change(*ino, |inode| inode.xattrs = counted).await?;
                        format!("notes {counted} attributes")
                    }
                    Problem::Allocated { counted, .. } => {
                        self.desk.change(*ino, |inode| inode.allocated = counted).await?;
                        format!("notes {counted} stored bytes")
                    }
                    _ => return Ok(()),
                };
                self.tell(finding, text);
            }
            _ => {}
        }
        Ok(())
    }
}
