//! What a check finds: where, what, and how bad it is.

use std::ops::Range;

use crate::base::{FileKind, Ino, SegmentId};

/// How bad a finding is. The worst one decides how `coffer check` ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Severity {
    /// Nothing is wrong: work that the next mount does by itself.
    Note,
    /// Nothing that can be read is affected: wrong totals, objects that nobody needs.
    Harmless,
    /// Contents or attributes of files cannot be read, or are not certain.
    Files,
    /// The tree, the records or the history contradict themselves.
    Structure,
}

impl Severity {
    /// All of them, the least first.
    pub const ALL: [Self; 4] = [Self::Note, Self::Harmless, Self::Files, Self::Structure];

    /// Its word in output.
    #[must_use]
    pub const fn word(self) -> &'static str {
        match self {
            Self::Note => "note",
            Self::Harmless => "harmless",
            Self::Files => "files",
            Self::Structure => "structure",
        }
    }
}

/// What a finding is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Subject {
    /// The volume as a whole.
    Volume,
    /// An inode.
    Inode(Ino),
    /// An entry of a directory, with its name if that opens.
    Entry {
        /// The directory.
        dir: Ino,
        /// The key's tag.
        tag: [u8; 16],
        /// The name.
        name: Option<Vec<u8>>,
    },
    /// A data segment.
    Segment(SegmentId),
    /// A commit, by its number.
    Commit(u64),
    /// A header, by its number.
    Header(u64),
    /// An object of the bucket, by its path there.
    Object(String),
    /// A record, by its key's bytes.
    Record(Vec<u8>),
}

/// Why blocks of a file cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum LostBecause {
    /// Their segment is not in the bucket.
    SegmentMissing,
    /// Their segment ends before them.
    SegmentShort,
    /// Their segment ends before them as far as its record tells, but not in the bucket.
    SegmentLength,
    /// Their segment has no record.
    SegmentUnknown,
    /// Their segment's record does not open it.
    SegmentSeal,
    /// A record that should hold them is missing.
    RecordMissing,
    /// They lie across the borders of the blocks that the segment holds.
    Misplaced,
    /// Their bytes are not those that were written.
    Altered,
    /// A repair found that they had been lost.
    Given,
}

