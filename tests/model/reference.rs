//! The plain tree that the filesystem is compared with: what POSIX says, in the simplest form.

use std::collections::{BTreeMap, HashMap};

use coffer::base::FileKind;

/// A node of the reference tree.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Node {
    pub kind: FileKind,
    pub perm: u16,
    pub uid: u32,
    pub nlink: u32,
    pub data: Vec<u8>,
    pub children: BTreeMap<Vec<u8>, u64>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    pub parent: u64,
}

/// The reference tree. Node 1 is the root.
#[derive(Clone, Debug)]
pub struct Tree {
    pub nodes: HashMap<u64, Node>,
    next: u64,
}

/// What an operation gives: the node it names, or an errno.
pub type Outcome = Result<u64, i32>;

impl Default for Tree {
    fn default() -> Self {
        let root = Node { nlink: 2, parent: 1, ..Node::new(FileKind::Directory, 0o755, 1) };
        Self { nodes: HashMap::from([(1, root)]), next: 2 }
    }
}

impl Node {
    fn new(kind: FileKind, perm: u16, parent: u64) -> Self {
        let nlink = if kind == FileKind::Directory { 2 } else { 1 };
        let (children, xattrs) = (BTreeMap::new(), BTreeMap::new());
        Self { kind, perm, uid: 0, nlink, data: Vec::new(), children, xattrs, parent }
    }
}

impl Tree {
    pub fn node(&self, id: u64) -> &Node {
        &self.nodes[&id]
    }

    fn dir(&self, id: u64) -> Result<&Node, i32> {
        match self.nodes.get(&id) {
            Some(node) if node.kind == FileKind::Directory => Ok(node),
            Some(_) => Err(libc::ENOTDIR),
            None => Err(libc::ENOENT),
        }
    }

    pub fn lookup(&self, dir: u64, name: &[u8]) -> Outcome {
        self.dir(dir)?.children.get(name).copied().ok_or(libc::ENOENT)
    }

    pub fn make(&mut self, dir: u64, name: &[u8], kind: FileKind, perm: u16, data: &[u8]) -> Outcome {
        if self.dir(dir)?.children.contains_key(name) {
            return Err(libc::EEXIST);
        }
        let id = self.next;
        self.next += 1;
        let node = Node { data: data.to_vec(), ..Node::new(kind, perm, dir) };
        self.nodes.insert(id, node);
        let parent = self.nodes.get_mut(&dir).unwrap();
        parent.children.insert(name.to_vec(), id);
        parent.nlink += u32::from(kind == FileKind::Directory);
        Ok(id)
    }

    pub fn link(&mut self, id: u64, dir: u64, name: &[u8]) -> Outcome {
        if self.node(id).kind == FileKind::Directory {
            return Err(libc::EPERM);
        }
        if self.dir(dir)?.children.contains_key(name) {
            return Err(libc::EEXIST);
        }
        self.nodes.get_mut(&id).unwrap().nlink += 1;
        self.nodes.get_mut(&dir).unwrap().children.insert(name.to_vec(), id);
        Ok(id)
    }

    pub fn unlink(&mut self, dir: u64, name: &[u8]) -> Outcome {
        let id = self.lookup(dir, name)?;
        if self.node(id).kind == FileKind::Directory {
            return Err(libc::EISDIR);
        }
        self.nodes.get_mut(&dir).unwrap().children.remove(name);
        self.nodes.get_mut(&id).unwrap().nlink -= 1;
        Ok(id)
    }

    pub fn rmdir(&mut self, dir: u64, name: &[u8]) -> Outcome {
        let id = self.lookup(dir, name)?;
        if self.node(id).kind != FileKind::Directory {
            return Err(libc::ENOTDIR);
        }
        if !self.node(id).children.is_empty() {
            return Err(libc::ENOTEMPTY);
        }
        let parent = self.nodes.get_mut(&dir).unwrap();
        parent.children.remove(name);
        parent.nlink -= 1;
        self.nodes.get_mut(&id).unwrap().nlink = 0;
        Ok(id)
    }

    fn is_below(&self, mut at: u64, top: u64) -> bool {
        loop {
            if at == top {
                return true;
            }
            if at == 1 {
                return false;
            }
            at = self.node(at).parent;
        }
    }

    pub fn rename(
        &mut self,
        dir: u64,
        name: &[u8],
        to: u64,
        new: &[u8],
        exchange: bool,
        replace: bool,
    ) -> Outcome {
        let moved = self.lookup(dir, name)?;
        let met = self.dir(to)?.children.get(new).copied();
        let is_dir = |tree: &Self, id: u64| tree.node(id).kind == FileKind::Directory;
        if is_dir(self, moved) && dir != to && self.is_below(to, moved) {
            return Err(libc::EINVAL);
        }
        if exchange {
            let met = met.ok_or(libc::ENOENT)?;
            if is_dir(self, met) && dir != to && self.is_below(dir, met) {
                return Err(libc::EINVAL);
            }
            for (at, old, now) in [(dir, moved, met), (to, met, moved)] {
                let change = i64::from(is_dir(self, now)) - i64::from(is_dir(self, old));
                let nlink = &mut self.nodes.get_mut(&at).unwrap().nlink;
                *nlink = (i64::from(*nlink) + change) as u32;
            }
            self.nodes.get_mut(&dir).unwrap().children.insert(name.to_vec(), met);
            self.nodes.get_mut(&to).unwrap().children.insert(new.to_vec(), moved);
            self.nodes.get_mut(&met).unwrap().parent = dir;
            self.nodes.get_mut(&moved).unwrap().parent = to;
            return Ok(moved);
        }
        if let Some(met) = met {
            if !replace {
                return Err(libc::EEXIST);
            }
            if met == moved {
                return Ok(moved);
            }
            match (is_dir(self, moved), is_dir(self, met)) {
                (true, false) => return Err(libc::ENOTDIR),
                (false, true) => return Err(libc::EISDIR),
                (true, true) => self.rmdir(to, new)?,
                (false, false) => self.unlink(to, new)?,
            };
        }
        let subdirs = u32::from(is_dir(self, moved));
        let source = self.nodes.get_mut(&dir).unwrap();
        source.children.remove(name);
        source.nlink -= subdirs;
        let target = self.nodes.get_mut(&to).unwrap();
        target.children.insert(new.to_vec(), moved);
        target.nlink += subdirs;
        self.nodes.get_mut(&moved).unwrap().parent = to;
        Ok(moved)
    }

    /// Everything that is reachable, by path: what two equal trees have in common.
    pub fn image(&self) -> Image {
        let mut image = Image::new();
        let mut queue = vec![(Vec::new(), 1)];
        while let Some((path, id)) = queue.pop() {
            let node = self.node(id);
            for (name, child) in &node.children {
                queue.push(([&path[..], b"/", name].concat(), *child));
            }
            image.insert(
                path,
                Shape {
                    kind: node.kind,
                    perm: node.perm,
                    uid: node.uid,
                    nlink: node.nlink,
                    data: node.data.clone(),
                    xattrs: node.xattrs.clone(),
                },
            );
        }
        image
    }
}

/// A node without its identity.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Shape {
    pub kind: FileKind,
    pub perm: u16,
    pub uid: u32,
    pub nlink: u32,
    pub data: Vec<u8>,
    pub xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
}

/// A whole tree by path.
pub type Image = BTreeMap<Vec<u8>, Shape>;
