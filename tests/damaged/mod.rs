//! A volume with something of every kind in it, and ways to damage copies of it.

#![allow(dead_code, unreachable_pub)]

pub mod mended;
mod odd;

pub use odd::OddStore;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer::base::{FileKind, Ino, OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::maint::{self, CheckOptions, Finding, Outcome, RepairOptions, Report, Severity};
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::meta::{Body, Commit, Inode, Key, Record, Segment, Superblock, decode, encode};
use coffer::store::Bucket;
use coffer::vault::Vault;
use coffer::vfs::{Caller, CleanOptions, Handle, Vfs, VfsOptions, XattrMode};
use coffer::volume::{self, NewVolumeSpec, OpenOptions, Opened, Seized, TrustOptions};
use futures::TryStreamExt;
use futures::future::LocalBoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload};
use rand::SeedableRng;
use rand::rngs::SmallRng;

pub const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };
const BLOCK: usize = 65_536;
const MIB: u64 = 1024 * 1024;

/// What a path leads to: kind, contents or target, attributes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub ino: Ino,
    pub kind: FileKind,
    pub size: u64,
    pub contents: Vec<u8>,
    pub xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// All paths of a volume, and what could be read of each.
pub type Tree = BTreeMap<Vec<u8>, std::result::Result<Seen, String>>;

/// A bucket with a volume in it.
pub struct World(pub Arc<InMemory>);

pub fn factors() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of the tests of damage".to_vec()))]
}

fn pattern(seed: u8, bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| seed.wrapping_add((at % 251) as u8).wrapping_add((at / BLOCK) as u8)).collect()
}

impl World {
    /// A volume with something of every kind in it.
    pub async fn new() -> Self {
        let world = Self(Arc::new(InMemory::new()));
        let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let clock = Arc::new(SystemClock::default());
        volume::create(&world.bucket(), &spec, &factors(), Arc::new(OsEntropy), clock).await.unwrap();
        world
    }

    pub async fn with_everything() -> Self {
        let world = Self::new().await;
        let opened = world.mount(false).await;
        let vfs = &opened.vfs;
        let root = Ino::ROOT;
        put(vfs, root, b"empty", &[]).await;
        put(vfs, root, b"tiny", &pattern(1, 600)).await;
        let run = put(vfs, root, b"run", &pattern(2, 3 * BLOCK + 5000)).await;
        sync(vfs).await;
        let dir = vfs.mkdir(&CALLER, root, b"dir", 0o755).await.unwrap().ino;
        let sub = vfs.mkdir(&CALLER, dir, b"sub", 0o700).await.unwrap().ino;
        put(vfs, sub, b"deep", &pattern(3, 5000)).await;
        put(vfs, sub, b"tinier", &pattern(9, 77)).await;
        vfs.link(run, dir, b"link").await.unwrap();
        vfs.symlink(&CALLER, root, b"soft", b"dir/sub/deep").await.unwrap();
        vfs.mknod(&CALLER, root, b"pipe", FileKind::Fifo, 0o600, 0).await.unwrap();
        vfs.set_xattr(run, b"user.note", b"a note", XattrMode::Set).await.unwrap();
        vfs.set_xattr(sub, b"user.other", b"another", XattrMode::Set).await.unwrap();
        sync(vfs).await;
        let pages = put(vfs, root, b"pages", &pattern(4, 2 * BLOCK)).await;
        vfs.write(pages, 70 * MIB, &pattern(5, BLOCK + 9), true).await.unwrap();
        vfs.write(pages, 200 * MIB, &pattern(6, 300), true).await.unwrap();
        sync(vfs).await;
        let clone = put(vfs, root, b"clone", &[]).await;
        let copied = vfs.copy_file_range(run, 0, clone, 0, 2 * BLOCK as u64).await.unwrap();
        assert_eq!(copied, 2 * BLOCK as u64);
        for number in 0..5u8 {
            put(vfs, dir, &[b'f', b'0' + number], &pattern(20 + number, 3000)).await;
        }
        sync(vfs).await;
        put(vfs, sub, b"late", &pattern(7, 100_000)).await;
        opened.close().await.unwrap();
        world
    }

