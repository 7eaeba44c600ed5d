//! Findings in words: what is wrong, what that means, what to do.

use std::ops::Range;

use super::finding::{Finding, LostBecause, Problem, Subject};
use crate::base::FileKind;

const REPAIR: &str = "run `coffer repair`";
const RESTORE: &str = "restore the file from a copy, or remove it";
const BY_ITSELF: &str = "the next mount does that";
const NOTHING: &str = "nothing needs to be done";
const FROM_A_COPY: &str = "put it back from a copy of the bucket; or `coffer repair --accept-rollback`, with an admin key, \
     goes on with what there is";
const LOOK: &str = "look at who can write to the bucket; `coffer inspect` shows the object";

/// Ranges that are named in a sentence.
const RANGES_SHOWN: usize = 4;

impl Finding {
    /// What it is about: a path if there is one, else a number or a name.
    #[must_use]
    pub fn place(&self) -> String {
        let path = self.path.as_ref().map(|path| path.escape_ascii().to_string());
        match &self.subject {
            Subject::Volume => "the volume".to_owned(),
            Subject::Inode(ino) => path.unwrap_or_else(|| format!("inode {ino}")),
            Subject::Entry { dir, name, .. } => match (path, name) {
                (Some(path), Some(_)) => path,
                (Some(path), None) => format!("an entry of {path}"),
                (None, Some(name)) => format!("{} in directory {dir}", name.escape_ascii()),
                (None, None) => format!("an entry of directory {dir}"),
            },
            Subject::Segment(id) => format!("segment {id}"),
            Subject::Commit(number) => format!("commit {number}"),
            Subject::Header(number) => format!("header/{number}"),
            Subject::Object(path) => path.escape_default().to_string(),
            Subject::Record(key) => format!("record {}", key.escape_ascii()),
        }
    }

    /// All of it in one sentence, without a full stop.
    #[must_use]
    pub fn sentence(&self) -> String {
        let (meaning, advice) = self.problem.meaning();
        format!("{}: {}: {meaning}; {advice}", self.place(), self.problem.what())
    }
}

