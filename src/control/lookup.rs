//! Finds the mounts of a user wherever they are known, and says whose a mount is that is not.

use std::path::Path;

use super::meant::full;
use super::{ControlError, MountEntry, Registry};
use crate::fuse::owner_of;

/// All running mounts of the user who runs this process.
///
/// # Errors
/// As [`Registry::of_user`], if there is no registry of another kind either.
pub fn mounts() -> Result<Vec<MountEntry>, ControlError> {
    look().map(|(running, _)| running)
}

/// The same, and those that are still listed though their process has died.
///
/// # Errors
/// As [`mounts`].
pub fn look() -> Result<(Vec<MountEntry>, Vec<MountEntry>), ControlError> {
    let (mut running, mut dead) = (Vec::new(), Vec::new());
    for registry in registries()? {
        let (here, dead_here) = registry.look();
        running.extend(here);
        dead.extend(dead_here);
    }
    dead.retain(|entry| running.iter().all(|other: &MountEntry| !other.is_at_place_of(entry)));
    Ok((running, dead))
}

/// The user's mount at `path`, or the one that `path` is in.
///
/// # Errors
/// [`ControlError::Died`], [`ControlError::NotMounted`], [`ControlError::OfAnother`] or [`ControlError::Unknown`].
pub fn find(path: &Path) -> Result<MountEntry, ControlError> {
    let mut died = None;
    for registry in registries()? {
        match registry.find(path) {
            Ok(entry) => return Ok(entry),
            Err(error @ ControlError::Died { .. }) => died = Some(error),
            Err(_) => {}
        }
    }
    Err(died.unwrap_or_else(|| explain(path)))
}

fn registries() -> Result<Vec<Registry>, ControlError> {
    let others = Registry::others_of_user();
    match Registry::of_user() {
        Ok(first) => Ok(std::iter::once(first).chain(others).collect()),
        Err(_) if !others.is_empty() => Ok(others),
        Err(error) => Err(error),
    }
}

/// Why there is nothing to be found.
fn explain(path: &Path) -> ControlError {
    let point = path.to_owned();
    let user = rustix::process::geteuid().as_raw();
    match full(path).and_then(|full| owner_of(&full)) {
        None => ControlError::NotMounted(point),
        Some(uid) if uid == user => ControlError::Unknown(point),
        Some(uid) => ControlError::OfAnother { point, uid },
    }
}
