//! What the tree must be after each operation: inodes with contents and entries, shared between versions.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer::base::{FileKind, Ino};
use coffer::vfs::{Handle, Vfs, VfsError};

/// An inode, as a user sees it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: FileKind,
    pub nlink: u32,
    pub data: Arc<Vec<u8>>,
    pub entries: BTreeMap<Vec<u8>, u64>,
    pub note: Vec<u8>,
}

/// Inodes that have lost their last name while somebody had them open. No later mount finds them, so that they make no
/// difference between trees.
#[derive(Clone, Debug, Default)]
pub struct Nameless(Arc<BTreeMap<u64, Arc<Node>>>);

impl PartialEq for Nameless {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Nameless {}

/// All inodes that have a name, by number; and those that have lost it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tree(pub BTreeMap<u64, Arc<Node>>, Nameless);

/// The one extended attribute that actors set.
pub const NOTE: &[u8] = b"user.note";

impl Node {
    fn new(kind: FileKind) -> Self {
        let nlink = if kind == FileKind::Directory { 2 } else { 1 };
        Self { kind, nlink, data: Arc::default(), entries: BTreeMap::new(), note: Vec::new() }
    }
}

impl Default for Tree {
    fn default() -> Self {
        Self(BTreeMap::from([(1, Arc::new(Node::new(FileKind::Directory)))]), Nameless::default())
    }
}

impl Tree {
    pub fn change(&mut self, ino: u64, change: impl FnOnce(&mut Node)) {
        if let Some(node) = self.0.get_mut(&ino) {
            change(Arc::make_mut(node));
        } else if self.1.0.contains_key(&ino)
            && let Some(node) = Arc::make_mut(&mut self.1.0).get_mut(&ino)
        {
            change(Arc::make_mut(node));
        }
    }

    /// An inode, with a name or without.
    pub fn node(&self, ino: u64) -> Option<&Arc<Node>> {
        self.0.get(&ino).or_else(|| self.1.0.get(&ino))
    }

    /// The last who had it open has closed it.
    pub fn forget(&mut self, ino: u64) {
        if self.1.0.contains_key(&ino) {
            Arc::make_mut(&mut self.1.0).remove(&ino);
        }
    }

    /// Every name of an inode, with its directory.
    pub fn names_of(&self, ino: u64) -> Vec<(u64, Vec<u8>)> {
        let dirs = self.0.iter().flat_map(|(dir, node)| node.entries.iter().map(move |entry| (*dir, entry)));
        dirs.filter(|(_, (_, named))| **named == ino).map(|(dir, (name, _))| (dir, name.clone())).collect()
    }

    /// Every path of an inode from the root, without a slash in front.
    pub fn paths_of(&self, ino: u64) -> Vec<Vec<u8>> {
        if ino == 1 {
            return vec![Vec::new()];
        }
        let mut paths = Vec::new();
        for (dir, name) in self.names_of(ino) {
            let above = self.paths_of(dir).swap_remove(0);
            paths.push(if above.is_empty() { name } else { [above, name].join(&b'/') });
        }
        paths
    }

    /// Everything below a directory; nothing, if it is none.
    pub fn below(&self, ino: u64) -> Vec<u64> {
        let (mut found, mut queue) = (Vec::new(), vec![ino]);
        while let Some(dir) = queue.pop() {
            let entries = self.0.get(&dir).into_iter().flat_map(|node| node.entries.values().copied());
            let entries: Vec<u64> = entries.collect();
            found.extend(&entries);
            queue.extend(entries);
        }
        found
    }

    pub fn make(&mut self, dir: u64, name: &[u8], ino: u64, kind: FileKind) {
        assert!(self.0.insert(ino, Arc::new(Node::new(kind))).is_none(), "inode {ino} is given out twice");
        self.change(dir, |dir| {
            assert!(dir.entries.insert(name.to_vec(), ino).is_none(), "a name is given twice");
            dir.nlink += u32::from(kind == FileKind::Directory);
        });
    }

    pub fn link(&mut self, ino: u64, dir: u64, name: &[u8]) {
        self.change(ino, |node| node.nlink += 1);
        self.change(dir, |dir| {
            dir.entries.insert(name.to_vec(), ino);
        });
    }

    /// Removes the entry; the inode with it when that was its last.
    pub fn remove(&mut self, dir: u64, name: &[u8]) -> Vec<u64> {
        let Some(ino) = self.0.get(&dir).and_then(|dir| dir.entries.get(name).copied()) else {
            return vec![];
        };
        let is_dir = self.0[&ino].kind == FileKind::Directory;
        self.change(dir, |dir| {
            dir.entries.remove(name);
            dir.nlink -= u32::from(is_dir);
        });
        self.change(ino, |node| node.nlink -= 1);
        if (is_dir || self.0[&ino].nlink == 0)
            && let Some(node) = self.0.remove(&ino).filter(|_| !is_dir)
        {
            Arc::make_mut(&mut self.1.0).insert(ino, node);
        }
        vec![ino]
    }

