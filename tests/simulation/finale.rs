//! The end of a seed, in good weather: everything is looked at, by everybody who can.

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Clock, Ino};
use coffer::maint::{self, CheckOptions, RepairOptions, Severity};
use coffer::meta::{Key, Record};
use coffer::store::Bucket;
use coffer::store::fault::FaultPlan;
use coffer::vfs::{Vfs, VfsError};
use coffer::volume::{self, OpenOptions};

use crate::actor::{BLOCK, CALLER};
use crate::recount;
use crate::tree::Tree;
use crate::world::{QUOTA_BYTES, World, factors, runtime};

impl World {
    /// The tree is right, several times the same; every number in the records counts what is there; checking finds
    /// nothing, repairing changes nothing, and the quota lets in what it must and no more.
    pub fn look_at_everything(&mut self) {
        self.faults.set_plan(FaultPlan::default());
        runtime().block_on(async {
            self.clock.begin_life();
            for _ in 0..2 {
                let process = self.process(false);
                let opened = self.open(&process).await;
                // Long enough for what is late to arrive, and for what is left over to be swept.
                tokio::time::sleep(Duration::from_secs(90)).await;
                self.close(opened).await;
            }
            let bucket = Bucket::from_store(Arc::new(self.faults.clone()));
            let stored = self.recount(&bucket).await;
            self.ask_the_checker(bucket.clone()).await;
            if self.processes.is_multiple_of(3) {
                self.repair_what_is_whole(&bucket).await;
            }
            if self.is_bounded {
                self.fill_up(QUOTA_BYTES.saturating_sub(stored)).await;
            }
            self.clock.end_life();
        });
        self.suffer_crashes();
        let rewritten = self.disk.rewritten.lock();
        assert!(rewritten.is_empty(), "objects were written twice, with other bytes: {rewritten:?}");
    }

    /// Gives the bytes that the volume stores.
    async fn recount(&self, bucket: &Bucket) -> u64 {
        let clock: Arc<dyn Clock> = Arc::clone(&self.clock) as _;
        let records = recount::records(bucket, &factors(), &self.entropy, &clock).await;
        let segments = recount::segments(self.disk.objects.lock().keys());
        recount::check(&records, &segments, self.may_litter);
        match &records[&Key::Super] {
            Record::Super(superblock) => superblock.bytes,
            _ => unreachable!(),
        }
    }

    fn options(&self) -> OpenOptions {
        let (clock, entropy) = (Arc::clone(&self.clock) as _, Arc::clone(&self.entropy));
        OpenOptions { clock, entropy, ..OpenOptions::default() }
    }

    /// `coffer check` has an opinion of its own.
    async fn ask_the_checker(&self, bucket: Bucket) {
        let examined = volume::examine(bucket, &factors(), self.options()).await.unwrap();
        let options = CheckOptions { read_data: self.processes.is_multiple_of(4), ..CheckOptions::default() };
        let report = maint::check(&examined, &options, &|_| ()).await.unwrap();
        examined.close().await;
        let is_allowed =
            |severity| severity == Severity::Note || self.may_litter && severity == Severity::Harmless;
        let found: Vec<_> =
            report.findings.iter().filter(|found| !is_allowed(found.problem.severity())).collect();
        assert!(found.is_empty(), "{found:#?}");
    }

    /// A repair of what is whole makes no commit, and the tree stays as it is.
    async fn repair_what_is_whole(&mut self, bucket: &Bucket) {
        let repaired = repair(bucket, self.options()).await;
        let (deeds, left) = (&repaired.deeds, &repaired.left.findings);
        assert!(self.may_litter || deeds.is_empty(), "a repair of what is whole: {deeds:#?}");
        assert!(self.may_litter || repaired.left.is_clean(), "{left:#?}");
        let process = self.process(false);
        let opened = self.open(&process).await;
        self.close(opened).await;
    }

    /// `free` bytes more are taken, and not one beyond.
    async fn fill_up(&mut self, free: u64) {
        let process = self.process(false);
        let opened = self.open(&process).await;
        let filled = fill(&opened.vfs, free).await;
        let found = Tree::read(&opened.vfs).await.unwrap();
        self.follow_on(found);
        assert_eq!(filled, Ok(()), "{free} bytes must fit, and no more");
        self.close(opened).await;
    }
}

async fn fill(vfs: &Vfs, free: u64) -> Result<(), String> {
    let ino = vfs.create(&CALLER, Ino::ROOT, b"filling", 0o644, true).await.map_err(|e| e.to_string())?.ino;
    let mut at = 0;
    while at < free {
        let len = BLOCK.min(free - at);
        vfs.write(ino, at, &vec![7; len as usize], true).await.map_err(|e| format!("at {at}: {e}"))?;
        at += len;
    }
    match vfs.write(ino, at, &[7], true).await {
        Err(VfsError::NoSpace) => Ok(()),
        other => Err(format!("one byte too many: {other:?}")),
    }
}

/// Repairs the volume in `bucket`, which nobody has mounted.
pub async fn repair(bucket: &Bucket, options: OpenOptions) -> maint::Outcome {
    let clock = Arc::clone(&options.clock);
    let mut seized = volume::seize(bucket.clone(), &factors(), options).await.unwrap();
    let how = RepairOptions {
        salvage: false,
        accepts: false,
        findings_max: CheckOptions::default().findings_max,
        clock,
    };
    let outcome = Box::pin(maint::repair(&mut seized, &how, None, &|_| ())).await.unwrap();
    seized.close().await.unwrap();
    outcome
}
