//! The state folder of one volume: the pin, this machine's id, and the lock of its one writer.
//! (`docs/FORMAT.md`, "Local state")

use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::{Entropy, VolumeId};
use crate::crypto::KeyRing;

use super::VolumeError;
use super::pin::{BadPin, PIN_BYTES, Pin};

/// Most sessions that are noted. Each is a mount that ended before it held the volume.
const SESSIONS_MAX: usize = 64;

/// The local state of one volume. Nothing is made before something is written.
#[derive(Debug)]
pub(super) struct LocalState {
    folder: PathBuf,
    volume: VolumeId,
}

/// What lies in the folder, not yet checked by the volume's keys.
#[derive(Debug, Default)]
pub(super) struct Found {
    pin: Option<Vec<u8>>,
    device: Option<[u8; 16]>,
    /// How many bytes there are instead of an id.
    device_bytes: Option<usize>,
}

impl Found {
    /// Whether there is a note without the id of the machine that made it.
    pub(super) const fn lacks_device(&self) -> bool {
        self.pin.is_some() && self.device.is_none()
    }

    /// Whether the volume was seen before.
    pub(super) const fn has_pin(&self) -> bool {
        self.pin.is_some()
    }
}

impl LocalState {
    /// The local state of `volume` under `state`.
    pub(super) fn new(state: &Path, volume: VolumeId) -> Self {
        Self { folder: state.join(volume.to_string()), volume }
    }

    /// The volume that it is of.
    pub(super) const fn volume(&self) -> VolumeId {
        self.volume
    }

    fn fail(&self, name: &str, source: std::io::Error) -> VolumeError {
        VolumeError::State { path: self.folder.join(name), source }
    }

    fn make(&self) -> Result<(), VolumeError> {
        let made = fs::DirBuilder::new().recursive(true).mode(0o700).create(&self.folder);
        made.map_err(|source| VolumeError::State { path: self.folder.clone(), source })
    }

