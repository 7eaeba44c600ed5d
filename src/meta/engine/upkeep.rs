//! Keeps the database small while it is used: flushes, merges tables, removes garbage. Idle means silent.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::ObjectStore;
use slatedb::config::{FlushOptions, FlushType};
use slatedb::{CompactorBuilder, Db, GarbageCollectorBuilder, VersionedManifest};
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio::time::{Instant, sleep, sleep_until};

use super::clock::EngineClock;
use super::error::refused;
use super::paced::{Pace, Paced};
use super::renew::Renewal;
use super::schedulers::Idle;
use super::seeds::Seeds;
use super::settings::Thoroughness;
use super::spoiled::{Spoiled, forget_merges};
use super::store_day::StoreDay;
use super::{DATABASE, garbage, settings};

/// Commits after which the records in memory become a table, so that opening after a crash has at most
/// this many logs to read.
const COMMITS_PER_TABLE: u64 = 256;
/// Garbage of earlier sessions is removed this long after opening.
pub(super) const FIRST_COLLECTION: Duration = Duration::from_secs(120);
/// By one session in [`SESSIONS_PER_COLLECTION`] already after this: all may be killed before the other time is up.
const EARLY_COLLECTION: Duration = Duration::from_secs(10);
/// The last collection after some work comes this long after its manifests have aged.
const LAST_COLLECTION: Duration = Duration::from_secs(60);
/// While a merge runs it is looked at this often.
const MERGE_CHECK: Duration = Duration::from_secs(1);
/// While other merges are being refused it is looked this often whether they are.
const FENCE_CHECK: Duration = Duration::from_millis(100);
/// Closing waits this long for a merge that makes room for the last table.
const LAST_MERGE: Duration = Duration::from_secs(60);
/// Merging everything is given up after this long, and begun again by the next quiet time.
const LONG_MERGE: Duration = Duration::from_secs(10 * 60);
/// Tables that may be kept twice for good.
const WASTE_BYTES_MIN: u64 = 1024 * 1024;
/// Sessions may be too short for a collection: one in this many removes garbage soon after opening, and when it closes.
const SESSIONS_PER_COLLECTION: u64 = 8;

/// The task that looks after one writer's database.
pub(super) struct Upkeep {
    task: parking_lot::Mutex<Option<JoinHandle<()>>>,
    shared: Arc<Shared>,
}

struct Shared {
    db: Arc<Db>,
    store: Arc<dyn ObjectStore>,
    /// The same, for what nobody waits for.
    paced: Arc<dyn ObjectStore>,
    seeds: Seeds,
    /// For new names: may have been raised above the time of day.
    clock: Arc<EngineClock>,
    /// For ages, which are compared with the store's own times.
    plain_clock: Arc<EngineClock>,
    /// By those times.
    day: Arc<StoreDay>,
    /// Of the newest level.
    table_bytes: usize,
    /// Commits that are in no table, those of sessions that crashed among them.
    commits: Arc<AtomicU64>,
    /// One compactor at a time.
    merging: tokio::sync::Mutex<()>,
    /// Tables that are not merged, because they cannot be read.
    spoiled: Spoiled,
    /// Whether nobody else's merge can be added to the database any more.
    is_merger: AtomicBool,
    wake: Notify,
    closing: watch::Sender<bool>,
}

impl Upkeep {
    pub(super) fn start(
        db: Arc<Db>,
        store: Arc<dyn ObjectStore>,
        seeds: Seeds,
        (clock, plain_clock): (Arc<EngineClock>, Arc<EngineClock>),
        day: Arc<StoreDay>,
        table_bytes: usize,
        pace: Pace,
    ) -> Self {
        let closing = watch::Sender::new(false);
        let read_back = db.status().durable_seq.saturating_sub(db.manifest().last_l0_seq());
        let commits = Arc::new(AtomicU64::new(read_back));
        let (looked_at, waiting, is_closing) = (Arc::clone(&db), Arc::clone(&commits), closing.subscribe());
        // What comes first lets nothing else be done: neither writing a table of commits, nor merging new tables, for which
        // writers wait when there are many.
        let is_urgent = move || {
            *is_closing.borrow()
                || waiting.load(Ordering::Relaxed) >= COMMITS_PER_TABLE
                || has_many_new_tables(&looked_at)
        };
        let paced: Arc<dyn ObjectStore> = Arc::new(Paced::new(Arc::clone(&store), pace, is_urgent));
        let shared = Arc::new(Shared {
            db,
            store,
            paced,
            seeds,
            clock,
            plain_clock,
            day,
            table_bytes,
            commits,
            merging: tokio::sync::Mutex::new(()),
            spoiled: Spoiled::default(),
            is_merger: AtomicBool::new(false),
            wake: Notify::new(),
            closing,
        });
        let task = tokio::spawn(shared.clone().run());
        Self { task: parking_lot::Mutex::new(Some(task)), shared }
    }