    pub fn bucket(&self) -> Bucket {
        Bucket::from_store(Arc::clone(&self.0) as Arc<dyn ObjectStore>)
    }

    /// A copy that can be damaged by itself.
    pub async fn fork(&self) -> Self {
        Self(Arc::new(self.0.fork()))
    }

    pub fn mount<'a>(&'a self, read_only: bool) -> LocalBoxFuture<'a, Opened> {
        Box::pin(async move { self.try_mount(read_only).await.unwrap() })
    }

    pub async fn try_mount(&self, read_only: bool) -> std::result::Result<Opened, volume::VolumeError> {
        // Dead segments go at once, so that a check meets their absence.
        let clean = CleanOptions { grace: Duration::ZERO, ..CleanOptions::default() };
        let vfs = VfsOptions { read_only, clean, ..VfsOptions::default() };
        // A commit whose record is damaged is for an admin to go on from.
        let trust = TrustOptions { accept_rollback: true, ..TrustOptions::default() };
        let options = OpenOptions { takeover: true, vfs, trust, ..OpenOptions::default() };
        Box::pin(volume::open(self.bucket(), &factors(), options)).await
    }

    pub async fn vault(&self) -> Vault {
        let unlocked = volume::unlock(&self.bucket(), &factors()).await.unwrap();
        Vault::new(self.bucket(), Arc::new(unlocked.ring), Arc::new(OsEntropy))
    }

    pub async fn engine(&self, mode: EngineMode) -> Engine {
        let vault = self.vault().await;
        let clock = Arc::new(SystemClock::default());
        let opening = Engine::open(vault.meta_store(1 << 20), mode, EngineOptions::default(), clock);
        Box::pin(opening).await.unwrap()
    }

    /// All records as the last commit left them.
    pub async fn records(&self) -> BTreeMap<Key, Record> {
        let engine = self.engine(EngineMode::Reader).await;
        let rows = engine.scan(vec![b'A'], vec![b'Z'], usize::MAX).await.unwrap();
        engine.close().await.unwrap();
        let decoded = rows.into_iter().map(|(key, value)| {
            let key = Key::decode(&key).unwrap();
            (key, decode(&key, &value).unwrap())
        });
        decoded.collect()
    }

    /// Writes rows as they are, whatever they say.
    pub fn write_raw<'a>(&'a self, rows: Vec<(Vec<u8>, Option<Vec<u8>>)>) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            let engine = self.engine(EngineMode::Writer).await;
            engine.write_durable(rows).await.unwrap();
            engine.close().await.unwrap();
        })
    }

    pub fn put_record<'a>(&'a self, key: Key, record: Option<&'a Record>) -> LocalBoxFuture<'a, ()> {
        Box::pin(async move {
            let value = record.map(|record| encode(record).unwrap());
            self.write_raw(vec![(key.encode(), value)]).await;
        })
    }

    pub async fn objects(&self) -> Vec<(String, u64)> {
        let listed: Vec<_> = self.0.list(None).try_collect().await.unwrap();
        let mut paths: Vec<_> = listed.iter().map(|meta| (meta.location.to_string(), meta.size)).collect();
        paths.sort();
        paths
    }

    pub async fn get(&self, object: &str) -> Bytes {
        self.0.get(&Path::from(object)).await.unwrap().bytes().await.unwrap()
    }

    pub async fn put(&self, object: &str, bytes: impl Into<Bytes>) {
        self.0.put(&Path::from(object), PutPayload::from_bytes(bytes.into())).await.unwrap();
    }

    pub async fn delete(&self, object: &str) {
        self.0.delete(&Path::from(object)).await.unwrap();
    }

    pub fn check<'a>(&'a self, read_data: bool) -> LocalBoxFuture<'a, Report> {
        Box::pin(async move {
            let examined =
                Box::pin(volume::examine(self.bucket(), &factors(), OpenOptions::default())).await.unwrap();
            let options = CheckOptions { read_data, ..CheckOptions::default() };
            let report = Box::pin(maint::check(&examined, &options, &|_| ())).await.unwrap();
            examined.close().await;
            report
        })
    }

    pub async fn seize(&self) -> std::result::Result<Seized, volume::VolumeError> {
        self.seize_with(&factors(), OpenOptions::default()).await
    }

    pub async fn seize_with(
        &self,
        factors: &[Factor],
        options: OpenOptions,
    ) -> std::result::Result<Seized, volume::VolumeError> {
        let options = OpenOptions { takeover: true, ..options };
        Box::pin(volume::seize(self.bucket(), factors, options)).await
    }

    pub fn repair<'a>(&'a self, salvage: bool) -> LocalBoxFuture<'a, Outcome> {
        Box::pin(async move {
            let mut seized = self.seize().await.unwrap();
            let repaired =
                Box::pin(maint::repair(&mut seized, &repair_options(salvage), None, &|_| ())).await.unwrap();
            seized.close().await.unwrap();
            repaired
        })
    }

    /// A repair that is cut off after so many writes; whether it was. What it wrote until then stays.
    pub async fn repair_until(&self, puts: usize) -> bool {
        let store = Arc::new(OddStore::over(self, puts, None));
        let bucket = Bucket::from_store(Arc::clone(&store) as Arc<dyn ObjectStore>);
        let work = async {
            let options = OpenOptions { takeover: true, ..OpenOptions::default() };
            let mut seized = Box::pin(volume::seize(bucket, &factors(), options)).await.unwrap();
            Box::pin(maint::repair(&mut seized, &repair_options(false), None, &|_| ())).await.unwrap();
            seized.close().await.unwrap();
        };
        tokio::select! {
            () = store.cut.notified() => true,
            () = Box::pin(work) => false,
        }
    }

    /// Everything that can be read through a mount; `None` if there is none to be had.
    pub fn tree<'a>(&'a self) -> LocalBoxFuture<'a, Option<Tree>> {
        Box::pin(async move {
            let opened = self.try_mount(true).await.ok()?;
            let mut tree = Tree::new();
            let mut waiting = vec![(Vec::new(), Ino::ROOT)];
            let mut seen = std::collections::BTreeSet::new();
            while let Some((path, dir)) = waiting.pop() {
                // A ring of directories would go on for ever.
                if !seen.insert(dir) {
                    continue;
                }
                let mut cookie = 0;
                loop {
                    let listed = match opened.vfs.readdir(dir, cookie, 1000).await {
                        Ok(listed) => listed,
                        Err(error) => {
                            tree.insert([&path[..], b"/?"].concat(), Err(error.to_string()));
                            break;
                        }
                    };
                    let Some(last) = listed.last() else { break };
                    cookie = last.next;
                    for entry in listed.iter().filter(|entry| entry.name != b"." && entry.name != b"..") {
                        let below = [&path[..], b"/", &entry.name].concat();
                        let read = look(&opened.vfs, entry.ino).await;
                        if read.as_ref().is_ok_and(|seen| seen.kind == FileKind::Directory) {
                            waiting.push((below.clone(), entry.ino));
                        }
                        tree.insert(below, read);
                    }
                }
            }
            opened.close().await.unwrap();
            Some(tree)
        })
    }
}

