//! A bucket with faults on purpose: decorates any store, follows a plan, and repeats itself from a seed.
//!
//! For simulation and for the hidden flag `coffer mount --fault`. Time is tokio's, so that it may be paused.

mod list;
mod plan;
#[cfg(test)]
pub(crate) mod scripted;
mod spec;
mod state;
#[cfg(test)]
mod tests;

use std::fmt;
use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{FutureExt, StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{
    CopyOptions, Error as RawError, GetOptions, GetResult, GetResultPayload, ListResult, MultipartUpload,
    ObjectMeta, ObjectStore, ObjectStoreExt, PutMultipartOptions, PutOptions, PutPayload, PutResult,
    Result as RawResult,
};
use tokio::time::sleep;

pub use plan::{Fault, FaultPlan, KeyClass, Outage, Rule, Verb};
pub use spec::FaultSpecError;

use crate::base::Clock;
use state::{Draw, Shared, Write};

/// A store that fails as its plan says. Clones share their fate.
#[derive(Clone)]
pub struct FaultStore {
    inner: Arc<dyn ObjectStore>,
    shared: Arc<Shared>,
}

impl FaultStore {
    /// Puts the faults of `plan` in front of `inner`. Outages are timed by `clock`, from now on.
    #[must_use]
    pub fn new(inner: Arc<dyn ObjectStore>, plan: FaultPlan, clock: Arc<dyn Clock>) -> Self {
        Self { inner, shared: Arc::new(Shared::new(plan, clock)) }
    }

    /// From now on the faults of another plan. Late writes that are under way stay so.
    pub fn set_plan(&self, plan: FaultPlan) {
        self.shared.set_plan(plan);
    }

    /// Begins a request: what is late and due takes effect first, then chance decides.
    async fn begin(&self, verb: Verb, path: &Path, bytes: u64) -> Draw {
        for write in self.shared.due() {
            self.carry_out(write).await;
        }
        self.shared.draw(verb, path, bytes)
    }

    /// A write that nobody waits for any more.
    async fn carry_out(&self, write: Write) {
        match write {
            Write::Put(path, payload, opts) => {
                if self.inner.put_opts(&path, payload, opts).await.is_ok() {
                    self.shared.note_put(&path);
                }
            }
            Write::Delete(path) => {
                let _ = self.delete_noted(&path).await;
            }
        }
    }

    async fn delete_noted(&self, path: &Path) -> RawResult<()> {
        let meta = if self.shared.has_stale_lists() { self.inner.head(path).await.ok() } else { None };
        self.inner.delete(path).await?;
        self.shared.note_delete(path, meta);
        Ok(())
    }

    /// Carries a request out, or not, as `draw` has it.
    async fn meet<T>(
        &self,
        draw: &Draw,
        late: impl Fn() -> Option<Write>,
        request: impl Future<Output = RawResult<T>>,
    ) -> RawResult<T> {
        // Whoever goes away before the request has arrived may have sent it all the same.
        let mut straggler = Straggler::new(self, draw, &late);
        pause(draw.before).await;
        match draw.fault {
            Some(Fault::Throttle) => return Err(failure("503 Slow Down")),
            Some(Fault::Broken) => return Err(failure("500 Internal Server Error")),
            Some(Fault::Full) => return Err(full()),
            Some(Fault::Reset) => return Err(failure("connection reset")),
            Some(Fault::Hang) => return pending().await,
            Some(Fault::Late) => {
                if let Some(write) = late() {
                    self.shared.put_off(write, draw.delay);
                }
                return Err(failure("connection reset"));
            }
            _ => {}
        }
        let result = request.await;
        straggler.write = None;
        pause(draw.after).await;
        match draw.fault {
            Some(Fault::Ambiguous) => Err(failure("connection reset")),
            Some(Fault::Silent) => pending().await,
            _ => result,
        }
    }

    async fn delete_one(&self, path: Path) -> RawResult<Path> {
        let draw = self.begin(Verb::Delete, &path, 0).await;
        let late = || Some(Write::Delete(path.clone()));
        self.meet(&draw, late, self.delete_noted(&path)).await?;
        Ok(path)
    }

    async fn list_all(&self, prefix: Option<Path>) -> RawResult<Vec<ObjectMeta>> {
        let top = prefix.clone().unwrap_or_default();
        let draw = self.begin(Verb::List, &top, 0).await;
        let listing = self.inner.list(prefix.as_ref()).try_collect();
        let found = self.meet(&draw, || None, listing).await?;
        Ok(self.shared.bend_list(&draw, prefix.as_ref(), found))
    }
}

/// What becomes of a write whose sender does not wait for it.
struct Straggler<'a> {
    shared: &'a Shared,
    draw: &'a Draw,
    write: Option<Write>,
}

