//! Work with files, on a thread of its own: where they lie may not answer for long, and nothing else is to wait for that.

use tokio::sync::oneshot;

use super::Failure;

/// Does `work`. If nobody waits for it any more, it goes on all the same, and takes no thread from anybody.
pub(super) async fn aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
) -> Result<T, Failure> {
    let (say, said) = oneshot::channel();
    let thread = std::thread::Builder::new().name("credentials".to_owned());
    let begun = thread.spawn(move || drop(say.send(work())));
    begun.map_err(|error| Failure::Unreachable(format!("there is no thread to be had: {error}")))?;
    said.await.map_err(|_| Failure::Unreachable("reading files was cut off".to_owned()))
}
