//! Names: looking them up, making and removing what they lead to.

use std::sync::Arc;

use crate::base::{FileKind, Ino};
use crate::meta::{Body, Inode, Key};

use super::txn::{Halt, Txn};
use super::{Attr, Caller, Vfs, VfsError};

/// Most names that one inode can have.
const LINKS_MAX: u32 = 1_000_000;
/// Longest target of a symbolic link, as `PATH_MAX` less its NUL.
const TARGET_BYTES_MAX: usize = 4095;
/// Setgid on a directory: what is made in it inherits its group.
const SETGID: u16 = 0o2000;

/// What an inode to be made is, beyond what every inode has.
struct Draft {
    kind: FileKind,
    perm: u16,
    rdev: u32,
    size: u64,
    body: Body,
}

impl Draft {
    const fn new(kind: FileKind, perm: u16) -> Self {
        Self { kind, perm, rdev: 0, size: 0, body: Body::Empty }
    }
}

impl Vfs {
    /// Finds `name` in `dir`. Takes one reference to what it finds, as every call that gives an
    /// [`Attr`] for a name does; [`Vfs::forget`] gives it back.
    ///
    /// # Errors
    /// [`VfsError::NoEntry`] if there is no such name.
    pub async fn lookup(&self, dir: Ino, name: &[u8]) -> Result<Attr, VfsError> {
        if matches!(name, b"." | b"..") {
            return self.lookup_dots(dir, name).await;
        }
        let tag = self.name_tag(dir, name)?;
        self.read_txn(|txn| {
            let Some(entry) = txn.entry(dir, tag)? else {
                txn.directory(dir)?;
                return Err(VfsError::NoEntry.into());
            };
            let inode = txn.promised(entry.ino)?;
            txn.refer(entry.ino);
            Ok(Attr::of(entry.ino, &inode, txn.pending_of(entry.ino)))
        })
        .await
    }

    async fn lookup_dots(&self, dir: Ino, name: &[u8]) -> Result<Attr, VfsError> {
        self.read_txn(|txn| {
            let (ino, inode) = if name == b"." {
                // Of anything but a directory too: that is how the kernel finds what a file handle means.
                (dir, txn.inode(dir)?)
            } else {
                let parent = txn.directory(dir)?.parent;
                (parent, txn.promised(parent)?)
            };
            txn.refer(ino);
            Ok(Attr::of(ino, &inode, txn.pending_of(ino)))
        })
        .await
    }

    /// Gives back `count` references to `ino`. The last one to an inode without names frees it.
    pub fn forget(&self, ino: Ino, count: u64) {
        let mut state = self.state.lock();
        let is_last = state.refs.give_back(ino, count);
        if is_last && state.orphans.contains(&ino) && state.check_writable().is_ok() {
            state.free(ino);
            self.note_change(&mut state);
        }
    }

    /// Makes a regular file; or, unless `exclusive`, finds the one that is there.
    ///
    /// # Errors
    /// [`VfsError::Exists`] if the name is taken (and `exclusive`, or by something else than a
    /// regular file).
    pub async fn create(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
        perm: u16,
        exclusive: bool,
    ) -> Result<Attr, VfsError> {
        let made = self.make(caller, dir, name, || Draft::new(FileKind::Regular, perm)).await;
        match made {
            Err(VfsError::Exists) if !exclusive => self.lookup(dir, name).await,
            other => other,
        }
    }

    /// Makes a file, pipe, device or socket.
    ///
    /// # Errors
    /// [`VfsError::Exists`] if the name is taken.
    pub async fn mknod(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
        kind: FileKind,
        perm: u16,
        rdev: u32,
    ) -> Result<Attr, VfsError> {
        if matches!(kind, FileKind::Directory | FileKind::Symlink) {
            return Err(VfsError::InvalidInput);
        }
        self.make(caller, dir, name, || Draft { rdev, ..Draft::new(kind, perm) }).await
    }

    /// Makes a directory.
    ///
    /// # Errors
    /// [`VfsError::Exists`] if the name is taken.
    pub async fn mkdir(&self, caller: &Caller, dir: Ino, name: &[u8], perm: u16) -> Result<Attr, VfsError> {
        self.make(caller, dir, name, || Draft::new(FileKind::Directory, perm)).await
    }

