//! Listing directories. The order is that of the sealed names' tags, which never changes.

use std::collections::HashMap;
use std::sync::Arc;

use futures::FutureExt;

use crate::base::{FileKind, Ino, Tag};
use crate::meta::{Inode, Key, MetaError, Record};

use super::{Attr, DirEntry, Vfs, VfsError};

/// Where a listing stands after `.` and after `..`; entries stand at 3 and above.
const AFTER_DOT: u64 = 1;
const AFTER_DOTS: u64 = 2;
/// Entries read from the engine at a time.
const SCAN_COUNT_MAX: usize = 4096;
/// Inode numbers this close to each other are read by one scan.
const INO_GAP_MAX: u64 = 64;
/// Inodes that are not in memory beyond which they are read by scans.
const MISSING_COUNT_MAX: usize = 4;

/// Where a listing goes on after the entry with this tag: 63 of its bits, because the kernel takes
/// no more.
fn cookie_of(tag: Tag) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = tag.0;
    (u64::from_be_bytes([a, b, c, d, e, f, g, h]) >> 1).max(AFTER_DOTS + 1)
}

/// The first tag that a listing shows after `cookie`.
fn tag_after(cookie: u64) -> Option<Tag> {
    if cookie <= AFTER_DOTS {
        return Some(Tag([0; 16]));
    }
    let first = cookie.checked_add(1).filter(|next| *next < 1 << 63)? << 1;
    Some(Tag((u128::from(first) << 64).to_be_bytes()))
}

impl Vfs {
    /// Up to `max` entries of `dir` after `cookie`, which is 0 at first and then the
    /// [`DirEntry::next`] of the last entry taken. An empty answer is the end. A reader is shown
    /// what one commit left.
    ///
    /// # Errors
    /// [`VfsError::NotDirectory`] for anything else.
    pub async fn readdir(&self, dir: Ino, cookie: u64, max: usize) -> Result<Vec<DirEntry>, VfsError> {
        loop {
            let seen = self.seen_commit();
            let entries = self.entries(dir, cookie, max).await?;
            if seen == self.seen_commit() {
                return Ok(entries);
            }
        }
    }

    async fn entries(&self, dir: Ino, cookie: u64, max: usize) -> Result<Vec<DirEntry>, VfsError> {
        let parent = self.read_txn(|txn| Ok(txn.directory(dir)?.parent)).await?;
        let mut entries = Vec::new();
        let dot =
            |ino, name: &[u8], next| DirEntry { ino, kind: FileKind::Directory, name: name.to_vec(), next };
        if cookie < AFTER_DOT {
            entries.push(dot(dir, b".", AFTER_DOT));
        }
        if cookie < AFTER_DOTS {
            entries.push(dot(parent, b"..", AFTER_DOTS));
        }
        let Some(first) = tag_after(cookie) else { return Ok(entries) };
        if cookie <= AFTER_DOTS {
            self.begin_listing(dir).boxed().await;
        }
        let mut from = Key::Entry(dir, first);
        let to = Key::Entry(Ino(dir.0.saturating_add(1)), Tag([0; 16]));
        while entries.len() < max {
            let wanted = (max - entries.len()).min(SCAN_COUNT_MAX);
            let (records, last) = self.scan(from, to, wanted).await?;
            for (key, record) in records {
                if let (Key::Entry(_, tag), Record::Entry(entry)) = (key, record) {
                    let open = || self.ring().open_name(dir, tag, &entry.name);
                    let opened = entry.opened.get_or_open(open);
                    let name =
                        opened.map_err(|_| MetaError::Inconsistent { key, why: "its name does not open" })?;
                    let name = name.as_bytes().to_vec();
                    entries.push(DirEntry { ino: entry.ino, kind: entry.kind, name, next: cookie_of(tag) });
                }
            }
            match last {
                Some(Key::Entry(_, tag)) => from = Key::Entry(dir, super::xattr::next_tag(tag)),
                _ => break,
            }
        }
        entries.truncate(max);
        Ok(entries)
    }

    /// As [`Vfs::readdir`], with attributes. Each entry but `.` and `..` takes a reference.
    ///
    /// # Errors
    /// As [`Vfs::readdir`].
    pub async fn readdir_plus(
        &self,
        dir: Ino,
        cookie: u64,
        max: usize,
    ) -> Result<Vec<(DirEntry, Attr)>, VfsError> {
        let mut cookie = cookie;
        loop {
            let entries = self.entries(dir, cookie, max).await?;
            let Some(last) = entries.last() else { return Ok(Vec::new()) };
            cookie = last.next;
            let listed = self.with_attributes(entries, true).await?;
            // An empty answer would be the end, which this need not be.
            if !listed.is_empty() {
                return Ok(listed);
            }
        }
    }

