//! Extended attributes: names sealed like file names, values in records of their own.

use std::sync::Arc;

use crate::base::{Ino, NAME_BYTES_MAX, Tag};
use crate::crypto::SealedName;
use crate::meta::{Inode, Key, MetaError, Record, Xattr};

use super::txn::{Halt, Txn};
use super::{Vfs, VfsError, XattrMode};

/// Largest value, as `XATTR_SIZE_MAX` on Linux.
const VALUE_BYTES_MAX: usize = 65536;
/// Largest list of names, as `XATTR_LIST_MAX` on Linux; also how many attributes an inode can have.
const LIST_BYTES_MAX: usize = 65536;
/// Attributes read from the engine at a time.
const SCAN_COUNT: usize = 1024;
/// Gives capabilities to the program that a file holds.
const CAPABILITY: &[u8] = b"security.capability";

impl Vfs {
    fn seal_xattr(&self, ino: Ino, name: &[u8]) -> Result<SealedName, VfsError> {
        match name.len() {
            0 => Err(VfsError::InvalidInput),
            len if len > NAME_BYTES_MAX => Err(VfsError::Range),
            _ => Ok(self.ring().seal_xattr_name(ino, name)),
        }
    }

    /// The value of an extended attribute.
    ///
    /// # Errors
    /// [`VfsError::NoAttribute`] if there is none.
    pub async fn get_xattr(&self, ino: Ino, name: &[u8]) -> Result<Vec<u8>, VfsError> {
        let name = self.seal_xattr(ino, name)?;
        self.read_txn(|txn| {
            if txn.inode(ino)?.xattrs == 0 {
                return Err(VfsError::NoAttribute.into());
            }
            let found = xattr(txn, ino, name.tag)?.ok_or(VfsError::NoAttribute)?;
            Ok(found.value.clone())
        })
        .await
    }

    /// Sets an extended attribute.
    ///
    /// # Errors
    /// Those of `setxattr(2)`.
    pub async fn set_xattr(
        &self,
        ino: Ino,
        name: &[u8],
        value: &[u8],
        mode: XattrMode,
    ) -> Result<(), VfsError> {
        if value.len() > VALUE_BYTES_MAX {
            return Err(VfsError::TooBig);
        }
        let name = self.seal_xattr(ino, name)?;
        self.update(|txn| {
            let mut inode = txn.inode(ino)?;
            let found = if inode.xattrs == 0 { None } else { xattr(txn, ino, name.tag)? };
            match (mode, found.is_some()) {
                (XattrMode::Create, true) => return Err(VfsError::Exists.into()),
                (XattrMode::Replace, false) => return Err(VfsError::NoAttribute.into()),
                _ => {}
            }
            let change = Arc::make_mut(&mut inode);
            change.ctime = txn.now;
            if found.is_none() {
                change.xattrs += 1;
            }
            txn.put_inode(ino, inode);
            let record = Xattr { name: name.bytes.clone(), value: value.to_vec() };
            txn.put(Key::Xattr(ino, name.tag), Some(Record::Xattr(Arc::new(record))));
            Ok(())
        })
        .await
    }

    /// Removes an extended attribute.
    ///
    /// # Errors
    /// [`VfsError::NoAttribute`] if there is none.
    pub async fn remove_xattr(&self, ino: Ino, name: &[u8]) -> Result<(), VfsError> {
        let name = self.seal_xattr(ino, name)?;
        self.update(|txn| {
            let mut inode = txn.inode(ino)?;
            if inode.xattrs == 0 || xattr(txn, ino, name.tag)?.is_none() {
                return Err(VfsError::NoAttribute.into());
            }
            let change = Arc::make_mut(&mut inode);
            change.ctime = txn.now;
            change.xattrs -= 1;
            txn.put_inode(ino, inode);
            txn.put(Key::Xattr(ino, name.tag), None);
            Ok(())
        })
        .await
    }

    /// Puts the inode of a file of which contents and size change, without the capabilities of what it was.
    pub(super) fn put_changed(&self, txn: &mut Txn, ino: Ino, mut inode: Arc<Inode>) -> Result<(), Halt> {
        match self.take_capabilities(txn, ino, Arc::make_mut(&mut inode))? {
            true => txn.put_inode(ino, inode),
            false => txn.put_written(ino, inode),
        }
        Ok(())
    }

    /// Takes the capabilities of a file whose contents change. Whether there were any. The kernel takes them itself where
    /// it looks before it asks, but before a direct write it does not.
    ///
    /// A file without attributes pays nothing. For one that has some, each change seals this one's name and looks for its
    /// record in memory; that there is none is remembered there as well, so that it is seldom looked for in the bucket.
    pub(super) fn take_capabilities(&self, txn: &mut Txn, ino: Ino, inode: &mut Inode) -> Result<bool, Halt> {
        if inode.xattrs == 0 {
            return Ok(false);
        }
        let tag = self.ring().seal_xattr_name(ino, CAPABILITY).tag;
        if xattr(txn, ino, tag)?.is_none() {
            return Ok(false);
        }
        inode.xattrs -= 1;
        txn.put(Key::Xattr(ino, tag), None);
        Ok(true)
    }

    /// The names of all extended attributes, each followed by NUL.
    ///
    /// # Errors
    /// [`VfsError::TooBig`] if they are more than a list can hold.
    pub async fn list_xattr(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        loop {
            let seen = self.seen_commit();
            let names = self.xattr_names(ino).await;
            if seen == self.seen_commit() {
                return names;
            }
        }
    }

    async fn xattr_names(&self, ino: Ino) -> Result<Vec<u8>, VfsError> {
        let mut names = Vec::new();
        if self.read_txn(|txn| Ok(txn.inode(ino)?.xattrs)).await? == 0 {
            return Ok(names);
        }
        let mut from = Key::Xattr(ino, Tag([0; 16]));
        let to = Key::Xattr(Ino(ino.0.saturating_add(1)), Tag([0; 16]));
        loop {
            let (records, last) = self.scan(from, to, SCAN_COUNT).await?;
            for (key, record) in records {
                if let (Key::Xattr(_, tag), Record::Xattr(xattr)) = (key, record) {
                    let name = self.ring().open_xattr_name(ino, tag, &xattr.name);
                    names.extend(
                        name.map_err(|_| MetaError::Inconsistent { key, why: "its name does not open" })?,
                    );
                    names.push(0);
                }
            }
            if names.len() > LIST_BYTES_MAX {
                return Err(VfsError::TooBig);
            }
            match last {
                Some(Key::Xattr(_, tag)) => from = Key::Xattr(ino, next_tag(tag)),
                _ => return Ok(names),
            }
        }
    }
}

fn xattr(txn: &mut Txn, ino: Ino, tag: Tag) -> Result<Option<Arc<Xattr>>, Halt> {
    match txn.get(Key::Xattr(ino, tag))? {
        Some(Record::Xattr(xattr)) => Ok(Some(xattr)),
        _ => Ok(None),
    }
}

/// The tag that follows `tag` in order.
pub(super) fn next_tag(tag: Tag) -> Tag {
    Tag(u128::from_be_bytes(tag.0).saturating_add(1).to_be_bytes())
}
