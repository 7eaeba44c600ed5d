//! A line in the log for each request to the bucket, for whoever asks with `-vv`.

use std::time::Duration;

use object_store::path::Path;
use object_store::{GetOptions, GetRange, Result as RawResult};
use tokio::time::Instant;

use super::error::detail;
use super::meter::Verb;

/// A request under way, told of when it is answered; nothing if nobody listens.
#[derive(Debug)]
pub(super) struct Told {
    verb: Verb,
    object: Option<String>,
    since: Instant,
}

impl Told {
    /// A request for what `object` makes the name of.
    pub(super) fn new(verb: Verb, object: impl FnOnce() -> String) -> Self {
        let object = tracing::enabled!(tracing::Level::DEBUG).then(object);
        Self { verb, object, since: Instant::now() }
    }

    /// Has been answered by `bytes`, or by an error.
    pub(super) fn answered<T>(&mut self, result: &RawResult<T>, bytes: Option<u64>) {
        let Some(object) = self.object.take() else { return };
        let (verb, took) = (self.verb.word(), shown(self.since.elapsed()));
        match result {
            Ok(_) => tracing::debug!(verb, %object, bytes, %took, "request"),
            Err(error) => {
                tracing::debug!(verb, %object, %took, error = %detail(error), "request");
            }
        }
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        if let Some(object) = self.object.take() {
            let (verb, took) = (self.verb.word(), shown(self.since.elapsed()));
            tracing::debug!(verb, %object, %took, "request, given up");
        }
    }
}

/// Tells that one object is gone, or why not.
pub(super) fn deleted(since: Instant, result: &RawResult<Path>) {
    match result {
        Ok(object) => {
            tracing::debug!(verb = "delete", %object, took = %shown(since.elapsed()), "request");
        }
        Err(error) => {
            tracing::debug!(verb = "delete", took = %shown(since.elapsed()), error = %detail(error), "request");
        }
    }
}

/// What a GET asks for, as in `segments/12 from 0 to 4096`.
pub(super) fn part(path: &Path, options: &GetOptions) -> String {
    match &options.range {
        None => path.to_string(),
        Some(GetRange::Bounded(range)) => format!("{path} from {} to {}", range.start, range.end),
        Some(GetRange::Offset(start)) => format!("{path} from {start}"),
        Some(GetRange::Suffix(bytes)) => format!("{path}, the last {bytes}"),
    }
}

fn shown(took: Duration) -> String {
    format!("{:.1}ms", took.as_secs_f64() * 1e3)
}
