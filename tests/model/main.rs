//! The filesystem without a mount, over a store in memory, against a plain reference tree: random
//! operations, with remounts and crashes among them, and the whole tree compared.
//!
//! After a crash the tree must be one of the states since the last `fsync`, in full.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod mounted;
mod reference;

use std::collections::{BTreeSet, HashMap};

use coffer::base::{FileKind, Ino};
use coffer::vfs::{Caller, CleanOptions, Handle, RenameMode, SetAttr, Vfs, VfsError, VfsOptions, XattrMode};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use mounted::{Mounted, World};
use reference::{Image, Tree};

const NAMES: [&[u8]; 5] = [b"a", b"b", b"c", b"\xFF\xFE", &[b'n'; 255]];
const ROOT_CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
/// Contents reach a little over three blocks.
const OFFSET_MAX: u64 = 200_000;

/// The filesystem and the reference, side by side.
struct Pair {
    mounted: Mounted,
    tree: Tree,
    /// Inode numbers of the reference's nodes.
    inos: HashMap<u64, Ino>,
    /// Files held open, by node.
    open: Vec<(u64, Handle)>,
    /// States since the last one known to be durable, that one first.
    states: Vec<Tree>,
    rng: SmallRng,
    /// Blocks moved by cleaning that ran to its end.
    moved_blocks: u64,
}

#[derive(Debug, Clone, Copy)]
struct Odds {
    crash: u32,
    remount: u32,
}

impl Pair {
    fn vfs(&self) -> std::sync::Arc<Vfs> {
        self.mounted.vfs()
    }

