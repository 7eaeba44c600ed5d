//! What one mount did, as the sequence of trees it showed, and how much of that it has promised to keep.

use std::collections::BTreeMap;
use std::sync::Arc;

use coffer::base::FileKind;
use parking_lot::Mutex;

use crate::contents;
use crate::rescue::Kept;
use crate::tree::{Node, Tree};

const BLOCK: usize = 65_536;

/// What a mount has shown and promised, at one moment.
#[derive(Clone, Debug, Default)]
pub struct Promise {
    /// The state that it shows.
    mark: usize,
    /// Everything up to this state has been acknowledged as durable.
    floor: usize,
    /// The state as of which the contents of an inode were acknowledged as durable; and of all.
    synced: Arc<BTreeMap<u64, usize>>,
    synced_all: usize,
}

/// What the newest mount promises, for whoever takes a picture of the bucket; and which mount that is.
pub type Board = Arc<Mutex<(u64, Promise)>>;

/// The history of one mount.
pub struct History {
    /// The tree it began with, and the tree after each change.
    pub states: Vec<Tree>,
    promise: Promise,
    /// Which mount of its seed it is, and where that tells its promises as long as it is the newest.
    number: u64,
    board: Board,
    /// A later mount has taken over at this state: nothing beyond it may be acknowledged.
    ceiling: Option<usize>,
    /// A later mount is about to take over, or has. It removes what this one has sent and not committed.
    pub is_contested: bool,
    /// The state in which each inode was changed last.
    changed: BTreeMap<u64, usize>,
    /// The states in which more of each inode was changed than contents and size.
    bound: BTreeMap<u64, Vec<usize>>,
    /// Contents that nobody waited for may be those of an earlier state.
    overtakes: bool,
    /// What a later mount has found.
    successor: Option<Tree>,
}

impl History {
    /// The history of mount `number`, which is the newest from now on.
    pub fn new(first: Tree, overtakes: bool, number: u64, board: Board) -> Self {
        *board.lock() = (number, Promise::default());
        Self {
            states: vec![first],
            promise: Promise::default(),
            number,
            board,
            ceiling: None,
            is_contested: false,
            changed: BTreeMap::new(),
            bound: BTreeMap::new(),
            overtakes,
            successor: None,
        }
    }

    pub const fn number(&self) -> u64 {
        self.number
    }

    fn publish(&mut self) {
        self.promise.mark = self.mark();
        let mut board = self.board.lock();
        if board.0 == self.number {
            board.1 = self.promise.clone();
        }
    }

    pub fn now(&self) -> &Tree {
        self.states.last().expect("there is a first state")
    }

    /// One operation has taken effect, and has touched these inodes.
    pub fn record(&mut self, touched: &[u64], change: impl FnOnce(&mut Tree)) {
        self.record_move(touched, &[], change);
    }

    /// The same where what lies `below` has got other paths, too.
    pub fn record_move(&mut self, touched: &[u64], below: &[u64], change: impl FnOnce(&mut Tree)) {
        let before = self.mark();
        self.record_write(touched, change);
        let at = self.mark();
        if at > before {
            touched.iter().chain(below).for_each(|ino| self.bound.entry(*ino).or_default().push(at));
        }
    }

    /// The same for what changes nothing but contents and size.
    pub fn record_write(&mut self, touched: &[u64], change: impl FnOnce(&mut Tree)) {
        let mut next = self.now().clone();
        change(&mut next);
        if next == *self.now() {
            // What no other mount finds may have changed.
            *self.states.last_mut().expect("there is a first state") = next;
            return;
        }
        self.states.push(next);
        let at = self.states.len() - 1;
        self.changed.extend(touched.iter().map(|ino| (*ino, at)));
        self.publish();
    }

    /// Whether everything is there of what this mount, which was taken over, had not sent.
    pub fn check_kept(&self, kept: &Kept) -> (u64, u64) {
        kept.check(self.now(), self.successor.as_ref().expect("somebody took over"))
    }

    /// What this mount has promised to a reader beside it: nothing but that it shows what was there.
    pub fn shown(&self) -> Promise {
        Promise { mark: self.mark(), ..Promise::default() }
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
        self.promise.synced_all = self.promise.synced_all.max(mark);
        self.raise(mark);
        for ino in self.states[mark].0.keys() {
            self.check_successor(*ino, mark);
        }
    }

    /// An `fsync` of `ino` that promised `mark` has been acknowledged.
    pub fn acknowledge_of(&mut self, ino: u64, mark: usize) {
        let synced = Arc::make_mut(&mut self.promise.synced).entry(ino).or_default();
        *synced = (*synced).max(mark);
        self.raise(mark);
        self.check_successor(ino, mark);
    }

    fn check_successor(&self, ino: u64, mark: usize) {
        let (Some(found), Some(ceiling)) = (&self.successor, self.ceiling) else { return };
        if let Some(node) = found.0.get(&ino) {
            let is_there = self.is_one_of(ino, &node.data, mark, ceiling);
            assert!(
                is_there,
                "contents of {ino} as of state {mark} were acknowledged, which the successor lacks"
            );
        }
    }

