//! Data segments as objects: `d/<xx>/<id>`, written once, read by range, deleted.

use std::ops::Range;

use bytes::Bytes;
use futures::future::ready;
use futures::stream::BoxStream;
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{Error as RawError, ObjectStore, ObjectStoreExt, PutPayload};

use super::{Vault, VaultError};
use crate::base::{SegmentId, SegmentSeal};
use crate::crypto::{ObjectHead, ObjectKey, ObjectKind, SUITE_AES_256_GCM};
use crate::store::Bucket;

const DIRECTORY: &str = "d";
/// Objects that are no segments, of one listing; more are not there by accident.
const FOREIGN_MAX: usize = 1_000_000;

impl From<&ObjectHead> for SegmentSeal {
    fn from(head: &ObjectHead) -> Self {
        Self { epoch: head.epoch, salt: head.salt, commitment: head.commitment }
    }
}

/// The segment's path: two characters of its id make the directory.
fn path(id: SegmentId) -> Path {
    let text = id.to_string();
    Path::from_iter([DIRECTORY, text.get(..2).unwrap_or_default(), &text])
}

/// Whether a segment can be called so.
pub(super) fn is_segment(path: &Path) -> bool {
    id_of(path).is_some()
}

/// The segment's name in the bucket.
#[must_use]
pub fn segment_name(id: SegmentId) -> String {
    path(id).to_string()
}

fn id_of(path: &Path) -> Option<SegmentId> {
    let id = SegmentId::parse(path.filename()?)?;
    (self::path(id) == *path).then_some(id)
}

impl Vault {
    /// Head and key of a new segment.
    #[must_use]
    pub fn new_segment(&self, id: SegmentId) -> (ObjectHead, ObjectKey) {
        self.ring().new_object(ObjectKind::Segment, path(id).as_ref().as_bytes(), self.entropy())
    }

    /// The key of segment `id` as its record describes it.
    ///
    /// # Errors
    /// [`VaultError::Damaged`] if the record does not belong to this segment and volume; that its key is a newer one, or
    /// was rotated away.
    pub fn segment_key(&self, id: SegmentId, seal: &SegmentSeal) -> Result<ObjectKey, VaultError> {
        let head = ObjectHead {
            kind: ObjectKind::Segment,
            suite: SUITE_AES_256_GCM,
            epoch: seal.epoch,
            salt: seal.salt,
            commitment: seal.commitment,
        };
        let path = path(id);
        let opened = self.ring().open_object(ObjectKind::Segment, path.as_ref().as_bytes(), &head);
        opened.map_err(|error| VaultError::refused(path.as_ref(), error))
    }

    /// Writes segment `id`. An outage is waited out; a repeated write that finds its own bytes is success.
    ///
    /// # Errors
    /// The name is taken by something else.
    pub async fn put_segment(&self, id: SegmentId, bytes: Bytes) -> Result<(), VaultError> {
        let path = path(id);
        let opts = self.bucket().segment_options();
        let written = self.bucket().objects.put_opts(&path, PutPayload::from_bytes(bytes), opts).await;
        written.map(|_| ()).map_err(|error| self.bucket().error(path.as_ref(), &error).into())
    }

    /// The bytes `range` of segment `id`: exactly as many, still sealed.
    ///
    /// # Errors
    /// [`VaultError::Missing`], [`VaultError::Damaged`] if the segment is shorter, or the bucket does not
    /// answer in time.
    pub async fn get_segment(&self, id: SegmentId, range: Range<u64>) -> Result<Bytes, VaultError> {
        if range.is_empty() {
            return Ok(Bytes::new());
        }
        let path = path(id);
        let expected = range.end - range.start;
        let too_short = || VaultError::damaged(path.as_ref(), format!("it ends before byte {}", range.end));
        match self.bucket().objects.get_range(&path, range.clone()).await {
            Ok(bytes) if bytes.len() as u64 == expected => Ok(bytes),
            Ok(_) => Err(too_short()),
            Err(error) => match self.len_after_refusal(&path, &error).await {
                Some(len) if len <= range.start => Err(too_short()),
                _ => Err(self.bucket().error(path.as_ref(), &error).into()),
            },
        }
    }

    /// The length of segment `id`, asked of the object itself; `None` if it is not there, none at all if something else
    /// lies in its place.
    ///
    /// # Errors
    /// The bucket does not answer in time, or refuses.
    pub async fn segment_len(&self, id: SegmentId) -> Result<Option<u64>, VaultError> {
        let path = path(id);
        match self.bucket().objects.head(&path).await {
            Ok(meta) => Ok(Some(meta.size)),
            Err(error) => match VaultError::from(self.bucket().error(path.as_ref(), &error)) {
                VaultError::Missing(_) => Ok(None),
                VaultError::Damaged(_) => Ok(Some(0)),
                error => Err(error),
            },
        }
    }

    /// Deletes segment `id`; that it is gone already is success.
    ///
    /// # Errors
    /// None that waiting would cure: an outage is waited out.
    pub async fn delete_segment(&self, id: SegmentId) -> Result<(), VaultError> {
        let path = path(id);
        match self.bucket().objects.delete(&path).await {
            Ok(()) | Err(RawError::NotFound { .. }) => Ok(()),
            Err(error) => Err(self.bucket().error(path.as_ref(), &error).into()),
        }
    }

    /// All segments in the bucket with their lengths, in no particular order. Objects with other names are
    /// passed over. The list is the provider's word: it decides what may be cleaned, never what exists.
    #[must_use]
    pub fn list_segments(&self) -> BoxStream<'static, Result<(SegmentId, u64), VaultError>> {
        let bucket = self.bucket().clone();
        let entries = bucket.objects.list(Some(&Path::from(DIRECTORY)));
        let mut foreign = 0_usize;
        entries
            .map_err(move |error| VaultError::from(bucket.error(DIRECTORY, &error)))
            .try_filter_map(move |entry| {
                let id = id_of(&entry.location);
                foreign += usize::from(id.is_none());
                if id.is_none() && foreign == 1 {
                    tracing::warn!(first = %entry.location, "objects that are no segments are passed over");
                }
                ready(match foreign {
                    0..=FOREIGN_MAX => Ok(id.map(|id| (id, entry.size))),
                    _ => Err(VaultError::damaged(DIRECTORY, "it lists without end")),
                })
            })
            .boxed()
    }

    /// The object's length, if `error` may mean that a range lies past its end.
    pub(super) async fn len_after_refusal(&self, path: &Path, error: &RawError) -> Option<u64> {
        if !Bucket::is_rejected(error) {
            return None;
        }
        self.bucket().objects.head(path).await.ok().map(|meta| meta.size)
    }
}
