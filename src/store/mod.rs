//! Opens a bucket from a URL; retries, meters and probes it.

mod aws;
mod connect;
mod environment;
mod error;
pub mod fault;
mod files;
mod limited;
mod listing;
mod local;
mod meter;
mod metered;
mod options;
mod patience;
mod policy;
mod price;
mod probe;
mod rate;
mod request_log;
mod survey;
mod tally;
mod tap;
#[cfg(test)]
mod tests;
mod timetable;
mod url;

use std::fmt;
use std::io;
use std::path::Path as FilePath;
use std::sync::Arc;
use std::time::Duration;

use object_store::memory::InMemory;
use object_store::{Attribute, ObjectStore, PutMode, PutOptions};
use tokio::sync::Semaphore;

pub use connect::CredentialKind;
pub use environment::Environment;
pub use error::StoreError;
pub use files::files;
pub use limited::{Limits, LimitsSnapshot};
pub use local::staged::Staged;
pub use meter::{Meter, MeterSnapshot, OutageKind, Verb, VerbSnapshot};
pub use options::{Addressing, StoreOptions};
pub use price::{Cost, PRICES_AS_OF, Prices};
pub use probe::ProbeReport;
pub use survey::{Ability, Bandwidth, Latency, Survey, Surveyor};
pub use tally::tallied;
pub use timetable::{Span, Timetable};

use crate::base::{Entropy, SystemClock};
use connect::Connected;
use fault::FaultStore;
use limited::LimitedStore;
use metered::MeteredStore;
use patience::{Patience, Pauses};
use policy::PatientStore;

/// How long a write is tried where a person waits for the answer.
const PROMPT_WRITE: Duration = Duration::from_secs(30);

/// A bucket: everything below one prefix of one store.
#[derive(Clone)]
pub struct Bucket {
    /// The objects. Requests are metered; writes are tried for ever, reads for [`StoreOptions::read_timeout`], deletions
    /// for half a minute.
    pub objects: Arc<dyn ObjectStore>,
    prompt: Arc<dyn ObjectStore>,
    meter: Meter,
    limits: Limits,
    url: Arc<str>,
    known_as: Arc<str>,
    prices: Option<Prices>,
    read_timeout: Duration,
    credentials: Option<CredentialKind>,
    segment_class: Option<Arc<str>>,
    directory: Option<Arc<FilePath>>,
}

/// Opens the bucket at `url`: `file:///directory`, a bare path, `memory:`, `s3://bucket/prefix`,
/// `az://container/prefix` or `gs://bucket/prefix`, with credentials from where the provider's own
/// tools look for them. Sends no request.
///
/// # Errors
/// The URL names no bucket, the directory is missing, or settings contradict each other.
pub fn open(url: &str, options: &StoreOptions) -> Result<Bucket, StoreError> {
    let place = url::Place::parse(url)?;
    let shown = url::shown(url);
    let Connected { mut store, credentials } = place.connect(&shown, options)?;
    let shown = place.canonical(url).unwrap_or(shown);
    if let Some(plan) = &options.faults {
        store = Arc::new(FaultStore::new(store, plan.clone(), Arc::new(SystemClock::default())));
    }
    let directory = place.directory();
    Ok(Bucket { credentials: Some(credentials), directory, ..Bucket::with_options(store, &shown, options) })
}

impl Bucket {
    /// A new bucket in memory.
    #[must_use]
    pub fn memory() -> Self {
        Self::with_options(Arc::new(InMemory::new()), "memory:", &StoreOptions::default())
    }

    /// A bucket over any store.
    #[must_use]
    pub fn from_store(store: Arc<dyn ObjectStore>) -> Self {
        let url = store.to_string();
        Self::with_options(store, &url, &StoreOptions::default())
    }

    /// A bucket over any store, shown to the user as `url`.
    #[must_use]
    pub fn with_options(store: Arc<dyn ObjectStore>, url: &str, options: &StoreOptions) -> Self {
        let meter = Meter::default();
        let metered: Arc<dyn ObjectStore> = Arc::new(MeteredStore::new(store, meter.clone()));
        let slots = [(); 2].map(|()| Arc::new(Semaphore::new(options.requests_max.max(1))));
        let pauses = Pauses::new(options.pause_seed);
        let patient = |write| -> Arc<dyn ObjectStore> {
            let patience = Patience { read: options.read_timeout, write, pauses: pauses.clone() };
            Arc::new(PatientStore::new(metered.clone(), meter.clone(), patience, slots.clone()))
        };
        let limits = Limits::default();
        Self {
            objects: Arc::new(LimitedStore::new(patient(None), limits.clone())),
            prompt: patient(Some(PROMPT_WRITE.min(options.read_timeout))),
            meter,
            limits,
            url: url.into(),
            known_as: url::known_as(url, options.endpoint.as_deref()).into(),
            // Those that are known are of the usual class.
            prices: Prices::of(url, options.endpoint.as_deref()).filter(|_| options.storage_class.is_none()),
            read_timeout: options.read_timeout,
            credentials: None,
            segment_class: options.storage_class.as_deref().map(Into::into),
            directory: None,
        }
    }

    /// The objects, for requests whose failure a person waits for: writes fail when denied, or after half
    /// a minute.
    #[must_use]
    pub fn prompt(&self) -> &Arc<dyn ObjectStore> {
        &self.prompt
    }

