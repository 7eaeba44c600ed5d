//! What this machine has last seen of a volume, so that a rolled-back bucket is noticed.
//!
//! A file `<state>/<volume id>/pin`: commit number, its hash, and a MAC under the volume's `pin` key.
//! Beside it `lock`, held while the volume is mounted for writing, and `device`, this machine's id.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use crate::base::{Entropy, VolumeId};
use crate::crypto::{KeyRing, MacLabel};

use super::VolumeError;

const PIN_BYTES: usize = 8 + 32 + 32;

/// The local state of one volume.
#[derive(Debug)]
pub(super) struct LocalState {
    folder: PathBuf,
    volume: VolumeId,
}

/// A commit that was seen.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Pin {
    pub(super) commit: u64,
    pub(super) hash: [u8; 32],
}

impl LocalState {
    /// Opens, and makes if need be, the local state of `volume` under `state`.
    pub(super) fn open(state: &Path, volume: VolumeId) -> Result<Self, VolumeError> {
        let folder = state.join(volume.to_string());
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700);
        builder.create(&folder).map_err(|source| VolumeError::State { path: folder.clone(), source })?;
        Ok(Self { folder, volume })
    }

    fn fail(&self, name: &str, source: std::io::Error) -> VolumeError {
        VolumeError::State { path: self.folder.join(name), source }
    }

    /// Takes the lock that one writer of this machine holds; `None` if another has it.
    pub(super) fn lock(&self) -> Result<Option<File>, VolumeError> {
        let path = self.folder.join("lock");
        let file = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(path);
        let file = file.map_err(|source| self.fail("lock", source))?;
        match file.try_lock() {
            Ok(()) => Ok(Some(file)),
            Err(fs::TryLockError::WouldBlock) => Ok(None),
            Err(fs::TryLockError::Error(source)) => Err(self.fail("lock", source)),
        }
    }

    /// This machine's id for the volume, drawn at its first use.
    pub(super) fn device(&self, entropy: &dyn Entropy) -> Result<[u8; 16], VolumeError> {
        let path = self.folder.join("device");
        if let Ok(bytes) = fs::read(&path)
            && let Ok(device) = bytes.try_into()
        {
            return Ok(device);
        }
        let mut device = [0; 16];
        entropy.fill(&mut device);
        replace(&path, &device).map_err(|source| self.fail("device", source))?;
        Ok(device)
    }

    /// The commit last seen here; `None` at first contact.
    pub(super) fn read(&self, ring: &KeyRing) -> Result<Option<Pin>, VolumeError> {
        let path = self.folder.join("pin");
        let bytes = match fs::read(&path) {
            Ok(bytes) => bytes,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
            Err(source) => return Err(self.fail("pin", source)),
        };
        let bad = || VolumeError::BadPin { path: path.clone() };
        let bytes: [u8; PIN_BYTES] = bytes.try_into().map_err(|_| bad())?;
        let (commit, rest) = bytes.split_first_chunk::<8>().ok_or_else(bad)?;
        let (hash, mac) = rest.split_first_chunk::<32>().ok_or_else(bad)?;
        if !ring.verify_mac(MacLabel::Pin, &[&self.volume.0, commit, hash], mac) {
            return Err(bad());
        }
        Ok(Some(Pin { commit: u64::from_be_bytes(*commit), hash: *hash }))
    }

    /// Notes that `pin` has been seen, unless a later commit has been: a reader of this machine ends
    /// with an older one than the writer beside it.
    pub(super) fn write(&self, ring: &KeyRing, pin: Pin) -> Result<(), VolumeError> {
        if self.read(ring)?.is_some_and(|noted| noted.commit >= pin.commit) {
            return Ok(());
        }
        let commit = pin.commit.to_be_bytes();
        let mac = ring.mac(MacLabel::Pin, &[&self.volume.0, &commit, &pin.hash]);
        let bytes = [&commit[..], &pin.hash, &mac].concat();
        replace(&self.folder.join("pin"), &bytes).map_err(|source| self.fail("pin", source))
    }
}

/// Replaces a file's contents in one step.
fn replace(path: &Path, bytes: &[u8]) -> std::io::Result<()> {
    let new = path.with_extension("new");
    let mut file = OpenOptions::new().create(true).truncate(true).write(true).mode(0o600).open(&new)?;
    file.write_all(bytes)?;
    file.sync_data()?;
    fs::rename(new, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SeededEntropy;
    use crate::crypto::{Epoch, Key};

    fn ring(seed: u64) -> KeyRing {
        KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::random(&SeededEntropy::new(seed)))
    }

    #[test]
    fn a_pin_reads_back_and_an_altered_or_foreign_one_is_refused() {
        let folder = tempfile::tempdir().unwrap();
        let state = LocalState::open(folder.path(), VolumeId([1; 16])).unwrap();
        assert_eq!(state.read(&ring(1)).unwrap(), None);
        let pin = Pin { commit: 7, hash: [9; 32] };
        state.write(&ring(1), pin).unwrap();
        assert_eq!(state.read(&ring(1)).unwrap(), Some(pin));
        state.write(&ring(1), Pin { commit: 6, hash: [1; 32] }).unwrap();
        assert_eq!(state.read(&ring(1)).unwrap(), Some(pin), "it never goes back");
        assert!(state.read(&ring(2)).is_err());
        let path = folder.path().join(VolumeId([1; 16]).to_string()).join("pin");
        let mut bytes = fs::read(&path).unwrap();
        bytes[7] ^= 1;
        fs::write(&path, bytes).unwrap();
        assert!(matches!(state.read(&ring(1)), Err(VolumeError::BadPin { .. })));
    }

    #[test]
    fn one_writer_of_a_machine_holds_the_lock() {
        let folder = tempfile::tempdir().unwrap();
        let state = LocalState::open(folder.path(), VolumeId([1; 16])).unwrap();
        let held = state.lock().unwrap();
        assert!(held.is_some());
        assert!(state.lock().unwrap().is_none());
        drop(held);
        assert!(state.lock().unwrap().is_some());
    }

    #[test]
    fn a_device_keeps_its_id() {
        let folder = tempfile::tempdir().unwrap();
        let state = LocalState::open(folder.path(), VolumeId([1; 16])).unwrap();
        let first = state.device(&SeededEntropy::new(1)).unwrap();
        assert_eq!(state.device(&SeededEntropy::new(2)).unwrap(), first);
    }
}
