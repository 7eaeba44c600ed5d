//! What all operations share, under one lock that is held for microseconds.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::time::Duration;

use crate::base::{Ino, SegmentId, Tag, Time};
use crate::data::{Dirty, Ledger, Moves};
use crate::meta::{Holder, Key, Overlay, Superblock};

use super::VfsError;
use super::clean::Cleaned;
use super::noted::Unnoted;
use super::overtake::Overtaking;
use super::queue::Queue;
use super::refs::Refs;
use super::waiting::Waiting;

/// Whether the filesystem takes changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Phase {
    /// It does.
    Writable,
    /// It was opened for reading.
    ReadOnly,
    /// Another writer has taken the volume over.
    Fenced,
    /// It has been shut down.
    ShutDown,
}

/// What all operations share.
pub(super) struct State {
    /// Records: open group, sealed group, cache.
    pub(super) overlay: Overlay,
    /// File contents: open group, sealed group.
    pub(super) dirty: Dirty,
    /// The superblock as the last commit left it.
    pub(super) superblock: Superblock,
    /// The next inode number.
    pub(super) next_ino: u64,
    /// Inodes born less inodes freed since the last commit was sealed.
    pub(super) files_delta: i64,
    /// The same for the sealed group, and the next inode number when it was sealed.
    pub(super) sealed_files_delta: i64,
    pub(super) sealed_next_ino: u64,
    /// Records of segments that have been deleted; they go with the next group.
    pub(super) collected: BTreeSet<Key>,
    /// Records of pages that shared blocks of a segment, and probably share none any more.
    pub(super) stale: BTreeSet<Key>,
    /// Segments that are to be deleted when their time has come.
    pub(super) waiting: Waiting,
    /// Which segments are worth cleaning.
    pub(super) ledger: Ledger,
    /// Segments of which no committed block is in use; they die as soon as no uncommitted one is.
    pub(super) idle: BTreeSet<SegmentId>,
    /// Who waits for commits, and what is put off for them.
    pub(super) overtaking: Overtaking,
    /// Segments that the cleaner uploads and has not handed over.
    pub(super) moving: HashSet<SegmentId>,
    /// What the cleaner has handed over: for the open group, and of the sealed one.
    pub(super) moves: Moves,
    pub(super) sealed_moves: Moves,
    /// Whether a commit has changed what is in use of segments.
    pub(super) has_stirred: bool,
    /// When the bucket is listed again for leftovers.
    pub(super) list_again_at: Option<Duration>,
    /// Until then the housekeeping asks the bucket for nothing: what it has asked for is to be made up for.
    pub(super) rests_until: Duration,
    /// The mount is ending: nothing new is begun.
    pub(super) is_closing: bool,
    /// What the cleaner has done in this mount.
    pub(super) cleaned: Cleaned,
    /// How many bytes it will about have read and written when the cleaning that somebody has asked for ends.
    pub(super) to_clean_bytes: Option<u64>,
    /// The open group's number: that of its commit, plus one for each group before that became part of the next.
    pub(super) group: u64,
    /// The last group that is committed.
    pub(super) settled_group: u64,
    /// Whether a group is sealed and not yet committed.
    pub(super) is_committing: bool,
    /// Whether the sealed group holds nothing that was not in the bucket before: it only tidies up.
    pub(super) is_tidying: bool,
    /// References to inodes from outside the tree: the kernel's lookups, open files.
    pub(super) refs: Refs,
    /// Files of which a write could not be stored, and why.
    pub(super) lost: HashMap<Ino, String>,
    /// The newest commit, if it could not be noted on this machine.
    pub(super) unnoted: Option<Unnoted>,
    /// The mount has ended: nothing more is taken, and what there is is committed.
    pub(super) is_ending: bool,
    /// Objects, or records, of which a commit has believed that they are damaged.
    pub(super) believed: HashSet<String>,
    /// Why the last attempts to commit failed, if waiting does not cure that.
    pub(super) stuck: Option<VfsError>,
    /// Access times that no record holds yet.
    pub(super) atimes: HashMap<Ino, Time>,
    /// Inodes that are [`Key::Orphan`]s, whose records may have left memory.
    pub(super) orphans: HashSet<Ino>,
    /// Whether changes are taken.
    pub(super) phase: Phase,
    /// When the open group got its first change.
    pub(super) dirty_since: Option<Duration>,
    /// The same of the sealed group, while it is committed.
    pub(super) sealed_since: Option<Duration>,
    /// How long what is not in the bucket has waited.
    pub(super) queue: Queue,
    /// What the volume may hold, which the next commit writes down; 0 for no limit.
    pub(super) quota_bytes: u64,
    /// Who holds the volume from the next commit on; nobody after the last one.
    pub(super) holder: Option<Holder>,
    /// The mount's number, which is bound into each of its commits.
    pub(super) session: [u8; 16],
    /// How many commits this device has made.
    pub(super) counter: u64,
    /// When the last commit was made.
    pub(super) committed_at: Option<Time>,
    /// When the newest commit was made that a reader has found, where that is watched.
    pub(super) newest_made: Option<Time>,
}

