//! What the kernel leaves to a filesystem about permissions: lists kept in step with modes, set-id bits dropped.

use std::collections::HashSet;
use std::sync::atomic::{AtomicUsize, Ordering};

use fuser::Errno;
use parking_lot::Mutex;

use super::acl::{ACCESS, Acl, DEFAULT};
use super::convert::Refusal;
use crate::base::{FileKind, Ino};
use crate::vfs::{Attr, Caller, SetAttr, Vfs, VfsError, XattrMode};

/// Directories remembered at most, in either set; both are refilled from the `vfs`.
const REMEMBERED_MAX: usize = 64 * 1024;
const SET_UID: u16 = 0o4000;
const SET_GID: u16 = 0o2000;
const GROUP_EXECUTE: u16 = 0o010;

/// Directories known to have no default list, so that making a file there asks nothing.
#[derive(Debug, Default)]
pub(super) struct PlainDirs(Mutex<(u64, HashSet<Ino>)>);

impl PlainDirs {
    fn contains(&self, dir: Ino) -> bool {
        self.0.lock().1.contains(&dir)
    }

    fn generation(&self) -> u64 {
        self.0.lock().0
    }

    /// Nothing is learnt from an answer that may have been overtaken by a change.
    fn learn(&self, dir: Ino, asked_at: u64) {
        let (generation, dirs) = &mut *self.0.lock();
        if *generation == asked_at {
            if dirs.len() >= REMEMBERED_MAX {
                dirs.clear();
            }
            dirs.insert(dir);
        }
    }

    fn forget(&self, dir: Ino) {
        let (generation, dirs) = &mut *self.0.lock();
        *generation += 1;
        dirs.remove(&dir);
    }
}

/// Files that the kernel believes to be setuid or setgid.
///
/// A direct write by an unprivileged caller clears these bits in the `vfs`, of which the kernel hears nothing in the
/// reply; it would go on honouring them when the file is executed.
#[derive(Debug, Default)]
pub(super) struct SetIds {
    count: AtomicUsize,
    inos: Mutex<HashSet<Ino>>,
}

impl SetIds {
    /// Notes attributes that are about to be told to the kernel.
    pub(super) fn note(&self, attr: &Attr) {
        let set = attr.kind == FileKind::Regular && attr.perm & (SET_UID | SET_GID) != 0;
        if !set && self.count.load(Ordering::Acquire) == 0 {
            return;
        }
        let mut inos = self.inos.lock();
        if set && inos.len() < REMEMBERED_MAX {
            inos.insert(attr.ino);
        } else if !set && inos.len() < REMEMBERED_MAX {
            inos.remove(&attr.ino);
        }
        self.count.store(inos.len(), Ordering::Release);
    }

    /// Whether the kernel may hold stale set-id bits of `ino`; once the set is full, it may for every file.
    pub(super) fn may_hold(&self, ino: Ino) -> bool {
        match self.count.load(Ordering::Acquire) {
            0 => false,
            count => count >= REMEMBERED_MAX || self.inos.lock().contains(&ino),
        }
    }
}

/// How a new entry begins: what its directory's default list makes of the mode that was asked for.
pub(super) struct Birth {
    pub(super) perm: u16,
    pub(super) caller: Caller,
    access: Option<Vec<u8>>,
    default: Option<Vec<u8>>,
}

impl Birth {
    /// Asks `dir` for its default list. Where there is one, it replaces the caller's umask.
    pub(super) async fn plan(
        vfs: &Vfs,
        plain: &PlainDirs,
        caller: Caller,
        dir: Ino,
        perm: u16,
        is_dir: bool,
    ) -> Result<Self, Refusal> {
        let simple = Self { perm, caller, access: None, default: None };
        if plain.contains(dir) {
            return Ok(simple);
        }
        let asked_at = plain.generation();
        let Some(bytes) = attribute(vfs, dir, DEFAULT).await? else {
            plain.learn(dir, asked_at);
            return Ok(simple);
        };
        let Some(default) = Acl::parse(&bytes) else {
            return Err(Refusal(Errno::EIO));
        };
        let access = default.for_new_entry(perm);
        Ok(Self {
            perm: (perm & !0o777) | access.mode(),
            caller: Caller { umask: 0, ..caller },
            access: (!access.is_only_a_mode()).then(|| access.encode()),
            default: is_dir.then_some(bytes),
        })
    }

    /// Gives the new entry its lists. If that fails the entry must be removed again: without its list, its group
    /// bits would mean more than they should.
    pub(super) async fn finish(&self, vfs: &Vfs, ino: Ino) -> Result<(), VfsError> {
        if let Some(access) = &self.access {
            vfs.set_xattr(ino, ACCESS, access, XattrMode::Set).await?;
        }
        if let Some(default) = &self.default {
            vfs.set_xattr(ino, DEFAULT, default, XattrMode::Set).await?;
        }
        Ok(())
    }
}

/// Sets an attribute that is a list, and what follows from it.
pub(super) async fn set_list(
    vfs: &Vfs,
    plain: &PlainDirs,
    caller: &Caller,
    ino: Ino,
    name: &[u8],
    value: &[u8],
) -> Result<(), Refusal> {
    let acl = Acl::parse(value).ok_or(Refusal(Errno::EINVAL))?;
    if name == DEFAULT {
        plain.forget(ino);
        let result = vfs.set_xattr(ino, name, value, XattrMode::Set).await;
        plain.forget(ino);
        return Ok(result?);
    }
    let attr = vfs.getattr(ino).await?;
    if acl.is_only_a_mode() {
        remove_if_there(vfs, ino, ACCESS).await?;
    } else {
        vfs.set_xattr(ino, name, value, XattrMode::Set).await?;
    }
    let keeps_set_gid = caller.uid == 0 || is_member(caller, attr.gid);
    let kept = attr.perm & !0o777 & if keeps_set_gid { !0 } else { !SET_GID };
    let perm = Some(kept | acl.mode());
    vfs.setattr(caller, ino, &SetAttr { perm, ..SetAttr::default() }).await?;
    Ok(())
}

