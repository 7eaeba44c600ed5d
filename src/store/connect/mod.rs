//! Opens the clients of the providers: what all of them share, and who vouches for whom.

mod azure;
mod bounded;
mod google;
mod near;
mod s3;
mod straight;

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use object_store::path::Path;
use object_store::prefix::PrefixStore;
use object_store::{BackoffConfig, ClientConfigKey, ObjectStore, RetryConfig};
use reqwest::Certificate;

pub(super) use azure::azure;
pub(super) use google::google;
pub(super) use near::{address, is_of_host};
pub(super) use s3::s3;
pub(super) use straight::Straight;

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

/// What is wrong with the credentials for `url`.
fn no_entry(url: &str, what: impl Into<String>) -> StoreError {
    StoreError::Credentials { url: url.to_owned(), what: what.into() }
}

/// Words of which the names of variables with secrets are made.
const SECRET_WORDS: [&str; 5] = ["KEY", "SECRET", "TOKEN", "SAS", "PASSWORD"];
/// Ends of names of variables that name files.
const FILE_WORDS: [&str; 5] = ["_FILE", "_CREDENTIALS", "_PATH", "_ACCOUNT", "_BUNDLE"];

/// The value of a variable, if it can stand in a request: the clients panic over some that cannot.
fn fit<'a>(url: &str, name: &str, value: &'a str) -> Result<&'a str, StoreError> {
    let is_file = FILE_WORDS.iter().any(|word| name.ends_with(word));
    if value.chars().all(|c| !c.is_control() && (is_file || c.is_ascii())) {
        return Ok(value);
    }
    let what = format!("the variable {name} has characters that it cannot have, such as line breaks within");
    let is_secret = !is_file && SECRET_WORDS.iter().any(|word| name.contains(word));
    Err(if is_secret { no_entry(url, what) } else { unusable(url, what) })
}

/// Makes sure that an address names a server: the clients panic over one that does not.
fn check_endpoint(url: &str, endpoint: Option<&str>) -> Result<(), StoreError> {
    let Some(endpoint) = endpoint else { return Ok(()) };
    let bad = |why: &str| {
        let shown = crate::store::url::shown(endpoint).escape_debug().to_string();
        Err(unusable(url, format!("`{shown}` is no address of a store: {why}, such as https://host:9000")))
    };
    let is_plain =
        endpoint.bytes().all(|byte| byte.is_ascii_graphic()) && !endpoint.contains(['\\', '?', '#', '@']);
    match url::Url::parse(endpoint) {
        Ok(parsed) if !matches!(parsed.scheme(), "http" | "https") => {
            bad("it must begin with https:// or http://")
        }
        Ok(parsed) if is_plain && parsed.host_str().is_some_and(|host| !host.is_empty()) => Ok(()),
        Ok(_) => bad("it must be a scheme, a host and perhaps a port and a path"),
        Err(_) if !endpoint.contains("://") => bad("it must begin with https:// or http://"),
        Err(_) => bad("it must name a host"),
    }
}

/// Makes sure that a region can be part of an address.
fn check_region(url: &str, region: Option<&str>) -> Result<(), StoreError> {
    let can_be = |c: char| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.');
    match region {
        Some(region) if region.is_empty() || !region.chars().all(can_be) => {
            Err(unusable(url, format!("`{}` is no region", region.escape_debug())))
        }
        _ => Ok(()),
    }
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

/// What makes the clients: it knows the certificates that they trust beside the system's.
fn connector(url: &str, ca_file: Option<&std::path::Path>) -> Result<Straight, StoreError> {
    let Some(file) = ca_file else { return Ok(Straight::default()) };
    let bad = |why: String| {
        let file = file.display();
        let what = format!("the certificates in {file} cannot be used: {why}");
        unusable(
            url,
            format!("{what}; name a file of certificates in PEM form by --ca-file or AWS_CA_BUNDLE"),
        )
    };
    let pem = std::fs::read(file).map_err(|error| bad(error.to_string()))?;
    let certificates = Certificate::from_pem_bundle(&pem).map_err(|error| bad(error.to_string()))?;
    if certificates.is_empty() {
        return Err(bad("there is none in PEM form".to_owned()));
    }
    Ok(Straight { certificates })
}

fn is_plain_http(endpoint: Option<&str>) -> bool {
    endpoint.is_some_and(|endpoint| endpoint.starts_with("http://"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_names_no_server_is_refused() {
        for endpoint in
            ["http://localhost:9000", "https://s3.example.org/path/", "http://[::1]:9000", "https://10.0.0.1"]
        {
            check_endpoint("s3://b", Some(endpoint)).unwrap();
        }
        for endpoint in [
            "",
            "foo",
            "localhost:9000",
            "http://",
            "http://a b",
            "http://[::1",
            "ftp://host",
            "http://h/\n",
            "http://k:secret@h",
            "http://h?token=secret",
            "http://h:99999",
            "http://ü",
            "file:///x",
        ] {
            let error = check_endpoint("s3://b", Some(endpoint)).expect_err(endpoint);
            assert!(matches!(error, StoreError::Settings { .. }), "{error:?}");
            assert!(!error.to_string().contains("secret") && !error.to_string().contains('\n'), "{error}");
        }
    }

    #[test]
    fn a_region_or_variable_that_no_request_can_carry_is_refused_and_not_repeated() {
        check_region("s3://b", Some("eu-central-1")).unwrap();
        for region in ["", "x\ny", "a b", "a/b", "host#", "ü"] {
            assert!(check_region("s3://b", Some(region)).is_err(), "{region:?}");
        }
        fit("s3://b", "AWS_CA_BUNDLE", "/für/mich.pem").unwrap();
        for name in ["AWS_SESSION_TOKEN", "AWS_ACCESS_KEY_ID", "AZURE_STORAGE_SAS_TOKEN"] {
            let error = fit("s3://b", name, "hunter2\nhunter3").unwrap_err();
            assert!(matches!(error, StoreError::Credentials { .. }), "{error:?}");
            assert!(error.to_string().contains(name) && !error.to_string().contains("hunter"), "{error}");
        }
        assert!(matches!(fit("s3://b", "AWS_REGION", "x\ny"), Err(StoreError::Settings { .. })));
    }
}