impl Problem {
    /// Its word in machine-readable output; it never changes.
    #[must_use]
    pub const fn word(&self) -> &'static str {
        match self {
            Self::RecordsUnreadable { .. } => "records-unreadable",
            Self::SuperMissing => "superblock-missing",
            Self::RecordBroken { .. } => "record-broken",
            Self::RecordStray => "record-stray",
            Self::NextInoLow { .. } => "next-inode-low",
            Self::Totals { .. } => "totals",
            Self::LogMissing { .. } => "log-missing",
            Self::LogIsBack { .. } => "log-is-back",
            Self::HeadWrong => "chain-head",
            Self::CommitMissing { .. } => "commit-missing",
            Self::CommitBroken { .. } => "commit-broken",
            Self::CommitAhead => "commit-ahead",
            Self::RolledBack { .. } => "rolled-back",
            Self::Forked => "forked",
            Self::RootMissing => "root-missing",
            Self::EntryDangling { .. } => "entry-dangling",
            Self::EntryName { .. } => "entry-name",
            Self::EntryKind { .. } => "entry-kind",
            Self::EntryOfRoot => "entry-of-root",
            Self::EntriesAstray { .. } => "entries-astray",
            Self::ParentWrong { .. } => "parent",
            Self::SecondName { .. } => "second-name",
            Self::Cycle => "cycle",
            Self::Unreachable { .. } => "unreachable",
            Self::LinkCount { .. } => "link-count",
            Self::EntryCount { .. } => "entry-count",
            Self::XattrCount { .. } => "xattr-count",
            Self::XattrName { .. } => "xattr-name",
            Self::XattrsAstray { .. } => "xattrs-astray",
            Self::OrphanNamed => "orphan-named",
            Self::OrphanEmpty => "orphan-empty",
            Self::Orphan => "orphan",
            Self::InodeOdd { .. } => "inode-odd",
            Self::BodyOdd => "body-odd",
            Self::ContentsAstray { .. } => "contents-astray",
            Self::ContentsUnused { .. } => "contents-unused",
            Self::BeyondEnd { .. } => "beyond-end",
            Self::Allocated { .. } => "allocated",
            Self::PagesMissing { .. } => "extents-missing",
            Self::BlocksLost { .. } => "blocks-lost",
            Self::SegmentMissing { .. } => "segment-missing",
            Self::SegmentLength { .. } => "segment-length",
            Self::SegmentSeal => "segment-seal",
            Self::SegmentUnrecorded { .. } => "segment-unrecorded",
            Self::LiveBytes { .. } => "live-bytes",
            Self::BornAhead => "born-ahead",
            Self::GarbageInUse => "garbage-in-use",
            Self::Garbage => "garbage",
            Self::Leftover { .. } => "leftover",
            Self::SegmentHead => "segment-head",
            Self::SegmentFooter => "segment-footer",
            Self::MetaObject { .. } => "metadata-object",
            Self::ObjectStray => "object-stray",
            Self::HeaderBroken { .. } => "header-broken",
            Self::HeaderForeign => "header-foreign",
        }
    }

    /// What is wrong.
    #[must_use]
    pub fn what(&self) -> String {
        let counts = |name: &str, recorded: u64, counted: u64| {
            format!("{name} {recorded} where {counted} was counted")
        };
        match self {
            Self::RecordsUnreadable { why } | Self::HeaderBroken { why } => why.clone(),
            Self::MetaObject { name, why } => format!("metadata object {name} does not open: {why}"),
            Self::RecordBroken { why } => format!("the record cannot be decoded: {why}"),
            Self::SuperMissing => "there is no superblock".to_owned(),
            Self::RecordStray => "no record of this format has such a key".to_owned(),
            Self::NextInoLow { next, highest } => {
                format!("the next inode number is {next}, but {highest} is in use")
            }
            Self::Totals { recorded, counted } => format!(
                "the superblock says {} inodes and {} bytes where {} and {} were counted",
                recorded.0, recorded.1, counted.0, counted.1
            ),
            Self::LogMissing { name } => {
                format!("metadata object {name} is missing, and later ones are there")
            }
            Self::LogIsBack { number } => {
                format!("log {number} of the records, which an admin has given up, is there again")
            }
            Self::HeadWrong => "the superblock's chain does not end in it".to_owned(),
            Self::CommitMissing { .. } => "its record is missing".to_owned(),
            Self::CommitBroken { .. } => "it does not follow from the commit before".to_owned(),
            Self::CommitAhead => "it is later than the superblock's commit".to_owned(),
            Self::RolledBack { seen, offered } => {
                format!("the bucket offers commit {offered}, and this machine has seen commit {seen}")
            }
            Self::Forked => "it is not the commit that this machine has seen".to_owned(),
            Self::RootMissing => "there is no root directory".to_owned(),
            Self::EntryDangling { ino, kind } => {
                format!("it names {} {ino}, which is gone", kind_word(*kind))
            }
            Self::EntryName { ino, .. } => format!("the name of inode {ino} does not open"),
            Self::EntryKind { ino, is } => {
                format!("it says another kind than inode {ino}, a {}, has", kind_word(*is))
            }
            Self::EntryOfRoot => "it names the root directory".to_owned(),
            Self::EntriesAstray { count, is_gone: true } => {
                format!("the directory is gone, and {count} entries of it are not")
            }
            Self::EntriesAstray { count, .. } => format!("it is no directory and has {count} entries"),
            Self::ParentWrong { recorded, named_by } => {
                format!("it says {recorded} is its parent, but {named_by} names it")
            }
            Self::SecondName { ino } => format!("it is a second name of directory {ino}"),
            Self::Cycle => "the directory lies below itself".to_owned(),
            Self::Unreachable { kind } => format!("no entry names this {}", kind_word(*kind)),
            Self::LinkCount { recorded, counted, .. } => {
                counts("its link count is", (*recorded).into(), (*counted).into())
            }
            Self::EntryCount { recorded, counted } => counts("its count of entries is", *recorded, *counted),
            Self::XattrCount { recorded, counted } => {
                counts("its count of attributes is", (*recorded).into(), (*counted).into())
            }
            Self::XattrName { .. } => "the name of an extended attribute does not open".to_owned(),
            Self::XattrsAstray { count } => format!("it is gone, and {count} extended attributes are not"),
            Self::OrphanNamed => "it is marked as unlinked and has names".to_owned(),
            Self::OrphanEmpty => "it is marked as unlinked and is gone".to_owned(),
            Self::Orphan => "it was unlinked while it was open".to_owned(),
            Self::InodeOdd { why } => (*why).to_owned(),
            Self::BodyOdd => "its contents are kept in a way that its kind does not have".to_owned(),
            Self::ContentsAstray { records } => {
                format!("the inode is gone, and {records} records of its contents are not")
            }
            Self::ContentsUnused { records } => {
                format!("{records} records of its contents are not referred to")
            }
            Self::BeyondEnd { size, end } => {
                format!("it has {size} bytes, but contents up to byte {end}")
            }
            Self::Allocated { recorded, counted } => counts("its stored bytes are", *recorded, *counted),
            Self::PagesMissing { ranges, recorded, counted } => format!(
                "{} of its stored bytes are not referred to, and extent records are missing for some of {}",
                recorded - counted,
                ranges_text(ranges, None)
            ),
            Self::BlocksLost { because, segment, ranges, bytes } => {
                let why = segment.map(|id| format!("segment {id} {}", because_word(*because)));
                let why = why.unwrap_or_else(|| because_word(*because).to_owned());
                format!("{} cannot be read, because {why}", ranges_text(ranges, Some(*bytes)))
            }
            Self::SegmentMissing { live } => {
                format!("it is not in the bucket, and files keep {live} bytes there")
            }
            Self::SegmentLength { recorded, actual } => {
                format!("it has {actual} bytes where its record says {recorded}")
            }
            Self::SegmentSeal => "its record is another segment's".to_owned(),
            Self::SegmentUnrecorded { live, is_there } => {
                let place = if *is_there { "in" } else { "not in" };
                format!("files keep {live} bytes there, but it has no record, and is {place} the bucket")
            }
            Self::LiveBytes { recorded, counted } => counts("its live bytes are", *recorded, *counted),
            Self::BornAhead => "it came with a commit that has not been made".to_owned(),
            Self::GarbageInUse => "it is about to be deleted, and still in use".to_owned(),
            Self::Garbage => "it holds nothing any more and is to be deleted".to_owned(),
            Self::Leftover { bytes, .. } => format!("{bytes} bytes that no record knows"),
            Self::SegmentHead => "its head was altered".to_owned(),
            Self::SegmentFooter => "its footer was altered".to_owned(),
            Self::ObjectStray => "it is no object of this volume".to_owned(),
            Self::HeaderForeign => "somebody without the volume's key made it".to_owned(),
        }
    }

    /// What it means, and what to do.
    #[must_use]
    pub const fn meaning(&self) -> (&'static str, &'static str) {
        match self {
            Self::RecordsUnreadable { .. } => (
                "names and places of files cannot be read",
                "put the objects that are named here back from a copy of the bucket",
            ),
            Self::MetaObject { .. } => (
                "records in it cannot be read, unless it has been replaced by a newer one",
                "put it back from a copy of the bucket; if nothing else is found, check again in an hour",
            ),
            Self::SuperMissing => ("the volume cannot be mounted", REPAIR),
            Self::RecordBroken { .. } => ("what it said is lost", REPAIR),
            Self::RecordStray => ("nobody reads it", REPAIR),
            Self::NextInoLow { .. } => ("new files would take the numbers of old ones", REPAIR),
            Self::Totals { .. } => ("`df` and the quota are off", REPAIR),
            Self::LogMissing { .. } => (
                "mounts refuse the volume: what was committed there and later is not shown, by damage or because it is withheld",
                FROM_A_COPY,
            ),
            Self::LogIsBack { .. } => (
                "mounts refuse the volume: what was given up would be mixed into what came since",
                FROM_A_COPY,
            ),
            Self::HeadWrong => ("the history does not lead to the present", REPAIR),
            Self::CommitMissing { is_accepted: true } | Self::CommitBroken { is_accepted: true } => {
                ("the history cannot be followed there, which an admin has accepted", NOTHING)
            }
            Self::CommitMissing { .. } => (
                "mounts refuse the volume: what the commit changed may be missing, by damage or because it is withheld",
                FROM_A_COPY,
            ),
            Self::CommitBroken { .. } => (
                "mounts refuse the volume: it was damaged, or two histories have been mixed",
                "`coffer repair` mends its record; what it leaves an admin can accept, with --accept-rollback",
            ),
            Self::CommitAhead => ("the superblock is older than the history", REPAIR),
            Self::RolledBack { .. } | Self::Forked => (
                "somebody has put an old or another copy of the volume into the bucket",
                "find out who; if it was intended, `coffer mount --accept-rollback`, with an admin key, goes on from there",
            ),
            Self::RootMissing => ("nothing can be reached", REPAIR),
            Self::EntryDangling { .. } => (
                "the file cannot be opened",
                "`coffer repair` removes the name; with --salvage it first looks for the contents",
            ),
            Self::EntryName { .. } => ("its directory cannot be listed", REPAIR),
            Self::EntryKind { .. } => ("listings show the wrong kind", REPAIR),
            Self::EntryOfRoot | Self::SecondName { .. } | Self::Cycle => {
                ("walks through the tree do not end or count twice", REPAIR)
            }
            Self::EntriesAstray { is_gone: true, .. } | Self::ContentsAstray { .. } => {
                ("what it holds cannot be reached", REPAIR)
            }
            Self::EntriesAstray { .. } => ("they lead nowhere", REPAIR),
            Self::ParentWrong { .. } => ("`..` leads elsewhere", REPAIR),
            Self::Unreachable { .. } => ("it cannot be reached", REPAIR),
            Self::LinkCount { recorded, counted, is_dir } => {
                if *is_dir || *recorded >= *counted {
                    ("what is shown is off, and space may stay in use", REPAIR)
                } else {
                    ("removing one name would free the file under the others", REPAIR)
                }
            }
            Self::EntryCount { recorded, counted } => {
                if *recorded >= *counted {
                    ("it cannot be removed when it is empty", REPAIR)
                } else {
                    ("it could be removed with files in it", REPAIR)
                }
            }
            Self::XattrCount { .. } => ("attributes may stay when the file is removed", REPAIR),
            Self::XattrName { .. } => ("the attribute is lost", REPAIR),
            Self::XattrsAstray { .. } => ("they belong to nobody", REPAIR),
            Self::OrphanNamed => ("the next mount would free it", "do not mount; run `coffer repair` first"),
            Self::OrphanEmpty => ("nothing is left to be freed", REPAIR),
            Self::Orphan => ("it is to be freed", BY_ITSELF),
            Self::InodeOdd { .. } | Self::BodyOdd => ("programs may be shown nonsense", REPAIR),
            Self::ContentsUnused { .. } => ("a part of the file may be missing", REPAIR),
            Self::BeyondEnd { .. } => ("the file may have been longer", REPAIR),
            Self::Allocated { recorded, counted } => {
                if *recorded <= *counted {
                    ("`du` and the quota are off", REPAIR)
                } else {
                    ("`du` is off, or something that was stored is not referred to any more", REPAIR)
                }
            }
            Self::PagesMissing { .. } => {
                ("what was stored there reads as zeros", "`coffer repair` finds it, or makes it an error")
            }
            Self::BlocksLost {
                because: LostBecause::SegmentUnknown | LostBecause::SegmentSeal | LostBecause::SegmentLength,
                ..
            } => ("reading those bytes fails, and no others", "run `coffer repair`, then check again"),
            Self::BlocksLost { .. } => ("reading those bytes fails, and no others", RESTORE),
            Self::SegmentMissing { .. } => {
                ("what files keep there is lost", "put it back from a copy of the bucket")
            }
            Self::SegmentLength { recorded, actual } => {
                if *actual > *recorded {
                    ("bytes were appended that nobody reads", LOOK)
                } else {
                    (
                        "what lay at its end is lost",
                        "put it back from a copy of the bucket, then run `coffer repair`",
                    )
                }
            }
            Self::SegmentUnrecorded { is_there: false, .. } => (
                "what files keep there is lost",
                "put it back from a copy of the bucket, then run `coffer repair`",
            ),
            Self::SegmentSeal | Self::SegmentUnrecorded { .. } => (
                "what files keep there cannot be read",
                "run `coffer repair`, after which this is left only of a segment whose head was altered: put that one \
                 back from a copy of the bucket, and run it again",
            ),
            Self::LiveBytes { recorded, counted } => {
                if *recorded >= *counted {
                    ("space stays in use, or a file is lost", REPAIR)
                } else {
                    ("it could be deleted while it is in use", "do not mount; run `coffer repair` first")
                }
            }
            Self::BornAhead => ("its age is not known", REPAIR),
            Self::GarbageInUse => {
                ("the next mount would delete it", "do not mount; run `coffer repair` first")
            }
            Self::Garbage => ("its space is not free yet", BY_ITSELF),
            Self::Leftover { is_held: true, .. } => ("it may be on its way into a commit", NOTHING),
            Self::Leftover { .. } => (
                "a crash left it, or a record is lost",
                "the next mount after a crash, `coffer gc` or `coffer repair` notes it; it is deleted a day later",
            ),
            Self::SegmentHead | Self::SegmentFooter => {
                ("contents are not affected, only what salvage goes by", LOOK)
            }
            Self::ObjectStray => ("nobody reads it", LOOK),
            Self::HeaderBroken { .. } | Self::HeaderForeign => {
                ("it opens nothing, and the volume's newest header does not need it", LOOK)
            }
        }
    }
}

