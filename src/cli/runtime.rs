//! Builds the tokio runtime, once a command is past the point where it may still fork.

use std::future::Future;

use tokio::runtime::{Builder, Runtime};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;

/// Threads for what blocks: files of a bucket that is a directory, sealing, mount(2). Each keeps some memory for itself,
/// so that the runtime's own limit of 512 would cost more than any cache. Never fewer than can wait for the mount
/// itself, which are three, and one more to serve them.
const BLOCKING_THREADS_MAX: usize = 8;

/// The runtime of a command: as many threads as cores, but two at least.
///
/// # Errors
/// When the system gives no threads.
pub fn multi_thread() -> CommandResult<Runtime> {
    let cores = std::thread::available_parallelism().map_or(2, std::num::NonZero::get);
    let built = Builder::new_multi_thread()
        .worker_threads(cores.max(2))
        .max_blocking_threads(BLOCKING_THREADS_MAX)
        .thread_name("coffer")
        .enable_all()
        .build();
    built.map_err(|e| no_threads(&e))
}

/// Runs `future` in a runtime of its own that leaves no thread behind, so that the process may fork afterwards.
///
/// # Errors
/// Those of `future`, or when there is no runtime to be had.
pub fn block_on_alone<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    let runtime = Builder::new_current_thread().enable_all().build().map_err(|e| no_threads(&e))?;
    runtime.block_on(future)
}

/// Runs `future` to its end or to the first Ctrl-C, which drops it.
///
/// # Errors
/// Those of `future`; a silent one with [`Exit::Interrupted`] after Ctrl-C.
pub fn block_on<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    multi_thread()?.block_on(async {
        tokio::select! {
            result = future => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(CommandError::silent(Exit::Interrupted)),
        }
    })
}

fn no_threads(error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failure, format!("cannot start worker threads: {error}"))
}
