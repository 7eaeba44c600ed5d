//! A reader sees one commit at a time, whatever it does while the writer commits and however its own looks for newer
//! commits end.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::collections::BTreeSet;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coffer::base::Ino;
use coffer::vfs::{Handle, RenameMode, Vfs, VfsError, VfsOptions};
use coffer::volume::OpenOptions;
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use in_memory::{CALLER, World};

const BLOCKS: usize = 3;
const BLOCK: usize = 65_536;
const PAIRS: usize = 40;
const GENERATIONS: u64 = 150;
const READERS: u64 = 3;

fn pair(number: usize, side: usize) -> Vec<u8> {
    format!("{number}-{side}").into_bytes()
}

/// What every commit leaves: `moved` in exactly one of two directories; two files under the two names of each pair; a
/// file called `kept`, each time another; one generation in all blocks of `whole`.
struct Writer {
    vfs: Arc<Vfs>,
    dirs: [Ino; 2],
    pairs: Ino,
    whole: Ino,
}

impl Writer {
    async fn begin(vfs: Arc<Vfs>) -> Self {
        let mkdir = async |name: &[u8]| vfs.mkdir(&CALLER, Ino::ROOT, name, 0o755).await.unwrap().ino;
        let create = async |dir, name: &[u8]| vfs.create(&CALLER, dir, name, 0o644, true).await.unwrap().ino;
        let (dirs, pairs) = ([mkdir(b"0").await, mkdir(b"1").await], mkdir(b"pairs").await);
        create(dirs[0], b"moved").await;
        for number in 0..PAIRS {
            create(pairs, &pair(number, 0)).await;
            create(pairs, &pair(number, 1)).await;
        }
        create(pairs, b"kept").await;
        let whole = create(Ino::ROOT, b"whole").await;
        let writer = Self { vfs: Arc::clone(&vfs), dirs, pairs, whole };
        writer.fill(0).await;
        writer
    }

    /// Makes generation `number` of everything, as one commit.
    async fn go_to(&self, number: u64) {
        let (from, to) = (self.dirs[(number as usize + 1) % 2], self.dirs[number as usize % 2]);
        self.vfs.rename(from, b"moved", to, b"moved", RenameMode::NoReplace).await.unwrap();
        for number in 0..PAIRS {
            let (one, other) = (pair(number, 0), pair(number, 1));
            self.vfs.rename(self.pairs, &one, self.pairs, &other, RenameMode::Exchange).await.unwrap();
        }
        let made = self.vfs.create(&CALLER, Ino::ROOT, b"next", 0o644, true).await.unwrap();
        self.vfs.rename(Ino::ROOT, b"next", self.pairs, b"kept", RenameMode::Replace).await.unwrap();
        self.vfs.forget(made.ino, 1);
        self.fill(number).await;
    }

    async fn fill(&self, number: u64) {
        let bytes: Vec<u8> = number.to_le_bytes().repeat(BLOCKS * BLOCK / 8);
        self.vfs.write(self.whole, 0, &bytes, true).await.unwrap();
        self.vfs.sync_all().await.unwrap();
    }
}

/// What a reader asserts.
struct Reader<'a> {
    vfs: &'a Vfs,
    writer: &'a Writer,
    rng: SmallRng,
    /// How often both halves of something were seen within one commit.
    judged: &'a AtomicU64,
}

