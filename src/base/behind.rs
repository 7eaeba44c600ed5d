//! Work that gives way: what is on its way to the bucket, beside what somebody is asking for.

use std::panic::catch_unwind;
use std::sync::LazyLock;

use rustix::process::{getpriority_process, setpriority_process};
use tokio::runtime::{Builder, Handle, Runtime, RuntimeFlavor};
use tokio::task::{AbortHandle, JoinError};

/// How much nicer its threads are than the rest (nice(2)): at 10 they get a tenth of a processor that others want, and
/// all of one that nobody wants.
const NICENESS: i32 = 10;
/// Its threads that may block at a time.
const BLOCKING_THREADS_MAX: usize = 8;

/// Its threads. They are nicer than whoever is the first to need them, and not than the one of them that starts them: a
/// thread begins with the niceness of its parent. Who has become nicer cannot go back without privileges, so they do
/// nothing else; they are those of the process, because work of one mount is no more pressing than that of another.
static THREADS: LazyLock<Option<Runtime>> = LazyLock::new(|| {
    let niceness = getpriority_process(None).unwrap_or_default() + NICENESS;
    // One thread polls, because all the work is done by those that may block. Where the system gives no thread, the builder
    // panics, and with more than one it would then wait for those that it has started.
    let built = catch_unwind(|| {
        Builder::new_multi_thread()
            .worker_threads(1)
            .max_blocking_threads(BLOCKING_THREADS_MAX)
            .thread_name("coffer-behind")
            .on_thread_start(move || give_way(niceness))
            .enable_time()
            .build()
    });
    let threads = built.ok().and_then(Result::ok);
    if threads.is_none() {
        tracing::warn!("there are no threads for work in the background; it is done by those that answer");
    }
    threads
});

/// Runs `work` on threads that give way to all others. What takes a processor for long it must hand to its runtime's threads
/// that may block: one thread polls all work. Dropped, it takes the work with it. In a runtime of one thread it is polled
/// there, which leaves the order of events to its caller's seed.
///
/// # Errors
/// The work has panicked.
pub async fn behind<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<T, JoinError> {
    let threads = match Handle::try_current().map(|here| here.runtime_flavor()) {
        Ok(RuntimeFlavor::MultiThread) => THREADS.as_ref(),
        _ => None,
    };
    let Some(threads) = threads else { return Ok(work.await) };
    let running = threads.spawn(work);
    let _ends = Ends(running.abort_handle());
    running.await
}

/// Ends what runs with whoever waits for it.
struct Ends(AbortHandle);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.abort();
    }
}

/// Makes the calling thread as nice as that. On Linux, niceness is a thread's own.
fn give_way(niceness: i32) {
    if let Err(error) = setpriority_process(None, niceness) {
        tracing::debug!(%error, "a thread in the background has the priority of all others");
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    fn niceness() -> i32 {
        getpriority_process(None).unwrap()
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn what_runs_behind_is_nicer_and_so_is_what_it_hands_on() {
        let ours = niceness();
        let work = async { (niceness(), tokio::task::spawn_blocking(niceness).await.unwrap()) };
        assert_eq!(behind(work).await.unwrap(), (ours + NICENESS, ours + NICENESS));
        assert_eq!(tokio::task::spawn_blocking(niceness).await.unwrap(), ours);
    }

    #[tokio::test]
    async fn a_runtime_of_one_thread_does_it_itself() {
        let here = std::thread::current().id();
        assert_eq!(behind(async { std::thread::current().id() }).await.unwrap(), here);
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn it_ends_with_whoever_waits_for_it() {
        let held = Arc::new(());
        let inside = Arc::clone(&held);
        let work = async move {
            let _inside = inside;
            std::future::pending::<()>().await;
        };
        let mut waiting = Box::pin(behind(work));
        assert!(futures::poll!(&mut waiting).is_pending());
        drop(waiting);
        while Arc::strong_count(&held) > 1 {
            tokio::task::yield_now().await;
        }
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_panic_is_told() {
        assert!(behind(async { panic!("as it should") }).await.unwrap_err().is_panic());
    }
}
