//! What is kept of every inode during a check: 48 bytes each.

use crate::base::{FileKind, Ino};
use crate::meta::Inode;

/// One inode, and what other records say about it.
#[derive(Clone, Copy, Debug)]
pub(super) struct Node {
    pub(super) ino: Ino,
    /// The parent that a directory's record names.
    pub(super) parent: Ino,
    /// The directory with the first entry that names it; 0 if there is none yet.
    pub(super) named_by: Ino,
    /// Entries that a directory's record counts.
    pub(super) entries: u64,
    /// Links that the record counts.
    pub(super) nlink: u32,
    /// Entries that name it.
    pub(super) names: u32,
    pub(super) kind: FileKind,
    /// It has an orphan record.
    pub(super) is_orphan: bool,
    /// Its record cannot be decoded.
    pub(super) is_broken: bool,
    /// A directory had entries, so that these counts have been compared.
    pub(super) is_counted: bool,
}

/// No inode has this number.
pub(super) const NOBODY: Ino = Ino(0);

impl Node {
    pub(super) fn of(ino: Ino, inode: &Inode, is_orphan: bool) -> Self {
        Self {
            ino,
            parent: inode.parent,
            named_by: NOBODY,
            entries: inode.entries,
            nlink: inode.nlink,
            names: 0,
            kind: inode.kind,
            is_orphan,
            is_broken: false,
            is_counted: false,
        }
    }

    pub(super) const fn broken(ino: Ino, is_orphan: bool) -> Self {
        Self {
            ino,
            parent: NOBODY,
            named_by: NOBODY,
            entries: 0,
            nlink: 0,
            names: 0,
            kind: FileKind::Regular,
            is_orphan,
            is_broken: true,
            is_counted: false,
        }
    }

    pub(super) fn is_dir(&self) -> bool {
        self.kind == FileKind::Directory && !self.is_broken
    }
}

/// All inodes, in the order of their numbers.
#[derive(Debug, Default)]
pub(super) struct Nodes(Vec<Node>);

impl Nodes {
    /// Appends the next one; numbers ascend.
    pub(super) fn push(&mut self, node: Node) {
        self.0.push(node);
    }

    pub(super) fn position(&self, ino: Ino) -> Option<usize> {
        self.0.binary_search_by_key(&ino, |node| node.ino).ok()
    }

    pub(super) fn get(&self, ino: Ino) -> Option<&Node> {
        self.0.get(self.position(ino)?)
    }

    pub(super) fn get_mut(&mut self, ino: Ino) -> Option<&mut Node> {
        let at = self.position(ino)?;
        self.0.get_mut(at)
    }

    /// The one at a position, by number.
    pub(super) fn at(&self, position: usize) -> Option<&Node> {
        self.0.get(position)
    }

    pub(super) const fn len(&self) -> usize {
        self.0.len()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_inode_takes_a_few_tens_of_bytes() {
        assert_eq!(size_of::<Node>(), 48);
    }
}
