//! A small and complete volume with a past, and everything that can be read of it.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Clock, FileKind, Ino, SeededEntropy, Time};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewSlot, NewVolume, Role};
use coffer::store::{Bucket, StoreOptions};
use coffer::vfs::{Attr, Caller, CleanOptions, Handle, RenameMode, Vfs, VfsError, VfsOptions, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened, VolumeError};
use futures::future::LocalBoxFuture;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use tokio::runtime::{Builder, Runtime};
use tokio::time::Instant;

use crate::store::{Hostile, Objects};

/// A moment in 2023.
pub const START_SECS: i64 = 1_700_000_000;
/// Dates that a store may tell, in seconds since 1970: the least that a computer has, year 1, and the last of year 9999.
pub const EPOCH: i64 = 0;
pub const BEFORE_ALL: i64 = -62_135_596_800;
pub const AFTER_ALL: i64 = 253_402_300_799;
pub const BLOCK: usize = 65_536;
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
/// Of simulated time: more than any number of repeated reads takes.
const HANG: Duration = Duration::from_secs(4 * 3600);
/// Bytes that reading a volume of half a megabyte may ask for, whatever the store says.
const ASKED_BYTES_MAX: u64 = 48 << 20;

const DAY_SECS: i64 = 24 * 3600;

/// Simulated time, which begins on some day.
struct TestClock(Instant, i64);

fn clock(day: i64) -> Arc<dyn Clock> {
    Arc::new(TestClock(Instant::now(), START_SECS + day * DAY_SECS))
}

/// A runtime of one thread on which time passes only where everybody waits for it.
pub fn runtime() -> Runtime {
    Builder::new_current_thread().enable_time().start_paused(true).build().unwrap()
}

impl Clock for TestClock {
    fn now(&self) -> Time {
        let elapsed = self.0.elapsed();
        Time { secs: self.1 + elapsed.as_secs() as i64, nanos: elapsed.subsec_nanos() }
    }

    fn elapsed(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Names and values.
type Xattrs = Vec<(Vec<u8>, Vec<u8>)>;

/// What a path leads to. A part that cannot be read is an error number.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Everything but what a commit settles by itself.
    pub attr: Result<String, i32>,
    /// Blocks of contents, or the target of a link.
    pub contents: Vec<Result<Vec<u8>, i32>>,
    pub xattrs: Result<Xattrs, i32>,
    /// Whether what is in a directory could be listed.
    pub listed: Result<(), i32>,
}

impl Seen {
    pub fn is_whole(&self) -> bool {
        self.attr.is_ok()
            && self.contents.iter().all(Result::is_ok)
            && self.xattrs.is_ok()
            && self.listed.is_ok()
    }
}

/// All paths of a volume.
pub type Tree = BTreeMap<String, Seen>;

/// Whether what was `seen` is of `truth`, as far as it could be read.
pub fn agrees(seen: &Tree, truth: &Tree) -> Result<(), String> {
    for (path, seen_here) in seen {
        let Some(true_here) = truth.get(path) else { return Err(format!("{path} was never there")) };
        let mut is_same = seen_here.attr.is_err() || seen_here.attr == true_here.attr;
        is_same &= seen_here.xattrs.is_err() || seen_here.xattrs == true_here.xattrs;
        let known_length = seen_here.attr.is_ok() && !matches!(seen_here.contents[..], [Err(_)]);
        is_same &= !known_length || seen_here.contents.len() == true_here.contents.len();
        for (block, true_block) in seen_here.contents.iter().zip(&true_here.contents) {
            is_same &= block.is_err() || block == true_block;
        }
        if !is_same {
            return Err(format!("{path} is something else"));
        }
    }
    for path in truth.keys() {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        let is_listed = seen.get(parent).is_some_and(|seen| seen.listed.is_ok());
        if is_listed && !seen.contains_key(path) && !path.is_empty() {
            return Err(format!("{path} has vanished from a listing"));
        }
    }
    Ok(())
}

pub fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the hostile store".to_vec()))]
}

/// What opens the volume as somebody who is no admin.
pub fn second() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"another key file".to_vec()))]
}

pub fn bucket(store: &Arc<Hostile>) -> Bucket {
    let options =
        StoreOptions { read_timeout: Duration::from_secs(2), pause_seed: Some(7), ..StoreOptions::default() };
    Bucket::with_options(Arc::clone(store) as _, "hostile:", &options)
}

