//! Looks ahead: brings what reads are about to ask for one after the other into memory, all of it at once.

use std::collections::HashSet;
use std::ops::Bound;

use bytes::Bytes;
use futures::future::join_all;
use slatedb::manifest::SsTableId;
use slatedb::{CacheTarget, DbCacheManagerOps, VersionedManifest};

/// Keys from the first (inclusive) to the second (exclusive).
pub(super) type Keys = (Vec<u8>, Vec<u8>);

/// Filters and indexes of all tables that may have any of `ranges`, of every run and level together. SlateDB itself looks
/// into four tables at a time, and reads the one before it asks for the other.
pub(super) async fn tables(db: &dyn DbCacheManagerOps, manifest: &VersionedManifest, ranges: &[Keys]) {
    let warm = async |table| db.warm_sst(table, &[CacheTarget::Filters, CacheTarget::Index]).await.is_ok();
    join_all(of_any(manifest, ranges).into_iter().map(warm)).await;
}

/// The blocks of `ranges`, in all tables together.
pub(super) async fn blocks(db: &dyn DbCacheManagerOps, manifest: &VersionedManifest, ranges: &[Keys]) {
    let fetches = ranges.iter().flat_map(|range| {
        let tables = of_any(manifest, std::slice::from_ref(range));
        tables.into_iter().map(move |table| async move {
            let targets = [CacheTarget::Data(bounds(range))];
            db.warm_sst(table, &targets).await.is_ok()
        })
    });
    join_all(fetches).await;
}

fn of_any(manifest: &VersionedManifest, ranges: &[Keys]) -> Vec<SsTableId> {
    let mut found: Vec<SsTableId> = manifest.l0().iter().map(|view| view.sst.id).collect();
    for run in manifest.compacted() {
        for range in ranges {
            let covering = run.tables_covering_range(bounds(range));
            found.extend(covering.into_iter().map(|view| view.sst.id));
        }
    }
    let mut seen = HashSet::new();
    found.retain(|table| seen.insert(*table));
    found
}

fn bounds((from, to): &Keys) -> (Bound<Bytes>, Bound<Bytes>) {
    (Bound::Included(Bytes::copy_from_slice(from)), Bound::Excluded(Bytes::copy_from_slice(to)))
}
