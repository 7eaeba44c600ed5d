//! Renaming: within and across directories, over what is there, and in exchange for it.

use std::sync::Arc;

use crate::base::{FileKind, Ino};
use crate::meta::{Entry, Key};

use super::links::{drop_directory, drop_name, grew, shrank};
use super::txn::{EntryName, Halt, Txn};
use super::{RenameMode, Vfs, VfsError};

/// Deepest directory that a rename looks up from, so that a damaged tree cannot hold it for ever.
const DEPTH_MAX: usize = 1 << 16;

/// One end of a rename.
struct End {
    dir: Ino,
    name: Arc<EntryName>,
}

impl Vfs {
    /// Renames, in one step that no one sees half of.
    ///
    /// # Errors
    /// Those of `renameat2(2)`.
    pub async fn rename(
        &self,
        dir: Ino,
        name: &[u8],
        new_dir: Ino,
        new_name: &[u8],
        mode: RenameMode,
    ) -> Result<Vec<Ino>, VfsError> {
        if [name, new_name].iter().any(|name| matches!(*name, b"." | b"..")) {
            return Err(VfsError::InvalidInput);
        }
        let from = End { dir, name: self.entry_name(dir, name)? };
        let to = End { dir: new_dir, name: self.entry_name(new_dir, new_name)? };
        self.update(|txn| {
            txn.want(&[
                Key::Inode(from.dir),
                Key::Inode(to.dir),
                Key::Entry(from.dir, from.name.tag),
                Key::Entry(to.dir, to.name.tag),
            ])?;
            let source_dir = txn.directory(from.dir)?;
            let target_dir = txn.directory(to.dir)?;
            let moved = txn.entry(from.dir, from.name.tag)?.ok_or(VfsError::NoEntry)?;
            let met = txn.entry(to.dir, to.name.tag)?;
            if source_dir.nlink == 0 || target_dir.nlink == 0 {
                return Err(VfsError::NoEntry.into());
            }
            check_no_loop(txn, &moved, from.dir, to.dir)?;
            let adopted = |entry: &Entry| {
                (from.dir != to.dir && entry.kind == FileKind::Directory).then_some(entry.ino)
            };
            match (mode, met) {
                (RenameMode::Exchange, None) => Err(VfsError::NoEntry.into()),
                (RenameMode::Exchange, Some(met)) => {
                    check_no_loop(txn, &met, to.dir, from.dir)?;
                    exchange(txn, &from, &to, &moved, &met)?;
                    Ok(adopted(&moved).into_iter().chain(adopted(&met)).collect())
                }
                (RenameMode::NoReplace, Some(_)) => Err(VfsError::Exists.into()),
                (_, Some(met)) if met.ino == moved.ino => Ok(Vec::new()),
                (_, met) => {
                    replace(txn, &from, &to, &moved, met.as_deref())?;
                    Ok(adopted(&moved).into_iter().collect())
                }
            }
        })
        .await
    }
}

/// A directory must not move into itself or below.
fn check_no_loop(txn: &mut Txn, moved: &Entry, from: Ino, to: Ino) -> Result<(), Halt> {
    if moved.kind != FileKind::Directory || from == to {
        return Ok(());
    }
    let mut at = to;
    for _ in 0..DEPTH_MAX {
        if at == moved.ino {
            return Err(VfsError::InvalidInput.into());
        }
        if at == Ino::ROOT {
            return Ok(());
        }
        at = txn.directory(at)?.parent;
    }
    Err(VfsError::InvalidInput.into())
}

fn replace(txn: &mut Txn, from: &End, to: &End, moved: &Entry, met: Option<&Entry>) -> Result<(), Halt> {
    let is_directory = moved.kind == FileKind::Directory;
    txn.want(&[Key::Inode(moved.ino)])?;
    if let Some(met) = met {
        match (is_directory, met.kind == FileKind::Directory) {
            (true, false) => return Err(VfsError::NotDirectory.into()),
            (false, true) => return Err(VfsError::IsDirectory.into()),
            (true, true) => drop_directory(txn, met.ino)?,
            (false, false) => drop_name(txn, met.ino)?,
        }
    }
    touch_moved(txn, moved.ino, to.dir)?;

    let mut source_dir = txn.directory(from.dir)?;
    let change = Arc::make_mut(&mut source_dir);
    shrank(change, txn);
    if is_directory {
        change.nlink = change.nlink.saturating_sub(1);
    }
    txn.put_inode(from.dir, source_dir);

    let mut target_dir = txn.directory(to.dir)?;
    let change = Arc::make_mut(&mut target_dir);
    grew(change, txn);
    if is_directory {
        change.nlink = change.nlink.saturating_add(1);
    }
    if met.is_some() {
        shrank(change, txn);
        if is_directory {
            change.nlink = change.nlink.saturating_sub(1);
        }
    }
    txn.put_inode(to.dir, target_dir);

    txn.put(Key::Entry(from.dir, from.name.tag), None);
    txn.put_entry(to.dir, &to.name, moved.ino, moved.kind);
    Ok(())
}

fn exchange(txn: &mut Txn, from: &End, to: &End, moved: &Entry, met: &Entry) -> Result<(), Halt> {
    txn.want(&[Key::Inode(moved.ino), Key::Inode(met.ino)])?;
    touch_moved(txn, moved.ino, to.dir)?;
    touch_moved(txn, met.ino, from.dir)?;
    let subdirs = |entry: &Entry| i64::from(entry.kind == FileKind::Directory);
    for (dir, gain) in [(from.dir, subdirs(met) - subdirs(moved)), (to.dir, subdirs(moved) - subdirs(met))] {
        let mut directory = txn.directory(dir)?;
        let change = Arc::make_mut(&mut directory);
        change.nlink = change.nlink.saturating_add_signed(gain as i32);
        change.mtime = txn.now;
        change.ctime = txn.now;
        txn.put_inode(dir, directory);
    }
    txn.put_entry(to.dir, &to.name, moved.ino, moved.kind);
    txn.put_entry(from.dir, &from.name, met.ino, met.kind);
    Ok(())
}

fn touch_moved(txn: &mut Txn, ino: Ino, new_dir: Ino) -> Result<(), Halt> {
    let mut inode = txn.promised(ino)?;
    let change = Arc::make_mut(&mut inode);
    change.ctime = txn.now;
    if change.kind == FileKind::Directory {
        change.parent = new_dir;
        if change.entries > 0 {
            txn.move_tree();
        }
    }
    txn.put_inode(ino, inode);
    Ok(())
}
