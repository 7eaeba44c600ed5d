//! Gives the kernel the contents of a small file before it is told that the file is open. Who reads it then is answered from the
//! kernel's own pages: of the requests that reading a small file takes, each of which costs two wake-ups, one is saved.

use fuser::{FileHandle, FopenFlags, INodeNo, OpenFlags, ReplyData, ReplyOpen};

use super::convert::Refusal;
use super::core::Core;
use super::permission;
use crate::base::{BLOCK_BYTES, Ino};
use crate::vfs::{Attr, Caller, Handle, SetAttr};

/// Larger files are often not read to their end.
const GIVEN_BYTES_MAX: usize = BLOCK_BYTES;

impl Core {
    /// Answers that a file is open. On the thread that asked, contents that are in memory are given to the kernel first.
    pub(super) fn opened(
        &self,
        reply: ReplyOpen,
        node: Ino,
        flags: OpenFlags,
        (Handle(handle), mut how): (Handle, FopenFlags),
    ) {
        let is_read = flags.0 & (libc::O_ACCMODE | libc::O_DIRECT) == libc::O_RDONLY;
        let may_be_given =
            is_read && self.writer && !self.filters && !how.contains(FopenFlags::FOPEN_DIRECT_IO);
        // Where each reading counts, each has to be asked for.
        let is_kept = how.contains(FopenFlags::FOPEN_KEEP_CACHE) || !self.vfs.notes_each_read();
        if may_be_given && is_kept && tokio::task::try_id().is_none() && self.give(node) {
            how |= FopenFlags::FOPEN_KEEP_CACHE;
        }
        reply.opened(FileHandle(handle), how);
    }

    /// Gives the kernel all of a file if that is small and in memory, in the place of what it may have of it. Whether it has.
    fn give(&self, node: Ino) -> bool {
        let Some(notifier) = self.notifier() else { return false };
        let Some(giving) = self.opens.give(node) else { return false };
        let contents = self.vfs.at_hand(node, GIVEN_BYTES_MAX).filter(|contents| !contents.is_empty());
        let Some(contents) = contents else { return false };
        if let Err(error) = notifier.store(INodeNo(node.0), 0, &contents) {
            tracing::debug!(%node, %error, "the kernel did not take a file's contents");
            return false;
        }
        giving.done();
        true
    }

    /// A file is closed. If its opening counted as a read, the kernel is told so now: a reader who comes to the end of a file asks
    /// for attributes that are not remembered.
    pub(super) fn close(&self, handle: u64) {
        let counted = self.opens.closed(handle);
        self.vfs.release(Handle(handle));
        if let (Some(node), Some(notifier)) = (counted, self.notifier())
            && let Err(error) = notifier.inval_inode(INodeNo(node.0), -1, 0)
        {
            tracing::debug!(%node, %error, "the kernel goes on showing an old access time");
        }
    }

    /// Answers with what was read.
    pub(super) fn answer_read(
        &self,
        reply: ReplyData,
        node: Ino,
        offset: u64,
        flags: OpenFlags,
        data: &[u8],
    ) {
        if flags.0 & libc::O_NOATIME == 0 {
            self.vfs.touch(node);
        }
        if offset == 0 && data.len() <= GIVEN_BYTES_MAX && flags.0 & libc::O_DIRECT == 0 {
            self.opens.asked(node);
        }
        reply.data(data);
    }

    /// Sets attributes; a length while nobody gives the kernel what the file was before.
    pub(super) async fn set_attr(&self, caller: &Caller, node: Ino, set: &SetAttr) -> Result<Attr, Refusal> {
        let _changing = set.size.map(|_| self.opens.change(node));
        permission::set_attr(&self.vfs, caller, node, set, || self.opens.may_be_written(node)).await
    }
}