    /// Notes one commit.
    pub(super) fn committed(&self) {
        self.shared.commits.fetch_add(1, Ordering::Relaxed);
        self.shared.wake.notify_one();
    }

    /// Ends the task; a merge under way is left for the next session.
    pub(super) async fn stop(&self) {
        self.shared.closing.send_replace(true);
        let task = self.task.lock().take();
        if let Some(task) = task
            && let Err(error) = task.await
        {
            tracing::warn!(%error, "the upkeep of the records ended badly");
        }
    }

    /// Makes sure that no other session's merge adds anything any more.
    pub(super) async fn refuse_other_merges(&self) -> Result<(), slatedb::Error> {
        let is_merger = self.shared.refuse_other_merges().await;
        // What has been added before shows here.
        self.shared.db.refresh_manifest().await?;
        if is_merger { Ok(()) } else { Err(refused("other merges cannot be refused at the moment", None)) }
    }

    /// Merges everything and removes what is garbage by now.
    pub(super) async fn tidy(&self) {
        let shared = &self.shared;
        shared.commits.store(0, Ordering::Relaxed);
        shared.flush().await;
        if shared.is_mergeable(Thoroughness::Everything) {
            shared.merge(Thoroughness::Everything, &shared.store, sleep(LONG_MERGE)).await;
        }
        shared.collect(&shared.store).await;
    }

    /// Writes everything anew that is in the database by now.
    pub(super) async fn renew(&self) -> Result<(), slatedb::Error> {
        let shared = &self.shared;
        let _merging = shared.merging.lock().await;
        shared.commits.store(0, Ordering::Relaxed);
        let options = FlushOptions { flush_type: FlushType::MemTable };
        shared.db.flush_with_options(options).await?;
        let renewal = Renewal {
            db: &shared.db,
            store: &shared.store,
            clock: shared.clock.clone(),
            seeds: &shared.seeds,
            table_bytes: shared.table_bytes,
        };
        renewal.run().await
    }

    /// Whether there is room for one more table, or will be.
    pub(super) fn takes_tables(&self) -> bool {
        let shared = &self.shared;
        shared.newest_tables() + 1 < settings::NEWEST_TABLES_MAX
            || !shared.spoiled.is_newest(&shared.db.manifest())
    }

    /// What must be done before the last flush: room for one more table, and now and then the garbage.
    pub(super) async fn before_close(&self) {
        let shared = &self.shared;
        if shared.newest_tables() + 1 >= settings::NEWEST_TABLES_MAX
            && shared.is_mergeable(Thoroughness::Usual)
        {
            shared.merge(Thoroughness::Usual, &shared.store, sleep(LAST_MERGE)).await;
        }
        if shared.is_collector() {
            shared.collect(&shared.store).await;
        }
    }
}

impl Drop for Upkeep {
    fn drop(&mut self) {
        if let Some(task) = self.task.lock().take() {
            task.abort();
        }
    }
}

