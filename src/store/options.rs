//! How a bucket is opened.

use std::path::PathBuf;
use std::time::Duration;

use super::environment::Environment;
use super::fault::FaultPlan;

/// Where the name of an S3 bucket stands in its address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Addressing {
    /// `https://host/bucket/object`.
    Path,
    /// `https://bucket.host/object`.
    Virtual,
}

/// How a bucket is opened.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// The provider's address, if not the usual one nor in the environment.
    pub endpoint: Option<String>,
    /// The provider's region, likewise.
    pub region: Option<String>,
    /// Where the name of an S3 bucket stands; as the environment says, else in the path.
    pub addressing: Option<Addressing>,
    /// S3 requests do not sign what they carry.
    pub unsigned_payload: bool,
    /// Certificates (PEM) to trust beside the system's.
    pub ca_file: Option<PathBuf>,
    /// The provider's name of the storage class of segments; other objects are of the bucket's usual one.
    pub storage_class: Option<String>,
    /// The profile of the shared AWS files to use, whatever else there is.
    pub aws_profile: Option<String>,
    /// Where settings and credentials are looked up.
    pub environment: Environment,
    /// Makes the directory of a local bucket.
    pub create: bool,
    /// Reads fail after this time.
    pub read_timeout: Duration,
    /// Reads, and as many writes, under way at once.
    pub requests_max: usize,
    /// Pauses between attempts are drawn from this seed, so that a simulation repeats itself; from the
    /// system if `None`.
    pub pause_seed: Option<u64>,
    /// Faults on purpose.
    pub faults: Option<FaultPlan>,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            endpoint: None,
            region: None,
            addressing: None,
            unsigned_payload: false,
            ca_file: None,
            storage_class: None,
            aws_profile: None,
            environment: Environment::default(),
            create: false,
            read_timeout: Duration::from_secs(60),
            requests_max: 64,
            pause_seed: None,
            faults: None,
        }
    }
}