/// What is wrong.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Problem {
    /// The records as a whole cannot be read.
    RecordsUnreadable {
        /// What the engine says.
        why: String,
    },
    /// There is no superblock.
    SuperMissing,
    /// A record cannot be decoded.
    RecordBroken {
        /// Which rule it breaks.
        why: String,
    },
    /// A record under a key that this format does not have.
    RecordStray,
    /// Inode numbers would be given twice.
    NextInoLow {
        /// What the superblock says.
        next: u64,
        /// The highest number in use.
        highest: u64,
    },
    /// Totals of the superblock.
    Totals {
        /// Inodes and bytes that the superblock says.
        recorded: (u64, u64),
        /// Inodes and bytes that there are.
        counted: (u64, u64),
    },
    /// A log of the records is missing before later ones.
    LogMissing {
        /// What the engine calls it.
        name: String,
    },
    /// A log of the records that an admin has given up is there again, and counts.
    LogIsBack {
        /// The engine's number of it.
        number: u64,
    },
    /// The superblock's chain head is not that of its commit.
    HeadWrong,
    /// A commit record is missing.
    CommitMissing {
        /// An admin has accepted the history of a later commit as it is.
        is_accepted: bool,
    },
    /// A commit record's hash does not follow from the one before.
    CommitBroken {
        /// An admin has accepted the history of a later commit as it is.
        is_accepted: bool,
    },
    /// A commit record with a number that has not been given yet.
    CommitAhead,
    /// This machine has seen a later commit.
    RolledBack {
        /// The commit seen here before.
        seen: u64,
        /// The commit offered.
        offered: u64,
    },
    /// This machine has seen another commit under this number.
    Forked,
    /// There is no root directory.
    RootMissing,
    /// The inode of an entry is gone.
    EntryDangling {
        /// The inode it names.
        ino: Ino,
        /// What that was.
        kind: FileKind,
    },
    /// An entry's name does not open.
    EntryName {
        /// The inode it names.
        ino: Ino,
        /// What that is.
        kind: FileKind,
    },
    /// An entry says another kind than the inode.
    EntryKind {
        /// The inode it names.
        ino: Ino,
        /// What the inode is.
        is: FileKind,
    },
    /// An entry names the root directory.
    EntryOfRoot,
    /// Entries lie under an inode that is no directory, or is not there.
    EntriesAstray {
        /// How many.
        count: u64,
        /// There is no such inode.
        is_gone: bool,
    },
    /// A directory's record of its parent is wrong.
    ParentWrong {
        /// What it says.
        recorded: Ino,
        /// The directory that names it.
        named_by: Ino,
    },
    /// A directory with more than one name: this one is too many.
    SecondName {
        /// The directory that it names.
        ino: Ino,
    },
    /// A directory that is its own ancestor.
    Cycle,
    /// An inode without a name.
    Unreachable {
        /// What it is.
        kind: FileKind,
    },
    /// Link count.
    LinkCount {
        /// What the inode says.
        recorded: u32,
        /// What there are.
        counted: u32,
        /// Whether it is a directory.
        is_dir: bool,
    },
    /// A directory's count of its entries.
    EntryCount {
        /// What the inode says.
        recorded: u64,
        /// What there are.
        counted: u64,
    },
    /// Count of extended attributes.
    XattrCount {
        /// What the inode says.
        recorded: u32,
        /// What there are.
        counted: u32,
    },
    /// An extended attribute's name does not open.
    XattrName {
        /// The key's tag.
        tag: [u8; 16],
    },
    /// Extended attributes of an inode that is not there.
    XattrsAstray {
        /// How many.
        count: u64,
    },
    /// An orphan that has names: the next mount would free a file in use.
    OrphanNamed,
    /// An orphan without an inode.
    OrphanEmpty,
    /// An inode that was unlinked while it was open.
    Orphan,
    /// A field of the inode has a value that cannot be.
    InodeOdd {
        /// Which.
        why: &'static str,
    },
    /// An inode keeps contents in a way that its kind does not have.
    BodyOdd,
    /// Contents of an inode that is not there.
    ContentsAstray {
        /// Records of them.
        records: u64,
    },
    /// Contents that the inode does not refer to.
    ContentsUnused {
        /// Records of them.
        records: u64,
    },
    /// Contents beyond the file's end.
    BeyondEnd {
        /// The file's size.
        size: u64,
        /// Where the last block ends.
        end: u64,
    },
    /// Stored bytes of a file.
    Allocated {
        /// What the inode says.
        recorded: u64,
        /// What there are.
        counted: u64,
    },
    /// Extent records are missing: their part of the file would read as zeros.
    PagesMissing {
        /// Byte ranges without a record.
        ranges: Vec<Range<u64>>,
        /// Stored bytes that the inode says.
        recorded: u64,
        /// Stored bytes that there are.
        counted: u64,
    },
    /// Parts of a file cannot be read.
    BlocksLost {
        /// Why.
        because: LostBecause,
        /// The segment, if that is known.
        segment: Option<SegmentId>,
        /// Byte ranges of the file, ascending, the first ones.
        ranges: Vec<Range<u64>>,
        /// Bytes in all.
        bytes: u64,
    },
    /// A segment is not in the bucket.
    SegmentMissing {
        /// Bytes that files keep there.
        live: u64,
    },
    /// A segment has another length than its record says.
    SegmentLength {
        /// What the record says.
        recorded: u64,
        /// What the bucket has.
        actual: u64,
    },
    /// A segment's record belongs to another one.
    SegmentSeal,
    /// Files refer to a segment that has no record.
    SegmentUnrecorded {
        /// Bytes that files keep there.
        live: u64,
        /// Whether the object is in the bucket.
        is_there: bool,
    },
    /// Live bytes of a segment.
    LiveBytes {
        /// What the record says.
        recorded: u64,
        /// What files refer to.
        counted: u64,
    },
    /// A segment came with a commit that is not made yet.
    BornAhead,
    /// A segment that files refer to is about to be deleted.
    GarbageInUse,
    /// A segment that is about to be deleted.
    Garbage,
    /// A segment without a record.
    Leftover {
        /// Its length.
        bytes: u64,
        /// Somebody has, or had, the volume mounted: it may be on its way into a commit.
        is_held: bool,
    },
    /// A segment's head is not what its record says.
    SegmentHead,
    /// A segment's footer does not open.
    SegmentFooter,
    /// An object of the record engine does not open.
    MetaObject {
        /// What the engine calls it.
        name: String,
        /// What is wrong.
        why: String,
    },
    /// An object that is none of this volume's.
    ObjectStray,
    /// A header that cannot be read.
    HeaderBroken {
        /// What is wrong.
        why: String,
    },
    /// A header that the volume's owner has not made.
    HeaderForeign,
}

