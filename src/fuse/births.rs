//! Makes and opens files: plans a new one's permissions, gives it its lists, undoes what failed half way.

use fuser::{Errno, FopenFlags, OpenFlags};

use super::convert::Refusal;
use super::core::{Core, writes, writes_only};
use super::permission::Birth;
use crate::base::{FileKind, Ino};
use crate::vfs::{Attr, Caller, Handle, SeekFor, VfsError};

/// What is to be made.
pub(super) enum Kind {
    /// A file of any kind but a directory or link, and its device number.
    Node(FileKind, u32),
    /// An empty directory.
    Directory,
    /// A symbolic link to these bytes.
    Symlink(Vec<u8>),
}

/// Makes an entry that is not opened.
pub(super) async fn make(
    core: &Core,
    caller: Caller,
    dir: Ino,
    name: &[u8],
    perm: u16,
    kind: &Kind,
) -> Result<Attr, Refusal> {
    if let Kind::Symlink(target) = kind {
        return Ok(core.vfs.symlink(&caller, dir, name, target).await?);
    }
    let is_dir = matches!(kind, Kind::Directory);
    let birth = Birth::plan(&core.vfs, &core.plain, caller, dir, perm, is_dir).await?;
    let attr = match kind {
        Kind::Node(kind, rdev) => core.vfs.mknod(&birth.caller, dir, name, *kind, birth.perm, *rdev).await?,
        Kind::Directory | Kind::Symlink(_) => core.vfs.mkdir(&birth.caller, dir, name, birth.perm).await?,
    };
    match birth.finish(&core.vfs, attr.ino).await {
        Ok(()) => Ok(attr),
        Err(error) => Err(undo(core, dir, name, attr.ino, is_dir, error).await),
    }
}

/// Makes a regular file, unless it is there already and that is allowed, and opens it.
pub(super) async fn create(
    core: &Core,
    caller: Caller,
    dir: Ino,
    name: &[u8],
    perm: u16,
    flags: OpenFlags,
) -> Result<(Attr, Handle, FopenFlags), Refusal> {
    let exclusive = flags.0 & libc::O_EXCL != 0;
    let truncate = flags.0 & libc::O_TRUNC != 0;
    let birth = Birth::plan(&core.vfs, &core.plain, caller, dir, perm, false).await?;
    let attr = core.vfs.create(&birth.caller, dir, name, birth.perm, exclusive).await?;
    if let Err(error) = birth.finish(&core.vfs, attr.ino).await {
        return Err(undo(core, dir, name, attr.ino, false, error).await);
    }
    let changing = truncate.then(|| core.opens.change(attr.ino));
    let has_contents = attr.size > 0 && !truncate;
    let opened = open(core, attr.ino, flags, truncate, has_contents).await;
    drop(changing);
    match opened {
        Ok((handle, how)) => Ok((attr, handle, how)),
        Err(error) => {
            core.vfs.forget(attr.ino, 1);
            Err(error)
        }
    }
}

/// Opens a file that exists, and says how the kernel shall treat it.
///
/// Files open for writing only bypass the page cache, which costs more than FUSE itself, unless others read by it; so do all files of a
/// follower, because a read that finds some of its pages there and asks for the others would be of two commits.
/// NOFLUSH because closing a file promises nothing here.
///
/// The kernel empties it by a request of its own if that is asked for, but for a new name. Where it is not known whether a file has contents,
/// it may have.
pub(super) async fn open(
    core: &Core,
    node: Ino,
    flags: OpenFlags,
    truncate: bool,
    has_contents: bool,
) -> Result<(Handle, FopenFlags), Refusal> {
    let opened = core.vfs.open(node, writes(flags), truncate).await;
    let handle = opened.map_err(|error| core.about_inode(error))?;
    if !core.writer {
        return Ok((handle, FopenFlags::FOPEN_NOFLUSH | FopenFlags::FOPEN_DIRECT_IO));
    }
    // Last, and without waiting: whose caller is killed before is not counted.
    let how = core.opens.open(handle.0, node, flags);
    let mut flags_of = FopenFlags::FOPEN_NOFLUSH;
    if how.is_direct() {
        flags_of |= FopenFlags::FOPEN_DIRECT_IO;
    } else if !has_contents || keeps_pages(core, handle, node, flags) {
        flags_of |= FopenFlags::FOPEN_KEEP_CACHE;
    }
    Ok((handle, flags_of))
}

/// Whether the kernel keeps the pages that it has of a file which is opened through them.
///
/// What a program writes is in its page before we are told of it. If the page is dropped in between, whoever reads it meanwhile brings
/// what was there before, which then stays: what was written would be read as if it never had been. So pages are dropped only
/// for the sake of access times where every reading counts, because of what the kernel reads from its own pages we would
/// not hear, and even there not where another may be writing. Elsewhere the opening stands for the first read. And those are dropped of
/// what was written to past them: older kernels let a map bring a page back while it is being written.
fn keeps_pages(core: &Core, handle: Handle, node: Ino, flags: OpenFlags) -> bool {
    let is_old = core.opens.has_old_pages(node);
    may_be_read_unseen(core, handle, node, flags) && !is_old
}

/// Whether the kernel may answer reads of what it has.
fn may_be_read_unseen(core: &Core, handle: Handle, node: Ino, flags: OpenFlags) -> bool {
    if writes_only(flags) || flags.0 & libc::O_NOATIME != 0 || !core.vfs.would_touch(node) {
        return true;
    }
    if core.vfs.notes_each_read() && !core.opens.may_be_written_by_others(node, handle.0) {
        return false;
    }
    core.vfs.touch(node);
    core.opens.counts(handle.0);
    true
}

/// Where the next data or hole is. What programs wrote through maps is sent by the kernel first; where it cannot be, all of
/// the file is data.
pub(super) async fn seek(
    core: &Core,
    (node, handle): (Ino, u64),
    offset: u64,
    what: SeekFor,
) -> Result<u64, VfsError> {
    if core.opens.may_be_mapped(node) && !core.send_pages(node, handle).await {
        return match (core.vfs.getattr(node).await?.size, what) {
            (size, _) if offset >= size => Err(VfsError::NoData),
            (_, SeekFor::Data) => Ok(offset),
            (size, SeekFor::Hole) => Ok(size),
        };
    }
    core.vfs.seek(node, offset, what).await
}

async fn undo(core: &Core, dir: Ino, name: &[u8], made: Ino, is_dir: bool, error: VfsError) -> Refusal {
    let removed = if is_dir { core.vfs.rmdir(dir, name).await } else { core.vfs.unlink(dir, name).await };
    core.vfs.forget(made, 1);
    match removed {
        Ok(()) => error.into(),
        Err(again) => {
            tracing::error!(%dir, %error, %again, "a new entry without its access list could not be removed");
            Refusal(Errno::EIO)
        }
    }
}