    /// Takes the lock that one writer of this machine holds; `None` if another has it.
    pub(super) fn lock(&self) -> Result<Option<File>, VolumeError> {
        let file = self.open_lock("lock")?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(self.fail("lock", source)),
        }
    }

    fn open_lock(&self, name: &str) -> Result<File, VolumeError> {
        self.make()?;
        let path = self.folder.join(name);
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        file.map_err(|source| self.fail(name, source))
    }

    /// The sessions that this machine may hold the volume by.
    pub(super) fn sessions(&self) -> Result<Vec<[u8; 16]>, VolumeError> {
        let bytes = self.read_file("sessions")?.unwrap_or_default();
        Ok(bytes.chunks_exact(16).filter_map(|chunk| chunk.try_into().ok()).collect())
    }

    /// Notes that a session is about to hold the volume. Those before it stay: until it does, one of
    /// them may.
    pub(super) fn begin_session(&self, session: [u8; 16]) -> Result<(), VolumeError> {
        let mut all = self.sessions()?;
        all.truncate(SESSIONS_MAX - 1);
        all.push(session);
        self.write_sessions(&all)
    }

    /// Notes that a session holds the volume, and no other.
    pub(super) fn hold_session(&self, session: [u8; 16]) -> Result<(), VolumeError> {
        self.write_sessions(&[session])
    }

    fn write_sessions(&self, all: &[[u8; 16]]) -> Result<(), VolumeError> {
        replace(&self.folder.join("sessions"), all.as_flattened()).map_err(|e| self.fail("sessions", e))
    }

    /// What lies in the folder. To be read before anything is read from the bucket, so that a mount
    /// beside this process cannot have got ahead of what the bucket is about to show.
    pub(super) fn look(&self) -> Result<Found, VolumeError> {
        let bytes = self.read_file("device")?;
        let device = bytes.as_deref().and_then(|bytes| bytes.try_into().ok());
        let device_bytes = bytes.filter(|_| device.is_none()).map(|bytes| bytes.len());
        Ok(Found { pin: self.read_file("pin")?, device, device_bytes })
    }

    fn read_file(&self, name: &str) -> Result<Option<Vec<u8>>, VolumeError> {
        match fs::read(self.folder.join(name)) {
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) if error.kind() == ErrorKind::NotFound => Ok(None),
            Err(source) => Err(self.fail(name, source)),
        }
    }

    /// The pin that was found; `None` at first contact.
    ///
    /// # Errors
    /// It is gone although this machine knows the volume (`is_known`, or by its device id), it is
    /// another volume's or another machine's, or it was altered.
    pub(super) fn check(
        &self,
        found: &Found,
        ring: &KeyRing,
        is_known: bool,
    ) -> Result<Option<Pin>, VolumeError> {
        if let Some(bytes) = found.device_bytes {
            let what = format!("this machine's id has {bytes} bytes instead of 16");
            return Err(VolumeError::PinAltered { path: self.folder.join("device"), what });
        }
        let path = self.folder.join("pin");
        let Some(bytes) = &found.pin else {
            return match is_known || found.device.is_some() {
                true => Err(VolumeError::PinLost { path, volume: self.volume }),
                false => Ok(None),
            };
        };
        let foreign = |expected: String, found: String| VolumeError::PinForeign {
            path: self.folder.join("pin"),
            expected,
            found,
        };
        match Pin::decode(bytes, ring) {
            Ok(pin) => match found.device {
                Some(device) if device != pin.device => Err(foreign(
                    format!("machine {}", short(&device)),
                    format!("machine {}", short(&pin.device)),
                )),
                _ => Ok(Some(pin)),
            },
            Err(BadPin::Foreign(other)) => {
                Err(foreign(format!("volume {}", self.volume), format!("volume {other}")))
            }
            Err(BadPin::Altered(what)) => Err(VolumeError::PinAltered {
                path,
                what: match bytes.len() {
                    PIN_BYTES => format!("{what} is wrong"),
                    other => format!("it has {other} bytes instead of {PIN_BYTES}"),
                },
            }),
        }
    }

    /// The pin as it is now; `None` if there is none that is right.
    pub(super) fn current(&self, ring: &KeyRing) -> Result<Option<Pin>, VolumeError> {
        Ok(self.look()?.pin.and_then(|bytes| Pin::decode(&bytes, ring).ok()))
    }

    /// Notes what `pin` says, together with what is known that is newer: a reader of this machine ends
    /// with an older commit than the writer beside it. Says whether it was: what was noted with a newer key than those
    /// of `ring` stays as it is.
    pub(super) fn note(&self, ring: &KeyRing, pin: Pin) -> Result<bool, VolumeError> {
        self.write(ring, |current, found| match (current, found) {
            (Some(current), _) => Some(current.merged_with(pin)),
            (None, Some(bytes)) if Pin::claimed_revision(bytes) > Some(pin.seen.revision) => None,
            (None, _) => Some(pin),
        })
    }

    /// Notes what `pin` says instead of what was known: a rollback was accepted, or trust begins anew.
    pub(super) fn begin_anew(&self, ring: &KeyRing, pin: Pin) -> Result<bool, VolumeError> {
        self.write(ring, |_, _| Some(pin))
    }

    /// Replaces the pin by what `pin` makes of the one that is there, if it is right, and of its bytes.
    fn write(
        &self,
        ring: &KeyRing,
        pin: impl FnOnce(Option<Pin>, Option<&[u8]>) -> Option<Pin>,
    ) -> Result<bool, VolumeError> {
        let turn = self.open_lock("pin.lock")?;
        turn.lock().map_err(|source| self.fail("pin.lock", source))?;
        let found = self.look()?;
        let current = found.pin.as_deref().and_then(|bytes| Pin::decode(bytes, ring).ok());
        let Some(pin) = pin(current, found.pin.as_deref()) else { return Ok(false) };
        let path = self.folder.join("device");
        if found.device.is_some_and(|device| device != pin.device) || found.device_bytes.is_some() {
            // First, so that at no time there is the one machine's id beside the other's note.
            fs::remove_file(&path).map_err(|e| self.fail("device", e))?;
        }
        if Some(pin) != current {
            replace(&self.folder.join("pin"), &pin.encode(ring)).map_err(|e| self.fail("pin", e))?;
        }
        // Only now: an id without a pin says that the pin was lost.
        if found.device != Some(pin.device) {
            replace(&path, &pin.device).map_err(|e| self.fail("device", e))?;
        }
        Ok(true)
    }
}

/// An id for this machine, never used before.
pub(super) fn new_device(entropy: &dyn Entropy) -> [u8; 16] {
    let mut device = [0; 16];
    entropy.fill(&mut device);
    device
}

/// The first bytes of an id or a hash, as they are shown.
pub(super) fn short(bytes: &[u8]) -> String {
    data_encoding::HEXLOWER.encode(bytes.get(..16).unwrap_or(bytes))
}