    /// Gives the inodes touched.
    pub fn rename(&mut self, dir: u64, name: &[u8], to: u64, new: &[u8], exchange: bool) -> Vec<u64> {
        let moved = self.0[&dir].entries[name];
        let met = self.0[&to].entries.get(new).copied();
        if met == Some(moved) {
            return vec![];
        }
        let mut touched = vec![dir, to, moved];
        touched.extend(met);
        if exchange {
            let met = met.expect("an exchange meets something");
            self.put_entry(dir, name, met);
            self.put_entry(to, new, moved);
            return touched;
        }
        self.remove(to, new);
        let subdir = u32::from(self.0[&moved].kind == FileKind::Directory);
        self.change(dir, |dir| {
            dir.entries.remove(name);
            dir.nlink -= subdir;
        });
        self.change(to, |to| {
            to.entries.insert(new.to_vec(), moved);
            to.nlink += subdir;
        });
        touched
    }

    fn put_entry(&mut self, dir: u64, name: &[u8], ino: u64) {
        let is_dir = |tree: &Self, ino: u64| u32::from(tree.0[&ino].kind == FileKind::Directory);
        let (before, after) = (is_dir(self, self.0[&dir].entries[name]), is_dir(self, ino));
        self.change(dir, |dir| {
            dir.entries.insert(name.to_vec(), ino);
            dir.nlink = dir.nlink + after - before;
        });
    }

    pub fn write(&mut self, ino: u64, offset: u64, bytes: &[u8]) {
        self.change(ino, |node| {
            let (data, offset) = (Arc::make_mut(&mut node.data), offset as usize);
            resize(data, data.len().max(offset + bytes.len()));
            data[offset..offset + bytes.len()].copy_from_slice(bytes);
        });
    }

    pub fn resize(&mut self, ino: u64, size: u64) {
        self.change(ino, |node| resize(Arc::make_mut(&mut node.data), size as usize));
    }

    pub fn punch(&mut self, ino: u64, offset: u64, len: u64) {
        self.change(ino, |node| {
            let data = Arc::make_mut(&mut node.data);
            let at = |position: u64| (position as usize).min(data.len());
            let range = at(offset)..at(offset + len);
            data[range].fill(0);
        });
    }

    /// The whole tree, read through the filesystem.
    pub async fn read(vfs: &Vfs) -> Result<Self, VfsError> {
        let (tree, odd) = Self::look(vfs).await?;
        assert!(odd.is_empty(), "size and contents of {odd:?} differ");
        Ok(tree)
    }

    /// The same beside somebody who may change it, with the files that were found longer or shorter than their size.
    pub async fn look(vfs: &Vfs) -> Result<(Self, Vec<u64>), VfsError> {
        let mut odd = Vec::new();
        let mut tree = Self(BTreeMap::new(), Nameless::default());
        let mut queue = vec![Ino::ROOT];
        while let Some(ino) = queue.pop() {
            if tree.0.contains_key(&ino.0) {
                continue;
            }
            let attr = vfs.getattr(ino).await?;
            let mut node = Node { nlink: attr.nlink, ..Node::new(attr.kind) };
            if attr.kind == FileKind::Directory {
                let mut cookie = 0;
                loop {
                    let entries = vfs.readdir(ino, cookie, 100).await?;
                    let Some(last) = entries.last() else { break };
                    cookie = last.next;
                    for entry in entries.iter().filter(|entry| !matches!(&entry.name[..], b"." | b"..")) {
                        node.entries.insert(entry.name.clone(), entry.ino.0);
                        queue.push(entry.ino);
                    }
                }
            } else {
                let data = vfs.read(Handle(0), ino, 0, attr.size as usize + 1).await?;
                if data.len() as u64 != attr.size {
                    odd.push(ino.0);
                }
                node.data = Arc::new(data);
            }
            node.note = match vfs.get_xattr(ino, NOTE).await {
                Err(VfsError::NoAttribute) => Vec::new(),
                note => note?,
            };
            tree.0.insert(ino.0, Arc::new(node));
        }
        Ok((tree, odd))
    }
}

/// As [`Vec::resize`], which goes byte by byte where nothing is optimised.
fn resize(data: &mut Vec<u8>, len: usize) {
    data.truncate(len);
    data.extend_from_slice(&vec![0; len - data.len()]);
}