    /// As [`Vfs::readdir_plus`], of one commit and without taking references: for readers, to whom they mean nothing.
    ///
    /// # Errors
    /// As [`Vfs::readdir`].
    pub async fn readdir_unreferred(
        &self,
        dir: Ino,
        cookie: u64,
        max: usize,
    ) -> Result<Vec<(DirEntry, Attr)>, VfsError> {
        loop {
            let seen = self.seen_commit();
            let entries = self.entries(dir, cookie, max).await?;
            let listed = self.with_attributes(entries, false).await?;
            if seen == self.seen_commit() {
                return Ok(listed);
            }
        }
    }

    /// Gives entries their attributes, as they are by now, and takes the references.
    async fn with_attributes(
        &self,
        entries: Vec<DirEntry>,
        refer: bool,
    ) -> Result<Vec<(DirEntry, Attr)>, VfsError> {
        let mut loaded = HashMap::new();
        loop {
            let missing = match self.attributes_of(&entries, &loaded, refer) {
                Ok(attributes) => {
                    let listed = entries.into_iter().zip(attributes);
                    return Ok(listed.filter_map(|(entry, attr)| Some((entry, attr?))).collect());
                }
                Err(missing) => missing,
            };
            // Boxed, because most listings need none of it.
            loaded.extend(self.load_inodes_of(missing).boxed().await?);
        }
    }

    /// The attributes of entries, with references to them if `refer`; none of an entry that was removed since it was
    /// found. If inodes are neither in memory nor `loaded`, their numbers, and no references are taken.
    fn attributes_of(
        &self,
        entries: &[DirEntry],
        loaded: &HashMap<Ino, Option<Arc<Inode>>>,
        refer: bool,
    ) -> Result<Vec<Option<Attr>>, Vec<Ino>> {
        let mut state = self.state.lock();
        let mut attributes = Vec::with_capacity(entries.len());
        let mut missing = Vec::new();
        for DirEntry { ino, .. } in entries {
            let attr = match state.attr_of(*ino) {
                Some(attr) => attr,
                None => match loaded.get(ino) {
                    Some(inode) => inode.as_ref().map(|inode| state.seen(*ino, inode)),
                    None => {
                        missing.push(*ino);
                        continue;
                    }
                },
            };
            attributes.push(attr);
        }
        if !missing.is_empty() {
            return Err(missing);
        }
        if refer {
            let shown = entries.iter().zip(&attributes).filter(|(_, attr)| attr.is_some());
            for (entry, _) in shown.filter(|(entry, _)| !matches!(entry.name.as_slice(), b"." | b"..")) {
                state.refs.take(entry.ino);
            }
        }
        Ok(attributes)
    }

    /// Brings inodes into memory, near ones by one scan, and gives them; nothing for those that do not exist.
    async fn load_inodes_of(
        &self,
        mut missing: Vec<Ino>,
    ) -> Result<Vec<(Ino, Option<Arc<Inode>>)>, VfsError> {
        missing.sort_unstable();
        missing.dedup();
        if missing.len() > MISSING_COUNT_MAX {
            for group in missing.chunk_by(|a, b| b.0 - a.0 <= INO_GAP_MAX) {
                let (Some(first), Some(last)) = (group.first(), group.last()) else { continue };
                let mut from = Key::Inode(*first);
                let to = Key::Inode(Ino(last.0.saturating_add(1)));
                loop {
                    let (_, next) = self.scan(from, to, SCAN_COUNT_MAX).await?;
                    match next {
                        Some(Key::Inode(ino)) => from = Key::Inode(Ino(ino.0.saturating_add(1))),
                        _ => break,
                    }
                }
            }
        }
        let mut loaded = Vec::with_capacity(missing.len());
        for ino in missing {
            match self.read_txn(|txn| txn.inode(ino)).await {
                Ok(inode) => loaded.push((ino, Some(inode))),
                Err(VfsError::NoEntry) => loaded.push((ino, None)),
                Err(error) => return Err(error),
            }
        }
        Ok(loaded)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_listing_goes_on_right_after_any_entry() {
        for bytes in [[0xFF; 16], [0; 16], [0x80; 16], [0x7F; 16]] {
            let cookie = cookie_of(Tag(bytes));
            assert!(cookie > AFTER_DOTS && cookie < 1 << 63);
            if let Some(next) = tag_after(cookie) {
                assert!(next.0 > bytes);
            }
        }
        assert_eq!(tag_after(0), Some(Tag([0; 16])));
        assert_eq!(tag_after((1 << 63) - 1), None);
    }
}
