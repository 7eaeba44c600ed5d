//! How many threads may be busy with one object: few, so that one that hangs leaves some for the others.

use std::collections::HashMap;
use std::sync::Arc;

use object_store::path::Path;
use object_store::{Error as RawError, Result as RawResult};
use parking_lot::Mutex;
use tokio::sync::Notify;

/// Threads busy with one object.
const OF_ONE_MAX: u32 = 2;

#[derive(Debug, Default)]
struct Shared {
    busy: Mutex<HashMap<Path, u32>>,
    returned: Notify,
}

/// Counts the threads that are busy with each object; clones count together.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns(Arc<Shared>);

impl Turns {
    /// Runs `work`, which may block, for the object at `path`, once there is a turn for it. A system call that does not
    /// return keeps its turn, whether or not somebody still waits for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        path: &Path,
        work: impl FnOnce() -> RawResult<T> + Send + 'static,
    ) -> RawResult<T> {
        let turn = self.take(path).await;
        let running = tokio::task::spawn_blocking(move || {
            let _turn = turn;
            work()
        });
        // What waits for a thread when nobody waits for it any more need not have one.
        let _waited = Waited(running.abort_handle());
        running.await.map_err(|source| RawError::JoinError { source })?
    }

    async fn take(&self, path: &Path) -> Turn {
        loop {
            // Made before the look, so that whoever returns in between is heard.
            let returned = self.0.returned.notified();
            {
                let mut busy = self.0.busy.lock();
                let count = busy.entry(path.clone()).or_default();
                if *count < OF_ONE_MAX {
                    *count += 1;
                    return Turn { turns: self.clone(), path: path.clone() };
                }
            }
            returned.await;
        }
    }
}

struct Turn {
    turns: Turns,
    path: Path,
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut busy = self.turns.0.busy.lock();
        if let Some(count) = busy.get_mut(&self.path) {
            *count -= 1;
            if *count == 0 {
                busy.remove(&self.path);
            }
        }
        drop(busy);
        self.turns.0.returned.notify_waiters();
    }
}

struct Waited(tokio::task::AbortHandle);

impl Drop for Waited {
    fn drop(&mut self) {
        self.0.abort();
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::{Receiver, channel};

    use super::*;

    #[test]
    fn an_object_that_hangs_keeps_its_own_threads_and_no_other() {
        let runtime = tokio::runtime::Builder::new_multi_thread().max_blocking_threads(3).build().unwrap();
        let turns = Turns::default();
        let (hung, sound) = (Path::from("hung"), Path::from("sound"));
        let (release, held) = channel::<()>();
        let held: Arc<Mutex<Receiver<()>>> = Arc::new(Mutex::new(held));
        runtime.block_on(async {
            let (begin, mut begun) = tokio::sync::mpsc::unbounded_channel();
            let mut waiting = tokio::task::JoinSet::new();
            for _ in 0..20 {
                let (turns, path, held, begin) = (turns.clone(), hung.clone(), held.clone(), begin.clone());
                waiting.spawn(async move {
                    let hang = move || {
                        let _ = begin.send(());
                        let _ = held.lock().recv();
                        Ok(())
                    };
                    turns.run(&path, hang).await
                });
            }
            for _ in 0..OF_ONE_MAX {
                begun.recv().await.unwrap();
            }
            assert_eq!(turns.run(&sound, || Ok(7)).await.unwrap(), 7);
            // Whoever has given up leaves the calls that do not return.
            waiting.shutdown().await;
            assert_eq!(turns.run(&sound, || Ok(8)).await.unwrap(), 8);
            assert!(begun.try_recv().is_err(), "no third one has begun");
            drop(release);
            assert_eq!(turns.run(&hung, || Ok(9)).await.unwrap(), 9);
        });
        // The end of the runtime is that of its threads.
        drop(runtime);
        assert!(turns.0.busy.lock().is_empty());
    }
}
