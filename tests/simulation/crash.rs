//! Crashes that no process of the seed has suffered: what a mount finds where the bucket stood still between any two
//! changes.
//!
//! A process can only leave the bucket as it is between two changes; so a picture before each change, with what had
//! been promised by then, is every crash that this history could have had.

use std::sync::Arc;

use coffer::base::{Clock, SeededEntropy};
use coffer::maint::{self, CheckOptions, Finding, Problem, Report, Severity};
use coffer::store::Bucket;
use coffer::store::fault::{FaultPlan, FaultStore};
use coffer::vfs::VfsOptions;
use coffer::volume::{self, OpenOptions};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::clock::SimClock;
use crate::disk::{Disk, Picture};
use crate::finale;
use crate::history::{History, differences};
use crate::recount;
use crate::tree::Tree;
use crate::weather;
use crate::world::{factors, runtime};

/// What a crash does not leave. Segments that no record knows may be left even by a repair, while they hold blocks of
/// files that were removed: it does not know by whom.
fn wrong(report: &Report) -> Vec<&Finding> {
    let is_left = |problem: &Problem| matches!(problem, Problem::Leftover { .. });
    let is_wrong = |found: &&Finding| found.problem.severity() != Severity::Note && !is_left(&found.problem);
    report.findings.iter().filter(is_wrong).collect()
}

/// A bucket of its own, at the moment of a picture.
struct Fork {
    disk: Arc<Disk>,
    clock: Arc<SimClock>,
    entropy: Arc<SeededEntropy>,
}

impl Fork {
    fn of(picture: &Picture, seed: u64) -> Self {
        let clock = Arc::new(SimClock::default());
        clock.pass(picture.at);
        clock.begin_life();
        let disk = Arc::new(Disk::new(picture.objects.clone(), Arc::clone(&clock), None));
        Self { disk, clock, entropy: Arc::new(SeededEntropy::new(seed)) }
    }

    fn bucket(&self) -> Bucket {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        Bucket::from_store(Arc::new(FaultStore::new(self.disk.clone(), FaultPlan::default(), clock)))
    }

    fn options(&self, vfs: VfsOptions) -> OpenOptions {
        let (clock, entropy) = (Arc::clone(&self.clock) as _, Arc::clone(&self.entropy) as _);
        let (cache_bytes, table_cache_bytes) = (1 << 20, 1 << 20);
        OpenOptions {
            takeover: true,
            cache_bytes,
            table_cache_bytes,
            vfs,
            clock,
            entropy,
            ..OpenOptions::default()
        }
    }

    /// `coffer check` finds nothing but what a crash leaves.
    async fn ask_the_checker(&self, reads_data: bool) {
        let examined =
            volume::examine(self.bucket(), &factors(), self.options(VfsOptions::default())).await.unwrap();
        let options = CheckOptions { read_data: reads_data, ..CheckOptions::default() };
        let report = maint::check(&examined, &options, &|_| ()).await.unwrap();
        examined.close().await;
        let found = wrong(&report);
        assert!(found.is_empty(), "a check after the crash: {found:#?}");
    }

    async fn recount(&self) {
        let (entropy, clock) = (Arc::clone(&self.entropy) as _, Arc::clone(&self.clock) as _);
        let records = recount::records(&self.bucket(), &factors(), &entropy, &clock).await;
        let segments = recount::segments(self.disk.objects.lock().keys());
        recount::check(&records, &segments, true);
    }
}

/// Mounts what a crash at the moment of the picture would have left, and compares it with what `history` allows.
/// Gives the first state that it may be, which is not before `earliest`.
pub fn after(picture: &Picture, history: &History, earliest: usize, seed: u64) -> usize {
    let seed = seed.wrapping_mul(0x9E37_79B9_7F4A_7C15).wrapping_add(picture.number);
    let mut rng = SmallRng::seed_from_u64(seed);
    runtime().block_on(async {
        let fork = Fork::of(picture, seed);
        if rng.random_bool(0.15) {
            fork.ask_the_checker(rng.random_bool(0.2)).await;
        }
        if rng.random_bool(0.05) {
            let repaired = finale::repair(&fork.bucket(), fork.options(VfsOptions::default())).await;
            let left = wrong(&repaired.left);
            assert!(left.is_empty(), "a repair after the crash leaves {left:#?}");
        }
        // Every other one is only looked at: that costs half as much, and shows the same tree.
        let read_only = rng.random_bool(0.5);
        let vfs = VfsOptions { read_only, ..weather::options(&mut rng) };
        let opened = volume::open(fork.bucket(), &factors(), fork.options(vfs)).await;
        let opened = opened.unwrap_or_else(|error| panic!("after a crash nothing can be opened: {error:?}"));
        let (commit, told) = (opened.vfs.head().0 + u64::from(read_only), picture.committed);
        assert!(commit > told, "commit {told} was told to be durable; after a crash the next is {commit}");
        let found = Tree::read(&opened.vfs).await.unwrap();
        let at = history.find_after_crash(&found, &picture.promise, earliest);
        if !read_only && rng.random_bool(0.2) {
            opened.close().await.unwrap();
            fork.recount().await;
            let options = fork.options(VfsOptions { read_only: true, ..VfsOptions::default() });
            let again = volume::open(fork.bucket(), &factors(), options).await.unwrap();
            let again = Tree::read(&again.vfs).await.unwrap();
            assert!(again == found, "opened again it differs: {:#?}", differences(&found, &again));
        }
        at
    })
}
