//! Answers on the FUSE thread what is ready at once; hands to the runtime, reply and all, what must wait.

use std::future::Future;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};

use fuser::Errno;
use tokio::runtime::Handle;

use super::convert::Refusal;
use super::killed::killed;

/// Any of `fuser`'s replies: each can carry an error.
pub(super) trait Reply: Send + 'static {
    fn refuse(self, error: Errno);
}

macro_rules! replies {
    ($($name:ident),*) => {$(
        impl Reply for fuser::$name {
            fn refuse(self, error: Errno) {
                self.error(error);
            }
        }
    )*};
}

replies!(
    ReplyAttr,
    ReplyCreate,
    ReplyData,
    ReplyDirectory,
    ReplyDirectoryPlus,
    ReplyEmpty,
    ReplyEntry,
    ReplyLseek,
    ReplyOpen,
    ReplyStatfs,
    ReplyWrite,
    ReplyXattr
);

/// What a waiting operation does when its caller is killed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Patience {
    /// Stops: the operation is one `vfs` call, which changes nothing if dropped before it completes.
    UntilKilled(u32),
    /// Goes on to its end: it has several steps, or nobody waits for it.
    ToTheEnd,
}

/// Where operations run: the shared state they need, and the runtime for those that wait.
#[derive(Debug)]
pub(super) struct Desk<C> {
    pub(super) core: Arc<C>,
    runtime: Handle,
}

impl<C: Send + Sync + 'static> Desk<C> {
    pub(super) const fn new(core: Arc<C>, runtime: Handle) -> Self {
        Self { core, runtime }
    }

    /// Answers with a result that is already there.
    pub(super) fn settle<R: Reply, T>(
        &self,
        reply: R,
        result: Result<T, Refusal>,
        answer: impl FnOnce(&C, R, T),
    ) {
        settle(&*self.core, reply, result, answer);
    }

    /// Runs `operation` and passes what it yields to `answer` with the reply; an error is answered as its errno.
    pub(super) fn serve<R, T, E, F>(
        &self,
        reply: R,
        patience: Patience,
        operation: impl FnOnce(Arc<C>) -> F,
        answer: impl FnOnce(&C, R, T) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let _inside = self.runtime.enter();
        let mut future = Box::pin(operation(Arc::clone(&self.core)));
        match poll_once(future.as_mut()) {
            Some(result) => settle(&*self.core, reply, result, answer),
            None => self.wait(reply, patience, future, answer),
        }
    }

    /// Polls `future`, which may borrow from the request, once. `None`: it is not ready, and must be dropped.
    pub(super) fn try_now<T, E: Into<Refusal>>(
        &self,
        future: impl Future<Output = Result<T, E>>,
    ) -> Option<Result<T, Refusal>> {
        let _inside = self.runtime.enter();
        poll_once(std::pin::pin!(future))
    }

    /// Runs a future on the runtime that was not ready when polled here, or that has to start over.
    pub(super) fn wait<R, T, E, F>(
        &self,
        reply: R,
        patience: Patience,
        future: F,
        answer: impl FnOnce(&C, R, T) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
        F: Future<Output = Result<T, E>> + Send + 'static,
    {
        let core = Arc::clone(&self.core);
        self.runtime.spawn(async move {
            let result = match patience {
                Patience::ToTheEnd => future.await.map_err(Into::into),
                Patience::UntilKilled(pid) => unless_killed(pid, future).await,
            };
            settle(&*core, reply, result, answer);
        });
    }

    /// As [`Self::serve`] to the end, but only once `first`, which changes nothing, is done: until then a killed caller is
    /// let go.
    pub(super) fn serve_after<R, T, E, F, P>(
        &self,
        (reply, pid): (R, u32),
        first: impl Fn() -> P,
        operation: impl FnOnce(Arc<C>) -> F + Send + 'static,
        answer: impl FnOnce(&C, R, T) + Send + 'static,
    ) where
        R: Reply,
        T: Send + 'static,
        E: Into<Refusal> + Send + 'static,
        F: Future<Output = Result<T, Refusal>> + Send + 'static,
        P: Future<Output = Result<(), E>> + Send + 'static,
    {
        match self.try_now(first()) {
            Some(Ok(())) => self.serve(reply, Patience::ToTheEnd, operation, answer),
            Some(Err(error)) => settle(&*self.core, reply, Err(error), answer),
            None => {
                let (core, first) = (Arc::clone(&self.core), first());
                self.runtime.spawn(async move {
                    let result = match unless_killed(pid, first).await {
                        Ok(()) => operation(Arc::clone(&core)).await,
                        Err(error) => Err(error),
                    };
                    settle(&*core, reply, result, answer);
                });
            }
        }
    }
}

