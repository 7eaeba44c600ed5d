//! Makes and opens volumes: from a bucket and factors to a filesystem.

mod alone;
mod budget;
mod create;
mod error;
mod examine;
mod fresh;
mod holder;
mod known;
mod local;
mod open;
mod pin;
mod rekey;
mod rotate;
mod seize;
mod trust;
pub mod unsent;

pub use budget::Budget;
pub use create::{Created, NewVolumeSpec, PreparedVolume, create, prepare};
pub use error::{VolumeError, utc};
pub use examine::{Examined, examine};
pub use known::without_header;
pub use open::{OpenOptions, Opened, open, unlock, unlock_by};
pub use rekey::{Rekeying, rekey};
pub use rotate::{PreparedEpoch, Rotated, begin_epoch, end_rotation, prepare_epoch};
pub use seize::{Seized, seize};
pub use trust::{ExpectedCommit, TrustOptions};

/// Where the metadata engine's objects lie.
const RECORDS_CACHE_BYTES: u64 = 64 * 1024 * 1024;

/// How the record engine is opened for a volume that is there.
fn engine_options(
    bucket: &crate::store::Bucket,
    options: &OpenOptions,
) -> crate::meta::engine::EngineOptions {
    crate::meta::engine::EngineOptions {
        create: false,
        cache_bytes: options.table_cache_bytes / 2,
        write_bytes: options.table_write_bytes,
        read_timeout: bucket.read_timeout(),
        meter: Some(bucket.meter().clone()),
        seeds: crate::meta::engine::Seeds::new(std::sync::Arc::clone(&options.entropy)),
        pace: crate::meta::engine::Pace {
            bytes_per_second: options.vfs.clean.bytes_per_second,
            requests_per_second: options.vfs.clean.requests_per_second,
        },
    }
}

/// For the fuzz targets: what is read of the state folder.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub mod fuzzing {
    use std::io::Read;

    use crate::crypto::KeyRing;

    /// Whether `bytes` are a pin of the ring's volume.
    #[must_use]
    pub fn is_pin(bytes: &[u8], ring: &KeyRing) -> bool {
        match super::pin::Pin::decode(bytes, ring) {
            Ok(pin) => pin.encode(ring) == bytes,
            Err(_) => false,
        }
    }

    /// Reads unsent changes to their end.
    pub fn unsent_items(from: impl Read) {
        super::unsent::fuzz_items(from);
    }
}
