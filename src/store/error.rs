//! What can go wrong with a bucket, told apart by what the user can do about it.

use std::error::Error as StdError;
use std::io;

use object_store::Error as RawError;

/// Why a bucket cannot be used or an object not be had.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The URL names no bucket.
    #[error(
        "`{url}` names no bucket: {reason}; use a directory, file:///directory, s3://bucket/prefix, \
         az://container/prefix, gs://bucket/prefix or memory:"
    )]
    BadUrl {
        /// The URL as given, without credentials.
        url: String,
        /// Which part is wrong.
        reason: String,
    },
    /// What the bucket is to be reached with cannot be used.
    #[error("the bucket {url} cannot be opened: {what}")]
    Settings {
        /// The bucket's URL.
        url: String,
        /// Which setting or credential, and why.
        what: String,
    },
    /// There are no credentials, or they can be none.
    #[error(
        "the bucket {url} cannot be opened: {what}; docs/OPERATING.md, \"Clouds\", tells where credentials are taken from"
    )]
    Credentials {
        /// The bucket's URL.
        url: String,
        /// What is wrong with which of them, in words without secrets.
        what: String,
    },
    /// The bucket, container or directory is not there.
    #[error("the bucket {bucket} does not exist; create it first or check its name and region")]
    NoBucket {
        /// The bucket's URL.
        bucket: String,
    },
    /// The object is not there.
    #[error("the object {object} does not exist")]
    NotFound {
        /// The object's path in the bucket.
        object: String,
    },
    /// The provider refuses the credentials, or they lack a permission.
    #[error(
        "access to {object} was denied: {detail}; check the credentials and that they may read, write, list \
         and delete"
    )]
    Denied {
        /// What was to be reached.
        object: String,
        /// The provider's words.
        detail: String,
    },
    /// The provider does not answer, or answers with a passing fault.
    #[error(
        "{object} cannot be reached: {detail}; check the network, the endpoint if one is given, and the provider's status"
    )]
    Unavailable {
        /// What was to be reached.
        object: String,
        /// The last fault.
        detail: String,
    },
    /// There is no space left.
    #[error("there is no space left for {object}: {detail}; make room there, and what waits is written")]
    Full {
        /// What was to be written to.
        object: String,
        /// The words of the system.
        detail: String,
    },
    /// An object of that name is there already.
    #[error("the object {object} exists already")]
    AlreadyExists {
        /// The object's path in the bucket.
        object: String,
    },
    /// What lies in the object's place cannot be one.
    #[error("the object {object} cannot be read: {what}")]
    Unfit {
        /// The object's path in the bucket.
        object: String,
        /// What is wrong with it.
        what: String,
    },
    /// The store overwrites objects although told not to.
    #[error(
        "the bucket {bucket} ignores the condition «only if absent» when writing, so that two writers would \
         destroy each other's data; use a store that honours conditional writes"
    )]
    IgnoresPreconditions {
        /// The bucket's URL.
        bucket: String,
    },
    /// The store does something else than what it was asked for.
    #[error("the bucket {bucket} cannot be used: {what}")]
    Misbehaves {
        /// The bucket's URL.
        bucket: String,
        /// What it did.
        what: String,
    },
    /// A fault that none of the others describes.
    #[error("the request for {object} failed: {detail}")]
    Other {
        /// What was to be reached.
        object: String,
        /// The provider's words.
        detail: String,
    },
}

impl StoreError {
    /// Tells what `error` means for the object at `object`.
    #[must_use]
    pub fn from_raw(object: &str, error: &RawError) -> Self {
        let object = object.to_owned();
        match classify(error) {
            Trouble::Missing => Self::NotFound { object },
            Trouble::Exists => Self::AlreadyExists { object },
            Trouble::Unfit => Self::Unfit { object, what: unfit(error).unwrap_or_default() },
            Trouble::NoBucket => Self::NoBucket { bucket: object },
            Trouble::Denied => Self::Denied { object, detail: detail(error) },
            Trouble::Transient if is_full(error) => Self::Full { object, detail: detail(error) },
            Trouble::Transient => Self::Unavailable { object, detail: detail(error) },
            Trouble::Rejected | Trouble::Final => Self::Other { object, detail: detail(error) },
        }
    }
}

/// What lies in an object's place, of which the store can say that it is no object. Not a fault of the store.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Unfit(pub(super) &'static str);

/// What an error of the object store asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Trouble {
    /// The object is absent: an answer, not a fault.
    Missing,
    /// The object is there already, or a condition failed: an answer, not a fault.
    Exists,
    /// Something lies in the object's place that can be none: an answer, not a fault.
    Unfit,
    /// The bucket itself is absent.
    NoBucket,
    /// Credentials are missing, wrong, or lack a permission.
    Denied,
    /// The request is refused for what it says; repeating it helps only if the bucket changes.
    Rejected,
    /// The network or the provider failed; repeating the request may help.
    Transient,
    /// The request can never succeed.
    Final,
}

