//! Reads a bucket's URL and opens the store behind it.

use std::path::{Path as FilePath, PathBuf};
use std::sync::Arc;

use object_store::memory::InMemory;
use object_store::path::Path;
use url::Url;

use super::connect::{Connected, CredentialKind, azure, google, s3};
use super::error::{StoreError, detail};
use super::local::LocalStore;
use super::options::StoreOptions;

/// Longest key of an object below the prefix, with room: sealed names of the engine are the longest, 160 bytes.
pub(super) const KEY_BYTES_MAX: usize = 256;
/// Longest prefix: S3, Azure and Google all end at 1,024 bytes of key.
pub(super) const PREFIX_BYTES_MAX: usize = 1024 - 1 - KEY_BYTES_MAX;

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
            if url.query().is_some() || url.fragment().is_some() {
                return Err(bad(
                    "only a directory belongs here; `?` and `#` in its name are written %3F and %23",
                ));
            }
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
        if !bucket.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '.' | '-' | '_' | '$')) {
            return Err(bad("the name of the bucket has characters that none has"));
        }
        let prefix = Path::parse(prefix.trim_matches('/')).map_err(|error| bad(&error.to_string()))?;
        if prefix.as_ref().len() > PREFIX_BYTES_MAX {
            return Err(bad(&format!("the prefix is longer than {PREFIX_BYTES_MAX} bytes")));
        }
        match scheme {
            "s3" => Ok(Self::S3(bucket.to_owned(), prefix)),
            "az" => Ok(Self::Azure(bucket.to_owned(), prefix)),
            "gs" => Ok(Self::Google(bucket.to_owned(), prefix)),
            other => Err(bad(&format!("the scheme `{other}` is not known"))),
        }
    }

    /// The directory that it is, by its own name.
    pub(super) fn directory(&self) -> Option<Arc<FilePath>> {
        match self {
            Self::Local(directory) => directory.canonicalize().ok().map(Into::into),
            _ => None,
        }
    }

    /// The one spelling of a directory that is there, whichever way `text` leads to it; `None` for all else.
    pub(super) fn canonical(&self, text: &str) -> Option<String> {
        let Self::Local(directory) = self else { return None };
        let path = directory.canonicalize().ok()?.into_os_string().into_string().ok()?;
        Some(if text.starts_with("file://") { format!("file://{path}") } else { path })
    }

    /// Whether objects of `class` must be brought back by hand, within hours, before they can be read.
    fn is_offline(&self, class: &str) -> bool {
        match self {
            Self::S3(..) => matches!(class.to_ascii_uppercase().as_str(), "GLACIER" | "DEEP_ARCHIVE"),
            Self::Azure(..) => class.eq_ignore_ascii_case("Archive"),
            // Google's own class of that name is read like any other.
            Self::Google(..) | Self::Local(_) | Self::Memory => false,
        }
    }

    /// Opens the store, every path below the prefix.
    ///
    /// # Errors
    /// The directory is missing, or the settings in the environment do not fit together.
    pub(super) fn connect(&self, url: &str, options: &StoreOptions) -> Result<Connected, StoreError> {
        if let Some(class) = &options.storage_class {
            let refuse = |what: String| Err(StoreError::Settings { url: url.to_owned(), what });
            if matches!(self, Self::Memory | Self::Local(_)) {
                return refuse("storage classes are for buckets of S3, Azure and Google".to_owned());
            }
            if self.is_offline(class) {
                return refuse(format!(
                    "objects of the class {class} cannot be read until they are restored"
                ));
            }
        }
        match self {
            Self::Memory => {
                let credentials = CredentialKind::new("none: this process's memory");
                Ok(Connected { store: Arc::new(InMemory::new()), credentials })
            }
            Self::Local(directory) => local(directory, url, options.create),
            Self::S3(bucket, prefix) => s3(bucket, prefix, url, options),
            Self::Azure(container, prefix) => azure(container, prefix, url, options),
            Self::Google(bucket, prefix) => google(bucket, prefix, url, options),
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

fn local(directory: &FilePath, url: &str, create: bool) -> Result<Connected, StoreError> {
    let failed = |error: &std::io::Error| match error.kind() {
        std::io::ErrorKind::NotFound => StoreError::NoBucket { bucket: url.to_owned() },
        std::io::ErrorKind::PermissionDenied | std::io::ErrorKind::ReadOnlyFilesystem => {
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
    Ok(Connected { store: Arc::new(store), credentials: CredentialKind::new("the directory's permissions") })
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
        for text in [
            "",
            "s3:bucket",
            "s3:///p",
            "s3://a b",
            "s3://b\n/p",
            "ftp://h/p",
            "s3://key:secret@b/p",
            "s3://b/p?token=secret",
            "file:///d?token=secret",
            "file:///d#secret",
        ] {
            let error = Place::parse(text).expect_err(text).to_string();
            assert!(!error.contains("secret"), "{error}");
        }
    }

    #[test]
    fn a_directory_is_known_by_one_name_whichever_way_leads_to_it() {
        let directory = tempfile::tempdir().expect("a directory");
        let (real, link) = (directory.path().join("a b"), directory.path().join("link"));
        std::fs::create_dir(&real).expect("made");
        std::os::unix::fs::symlink(&real, &link).expect("made");
        let known = |text: &str| {
            crate::store::open(text, &StoreOptions::default()).expect(text).known_as().to_owned()
        };
        let want = real.canonicalize().expect("there").display().to_string();
        let here = directory.path().display();
        for text in [
            format!("{here}/a b"),
            format!("{here}/a b/"),
            format!("{here}/a b/../a b"),
            format!("{here}/link"),
            format!("file://{here}/a%20b"),
            format!("file://{here}/link"),
        ] {
            assert_eq!(known(&text), want, "{text}");
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