    /// Makes a symbolic link to `target`, which may be anything.
    ///
    /// # Errors
    /// [`VfsError::Exists`] if the name is taken.
    pub async fn symlink(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
        target: &[u8],
    ) -> Result<Attr, VfsError> {
        match target.len() {
            0 => return Err(VfsError::NoEntry),
            len if len > TARGET_BYTES_MAX => return Err(VfsError::NameTooLong),
            _ => {}
        }
        let caller = Caller { umask: 0, ..*caller };
        let draft = || Draft {
            size: target.len() as u64,
            body: Body::Link(target.to_vec()),
            ..Draft::new(FileKind::Symlink, 0o777)
        };
        self.make(&caller, dir, name, draft).await
    }

    async fn make(
        &self,
        caller: &Caller,
        dir: Ino,
        name: &[u8],
        draft: impl Fn() -> Draft + Send + Sync,
    ) -> Result<Attr, VfsError> {
        let name = self.entry_name(dir, name)?;
        self.update(|txn| {
            txn.want(&[Key::Inode(dir), Key::Entry(dir, name.tag)])?;
            let mut parent = txn.directory(dir)?;
            if parent.nlink == 0 {
                return Err(VfsError::NoEntry.into());
            }
            if txn.entry(dir, name.tag)?.is_some() {
                return Err(VfsError::Exists.into());
            }
            let draft = draft();
            let kind = draft.kind;
            let inode = new_inode(txn, caller, dir, &parent, draft);
            let change = Arc::make_mut(&mut parent);
            if kind == FileKind::Directory {
                change.nlink = change.nlink.checked_add(1).ok_or(VfsError::TooManyLinks)?;
            }
            grew(change, txn);
            let ino = txn.bear(inode.clone())?;
            txn.put_inode(dir, parent);
            txn.put_entry(dir, &name, ino, kind);
            txn.refer(ino);
            Ok(Attr::of(ino, &inode, None))
        })
        .await
    }

    /// Gives `ino` another name.
    ///
    /// # Errors
    /// [`VfsError::Exists`] if the name is taken, [`VfsError::NotPermitted`] for a directory.
    pub async fn link(&self, ino: Ino, dir: Ino, name: &[u8]) -> Result<Attr, VfsError> {
        let name = self.entry_name(dir, name)?;
        self.update(|txn| {
            txn.want(&[Key::Inode(ino), Key::Inode(dir), Key::Entry(dir, name.tag)])?;
            let mut inode = txn.inode(ino)?;
            if inode.kind == FileKind::Directory {
                return Err(VfsError::NotPermitted.into());
            }
            let mut parent = txn.directory(dir)?;
            if inode.nlink == 0 || parent.nlink == 0 {
                return Err(VfsError::NoEntry.into());
            }
            if txn.entry(dir, name.tag)?.is_some() {
                return Err(VfsError::Exists.into());
            }
            if inode.nlink >= LINKS_MAX {
                return Err(VfsError::TooManyLinks.into());
            }
            let change = Arc::make_mut(&mut inode);
            change.nlink += 1;
            change.ctime = txn.now;
            grew(Arc::make_mut(&mut parent), txn);
            let attr = Attr::of(ino, &inode, txn.pending_of(ino));
            let kind = inode.kind;
            txn.put_inode(ino, inode);
            txn.put_inode(dir, parent);
            txn.put_entry(dir, &name, ino, kind);
            txn.refer(ino);
            Ok(attr)
        })
        .await
    }

    /// Removes a name of anything but a directory.
    ///
    /// # Errors
    /// [`VfsError::IsDirectory`] for a directory.
    pub async fn unlink(&self, dir: Ino, name: &[u8]) -> Result<(), VfsError> {
        let tag = self.name_tag(dir, name)?;
        self.remove(|txn| {
            txn.want(&[Key::Inode(dir), Key::Entry(dir, tag)])?;
            let mut parent = txn.directory(dir)?;
            let entry = txn.entry(dir, tag)?.ok_or(VfsError::NoEntry)?;
            if entry.kind == FileKind::Directory {
                return Err(VfsError::IsDirectory.into());
            }
            drop_name(txn, entry.ino)?;
            shrank(Arc::make_mut(&mut parent), txn);
            txn.put_inode(dir, parent);
            txn.put(Key::Entry(dir, tag), None);
            Ok(())
        })
        .await
    }

