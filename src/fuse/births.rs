//! Makes and opens files: plans a new one's permissions, gives it its lists, undoes what failed half way.

use fuser::{Errno, FopenFlags, OpenFlags};

use super::convert::Refusal;
use super::core::{Core, writes};
use super::permission::{self, Birth};
use crate::base::{FileKind, Ino};
use crate::vfs::{Attr, Caller, Handle, VfsError};

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
) -> Result<(Attr, Handle), Refusal> {
    let exclusive = flags.0 & libc::O_EXCL != 0;
    let truncate = flags.0 & libc::O_TRUNC != 0;
    let birth = Birth::plan(&core.vfs, &core.plain, caller, dir, perm, false).await?;
    let attr = core.vfs.create(&birth.caller, dir, name, birth.perm, exclusive).await?;
    if let Err(error) = birth.finish(&core.vfs, attr.ino).await {
        return Err(undo(core, dir, name, attr.ino, false, error).await);
    }
    match core.vfs.open(attr.ino, writes(flags), truncate).await {
        Ok(handle) => Ok((attr, handle)),
        Err(error) => {
            core.vfs.forget(attr.ino, 1);
            Err(error.into())
        }
    }
}

/// Opens a file that exists, and says how the kernel shall treat it.
///
/// The kernel empties it by a request of its own if that is asked for. Capabilities the kernel takes away itself before a cached write, but not before a direct one: a file that has
/// any is not opened for direct writes.
pub(super) async fn open(core: &Core, node: Ino, flags: OpenFlags) -> Result<(Handle, FopenFlags), Refusal> {
    let mut how = core.open_flags(flags);
    if core.writer
        && how.contains(FopenFlags::FOPEN_DIRECT_IO)
        && permission::has_capabilities(&core.vfs, node).await?
    {
        how.remove(FopenFlags::FOPEN_DIRECT_IO);
    }
    let opened = core.vfs.open(node, writes(flags), false).await;
    let handle = opened.map_err(|error| core.about_inode(error))?;
    if flags.0 & libc::O_NOATIME == 0 && core.vfs.would_touch(node) {
        // Of what the kernel reads from its own cache we would not hear.
        how.remove(FopenFlags::FOPEN_KEEP_CACHE);
    }
    Ok((handle, how))
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
