//! What is merged next.

use slatedb::compactor::{
    Compaction, CompactionScheduler, CompactionSchedulerSupplier, CompactionSpec, CompactorStateView,
    SizeTieredCompactionSchedulerSupplier, SourceId,
};
use slatedb::config::CompactorOptions;

use super::settings;
use super::spoiled::Spoiled;

/// Proposes no merge.
pub(super) struct Idle;

impl CompactionSchedulerSupplier for Idle {
    fn compaction_scheduler(&self, _: &CompactorOptions) -> Box<dyn CompactionScheduler + Send + Sync> {
        Box::new(Self)
    }
}

impl CompactionScheduler for Idle {
    fn propose(&self, _: &CompactorStateView) -> Vec<CompactionSpec> {
        Vec::new()
    }
}

impl CompactionSchedulerSupplier for Spoiled {
    fn compaction_scheduler(&self, options: &CompactorOptions) -> Box<dyn CompactionScheduler + Send + Sync> {
        let usual = SizeTieredCompactionSchedulerSupplier.compaction_scheduler(options);
        Box::new(Around { usual, spoiled: self.clone() })
    }
}

/// Merges as usual; while some of the runs cannot be read only the newest level, into a run of its own.
struct Around {
    usual: Box<dyn CompactionScheduler + Send + Sync>,
    spoiled: Spoiled,
}

impl CompactionScheduler for Around {
    fn propose(&self, state: &CompactorStateView) -> Vec<CompactionSpec> {
        let manifest = state.manifest();
        if !self.spoiled.is_in(manifest) {
            return self.usual.propose(state);
        }
        let is_busy =
            state.compactions().is_some_and(|known| known.recent_compactions().any(Compaction::active));
        let newest = manifest.l0();
        if is_busy || newest.len() < settings::NEWEST_TABLES_MERGED_AT || self.spoiled.is_newest(manifest) {
            return Vec::new();
        }
        let run = manifest.compacted().iter().map(|run| run.id).max().map_or(0, |id| id.saturating_add(1));
        vec![CompactionSpec::new(newest.iter().map(|view| SourceId::SstView(view.id)).collect(), run)]
    }

    fn validate(&self, state: &CompactorStateView, spec: &CompactionSpec) -> Result<(), slatedb::Error> {
        self.usual.validate(state, spec)
    }
}
