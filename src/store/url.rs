//! Reads a bucket's URL and opens the store behind it.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::aws::{AmazonS3Builder, AmazonS3ConfigKey};
use object_store::azure::{AzureConfigKey, MicrosoftAzureBuilder};
use object_store::client::ClientConfigKey;
use object_store::gcp::{GoogleCloudStorageBuilder, GoogleConfigKey};
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ObjectStore, RetryConfig};
use url::Url;

use super::StoreOptions;
use super::error::{StoreError, detail};
use super::local::LocalStore;

/// Where a bucket is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Place {
    /// A directory of this machine.
    Local(PathBuf),
    /// This process's memory.
    Memory,
    /// An S3 bucket and the prefix within.
    S3(String, Path),
    /// An Azure container and the prefix within.
    Azure(String, Path),
    /// A Google bucket and the prefix within.
    Google(String, Path),
}

impl Place {
    /// Reads `text`.
    ///
    /// # Errors
    /// [`StoreError::BadUrl`].
    pub(crate) fn parse(text: &str) -> Result<Self, StoreError> {
        let bad = |reason: &str| StoreError::BadUrl { url: shown(text), reason: reason.to_owned() };
        if text.is_empty() {
            return Err(bad("it is empty"));
        }
        if matches!(text, "memory:" | "memory://" | "memory:///") {
            return Ok(Self::Memory);
        }
        let Some((scheme, rest)) = text.split_once("://") else {
            let scheme = text.split_once(':').map_or("", |(scheme, _)| scheme);
            return if matches!(scheme, "file" | "s3" | "az" | "gs" | "http" | "https" | "memory") {
                Err(bad("`//` is missing after the scheme"))
            } else {
                Ok(Self::Local(PathBuf::from(text)))
            };
        };
        if scheme == "file" {
            let url = Url::parse(text).map_err(|error| bad(&error.to_string()))?;
            let path =
                url.to_file_path().map_err(|()| bad("it must be file:/// and an absolute directory"))?;
            return Ok(Self::Local(path));
        }
        let (bucket, prefix) = rest.split_once('/').unwrap_or((rest, ""));
        if bucket.is_empty() {
            return Err(bad("the name of the bucket is missing"));
        }
        if bucket.contains(['@', ':', '?', '#']) || prefix.contains(['?', '#']) {
            return Err(bad("only a bucket and a prefix belong here; credentials go into the environment"));
        }
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| bad(&error.to_string()))?;
        match scheme {
            "s3" => Ok(Self::S3(bucket.to_owned(), prefix)),
            "az" => Ok(Self::Azure(bucket.to_owned(), prefix)),
            "gs" => Ok(Self::Google(bucket.to_owned(), prefix)),
            other => Err(bad(&format!("the scheme `{other}` is not known"))),
        }
    }

    /// Opens the store, every path below the prefix.
    ///
    /// # Errors
    /// The directory is missing, or the settings in the environment do not fit together.
    pub(crate) fn connect(
        &self,
        url: &str,
        options: &StoreOptions,
    ) -> Result<Arc<dyn ObjectStore>, StoreError> {
        let failed =
            |error: object_store::Error| StoreError::Other { object: url.to_owned(), detail: detail(&error) };
        match self {
            Self::Memory => Ok(Arc::new(InMemory::new())),
            Self::Local(directory) => local(directory, url, options.create),
            Self::S3(bucket, prefix) => {
                let store = s3(bucket, options).build().map_err(failed)?;
                Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
            }
            Self::Azure(container, prefix) => {
                let store = azure(container, options).build().map_err(failed)?;
                Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
            }
            Self::Google(bucket, prefix) => {
                let store = google(bucket, options).build().map_err(failed)?;
                Ok(Arc::new(PrefixStore::new(store, prefix.clone())))
            }
        }
    }
}

/// `text` without what may be a secret.
pub(crate) fn shown(text: &str) -> String {
    let without_query = text.split(['?', '#']).next().unwrap_or_default();
    match without_query.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_once('/').unwrap_or((rest, ""));
            let host = host.rsplit('@').next().unwrap_or_default();
            if path.is_empty() { format!("{scheme}://{host}") } else { format!("{scheme}://{host}/{path}") }
        }
        None => text.to_owned(),
    }
}

/// One spelling for what names the same place, and the store's address if it is not the usual one.
pub(crate) fn known_as(url: &str, endpoint: Option<&str>) -> String {
    let place = url.strip_prefix("file://").unwrap_or(url).trim_end_matches('/');
    match endpoint {
        Some(endpoint) => format!("{place} at {}", endpoint.trim_end_matches('/')),
        None => place.to_owned(),
    }
}

