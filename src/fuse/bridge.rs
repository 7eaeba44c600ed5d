//! The object `fuser` calls: shorthands for the common shapes of a request.

use std::ffi::OsStr;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::Duration;

use fuser::{INodeNo, ReplyEmpty, ReplyEntry, ReplyWrite, Request};
use futures::TryFutureExt;

use super::births::{self, Kind};
use super::convert::{Refusal, ino};
use super::core::Core;
use super::listing::Page;
use super::serve::{Desk, Patience, Reply};
use crate::base::Ino;
use crate::vfs::{Caller, Drops, VfsError};

type Shared = Arc<Core>;

/// A mounted volume as the kernel sees it.
pub(super) struct Bridge(pub(super) Desk<Core>);

impl Bridge {
    /// One `vfs` call, given up if its caller is killed.
    pub(super) fn call<R, T, E, F>(
        &self,
        request: &Request,
        reply: R,
        operation: impl FnOnce(Shared) -> F,
        answer: impl FnOnce(&Core, R, T) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        self.0.serve(reply, Patience::UntilKilled(request.pid()), operation, answer);
    }

    /// One `vfs` call about an inode that the kernel knows. The answer is given for how long it may be remembered.
    pub(super) fn ask<R, T, F>(
        &self,
        request: &Request,
        reply: R,
        operation: impl FnOnce(Shared) -> F,
        answer: impl FnOnce(&Core, R, T, Duration) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        F: Future<Output = Result<T, VfsError>> + Send + 'static,
    {
        let lease = self.0.core.lease();
        self.call(
            request,
            reply,
            // Not an async block, which would have room for `operation`'s future twice.
            |core| operation(Arc::clone(&core)).map_err(move |error| core.about_inode(error)),
            move |core, reply, value| answer(core, reply, value, core.ttl(lease)),
        );
    }

    /// One `vfs` call that yields nothing.
    pub(super) fn act<E, F>(&self, request: &Request, reply: ReplyEmpty, operation: impl FnOnce(Shared) -> F)
    where
        E: Into<Refusal> + Send + 'static,
        F: Future<Output = Result<(), E>> + Send + 'static,
    {
        self.call(request, reply, operation, |_, reply, ()| reply.ok());
    }

    /// Several steps that belong together: what has begun goes on to its end. It begins when there is room for it.
    pub(super) fn steps<R, T, F>(
        &self,
        (pid, frees): (u32, bool),
        reply: R,
        operation: impl FnOnce(Shared) -> F + Send + 'static,
        answer: impl FnOnce(&Core, R, T) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
    {
        let room = || {
            let vfs = Arc::clone(&self.0.core.vfs);
            async move { vfs.room(frees).await }
        };
        self.0.serve_after((reply, pid), room, operation, answer);
    }

    /// The next entries of a follower's listing.
    pub(super) fn page<R: Reply>(
        &self,
        request: &Request,
        listing: (u64, Ino),
        cookie: u64,
        reply: R,
        answer: impl FnOnce(&Core, R, Page, Duration) + Send + 'static,
    ) {
        let lease = self.0.core.lease();
        let page = |core: Shared| async move { core.listings.page(&core.vfs, listing, cookie, lease).await };
        self.ask(request, reply, page, answer);
    }

    /// `mknod`, `mkdir` and `symlink`.
    pub(super) fn make(
        &self,
        caller: Caller,
        dir: INodeNo,
        name: &OsStr,
        perm: u16,
        kind: Kind,
        reply: ReplyEntry,
    ) {
        let (dir, name) = (ino(dir), owned(name));
        self.steps(
            (caller.pid, false),
            reply,
            move |core| async move { births::make(&core, caller, dir, &name, perm, &kind).await },
            |core, reply, attr| core.entry(reply, &attr),
        );
    }

    /// Writes straight from the request's buffer if that can be done at once, else from a copy.
    pub(super) fn store(
        &self,
        request: &Request,
        node: Ino,
        offset: u64,
        data: &[u8],
        (drops, durability): (Drops, Option<bool>),
        reply: ReplyWrite,
    ) {
        let written = move |core: &Core, reply: ReplyWrite, bytes: usize| {
            if drops == Drops::All {
                core.set_ids_cleared(node);
            }
            reply.written(u32::try_from(bytes).unwrap_or(u32::MAX));
        };
        let vfs = &self.0.core.vfs;
        if durability.is_none()
            && let Some(result) = self.0.try_now(vfs.write_dropping(node, offset, data, drops))
        {
            return self.0.settle(reply, result, written);
        }
        // Nothing has been written yet: a future that was not ready has changed nothing.
        let (vfs, data) = (Arc::clone(vfs), data.to_vec());
        let later = async move {
            let bytes = vfs.write_dropping(node, offset, &data, drops).await?;
            match durability {
                Some(data_only) => vfs.fsync(node, data_only).await.map(|()| bytes),
                None => Ok(bytes),
            }
        };
        self.0.wait(reply, Patience::UntilKilled(request.pid()), later, written);
    }
}

pub(super) fn caller(request: &Request, umask: u32) -> Caller {
    Caller { uid: request.uid(), gid: request.gid(), pid: request.pid(), umask }
}

pub(super) fn owned(name: &OsStr) -> Vec<u8> {
    name.as_bytes().to_vec()
}
