//! Credentials as they are now, behind the client's trait: from the places that were found, renewed in time.

use std::fmt;
use std::path::PathBuf;
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
pub(in crate::store) struct Provider {
    finder: Arc<Finder>,
    renewed: Renewed<Found>,
}

/// Where they are from.
struct Found {
    finder: Arc<Finder>,
    http: Http,
}

impl Provider {
    pub(super) fn new(finder: Finder, http: Http) -> Self {
        let finder = Arc::new(finder);
        let renewed = Renewed::new(Found { finder: Arc::clone(&finder), http });
        Self { finder, renewed }
    }

    /// The files that they are from, each with what it is.
    pub(super) fn files(&self) -> Vec<(&'static str, PathBuf)> {
        self.finder.paths()
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
        Ok(self.renewed.current().await?)
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
