//! Keeps credentials until they end or the files they are from change.

use std::fmt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error as RawError, Result as RawResult};
use tokio::sync::Mutex;
use tokio::time::Instant;

use super::Failure;
use super::chain::Finder;
use super::http::Http;
use super::profile::Stamp;

/// Credentials that end sooner are asked for anew.
const RENEW_BEFORE: Duration = Duration::from_secs(5 * 60);
/// Where there are no longer ones to be had, and after a failure, so much later at the soonest.
const PAUSE: Duration = Duration::from_secs(1);

/// Credentials as they are now.
pub(in crate::store) struct Provider {
    finder: Finder,
    http: Http,
    held: Mutex<Option<Held>>,
}

struct Held {
    credential: Arc<AwsCredential>,
    expires: Option<SystemTime>,
    stamp: Stamp,
    asked: Instant,
}

impl Held {
    fn lives_for(&self) -> Option<Duration> {
        self.expires.map(|ends| ends.duration_since(SystemTime::now()).unwrap_or_default())
    }

    fn is_fresh(&self, stamp: &Stamp) -> bool {
        let is_young = self.asked.elapsed() < PAUSE;
        let lives = match self.lives_for() {
            None => true,
            Some(left) => left > RENEW_BEFORE || (is_young && !left.is_zero()),
        };
        lives && (self.stamp == *stamp || is_young)
    }
}

impl Provider {
    pub(super) fn new(finder: Finder, http: Http) -> Self {
        Self { finder, http, held: Mutex::new(None) }
    }

    async fn obtain(&self, stamp: Stamp) -> Result<Held, Failure> {
        let source = self.finder.source().map_err(Failure::Refused)?;
        let answer = source.obtain(&self.http).await?;
        tracing::debug!(expires = ?answer.expires, "credentials were obtained");
        Ok(Held {
            credential: Arc::new(answer.credential),
            expires: answer.expires,
            stamp,
            asked: Instant::now(),
        })
    }
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> RawResult<Arc<AwsCredential>> {
        let stamp = self.finder.files.stamp();
        let mut held = self.held.lock().await;
        if let Some(held) = held.as_ref().filter(|held| held.is_fresh(&stamp)) {
            return Ok(Arc::clone(&held.credential));
        }
        let failure = match self.obtain(stamp).await {
            Ok(new) => return Ok(Arc::clone(&held.insert(new).credential)),
            Err(failure) => failure,
        };
        match held.as_mut().filter(|old| old.lives_for().is_none_or(|left| !left.is_zero())) {
            Some(old) => {
                tracing::warn!(why = failure.words(), "no new credentials; those that are held still serve");
                old.asked = Instant::now();
                Ok(Arc::clone(&old.credential))
            }
            None => Err(failure.into()),
        }
    }
}

impl Failure {
    fn words(&self) -> &str {
        match self {
            Self::Unreachable(words) | Self::Refused(words) => words,
        }
    }
}

impl From<Failure> for RawError {
    fn from(failure: Failure) -> Self {
        let source = format!("no credentials: {}", failure.words()).into();
        match failure {
            Failure::Unreachable(_) => Self::Generic { store: "S3", source },
            Failure::Refused(_) => Self::Unauthenticated { path: "the bucket".to_owned(), source },
        }
    }
}

impl fmt::Debug for Provider {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Provider")
    }
}
