//! Writes and deletes objects of a directory.

use std::fs::File;
use std::io::{self, Write};
use std::os::fd::OwnedFd;
use std::path::Path as FilePath;

use object_store::path::Path;
use object_store::{Error as RawError, PutMode, PutOptions, PutPayload, PutResult, Result as RawResult};
use rustix::fs::{AtFlags, Mode, OFlags};
use rustix::io::Errno;

use super::beneath;
use super::read::failed;

/// Writes an object: beside its place at first, as `OBJECT#N`, then all at once into it. It is on the disk when this returns.
pub(super) fn put(
    root: &FilePath,
    location: &Path,
    payload: &PutPayload,
    options: &PutOptions,
) -> RawResult<PutResult> {
    if matches!(options.mode, PutMode::Update(_)) || !options.attributes.is_empty() {
        return Err(not_offered("updates and attributes of objects"));
    }
    let is_new = matches!(options.mode, PutMode::Create);
    let file = root.join(location.as_ref());
    let wrong = |error| failed(&file, location, "written", error);
    let (directory, name) = beneath::made_parent(root, location).map_err(wrong)?;
    let (mut opened, staged) = stage(&directory, name).map_err(wrong)?;
    let filled = payload.iter().try_for_each(|part| opened.write_all(part)).and_then(|()| opened.sync_all());
    drop(opened);
    let done = filled.and_then(|()| publish(&directory, &staged, name, is_new));
    if is_new || done.is_err() {
        let _ = rustix::fs::unlinkat(&directory, &staged, AtFlags::empty());
    }
    match done {
        Ok(()) => Ok(PutResult { e_tag: None, version: None, extensions: Default::default() }),
        Err(error) if is_new && error.kind() == io::ErrorKind::AlreadyExists => {
            Err(RawError::AlreadyExists { path: location.to_string(), source: error.into() })
        }
        Err(error) => Err(wrong(error)),
    }
}

/// A new file beside `name`.
fn stage(directory: &OwnedFd, name: &str) -> io::Result<(File, String)> {
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let mode = Mode::RUSR | Mode::WUSR | Mode::RGRP | Mode::WGRP | Mode::ROTH | Mode::WOTH;
    let mut number = 1_u64;
    loop {
        let staged = format!("{name}#{number}");
        match rustix::fs::openat(directory, &staged, flags, mode) {
            Ok(opened) => return Ok((opened.into(), staged)),
            Err(Errno::EXIST) => number += 1,
            Err(error) => return Err(error.into()),
        }
    }
}

fn publish(directory: &OwnedFd, staged: &str, name: &str, is_new: bool) -> io::Result<()> {
    if is_new {
        rustix::fs::linkat(directory, staged, directory, name, AtFlags::empty())?;
    } else {
        rustix::fs::renameat(directory, staged, directory, name)?;
    }
    beneath::sync(directory)
}

/// Deletes an object.
pub(super) fn delete(root: &FilePath, location: &Path) -> RawResult<()> {
    remove(root, location).map_err(|error| failed(&root.join(location.as_ref()), location, "deleted", error))
}

/// Removes a file below the bucket's directory.
pub(super) fn remove(root: &FilePath, location: &Path) -> io::Result<()> {
    let (directory, name) = beneath::parent(root, location)?;
    Ok(rustix::fs::unlinkat(&directory, name, AtFlags::empty())?)
}

pub(super) fn not_offered(what: &str) -> RawError {
    RawError::NotSupported { source: format!("{what} are not offered by a directory").into() }
}