/// Replaces a file's contents in one step that outlives a loss of power.
pub(super) fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    fs::rename(new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::super::pin::tests::{VOLUME, pin, ring};
    use super::*;

    fn state() -> (tempfile::TempDir, LocalState) {
        let folder = tempfile::tempdir().unwrap();
        let state = LocalState::new(folder.path(), VOLUME);
        (folder, state)
    }

    fn checked(state: &LocalState, is_known: bool) -> Result<Option<Pin>, VolumeError> {
        state.check(&state.look().unwrap(), &ring(VOLUME, 1), is_known)
    }

    #[test]
    fn a_pin_is_kept_and_goes_back_only_where_trust_begins_anew() {
        let (_folder, state) = state();
        assert!(checked(&state, false).unwrap().is_none());
        let ring = ring(VOLUME, 1);
        state.note(&ring, pin(7)).unwrap();
        state.note(&ring, pin(6)).unwrap();
        assert_eq!(checked(&state, true).unwrap(), Some(pin(7)));
        state.begin_anew(&ring, pin(6)).unwrap();
        assert_eq!(checked(&state, true).unwrap(), Some(pin(6)));
    }

    #[test]
    fn what_was_noted_with_a_newer_key_is_left_by_who_does_not_have_it() {
        let (_folder, state) = state();
        let (old, new) = (ring(VOLUME, 1), ring(VOLUME, 2));
        let mut newer = pin(7);
        newer.seen.revision += 1;
        assert!(state.note(&new, newer).unwrap());
        assert!(!state.note(&old, pin(9)).unwrap());
        assert_eq!(state.current(&new).unwrap(), Some(newer));
        // A note that is no newer is one that was altered.
        assert!(state.begin_anew(&new, pin(7)).unwrap() && state.note(&old, pin(9)).unwrap());
        assert_eq!(state.current(&old).unwrap(), Some(pin(9)));
    }

    #[test]
    fn a_lost_a_foreign_and_an_altered_pin_are_told_apart() {
        let (folder, state) = state();
        assert!(matches!(checked(&state, true), Err(VolumeError::PinLost { .. })));
        let ring_of = super::super::pin::tests::ring;
        state.note(&ring_of(VOLUME, 1), pin(7)).unwrap();
        let path = folder.path().join(VOLUME.to_string()).join("pin");
        let good = fs::read(&path).unwrap();
        fs::remove_file(&path).unwrap();
        assert!(matches!(checked(&state, false), Err(VolumeError::PinLost { .. })), "the id is there");

        fs::write(&path, &good[..100]).unwrap();
        let altered = checked(&state, false).unwrap_err();
        assert!(
            matches!(&altered, VolumeError::PinAltered { what, .. } if what.contains("100")),
            "{altered}"
        );
        let moved = LocalState::new(folder.path(), VolumeId([2; 16]));
        moved.make().unwrap();
        fs::write(folder.path().join(VolumeId([2; 16]).to_string()).join("pin"), &good).unwrap();
        let ring = ring_of(VolumeId([2; 16]), 1);
        let foreign = moved.check(&moved.look().unwrap(), &ring, false);
        assert!(matches!(foreign, Err(VolumeError::PinForeign { .. })), "{foreign:?}");

        fs::write(&path, &good).unwrap();
        fs::write(path.with_file_name("device"), [9; 16]).unwrap();
        assert!(matches!(checked(&state, false), Err(VolumeError::PinForeign { .. })));
        fs::write(path.with_file_name("device"), [9; 15]).unwrap();
        let altered = checked(&state, false).unwrap_err();
        let is_told = |path: &Path| path.ends_with("device");
        assert!(matches!(&altered, VolumeError::PinAltered { path, .. } if is_told(path)), "{altered}");
        let ring = ring_of(VOLUME, 1);
        state.begin_anew(&ring, pin(7)).unwrap();
        assert_eq!(checked(&state, true).unwrap(), Some(pin(7)));
        // A process may have died between writing the one and the other.
        fs::remove_file(path.with_file_name("device")).unwrap();
        assert!(state.look().unwrap().lacks_device());
        assert_eq!(checked(&state, true).unwrap(), Some(pin(7)));
    }

    #[test]
    fn one_writer_of_a_machine_holds_the_lock() {
        let (_folder, state) = state();
        let held = state.lock().unwrap();
        assert!(held.is_some());
        assert!(state.lock().unwrap().is_none());
        drop(held);
        assert!(state.lock().unwrap().is_some());
    }
}
