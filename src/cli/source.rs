//! Reads a local file for a copy: its data without its holes, and whether it stayed as it was.

use std::fs::{File, Metadata};
use std::io;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::Path;

use rustix::fs::SeekFrom;

/// Bytes read at a time.
const CHUNK_BYTES: usize = 1024 * 1024;

/// A local file on its way.
#[derive(Debug)]
pub struct Source {
    file: File,
    about: Metadata,
    offset: u64,
    /// Where the data around `offset` ends.
    end: u64,
}

/// Why a local file cannot be copied.
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// The system says so.
    #[error("{0}")]
    Local(#[from] io::Error),
    /// Somebody wrote to it meanwhile.
    #[error("it changed while it was copied")]
    Changed,
}

impl Source {
    /// Opens the file that `about` describes.
    ///
    /// # Errors
    /// [`SourceError::Changed`] if another one has its name by now, or the system's.
    pub fn open(path: &Path, about: &Metadata) -> Result<Self, SourceError> {
        // Without waiting, should it have become a pipe.
        let flags = libc::O_NOFOLLOW | libc::O_NONBLOCK | libc::O_NOATIME;
        let open = |flags| File::options().read(true).custom_flags(flags).open(path);
        let file = open(flags).or_else(|error| match error.kind() {
            // Only for the owner's files.
            io::ErrorKind::PermissionDenied => open(flags & !libc::O_NOATIME),
            _ => Err(error),
        })?;
        let source = Self { file, about: about.clone(), offset: 0, end: 0 };
        source.check()?;
        Ok(source)
    }

    /// The next piece of data, and where it is; `None` at the end.
    ///
    /// # Errors
    /// The system's, or [`SourceError::Changed`] if it has become shorter.
    pub fn next_data(&mut self) -> Result<Option<(u64, Vec<u8>)>, SourceError> {
        let size = self.about.size();
        if self.offset >= self.end {
            match rustix::fs::seek(&self.file, SeekFrom::Data(self.offset)) {
                Ok(start) if start < size => self.offset = start,
                Ok(_) | Err(rustix::io::Errno::NXIO) => return Ok(None),
                Err(error) => return Err(io::Error::from(error).into()),
            }
            self.end =
                rustix::fs::seek(&self.file, SeekFrom::Hole(self.offset)).map_err(io::Error::from)?.min(size);
        }
        let length = usize::try_from(self.end - self.offset).unwrap_or(CHUNK_BYTES).min(CHUNK_BYTES);
        let mut bytes = vec![0; length];
        self.file.read_exact_at(&mut bytes, self.offset).map_err(|error| match error.kind() {
            io::ErrorKind::UnexpectedEof => SourceError::Changed,
            _ => error.into(),
        })?;
        let offset = self.offset;
        self.offset += length as u64;
        Ok(Some((offset, bytes)))
    }

    /// Whether the file is still the one that was described.
    ///
    /// # Errors
    /// [`SourceError::Changed`] if not.
    pub fn check(&self) -> Result<(), SourceError> {
        let is =
            |about: &Metadata| (about.dev(), about.ino(), about.size(), about.mtime(), about.mtime_nsec());
        match is(&self.file.metadata()?) == is(&self.about) {
            true => Ok(()),
            false => Err(SourceError::Changed),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn all(path: &Path) -> Result<Vec<(u64, usize)>, SourceError> {
        let mut source = Source::open(path, &path.symlink_metadata().unwrap())?;
        let mut pieces = Vec::new();
        while let Some((offset, bytes)) = source.next_data()? {
            pieces.push((offset, bytes.len()));
        }
        source.check().map(|()| pieces)
    }

    #[test]
    fn holes_are_not_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        let file = File::create(&path).unwrap();
        file.set_len(1 << 30).unwrap();
        file.write_all_at(&[1; 4096], 1 << 20).unwrap();
        file.write_all_at(&[1; 100], (1 << 29) + 4096).unwrap();
        let read: usize = all(&path).unwrap().iter().map(|(_, length)| length).sum();
        assert!((4196..=3 * 65536).contains(&read), "{read} bytes of 4,196 that are data");
        file.set_len(0).unwrap();
        assert_eq!(all(&path).unwrap(), []);
    }

    #[test]
    fn what_changes_meanwhile_is_noticed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("f");
        std::fs::write(&path, [7; 100]).unwrap();
        let about = path.symlink_metadata().unwrap();
        let source = Source::open(&path, &about).unwrap();
        std::fs::write(&path, [8; 50]).unwrap();
        assert!(matches!(source.check(), Err(SourceError::Changed)));
        std::fs::remove_file(&path).unwrap();
        std::fs::write(&path, [7; 100]).unwrap();
        assert!(matches!(Source::open(&path, &about), Err(SourceError::Changed)));
    }
}
