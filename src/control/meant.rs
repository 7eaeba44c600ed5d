//! Which of the known mounts a path means.

use std::path::{Path, PathBuf};

use super::MountEntry;
use crate::fuse::{Device, device_of, mount_point_of};

/// The mount at `path`, or the one that `path` is in; in the error, the one whose process has died. A mount point itself is
/// not touched if its directory already tells which it is.
///
/// Where a volume shows, its device tells, and nothing else: at one place one may have ended whose changes are still being saved, one may
/// lie below another, and one may be in another mount namespace. Where none shows, the path tells of what has ended.
pub(super) fn meant<'a>(
    running: &'a [MountEntry],
    dead: &'a [MountEntry],
    path: &Path,
) -> Result<&'a MountEntry, Option<&'a MountEntry>> {
    if running.is_empty() && dead.is_empty() {
        return Err(None);
    }
    among(running, dead, path, shown(path))
}

/// As [`meant`], where `shown` is the device that shows at a place.
fn among<'a>(
    running: &'a [MountEntry],
    dead: &'a [MountEntry],
    path: &Path,
    shown: Option<(Device, PathBuf)>,
) -> Result<&'a MountEntry, Option<&'a MountEntry>> {
    let Some((device, place)) = shown else {
        return choose(running.iter().collect(), path).ok_or_else(|| choose(dead.iter().collect(), path));
    };
    let device = device.to_string();
    let here = |entry: &&MountEntry| entry.device == device && !entry.ended;
    // What an older process has written tells no device.
    let untold = |entries: &'a [MountEntry]| {
        choose(entries.iter().filter(|entry| entry.device.is_empty()).collect(), path)
    };
    if let Some(entry) = newest(running.iter().filter(here), &place) {
        return Ok(entry);
    }
    if let Some(entry) = newest(dead.iter().filter(here), &place) {
        return Err(Some(entry));
    }
    untold(running).ok_or_else(|| untold(dead))
}

/// The device of the volume that shows at `path`, whatever path it was mounted at.
fn shown(path: &Path) -> Option<(Device, PathBuf)> {
    let is_point = |path: &PathBuf| mount_point_of(path).as_ref() == Some(path);
    let real = beside(path).filter(is_point).or_else(|| path.canonicalize().ok())?;
    Some((device_of(&real)?, real))
}

/// The one that was mounted last and is mounted still, if one is.
fn newest<'a>(entries: impl Iterator<Item = &'a MountEntry>, place: &Path) -> Option<&'a MountEntry> {
    entries.max_by_key(|entry| (!entry.ended, entry.since, entry.mountpoint == place, entry.started))
}

/// The mount at `path`, or around it.
fn choose<'a>(entries: Vec<&'a MountEntry>, path: &Path) -> Option<&'a MountEntry> {
    let at = |point: &Path| newest(entries.iter().copied().filter(|entry| entry.mountpoint == point), point);
    let beside = || at(&beside(path)?);
    let through = || at(&path.canonicalize().ok()?);
    let around = || at(&mount_point_of(&path.canonicalize().ok()?)?);
    if entries.is_empty() { None } else { beside().or_else(through).or_else(around) }
}

/// `path` with the links resolved of the directory that it is in.
fn beside(path: &Path) -> Option<PathBuf> {
    let path = std::path::absolute(path).ok()?;
    Some(path.parent()?.canonicalize().ok()?.join(path.file_name()?))
}

/// The path without links; of a mount point itself, which may be closed to this user, those of its directory.
pub(super) fn full(path: &Path) -> Option<PathBuf> {
    path.canonicalize().ok().or_else(|| beside(path))
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLACE: &str = "/";

    fn entry(device: u32, since: i64) -> MountEntry {
        MountEntry {
            mountpoint: PLACE.into(),
            device: format!("0:{device}"),
            url: "memory:".into(),
            volume: "v".into(),
            fingerprint: String::new(),
            pid: 1,
            started: 0,
            ended: false,
            since,
            socket: PathBuf::new(),
        }
    }

    type Found<'a> = Result<&'a MountEntry, Option<&'a MountEntry>>;

    fn found<'a>(running: &'a [MountEntry], dead: &'a [MountEntry], device: Option<u32>) -> Found<'a> {
        let shown = device.map(|minor| (Device { major: 0, minor }, PLACE.into()));
        among(running, dead, Path::new(PLACE), shown)
    }

    #[test]
    fn a_mount_that_has_ended_and_is_being_saved_is_not_taken_for_one_that_has_its_place_or_its_number() {
        let saving = MountEntry { ended: true, ..entry(7, 9) };
        for present in [entry(7, 9), entry(8, 1), MountEntry { mountpoint: "/else".into(), ..entry(7, 1) }] {
            let device = if present.device == "0:7" { 7 } else { 8 };
            for entries in [[saving.clone(), present.clone()], [present.clone(), saving.clone()]] {
                assert_eq!(found(&entries, &[], Some(device)), Ok(&present));
            }
        }
        // Before it has said so.
        let (early, late) =
            (MountEntry { started: 1, ..entry(7, 9) }, MountEntry { started: 2, ..entry(7, 9) });
        for entries in [[early.clone(), late.clone()], [late.clone(), early]] {
            assert_eq!(found(&entries, &[], Some(7)), Ok(&late));
        }
        assert_eq!(found(std::slice::from_ref(&saving), &[], Some(7)), Err(None), "it is another's");
        assert_eq!(
            found(std::slice::from_ref(&saving), &[], None),
            Ok(&saving),
            "how far it is can be asked"
        );
    }

    #[test]
    fn what_shows_is_meant_and_not_what_was_mounted_there_as_well() {
        let (one, other) = (entry(7, 1), entry(8, 2));
        let both = [one.clone(), other.clone()];
        assert_eq!((found(&both, &[], Some(7)), found(&both, &[], Some(8))), (Ok(&one), Ok(&other)));
        assert_eq!(found(&both, &[], Some(9)), Err(None));
        let (running, dead) = (std::slice::from_ref(&one), std::slice::from_ref(&other));
        assert_eq!(found(running, dead, Some(8)), Err(Some(&other)), "the one that shows has died");
        assert_eq!(found(running, dead, Some(7)), Ok(&one));
    }

    #[test]
    fn what_an_older_process_has_written_is_known_by_its_path() {
        let old = MountEntry { device: String::new(), ..entry(0, 1) };
        let entries = std::slice::from_ref(&old);
        assert_eq!(found(entries, &[], Some(7)), Ok(&old));
        assert_eq!(found(&[], entries, Some(7)), Err(Some(&old)));
    }
}
