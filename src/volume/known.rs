//! Which volume was found at which URL, as `known_hosts` has it for machines: so that another volume in
//! its place is noticed before anything is unlocked. (`docs/FORMAT.md`, "Local state")

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::VolumeError;
use super::local::replace;
use crate::keys::Identity;
use crate::store::Bucket;

const FILE: &str = "known-volumes.json";
/// Most bytes of the file; a URL has some hundred.
const BYTES_MAX: u64 = 16 << 20;

/// The volumes that this machine knows by their URLs.
#[derive(Debug)]
pub(super) struct KnownVolumes {
    state: PathBuf,
}

impl KnownVolumes {
    /// Those of the state folder `state`.
    pub(super) fn new(state: &Path) -> Self {
        Self { state: state.to_owned() }
    }

    fn fail(&self, source: std::io::Error) -> VolumeError {
        VolumeError::State { path: self.state.join(FILE), source }
    }

    fn all(&self) -> Result<BTreeMap<String, Identity>, VolumeError> {
        let path = self.state.join(FILE);
        let bytes = match fs::metadata(&path) {
            Ok(about) if about.len() > BYTES_MAX => Err(std::io::Error::other("it is too large")),
            Ok(_) => fs::read(&path),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(BTreeMap::new()),
            Err(error) => Err(error),
        };
        let parsed = serde_json::from_slice(&bytes.map_err(|error| self.fail(error))?);
        let altered = |error: serde_json::Error| VolumeError::PinAltered { path, what: error.to_string() };
        parsed.map_err(altered)
    }

    /// Whether there is no list at all, as on a machine that has never seen a volume.
    pub(super) fn is_gone(&self) -> bool {
        !self.state.join(FILE).exists()
    }

    /// Puts a list aside that was altered, because trust begins anew.
    pub(super) fn put_aside_if_altered(&self) -> Result<(), VolumeError> {
        let Err(error @ VolumeError::PinAltered { .. }) = self.all() else { return Ok(()) };
        let path = self.state.join(FILE);
        let aside = path.with_extension("altered");
        tracing::warn!("{error}; it is put aside as {}, and places are noted anew", aside.display());
        fs::rename(&path, &aside).map_err(|error| self.fail(error))
    }

    /// The volume that was last found in `bucket`.
    pub(super) fn at(&self, bucket: &Bucket) -> Result<Option<Identity>, VolumeError> {
        Ok(self.all()?.remove(bucket.known_as()).filter(|_| outlives_us(bucket)))
    }

    /// Notes that the volume `identity` was found in `bucket`.
    pub(super) fn note(&self, bucket: &Bucket, identity: Identity) -> Result<(), VolumeError> {
        if !outlives_us(bucket) || self.at(bucket)? == Some(identity) {
            return Ok(());
        }
        let mut builder = fs::DirBuilder::new();
        builder.recursive(true).mode(0o700).create(&self.state).map_err(|error| self.fail(error))?;
        let lock = self.state.join("known-volumes.lock");
        let turn = OpenOptions::new().create(true).truncate(false).write(true).mode(0o600).open(lock);
        let turn = turn.map_err(|error| self.fail(error))?;
        turn.lock().map_err(|error| self.fail(error))?;
        let mut all = self.all()?;
        all.insert(bucket.known_as().to_owned(), identity);
        let text =
            serde_json::to_vec_pretty(&all).map_err(|error| self.fail(std::io::Error::other(error)))?;
        replace(&self.state.join(FILE), &text).map_err(|error| self.fail(error))
    }
}

/// What it means that there is no header in `bucket`, by the state folder. One that cannot be read tells nothing.
#[must_use]
pub fn without_header(bucket: &Bucket, state: Option<&Path>) -> VolumeError {
    let url = bucket.display_url().to_owned();
    let known = state.and_then(|state| KnownVolumes::new(state).at(bucket).ok().flatten());
    match known {
        Some(identity) => VolumeError::HeaderGone { url, volume: identity.volume },
        None => VolumeError::NoVolume { url },
    }
}

/// Whether the place will be the same when it is named again.
fn outlives_us(bucket: &Bucket) -> bool {
    bucket.known_as() != "memory:"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_altered_list_is_told_as_such_and_put_aside_only_where_trust_begins_anew() {
        let folder = tempfile::tempdir().unwrap();
        let known = KnownVolumes::new(folder.path());
        let bucket = Bucket::memory();
        assert!(known.is_gone() && known.at(&bucket).unwrap().is_none());
        known.put_aside_if_altered().unwrap();
        fs::write(folder.path().join(FILE), b"{\"/a\":").unwrap();
        let altered = known.at(&bucket).unwrap_err();
        let is_told = |path: &Path| path.ends_with(FILE);
        assert!(matches!(&altered, VolumeError::PinAltered { path, .. } if is_told(path)), "{altered}");
        known.put_aside_if_altered().unwrap();
        assert!(known.is_gone() && known.at(&bucket).unwrap().is_none());
        assert_eq!(fs::read(folder.path().join("known-volumes.altered")).unwrap(), b"{\"/a\":");
    }
}
