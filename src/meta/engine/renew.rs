//! Writes the whole database anew: after a rotation of the key nothing may be read that is sealed with the old one.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use futures::TryStreamExt;
use object_store::ObjectStore;
use object_store::path::Path;
use slatedb::admin::Admin;
use slatedb::compactor::{
    CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorBuilder, CompactorStateView,
    SourceId,
};
use slatedb::config::CompactorOptions;
use slatedb::{Db, VersionedManifest};
use tokio::time::sleep;

use super::clock::EngineClock;
use super::error::refused;
use super::seeds::Seeds;
use super::settings::Thoroughness;
use super::{DATABASE, settings};

/// While tables are merged it is looked this often whether that is done.
const CHECK: Duration = Duration::from_secs(1);

/// A database of which everything is to be written anew. Its logs are in tables already.
pub(super) struct Renewal<'a> {
    pub(super) db: &'a Db,
    pub(super) store: &'a Arc<dyn ObjectStore>,
    pub(super) clock: Arc<EngineClock>,
    pub(super) seeds: &'a Seeds,
    pub(super) table_bytes: usize,
}

impl Renewal<'_> {
    pub(super) async fn run(self) -> Result<(), slatedb::Error> {
        let admin = self.seeds.admin(self.store);
        // They keep manifests of earlier sessions for whoever reads by them: merges that are over.
        for checkpoint in admin.list_checkpoints(None).await? {
            admin.delete_checkpoint(checkpoint.id).await?;
        }
        self.db.refresh_manifest().await?;
        let old = Arc::new(tables(&self.db.manifest()));
        let compactor = CompactorBuilder::new(DATABASE, self.store.clone())
            .with_options(settings::compactor(Thoroughness::Everything, self.table_bytes))
            .with_scheduler_supplier(Arc::new(AllOf(Arc::clone(&old))))
            .with_system_clock(self.clock.clone())
            .with_seed(self.seeds.next())
            .build();
        let merged = tokio::select! {
            biased;
            ended = compactor.run() => ended.and_then(|()| Err(slatedb::Error::unavailable("merging ended early".to_owned()))),
            merged = self.merged(&admin, &old) => merged,
        };
        if let Err(error) = compactor.stop().await {
            tracing::debug!(%error, "the compactor did not stop cleanly");
        }
        merged
    }

    /// Waits until none of the tables in `old` is part of the database and no merge is under way.
    async fn merged(&self, admin: &Admin, old: &BTreeSet<String>) -> Result<(), slatedb::Error> {
        loop {
            sleep(CHECK).await;
            self.db.refresh_manifest().await?;
            if !tables(&self.db.manifest()).is_disjoint(old) {
                continue;
            }
            let view = admin.read_compactor_state_view().await?;
            if !is_merging(&view) {
                return Ok(());
            }
        }
    }
}

/// Merges all there is into one run, as long as any of these tables is part of it.
struct AllOf(Arc<BTreeSet<String>>);

impl CompactionSchedulerSupplier for AllOf {
    fn compaction_scheduler(&self, _: &CompactorOptions) -> Box<dyn CompactionScheduler + Send + Sync> {
        Box::new(Self(Arc::clone(&self.0)))
    }
}

impl CompactionScheduler for AllOf {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let manifest = state.manifest();
        if is_merging(state) || tables(manifest).is_disjoint(&self.0) {
            return Vec::new();
        }
        let newest = manifest.l0().iter().map(|table| SourceId::SstView(table.id));
        let runs = manifest.compacted().iter().map(|run| SourceId::SortedRun(run.id));
        let oldest = manifest.compacted().last().map_or(0, |run| run.id);
        vec![CompactionSpec::new(newest.chain(runs).collect(), oldest)]
    }
}

fn is_merging(state: &CompactorStateView) -> bool {
    state.compactions().is_some_and(|known| known.recent_compactions().any(|one| one.active()))
}

/// The names of all tables that a manifest lists.
pub(super) fn tables(manifest: &VersionedManifest) -> BTreeSet<String> {
    manifest.all_sst_views().map(|view| view.sst.id.value().to_string()).collect()
}

/// The objects that an opening or a collection reads: the newest manifest and those that it keeps, its tables, the logs
/// that are in no table.
pub(super) async fn live_objects(
    store: &Arc<dyn ObjectStore>,
    seeds: &Seeds,
) -> Result<Vec<String>, slatedb::Error> {
    let missing = || refused("there is no manifest", None);
    let manifest = seeds.admin(store).read_manifest(None).await?.ok_or_else(missing)?;
    let kept = manifest.checkpoints().iter().map(|checkpoint| checkpoint.manifest_id);
    let manifests: BTreeSet<u64> = kept.chain([manifest.id()]).collect();
    let mut live: Vec<String> =
        manifests.into_iter().map(|id| format!("{DATABASE}/manifest/{id:020}.manifest")).collect();
    live.extend(tables(&manifest).into_iter().map(|table| format!("{DATABASE}/compacted/{table}.sst")));
    let logs = Path::from(DATABASE).join("wal");
    let mut listed = store.list(Some(&logs));
    let failed = |error: object_store::Error| refused("the logs cannot be listed", Some(error));
    while let Some(log) = listed.try_next().await.map_err(failed)? {
        let number = log.location.filename().and_then(|name| name.strip_suffix(".sst")?.parse::<u64>().ok());
        if number.is_some_and(|number| number > manifest.replay_after_wal_id()) {
            live.push(log.location.to_string());
        }
    }
    Ok(live)
}
