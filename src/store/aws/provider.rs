//! Credentials as they are now, behind the client's trait: from the places that were found, renewed in time.

use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use object_store::aws::AwsCredential;
use object_store::{CredentialProvider, Error as RawError, Result as RawResult};

use super::aside::aside;
use super::chain::Finder;
use super::http::Http;
use super::profile::Stamp;
use super::renewal::{Origin, Renewed};
use super::{Answer, Failure};

/// Credentials as they are now.
pub(in crate::store) struct Provider(Renewed<Found>);

/// Where they are from.
struct Found {
    finder: Arc<Finder>,
    http: Http,
}

impl Provider {
    pub(super) fn new(finder: Finder, http: Http) -> Self {
        Self(Renewed::new(Found { finder: Arc::new(finder), http }))
    }
}

#[async_trait]
impl Origin for Found {
    type Stamp = Stamp;

    async fn stamp(&self) -> Result<Stamp, Failure> {
        let finder = Arc::clone(&self.finder);
        aside(move || finder.files.stamp()).await
    }

    async fn obtain(&self) -> Result<Answer, Failure> {
        let finder = Arc::clone(&self.finder);
        let source = aside(move || finder.source()).await?.map_err(Failure::Refused)?;
        source.obtain(&self.http).await
    }
}

#[async_trait]
impl CredentialProvider for Provider {
    type Credential = AwsCredential;

    async fn get_credential(&self) -> RawResult<Arc<AwsCredential>> {
        Ok(self.0.current().await?)
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