impl Trouble {
    /// Whether the store answered, so that the error says nothing about its health.
    pub(crate) const fn is_answer(self) -> bool {
        matches!(self, Self::Missing | Self::Exists | Self::Unfit | Self::Rejected | Self::Final)
    }
}

const NO_BUCKET: [&str; 4] =
    ["NoSuchBucket", "ContainerNotFound", "The specified bucket does not exist", "ContainerBeingDeleted"];
const DENIED: [&str; 11] = [
    "AccessDenied",
    "AllAccessDisabled",
    "InvalidAccessKeyId",
    "SignatureDoesNotMatch",
    "ExpiredToken",
    "InvalidToken",
    "AuthorizationHeaderMalformed",
    "AuthenticationFailed",
    "status code: 401",
    "status code: 403",
    "MissingCredentials",
];
/// A redirect, which no client of ours follows.
const ELSEWHERE: &str = "status code: 3";
/// What a request gets that would be refused again: bad statuses, a wrong region, a range past the end.
const REJECTED: [&str; 6] = [
    ELSEWHERE,
    "status code: 4",
    "without LOCATION",
    "Wanted range starting at",
    "Requested range was invalid",
    "Range started at",
];
/// Statuses that pass: request timeout, too early, too many requests. And what is answered with 400 where a body has not
/// come whole, or too late.
const PASSING: [&str; 7] = [
    "status code: 408",
    "status code: 425",
    "status code: 429",
    "RequestTimeout",
    "IncompleteBody",
    "BadDigest",
    "XAmzContentSHA256Mismatch",
];
/// What servers say that stand before a store: they know nothing of its objects.
const PAGE_NOT_FOUND: [&str; 4] = ["404 page not found", "<html", "<HTML", "<!DOCTYPE"];

/// How providers say that a request is not of this hour.
const SKEWED: [&str; 3] = ["RequestTimeTooSkewed", "RequestExpired", "Request date header too old"];

/// Sorts an error of the object store by what can be done about it.
pub(crate) fn classify(error: &RawError) -> Trouble {
    match error {
        RawError::NotFound { .. } if mentions(error, &NO_BUCKET) => Trouble::NoBucket,
        RawError::NotFound { .. } if mentions(error, &PAGE_NOT_FOUND) => Trouble::Transient,
        RawError::NotFound { .. } => Trouble::Missing,
        RawError::AlreadyExists { .. } | RawError::Precondition { .. } | RawError::NotModified { .. } => {
            Trouble::Exists
        }
        RawError::PermissionDenied { .. } | RawError::Unauthenticated { .. } => Trouble::Denied,
        RawError::NotSupported { .. }
        | RawError::NotImplemented { .. }
        | RawError::InvalidPath { .. }
        | RawError::UnknownConfigurationKey { .. } => Trouble::Final,
        _ if mentions(error, &["status code: 501"]) => Trouble::Final,
        _ => classify_unnamed(error),
    }
}

fn classify_unnamed(error: &RawError) -> Trouble {
    if unfit(error).is_some() {
        return Trouble::Unfit;
    }
    if let Some(kind) = io_kind(error) {
        return match kind {
            io::ErrorKind::PermissionDenied | io::ErrorKind::ReadOnlyFilesystem => Trouble::Denied,
            io::ErrorKind::NotFound => Trouble::Missing,
            io::ErrorKind::IsADirectory => Trouble::Unfit,
            _ => Trouble::Transient,
        };
    }
    if mentions(error, &NO_BUCKET) {
        Trouble::NoBucket
    } else if mentions(error, &DENIED) {
        Trouble::Denied
    } else if mentions(error, &PASSING) {
        Trouble::Transient
    } else if mentions(error, &REJECTED) {
        Trouble::Rejected
    } else {
        Trouble::Transient
    }
}

fn mentions(error: &RawError, words: &[&str]) -> bool {
    let text = error.to_string();
    words.iter().any(|word| text.contains(word))
}

/// What is wrong with the object itself, if that is why it was not had.
pub(super) fn unfit(error: &RawError) -> Option<String> {
    if io_kind(error) == Some(io::ErrorKind::IsADirectory) {
        return Some("it is a directory and no file".to_owned());
    }
    let RawError::Generic { source, .. } = error else { return None };
    source.downcast_ref::<Unfit>().map(ToString::to_string)
}

/// Whether there is no space left where the object was to be written.
pub(super) fn is_full(error: &RawError) -> bool {
    matches!(io_kind(error), Some(io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded))
}

