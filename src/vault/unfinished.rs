//! Removes what the making of a volume left that did not come to its end.

use futures::{StreamExt, TryStreamExt, stream};
use object_store::ObjectStore;
use object_store::path::Path;

use super::MetaStore;
use crate::store::Bucket;

/// Removes objects of a bucket, by their names there, as far as that can be done.
pub async fn remove_objects(bucket: &Bucket, names: Vec<String>) {
    remove(&*bucket.objects, names.into_iter().map(Path::from).collect()).await;
}

/// Removes all records of one volume, as far as that can be done.
pub async fn remove_records(records: &MetaStore) {
    let all = records.list(None).map_ok(|object| object.location).try_collect();
    remove(&**records, all.await.unwrap_or_default()).await;
}

/// What stays, because it may not be removed or the bucket is away, harms nobody.
async fn remove(store: &dyn ObjectStore, objects: Vec<Path>) {
    let mut removed = store.delete_stream(stream::iter(objects).map(Ok).boxed());
    while let Some(result) = removed.next().await {
        if let Err(error) = result {
            tracing::debug!(%error, "something of an unfinished volume stays in the bucket");
        }
    }
}