    fn pick(&mut self, wanted: impl Fn(&reference::Node) -> bool) -> Option<u64> {
        let mut ids: Vec<u64> = self
            .tree
            .nodes
            .iter()
            .filter(|(_, node)| node.nlink > 0 && wanted(node))
            .map(|(id, _)| *id)
            .collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[self.rng.random_range(0..ids.len())])
    }

    fn pick_dir(&mut self) -> u64 {
        self.pick(|node| node.kind == FileKind::Directory).unwrap()
    }

    /// A file, sometimes one that is open and has no name any more.
    fn pick_file(&mut self) -> Option<u64> {
        if !self.open.is_empty() && self.rng.random_bool(0.3) {
            return Some(self.open[self.rng.random_range(0..self.open.len())].0);
        }
        self.pick(|node| node.kind == FileKind::Regular)
    }

    fn name(&mut self) -> &'static [u8] {
        NAMES[self.rng.random_range(0..NAMES.len())]
    }

    fn agree<T>(
        &mut self,
        what: &str,
        model: reference::Outcome,
        real: Result<T, VfsError>,
    ) -> Option<(u64, T)> {
        match (model, real) {
            (Ok(id), Ok(value)) => Some((id, value)),
            (Err(errno), Err(error)) => {
                assert_eq!(errno, error.errno(), "{what}: {error}");
                None
            }
            (Ok(_), Err(error)) => panic!("{what}: should work, but: {error}"),
            (Err(errno), Ok(_)) => panic!("{what}: should fail with {errno}, but works"),
        }
    }

    fn make(&mut self) {
        let (dir, name) = (self.pick_dir(), self.name());
        let (vfs, ino) = (self.vfs(), self.inos[&dir]);
        let perm = self.rng.random_range(0..0o1000);
        let which = self.rng.random_range(0..4);
        let (kind, data): (_, &[u8]) = match which {
            0 => (FileKind::Regular, b""),
            1 => (FileKind::Directory, b""),
            2 => (FileKind::Symlink, b"over/there"),
            _ => (FileKind::Fifo, b""),
        };
        let masked = if kind == FileKind::Symlink { 0o777 } else { perm & !0o022 };
        let real = self.mounted.run(async {
            match kind {
                FileKind::Regular => vfs.create(&ROOT_CALLER, ino, name, perm, true).await,
                FileKind::Directory => vfs.mkdir(&ROOT_CALLER, ino, name, perm).await,
                FileKind::Symlink => vfs.symlink(&ROOT_CALLER, ino, name, data).await,
                _ => vfs.mknod(&ROOT_CALLER, ino, name, kind, perm, 0).await,
            }
        });
        let model = self.tree.make(dir, name, kind, masked, data);
        if let Some((id, attr)) = self.agree("make", model, real) {
            self.inos.insert(id, attr.ino);
            vfs.forget(attr.ino, 1);
        }
    }

    fn link(&mut self) {
        let Some(id) = self.pick(|_| true) else { return };
        let (dir, name) = (self.pick_dir(), self.name());
        let vfs = self.vfs();
        let real = self.mounted.run(vfs.link(self.inos[&id], self.inos[&dir], name));
        let model = self.tree.link(id, dir, name);
        if let Some((_, attr)) = self.agree("link", model, real) {
            vfs.forget(attr.ino, 1);
        }
    }

    fn remove(&mut self) {
        let (dir, name) = (self.pick_dir(), self.name());
        let (vfs, ino) = (self.vfs(), self.inos[&dir]);
        if self.rng.random_bool(0.5) {
            let (model, real) = (self.tree.unlink(dir, name), self.mounted.run(vfs.unlink(ino, name)));
            self.agree("unlink", model, real);
        } else {
            let (model, real) = (self.tree.rmdir(dir, name), self.mounted.run(vfs.rmdir(ino, name)));
            self.agree("rmdir", model, real);
        }
    }

    fn rename(&mut self) {
        let (from, to) = (self.pick_dir(), self.pick_dir());
        let (name, new) = (self.name(), self.name());
        let mode = match self.rng.random_range(0..4) {
            0 => RenameMode::Exchange,
            1 => RenameMode::NoReplace,
            _ => RenameMode::Replace,
        };
        let vfs = self.vfs();
        let real = self.mounted.run(vfs.rename(self.inos[&from], name, self.inos[&to], new, mode));
        let (exchange, replace) = (mode == RenameMode::Exchange, mode == RenameMode::Replace);
        let model = self.tree.rename(from, name, to, new, exchange, replace);
        self.agree("rename", model, real);
    }

    fn write(&mut self) {
        let Some(id) = self.pick_file() else { return };
        let offset = self.rng.random_range(0..OFFSET_MAX);
        let offset = if self.rng.random_bool(0.3) { offset / 65_536 * 65_536 } else { offset };
        let len = [1, 100, 4096, 65_536, 150_000][self.rng.random_range(0..5)];
        let byte: u8 = self.rng.random_range(1..=255);
        let data: Vec<u8> = (0..len).map(|i| byte.wrapping_add((i / 1000) as u8) | 1).collect();
        let vfs = self.vfs();
        self.mounted.run(vfs.write(self.inos[&id], offset, &data, true)).unwrap();
        let model = &mut self.tree.nodes.get_mut(&id).unwrap().data;
        let end = offset as usize + len;
        model.resize(model.len().max(end), 0);
        model[offset as usize..end].copy_from_slice(&data);
    }

    fn resize(&mut self) {
        let Some(id) = self.pick_file() else { return };
        let size = if self.rng.random_bool(0.2) { 0 } else { self.rng.random_range(0..OFFSET_MAX) };
        let set = SetAttr { size: Some(size), ..SetAttr::default() };
        let vfs = self.vfs();
        let attr = self.mounted.run(vfs.setattr(&ROOT_CALLER, self.inos[&id], &set)).unwrap();
        assert_eq!(attr.size, size);
        self.tree.nodes.get_mut(&id).unwrap().data.resize(size as usize, 0);
    }

    fn clear(&mut self) {
        let Some(id) = self.pick_file() else { return };
        let from = self.rng.random_range(0..OFFSET_MAX);
        let len = self.rng.random_range(1..OFFSET_MAX);
        let keeps = self.rng.random_bool(0.5);
        let mode = if keeps {
            libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE
        } else {
            libc::FALLOC_FL_ZERO_RANGE
        };
        let vfs = self.vfs();
        self.mounted.run(vfs.fallocate(self.inos[&id], mode, from, len)).unwrap();
        let data = &mut self.tree.nodes.get_mut(&id).unwrap().data;
        if !keeps {
            data.resize(data.len().max((from + len) as usize), 0);
        }
        let size = data.len();
        data[(from as usize).min(size)..((from + len) as usize).min(size)].fill(0);
    }

    fn copy(&mut self) {
        let (Some(from), Some(to)) = (self.pick_file(), self.pick_file()) else { return };
        let block = |rng: &mut SmallRng| match rng.random_bool(0.7) {
            true => rng.random_range(0..3) * 65_536,
            false => rng.random_range(0..OFFSET_MAX),
        };
        let (at, to_at) = (block(&mut self.rng), block(&mut self.rng));
        let len = self.rng.random_range(1..OFFSET_MAX);
        if from == to && at.abs_diff(to_at) < len {
            return;
        }
        let vfs = self.vfs();
        let (ino, to_ino) = (self.inos[&from], self.inos[&to]);
        let copied = self.mounted.run(vfs.copy_file_range(ino, at, to_ino, to_at, len)).unwrap() as usize;
        let source = &self.tree.node(from).data;
        let (at, to_at) = (at as usize, to_at as usize);
        let there = source.len().saturating_sub(at).min(len as usize);
        assert!(copied <= there && (copied > 0 || there == 0), "{copied} of {there} bytes copied");
        let bytes = source[at.min(source.len())..][..copied].to_vec();
        let target = &mut self.tree.nodes.get_mut(&to).unwrap().data;
        if copied > 0 {
            target.resize(target.len().max(to_at + copied), 0);
            target[to_at..to_at + copied].copy_from_slice(&bytes);
        }
    }

    fn read(&mut self) {
        let Some(id) = self.pick_file() else { return };
        let offset = self.rng.random_range(0..OFFSET_MAX) as usize;
        let len = self.rng.random_range(0..150_000);
        let vfs = self.vfs();
        let real = self.mounted.run(vfs.read(Handle(0), self.inos[&id], offset as u64, len)).unwrap();
        let data = &self.tree.node(id).data;
        let expected = &data[offset.min(data.len())..(offset + len).min(data.len())];
        assert!(real == expected, "a read at {offset} of {len} bytes differs");
    }

    fn change_attributes(&mut self) {
        let Some(id) = self.pick(|_| true) else { return };
        let (vfs, ino) = (self.vfs(), self.inos[&id]);
        let node = self.tree.nodes.get_mut(&id).unwrap();
        match self.rng.random_range(0..3) {
            0 => {
                let perm = self.rng.random_range(0..0o1000);
                let set = SetAttr { perm: Some(perm), ..SetAttr::default() };
                self.mounted.run(vfs.setattr(&ROOT_CALLER, ino, &set)).unwrap();
                node.perm = perm;
            }
            1 => {
                let value: Vec<u8> = vec![7; self.rng.random_range(0..2000)];
                let name = [&b"user.x"[..], b"user.y"][self.rng.random_range(0..2)];
                self.mounted.run(vfs.set_xattr(ino, name, &value, XattrMode::Set)).unwrap();
                node.xattrs.insert(name.to_vec(), value);
            }
            _ => {
                let real = self.mounted.run(vfs.remove_xattr(ino, b"user.x"));
                assert_eq!(real.is_ok(), node.xattrs.remove(&b"user.x"[..]).is_some());
            }
        }
    }

    fn open_or_close(&mut self) {
        let vfs = self.vfs();
        if self.open.len() < 4 {
            let Some(id) = self.pick(|node| node.kind == FileKind::Regular) else { return };
            let handle = self.mounted.run(vfs.open(self.inos[&id], true, false)).unwrap();
            self.open.push((id, handle));
        } else {
            let (_, handle) = self.open.swap_remove(0);
            self.mounted.run(async { vfs.release(handle) });
        }
    }

    /// Everything so far is durable: later crashes must not go behind it.
    fn sync(&mut self) {
        let vfs = self.vfs();
        if self.rng.random_bool(0.5) {
            self.mounted.run(vfs.sync_all()).unwrap();
            self.states.clear();
        } else if let Some(id) = self.pick(|_| true) {
            // All operations form one sequence, but a file that is clean waits for nothing.
            self.mounted.run(vfs.fsync(self.inos[&id], false)).unwrap();
        }
    }

    /// Lets background tasks go on a little, so that commits and crashes meet at any point.
    fn idle(&mut self) {
        let steps = self.rng.random_range(0..60);
        let vfs = self.vfs();
        let wants = self.rng.random_bool(0.5);
        self.mounted.run(async {
            if wants {
                tokio::spawn(async move { vfs.sync_all().await });
            }
            for _ in 0..steps {
                tokio::task::yield_now().await;
            }
        });
    }

    /// Cleans: to its end, or a little, so that other operations and crashes meet it half-way. What
    /// programs see must not change.
    fn clean(&mut self) {
        let vfs = self.vfs();
        if self.rng.random_bool(0.3) {
            self.mounted.wait_for_grace();
        }
        if self.rng.random_bool(0.5) {
            // Blocks written in part are completed by a commit, and then count in full.
            self.mounted.run(vfs.sync_all()).unwrap();
            let before = self.mounted.details();
            let moved_before = vfs.status().cleaned.moved_blocks;
            self.mounted.run(vfs.reclaim()).unwrap();
            self.moved_blocks += vfs.status().cleaned.moved_blocks - moved_before;
            let after = self.mounted.details();
            let seen: Vec<_> = before.iter().zip(&after).filter(|(before, after)| before != after).collect();
            assert!(seen.is_empty() && before.len() == after.len(), "cleaning was seen: {seen:#?}");
            self.states.clear();
        } else {
            let steps = self.rng.random_range(0..200);
            self.mounted.run(async {
                tokio::spawn(async move { vfs.reclaim().await });
                for _ in 0..steps {
                    tokio::task::yield_now().await;
                }
            });
        }
    }

    fn compare(&self) {
        let (real, model) = (self.mounted.image(), self.tree.image());
        assert_eq!(real.keys().collect::<Vec<_>>(), model.keys().collect::<Vec<_>>());
        for (path, shape) in &model {
            assert!(real[path] == *shape, "{} differs", path.escape_ascii());
        }
    }

    /// After a new mount inode numbers are found anew, and unnamed nodes are gone.
    fn meet_again(&mut self) {
        self.open.clear();
        self.inos = HashMap::from([(1, Ino::ROOT)]);
        let mut queue = vec![1];
        let mut reached = vec![1];
        while let Some(dir) = queue.pop() {
            let children: Vec<_> = self.tree.node(dir).children.clone().into_iter().collect();
            for (name, id) in children {
                let vfs = self.vfs();
                let attr = self.mounted.run(vfs.lookup(self.inos[&dir], &name)).unwrap();
                vfs.forget(attr.ino, 1);
                if let Some(known) = self.inos.insert(id, attr.ino) {
                    assert_eq!(known, attr.ino, "two names of one file lead to two inodes");
                }
                reached.push(id);
                if attr.kind == FileKind::Directory {
                    queue.push(id);
                }
            }
        }
        self.tree.nodes.retain(|id, _| reached.contains(id));
        self.states.clear();
    }

    fn remount(mut self, world: &World) -> Self {
        self.mounted.unmount();
        self.mounted = world.mount();
        self.compare();
        self.meet_again();
        self
    }

    fn crash(mut self, world: &World) -> Self {
        self.states.push(self.tree.clone());
        self.mounted.crash();
        self.mounted = world.mount();
        let real = self.mounted.image();
        let found = self.states.iter().rev().find(|state| state.image() == real);
        let Some(found) = found else {
            let nearest =
                self.states.iter().map(|state| differences(&state.image(), &real)).min_by_key(Vec::len);
            panic!("the state after a crash is none of those since the last sync; nearest: {nearest:#?}");
        };
        self.tree = found.clone();
        self.meet_again();
        self
    }

    fn step(mut self, world: &World, odds: Odds) -> Self {
        self.states.push(self.tree.clone());
        match self.rng.random_range(0..100) {
            0..14 => self.make(),
            14..18 => self.link(),
            18..26 => self.remove(),
            26..34 => self.rename(),
            34..52 => self.write(),
            52..58 => self.resize(),
            58..62 => self.clear(),
            62..66 => self.copy(),
            66..74 => self.read(),
            74..80 => self.change_attributes(),
            80..86 => self.open_or_close(),
            86..89 => self.sync(),
            89..91 => self.clean(),
            91..96 => self.idle(),
            _ if self.rng.random_ratio(odds.crash, 100) => return self.crash(world),
            _ if self.rng.random_ratio(odds.remount, 100) => return self.remount(world),
            _ => self.compare(),
        }
        self
    }
}