/// Whether the caller is in group `gid`. The kernel sends only its first group; the others are in `/proc`.
fn is_member(caller: &Caller, gid: u32) -> bool {
    if caller.gid == gid {
        return true;
    }
    let status = std::fs::read_to_string(format!("/proc/{}/status", caller.pid)).unwrap_or_default();
    groups(&status).any(|group| group == gid)
}

/// The supplementary groups in a `status` file (proc_pid_status(5)).
fn groups(status: &str) -> impl Iterator<Item = u32> {
    let line = status.lines().find_map(|line| line.strip_prefix("Groups:")).unwrap_or_default();
    line.split_ascii_whitespace().filter_map(|group| group.parse().ok())
}

/// Changes attributes; a new mode is written into the access list too. `may_be_written` tells whether anybody has the file
/// open for writing.
pub(super) async fn set_attr(
    vfs: &Vfs,
    caller: &Caller,
    ino: Ino,
    set: &SetAttr,
    may_be_written: impl FnOnce() -> bool,
) -> Result<Attr, Refusal> {
    if sets_nothing(set) {
        return set_nothing(vfs, caller, ino, may_be_written).await;
    }
    let attr = vfs.setattr(caller, ino, set).await?;
    let Some(perm) = set.perm else {
        return Ok(attr);
    };
    if let Some(acl) = attribute(vfs, ino, ACCESS).await?.as_deref().and_then(Acl::parse) {
        let value = acl.after_chmod(perm).encode();
        vfs.set_xattr(ino, ACCESS, &value, XattrMode::Set).await?;
    }
    Ok(attr)
}

/// A SETATTR that sets nothing. The kernel sends one before a buffered write, so that the set-id bits go which a change of
/// contents drops (`setattr_should_drop_suidgid` of the kernel): the flag that would say so is lost in `fuser` 0.18.0. Where there
/// are none it is a `chown` to nobody else, which moves `ctime`. The kernel lets anybody do that, and drops the bits by it: so
/// it is refused to who does not own the file, unless somebody can be writing to it.
async fn set_nothing(
    vfs: &Vfs,
    caller: &Caller,
    ino: Ino,
    may_be_written: impl FnOnce() -> bool,
) -> Result<Attr, Refusal> {
    let attr = vfs.getattr(ino).await?;
    let perm = without_set_ids(attr.perm);
    let has_set_ids = attr.kind == FileKind::Regular && perm != attr.perm;
    if has_set_ids && caller.uid != 0 && caller.uid != attr.uid && !may_be_written() {
        return Err(Refusal(Errno::EPERM));
    }
    let set = SetAttr { perm: has_set_ids.then_some(perm), ..SetAttr::default() };
    Ok(vfs.setattr(caller, ino, &set).await?)
}

const fn sets_nothing(set: &SetAttr) -> bool {
    matches!(
        set,
        SetAttr { perm: None, uid: None, gid: None, size: None, atime: None, mtime: None, ctime: None }
    )
}

/// Setgid without group execution is no privilege but a mark for locking, and stays.
const fn without_set_ids(perm: u16) -> u16 {
    let perm = perm & !SET_UID;
    if perm & GROUP_EXECUTE == 0 { perm } else { perm & !SET_GID }
}

/// Removes a list, if it is there, and with it what is remembered of a default one.
pub(super) async fn remove_list(vfs: &Vfs, plain: &PlainDirs, ino: Ino, name: &[u8]) -> Result<(), VfsError> {
    plain.forget(ino);
    remove_if_there(vfs, ino, name).await
}

/// An attribute's value, if there is one.
async fn attribute(vfs: &Vfs, ino: Ino, name: &[u8]) -> Result<Option<Vec<u8>>, VfsError> {
    match vfs.get_xattr(ino, name).await {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.errno() == libc::ENODATA => Ok(None),
        Err(error) => Err(error),
    }
}

async fn remove_if_there(vfs: &Vfs, ino: Ino, name: &[u8]) -> Result<(), VfsError> {
    match vfs.remove_xattr(ino, name).await {
        Err(error) if error.errno() != libc::ENODATA => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn set_id_bits_fall_as_in_the_kernel() {
        assert_eq!(without_set_ids(0o6755), 0o755);
        assert_eq!(without_set_ids(0o4644), 0o644);
        assert_eq!(without_set_ids(0o2644), 0o2644);
        assert_eq!(without_set_ids(0o3755), 0o1755);
    }

    #[test]
    fn all_groups_of_a_process_are_found() {
        let status = "Name:\tsh\nGid:\t4\t4\t4\t4\nGroups:\t10 1000 \nNStgid:\t7\n";
        assert_eq!(groups(status).collect::<Vec<_>>(), [10, 1000]);
        assert_eq!(groups("Groups:\t\n").count() + groups("").count(), 0);
    }

    #[test]
    fn an_answer_overtaken_by_a_change_is_not_learnt() {
        let plain = PlainDirs::default();
        let before = plain.generation();
        plain.forget(Ino(7));
        plain.learn(Ino(7), before);
        assert!(!plain.contains(Ino(7)));
        plain.learn(Ino(7), plain.generation());
        assert!(plain.contains(Ino(7)));
    }
}
