//! Opens and reads one object of a directory, if it is a file: nothing else is opened, because that alone may block or act.

use std::fs::{File, FileType, Metadata};
use std::io::{self, Read, Seek, SeekFrom};
use std::ops::Range;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path as FilePath;

use bytes::Bytes;
use futures::{StreamExt, stream};
use object_store::path::Path;
use object_store::{
    Attributes, Error as RawError, Extensions, GetOptions, GetResult, GetResultPayload, ObjectMeta,
    Result as RawResult,
};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;

use super::beneath;
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

/// The object at `location` of the bucket at `root`, or the part of it that is asked for.
pub(super) fn get(root: &FilePath, location: &Path, options: &GetOptions) -> RawResult<GetResult> {
    let file = root.join(location.as_ref());
    let (directory, name) =
        beneath::parent(root, location).map_err(|error| failed(&file, location, "found", error))?;
    let seen = look(&directory, name)
        .map_err(|error| failed(&file, location, "found", error))
        .and_then(|seen| unfit(seen.file_type()).map_or(Ok(seen), |what| Err(refused(what))))?;
    let opened = if options.head { None } else { Some(open(&directory, name, &seen, (&file, location))?) };
    let metadata = opened.as_ref().map_or(&seen, |(_, metadata)| metadata);
    let meta = meta(location.clone(), metadata);
    options.check_preconditions(&meta)?;
    let range = match &options.range {
        Some(wanted) => wanted
            .as_range(meta.size)
            .map_err(|error| RawError::Generic { store: "local directory", source: Box::new(error) })?,
        None => 0..meta.size,
    };
    let payload = match opened {
        Some((opened, _)) if range.end.saturating_sub(range.start) > READ_BYTES_MAX => {
            GetResultPayload::File(opened, file)
        }
        Some((opened, _)) => whole(read(&opened, &file, range.clone())?),
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
fn look(directory: &OwnedFd, name: &str) -> io::Result<Metadata> {
    let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    File::from(rustix::fs::openat(directory, name, flags, Mode::empty())?).metadata()
}

fn open(
    directory: &OwnedFd,
    name: &str,
    seen: &Metadata,
    (file, location): (&FilePath, &Path),
) -> RawResult<(File, Metadata)> {
    // Should another thing have come into its place meanwhile, opening does not wait for it.
    let flags = OFlags::RDONLY | OFlags::NONBLOCK | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let opened = rustix::fs::openat(directory, name, flags, Mode::empty()).map_err(|error| {
        let (error, is_own) = (error.into(), seen.uid() == rustix::process::geteuid().as_raw());
        match denied_by_mode(&error, is_own) {
            Some(what) => refused(what),
            None => failed(file, location, "opened", error),
        }
    })?;
    let opened = File::from(opened);
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

pub(super) fn refused(what: &'static str) -> RawError {
    RawError::Generic { store: "local directory", source: Box::new(Unfit(what)) }
}

pub(super) fn failed(file: &FilePath, location: &Path, doing: &'static str, source: io::Error) -> RawError {
    match Errno::from_io_error(&source) {
        Some(Errno::NOENT) => {
            return RawError::NotFound { path: location.to_string(), source: source.into() };
        }
        Some(Errno::LOOP) => return refused("the way to it is a symbolic link"),
        Some(Errno::NOTDIR) => return refused("what leads to it is no directory, or a symbolic link to one"),
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