pub fn sync(vfs: &Vfs) -> LocalBoxFuture<'_, ()> {
    Box::pin(async move { vfs.sync_all().await.unwrap() })
}

/// Boxed, because many of these side by side make a large future.
pub fn put<'a>(vfs: &'a Vfs, dir: Ino, name: &'a [u8], bytes: &'a [u8]) -> LocalBoxFuture<'a, Ino> {
    Box::pin(async move {
        let file = vfs.create(&CALLER, dir, name, 0o644, true).await.unwrap();
        if !bytes.is_empty() {
            vfs.write(file.ino, 0, bytes, true).await.unwrap();
        }
        file.ino
    })
}

async fn look(vfs: &Vfs, ino: Ino) -> std::result::Result<Seen, String> {
    let fail = |error: coffer::vfs::VfsError| error.to_string();
    let attr = vfs.getattr(ino).await.map_err(fail)?;
    let contents = match attr.kind {
        FileKind::Regular if attr.size < 400 * MIB => {
            // Holes of sparse files are skipped, so that tests stay quick.
            let mut contents = Vec::new();
            let mut at = 0;
            while at < attr.size {
                let step = if attr.size > 16 * MIB { 64 * MIB } else { MIB };
                let part = vfs.read(Handle(0), ino, at, (3 * BLOCK).max(MIB as usize)).await.map_err(fail)?;
                contents.extend_from_slice(&part);
                at += step;
            }
            if attr.size > 16 * MIB {
                contents.extend(vfs.read(Handle(0), ino, 70 * MIB, 2 * BLOCK).await.map_err(fail)?);
                contents.extend(vfs.read(Handle(0), ino, 200 * MIB, 1000).await.map_err(fail)?);
            }
            contents
        }
        FileKind::Symlink => vfs.readlink(ino).await.map_err(fail)?,
        _ => Vec::new(),
    };
    let mut xattrs = Vec::new();
    let names = vfs.list_xattr(ino).await.map_err(fail)?;
    for name in names.split(|byte| *byte == 0).filter(|name| !name.is_empty()) {
        xattrs.push((name.to_vec(), vfs.get_xattr(ino, name).await.map_err(fail)?));
    }
    Ok(Seen { ino, kind: attr.kind, size: attr.size, contents, xattrs })
}

