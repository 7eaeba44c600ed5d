//! Work of milliseconds, kept off the threads that answer.

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::task::JoinError;

/// Runs `work` beside `runtime`. A runtime of one thread has nobody to keep waiting: there the work is done
/// at once, which also makes the order of events in a simulation a matter of its seed alone.
///
/// # Errors
/// The work has panicked.
pub async fn aside<T: Send + 'static>(
    runtime: &Handle,
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, JoinError> {
    match runtime.runtime_flavor() {
        RuntimeFlavor::CurrentThread => Ok(work()),
        _ => runtime.spawn_blocking(work).await,
    }
}