/// One thing that a check has found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    /// What it is about.
    pub subject: Subject,
    /// What is wrong.
    pub problem: Problem,
    /// The path in the volume, if the subject has one and it is known.
    pub path: Option<Vec<u8>>,
}

impl Problem {
    /// How bad it is.
    #[must_use]
    pub const fn severity(&self) -> Severity {
        match self {
            Self::Orphan | Self::Garbage | Self::Leftover { is_held: true, .. } => Severity::Note,
            Self::RecordStray
            | Self::Totals { .. }
            | Self::CommitMissing { is_accepted: true }
            | Self::CommitBroken { is_accepted: true }
            | Self::LinkCount { is_dir: true, .. }
            | Self::XattrCount { .. }
            | Self::XattrsAstray { .. }
            | Self::OrphanEmpty
            | Self::InodeOdd { .. }
            | Self::BornAhead
            | Self::Leftover { .. }
            | Self::SegmentHead
            | Self::SegmentFooter
            | Self::ObjectStray
            | Self::HeaderBroken { .. }
            | Self::HeaderForeign => Severity::Harmless,
            // Too low a count frees what is still in use; too high a one keeps what is not.
            Self::LinkCount { recorded, counted, .. } if *recorded >= *counted => Severity::Harmless,
            Self::EntryCount { recorded, counted } if *recorded >= *counted => Severity::Harmless,
            Self::LiveBytes { recorded, counted } if *recorded >= *counted => Severity::Harmless,
            Self::Allocated { recorded, counted } if *recorded <= *counted => Severity::Harmless,
            // What was appended to an object is never read.
            Self::SegmentLength { recorded, actual } if *actual > *recorded => Severity::Harmless,
            Self::XattrName { .. }
            | Self::ContentsUnused { .. }
            | Self::BeyondEnd { .. }
            | Self::Allocated { .. }
            | Self::PagesMissing { .. }
            | Self::BlocksLost { .. }
            | Self::SegmentMissing { .. }
            | Self::SegmentLength { .. }
            | Self::SegmentSeal
            | Self::SegmentUnrecorded { .. } => Severity::Files,
            _ => Severity::Structure,
        }
    }
}

/// All that is found, in bounded memory.
#[derive(Debug, Default)]
pub(super) struct Findings {
    pub(super) kept: Vec<Finding>,
    /// How many of each severity, those that are not kept included.
    pub(super) counts: [u64; 4],
    pub(super) max: usize,
}

impl Findings {
    pub(super) fn new(max: usize) -> Self {
        Self { max, ..Self::default() }
    }

    pub(super) fn add(&mut self, subject: Subject, problem: Problem) {
        if let Some(count) = self.counts.get_mut(problem.severity() as usize) {
            *count += 1;
        }
        if self.kept.len() < self.max {
            self.kept.push(Finding { subject, problem, path: None });
        }
    }

    pub(super) fn inode(&mut self, ino: Ino, problem: Problem) {
        self.add(Subject::Inode(ino), problem);
    }
}