pub fn repair_options(salvage: bool) -> RepairOptions {
    RepairOptions { salvage, accepts: false, findings_max: 100_000, clock: Arc::new(SystemClock::default()) }
}

/// What is more than a note.
pub fn serious(report: &Report) -> Vec<&Finding> {
    report.findings.iter().filter(|found| found.problem.severity() > Severity::Note).collect()
}

/// The findings as sentences, to be shown when a test fails.
pub fn told(report: &Report) -> String {
    report
        .findings
        .iter()
        .map(|found| format!("\n  {:?} {}", found.problem.severity(), found.sentence()))
        .collect()
}

/// The record with each of its numbers off by one, where that cannot be right.
pub fn bumps(record: &Record) -> Vec<(&'static str, Record)> {
    let mut all: Vec<(&'static str, Record)> = Vec::new();
    match record {
        Record::Inode(inode) => {
            let mut add = |what, change: &dyn Fn(&mut Inode)| {
                let mut inode = (**inode).clone();
                change(&mut inode);
                all.push((what, Record::Inode(Arc::new(inode))));
            };
            add("one link more", &|inode| inode.nlink += 1);
            add("one link less", &|inode| inode.nlink -= 1);
            add("one attribute more", &|inode| inode.xattrs += 1);
            add("one byte stored more", &|inode| inode.allocated += 1);
            add("one entry more", &|inode| inode.entries += 1);
            add("another parent", &|inode| inode.parent.0 += 1);
            add("another kind", &|inode| {
                let is_fifo = inode.kind == FileKind::Fifo;
                inode.kind = if is_fifo { FileKind::Socket } else { FileKind::Fifo };
            });
            if inode.entries > 0 {
                add("one entry less", &|inode| inode.entries -= 1);
            }
            if inode.size > BLOCK as u64 {
                add("cut by blocks", &|inode| inode.size -= BLOCK as u64);
            }
            match inode.body {
                Body::Run(_) => add("a run a byte later", &|inode| {
                    if let Body::Run(run) = &mut inode.body {
                        run.pos = u32::MAX / 2;
                    }
                }),
                Body::Inline | Body::Pages => add("no contents", &|inode| inode.body = Body::Empty),
                _ => {}
            }
        }
        Record::Entry(entry) => {
            let mut other = (**entry).clone();
            other.ino.0 += 1;
            all.push(("another inode", Record::Entry(Arc::new(other))));
            let mut other = (**entry).clone();
            other.kind = if other.kind == FileKind::Socket { FileKind::Regular } else { FileKind::Socket };
            all.push(("another kind", Record::Entry(Arc::new(other))));
            let mut other = (**entry).clone();
            other.name[0] ^= 1;
            all.push(("another name", Record::Entry(Arc::new(other))));
        }
        Record::Extents(page) => {
            let mut other = (**page).clone();
            match other.inline.first_mut() {
                Some(block) => *block += 1,
                None => other.inline.push(5),
            }
            all.push(("another block", Record::Extents(Arc::new(other))));
        }
        Record::Segment(segment) => {
            all.push((
                "one byte more alive",
                Record::Segment(Segment { live: segment.live + 1, ..*segment }),
            ));
            all.push((
                "one byte less alive",
                Record::Segment(Segment { live: segment.live - 1, ..*segment }),
            ));
            all.push(("one byte longer", Record::Segment(Segment { len: segment.len + 1, ..*segment })));
            all.push(("one byte shorter", Record::Segment(Segment { len: segment.len - 1, ..*segment })));
            all.push(("born later", Record::Segment(Segment { born: 1 << 40, ..*segment })));
            let mut other = *segment;
            other.seal.salt[3] ^= 1;
            all.push(("another salt", Record::Segment(other)));
        }
        Record::Super(superblock) => {
            let mut add = |what, change: &dyn Fn(&mut Superblock)| {
                let mut superblock = (**superblock).clone();
                change(&mut superblock);
                all.push((what, Record::Super(Arc::new(superblock))));
            };
            add("one inode more", &|superblock| superblock.files += 1);
            add("one byte less", &|superblock| superblock.bytes -= 1);
            add("an earlier next inode", &|superblock| superblock.next_ino -= 1);
            add("a later commit", &|superblock| superblock.commit += 1);
            add("an earlier commit", &|superblock| superblock.commit -= 1);
            add("another head", &|superblock| superblock.head[0] ^= 1);
        }
        Record::Commit(commit) => {
            let mut add = |what, change: &dyn Fn(&mut Commit)| {
                let mut commit = (**commit).clone();
                change(&mut commit);
                all.push((what, Record::Commit(Arc::new(commit))));
            };
            add("another hash", &|commit| commit.hash[0] ^= 1);
            add("another device", &|commit| commit.device[0] ^= 1);
            add("another time", &|commit| commit.time.nanos ^= 1);
            add("another counter", &|commit| commit.counter ^= 1);
        }
        Record::Xattr(xattr) => {
            let mut other = (**xattr).clone();
            other.name[0] ^= 1;
            all.push(("another name", Record::Xattr(Arc::new(other))));
        }
        Record::Inline(bytes) => all.push(("one byte less", Record::Inline(bytes.slice(1..)))),
        Record::History(history) => {
            let mut other = (**history).clone();
            other.before[0] ^= 1;
            all.push(("another beginning", Record::History(Arc::new(other))));
        }
        // Nothing else depends on these, or they say nothing that could be wrong.
        Record::Acceptance(_) | Record::LostLog | Record::Machine(_) => {}
        Record::Garbage(_) | Record::Leftover(_) | Record::Orphan | Record::Reference => {}
    }
    all
}

/// Dice whose seed is printed; another one is taken from the environment.
pub fn rng(default: u64) -> SmallRng {
    let seed = std::env::var("COFFER_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(default);
    println!("COFFER_TEST_SEED={seed}");
    SmallRng::seed_from_u64(seed)
}

/// The kind of a record.
pub fn letter(key: &Key) -> char {
    char::from(key.encode()[0])
}