    fn raise(&mut self, mark: usize) {
        self.promise.floor = self.promise.floor.max(mark);
        self.publish();
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
        let promise = self.promise.clone();
        let at = (0..self.states.len()).rev().find(|at| self.is_committed(*at, found, &promise));
        let at = at.filter(|at| *at >= promise.floor).unwrap_or_else(|| self.explain(found, at, &promise));
        self.ceiling = Some(at);
        self.successor = Some(found.clone());
        at
    }

    /// The first state, not before `earliest`, that a mount may have found after a crash of this one at a moment at which
    /// it had made this promise.
    pub fn find_after_crash(&self, found: &Tree, promise: &Promise, earliest: usize) -> usize {
        let mut states = promise.floor.max(earliest)..=promise.mark;
        states.find(|at| self.is_committed(*at, found, promise)).unwrap_or_else(|| {
            let earlier = (0..promise.floor.max(earliest)).rev();
            let at = earlier.into_iter().find(|at| self.is_committed(*at, found, promise));
            self.explain(found, at, &Promise { floor: promise.floor.max(earliest), ..promise.clone() })
        })
    }

    /// Whether a commit in the state `at` may have left `found`: all of it, but for contents that nobody waited for.
    fn is_committed(&self, at: usize, found: &Tree, promise: &Promise) -> bool {
        let state = &self.states[at];
        if state == found || !self.overtakes {
            return state == found;
        }
        let mut pairs = state.0.iter().zip(&found.0);
        state.0.len() == found.0.len()
            && pairs.all(|((ino, expected), (found_ino, found))| {
                let with_data = Node { data: Arc::clone(&found.data), ..(**expected).clone() };
                ino == found_ino && with_data == **found && self.may_hold(*ino, at, found, promise)
            })
    }

    /// Whether a file may have these contents in a commit of the state `at`: those of this state or an earlier one, if it was only
    /// written to since and nobody was told that it is durable.
    fn may_hold(&self, ino: u64, at: usize, found: &Node, promise: &Promise) -> bool {
        if found.data == self.states[at].0[&ino].data {
            return true;
        }
        let bound = self.bound.get(&ino).into_iter().flatten().rev().find(|bound| **bound <= at);
        let synced = promise.synced.get(&ino).copied().unwrap_or(0).max(promise.synced_all);
        let first = bound.copied().unwrap_or(0).max(synced);
        found.kind == FileKind::Regular && first <= at && self.is_one_of(ino, &found.data, first, at)
    }

    /// Whether these are the contents of a file in one of the states `first` to `last`; or of a file that grew meanwhile, cut
    /// between two blocks.
    fn is_one_of(&self, ino: u64, data: &[u8], first: usize, last: usize) -> bool {
        let is_whole = data.len().is_multiple_of(BLOCK);
        let mut shortest = usize::MAX;
        self.states[first.min(last)..=last].iter().filter_map(|state| state.0.get(&ino)).any(|node| {
            shortest = shortest.min(node.data.len());
            *node.data == data || (is_whole && shortest <= data.len() && node.data.starts_with(data))
        })
    }

    fn explain(&self, found: &Tree, at: Option<usize>, promise: &Promise) -> ! {
        let (floor, mark) = (promise.floor, promise.mark);
        if let Some(at) = at {
            panic!(
                "acknowledged changes are lost: state {floor} was durable, state {at} of {mark} is found\n{}",
                differences(&self.states[floor], found).join("\n")
            );
        }
        let candidates = self.states.iter().enumerate().take(mark + 1).skip(floor);
        let nearest =
            candidates.map(|(at, state)| (at, differences(state, found))).min_by_key(|(_, d)| d.len());
        let (nearest, differences) = nearest.expect("the last state at least");
        panic!(
            "the tree found is none of the states {floor} to {mark}; nearest is {nearest}, of which differ:\n{}\n{}",
            differences.join("\n"),
            self.lives(nearest, found, promise).join("\n")
        );
    }

    /// How the inodes that differ have come to what they are, for a person to read.
    fn lives(&self, at: usize, found: &Tree, promise: &Promise) -> Vec<String> {
        let inodes = self.states[at].0.iter().filter(|(ino, node)| found.0.get(*ino) != Some(*node));
        inodes
            .map(|(ino, _)| {
                let of = |state: &Tree| state.0.get(ino).map(|node| node.data.len());
                let lengths: Vec<_> = self.states[..=promise.mark].iter().map(of).collect();
                let changes = (0..lengths.len())
                    .filter(|at| *at == 0 || self.states[*at].0.get(ino) != self.states[*at - 1].0.get(ino));
                let changes: Vec<_> = changes.map(|at| (at, lengths[at])).collect();
                let synced = promise.synced.get(ino).copied().unwrap_or(0).max(promise.synced_all);
                let bound = self.bound.get(ino).cloned().unwrap_or_default();
                format!(
                    "inode {ino}: its lengths by state {changes:?}, bound in {bound:?}, synced in {synced}"
                )
            })
            .collect()
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
