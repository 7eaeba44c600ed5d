//! Builds the tokio runtime, once a command is past the point where it may still fork.

use std::future::Future;
use std::time::Duration;

use tokio::runtime::{Builder, Runtime};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;

/// Threads for what blocks: files of a bucket that is a directory, sealing, mount(2). Each keeps some memory for itself,
/// so that the runtime's own limit of 512 would cost more than any cache. Never fewer than can wait for the mount
/// itself, which are three, and one more to serve them.
const BLOCKING_THREADS_MAX: usize = 8;

/// How long the end waits for calls to the system that nobody waits for any more. On a bucket whose disk hangs they may
/// never return; the process must end all the same.
const STRAGGLERS: Duration = Duration::from_secs(2);

/// The runtime of a command: as many threads as cores, but two at least.
fn multi_thread() -> CommandResult<Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let built = Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("coffer")
        .enable_all()
        .build();
    built.map_err(|e| no_threads(&e))
}

/// Runs `future` to its end.
///
/// # Errors
/// Those of `future`, or when the system gives no threads.
pub fn block_on_patiently<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    to_the_end(multi_thread()?, future)
}

/// Runs `future` in a runtime of its own that leaves no thread behind, so that the process may fork afterwards.
///
/// # Errors
/// Those of `future`, or when there is no runtime to be had.
pub fn block_on_alone<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| no_threads(&e))?;
    to_the_end(runtime, future)
}

/// Runs `future` to its end or to the first Ctrl-C, which drops it.
///
/// # Errors
/// Those of `future`; a silent one with [`Exit::Interrupted`] after Ctrl-C.
pub fn block_on<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    block_on_patiently(async {
        tokio::select! {
            result = future => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(CommandError::silent(Exit::Interrupted)),
        }
    })
}

fn to_the_end<T>(runtime: Runtime, future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(STRAGGLERS);
    result
}

fn no_threads(error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failure, format!("cannot start worker threads: {error}"))
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;

    #[test]
    fn a_call_that_does_not_return_does_not_keep_a_command_from_its_end() {
        let (release, held) = channel::<()>();
        let ended = block_on_patiently(async {
            let (begin, begun) = tokio::sync::oneshot::channel();
            tokio::task::spawn_blocking(move || {
                let _ = begin.send(());
                let _ = held.recv();
            });
            begun.await.map_err(|_| CommandError::silent(Exit::Failure))
        });
        assert!(ended.is_ok());
        // Only now does the call return: the end did not wait for it.
        assert!(release.send(()).is_ok());
    }
}
