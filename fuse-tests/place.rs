//! Where a test of contents runs: on mounts of a fresh volume, or on an ordinary filesystem to test the test.

use std::path::Path;

use crate::support::servers::Server;
use crate::support::volume::Volume;

/// A tree of files that is there whenever it is looked at.
pub(crate) enum Place {
    /// A volume, mounted anew with no local state each time, and the server that holds it.
    Volume { volume: Box<Volume>, _server: Option<Box<Server>> },
    /// A directory like any other. With `COFFER_TEST_REFERENCE` set, tests run there: what fails is a wrong expectation.
    Reference(tempfile::TempDir),
}

impl Place {
    /// An empty one, in a bucket that is a local directory.
    pub(crate) fn new() -> Place {
        Place::on(None)
    }

    /// An empty one, in a bucket of `server`.
    pub(crate) fn on(server: Option<Server>) -> Place {
        match (std::env::var_os("COFFER_TEST_REFERENCE"), server) {
            (Some(_), _) => Place::Reference(tempfile::tempdir().unwrap()),
            (None, Some(server)) => {
                Place::Volume { volume: Box::new(Volume::on(&server)), _server: Some(Box::new(server)) }
            }
            (None, None) => Place::Volume { volume: Box::new(Volume::local()), _server: None },
        }
    }

    /// Mounts, runs `session` in the root, and unmounts.
    pub(crate) fn mounted<R>(&self, session: impl FnOnce(&Path) -> R) -> R {
        match self {
            Place::Reference(dir) => session(dir.path()),
            Place::Volume { volume, .. } => {
                let mount = volume.mount();
                let result = session(&mount.dir);
                mount.unmount();
                result
            }
        }
    }
}

/// Runs `check` in the root of a fresh volume.
pub(crate) fn on_a_mount(check: impl FnOnce(&Path)) {
    Place::new().mounted(check);
}

/// Runs `before` in the root of a fresh volume and `after` in it when it was mounted again with no local state.
pub(crate) fn across_a_remount(before: impl FnOnce(&Path), after: impl FnOnce(&Path)) {
    let place = Place::new();
    place.mounted(before);
    place.mounted(after);
}
