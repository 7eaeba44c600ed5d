//! Saves what a fenced filesystem had not sent: file by file, sealed as it goes.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io::{self, BufWriter, Write};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use super::item::{About, Item, PATHS_BYTES_MAX, SavedFile};
use super::{Shelf, object_name};
use crate::base::{Entropy, FileKind, SegmentId};
use crate::crypto::KeyRing;
use crate::vault::stream::SealingWriter;
use crate::vfs::{Part, Rescue, Unsent, UnsentChange, UnsentFile, Vfs, VfsError};

/// Paths that the status shows.
const PATHS_SHOWN_MAX: usize = 100;

/// Why changes could not be saved.
#[derive(Debug, thiserror::Error)]
enum SaveError {
    #[error(transparent)]
    Vfs(#[from] VfsError),
    #[error("{path}: {source}")]
    Local { path: PathBuf, source: io::Error },
}

/// Saves what `vfs` had not sent, and says what came of it.
pub(in crate::volume) async fn save(
    vfs: &Vfs,
    shelf: &Shelf,
    ring: &KeyRing,
    entropy: &dyn Entropy,
    about: About,
) -> Rescue {
    let mut rescue = Rescue::default();
    match try_save(vfs, shelf, ring, entropy, about, &mut rescue).await {
        Ok(()) if rescue.is_saved => tracing::warn!(
            files = rescue.files,
            bytes = rescue.bytes,
            changes = rescue.changes,
            "what was not sent is kept on this machine; `coffer recover` gives it back"
        ),
        Ok(()) => tracing::info!("nothing was unsent"),
        Err(error) => {
            tracing::error!(%error, files = rescue.files, "what was not sent could not be kept");
            rescue.is_saved = false;
            rescue.bytes = rescue.bytes.max(vfs.dirty_bytes());
            rescue.error = Some(error.to_string());
        }
    }
    rescue
}

async fn try_save(
    vfs: &Vfs,
    shelf: &Shelf,
    ring: &KeyRing,
    entropy: &dyn Entropy,
    about: About,
    rescue: &mut Rescue,
) -> Result<(), SaveError> {
    let unsent = vfs.unsent().await?;
    if unsent.files.is_empty() && unsent.changes.is_empty() {
        return Ok(());
    }
    rescue.files = unsent.files.len() as u64;
    rescue.changes = unsent.changes.len() as u64;
    rescue.paths = shown_paths(&unsent);
    let id = SegmentId::random(entropy);
    let path = shelf.path(id);
    let new = path.with_extension("new");
    let local = |source| SaveError::Local { path: new.clone(), source };
    let file = begin(shelf, &new).map_err(local)?;
    let writer = BufWriter::with_capacity(256 * 1024, file);
    let mut out = SealingWriter::begin(ring, entropy, &object_name(id), writer).map_err(local)?;
    out.push(&Item::About(about).encode()).map_err(local)?;
    let mut is_away = false;
    for file in &unsent.files {
        rescue.bytes += save_file(vfs, file, &mut is_away, &mut out).await.map_err(|error| match error {
            SaveError::Local { source, .. } => local(source),
            error => error,
        })?;
    }
    for change in unsent.changes {
        out.push(&item_of(change).encode()).map_err(local)?;
    }
    out.push(&Item::End.encode()).map_err(local)?;
    let writer = out.finish().map_err(local)?;
    let file = writer.into_inner().map_err(|error| local(error.into_error()))?;
    let (from, to) = (new.clone(), path);
    let settled = tokio::task::spawn_blocking(move || settle(&file, &from, &to)).await;
    settled.map_err(io::Error::other).flatten().map_err(local)?;
    rescue.is_saved = true;
    Ok(())
}

/// Makes the folder, clears away what an earlier attempt left, and begins the file.
fn begin(shelf: &Shelf, new: &Path) -> io::Result<File> {
    DirBuilder::new().recursive(true).mode(0o700).create(&shelf.folder)?;
    for entry in fs::read_dir(&shelf.folder)?.flatten() {
        if entry.path().extension().is_some_and(|extension| extension == "new") {
            fs::remove_file(entry.path())?;
        }
    }
    OpenOptions::new().create_new(true).write(true).mode(0o600).open(new)
}

fn settle(file: &File, new: &Path, path: &Path) -> io::Result<()> {
    file.sync_all()?;
    fs::rename(new, path)?;
    match path.parent() {
        Some(folder) => File::open(folder)?.sync_all(),
        None => Ok(()),
    }
}

/// Saves one file and gives the bytes of its contents that there are.
async fn save_file<W: Write + Send>(
    vfs: &Vfs,
    file: &UnsentFile,
    is_away: &mut bool,
    out: &mut SealingWriter<W>,
) -> Result<u64, SaveError> {
    let local = |source| SaveError::Local { path: PathBuf::new(), source };
    let attr = &file.attr;
    let target = match attr.kind {
        FileKind::Symlink => vfs.readlink(attr.ino).await?,
        _ => Vec::new(),
    };
    let mut paths = file.paths.clone();
    let mut room = PATHS_BYTES_MAX;
    paths.retain(|path| {
        let is_first = room == PATHS_BYTES_MAX;
        room = room.saturating_sub(path.len().max(1));
        is_first || room > 0
    });
    let saved = SavedFile {
        kind: attr.kind,
        perm: attr.perm,
        uid: attr.uid,
        gid: attr.gid,
        rdev: attr.rdev,
        size: attr.size,
        atime: attr.atime,
        mtime: attr.mtime,
        is_new: file.is_new,
        target,
        paths,
    };
    out.push(&Item::File(saved).encode()).map_err(local)?;
    match vfs.unsent_xattrs(attr.ino).await {
        Ok(xattrs) => {
            for (name, value) in xattrs {
                out.push(&Item::Xattr(name, value).encode()).map_err(local)?;
            }
        }
        Err(error) => tracing::warn!(ino = %attr.ino, %error, "extended attributes could not be kept"),
    }
    let mut bytes = 0;
    if attr.kind == FileKind::Regular {
        let mut take = |part| {
            let item = match part {
                Part::Data(offset, data) => {
                    bytes += data.len() as u64;
                    Item::Data(offset, data)
                }
                Part::Absent(range, why) => Item::Absent(range.start, range.end, why),
            };
            out.push(&item.encode()).map_err(local)
        };
        vfs.recall(file, is_away, &mut take).await?;
    }
    Ok(bytes)
}

fn item_of(change: UnsentChange) -> Item {
    match change {
        UnsentChange::Removed(path) => Item::Change("removed".to_owned(), path, Vec::new()),
        UnsentChange::Renamed(from, to) => Item::Change("renamed".to_owned(), from, to),
        UnsentChange::Linked(path) => Item::Change("linked".to_owned(), path, Vec::new()),
        UnsentChange::Attributes(path, what) => Item::Change(what, path, Vec::new()),
    }
}

fn shown_paths(unsent: &Unsent) -> Vec<String> {
    let paths = unsent.files.iter().filter_map(|file| file.paths.first());
    paths.take(PATHS_SHOWN_MAX).map(|path| String::from_utf8_lossy(path).into_owned()).collect()
}
