//! Blocks that the cleaner has copied into new segments: wishes that a commit grants.
//!
//! A move names the place where a block was found and the place of its copy. The commit that it
//! travels with lays out all changes of its group first and then grants the move if the block still
//! lies where it was found. So whatever else has happened to the file meanwhile wins.

use std::collections::{BTreeMap, HashMap};

use crate::base::{BlockPlace, Ino, NewSegment, SegmentId};

/// One reference to a block that lies in two places.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Move {
    /// The block's index in its file.
    pub index: u64,
    /// Where it was found.
    pub from: BlockPlace,
    /// Where its copy is; the same bytes, stored alike.
    pub to: BlockPlace,
    /// The new segment's footer names another owner.
    pub is_shared: bool,
}

/// Moves that travel with one commit.
#[derive(Clone, Debug, Default)]
pub struct Moves {
    segments: Vec<(SegmentId, NewSegment)>,
    files: BTreeMap<Ino, Vec<Move>>,
}

impl Moves {
    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.segments.is_empty()
    }

    /// Adds a segment that is in the bucket, and the moves into it.
    pub fn add(&mut self, id: SegmentId, segment: NewSegment, moves: impl IntoIterator<Item = (Ino, Move)>) {
        self.segments.push((id, segment));
        for (ino, block) in moves {
            self.files.entry(ino).or_default().push(block);
        }
    }

    /// Adds what was handed over after these.
    pub fn append(&mut self, later: Self) {
        self.segments.extend(later.segments);
        for (ino, moves) in later.files {
            self.files.entry(ino).or_default().extend(moves);
        }
    }

    /// The new segments.
    #[must_use]
    pub fn segments(&self) -> &[(SegmentId, NewSegment)] {
        &self.segments
    }

    /// Whether `id` is one of the new segments.
    #[must_use]
    pub fn knows_segment(&self, id: SegmentId) -> bool {
        self.segments.iter().any(|(known, _)| *known == id)
    }

    /// The moves of each file.
    pub fn files(&self) -> impl Iterator<Item = (Ino, &[Move])> {
        self.files.iter().map(|(ino, moves)| (*ino, moves.as_slice()))
    }
}

/// Where blocks lie after a commit that lay elsewhere before.
#[derive(Clone, Debug, Default)]
pub struct Moved(HashMap<BlockPlace, BlockPlace>);

impl Moved {
    /// Notes a move that was granted.
    pub fn note(&mut self, from: BlockPlace, to: BlockPlace) {
        self.0.insert(from, to);
    }

    /// Adds all of `other`.
    pub fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// Moves that were granted; references to one block count once.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether none was.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Where the block lies now that lay at `from`.
    #[must_use]
    pub fn get(&self, from: &BlockPlace) -> Option<BlockPlace> {
        self.0.get(from).copied()
    }
}