/// Where two trees differ, for a person to read.
fn differences(model: &Image, real: &Image) -> Vec<String> {
    let paths: BTreeSet<&Vec<u8>> = model.keys().chain(real.keys()).collect();
    let differing = paths.into_iter().filter(|path| model.get(*path) != real.get(*path));
    differing
        .map(|path| match (model.get(path), real.get(path)) {
            (Some(model), Some(real)) if model.data != real.data => {
                let at = model.data.iter().zip(&real.data).position(|(a, b)| a != b);
                let lens = (model.data.len(), real.data.len());
                format!("{}: contents differ at {at:?}, lengths {lens:?}", path.escape_ascii())
            }
            (Some(_), Some(_)) => format!("{}: attributes differ", path.escape_ascii()),
            (Some(_), None) => format!("{}: is missing", path.escape_ascii()),
            (None, _) => format!("{}: should not be there", path.escape_ascii()),
        })
        .collect()
}

fn run(seed: u64, steps: usize, mut options: VfsOptions, cache_bytes: u64) {
    options.clean = CleanOptions { is_automatic: false, slack_bytes: 0, ..CleanOptions::default() };
    // A crash leaves exactly one of the trees there were. Of those with older contents the simulation knows.
    options.overtakes = false;
    println!("seed {seed}, {steps} operations");
    let world = World::new(seed, options, cache_bytes);
    let mut pair = Pair {
        mounted: world.mount(),
        tree: Tree::default(),
        inos: HashMap::from([(1, Ino::ROOT)]),
        open: Vec::new(),
        states: Vec::new(),
        rng: SmallRng::seed_from_u64(seed),
        moved_blocks: 0,
    };
    for _ in 0..steps {
        pair = pair.step(&world, Odds { crash: 30, remount: 20 });
    }
    pair.compare();
    assert!(pair.moved_blocks > 0, "there was nothing to clean");
    pair.remount(&world).mounted.unmount();
}

fn seed(default: u64) -> u64 {
    std::env::var("COFFER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default)
}

#[test]
fn it_is_the_reference_tree_with_usual_limits() {
    for round in 0..4 {
        run(seed(1000 + round), 2000, VfsOptions::default(), 64 << 20);
    }
}

#[test]
fn it_is_the_reference_tree_with_tiny_segments() {
    // Segments of two blocks, so that blocks leave memory while their group is still open.
    let options =
        VfsOptions { segment_room_bytes: 140_000, inline_commit_bytes: 1000, ..VfsOptions::default() };
    for round in 0..4 {
        run(seed(3000 + round), 1500, options.clone(), 64 << 20);
    }
}

#[test]
fn it_is_the_reference_tree_with_tiny_limits() {
    let options = VfsOptions {
        dirty_bytes_max: 400_000,
        record_cache_bytes: 8192,
        inline_commit_bytes: 70_000,
        ..VfsOptions::default()
    };
    for round in 0..4 {
        run(seed(2000 + round), 1000, options.clone(), 300_000);
    }
}