impl State {
    pub(super) fn new(
        overlay: Overlay,
        dirty: Dirty,
        superblock: Superblock,
        phase: Phase,
        slack_bytes: u64,
    ) -> Self {
        Self {
            overlay,
            dirty,
            next_ino: superblock.next_ino,
            files_delta: 0,
            sealed_files_delta: 0,
            sealed_next_ino: superblock.next_ino,
            collected: BTreeSet::new(),
            stale: BTreeSet::new(),
            waiting: Waiting::default(),
            rests_until: Duration::ZERO,
            ledger: Ledger::new(slack_bytes),
            idle: BTreeSet::new(),
            overtaking: Overtaking::default(),
            moving: HashSet::new(),
            moves: Moves::default(),
            sealed_moves: Moves::default(),
            has_stirred: false,
            list_again_at: None,
            is_closing: false,
            cleaned: Cleaned::default(),
            to_clean_bytes: None,
            group: superblock.commit.saturating_add(1),
            settled_group: superblock.commit,
            is_committing: false,
            is_tidying: false,
            quota_bytes: superblock.quota_bytes,
            superblock,
            refs: Refs::default(),
            lost: HashMap::new(),
            unnoted: None,
            is_ending: false,
            believed: HashSet::new(),
            stuck: None,
            atimes: HashMap::new(),
            orphans: HashSet::new(),
            phase,
            dirty_since: None,
            sealed_since: None,
            queue: Queue::default(),
            holder: None,
            session: [0; 16],
            counter: 0,
            committed_at: None,
            newest_made: None,
        }
    }

    /// Whether the open group has nothing to commit.
    pub(super) fn is_open_empty(&self) -> bool {
        self.overlay.open_count() == 0 && self.dirty.is_open_empty()
    }

    /// The commit after which all changes so far are durable; `None` if they are already.
    pub(super) fn latest_group(&self) -> Option<u64> {
        match (self.is_open_empty(), self.is_committing) {
            (false, _) => Some(self.group),
            (true, true) => Some(self.group - 1),
            (true, false) => None,
        }
    }

    /// Whether everything that was written is in the bucket.
    pub(super) fn is_clean(&self) -> bool {
        self.is_open_empty() && (!self.is_committing || self.is_tidying)
    }

    /// Whether a segment is being made, or was since the last commit.
    pub(super) fn knows_segment(&self, id: SegmentId) -> bool {
        self.moving.contains(&id)
            || self.moves.knows_segment(id)
            || self.sealed_moves.knows_segment(id)
            || self.dirty.knows_segment(id)
    }

    /// Closes the open group, whose first change came at `since`, and opens the next.
    pub(super) fn seal(&mut self, since: Option<Duration>) {
        let is_tidying = self.is_open_empty();
        for key in std::mem::take(&mut self.collected) {
            self.overlay.put(key, None);
        }
        self.fold_atimes();
        self.overlay.seal();
        self.dirty.seal();
        self.overtaking.seal();
        self.sealed_moves = std::mem::take(&mut self.moves);
        self.sealed_files_delta = std::mem::take(&mut self.files_delta);
        self.sealed_next_ino = self.next_ino;
        self.group += 1;
        self.is_committing = true;
        self.is_tidying = is_tidying;
        self.sealed_since = since.filter(|_| !is_tidying);
    }