pub fn options(state_dir: Option<PathBuf>, seed: u64) -> OpenOptions {
    let clean = CleanOptions {
        is_automatic: false,
        grace: Duration::ZERO,
        slack_bytes: 0,
        ..CleanOptions::default()
    };
    let vfs = VfsOptions { commit_age: HANG, poll_interval: HANG, clean, ..VfsOptions::default() };
    OpenOptions {
        takeover: true,
        vfs,
        state_dir,
        clock: clock(9),
        entropy: Arc::new(SeededEntropy::new(seed)),
        ..OpenOptions::default()
    }
}

pub fn pattern(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill(&mut bytes[..]);
    // One half shrinks when it is compressed.
    bytes.chunks_mut(64).step_by(2).for_each(|chunk| chunk.fill(seed as u8));
    bytes
}

pub async fn open(store: &Arc<Hostile>, options: OpenOptions) -> Result<Opened, VolumeError> {
    Box::pin(volume::open(bucket(store), &factors(), options)).await
}

pub fn create<'a>(store: &'a Arc<Hostile>, compression: Compression, seed: u64) -> LocalBoxFuture<'a, ()> {
    Box::pin(async move {
        let header = NewVolume { compression, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let clock = clock(0);
        let entropy = Arc::new(SeededEntropy::new(seed));
        volume::create(&bucket(store), &spec, &factors(), entropy, clock).await.unwrap();
    })
}

pub fn put<'a>(vfs: &'a Vfs, dir: Ino, name: &'a str, bytes: &'a [u8]) -> LocalBoxFuture<'a, Ino> {
    Box::pin(async move {
        let ino = match vfs.lookup(dir, name.as_bytes()).await {
            Ok(attr) => attr.ino,
            Err(_) => vfs.create(&CALLER, dir, name.as_bytes(), 0o644, true).await.unwrap().ino,
        };
        vfs.write(ino, 0, bytes, true).await.unwrap();
        ino
    })
}

pub fn mkdir<'a>(vfs: &'a Vfs, dir: Ino, name: &'a str) -> LocalBoxFuture<'a, Ino> {
    Box::pin(async move { vfs.mkdir(&CALLER, dir, name.as_bytes(), 0o755).await.unwrap().ino })
}

/// A volume, every committed state of it, and the store's memory of it.
pub struct World {
    /// The objects at the end.
    pub objects: Objects,
    /// Every version of every object ever stored.
    pub ever: Vec<(String, bytes::Bytes)>,
    /// The states that were committed: objects and tree. The last one is the newest.
    pub states: Vec<(Objects, Tree)>,
    /// The objects of another volume with the same key file and the same past.
    pub other: Objects,
    /// A state folder that knows the newest commit.
    pub machine: tempfile::TempDir,
}

impl World {
    pub fn new() -> Self {
        let store = Hostile::of(Objects::new());
        let mut states = Vec::new();
        // The runtimes end with the processes that lived on them.
        runtime().block_on(live(&store, 1, &mut states));
        let other = Hostile::of(Objects::new());
        runtime().block_on(live(&other, 2, &mut Vec::new()));
        let machine = tempfile::tempdir().unwrap();
        let objects = states.last().unwrap().0.clone();
        let world = Self { objects, ever: store.ever(), states, other: other.objects(), machine };
        let seen = runtime().block_on(world.read(&world.store(), true)).unwrap();
        agrees(&seen, world.newest()).unwrap();
        assert!(seen.values().all(Seen::is_whole) && seen.len() == world.newest().len());
        world
    }

    /// A store that offers the newest state.
    pub fn store(&self) -> Arc<Hostile> {
        Hostile::of(self.objects.clone())
    }

    pub fn newest(&self) -> &Tree {
        &self.states.last().unwrap().1
    }

    pub fn state_dir(&self, is_known: bool) -> Option<PathBuf> {
        is_known.then(|| self.machine.path().to_owned())
    }

