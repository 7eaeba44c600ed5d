//! Credentials for S3 where AWS's own tools look for them, behind the client's trait for credentials.
//!
//! The client itself knows keys in variables only. What is read here is documented at
//! <https://docs.aws.amazon.com/sdkref/latest/guide/standardized-credentials.html>.

mod aside;
mod chain;
mod http;
mod instance;
mod process;
mod profile;
mod provider;
mod renewal;
mod sso;
mod sts;

use std::time::SystemTime;

use chrono::{DateTime, Utc};
use object_store::aws::AwsCredential;
use serde_json::Value;

pub(super) use chain::{Found, files, find};
pub(super) use http::Http;

/// Credentials as they were obtained.
struct Answer {
    credential: AwsCredential,
    /// When they end; never if `None`.
    expires: Option<SystemTime>,
}

/// Why there are none. Says nothing that a secret could be part of.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Failure {
    /// Whoever gives them out does not answer; asking again may help.
    Unreachable(String),
    /// They are refused, missing or make no sense: a person must see to it.
    Refused(String),
}

impl Failure {
    fn words(&self) -> &str {
        match self {
            Self::Unreachable(words) | Self::Refused(words) => words,
        }
    }
}

/// Reads credentials in JSON, as a process, a container's agent and an instance's metadata give them; `token` is what
/// the session's token is called there.
fn from_json(json: &Value, token: &str, origin: &str) -> Result<Answer, Failure> {
    let text = |name: &str| json.get(name).and_then(Value::as_str).filter(|text| !text.is_empty());
    let missing = |name: &str| Failure::Refused(format!("{origin} gave no {name}"));
    let expires = match text("Expiration") {
        Some(text) => Some(time(text).ok_or_else(|| missing("Expiration that is a time"))?),
        None => None,
    };
    let key_id = text("AccessKeyId").ok_or_else(|| missing("AccessKeyId"))?.to_owned();
    let secret_key = text("SecretAccessKey").ok_or_else(|| missing("SecretAccessKey"))?.to_owned();
    let credential = AwsCredential { key_id, secret_key, token: text(token).map(str::to_owned) };
    fits_headers(&credential, origin)?;
    Ok(Answer { credential, expires })
}

/// The client panics over a token that cannot stand in a header.
fn fits_headers(credential: &AwsCredential, origin: &str) -> Result<(), Failure> {
    let parts = [Some(&credential.key_id), credential.token.as_ref()];
    let is_fit = |text: &String| text.bytes().all(|byte| (b' '..=b'~').contains(&byte));
    match parts.into_iter().flatten().all(is_fit) {
        true => Ok(()),
        false => Err(Failure::Refused(format!("{origin} gave a key or token with characters that none has"))),
    }
}

/// A moment as ISO 8601 has it; old caches end in `UTC`.
fn time(text: &str) -> Option<SystemTime> {
    let text = text.replace("UTC", "Z");
    DateTime::parse_from_rfc3339(&text).ok().map(|time| time.with_timezone(&Utc).into())
}
