//! Proves by trying that a bucket can do what a volume needs.

use std::pin::pin;
use std::time::Duration;

use futures::future::ready;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectStore, ObjectStoreExt, PutMode, PutOptions, PutPayload};
use tokio::time::Instant;

use super::error::{Trouble, classify, detail};
use super::{Bucket, StoreError};
use crate::base::{Entropy, OsEntropy, SegmentId};

/// The object that stays, so that whoever mounts needs but one write to see that it is refused.
const KEPT: &str = "kept";
pub(super) const DIRECTORY: &str = "probe";
/// Entries of a listing among which a new object is looked for.
pub(super) const LISTED_MAX: usize = 100_000;
const FIRST: &[u8] = b"coffer probes whether this bucket keeps what it was given";
const SECOND: &[u8] = b"this must not replace the object that is already there...";

/// What the probe found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProbeReport {
    /// How long a small write took.
    pub put: Duration,
    /// How long a small ranged read took.
    pub get: Duration,
    /// Requests it took in all.
    pub requests: u64,
}

/// Writes, refuses to overwrite, reads, lists and deletes one object of a random name.
pub(crate) async fn probe(bucket: &Bucket) -> Result<ProbeReport, StoreError> {
    let before = bucket.meter().snapshot().requests();
    let mut name = [0; 16];
    OsEntropy.fill(&mut name);
    let directory = Path::from(DIRECTORY);
    let path = directory.clone().join(SegmentId(name).to_string());
    let store = bucket.prompt();
    prove_class(bucket, &OsEntropy).await?;

    let started = Instant::now();
    create(bucket, &path, PutPayload::from_static(FIRST)).await?;
    let put = started.elapsed();
    let found = examine(bucket, &directory, &path).await;
    let removed = store.delete(&path).await.map_err(|error| bucket.error(path.as_ref(), &error));
    let get = found?;
    removed?;
    match store.get(&path).await {
        Err(object_store::Error::NotFound { .. }) => {}
        Ok(_) => return Err(misbehaves(bucket, "a deleted object is still there")),
        Err(error) => return Err(bucket.error(path.as_ref(), &error)),
    }
    Ok(ProbeReport { put, get, requests: bucket.meter().snapshot().requests() - before })
}

async fn examine(bucket: &Bucket, directory: &Path, path: &Path) -> Result<Duration, StoreError> {
    match create(bucket, path, PutPayload::from_static(SECOND)).await {
        Err(StoreError::AlreadyExists { .. }) => {}
        Ok(()) => return Err(StoreError::IgnoresPreconditions { bucket: bucket.display_url().to_owned() }),
        Err(error) => return Err(error),
    }
    let started = Instant::now();
    let part = bucket.prompt().get_range(path, 7..13).await;
    let part = part.map_err(|error| bucket.error(path.as_ref(), &error))?;
    let get = started.elapsed();
    if FIRST.get(7..13) != Some(&part[..]) {
        let ignores = SECOND.get(7..13) == Some(&part[..]);
        return Err(if ignores {
            StoreError::IgnoresPreconditions { bucket: bucket.display_url().to_owned() }
        } else {
            misbehaves(bucket, "a ranged read returns other bytes than were written")
        });
    }
    let entries = bucket.prompt().list(Some(directory)).take(LISTED_MAX);
    let is_it = |entry: object_store::ObjectMeta| entry.location == *path && entry.size == FIRST.len() as u64;
    let listed = pin!(entries).try_any(|entry| ready(is_it(entry))).await;
    if listed.map_err(|error| bucket.error(directory.as_ref(), &error))? {
        Ok(get)
    } else {
        Err(misbehaves(bucket, "an object that was just written is not listed"))
    }
}

/// Tries to write over an object that is there or, in a bucket that has never been tried, is put there first. No two
/// tries write the same bytes: a store's word that it wrote would prove nothing otherwise.
pub(crate) async fn prove_create_only(bucket: &Bucket, entropy: &dyn Entropy) -> Result<(), StoreError> {
    prove_class(bucket, entropy).await?;
    let path = Path::from(DIRECTORY).join(KEPT);
    for _ in 0..2 {
        let mut bytes = vec![0; 32];
        entropy.fill(&mut bytes);
        match create(bucket, &path, bytes.into()).await {
            Ok(()) => {}
            Err(StoreError::AlreadyExists { .. }) => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    Err(StoreError::IgnoresPreconditions { bucket: bucket.display_url().to_owned() })
}

/// Writes an object as segments are written, if they are to have a storage class: one that the store does not know
/// would hold every segment up for ever.
pub(super) async fn prove_class(bucket: &Bucket, entropy: &dyn Entropy) -> Result<(), StoreError> {
    let Some(class) = bucket.segment_class() else { return Ok(()) };
    let mut name = [0; 16];
    entropy.fill(&mut name);
    let path = Path::from(DIRECTORY).join(format!("class-{}", SegmentId(name)));
    let written = bucket.prompt().put_opts(&path, PutPayload::from_static(FIRST), bucket.segment_options());
    if let Err(error) = written.await {
        return Err(match classify(&error) {
            Trouble::Rejected | Trouble::Final => StoreError::Settings {
                url: bucket.display_url().to_owned(),
                what: format!("the store refuses the storage class {class}: {}", detail(&error)),
            },
            _ => bucket.error(path.as_ref(), &error),
        });
    }
    bucket.prompt().delete(&path).await.map_err(|error| bucket.error(path.as_ref(), &error))
}

async fn create(bucket: &Bucket, path: &Path, payload: PutPayload) -> Result<(), StoreError> {
    let opts = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
    match bucket.prompt().put_opts(path, payload, opts).await {
        Ok(_) => Ok(()),
        // The store knows that it cannot, which is as well as if it did not heed.
        Err(error) if classify(&error) == Trouble::Final => {
            Err(StoreError::IgnoresPreconditions { bucket: bucket.display_url().to_owned() })
        }
        Err(error) => Err(bucket.error(path.as_ref(), &error)),
    }
}

fn misbehaves(bucket: &Bucket, what: &str) -> StoreError {
    StoreError::Misbehaves { bucket: bucket.display_url().to_owned(), what: what.to_owned() }
}
