//! The volume's header objects: plain bytes under counted names, written once each.

use bytes::Bytes;
use futures::TryStreamExt;
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};

use super::VaultError;
use crate::store::Bucket;

/// Largest header object: 64 KiB of body and its frame (`docs/FORMAT.md`, "Header").
pub const HEADER_BYTES_MAX: u64 = 64 * 1024 + 1024;
/// Most objects beside headers, and headers, that are looked at; each change of a slot makes one.
const LISTED_MAX: usize = 100_000;
const DIRECTORY: &str = "header";
/// The header that a volume is made with.
const FIRST: u64 = 1;

fn path(number: u64) -> Path {
    Path::from(DIRECTORY).join(number.to_string())
}

/// Whether a header can be called so.
pub(super) fn is_header(object: &Path) -> bool {
    object.filename().and_then(|name| name.parse().ok()).is_some_and(|number| *object == path(number))
}

/// The numbers of all headers in the bucket, ascending.
///
/// # Errors
/// The bucket cannot be listed, or holds absurdly many.
pub async fn list(bucket: &Bucket) -> Result<Vec<u64>, VaultError> {
    let directory = Path::from(DIRECTORY);
    let mut entries = bucket.prompt().list(Some(&directory));
    let (mut numbers, mut foreign) = (Vec::new(), 0_usize);
    while let Some(entry) = entries.try_next().await.map_err(|error| bucket.error(DIRECTORY, &error))? {
        let name = entry.location.filename().unwrap_or_default();
        match name.parse::<u64>() {
            Ok(number) if entry.location == path(number) => numbers.push(number),
            _ => {
                foreign += 1;
                tracing::debug!(object = %entry.location, "not a header of ours");
            }
        }
        if numbers.len() + foreign > LISTED_MAX {
            let what = format!("it lists more than {LISTED_MAX} objects");
            return Err(VaultError::damaged(DIRECTORY, what));
        }
    }
    if foreign > 0 {
        tracing::warn!(foreign, directory = DIRECTORY, "objects that are no headers were passed over");
    }
    numbers.sort_unstable();
    numbers.dedup();
    Ok(numbers)
}

/// Whether the bucket holds a volume.
///
/// # Errors
/// As [`list`].
pub async fn exists(bucket: &Bucket) -> Result<bool, VaultError> {
    Ok(!list(bucket).await?.is_empty())
}

/// The bytes of header `number`, not checked in any way.
///
/// # Errors
/// It is missing, larger than [`HEADER_BYTES_MAX`], or the bucket fails.
pub async fn read(bucket: &Bucket, number: u64) -> Result<Bytes, VaultError> {
    let path = path(number);
    let failed = |error| VaultError::from(bucket.error(path.as_ref(), &error));
    let result = bucket.prompt().get(&path).await.map_err(failed)?;
    if result.meta.size > HEADER_BYTES_MAX {
        let what = format!("it is larger than {HEADER_BYTES_MAX} bytes");
        return Err(VaultError::damaged(path.as_ref(), what));
    }
    result.bytes().await.map_err(failed)
}

/// Number and bytes of the newest header. The first one is asked for while headers are listed: of a volume whose keys were
/// never changed it is the newest.
///
/// # Errors
/// There is none ([`VaultError::NoHeader`]), or as [`list`] and [`read`].
pub async fn read_newest(bucket: &Bucket) -> Result<(u64, Bytes), VaultError> {
    let (listed, first) = futures::join!(list(bucket), read(bucket, FIRST));
    let number = listed?.pop().ok_or(VaultError::NoHeader)?;
    match first {
        Ok(bytes) if number == FIRST => Ok((number, bytes)),
        // Also if it was not there yet.
        _ => Ok((number, read(bucket, number).await?)),
    }
}

/// Writes header `number`, which must not exist.
///
/// # Errors
/// Somebody wrote another one under this number ([`StoreError::AlreadyExists`](crate::store::StoreError::AlreadyExists)), or the bucket fails.
pub async fn write(bucket: &Bucket, number: u64, bytes: Bytes) -> Result<(), VaultError> {
    let path = path(number);
    let opts = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    let written = bucket.prompt().put_opts(&path, PutPayload::from_bytes(bytes), opts).await;
    written.map(|_| ()).map_err(|error| bucket.error(path.as_ref(), &error).into())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::StoreError;

    #[tokio::test]
    async fn the_highest_number_is_the_newest_and_is_never_overwritten() {
        let bucket = Bucket::memory();
        assert!(matches!(read_newest(&bucket).await, Err(VaultError::NoHeader)));
        assert!(!exists(&bucket).await.expect("listed"));
        for number in [1, 2, 9, 10] {
            write(&bucket, number, Bytes::from(format!("n{number}"))).await.expect("written");
        }
        for foreign in ["header/011", "header/x", "header/12/13", "header/-1"] {
            bucket.objects.put(&Path::from(foreign), PutPayload::from_static(b"?")).await.expect("put");
        }
        assert_eq!(read_newest(&bucket).await.expect("read"), (10, Bytes::from_static(b"n10")));
        let again = write(&bucket, 10, Bytes::from_static(b"other")).await;
        assert!(matches!(again, Err(VaultError::Store(StoreError::AlreadyExists { .. }))));
    }

    #[tokio::test]
    async fn an_oversized_header_is_refused_before_it_is_read() {
        let bucket = Bucket::memory();
        write(&bucket, 1, vec![0; HEADER_BYTES_MAX as usize + 1].into()).await.expect("written");
        assert!(matches!(read_newest(&bucket).await, Err(VaultError::Damaged(_))));
    }
}
