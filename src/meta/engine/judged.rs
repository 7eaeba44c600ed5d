//! The past that a fenced writer goes on reading from, and who says that it is that.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use futures::FutureExt;
use futures::future::BoxFuture;
use slatedb::db_cache::DbCache;

use super::cache::BlockCache;
use super::follower::Follower;
use super::past::PastStore;
use super::writer::Writer;
use super::{Access, Engine, EngineError, Inner};
use crate::base::Gauge;

/// Says whether what an engine shows is what its writer had committed last.
pub type Judge = Arc<dyn Fn(Engine) -> BoxFuture<'static, Result<(), EngineError>> + Send + Sync>;

impl Engine {
    /// Has `judge` asked about the past before a fenced writer reads from it: a store could show logs of another history.
    pub fn judged_by(&self, judge: Judge) {
        // There is one judge.
        let _ = self.0.judge.set(judge);
    }

    /// The database as this fenced writer left it, to the last write that it acknowledged and no further. Boxed, so that
    /// those who read do not carry its state on their stacks.
    pub(super) fn past<'a>(&'a self, writer: &'a Writer) -> BoxFuture<'a, Result<&'a Follower, EngineError>> {
        self.0.is_fenced.store(true, Ordering::Relaxed);
        async move {
            let past = self.0.past.get_or_try_init(|| self.open_past(writer)).await?;
            past.as_deref().ok_or(EngineError::Fenced)
        }
        .boxed()
    }

    async fn open_past(&self, writer: &Writer) -> Result<Option<Arc<Follower>>, EngineError> {
        let store = Arc::new(PastStore::new(self.0.store.clone(), Arc::clone(&self.0.written)));
        let cache: Arc<dyn DbCache> = Arc::new(BlockCache::new(self.0.options.cache_bytes, Gauge::default()));
        let (clock, seeds) = (self.0.clock.clone(), self.0.options.seeds.clone());
        let judged = match self.read(Follower::open(store, cache, clock, seeds, None)).await {
            Ok(past) if past.sequence() == writer.sequence() => {
                self.judge_past(Arc::new(past)).await.map(Some)
            }
            Ok(_) => Ok(None),
            Err(error) => Err(error),
        };
        match judged {
            Ok(Some(past)) => Ok(Some(past)),
            Err(error @ (EngineError::Denied(_) | EngineError::Unavailable(_))) => Err(error),
            // It is gone, and stays so.
            found => {
                let error = found.err();
                tracing::warn!(?error, "what this mount had last committed cannot be read any more");
                Ok(None)
            }
        }
    }

    async fn judge_past(&self, past: Arc<Follower>) -> Result<Arc<Follower>, EngineError> {
        if let Some(judge) = self.0.judge.get() {
            let (store, options, clock) =
                (self.0.store.clone(), self.0.options.clone(), self.0.clock.clone());
            let access = Access::Read(Arc::clone(&past));
            let logs = Arc::clone(&self.0.logs);
            judge(Self(Arc::new(Inner { logs, ..Inner::of(access, store, options, clock) }))).await?;
        }
        Ok(past)
    }
}