    /// Takes the sealed group back: it is part of the open one. Gives since when there are changes.
    pub(super) fn unseal(&mut self) -> Option<Duration> {
        let gone = self.overlay.unseal();
        self.dirty.unseal();
        for key in gone {
            if let Key::Inode(ino) = key {
                self.dirty.forget(ino);
            }
        }
        self.overtaking.unseal();
        let later = std::mem::replace(&mut self.moves, std::mem::take(&mut self.sealed_moves));
        self.moves.append(later);
        self.files_delta += std::mem::take(&mut self.sealed_files_delta);
        self.is_committing = false;
        [self.sealed_since.take(), self.dirty_since.take()].into_iter().flatten().min()
    }

    /// Bytes that are stored or about to be.
    pub(super) const fn used_bytes(&self) -> u64 {
        self.superblock.bytes.saturating_add(self.dirty.plain_bytes())
    }

    /// Fails if `more` bytes do not fit.
    pub(super) const fn check_quota(&self, more: u64) -> Result<(), VfsError> {
        let is_over = self.used_bytes().saturating_add(more) > self.quota_bytes;
        if self.quota_bytes > 0 && more > 0 && is_over {
            return Err(VfsError::NoSpace);
        }
        Ok(())
    }

    /// Fails unless changes are taken.
    pub(super) const fn check_writable(&self) -> Result<(), VfsError> {
        match self.phase {
            Phase::Writable if self.is_ending => Err(VfsError::ShutDown),
            Phase::Writable => Ok(()),
            Phase::ReadOnly => Err(VfsError::ReadOnly),
            Phase::Fenced => Err(VfsError::Fenced),
            Phase::ShutDown => Err(VfsError::ShutDown),
        }
    }

    /// Removes an inode that has neither names nor users, and its contents.
    pub(super) fn free(&mut self, ino: Ino) {
        let key = Key::Inode(ino);
        self.overlay.put(key, None);
        if self.orphans.remove(&ino) {
            self.overlay.put(Key::Orphan(ino), None);
        }
        let xattrs = Key::Xattr(ino, Tag([0; 16]))..Key::Xattr(Ino(ino.0.saturating_add(1)), Tag([0; 16]));
        for (key, _) in self.overlay.changes_between(&xattrs.start, &xattrs.end, usize::MAX) {
            self.overlay.put(key, None);
        }
        if self.overlay.is_open(&key) {
            self.dirty.free(ino);
        } else {
            self.dirty.forget(ino);
        }
        self.lost.remove(&ino);
        self.atimes.remove(&ino);
        self.overtaking.forget(ino);
        self.files_delta -= 1;
    }

    /// Notes that writes to a file were lost, unless it has been removed since.
    pub(super) fn lose(&mut self, ino: Ino, why: String) {
        if !matches!(self.overlay.look(&Key::Inode(ino)), Some(None)) {
            self.lost.insert(ino, why);
        }
    }

    /// An error if writes were lost of which nobody has been told by an `fsync` yet.
    pub(super) fn nothing_lost(&self) -> Result<(), VfsError> {
        let Some(why) = self.lost.values().next().cloned() else { return Ok(()) };
        let files = match self.lost.len() {
            1 => "1 file".to_owned(),
            count => format!("{count} files"),
        };
        Err(VfsError::LostWrites { files, why })
    }

    /// The commit after which the latest change to `ino` is durable; `None` if it is already.
    pub(super) fn group_of(&self, ino: Ino) -> Option<u64> {
        let key = Key::Inode(ino);
        if self.overlay.is_open(&key) || self.dirty.is_open(ino) {
            Some(self.group)
        } else if self.is_committing
            && (self.overlay.is_sealed(&key)
                || self.dirty.sealed().is_some_and(|layer| layer.files.contains_key(&ino)))
        {
            Some(self.group - 1)
        } else {
            None
        }
    }
}
