//! Opens the clients of the providers: what all of them share, and who vouches for whom.

mod azure;
mod google;
mod s3;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, Certificate, ClientConfigKey, ClientOptions, ObjectStore, RetryConfig};

pub(super) use azure::azure;
pub(super) use google::google;
pub(super) use s3::s3;

use super::error::{StoreError, detail};

/// By what a store lets us in: the kind of credentials and where they are from, never what they are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CredentialKind(pub(super) String);

impl CredentialKind {
    pub(super) fn new(words: impl Into<String>) -> Self {
        Self(words.into())
    }
}

impl fmt::Display for CredentialKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A store and by what it lets us in.
pub(super) struct Connected {
    pub(super) store: Arc<dyn ObjectStore>,
    pub(super) credentials: CredentialKind,
}

impl Connected {
    /// `store`, every path below `prefix`.
    fn below(prefix: &Path, store: impl ObjectStore, credentials: CredentialKind) -> Self {
        Self { store: Arc::new(PrefixStore::new(store, prefix.clone())), credentials }
    }
}

/// What is wrong with the settings of `url`.
fn unusable(url: &str, what: impl Into<String>) -> StoreError {
    StoreError::Settings { url: url.to_owned(), what: what.into() }
}

fn failed(url: &str, error: &object_store::Error) -> StoreError {
    unusable(url, detail(error))
}

/// Repeats nothing: our own policy sits above and would not know of hidden attempts.
fn no_retries() -> RetryConfig {
    RetryConfig { backoff: BackoffConfig::default(), max_retries: 0, retry_timeout: Duration::from_secs(1) }
}

/// The client's own limits: above those of the policy, which knows the size of what it sends.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::Timeout, "1 hour"),
    (ClientConfigKey::ConnectTimeout, "10 seconds"),
    (ClientConfigKey::PoolIdleTimeout, "60 seconds"),
];

/// What a client begins with: the certificates it trusts beside the system's.
fn client(url: &str, ca_file: Option<&std::path::Path>) -> Result<ClientOptions, StoreError> {
    let mut options = ClientOptions::new();
    let Some(file) = ca_file else { return Ok(options) };
    let bad =
        |why: String| unusable(url, format!("the certificates in {} cannot be used: {why}", file.display()));
    let pem = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(detail(&error)))?;
    if certificates.is_empty() {
        return Err(bad("there is none in PEM form".to_owned()));
    }
    for certificate in certificates {
        options = options.with_root_certificate(certificate);
    }
    Ok(options)
}

fn is_plain_http(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}
