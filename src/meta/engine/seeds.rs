//! Where SlateDB's random numbers begin, so that a simulation repeats itself.

use std::fmt;
use std::sync::Arc;

use object_store::ObjectStore;
use slatedb::admin::{Admin, AdminBuilder};

use super::DATABASE;
use crate::base::{Entropy, OsEntropy};

/// Seeds for SlateDB's generators, which draw the names of tables and the lengths of pauses. Each part of
/// SlateDB gets a seed of its own: two that shared one could draw the same name.
#[derive(Clone)]
pub struct Seeds(Arc<dyn Entropy>);

impl Seeds {
    /// Seeds drawn from `entropy`.
    #[must_use]
    pub fn new(entropy: Arc<dyn Entropy>) -> Self {
        Self(entropy)
    }

    /// A seed for one generator.
    pub(super) fn next(&self) -> u64 {
        let mut bytes = [0; 8];
        self.0.fill(&mut bytes);
        u64::from_le_bytes(bytes)
    }
}

impl Seeds {
    /// What reads and changes the database's own affairs. It pauses between attempts, as every part of SlateDB.
    pub(super) fn admin(&self, store: &Arc<dyn ObjectStore>) -> Admin {
        AdminBuilder::new(DATABASE, store.clone()).with_seed(self.next()).build()
    }
}

impl Default for Seeds {
    fn default() -> Self {
        Self(Arc::new(OsEntropy))
    }
}

impl fmt::Debug for Seeds {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Seeds")
    }
}
