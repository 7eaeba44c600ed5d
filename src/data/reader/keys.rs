//! Opened segment keys, so that a key is derived once and not for every block.

use std::num::NonZeroUsize;
use std::sync::Arc;

use lru::LruCache;
use parking_lot::Mutex;

use crate::base::SegmentId;
use crate::base::SegmentSeal;
use crate::crypto::ObjectKey;
use crate::data::DataError;
use crate::vault::Vault;

/// About 1 KiB each.
const KEYS_MAX: NonZeroUsize = NonZeroUsize::MIN.saturating_add(1023);

/// The keys of the segments read last.
pub(super) struct Keys(Mutex<LruCache<SegmentId, (SegmentSeal, Arc<ObjectKey>)>>);

impl Keys {
    pub(super) fn new() -> Self {
        Self(Mutex::new(LruCache::new(KEYS_MAX)))
    }

    /// The key of `segment`, whose commitment was checked against `seal`.
    pub(super) fn get(
        &self,
        vault: &Vault,
        segment: SegmentId,
        seal: &SegmentSeal,
    ) -> Result<Arc<ObjectKey>, DataError> {
        if let Some((opened_with, key)) = self.0.lock().get(&segment)
            && opened_with == seal
        {
            return Ok(Arc::clone(key));
        }
        let key = vault.segment_key(segment, seal).map_err(|error| DataError::from_vault(segment, error))?;
        let key = Arc::new(key);
        self.0.lock().put(segment, (*seal, Arc::clone(&key)));
        Ok(key)
    }
}
