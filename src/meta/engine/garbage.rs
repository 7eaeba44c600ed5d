//! Removes tables that are part of nothing any more.
//!
//! SlateDB's own collector removes none that is younger than the merges it finds noted in the bucket. Of those nothing is
//! believed here (see `seam`), and a session that has merged nothing yet would remove nothing.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::{StreamExt, TryStreamExt, stream};
use object_store::path::Path;
use object_store::{Error as RawError, ObjectStore};
use ulid::Ulid;

use super::DATABASE;
use super::error::refused;
use super::renew::tables;
use super::seeds::Seeds;
use super::settings::GARBAGE_AGE;

/// Tables that are old enough, by their names and the time of day `now_ms`, and in no manifest that is kept. Another session's
/// merge may have written one and not have added it yet: that none does any more is for the caller to see to.
pub(super) async fn tables_of_nothing(
    store: &Arc<dyn ObjectStore>,
    seeds: &Seeds,
    now_ms: i64,
) -> Result<Vec<Path>, slatedb::Error> {
    let admin = seeds.admin(store);
    let view = admin.read_compactor_state_view().await?;
    let newest = view.manifest();
    let mut used = tables(newest);
    let kept: BTreeSet<u64> = newest.checkpoints().iter().map(|checkpoint| checkpoint.manifest_id).collect();
    for id in kept {
        let manifest = admin.read_manifest(Some(id)).await?;
        used.extend(tables(&manifest.ok_or_else(|| refused("a manifest that is kept is not there", None))?));
    }
    // A table that has just been written is added by the next manifest, and those of a merge when it is done.
    let added = newest.l0().iter().map(|table| table.sst.id.value()).max();
    let added = added.or(newest.last_compacted_l0_sst_view_id()).unwrap_or_default();
    let merges = view.compactions().into_iter().flat_map(|known| known.recent_compactions());
    let merging = merges.filter(|merge| merge.active()).map(slatedb::compactor::Compaction::id).min();
    let age_ms = i64::try_from(GARBAGE_AGE.as_millis()).unwrap_or(i64::MAX);
    let old_ms = u64::try_from(now_ms.saturating_sub(age_ms)).unwrap_or_default();
    let before_ms = merging.into_iter().chain([added]).map(|id| id.timestamp_ms()).fold(old_ms, u64::min);

    let is_garbage = |path: &Path| {
        let name = path.filename().and_then(|name| name.strip_suffix(".sst"));
        name.is_some_and(|name| {
            name.parse::<Ulid>().is_ok_and(|id| id.timestamp_ms() < before_ms) && !used.contains(name)
        })
    };
    let listed = store.list(Some(&Path::from(DATABASE).join("compacted")));
    let listed: Vec<_> = listed.try_collect().await.map_err(failed)?;
    Ok(listed.into_iter().map(|table| table.location).filter(is_garbage).collect())
}

/// Removes them.
pub(super) async fn remove(store: &Arc<dyn ObjectStore>, tables: Vec<Path>) -> Result<(), slatedb::Error> {
    tracing::debug!(tables = tables.len(), "removing tables of records that are part of nothing");
    let mut removed = store.delete_stream(stream::iter(tables).map(Ok).boxed());
    while removed.try_next().await.map_err(failed)?.is_some() {}
    Ok(())
}

fn failed(error: RawError) -> slatedb::Error {
    refused("old tables cannot be removed", Some(error))
}