/// What a kind is called.
#[must_use]
pub const fn kind_word(kind: FileKind) -> &'static str {
    match kind {
        FileKind::Regular => "file",
        FileKind::Directory => "directory",
        FileKind::Symlink => "symbolic link",
        FileKind::Fifo => "pipe",
        FileKind::CharDevice => "character device",
        FileKind::BlockDevice => "block device",
        FileKind::Socket => "socket",
    }
}

const fn because_word(because: LostBecause) -> &'static str {
    match because {
        LostBecause::SegmentMissing => "is missing",
        LostBecause::SegmentShort => "is cut short",
        LostBecause::SegmentLength => "has a record that ends before them",
        LostBecause::SegmentUnknown => "has no record",
        LostBecause::SegmentSeal => "has another's record",
        LostBecause::RecordMissing => "their record is missing",
        LostBecause::Misplaced => "has no such blocks",
        LostBecause::Altered => "was altered there",
        LostBecause::Given => "an earlier repair found them lost",
    }
}

/// `bytes 0 to 65535 and 131072 to 140000`; with how many in all, if more than are named.
fn ranges_text(ranges: &[Range<u64>], bytes: Option<u64>) -> String {
    let named: Vec<String> = ranges
        .iter()
        .take(RANGES_SHOWN)
        .map(|range| format!("{} to {}", range.start, range.end.saturating_sub(1)))
        .collect();
    let mut text = format!("bytes {}", named.join(", "));
    let shown: u64 = ranges.iter().take(RANGES_SHOWN).map(|range| range.end - range.start).sum();
    match bytes {
        Some(bytes) if bytes > shown => text.push_str(&format!(" and others, {bytes} in all,")),
        None if ranges.len() > RANGES_SHOWN => text.push_str(" and others"),
        _ => {}
    }
    text
}
