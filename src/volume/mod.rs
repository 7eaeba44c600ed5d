//! Makes and opens volumes: from a bucket and factors to a filesystem.

mod create;
mod error;
mod holder;
mod open;
mod pin;

pub use create::{Created, NewVolumeSpec, create};
pub use error::{VolumeError, utc};
pub use open::{OpenOptions, Opened, open, unlock};

/// Where the metadata engine's objects lie.
const RECORDS_CACHE_BYTES: u64 = 64 * 1024 * 1024;