    /// Everything that can be read of what the store offers; with or without memory of the newest commit.
    pub fn read<'a>(
        &'a self,
        store: &'a Arc<Hostile>,
        is_known: bool,
    ) -> LocalBoxFuture<'a, Result<Tree, VolumeError>> {
        Box::pin(read(store, self.state_dir(is_known)))
    }

    /// Reads what the store offers with and without memory, and holds it against the truth. Gives what could be
    /// read by whoever knows the newest commit.
    pub fn judge<'a>(&'a self, store: &'a Arc<Hostile>, what: &'a str) -> LocalBoxFuture<'a, Verdict> {
        Box::pin(async move {
            // A segment says nothing of history: there both machines read alike.
            let is_segment = what.starts_with("d/");
            if !is_segment && let Ok(tree) = self.read(store, false).await {
                let fits = |(_, state): &(Objects, Tree)| agrees(&tree, state).is_ok();
                let is_one = self.states.iter().rev().any(fits);
                assert!(is_one, "{what}: at first contact {:?}", agrees(&tree, self.newest()));
            }
            let verdict = match self.read(store, true).await {
                Err(error) => Verdict::Refused(error),
                Ok(tree) => {
                    agrees(&tree, self.newest()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    Verdict::Read(tree)
                }
            };
            assert!(store.asked_bytes() < ASKED_BYTES_MAX, "{what}: {} bytes asked for", store.asked_bytes());
            verdict
        })
    }
}

/// What came of an attack on a machine that knows the newest commit.
#[derive(Debug)]
pub enum Verdict {
    Refused(VolumeError),
    Read(Tree),
}

impl Verdict {
    /// The paths that could not be read whole.
    pub fn spoiled(&self) -> Vec<String> {
        match self {
            Self::Refused(_) => vec!["everything".to_owned()],
            Self::Read(tree) => {
                tree.iter().filter(|(_, seen)| !seen.is_whole()).map(|(path, _)| path.clone()).collect()
            }
        }
    }
}

/// Everything that can be read of what the store offers.
pub async fn read(store: &Arc<Hostile>, state_dir: Option<PathBuf>) -> Result<Tree, VolumeError> {
    let mut options = options(state_dir, 99);
    options.vfs.read_only = true;
    let reading = async {
        let opened = open(store, options).await?;
        let tree = tree(&opened.vfs).await;
        // A reader has nothing to lose by a store that fails it now.
        drop(opened.close().await);
        Ok(tree)
    };
    tokio::time::timeout(HANG, reading).await.expect("it hangs")
}

/// One life of a volume: three sessions, the last of which has not ended.
async fn live(store: &Arc<Hostile>, seed: u64, states: &mut Vec<(Objects, Tree)>) {
    create(store, Compression::Zstd, seed).await;
    states
        .push((store.objects(), Tree::from([(String::new(), read(store, None).await.unwrap()[""].clone())])));
    let root = Ino::ROOT;

    let opened = begin(store, seed + 10, 1).await;
    let vfs = &opened.vfs;
    put(vfs, root, "tiny", &pattern(1, 600)).await;
    let run = put(vfs, root, "run", &pattern(2, 3 * BLOCK + 5000)).await;
    note(store, vfs, states).await;
    let dir = mkdir(vfs, root, "dir").await;
    let sub = mkdir(vfs, dir, "sub").await;
    for number in 0..4 {
        put(vfs, dir, &format!("packed{number}"), &pattern(20 + number, 3000)).await;
        put(vfs, sub, &format!("packed{number}"), &pattern(30 + number, 3000)).await;
    }
    vfs.link(run, dir, b"link").await.unwrap();
    vfs.symlink(&CALLER, root, b"soft", b"dir/sub/packed0").await.unwrap();
    vfs.mknod(&CALLER, root, b"pipe", FileKind::Fifo, 0o600, 0).await.unwrap();
    vfs.set_xattr(run, b"user.note", b"a note", XattrMode::Set).await.unwrap();
    note(store, vfs, states).await;
    opened.close().await.unwrap();

    add_key(store, seed).await;
    let opened = begin(store, seed + 20, 2).await;
    let vfs = &opened.vfs;
    let clone = put(vfs, root, "clone", b"x").await;
    vfs.copy_file_range(run, 0, clone, 0, 2 * BLOCK as u64).await.unwrap();
    note(store, vfs, states).await;
    put(vfs, root, "run", &pattern(3, BLOCK + 17)).await;
    vfs.unlink(root, b"clone").await.unwrap();
    vfs.rename(dir, b"packed1", sub, b"moved", RenameMode::Replace).await.unwrap();
    note(store, vfs, states).await;
    // Tables are merged, and dead segments are deleted.
    vfs.tidy_records().await.unwrap();
    vfs.reclaim().await.unwrap();
    put(vfs, dir, "packed2", &pattern(40, 3000)).await;
    note(store, vfs, states).await;
    opened.close().await.unwrap();

    let opened = begin(store, seed + 30, 3).await;
    let vfs = &opened.vfs;
    put(vfs, root, "tiny", &pattern(50, 700)).await;
    note(store, vfs, states).await;
    let big = put(vfs, sub, "late", &pattern(51, 2 * BLOCK + 300)).await;
    vfs.set_xattr(big, b"user.other", b"another", XattrMode::Set).await.unwrap();
    note(store, vfs, states).await;
    vfs.rename(root, b"soft", root, b"softer", RenameMode::Replace).await.unwrap();
    put(vfs, dir, "packed0", &pattern(52, 3000)).await;
    note(store, vfs, states).await;
    // A process that is gone without a word; what it left on its way out must not change the bucket.
    std::mem::forget(opened);
}

