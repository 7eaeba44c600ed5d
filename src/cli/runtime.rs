//! Builds the tokio runtime, once a command is past the point where it may still fork, and ends it when a user wants.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::watch;

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::progress;

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

tokio::task_local! {
    /// What goes on if the work is ended by Ctrl-C now.
    static GOES_ON: Arc<Mutex<Option<&'static str>>>;
}

/// What is to be said if Ctrl-C ends the work from now on. Where [`block_on`] does not run it, nobody says it.
pub fn if_interrupted(goes_on: Option<&'static str>) {
    let _ = GOES_ON.try_with(|words| *words.lock() = goes_on);
}

/// Runs `future` to its end or to the first Ctrl-C, which drops it.
///
/// # Errors
/// Those of `future`; [`Exit::Interrupted`] after Ctrl-C, with what goes on, or silent.
pub fn block_on<T>(future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    let goes_on = Arc::new(Mutex::new(None));
    let work = GOES_ON.scope(Arc::clone(&goes_on), future);
    block_on_patiently(async move {
        tokio::select! {
            result = work => result,
            Ok(()) = tokio::signal::ctrl_c() => Err(match *goes_on.lock() {
                Some(words) => CommandError::new(Exit::Interrupted, format!("interrupted; {words}")),
                None => CommandError::silent(Exit::Interrupted),
            }),
        }
    })
}

/// Told to work that can stop half-way and leave things in order.
#[derive(Clone, Debug)]
pub struct Stop(watch::Receiver<bool>);

impl Stop {
    /// Whether it is to stop.
    #[must_use]
    pub fn is_asked(&self) -> bool {
        *self.0.borrow()
    }

    /// Waits until it is to stop.
    pub async fn asked(&self) {
        if self.0.clone().wait_for(|asked| *asked).await.is_err() {
            std::future::pending().await
        }
    }
}

/// Runs `work` to its end. The first Ctrl-C or SIGTERM asks it to stop, which it may take its time for; the second ends it
/// where it is, with `abrupt`.
///
/// # Errors
/// Those of `work`; `abrupt`.
pub fn block_on_calmly<T>(
    abrupt: CommandError,
    work: impl AsyncFnOnce(Stop) -> CommandResult<T>,
) -> CommandResult<T> {
    let runtime = multi_thread()?;
    let ended = runtime.block_on(async {
        let on = |kind| signal(kind).map_err(|e| cannot_listen(&e));
        let (mut interrupt, mut terminate) = (on(SignalKind::interrupt())?, on(SignalKind::terminate())?);
        let (ask, asked) = watch::channel(false);
        let work = work(Stop(asked));
        tokio::pin!(work);
        loop {
            tokio::select! {
                result = &mut work => return result.map(Some),
                _ = interrupt.recv() => {}
                _ = terminate.recv() => {}
            }
            if ask.send_replace(true) {
                return Ok(None);
            }
            progress::say("stopping: what is whole is kept; press Ctrl-C again to end at once");
        }
    });
    match ended.transpose() {
        Some(result) => {
            runtime.shutdown_timeout(STRAGGLERS);
            result
        }
        None => {
            // Threads that wait for a disk or a store are not waited for.
            runtime.shutdown_background();
            Err(abrupt)
        }
    }
}

fn to_the_end<T>(runtime: Runtime, future: impl Future<Output = CommandResult<T>>) -> CommandResult<T> {
    let result = runtime.block_on(future);
    runtime.shutdown_timeout(STRAGGLERS);
    result
}

fn cannot_listen(error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failure, format!("cannot handle signals: {error}"))
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
