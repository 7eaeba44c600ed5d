//! A figure that one part keeps and others may read at any time.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

/// A figure, such as the bytes that a cache holds. Clones share it.
#[derive(Clone, Debug, Default)]
pub struct Gauge(Arc<AtomicU64>);

impl Gauge {
    /// Sets it.
    pub fn set(&self, value: u64) {
        self.0.store(value, Ordering::Relaxed);
    }

    /// Its value.
    #[must_use]
    pub fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