/// Begins a session on some day.
async fn begin(store: &Arc<Hostile>, seed: u64, day: i64) -> Opened {
    store.set_time(START_SECS + day * DAY_SECS);
    open(store, OpenOptions { clock: clock(day), ..options(None, seed) }).await.unwrap()
}

/// Commits, and notes objects and tree as they are now.
async fn note(store: &Arc<Hostile>, vfs: &Vfs, states: &mut Vec<(Objects, Tree)>) {
    vfs.sync_all().await.unwrap();
    states.push((store.objects(), tree(vfs).await));
}

async fn add_key(store: &Arc<Hostile>, seed: u64) {
    let mut opened = volume::rekey(bucket(store), &factors(), &options(None, seed)).await.unwrap();
    let second = second();
    let kdf_cost = KdfCost::Fixed { log_n: 15 };
    let new = NewSlot { label: "second", role: Role::Data, factors: &second, kdf_cost };
    let now = Time { secs: START_SECS, nanos: 0 };
    let bytes = opened.unlocked.add_slot(&new, &SeededEntropy::new(seed), now).unwrap();
    opened.store(bytes).await.unwrap();
}

/// Everything that can be read through `vfs`.
pub fn tree(vfs: &Vfs) -> LocalBoxFuture<'_, Tree> {
    Box::pin(async move {
        let mut tree = Tree::new();
        let mut waiting = vec![(String::new(), Ino::ROOT)];
        while let Some((path, ino)) = waiting.pop() {
            assert!(tree.len() < 1000, "there is no end to it");
            let mut seen = look(vfs, ino).await;
            let attr = vfs.getattr(ino).await;
            if attr.as_ref().is_ok_and(|attr| attr.kind == FileKind::Directory) {
                match vfs.readdir(ino, 0, 1000).await {
                    Err(error) => seen.listed = Err(error.errno()),
                    Ok(entries) => {
                        for entry in entries.iter().filter(|entry| entry.name != b"." && entry.name != b"..")
                        {
                            let name = String::from_utf8(entry.name.clone()).unwrap();
                            waiting.push((format!("{path}/{name}"), entry.ino));
                        }
                    }
                }
            }
            if attr.is_err() {
                seen.listed = Err(libc::EIO);
            }
            tree.insert(path, seen);
        }
        tree
    })
}

async fn look(vfs: &Vfs, ino: Ino) -> Seen {
    let errno = |error: VfsError| error.errno();
    let attr = vfs.getattr(ino).await.map_err(errno);
    let mut contents = Vec::new();
    match &attr {
        Err(errno) => contents.push(Err(*errno)),
        Ok(Attr { kind: FileKind::Symlink, .. }) => contents.push(vfs.readlink(ino).await.map_err(errno)),
        Ok(Attr { kind: FileKind::Regular, size, .. }) => {
            for at in (0..*size).step_by(BLOCK) {
                contents.push(vfs.read(Handle(0), ino, at, BLOCK).await.map_err(errno));
            }
        }
        Ok(_) => {}
    }
    let attr = attr.map(|a| {
        let times = (a.mtime, a.ctime, a.btime);
        format!("{} {:?} {:?}", a.ino, (a.kind, a.perm, a.nlink, a.uid, a.gid, a.rdev, a.size), times)
    });
    Seen { attr, contents, xattrs: xattrs(vfs, ino).await.map_err(errno), listed: Ok(()) }
}

async fn xattrs(vfs: &Vfs, ino: Ino) -> Result<Xattrs, VfsError> {
    let mut found = Vec::new();
    let names = vfs.list_xattr(ino).await?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        found.push((name.to_vec(), vfs.get_xattr(ino, name).await?));
    }
    Ok(found)
}