fn io_kind(error: &RawError) -> Option<io::ErrorKind> {
    let mut source: Option<&(dyn StdError + 'static)> = error.source();
    while let Some(current) = source {
        if let Some(io) = current.downcast_ref::<io::Error>() {
            return Some(io.kind());
        }
        source = current.source();
    }
    None
}

/// The provider's words on one line, cut where they get long.
pub(crate) fn detail(error: &RawError) -> String {
    const CHARS_MAX: usize = 300;
    let mut text = error.to_string();
    // What lies at the bottom tells most, and not every error repeats it: «connection refused», «unknown host».
    if let Some(root) = root(error).filter(|root| !text.contains(root.as_str())) {
        text = format!("{text}: {root}");
    }
    if mentions(error, &[ELSEWHERE]) {
        text.insert_str(0, "the store sends its clients elsewhere, and is not followed: ");
    }
    if mentions(error, &SKEWED) {
        text.insert_str(0, "this machine's clock is wrong, says the provider: ");
    }
    let mut line: String =
        text.chars().map(|c| if c.is_control() { ' ' } else { c }).take(CHARS_MAX).collect();
    if text.chars().count() > CHARS_MAX {
        line.push('…');
    }
    line
}

fn root(error: &RawError) -> Option<String> {
    let mut root = error.source()?;
    while let Some(source) = root.source() {
        root = source;
    }
    Some(root.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn generic(text: &str) -> RawError {
        RawError::Generic { store: "S3", source: text.to_owned().into() }
    }

    #[test]
    fn denied_missing_bucket_rejected_and_passing_faults_are_told_apart() {
        let path = || "a".to_owned();
        for (error, trouble) in [
            (RawError::NotFound { path: path(), source: "x".into() }, Trouble::Missing),
            (
                RawError::NotFound { path: path(), source: "<Code>NoSuchBucket</Code>".into() },
                Trouble::NoBucket,
            ),
            (
                RawError::NotFound { path: path(), source: "404 Not Found: 404 page not found".into() },
                Trouble::Transient,
            ),
            (
                RawError::NotFound { path: path(), source: "<html><h1>404 Not Found</h1></html>".into() },
                Trouble::Transient,
            ),
            (RawError::AlreadyExists { path: path(), source: "x".into() }, Trouble::Exists),
            (RawError::PermissionDenied { path: path(), source: "x".into() }, Trouble::Denied),
            (RawError::Unauthenticated { path: path(), source: "x".into() }, Trouble::Denied),
            (generic("non-2xx status code: 400 InvalidAccessKeyId"), Trouble::Denied),
            (generic("non-2xx status code: 400 Bad Request"), Trouble::Rejected),
            (generic("non-2xx status code: 400 <Code>RequestTimeout</Code>"), Trouble::Transient),
            (generic("could not be deleted: Access Denied (code: AccessDenied)"), Trouble::Denied),
            (generic("non-2xx status code: 429 Too Many Requests"), Trouble::Transient),
            (generic("non-2xx status code: 503 Slow Down"), Trouble::Transient),
            (generic("error sending request"), Trouble::Transient),
            (generic("Wanted range starting at 64, but object was only 5 bytes long"), Trouble::Rejected),
            (
                RawError::Generic {
                    store: "L",
                    source: Box::new(io::Error::from(io::ErrorKind::PermissionDenied)),
                },
                Trouble::Denied,
            ),
            (
                RawError::Generic {
                    store: "L",
                    source: Box::new(io::Error::from(io::ErrorKind::StorageFull)),
                },
                Trouble::Transient,
            ),
        ] {
            assert_eq!(classify(&error), trouble, "{error}");
        }
    }

    #[test]
    fn a_full_disk_is_an_outage_of_its_own_kind_and_is_waited_for() {
        for kind in [io::ErrorKind::StorageFull, io::ErrorKind::QuotaExceeded] {
            let full = RawError::Generic { store: "L", source: Box::new(io::Error::from(kind)) };
            assert_eq!(classify(&full), Trouble::Transient);
            let meter = crate::store::Meter::default();
            meter.note::<()>(&Err(full));
            assert_eq!(meter.outage(), Some(crate::store::OutageKind::Full));
        }
    }

    #[test]
    fn the_cause_at_the_bottom_is_told() {
        #[derive(Debug, thiserror::Error)]
        #[error("error sending request")]
        struct Outer(#[source] io::Error);
        let refused = Outer(io::Error::from(io::ErrorKind::ConnectionRefused));
        let error = RawError::Generic { store: "S3", source: Box::new(refused) };
        let told = detail(&error);
        assert!(told.ends_with("error sending request: connection refused"), "{told}");
        assert_eq!(detail(&generic("once")).matches("once").count(), 1);
    }

    #[test]
    fn a_message_is_one_line_of_bounded_length() {
        let error = generic(&"two\nlines ".repeat(100));
        let text = StoreError::from_raw("x", &error).to_string();
        assert!(!text.contains('\n'), "{text}");
        assert!(text.chars().count() < 500, "{text}");
    }
}
