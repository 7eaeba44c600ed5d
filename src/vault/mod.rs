//! Sealed objects by id: everything that leaves or enters the process passes here.

mod chunks;
mod error;
mod geometry;
pub mod header;
mod names;
mod open;
pub mod peek;
mod sealed;
mod sealer;
mod segment;
mod staged;
pub mod stream;
#[cfg(test)]
mod tests;
pub mod unfinished;

use std::sync::Arc;

use object_store::ObjectStore;

pub use error::{Damage, VaultError};
pub use segment::segment_name;

use crate::base::{Entropy, Gauge, Pool};
use crate::crypto::KeyRing;
use crate::store::Bucket;

/// The store that the record engine is given.
pub type MetaStore = Arc<dyn ObjectStore>;

/// The sealed objects of one volume in its bucket. Clones share everything.
#[derive(Clone)]
pub struct Vault(Arc<Inner>);

struct Inner {
    bucket: Bucket,
    ring: Arc<KeyRing>,
    entropy: Arc<dyn Entropy>,
    cached: Gauge,
}

impl Vault {
    /// The volume of `ring` in `bucket`.
    #[must_use]
    pub fn new(bucket: Bucket, ring: Arc<KeyRing>, entropy: Arc<dyn Entropy>) -> Self {
        Self(Arc::new(Inner { bucket, ring, entropy, cached: Gauge::default() }))
    }

    /// The volume's keys.
    #[must_use]
    pub fn ring(&self) -> &Arc<KeyRing> {
        &self.0.ring
    }

    /// Where randomness comes from.
    #[must_use]
    pub fn entropy(&self) -> &dyn Entropy {
        &*self.0.entropy
    }

    /// The bucket below.
    #[must_use]
    pub fn bucket(&self) -> &Bucket {
        &self.0.bucket
    }

    /// Bytes of sealed metadata in memory.
    #[must_use]
    pub fn cached(&self) -> &Gauge {
        &self.0.cached
    }

    /// The store for the record engine: paths and objects sealed, read through a cache of up to
    /// `cache_bytes` of sealed bytes.
    #[must_use]
    pub fn meta_store(&self, cache_bytes: u64) -> MetaStore {
        self.meta_store_in_pool(cache_bytes, &Pool::new())
    }

    /// As [`Vault::meta_store`], with a cache that brings `cache_bytes` into `pool` and keeps them.
    #[must_use]
    pub fn meta_store_in_pool(&self, cache_bytes: u64, pool: &Arc<Pool>) -> MetaStore {
        Arc::new(sealed::SealedStore::new(self.clone(), cache_bytes, pool))
    }
}