/// What `future` yields, or `EINTR` once the caller has been killed. An operation that never rests must not take the turns of
/// who looks for that.
async fn unless_killed<T, E: Into<Refusal>>(
    pid: u32,
    future: impl Future<Output = Result<T, E>>,
) -> Result<T, Refusal> {
    tokio::select! {
        biased;
        result = future => result.map_err(Into::into),
        () = tokio::task::unconstrained(killed(pid)) => Err(Refusal(Errno::EINTR)),
    }
}

fn settle<C, R: Reply, T>(core: &C, reply: R, result: Result<T, Refusal>, answer: impl FnOnce(&C, R, T)) {
    match result {
        Ok(value) => answer(core, reply, value),
        Err(Refusal(error)) => reply.refuse(error),
    }
}

/// The waker is a no-op because whoever goes on with a pending future polls it anew.
///
/// A panic becomes an I/O error, as it does for operations on the runtime: were it to unwind through `fuser`, its
/// thread would end and half of the mount's requests with it.
fn poll_once<T, E: Into<Refusal>>(
    future: Pin<&mut impl Future<Output = Result<T, E>>>,
) -> Option<Result<T, Refusal>> {
    let mut context = Context::from_waker(Waker::noop());
    match catch_unwind(AssertUnwindSafe(|| future.poll(&mut context))) {
        Ok(Poll::Ready(result)) => Some(result.map_err(Into::into)),
        Ok(Poll::Pending) => None,
        Err(_) => {
            tracing::error!("an operation failed in an unforeseen way; its caller gets an I/O error");
            Some(Err(Refusal(Errno::EIO)))
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, Sender, channel};
    use std::thread::ThreadId;

    use super::*;

    /// A reply that tells what it was answered with, and by which thread.
    struct Told(Sender<Answer>);

    type Answer = (Result<u32, Errno>, ThreadId);

    impl Told {
        fn pair() -> (Self, Receiver<Answer>) {
            let (to, from) = channel();
            (Self(to), from)
        }

        fn ok(self, value: u32) {
            self.0.send((Ok(value), std::thread::current().id())).unwrap();
        }
    }

    impl Reply for Told {
        fn refuse(self, error: Errno) {
            self.0.send((Err(error), std::thread::current().id())).unwrap();
        }
    }

    fn desk() -> (tokio::runtime::Runtime, Desk<()>) {
        let runtime =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
        let handle = runtime.handle().clone();
        (runtime, Desk::new(Arc::new(()), handle))
    }

    #[test]
    fn what_is_ready_is_answered_on_the_thread_that_asked() {
        let (_runtime, desk) = desk();
        let (reply, told) = Told::pair();
        desk.serve(reply, Patience::ToTheEnd, |_| async { Ok::<_, Refusal>(7) }, |_, r, v| r.ok(v));
        assert_eq!(told.try_recv().unwrap(), (Ok(7), std::thread::current().id()));
    }

    #[test]
    fn what_must_wait_never_blocks_the_thread_that_asked() {
        let (_runtime, desk) = desk();
        let (reply, told) = Told::pair();
        let (open, gate) = tokio::sync::oneshot::channel::<u32>();
        let wait = |_| async { gate.await.map_err(|_| Refusal(Errno::EIO)) };
        desk.serve(reply, Patience::UntilKilled(std::process::id()), wait, |_, r, v| r.ok(v));
        assert!(told.try_recv().is_err());
        open.send(9).unwrap();
        let (value, thread) = told.recv().unwrap();
        assert_eq!(value, Ok(9));
        assert_ne!(thread, std::thread::current().id());
    }

    #[test]
    fn an_error_is_answered_as_its_errno() {
        let (_runtime, desk) = desk();
        let (reply, told) = Told::pair();
        let fail = |_| async { Err::<u32, _>(Refusal(Errno::ENOTEMPTY)) };
        desk.serve(reply, Patience::ToTheEnd, fail, |_, r, v| r.ok(v));
        assert_eq!(told.try_recv().unwrap().0, Err(Errno::ENOTEMPTY));
    }

    #[test]
    fn a_panic_costs_one_request_and_not_the_thread() {
        let (_runtime, desk) = desk();
        let (reply, told) = Told::pair();
        let burst = |_| async {
            if std::hint::black_box(true) {
                panic!("a test's panic");
            }
            Ok::<u32, Refusal>(1)
        };
        desk.serve(reply, Patience::ToTheEnd, burst, |_, r, v| r.ok(v));
        assert_eq!(told.try_recv().unwrap().0, Err(Errno::EIO));
    }
}
