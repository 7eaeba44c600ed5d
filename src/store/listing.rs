//! A listing that goes on where it broke off.

use std::sync::Arc;

use futures::stream::{self, BoxStream};
use futures::{StreamExt, TryStreamExt};
use object_store::path::Path;
use object_store::{ObjectMeta, ObjectStore, Result as RawResult};
use tokio::time::timeout;

use super::patience::{ATTEMPT_TIME, Core, fault, stalled};

/// Entries of one listing. No volume has as many objects; a listing without end has more.
const LISTED_MAX: usize = 1 << 25;

/// Lists what lies below `prefix` and comes after `offset`. What fails is repeated as reads are. After a part was given the
/// listing is asked for again from its last object on, if the store lists in the order of names; if not, what was
/// given cannot be taken back, and the listing fails.
pub(super) fn list(
    core: Core,
    inner: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    offset: Option<Path>,
) -> BoxStream<'static, RawResult<ObjectMeta>> {
    let begun = Listing {
        core,
        inner,
        prefix,
        last: offset,
        given: 0,
        is_ordered: true,
        resumed_at: None,
        rest: None,
    };
    stream::try_unfold(begun, Listing::next).boxed()
}

struct Listing {
    core: Core,
    inner: Arc<dyn ObjectStore>,
    prefix: Option<Path>,
    /// The last object that was given, or what all come after.
    last: Option<Path>,
    given: usize,
    /// Whether none came before the one before it.
    is_ordered: bool,
    /// How many had been given when it broke off last.
    resumed_at: Option<usize>,
    rest: Option<BoxStream<'static, RawResult<ObjectMeta>>>,
}

impl Listing {
    async fn next(mut self) -> RawResult<Option<(ObjectMeta, Self)>> {
        if self.given == LISTED_MAX {
            return Err(fault("the store lists without end"));
        }
        while let Some(entry) = self.entry().await? {
            // A store may give again what it has given, and one that is asked for the rest may give all.
            if self.resumed_at.is_some() && self.last.as_ref().is_some_and(|last| entry.location <= *last) {
                continue;
            }
            self.is_ordered &= self.last.as_ref().is_none_or(|last| entry.location >= *last);
            self.last = Some(entry.location.clone());
            self.given += 1;
            return Ok(Some((entry, self)));
        }
        Ok(None)
    }

    async fn entry(&mut self) -> RawResult<Option<ObjectMeta>> {
        let Some(rest) = &mut self.rest else { return self.begin().await };
        let next =
            timeout(ATTEMPT_TIME, rest.try_next()).await.unwrap_or_else(|_| Err(stalled(ATTEMPT_TIME)));
        match next {
            // One that gives nothing new each time would never end.
            Err(error) if self.is_ordered && self.resumed_at != Some(self.given) => {
                tracing::debug!(%error, "a listing broke off, and is gone on with");
                self.resumed_at = Some(self.given);
                self.begin().await
            }
            next => next,
        }
    }

    async fn begin(&mut self) -> RawResult<Option<ObjectMeta>> {
        let begun = self.core.read(0, || async {
            let prefix = self.prefix.as_ref();
            let entries = match &self.last {
                None => self.inner.list(prefix),
                Some(last) => self.inner.list_with_offset(prefix, last),
            };
            // One that has ended is asked once more.
            let mut entries = entries.fuse();
            let first = entries.try_next().await?;
            Ok((first, entries))
        });
        let (first, rest) = begun.await?;
        self.rest = Some(rest.boxed());
        Ok(first)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use object_store::ObjectStoreExt;

    use super::super::fault::scripted::{FaultyStore, Lists};
    use super::super::{Bucket, StoreOptions};
    use super::*;

    async fn listed(lists: Lists) -> RawResult<Vec<u32>> {
        let store = FaultyStore { lists, ..FaultyStore::default() };
        for number in 0..20 {
            store.put(&Path::from(format!("d/{number:02}")), "x".into()).await?;
        }
        let options = StoreOptions { read_timeout: Duration::from_secs(2), ..StoreOptions::default() };
        let bucket = Bucket::with_options(Arc::new(store), "test", &options);
        let entries: Vec<_> = bucket.objects.list(Some(&Path::from("d"))).try_collect().await?;
        let number = |entry: &ObjectMeta| entry.location.filename().and_then(|name| name.parse().ok());
        Ok(entries.iter().filter_map(number).collect())
    }

    #[tokio::test(start_paused = true)]
    async fn a_listing_that_breaks_off_goes_on_and_gives_each_object_once() {
        let all: Vec<u32> = (0..20).collect();
        for (after, ignore_offset) in [(1, false), (7, false), (19, false), (20, false), (10, true)] {
            let lists = Lists { break_after: Some(after), ignore_offset, ..Lists::default() };
            assert_eq!(listed(lists).await.expect("lists"), all, "{lists:?}");
        }
    }

    #[tokio::test(start_paused = true)]
    async fn one_that_has_no_order_fails_as_soon_as_it_breaks_off() {
        let backwards = Lists { are_backwards: true, ..Lists::default() };
        assert_eq!(listed(backwards).await.expect("lists").len(), 20);
        assert!(listed(Lists { break_after: Some(7), ..backwards }).await.is_err());
        let again = Lists { break_after: Some(7), ignore_offset: true, ..Lists::default() };
        assert!(listed(again).await.is_err(), "so does one that gives again and again what it gave");
        let nothing = Lists { break_after: Some(0), ..Lists::default() };
        assert!(
            listed(nothing).await.is_err(),
            "nor does one that gives nothing, in the time that reads have"
        );
    }
}