impl<'a> Straggler<'a> {
    fn new(store: &'a FaultStore, draw: &'a Draw, late: &impl Fn() -> Option<Write>) -> Self {
        let write = if draw.fault == Some(Fault::Straggler) { late() } else { None };
        Self { shared: &store.shared, draw, write }
    }
}

impl Drop for Straggler<'_> {
    fn drop(&mut self) {
        if let Some(write) = self.write.take() {
            self.shared.put_off(write, self.draw.delay);
        }
    }
}

async fn pause(time: Duration) {
    if !time.is_zero() {
        sleep(time).await;
    }
}

fn failure(words: &'static str) -> RawError {
    RawError::Generic { store: "fault", source: words.into() }
}

fn full() -> RawError {
    RawError::Generic { store: "fault", source: std::io::Error::from(std::io::ErrorKind::StorageFull).into() }
}

fn unsupported(what: &str) -> RawError {
    RawError::NotSupported { source: format!("{what} are not used here").into() }
}

/// A body that ends before its time: without a word, or with an error.
fn cut(body: &Bytes, in_silence: bool) -> BoxStream<'static, RawResult<Bytes>> {
    let half = Ok(body.slice(..body.len() / 2));
    let end = (!in_silence).then(|| Err(failure("connection reset while reading the body")));
    stream::iter([Some(half), end].into_iter().flatten()).boxed()
}

impl fmt::Debug for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("FaultStore").field("inner", &self.inner).finish_non_exhaustive()
    }
}

impl fmt::Display for FaultStore {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} with faults", self.inner)
    }
}

#[async_trait]
impl ObjectStore for FaultStore {
    async fn put_opts(&self, path: &Path, payload: PutPayload, opts: PutOptions) -> RawResult<PutResult> {
        let draw = self.begin(Verb::Put, path, payload.content_length() as u64).await;
        let late = || Some(Write::Put(path.clone(), payload.clone(), opts.clone()));
        let request = async {
            pause(draw.transfer).await;
            let result = self.inner.put_opts(path, payload.clone(), opts.clone()).await;
            if result.is_ok() {
                self.shared.note_put(path);
            }
            result
        };
        self.meet(&draw, late, request).await
    }

    async fn put_multipart_opts(
        &self,
        _: &Path,
        _: PutMultipartOptions,
    ) -> RawResult<Box<dyn MultipartUpload>> {
        Err(unsupported("multipart uploads"))
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> RawResult<GetResult> {
        let is_head = options.head;
        let draw = self.begin(Verb::Get, path, 0).await;
        let result = self.meet(&draw, || None, self.inner.get_opts(path, options)).await?;
        if is_head {
            return Ok(result);
        }
        let (meta, range) = (result.meta.clone(), result.range.clone());
        let (attributes, extensions) = (result.attributes.clone(), result.extensions.clone());
        let transfer = self.shared.transfer(range.end.saturating_sub(range.start));
        let body = result.bytes().await?;
        let body = match draw.fault {
            Some(Fault::ShortBody) => cut(&body, draw.coin),
            _ => stream::iter([Ok(body)]).boxed(),
        };
        // The head of the answer comes at once, its body as fast as the link is.
        let body = pause(transfer).map(move |()| body).flatten_stream().boxed();
        Ok(GetResult { payload: GetResultPayload::Stream(body), meta, range, attributes, extensions })
    }

    fn delete_stream(
        &self,
        paths: BoxStream<'static, RawResult<Path>>,
    ) -> BoxStream<'static, RawResult<Path>> {
        let this = self.clone();
        paths
            .then(move |path| {
                let this = this.clone();
                async move { this.delete_one(path?).await }
            })
            .boxed()
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, RawResult<ObjectMeta>> {
        let (this, prefix) = (self.clone(), prefix.cloned());
        let all = async move { this.list_all(prefix).await };
        let lists = stream::once(all).map_ok(|found| stream::iter(found.into_iter().map(Ok)));
        lists.try_flatten().boxed()
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> RawResult<ListResult> {
        let found = self.list_all(prefix.cloned()).await?;
        Ok(list::by_directory(prefix, found))
    }

    async fn copy_opts(&self, _: &Path, _: &Path, _: CopyOptions) -> RawResult<()> {
        Err(unsupported("copies"))
    }
}
