//! The records of the tree. (`docs/FORMAT.md`, "Metadata records")

use std::sync::Arc;

use bincode::{Decode, Encode};

use super::Opened;
use crate::base::{FileKind, Ino, Piece, Run, RunList, SegmentSeal, Time, VolumeId};

/// Where an inode keeps its contents.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub enum Body {
    /// Nothing is stored: an empty file, one that is all hole, or no file.
    #[default]
    Empty,
    /// The target of a symbolic link.
    Link(Vec<u8>),
    /// Block 0 as an [`Inline`](super::Key::Inline) record and no other block.
    Inline,
    /// One run of blocks that begins at block 0 of page 0.
    Run(Run),
    /// [`Extents`](super::Key::Extents) records, one for each page that is not all hole.
    Pages,
}

/// An inode.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Inode {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits with setuid, setgid and sticky (`07777`).
    pub perm: u16,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Names that lead here; for a directory 2 and one for each subdirectory.
    pub nlink: u32,
    /// Device number of a device file.
    pub rdev: u32,
    /// Bytes.
    pub size: u64,
    /// Plaintext bytes that are stored.
    pub allocated: u64,
    /// Last access.
    pub atime: Time,
    /// Last change of the contents.
    pub mtime: Time,
    /// Last change of the inode.
    pub ctime: Time,
    /// Birth.
    pub btime: Time,
    /// A directory's parent; of anything else, 0.
    pub parent: Ino,
    /// A directory's entries.
    pub entries: u64,
    /// Extended attributes.
    pub xattrs: u32,
    /// Where its contents are.
    pub body: Body,
}

/// An entry of a directory.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Entry {
    /// The sealed name without its tag, which is the record's key.
    pub name: Vec<u8>,
    /// What it names.
    pub ino: Ino,
    /// What that is.
    pub kind: FileKind,
    /// What the name says, in memory only.
    pub opened: Opened,
}

impl Entry {
    /// An entry whose name nobody has opened yet.
    #[must_use]
    pub fn new(name: Vec<u8>, ino: Ino, kind: FileKind) -> Self {
        Self { name, ino, kind, opened: Opened::default() }
    }
}

/// The extents of one page of a file.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Page {
    /// Runs in order of their first block, counted from the start of the page.
    pub runs: RunList,
    /// Blocks, counted likewise, that are [`Inline`](super::Key::Inline) records.
    pub inline: Vec<u32>,
}

/// An extended attribute.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Xattr {
    /// The sealed name without its tag, which is the record's key.
    pub name: Vec<u8>,
    /// The value.
    pub value: Vec<u8>,
}

/// A data segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Segment {
    /// The object's length.
    pub len: u32,
    /// Sealed bytes of blocks that some file still refers to, each reference counted.
    pub live: u64,
    /// The commit that brought it.
    pub born: u64,
    /// What opens it.
    pub seal: SegmentSeal,
}

/// A segment that is to be deleted.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Garbage {
    /// The commit that killed it.
    pub died: u64,
    /// The commit that brought it; 0 where that is not known.
    pub born: u64,
}

/// A segment in the bucket of which no other record knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Leftover {
    /// When it was found.
    pub found: Time,
}

/// A commit: a link of the chain that shows rollback.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Commit {
    /// What [`chain::link`](super::chain::link) makes of the commit before and this one.
    pub hash: [u8; 32],
    /// The device that made it.
    pub device: [u8; 16],
    /// The mount that made it, a number drawn for it: what keeps the hashes of two apart that a store has split, though all
    /// else be equal.
    pub session: [u8; 16],
    /// How many commits the device has made with this one; 0 where it does not count.
    pub counter: u64,
    /// When.
    pub time: Time,
}

/// Commits that one mount has made in a row, its device's counter going up by one with each, or staying 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct DeviceRun {
    /// The device.
    pub device: [u8; 16],
    /// The mount.
    pub session: [u8; 16],
    /// So many commits.
    pub count: u32,
    /// The counter of the first.
    pub counter: u64,
}

/// What a machine has done, by its id for the volume.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Machine {
    /// Commits that it has made.
    pub counter: u64,
    /// The last of them.
    pub commit: u64,
}

/// Old commits in a row, from which each one's hash is computed again.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct History {
    /// The hash of the commit before the first.
    pub before: [u8; 32],
    /// Who made them, in order.
    pub devices: Vec<DeviceRun>,
    /// When: seconds since the one before (of the first, since 1970), and nanoseconds.
    pub times: Vec<(i64, u32)>,
}

/// A rollback that an admin has accepted: this machine had seen another state, and the history goes on
/// from an older one. (`docs/FORMAT.md`, "Acceptance")
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Acceptance {
    /// Counts up with every acceptance.
    pub ordinal: u64,
    /// The commit from which the history goes on.
    pub commit: u64,
    /// Its hash.
    pub hash: [u8; 32],
    /// Revision of the header that was accepted with it.
    pub revision: u64,
    /// The newest commit that had been seen, and is given up.
    pub abandoned_commit: u64,
    /// The newest revision of the header that had been seen.
    pub abandoned_revision: u64,
    /// When.
    pub time: Time,
    /// The admin key's, over [`Acceptance::parts`].
    pub signature: [u8; 64],
}