fn local(directory: &FilePath, url: &str, create: bool) -> Result<Arc<dyn ObjectStore>, StoreError> {
    let failed = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::NoBucket { bucket: url.to_owned() },
        std::io::ErrorKind::PermissionDenied => {
            StoreError::Denied { object: url.to_owned(), detail: error.to_string() }
        }
        _ => StoreError::Other { object: url.to_owned(), detail: error.to_string() },
    };
    if create {
        std::fs::create_dir_all(directory).map_err(|error| failed(&error))?;
    }
    let kind = std::fs::metadata(directory).map_err(|error| failed(&error))?;
    if !kind.is_dir() {
        let reason = "it is not a directory".to_owned();
        return Err(StoreError::BadUrl { url: url.to_owned(), reason });
    }
    let store = LocalStore::open(directory)
        .map_err(|error| StoreError::Other { object: url.to_owned(), detail: detail(&error) })?;
    Ok(Arc::new(store))
}

/// Repeats nothing: our own policy sits above and would not know of hidden attempts.
fn no_retries() -> RetryConfig {
    RetryConfig {
        backoff: BackoffConfig::default(),
        max_retries: 0,
        retry_timeout: std::time::Duration::from_secs(1),
    }
}

/// The client's own limits: above those of the policy, which knows the size of what it sends.
const CLIENT: [(ClientConfigKey, &str); 3] = [
    (ClientConfigKey::Timeout, "1 hour"),
    (ClientConfigKey::ConnectTimeout, "10 seconds"),
    (ClientConfigKey::PoolIdleTimeout, "60 seconds"),
];

fn is_plain_http(endpoint: Option<&String>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

pub(super) fn s3(bucket: &str, options: &StoreOptions) -> AmazonS3Builder {
    let mut builder = AmazonS3Builder::from_env().with_bucket_name(bucket).with_retry(no_retries());
    for (key, value) in CLIENT {
        builder = builder.with_config(AmazonS3ConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint);
    }
    if let Some(region) = &options.region {
        builder = builder.with_region(region);
    }
    let plain = is_plain_http(builder.get_config_value(&AmazonS3ConfigKey::Endpoint).as_ref());
    if plain { builder.with_allow_http(true) } else { builder }
}

fn azure(container: &str, options: &StoreOptions) -> MicrosoftAzureBuilder {
    let mut builder =
        MicrosoftAzureBuilder::from_env().with_container_name(container).with_retry(no_retries());
    for (key, value) in CLIENT {
        builder = builder.with_config(AzureConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_endpoint(endpoint.clone());
    }
    let plain = is_plain_http(builder.get_config_value(&AzureConfigKey::Endpoint).as_ref());
    if plain { builder.with_allow_http(true) } else { builder }
}

fn google(bucket: &str, options: &StoreOptions) -> GoogleCloudStorageBuilder {
    let mut builder = GoogleCloudStorageBuilder::from_env().with_bucket_name(bucket).with_retry(no_retries());
    for (key, value) in CLIENT {
        builder = builder.with_config(GoogleConfigKey::Client(key), value);
    }
    if let Some(endpoint) = &options.endpoint {
        builder = builder.with_base_url(endpoint);
        if is_plain_http(Some(endpoint)) {
            builder = builder.with_config(GoogleConfigKey::Client(ClientConfigKey::AllowHttp), "true");
        }
    }
    builder
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_documented_form_names_its_bucket() {
        for (text, place) in [
            ("memory:", Place::Memory),
            ("/srv/backup", Place::Local("/srv/backup".into())),
            ("backup", Place::Local("backup".into())),
            ("file:///srv/my%20backup", Place::Local("/srv/my backup".into())),
            ("s3://b/p/q/", Place::S3("b".into(), Path::from("p/q"))),
            ("s3://b", Place::S3("b".into(), Path::default())),
            ("az://c/p", Place::Azure("c".into(), Path::from("p"))),
            ("gs://b/p", Place::Google("b".into(), Path::from("p"))),
        ] {
            assert_eq!(Place::parse(text).expect(text), place);
        }
    }

    #[test]
    fn a_bad_url_is_refused_and_its_secret_not_repeated() {
        for text in ["", "s3:bucket", "s3:///p", "ftp://h/p", "s3://key:secret@b/p", "s3://b/p?token=secret"]
        {
            let error = Place::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_missing_directory_is_told_apart_from_a_file() {
        let directory = tempfile::tempdir().expect("a directory");
        let options = StoreOptions::default();
        let missing = Place::Local(directory.path().join("none"));
        assert!(matches!(missing.connect("x", &options), Err(StoreError::NoBucket { .. })));
        let file = directory.path().join("file");
        std::fs::write(&file, b"x").expect("a file");
        assert!(matches!(Place::Local(file).connect("x", &options), Err(StoreError::BadUrl { .. })));
        let create = StoreOptions { create: true, ..StoreOptions::default() };
        assert!(missing.connect("x", &create).is_ok());
    }
}
