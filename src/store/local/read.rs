//! Opens and reads one object of a directory, if it is a file: nothing else is opened, because that alone may block or act.

use std::fs::{File, FileType, Metadata, OpenOptions};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::{FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::Path as FilePath;

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attributes, Error as RawError, Extensions, GetOptions, GetResult, GetResultPayload, ObjectMeta,
    Result as RawResult,
};
use rustix::fs::OFlags;
use rustix::io::Errno;

use crate::store::error::Unfit;

/// Answers up to this many bytes are read at once; of a larger one the file itself is given.
const READ_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Debug, thiserror::Error)]
#[error("{path} cannot be {doing}: {source}")]
struct Failed {
    path: String,
    doing: &'static str,
    source: io::Error,
}

/// The object at `location`, or the part of it that is asked for.
pub(super) fn get(file: &FilePath, location: Path, options: &GetOptions) -> RawResult<GetResult> {
    let seen = look(file, &location)?;
    let opened = if options.head { None } else { Some(open(file, &location, &seen)?) };
    let metadata = opened.as_ref().map_or(&seen, |(_, metadata)| metadata);
    let meta = meta(location, metadata);
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        Some(wanted) => wanted
            .as_range(meta.size)
            .map_err(|error| RawError::Generic { store: "local directory", source: Box::new(error) })?,
        None => 0..meta.size,
    };
    let payload = match opened {
        Some((opened, _)) if range.end.saturating_sub(range.start) > READ_BYTES_MAX => {
            GetResultPayload::File(opened, file.to_owned())
        }
        Some((opened, _)) => whole(read(&opened, file, range.clone())?),
        None => whole(Bytes::new()),
    };
    Ok(GetResult {
        payload,
        meta,
        range,
        attributes: Attributes::default(),
        extensions: Extensions::default(),
    })
}

fn whole(bytes: Bytes) -> GetResultPayload {
    GetResultPayload::Stream(stream::once(async { Ok(bytes) }).boxed())
}

/// What is known of the object without opening it.
fn look(file: &FilePath, location: &Path) -> RawResult<Metadata> {
    let metadata = std::fs::symlink_metadata(file).map_err(|error| failed(file, location, "found", error))?;
    match unfit(metadata.file_type()) {
        None => Ok(metadata),
        Some(what) => Err(refused(what)),
    }
}

fn open(file: &FilePath, location: &Path, seen: &Metadata) -> RawResult<(File, Metadata)> {
    // Should another thing have come into its place meanwhile, opening does not wait for it.
    let flags = (OFlags::NONBLOCK | OFlags::NOFOLLOW).bits() as i32;
    let opened = OpenOptions::new().read(true).custom_flags(flags).open(file).map_err(|error| {
        let is_own = seen.uid() == rustix::process::geteuid().as_raw();
        match denied_by_mode(&error, is_own) {
            Some(what) => refused(what),
            None => failed(file, location, "opened", error),
        }
    })?;
    let metadata = opened.metadata().map_err(|error| failed(file, location, "opened", error))?;
    match unfit(metadata.file_type()) {
        None => Ok((opened, metadata)),
        Some(what) => Err(refused(what)),
    }
}

/// What we may not read though it is ours is that object's fault; what belongs to others is a matter of access to the bucket.
fn denied_by_mode(error: &io::Error, is_own: bool) -> Option<&'static str> {
    (error.kind() == io::ErrorKind::PermissionDenied && is_own)
        .then_some("its mode does not let its owner read it")
}

/// What there is in the place of a file.
pub(super) fn unfit(kind: FileType) -> Option<&'static str> {
    if kind.is_file() {
        None
    } else if kind.is_symlink() {
        Some("it is a symbolic link and no file")
    } else if kind.is_dir() {
        Some("it is a directory and no file")
    } else if kind.is_fifo() {
        Some("it is a named pipe and no file")
    } else {
        Some("it is a device or a socket and no file")
    }
}

fn refused(what: &'static str) -> RawError {
    RawError::Generic { store: "local directory", source: Box::new(Unfit(what)) }
}

fn failed(file: &FilePath, location: &Path, doing: &'static str, source: io::Error) -> RawError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => {
            return RawError::NotFound { path: location.to_string(), source: source.into() };
        }
        Some(Errno::LOOP) => return refused("the way to it is a symbolic link that leads nowhere"),
        Some(Errno::NOTDIR) => return refused("what leads to it is no directory"),
        _ => {}
    }
    let path = file.display().to_string();
    RawError::Generic { store: "local directory", source: Box::new(Failed { path, doing, source }) }
}

fn read(opened: &File, file: &FilePath, range: Range<u64>) -> RawResult<Bytes> {
    read_part(opened, range).map_err(|source| {
        let path = file.display().to_string();
        RawError::Generic {
            store: "local directory",
            source: Box::new(Failed { path, doing: "read", source }),
        }
    })
}

/// All of a part of a file. Its memory is not made zero before.
fn read_part(mut opened: &File, range: Range<u64>) -> io::Result<Bytes> {
    let len = range.end.saturating_sub(range.start);
    let mut bytes = Vec::new();
    bytes.try_reserve_exact(usize::try_from(len).unwrap_or(usize::MAX))?;
    opened.seek(SeekFrom::Start(range.start))?;
    match opened.take(len).read_to_end(&mut bytes)? as u64 == len {
        true => Ok(bytes.into()),
        false => Err(io::ErrorKind::UnexpectedEof.into()),
    }
}

/// The object as a listing shows it.
pub(super) fn meta(location: Path, metadata: &Metadata) -> ObjectMeta {
    let size = if metadata.is_file() { metadata.len() } else { 0 };
    let last_modified = metadata.modified().unwrap_or(std::time::SystemTime::UNIX_EPOCH).into();
    ObjectMeta { location, last_modified, size, e_tag: None, version: None }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_ours_and_denied_is_the_objects_fault_and_what_is_not_ours_is_not() {
        let denied = io::Error::from(io::ErrorKind::PermissionDenied);
        assert!(denied_by_mode(&denied, true).is_some());
        assert!(denied_by_mode(&denied, false).is_none());
        assert!(denied_by_mode(&io::Error::from(io::ErrorKind::NotFound), true).is_none());
    }
}
