//! What can go wrong with the record engine, and what SlateDB's errors mean.

use std::error::Error as StdError;

use object_store::Error as RawError;
use slatedb::{CloseReason, ErrorKind};

use crate::store::{Meter, OutageKind};
use crate::vault::VaultError;

/// Why the engine could not do what it was asked.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EngineError {
    /// Another writer has taken over; this one can never write again.
    #[error("another mount has taken over this volume")]
    Fenced,
    /// The bucket refuses us.
    #[error("the bucket denies access: {0}")]
    Denied(String),
    /// The bucket does not answer in time.
    #[error("the bucket does not answer: {0}")]
    Unavailable(String),
    /// An object of the engine is altered, truncated or missing.
    #[error("the volume's records are damaged: {0}")]
    Damaged(String),
    /// The records are sealed with a key that came after those at hand.
    #[error("the volume has a new key since this mount began; mount it again")]
    NewKey,
    /// There are no records at all where there should be some.
    #[error("the volume's records are missing from the bucket")]
    Missing,
    /// The engine was closed.
    #[error("the volume's records are closed")]
    Closed,
    /// The engine is opened for reading only.
    #[error("the volume's records are opened for reading only")]
    ReadOnly,
    /// A fault inside the engine.
    #[error("the record engine failed: {0}")]
    Broken(String),
}

/// What SlateDB says where a log has sequence numbers that an earlier one has, too (`docs/FORMAT.md`, "Metadata objects").
const OUT_OF_ORDER: &str = "out-of-order seqs across WAL files";

/// Marks a refusal to begin a new database where one must exist.
#[derive(Debug, thiserror::Error)]
#[error("no database is here and none may be created")]
pub(super) struct NothingHere;

impl EngineError {
    /// What an error of SlateDB means.
    pub(super) fn from_slate(error: &slatedb::Error) -> Self {
        if let Some(damage) = find(error, |e: &VaultError| e.is_damage().then(|| e.to_string())) {
            return Self::Damaged(damage);
        }
        if find(error, |e: &VaultError| matches!(e, VaultError::NewKey { .. }).then_some(())).is_some() {
            return Self::NewKey;
        }
        if find(error, |_: &NothingHere| Some(())).is_some() {
            return Self::Missing;
        }
        match error.kind() {
            ErrorKind::Closed(CloseReason::Fenced) => Self::Fenced,
            ErrorKind::Closed(CloseReason::Clean) => Self::Closed,
            ErrorKind::Unavailable if is_missing_object(error) => Self::Damaged(error.to_string()),
            ErrorKind::Unavailable => Self::Unavailable(error.to_string()),
            ErrorKind::Data => Self::Damaged(error.to_string()),
            _ if error.to_string().contains(OUT_OF_ORDER) => {
                Self::Damaged("logs of two histories have been mixed".to_owned())
            }
            _ => Self::Broken(error.to_string()),
        }
    }

    /// What an error of the store means, which came without SlateDB.
    pub(super) fn from_store(error: RawError) -> Self {
        let words = error.to_string();
        Self::from_slate(&slatedb::Error::unavailable(words).with_source(Box::new(error)))
    }

    /// What it means that nothing came within the deadline.
    pub(super) fn from_silence(meter: Option<&Meter>) -> Self {
        let Some(meter) = meter else {
            return Self::Unavailable("no answer within the deadline".to_owned());
        };
        let words = meter.snapshot().last_error.unwrap_or_else(|| "no answer within the deadline".to_owned());
        match meter.outage() {
            Some(OutageKind::Denied) => Self::Denied(words),
            _ => Self::Unavailable(words),
        }
    }
}

/// An error of our own among SlateDB's.
pub(super) fn refused(what: &str, why: Option<RawError>) -> slatedb::Error {
    let error = slatedb::Error::unavailable(what.to_owned());
    match why {
        Some(why) => error.with_source(Box::new(why)),
        None => error,
    }
}

fn is_missing_object(error: &slatedb::Error) -> bool {
    find(error, |e: &RawError| matches!(e, RawError::NotFound { .. }).then_some(())).is_some()
}

/// The first error of type `T` in the chain from which `take` takes something.
///
/// Looks inside `Arc`s and `io::Error`s, whose `source` skips what they hold.
pub(super) fn find<T: StdError + 'static, R>(
    error: &(dyn StdError + 'static),
    take: impl Fn(&T) -> Option<R>,
) -> Option<R> {
    let mut current = Some(error);
    while let Some(error) = current {
        let held =
            error.downcast_ref::<T>().or_else(|| error.downcast_ref::<std::sync::Arc<T>>().map(|e| &**e));
        if let Some(result) = held.and_then(&take) {
            return Some(result);
        }
        current = match error.downcast_ref::<std::io::Error>().and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    None
}