impl Acceptance {
    /// What is signed, in order.
    #[must_use]
    pub fn parts(&self, volume: VolumeId) -> [Vec<u8>; 8] {
        let time = [&self.time.secs.to_be_bytes()[..], &self.time.nanos.to_be_bytes()].concat();
        [
            volume.0.to_vec(),
            self.ordinal.to_be_bytes().to_vec(),
            self.commit.to_be_bytes().to_vec(),
            self.hash.to_vec(),
            self.revision.to_be_bytes().to_vec(),
            self.abandoned_commit.to_be_bytes().to_vec(),
            self.abandoned_revision.to_be_bytes().to_vec(),
            time,
        ]
    }
}

/// Who has the volume mounted for writing.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
pub struct Holder {
    /// The machine's name.
    pub host: String,
    /// The user's id.
    pub uid: u32,
    /// The process.
    pub pid: u32,
    /// The device, by the id that its local state gives it; zero without local state.
    pub device: [u8; 16],
    /// The mount, a number drawn for it.
    pub session: [u8; 16],
    /// Since when.
    pub since: Time,
}

/// What is true of the volume as a whole.
#[derive(Clone, Debug, Default, PartialEq, Eq, Encode, Decode)]
pub struct Superblock {
    /// Features a reader must know; none yet.
    pub features: u64,
    /// The next inode number to be given.
    pub next_ino: u64,
    /// Inodes.
    pub files: u64,
    /// Plaintext bytes that are stored.
    pub bytes: u64,
    /// Most bytes that may be stored; 0 for no limit.
    pub quota_bytes: u64,
    /// The last commit.
    pub commit: u64,
    /// Its hash.
    pub head: [u8; 32],
    /// The writer; none after a clean unmount.
    pub holder: Option<Holder>,
}

/// What the allocator adds to an allocation: its size is rounded up.
const ALLOCATION_BYTES: usize = 16;

const fn shared<T>() -> usize {
    size_of::<T>() + 2 * size_of::<usize>() + ALLOCATION_BYTES
}

const fn run_bytes(run: &Run) -> usize {
    match run.rest.capacity() {
        0 => 0,
        pieces => ALLOCATION_BYTES + pieces * size_of::<Piece>(),
    }
}

/// A record. Large ones are shared, so that a copy costs a count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// Under [`Key::Acceptance`](super::Key::Acceptance).
    Acceptance(Arc<Acceptance>),
    /// Under [`Key::Inline`](super::Key::Inline).
    Inline(bytes::Bytes),
    /// Under [`Key::Commit`](super::Key::Commit).
    Commit(Arc<Commit>),
    /// Under [`Key::Entry`](super::Key::Entry).
    Entry(Arc<Entry>),
    /// Under [`Key::Extents`](super::Key::Extents).
    Extents(Arc<Page>),
    /// Under [`Key::Garbage`](super::Key::Garbage).
    Garbage(Garbage),
    /// Under [`Key::History`](super::Key::History).
    History(Arc<History>),
    /// Under [`Key::Inode`](super::Key::Inode).
    Inode(Arc<Inode>),
    /// Under [`Key::Leftover`](super::Key::Leftover).
    Leftover(Leftover),
    /// Under [`Key::LostLog`](super::Key::LostLog).
    LostLog,
    /// Under [`Key::Machine`](super::Key::Machine).
    Machine(Machine),
    /// Under [`Key::Orphan`](super::Key::Orphan).
    Orphan,
    /// Under [`Key::Reference`](super::Key::Reference).
    Reference,
    /// Under [`Key::Segment`](super::Key::Segment).
    Segment(Segment),
    /// Under [`Key::Super`](super::Key::Super).
    Super(Arc<Superblock>),
    /// Under [`Key::Xattr`](super::Key::Xattr).
    Xattr(Arc<Xattr>),
}

impl Record {
    /// Bytes that it points to in memory, with what the allocator adds. Shared ones are counted by each that shares.
    #[must_use]
    pub fn heap_bytes(&self) -> usize {
        match self {
            Self::Inline(bytes) => ALLOCATION_BYTES + bytes.len(),
            Self::Acceptance(_) => shared::<Acceptance>(),
            Self::Commit(_) => shared::<Commit>(),
            Self::Super(_) => shared::<Superblock>(),
            // With the opened name, which may come at any time.
            Self::Entry(entry) => shared::<Entry>() + 2 * (ALLOCATION_BYTES + entry.name.len()),
            Self::Extents(page) => {
                let runs = page.runs.runs().iter().map(|run| size_of::<Run>() + run_bytes(run));
                shared::<Page>() + runs.sum::<usize>() + size_of::<u32>() * page.inline.len()
            }
            Self::Garbage(_)
            | Self::Leftover(_)
            | Self::LostLog
            | Self::Machine(_)
            | Self::Orphan
            | Self::Reference
            | Self::Segment(_) => 0,
            Self::History(history) => {
                shared::<History>() + 48 * history.devices.len() + 16 * history.times.len()
            }
            Self::Inode(inode) => {
                shared::<Inode>()
                    + match &inode.body {
                        Body::Link(target) => ALLOCATION_BYTES + target.len(),
                        Body::Run(run) => run_bytes(run),
                        Body::Empty | Body::Inline | Body::Pages => 0,
                    }
            }
            Self::Xattr(xattr) => {
                shared::<Xattr>() + 2 * ALLOCATION_BYTES + xattr.name.len() + xattr.value.len()
            }
        }
    }
}
