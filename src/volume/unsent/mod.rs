//! What mounts of this machine could not send, kept sealed in its state folder until somebody takes it back.
//!
//! A file `<state>/<volume id>/unsent/<id>` for each mount that was taken over with changes in hand.
//! (`docs/FORMAT.md`, "Unsent files")

mod item;
mod save;

use std::fs::{self, File};
use std::io::{self, BufReader};
use std::path::{Path, PathBuf};

use crate::base::{SegmentId, VolumeId};
use crate::crypto::KeyRing;
use crate::vault::stream::OpeningReader;

use super::VolumeError;
use item::Items;

pub use item::{About, Item, SavedFile};
pub(super) use save::save;

/// Where the unsent changes of one volume are kept.
#[derive(Clone, Debug)]
pub struct Shelf {
    folder: PathBuf,
}

impl Shelf {
    /// The shelf of `volume` in the state folder `state`. Makes nothing yet.
    #[must_use]
    pub fn of(state: &Path, volume: VolumeId) -> Self {
        Self { folder: state.join(volume.to_string()).join("unsent") }
    }

    /// The ids of what is kept, in no particular order.
    ///
    /// # Errors
    /// The folder cannot be read; that there is none is an empty list.
    pub fn ids(&self) -> Result<Vec<SegmentId>, VolumeError> {
        let entries = match fs::read_dir(&self.folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            Err(source) => return Err(VolumeError::State { path: self.folder.clone(), source }),
        };
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        Ok(names.filter_map(|name| SegmentId::parse(&name)).collect())
    }

    /// How many mounts have left changes here; 0 also if that cannot be told.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.ids().map_or(0, |ids| ids.len() as u64)
    }

    /// Where the changes under `id` are.
    #[must_use]
    pub fn path(&self, id: SegmentId) -> PathBuf {
        self.folder.join(id.to_string())
    }

    /// Begins to read the changes under `id`.
    ///
    /// # Errors
    /// The file cannot be read; [`VolumeError::BadUnsent`] if it is damaged or of another volume.
    pub fn open(&self, ring: &KeyRing, id: SegmentId) -> Result<SavedChanges, VolumeError> {
        let path = self.path(id);
        let begin = || {
            let file = BufReader::with_capacity(256 * 1024, File::open(&path)?);
            OpeningReader::begin(ring, &object_name(id), file)
        };
        match begin() {
            Ok(reader) => Ok(SavedChanges { items: Items::new(reader), path }),
            Err(error) => Err(failed(&path, error)),
        }
    }

    /// Removes the changes under `id` for good.
    ///
    /// # Errors
    /// The file cannot be removed.
    pub fn discard(&self, id: SegmentId) -> Result<(), VolumeError> {
        let path = self.path(id);
        fs::remove_file(&path).map_err(|source| VolumeError::State { path, source })
    }
}

/// Changes that are read back, item by item.
pub struct SavedChanges {
    items: Items<OpeningReader<BufReader<File>>>,
    path: PathBuf,
}

impl SavedChanges {
    /// The next item; `None` when all has been read and nothing was missing.
    ///
    /// # Errors
    /// [`VolumeError::BadUnsent`] where the file is damaged: what was given before is authentic.
    pub fn next_item(&mut self) -> Result<Option<Item>, VolumeError> {
        self.items.next().map_err(|error| failed(&self.path, error))
    }
}

/// What a file is called where its key is made.
fn object_name(id: SegmentId) -> String {
    format!("unsent/{id}")
}

fn failed(path: &Path, error: io::Error) -> VolumeError {
    let path = path.to_owned();
    match error.kind() {
        io::ErrorKind::InvalidData => VolumeError::BadUnsent { path, what: error.to_string() },
        _ => VolumeError::State { path, source: error },
    }
}

/// For the fuzz targets: reads items to their end.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub(super) fn fuzz_items(from: impl std::io::Read) {
    let mut items = item::Items::new(from);
    while let Ok(Some(_)) = items.next() {}
}
