//! What one mount did, as the sequence of trees it showed, and how much of that it has promised to keep.

use std::collections::BTreeMap;

use crate::contents;
use crate::tree::Tree;

/// The history of one mount.
pub struct History {
    /// The tree it began with, and the tree after each change.
    pub states: Vec<Tree>,
    /// Everything up to this state has been acknowledged as durable.
    floor: usize,
    /// A later mount has taken over at this state: nothing beyond it may be acknowledged.
    ceiling: Option<usize>,
    /// A later mount is about to take over, or has. It removes what this one has sent and not committed.
    pub is_contested: bool,
    /// The state in which each inode was changed last.
    changed: BTreeMap<u64, usize>,
}

impl History {
    pub fn new(first: Tree) -> Self {
        Self { states: vec![first], floor: 0, ceiling: None, is_contested: false, changed: BTreeMap::new() }
    }

    pub fn now(&self) -> &Tree {
        self.states.last().expect("there is a first state")
    }

    /// One operation has taken effect, and has touched these inodes.
    pub fn record(&mut self, touched: &[u64], change: impl FnOnce(&mut Tree)) {
        let mut next = self.now().clone();
        change(&mut next);
        if next == *self.now() {
            return;
        }
        self.states.push(next);
        let at = self.states.len() - 1;
        self.changed.extend(touched.iter().map(|ino| (*ino, at)));
    }

    /// The present state; acknowledge it to promise everything so far.
    pub fn mark(&self) -> usize {
        self.states.len() - 1
    }

    /// What an `fsync` of `ino` promises that begins now.
    pub fn mark_of(&self, ino: u64) -> usize {
        self.changed.get(&ino).copied().unwrap_or(0)
    }

    /// Everything up to `mark` was acknowledged as durable.
    pub fn acknowledge(&mut self, mark: usize) {
        self.floor = self.floor.max(mark);
        if let Some(ceiling) = self.ceiling {
            assert!(
                mark <= ceiling,
                "a mount that was taken over acknowledged its state {mark}; its successor began with state {ceiling}"
            );
        }
    }

    /// The state that a later mount has found. It must be one of this mount's, and not behind what was
    /// acknowledged.
    pub fn find(&mut self, found: &Tree) -> usize {
        let at = self.states.iter().rposition(|state| state == found);
        let at = at.filter(|at| *at >= self.floor).unwrap_or_else(|| self.explain(found, at));
        self.ceiling = Some(at);
        at
    }

    fn explain(&self, found: &Tree, at: Option<usize>) -> ! {
        if let Some(at) = at {
            panic!(
                "acknowledged changes are lost: state {} was durable, state {at} of {} is found\n{}",
                self.floor,
                self.mark(),
                differences(&self.states[self.floor], found).join("\n")
            );
        }
        let candidates = self.states.iter().enumerate().skip(self.floor);
        let nearest =
            candidates.map(|(at, state)| (at, differences(state, found))).min_by_key(|(_, d)| d.len());
        let (nearest, differences) = nearest.expect("the last state at least");
        panic!(
            "the tree found is none of the states {} to {}; nearest is {nearest}, of which differ:\n{}",
            self.floor,
            self.mark(),
            differences.join("\n")
        );
    }
}

/// Where two trees differ, for a person to read.
pub fn differences(expected: &Tree, found: &Tree) -> Vec<String> {
    let mut all: Vec<u64> = expected.0.keys().chain(found.0.keys()).copied().collect();
    all.sort_unstable();
    all.dedup();
    let describe = |ino: &u64| match (expected.0.get(ino), found.0.get(ino)) {
        (Some(a), Some(b)) if a == b => None,
        (Some(a), Some(b)) if a.data != b.data => {
            let at = a.data.iter().zip(b.data.iter()).position(|(a, b)| a != b);
            let at = at.unwrap_or(a.data.len().min(b.data.len()));
            Some(format!(
                "inode {ino}: contents differ at {at}, lengths {} and {}\n  expected {}\n  found    {}",
                a.data.len(),
                b.data.len(),
                contents::show(&a.data, at),
                contents::show(&b.data, at)
            ))
        }
        (Some(a), Some(b)) => Some(format!(
            "inode {ino}: expected nlink {} entries {:?} note {:?}, found nlink {} entries {:?} note {:?}",
            a.nlink, a.entries, a.note, b.nlink, b.entries, b.note
        )),
        (Some(_), None) => Some(format!("inode {ino} is missing")),
        (None, _) => Some(format!("inode {ino} should not be there")),
    };
    all.iter().filter_map(describe).collect()
}
