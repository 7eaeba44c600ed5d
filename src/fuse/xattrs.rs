//! Extended attributes at the kernel's door: which names there are, how sizes are asked for, which are lists.

use std::sync::Arc;

use fuser::{Errno, ReplyXattr};

use super::acl::{ACCESS, DEFAULT};
use super::convert::Refusal;
use super::core::Core;
use super::permission;
use crate::base::Ino;
use crate::vfs::{Caller, VfsError, XattrMode};

/// Tells how far the changes to a file have come. It is not stored, and not listed, so that no copy takes it along.
const STATE: &[u8] = b"user.coffer.state";

/// What only root may see.
const TRUSTED: &[u8] = b"trusted.";
const NAMESPACES: [&[u8]; 3] = [b"user.", TRUSTED, b"security."];

pub(super) async fn get(core: &Core, node: Ino, name: &[u8]) -> Result<Vec<u8>, VfsError> {
    if name == STATE {
        let state = core.vfs.file_state(node).await?;
        return Ok(state.word().as_bytes().to_vec());
    }
    // The kernel asks by itself for lists and for some of `security.`; of these it must hear that there are none.
    if !is_known(name) {
        return Err(if is_bare(name) { VfsError::InvalidInput } else { VfsError::NotSupported });
    }
    core.vfs.get_xattr(node, name).await
}

/// The names that `uid` may see, each followed by NUL.
pub(super) async fn list(core: Arc<Core>, node: Ino, uid: u32) -> Result<Vec<u8>, VfsError> {
    Ok(visible(&core.vfs.list_xattr(node).await?, uid))
}

pub(super) async fn set(
    core: &Core,
    caller: &Caller,
    node: Ino,
    name: &[u8],
    value: &[u8],
    mode: XattrMode,
) -> Result<(), Refusal> {
    if is_list(name) {
        return permission::set_list(&core.vfs, &core.plain, caller, node, name, value).await;
    }
    if name == STATE {
        return Err(Refusal(Errno::EPERM));
    }
    if !is_plain(name) {
        return Err(no_name(name));
    }
    Ok(core.vfs.set_xattr(node, name, value, mode).await?)
}

pub(super) async fn remove(core: &Core, node: Ino, name: &[u8]) -> Result<(), Refusal> {
    if is_list(name) {
        return Ok(permission::remove_list(&core.vfs, &core.plain, node, name).await?);
    }
    if name == STATE {
        return Err(Refusal(Errno::EPERM));
    }
    if !is_plain(name) {
        return Err(no_name(name));
    }
    Ok(core.vfs.remove_xattr(node, name).await?)
}

/// Answers with `value`, or with its size where `room` is 0.
pub(super) fn answer(reply: ReplyXattr, room: u32, value: &[u8]) {
    match answer_for(room, value.len()) {
        Ok(None) => reply.data(value),
        Ok(Some(bytes)) => reply.size(bytes),
        Err(error) => reply.error(error),
    }
}

/// `Ok(None)`: the value itself; `Ok(Some)`: its size.
fn answer_for(room: u32, bytes: usize) -> Result<Option<u32>, Errno> {
    let bytes = u32::try_from(bytes).map_err(|_| Errno::E2BIG)?;
    match room {
        0 => Ok(Some(bytes)),
        room if bytes > room => Err(Errno::ERANGE),
        _ => Ok(None),
    }
}

/// Those of `names` that `uid` may see and that can be asked for: a copy of other filesystems may have brought stranger ones.
fn visible(names: &[u8], uid: u32) -> Vec<u8> {
    let is_shown = |name: &&[u8]| {
        let name = name.strip_suffix(b"\0").unwrap_or(name);
        is_known(name) && (uid == 0 || !name.starts_with(TRUSTED))
    };
    names.split_inclusive(|byte| *byte == 0).filter(is_shown).flatten().copied().collect()
}

fn is_known(name: &[u8]) -> bool {
    is_list(name) || is_plain(name)
}

/// A namespace with no name in it, for which the kernel's own filesystems have an error of its own.
fn is_bare(name: &[u8]) -> bool {
    NAMESPACES.contains(&name)
}

fn no_name(name: &[u8]) -> Refusal {
    Refusal(if is_bare(name) { Errno::EINVAL } else { Errno::EOPNOTSUPP })
}

fn is_list(name: &[u8]) -> bool {
    name == ACCESS || name == DEFAULT
}

fn is_plain(name: &[u8]) -> bool {
    NAMESPACES.iter().any(|space| name.len() > space.len() && name.starts_with(space))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_is_sent_only_where_it_fits() {
        assert_eq!(answer_for(0, 10), Ok(Some(10)));
        assert_eq!(answer_for(10, 10), Ok(None));
        assert_eq!(answer_for(9, 10), Err(Errno::ERANGE));
        assert_eq!(answer_for(0, 0), Ok(Some(0)));
    }

    #[test]
    fn only_names_of_known_namespaces_are_kept() {
        assert!(is_plain(b"user.mime_type") && is_plain(b"security.capability") && is_plain(b"trusted.x"));
        assert!(!is_plain(b"user.") && !is_plain(b"system.nfs4_acl") && !is_plain(b"bare"));
        assert!(is_list(b"system.posix_acl_access") && is_list(b"system.posix_acl_default"));
        assert!(is_known(b"system.posix_acl_access") && is_known(b"user.mime_type") && !is_known(b"bare"));
    }

    #[test]
    fn a_list_holds_what_its_reader_may_ask_for() {
        let names = b"trusted.t\0user.u\0system.posix_acl_access\0system.nfs4_acl\0trusted.v\0security.s\0";
        let of_all = b"user.u\0system.posix_acl_access\0security.s\0";
        assert_eq!(visible(names, 1000), of_all);
        let of_root = b"trusted.t\0user.u\0system.posix_acl_access\0trusted.v\0security.s\0";
        assert_eq!(visible(names, 0), of_root);
        assert!(visible(b"trusted.t\0", 1000).is_empty() && visible(b"", 0).is_empty());
    }
}