impl Shared {
    async fn run(self: Arc<Self>) {
        let mut closing = self.closing.subscribe();
        let mut status = self.db.subscribe();
        let first = if self.is_collector() { EARLY_COLLECTION } else { FIRST_COLLECTION };
        let mut collection = Some(Instant::now() + first);
        let mut last_work = Instant::now();
        // One object is deleted after the other, so this may take long. Commits do not wait for it.
        let mut collecting: Option<BoxFuture<'_, ()>> = None;
        loop {
            let is_collected = async {
                match &mut collecting {
                    Some(work) => work.await,
                    None => std::future::pending().await,
                }
            };
            let is_due = async {
                match collection {
                    Some(due) => sleep_until(due).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                biased;
                () = is_closing(&mut closing) => return,
                () = is_collected => {
                    collecting = None;
                    continue;
                }
                () = self.wake.notified() => last_work = Instant::now(),
                changed = status.changed() => if changed.is_err() { return },
                () = is_due => {
                    tokio::select! {
                        biased;
                        () = is_closing(&mut closing) => return,
                        () = self.flush_and_merge() => {}
                    }
                    collecting = Some(self.collect(&self.paced).boxed());
                    // What was young now is garbage later, manifests last; after that nothing changes
                    // by itself.
                    let idle = last_work.elapsed();
                    collection = if idle < settings::GARBAGE_AGE * 2 {
                        Some(Instant::now() + settings::GARBAGE_AGE)
                    } else if idle < settings::MANIFEST_AGE {
                        Some(Instant::now() + settings::MANIFEST_AGE + LAST_COLLECTION - idle)
                    } else {
                        None
                    };
                    continue;
                }
            }
            if status.borrow_and_update().close_reason.is_some() {
                return;
            }
            if self.commits.load(Ordering::Relaxed) >= COMMITS_PER_TABLE {
                self.commits.store(0, Ordering::Relaxed);
                tokio::select! {
                    biased;
                    () = is_closing(&mut closing) => return,
                    () = self.flush() => {}
                }
            }
            if self.is_mergeable(Thoroughness::Usual) {
                // Neither works on what the other has in hand.
                let is_interrupted = collecting.take().is_some();
                self.merge(Thoroughness::Usual, &self.store, is_closing(&mut closing)).await;
                collecting = is_interrupted.then(|| self.collect(&self.paced).boxed());
            }
            if collection.is_none() && last_work.elapsed() < settings::GARBAGE_AGE {
                collection = Some(Instant::now() + settings::GARBAGE_AGE);
            }
        }
    }

    /// Whether this session removes garbage however short it is.
    fn is_collector(&self) -> bool {
        self.db.manifest().writer_epoch().is_multiple_of(SESSIONS_PER_COLLECTION)
    }

    fn newest_tables(&self) -> usize {
        self.db.manifest().l0().len()
    }

    async fn flush(&self) {
        let options = FlushOptions { flush_type: FlushType::MemTable };
        if let Err(error) = self.db.flush_with_options(options).await {
            tracing::warn!(%error, "records could not be flushed into a table");
        }
    }

    /// Whether this is the writer still: what is there would be another one's to merge and remove. The database itself looks
    /// for manifests after the one it knows, which are removed when they are old, and so does not learn of a writer that
    /// came long ago.
    async fn is_writer(&self) -> bool {
        self.own_manifest().await.is_some()
    }

    /// The newest manifest, if this is the writer still.
    async fn own_manifest(&self) -> Option<VersionedManifest> {
        let admin = self.seeds.admin(&self.store);
        match admin.read_manifest(None).await {
            Ok(newest) => newest.filter(|newest| newest.writer_epoch() == self.db.manifest().writer_epoch()),
            Err(error) => {
                tracing::debug!(%error, "whose the records are cannot be read");
                None
            }
        }
    }

    /// Makes sure that a merge of an earlier session, whose machine may sleep, adds nothing any more: what it has written
    /// is garbage by then. Says whether that is so.
    async fn refuse_other_merges(&self) -> bool {
        let _merging = self.merging.lock().await;
        let Some(before) = self.own_manifest().await else { return false };
        let compactor = CompactorBuilder::new(DATABASE, self.store.clone())
            .with_options(settings::compactor(Thoroughness::Usual, self.table_bytes))
            .with_scheduler_supplier(Arc::new(Idle))
            .with_system_clock(self.clock.clone())
            .with_seed(self.seeds.next())
            .build();
        let is_refused = async {
            while self
                .own_manifest()
                .await
                .is_some_and(|now| now.compactor_epoch() == before.compactor_epoch())
            {
                sleep(FENCE_CHECK).await;
            }
        };
        tokio::select! {
            biased;
            _ = compactor.run() => {}
            () = is_refused => {}
            () = sleep(LAST_MERGE) => {}
        }
        if let Err(error) = compactor.stop().await {
            tracing::debug!(%error, "the compactor did not stop cleanly");
        }
        let now = self.own_manifest().await;
        let is_merger = now.is_some_and(|now| now.compactor_epoch() > before.compactor_epoch());
        self.is_merger.store(is_merger, Ordering::Relaxed);
        is_merger
    }

    /// Runs a compactor over `store` until there is nothing left to merge, or until `stop`.
    async fn merge(&self, how: Thoroughness, store: &Arc<dyn ObjectStore>, stop: impl Future<Output = ()>) {
        let _merging = self.merging.lock().await;
        tokio::pin!(stop);
        let before = tokio::select! {
            biased;
            own = self.own_manifest() => own,
            () = &mut stop => None,
        };
        let Some(before) = before else { return };
        let compactor = CompactorBuilder::new(DATABASE, self.spoiled.watch(store))
            .with_options(settings::compactor(how, self.table_bytes))
            .with_scheduler_supplier(Arc::new(self.spoiled.clone()))
            .with_system_clock(self.clock.clone())
            .with_seed(self.seeds.next())
            .build();
        let work = async {
            let ended = compactor.run().await;
            if let Err(error) = ended {
                tracing::warn!(%error, "merging tables failed; it will be tried again");
            }
        };
        let is_spoiled = tokio::select! {
            biased;
            () = self.spoiled.met() => true,
            () = work => false,
            () = self.merged(how) => false,
            () = &mut stop => false,
        };
        if let Err(error) = compactor.stop().await {
            tracing::debug!(%error, "the compactor did not stop cleanly");
        }
        if is_spoiled && let Err(error) = forget_merges(&self.store).await {
            tracing::warn!(%error, "a merge that cannot be made is still noted");
        }
        if self.db.manifest().compactor_epoch() > before.compactor_epoch() {
            self.is_merger.store(true, Ordering::Relaxed);
        }
    }

    /// Whether there is anything to merge.
    fn is_mergeable(&self, how: Thoroughness) -> bool {
        let manifest = self.db.manifest();
        match how {
            Thoroughness::Usual => has_many_new_tables(&self.db) && !self.spoiled.is_newest(&manifest),
            Thoroughness::Everything => {
                (manifest.l0().len() > 1 || manifest.compacted().len() > 1) && !self.spoiled.is_in(&manifest)
            }
        }
    }

    /// Whether merging everything would give back a part of the tables that is worth it.
    fn is_wasteful(&self) -> bool {
        let manifest = self.db.manifest();
        let newest: u64 = manifest.l0().iter().map(|table| table.estimate_size()).sum();
        let runs: Vec<u64> = manifest.compacted().iter().map(|run| run.estimate_size()).collect();
        let oldest = runs.last().copied().unwrap_or_default();
        let younger = newest + runs.iter().sum::<u64>() - oldest;
        self.is_mergeable(Thoroughness::Everything) && younger > WASTE_BYTES_MIN && younger > oldest / 3
    }

    /// Waits until the tables are few and no merge is under way.
    async fn merged(&self, how: Thoroughness) {
        let admin = self.seeds.admin(&self.store);
        loop {
            sleep(MERGE_CHECK).await;
            if self.db.refresh_manifest().await.is_err() {
                return;
            }
            if self.is_mergeable(how) {
                continue;
            }
            match admin.read_compactor_state_view().await {
                Ok(view) => {
                    let busy = view
                        .compactions()
                        .is_some_and(|compactions| compactions.recent_compactions().any(|c| c.active()));
                    if !busy {
                        return;
                    }
                }
                Err(error) => tracing::debug!(%error, "the state of the merge cannot be read"),
            }
        }
    }

    /// What makes garbage: the logs of a session that went quiet are none before their records are in a table.
    async fn flush_and_merge(&self) {
        let mut closing = self.closing.subscribe();
        if self.commits.swap(0, Ordering::Relaxed) > 0 {
            tokio::select! {
                () = is_closing(&mut closing) => return,
                () = self.flush() => {}
            }
        }
        if self.is_wasteful() {
            let stop = async {
                tokio::select! {
                    () = is_closing(&mut closing) => {}
                    () = sleep(LONG_MERGE) => {}
                }
            };
            self.merge(Thoroughness::Everything, &self.paced, stop).await;
        } else if self.is_mergeable(Thoroughness::Usual) {
            self.merge(Thoroughness::Usual, &self.store, is_closing(&mut closing)).await;
        }
    }

    /// Removes what is garbage by now.
    async fn collect(&self, store: &Arc<dyn ObjectStore>) {
        if !self.is_writer().await {
            return;
        }
        GarbageCollectorBuilder::new(DATABASE, store.clone())
            .with_options(settings::garbage_collector(self.day.lead(self.plain_clock.now_ms())))
            .with_system_clock(self.plain_clock.clone())
            .with_seed(self.seeds.next())
            .build()
            .run_gc_once()
            .await;
        if let Err(error) = self.remove_tables(store).await {
            tracing::debug!(%error, "tables that are part of nothing stay for now");
        }
    }

    async fn remove_tables(&self, store: &Arc<dyn ObjectStore>) -> Result<(), slatedb::Error> {
        let mut garbage = garbage::tables_of_nothing(store, &self.seeds, self.plain_clock.now_ms()).await?;
        if garbage.is_empty() {
            return Ok(());
        }
        if !self.is_merger.load(Ordering::Relaxed) {
            if !self.refuse_other_merges().await {
                return Ok(());
            }
            garbage = garbage::tables_of_nothing(store, &self.seeds, self.plain_clock.now_ms()).await?;
        }
        garbage::remove(store, garbage).await
    }
}

fn has_many_new_tables(db: &Db) -> bool {
    db.manifest().l0().len() >= settings::NEWEST_TABLES_MERGED_AT
}

async fn is_closing(closing: &mut watch::Receiver<bool>) {
    // An error means that nobody is left who could close: then it is closed.
    let _ = closing.wait_for(|closing| *closing).await;
}
