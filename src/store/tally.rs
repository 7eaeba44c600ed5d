//! Counts the requests of one piece of work, whatever else is asked for at the same time.

use std::sync::atomic::{AtomicU64, Ordering};

tokio::task_local! {
    static TALLY: AtomicU64;
}

/// Does `work` and counts the requests that it makes itself. Those of tasks that it starts are not among them.
pub async fn tallied<T>(work: impl Future<Output = T>) -> (T, u64) {
    let counted = async {
        let done = work.await;
        (done, TALLY.with(|tally| tally.load(Ordering::Relaxed)))
    };
    TALLY.scope(AtomicU64::new(0), counted).await
}

/// A request is made here and now.
pub(super) fn count() {
    // Most requests belong to nobody who counts.
    let _ = TALLY.try_with(|tally| tally.fetch_add(1, Ordering::Relaxed));
}
