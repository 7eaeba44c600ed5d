//! What a repair owes to whoever asks for it, whatever the damage was.

use coffer::base::{FileKind, Ino};
use coffer::maint::{self, MaintError, Outcome, Problem, Severity};
use coffer::volume::VolumeError;

use super::{Seen, Tree, World, repair_options, told};

/// What no repair can bring back, and what it leaves to a salvage.
pub fn is_lost_for_good(problem: &Problem) -> bool {
    match problem {
        Problem::BlocksLost { .. }
        | Problem::SegmentMissing { .. }
        | Problem::SegmentUnrecorded { is_there: false, .. }
        | Problem::HeaderBroken { .. }
        | Problem::SegmentHead
        | Problem::SegmentFooter
        | Problem::CommitMissing { .. }
        | Problem::CommitBroken { .. }
        | Problem::Leftover { .. } => true,
        Problem::LiveBytes { recorded, counted } => recorded > counted,
        Problem::SegmentLength { recorded, actual } => actual > recorded,
        other => other.severity() == Severity::Note,
    }
}

/// Repairs a damaged copy, and holds what came out against what could be read before.
pub async fn mend(world: &World, golden: &Tree, what: &str, salvage: bool) -> Tree {
    let before = world.tree().await.unwrap_or_default();
    let outcome = world.repair(salvage).await;
    let text = || format!("{what}\n{:#?}{}", outcome.deeds, told(&outcome.left));
    let left = outcome.left.findings.iter().find(|found| !is_lost_for_good(&found.problem));
    assert!(left.is_none(), "left: {left:?} of {}", text());
    let checked = world.check(false).await;
    let left = checked.findings.iter().find(|found| !is_lost_for_good(&found.problem));
    assert!(left.is_none(), "found after the repair: {left:?} of {}", text());
    let after = world.tree().await.unwrap_or_else(|| panic!("it cannot be mounted: {}", text()));
    // What read wrongly before, as zeros for instance, need not do so ever after.
    for (path, seen) in golden.iter().filter(|(path, seen)| before.get(*path) == Some(seen)) {
        let kept = |other: &Result<Seen, String>| {
            let (Ok(seen), Ok(other)) = (seen, other) else { return false };
            (&other.contents, other.size) == (&seen.contents, seen.size) || seen.kind == FileKind::Directory
        };
        let is_there = after.get(path).is_some_and(kept) || after.values().any(kept);
        assert!(
            is_there,
            "{} read before the repair of {}\n{:?}",
            path.escape_ascii(),
            text(),
            after.keys().map(|k| String::from_utf8_lossy(k).into_owned()).collect::<Vec<_>>()
        );
    }
    let again = world.repair(salvage).await;
    assert!(again.deeds.is_empty(), "again: {:#?} after {}", again.deeds, text());
    assert_eq!(again.left.commit, checked.commit, "{}", text());
    after
}

/// Everything in a repaired volume can be removed, and leaves nothing.
pub async fn remove_all(world: &World, what: &str) {
    let tree = world.tree().await.unwrap();
    let opened = world.mount(false).await;
    for (path, seen) in tree.iter().rev() {
        let Some(at) = path.iter().rposition(|byte| *byte == b'/') else { continue };
        let (dir, name) = (&path[..at], &path[at + 1..]);
        let dir = tree.get(dir).map_or(Ino::ROOT, |dir| dir.as_ref().unwrap().ino);
        if seen.as_ref().is_ok_and(|seen| seen.kind == FileKind::Directory) {
            opened.vfs.rmdir(dir, name).await.unwrap();
        } else {
            opened.vfs.unlink(dir, name).await.unwrap();
        }
    }
    opened.vfs.sync_all().await.unwrap();
    opened.close().await.unwrap();
    let report = world.check(true).await;
    let wrong = report.findings.iter().find(|found| {
        found.problem.severity() > Severity::Harmless
            || !is_lost_for_good(&found.problem) && found.problem != Problem::Garbage
    });
    assert!(wrong.is_none(), "{what}: after everything was removed{}", told(&report));
    assert_eq!(report.totals.files, 1, "{what}{}", told(&report));
}

/// A repair that may find that it cannot begin or go on: whether that is for damage, and what it says.
pub async fn try_repair(world: &World, salvage: bool) -> Result<Outcome, (bool, String)> {
    let volume = |error: VolumeError| {
        let is_damage = match &error {
            VolumeError::Meta(error) => error.is_damage(),
            VolumeError::Vault(error) => error.is_damage(),
            VolumeError::Woven { .. } | VolumeError::Key(_) => true,
            _ => false,
        };
        (is_damage, format!("{error} ({error:?})"))
    };
    let mut seized = world.seize().await.map_err(volume)?;
    let repaired = Box::pin(maint::repair(&mut seized, &repair_options(salvage), None, &|_| ())).await;
    let closed = seized.close().await;
    let outcome = repaired.map_err(|error| match error {
        MaintError::Volume(error) => volume(error),
        MaintError::Meta(error) => volume(error.into()),
        error => (false, format!("{error} ({error:?})")),
    })?;
    closed.map_err(volume)?;
    Ok(outcome)
}