impl Reader<'_> {
    async fn has(&self, dir: Ino, name: &[u8]) -> bool {
        match self.vfs.lookup(dir, name).await {
            Ok(attr) => {
                self.vfs.forget(attr.ino, 1);
                true
            }
            Err(VfsError::NoEntry) => false,
            Err(error) => panic!("{error}"),
        }
    }

    /// Looks for newer commits, and sometimes is killed meanwhile.
    async fn follow(&mut self) {
        let patience = self.rng.random_range(0..60);
        let vfs = self.vfs;
        tokio::select! {
            followed = vfs.follow() => drop(followed.unwrap()),
            () = async { for _ in 0..patience { tokio::task::yield_now().await } } => {}
        }
    }

    /// Of several operations within one commit.
    async fn check_moved(&self) {
        let before = self.vfs.status().commit;
        let found =
            [self.has(self.writer.dirs[0], b"moved").await, self.has(self.writer.dirs[1], b"moved").await];
        if self.vfs.status().commit == before {
            assert!(found[0] != found[1], "commit {before} has it in both directories or in none: {found:?}");
            self.judged.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Of one operation each.
    async fn check_each(&self) {
        assert!(self.has(self.writer.pairs, b"kept").await, "a name that is always there was not");
        let bytes = self.vfs.read(Handle(0), self.writer.whole, 0, BLOCKS * BLOCK).await.unwrap();
        assert_eq!(bytes.len(), BLOCKS * BLOCK);
        assert!(bytes.chunks(8).all(|word| word == &bytes[..8]), "one read shows two generations");
        let listed = self.vfs.readdir(self.writer.pairs, 0, 4096).await.unwrap();
        self.check_listing(listed.into_iter().map(|entry| (entry.name, entry.ino)));
        let listed = self.vfs.readdir_unreferred(self.writer.pairs, 0, 4096).await.unwrap();
        self.check_listing(listed.into_iter().map(|(entry, attr)| {
            assert_eq!(entry.ino, attr.ino);
            (entry.name, attr.ino)
        }));
    }

    fn check_listing(&self, listed: impl Iterator<Item = (Vec<u8>, Ino)>) {
        let listed: Vec<_> = listed.filter(|(name, _)| !matches!(name.as_slice(), b"." | b"..")).collect();
        let inodes: BTreeSet<Ino> = listed.iter().map(|(_, ino)| *ino).collect();
        assert_eq!(listed.len(), 2 * PAIRS + 1, "names in one listing");
        assert_eq!(inodes.len(), 2 * PAIRS + 1, "a file stands twice in one listing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn no_operation_and_no_two_operations_within_a_commit_see_parts_of_two() {
    let seed: u64 =
        std::env::var("COFFER_TEST_SEED").map_or_else(|_| rand::random(), |seed| seed.parse().unwrap());
    println!("COFFER_TEST_SEED={seed}");
    let world = World::new().await;
    let (writing, _) = world.open(OpenOptions::default()).await;
    let writer = Arc::new(Writer::begin(Arc::clone(&writing.vfs)).await);
    let vfs = VfsOptions { read_only: true, ..VfsOptions::default() };
    let (reading, _) = world.open(OpenOptions { vfs, ..OpenOptions::default() }).await;
    let (done, judged) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
    let readers: Vec<_> = (0..READERS)
        .map(|number| {
            let (vfs, writer) = (Arc::clone(&reading.vfs), Arc::clone(&writer));
            let (done, judged) = (Arc::clone(&done), Arc::clone(&judged));
            tokio::spawn(async move {
                let rng = SmallRng::seed_from_u64(seed + number);
                let mut reader = Reader { vfs: &vfs, writer: &writer, rng, judged: &judged };
                while !done.load(Ordering::Relaxed) {
                    if reader.rng.random_bool(0.5) {
                        reader.follow().await;
                    }
                    reader.check_moved().await;
                    reader.check_each().await;
                }
            })
        })
        .collect();
    for number in 1..=GENERATIONS {
        writer.go_to(number).await;
    }
    done.store(true, Ordering::Relaxed);
    for reader in readers {
        reader.await.unwrap();
    }
    let judged = judged.load(Ordering::Relaxed);
    println!("{judged} times two operations within one commit");
    assert!(judged > 20, "{judged}");
    assert!(reading.vfs.follow().await.is_ok());
    assert_eq!(reading.vfs.status().commit, writing.vfs.status().commit);
    reading.close().await.unwrap();
    writing.close().await.unwrap();
}
