//! Looks at stored objects as they are, for a person who wants to know what one is.

use bytes::Bytes;
use futures::stream::BoxStream;
use futures::{Stream, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{GetOptions, GetRange, ObjectStore, ObjectStoreExt};
use tokio::sync::Semaphore;

use super::names::{self, Opener};
use super::{Vault, VaultError};
use crate::crypto::{HEAD_BYTES, ObjectHead, ObjectKind};
use crate::store::Bucket;

/// Most bytes of objects that are opened at once; the largest of the record engine has as many.
pub const ROOM_BYTES: usize = 64 * 1024 * 1024;
/// What a listing may have at most: twice the segments of 64 TiB.
const LISTED_MAX: usize = 1 << 24;

/// The path of every object below `directory`, or of all, with its size in bytes. A listing without end is damage.
pub fn list<'a>(
    bucket: &'a Bucket,
    directory: Option<&str>,
) -> BoxStream<'a, Result<(String, u64), VaultError>> {
    let directory = directory.map(Path::from);
    let listed = bucket.prompt().list(directory.as_ref());
    let named = listed.map_ok(|object| (object.location.to_string(), object.size));
    let named = named.map_err(|error| bucket.error("a listing", &error).into());
    Box::pin(bounded(named, LISTED_MAX))
}

/// At most `count_max` of `listed`, and an error for more.
fn bounded<T>(
    listed: impl Stream<Item = Result<T, VaultError>>,
    count_max: usize,
) -> impl Stream<Item = Result<T, VaultError>> {
    let mut count = 0_usize;
    listed.map(move |entry| {
        count += 1;
        if count > count_max { Err(VaultError::damaged("the bucket", "it lists without end")) } else { entry }
    })
}

/// The first `bytes_max` bytes of an object, and the size of all of it.
///
/// # Errors
/// There is no such object, or the bucket fails.
pub async fn front(bucket: &Bucket, object: &str, bytes_max: u64) -> Result<(Bytes, u64), VaultError> {
    let failed = |error| VaultError::from(bucket.error(object, &error));
    let path = parse(object)?;
    let size = bucket.prompt().head(&path).await.map_err(failed)?.size;
    let wanted = GetRange::Bounded(0..bytes_max.min(size));
    if size == 0 {
        return Ok((Bytes::new(), 0));
    }
    let options = GetOptions { range: Some(wanted), ..GetOptions::default() };
    let got = bucket.prompt().get_opts(&path, options).await.map_err(failed)?;
    Ok((got.bytes().await.map_err(failed)?, size))
}

/// What the record engine calls the object at `object`, if it is one of its own and of this volume.
#[must_use]
pub fn engine_path(vault: &Vault, object: &str) -> Option<String> {
    Some(Opener::new(vault.ring()).open(&Path::parse(object).ok()?)?.to_string())
}

/// The plaintext of the object that the record engine calls `engine_path`, every byte of it authenticated.
///
/// # Errors
/// It is missing, damaged, or larger than 64 MiB, or the bucket fails.
pub async fn engine_object(vault: &Vault, engine_path: &str) -> Result<Bytes, VaultError> {
    engine_object_within(vault, engine_path, &Semaphore::new(ROOM_BYTES)).await
}

/// As [`engine_object`], for many at a time: of each the first MiB is fetched at once, and the rest when `room`, which
/// began with [`ROOM_BYTES`] permits, has one for every byte. What a listing says of its length is not relied on.
///
/// # Errors
/// As for [`engine_object`].
pub async fn engine_object_within(
    vault: &Vault,
    engine_path: &str,
    room: &Semaphore,
) -> Result<Bytes, VaultError> {
    let path = parse(engine_path)?;
    // Keeps what came with the length, so that a small object costs one request in all.
    let store = vault.meta_store(ROOM_BYTES as u64);
    let got = async {
        let bytes = usize::try_from(store.head(&path).await?.size).unwrap_or(ROOM_BYTES);
        let permits = u32::try_from(bytes.min(ROOM_BYTES)).unwrap_or(u32::MAX);
        let _room = room.acquire_many(permits).await;
        store.get(&path).await?.bytes().await
    };
    got.await.map_err(|error| match find_vault_error(&error) {
        Some(what) => what,
        None => vault.bucket().error(engine_path, &error).into(),
    })
}

/// The key epoch of the object that the record engine calls `engine_path`, authenticated.
///
/// # Errors
/// It is missing, damaged, or of an epoch that does not open; or the bucket fails.
pub async fn engine_epoch(vault: &Vault, engine_path: &str) -> Result<u16, VaultError> {
    let bucket = vault.bucket();
    let sealed = names::seal(vault.ring(), &parse(engine_path)?);
    let failed = |error| VaultError::from(bucket.error(sealed.as_ref(), &error));
    let bytes = bucket.objects.get_range(&sealed, 0..HEAD_BYTES as u64).await.map_err(failed)?;
    let refused = |error| VaultError::refused(sealed.as_ref(), error);
    let head = ObjectHead::decode(&bytes).map_err(refused)?;
    vault.ring().open_object(ObjectKind::Meta, engine_path.as_bytes(), &head).map_err(refused)?;
    Ok(head.epoch)
}

fn find_vault_error(error: &object_store::Error) -> Option<VaultError> {
    let mut source = std::error::Error::source(error);
    while let Some(current) = source {
        match current.downcast_ref::<VaultError>() {
            Some(VaultError::Damaged(damage)) => return Some(VaultError::Damaged(damage.clone())),
            Some(VaultError::OldKey { object, found, floor }) => {
                return Some(VaultError::OldKey { object: object.clone(), found: *found, floor: *floor });
            }
            Some(VaultError::NewKey { object, found, newest }) => {
                return Some(VaultError::NewKey { object: object.clone(), found: *found, newest: *newest });
            }
            _ => {}
        }
        source = current.source();
    }
    None
}

/// A name that no object can have names none.
fn parse(object: &str) -> Result<Path, VaultError> {
    Path::parse(object).map_err(|_| VaultError::Missing(object.to_owned()))
}

#[cfg(test)]
mod tests {
    use futures::{FutureExt, stream};

    use super::*;

    #[test]
    fn a_listing_without_end_ends_in_an_error() {
        let endless = stream::repeat_with(|| Ok(("header/1".to_owned(), u64::MAX)));
        let taken = bounded(endless, 1000).try_collect::<Vec<_>>().now_or_never();
        assert!(matches!(taken, Some(Err(VaultError::Damaged(_)))));
        let three = stream::iter([1, 2, 3].map(Ok));
        let taken = bounded(three, 3).try_collect::<Vec<_>>().now_or_never();
        assert!(matches!(taken, Some(Ok(all)) if all == [1, 2, 3]));
    }
}