    /// Removes an empty directory.
    ///
    /// # Errors
    /// [`VfsError::NotEmpty`] if it is not, [`VfsError::NotDirectory`] for anything else.
    pub async fn rmdir(&self, dir: Ino, name: &[u8]) -> Result<(), VfsError> {
        match name {
            b"." => return Err(VfsError::InvalidInput),
            b".." => return Err(VfsError::NotEmpty),
            _ => {}
        }
        let tag = self.name_tag(dir, name)?;
        self.remove(|txn| {
            txn.want(&[Key::Inode(dir), Key::Entry(dir, tag)])?;
            let mut parent = txn.directory(dir)?;
            let entry = txn.entry(dir, tag)?.ok_or(VfsError::NoEntry)?;
            if entry.kind != FileKind::Directory {
                return Err(VfsError::NotDirectory.into());
            }
            drop_directory(txn, entry.ino)?;
            let change = Arc::make_mut(&mut parent);
            change.nlink = change.nlink.saturating_sub(1);
            shrank(change, txn);
            txn.put_inode(dir, parent);
            txn.put(Key::Entry(dir, tag), None);
            Ok(())
        })
        .await
    }

    /// The target of a symbolic link.
    ///
    /// # Errors
    /// [`VfsError::InvalidInput`] for anything else.
    pub async fn readlink(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        self.read_txn(|txn| match &txn.inode(ino)?.body {
            Body::Link(target) => Ok(target.clone()),
            _ => Err(VfsError::InvalidInput.into()),
        })
        .await
    }
}

fn new_inode(txn: &Txn, caller: &Caller, dir: Ino, parent: &Inode, draft: Draft) -> Inode {
    let is_directory = draft.kind == FileKind::Directory;
    let inherits_group = parent.perm & SETGID != 0;
    let mut perm = draft.perm & !(caller.umask as u16) & 0o7777;
    if inherits_group && is_directory {
        perm |= SETGID;
    }
    Inode {
        kind: draft.kind,
        perm,
        uid: caller.uid,
        gid: if inherits_group { parent.gid } else { caller.gid },
        nlink: if is_directory { 2 } else { 1 },
        rdev: draft.rdev,
        size: draft.size,
        allocated: 0,
        atime: txn.now,
        mtime: txn.now,
        ctime: txn.now,
        btime: txn.now,
        parent: if is_directory { dir } else { Ino(0) },
        entries: 0,
        xattrs: 0,
        body: draft.body,
    }
}

/// A directory has one entry more.
pub(super) fn grew(directory: &mut Inode, txn: &Txn) {
    directory.entries = directory.entries.saturating_add(1);
    directory.mtime = txn.now;
    directory.ctime = txn.now;
}

/// A directory has one entry less.
pub(super) fn shrank(directory: &mut Inode, txn: &Txn) {
    directory.entries = directory.entries.saturating_sub(1);
    directory.mtime = txn.now;
    directory.ctime = txn.now;
}

/// Takes one name from an inode that is no directory.
pub(super) fn drop_name(txn: &mut Txn, ino: Ino) -> Result<(), Halt> {
    let mut inode = txn.promised(ino)?;
    let change = Arc::make_mut(&mut inode);
    change.nlink = change.nlink.saturating_sub(1);
    change.ctime = txn.now;
    if inode.nlink == 0 {
        txn.release_unnamed(ino, inode);
    } else {
        txn.put_inode(ino, inode);
    }
    Ok(())
}

/// Takes its name from an empty directory.
pub(super) fn drop_directory(txn: &mut Txn, ino: Ino) -> Result<(), Halt> {
    let mut inode = txn.promised(ino)?;
    if inode.entries > 0 {
        return Err(VfsError::NotEmpty.into());
    }
    let change = Arc::make_mut(&mut inode);
    change.nlink = 0;
    change.ctime = txn.now;
    txn.release_unnamed(ino, inode);
    Ok(())
}