    /// What was asked of the bucket, and whether it answers.
    #[must_use]
    pub const fn meter(&self) -> &Meter {
        &self.meter
    }

    /// How fast objects go, and whether any are sent. What [`Bucket::prompt`] sends is not limited.
    #[must_use]
    pub const fn limits(&self) -> &Limits {
        &self.limits
    }

    /// The bucket's URL without credentials.
    #[must_use]
    pub fn display_url(&self) -> &str {
        &self.url
    }

    /// The bucket's place, spelled in one way only, under which a machine remembers what it found there.
    #[must_use]
    pub fn known_as(&self) -> &str {
        &self.known_as
    }

    /// What requests cost there, about, if that is known.
    #[must_use]
    pub const fn prices(&self) -> Option<&Prices> {
        self.prices.as_ref()
    }

    /// By what the store lets us in, if it was opened from a URL.
    #[must_use]
    pub const fn credentials(&self) -> Option<&CredentialKind> {
        self.credentials.as_ref()
    }

    /// How long reads are tried.
    #[must_use]
    pub const fn read_timeout(&self) -> Duration {
        self.read_timeout
    }

    /// Proves that the bucket keeps objects, refuses to overwrite them when told so, reads ranges, lists
    /// and deletes.
    ///
    /// # Errors
    /// What it cannot do, or why it cannot be reached; nothing is tried for long.
    pub async fn probe(&self) -> Result<ProbeReport, StoreError> {
        probe::probe(self).await
    }

    /// Proves that the bucket still refuses to overwrite, in two requests (three where nobody has done so before). Leaves
    /// one small object of noise behind for the next time.
    ///
    /// # Errors
    /// [`StoreError::IgnoresPreconditions`], or why it cannot be written to; nothing is tried for long.
    pub async fn prove_create_only(&self, entropy: &dyn Entropy) -> Result<(), StoreError> {
        probe::prove_create_only(self, entropy).await
    }

    /// The directory that it is, if it is one.
    #[must_use]
    pub fn directory(&self) -> Option<&FilePath> {
        self.directory.as_deref()
    }

    /// Files of a local bucket that a write has left half done, or is about to make objects.
    pub(crate) async fn staged(&self) -> Result<Vec<Staged>, StoreError> {
        match self.directory.clone() {
            Some(root) => self.on_disk(move || local::staged::list(&root)).await,
            None => Ok(Vec::new()),
        }
    }

    /// Removes one of them.
    pub(crate) async fn remove_staged(&self, staged: &Staged) -> Result<(), StoreError> {
        let Some(root) = self.directory.clone() else { return Ok(()) };
        let staged = staged.clone();
        self.on_disk(move || local::staged::remove(&root, &staged)).await
    }

    /// Of a local bucket, removes directories at `prefix`, below it and around it that hold nothing. Elsewhere there are none.
    pub(crate) async fn remove_empty(&self, prefix: &object_store::path::Path) -> Result<(), StoreError> {
        let Some(root) = self.directory.clone() else { return Ok(()) };
        let prefix = prefix.clone();
        self.on_disk(move || local::walk::remove_empty(&root, &prefix)).await
    }

    async fn on_disk<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> io::Result<T> + Send + 'static,
    ) -> Result<T, StoreError> {
        let done = tokio::task::spawn_blocking(work).await.map_err(io::Error::other).flatten();
        done.map_err(|error| StoreError::Other { object: self.url.to_string(), detail: error.to_string() })
    }

    /// Whether `error` may mean that a range lies past the object's end.
    pub(crate) fn is_rejected(error: &object_store::Error) -> bool {
        error::classify(error) == error::Trouble::Rejected
    }

    /// What is wrong with the object itself, if that is what `error` means.
    pub(crate) fn unfit(error: &object_store::Error) -> Option<String> {
        error::unfit(error)
    }

    /// The storage class of segments, if they have one of their own.
    pub(crate) fn segment_class(&self) -> Option<&str> {
        self.segment_class.as_deref()
    }

    /// How segments are written: only if absent, and in the storage class that was asked for. Every other object is
    /// of the bucket's usual class, because each is read again and again or soon deleted.
    pub(crate) fn segment_options(&self) -> PutOptions {
        let mut options = PutOptions { mode: PutMode::Create, ..PutOptions::default() };
        if let Some(class) = &self.segment_class {
            options.attributes.insert(Attribute::StorageClass, class.to_string().into());
        }
        options
    }

    /// What `error` means for the object at `path`.
    pub(crate) fn error(&self, path: &str, error: &object_store::Error) -> StoreError {
        match StoreError::from_raw(path, error) {
            StoreError::NoBucket { .. } => StoreError::NoBucket { bucket: self.url.to_string() },
            StoreError::Denied { detail, .. } => StoreError::Denied { object: self.url.to_string(), detail },
            StoreError::Full { detail, .. } => StoreError::Full { object: self.url.to_string(), detail },
            StoreError::Unavailable { detail, .. } => {
                StoreError::Unavailable { object: self.url.to_string(), detail }
            }
            other => other,
        }
    }
}

impl fmt::Debug for Bucket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Bucket").field("url", &self.url).finish_non_exhaustive()
    }
}

/// For the fuzz targets: reads a URL, and shows it without what may be secret.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub fn fuzz_url(text: &str) {
    let _ = url::Place::parse(text);
    let _ = url::shown(text);
    let _ = url::known_as(text, Some(text));
}
