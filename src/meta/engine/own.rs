//! Which manifests a writer has written itself, and that it is shown no others.
//!
//! Beside it only a successor writes any, with a higher epoch, and for a while a merge of the writer that it took over
//! (see [`Engine::refuse_other_merges`](super::Engine::refuse_other_merges)). But a store that has split two writers has
//! manifests of both under the same numbers, and all of them open: the tables of the one would come to lie under the
//! commits of the other.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, RandomState};
use std::sync::Arc;

use bytes::Bytes;
use futures::FutureExt;
use futures::future::BoxFuture;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{ObjectStoreExt, PutPayload};
use parking_lot::Mutex;
use slatedb::admin::AdminBuilder;

use super::DATABASE;

/// Manifests that are remembered; older ones are not asked for any more.
const MANIFESTS_MAX: usize = 4096;

/// What a writer has written.
#[derive(Debug, Default)]
pub(super) struct Own {
    hasher: RandomState,
    /// Numbers of manifests that were sent, what they were, and how many times, but for those that were refused. Whether one
    /// has arrived may show only when it is read.
    sent: Mutex<BTreeMap<(u64, u64), u64>>,
    /// The first that has arrived, and the writer's epoch.
    begun: Mutex<Option<(u64, u64)>>,
}

impl Own {
    /// A manifest is about to be written.
    pub(super) fn sends(&self, number: u64, bytes: &Bytes) {
        let mut sent = self.sent.lock();
        *sent.entry((number, self.hash(bytes))).or_default() += 1;
        if sent.len() > MANIFESTS_MAX {
            sent.pop_first();
        }
    }

    /// The one that is there is another's, although it may say the same: two writers that begin with the same manifest begin
    /// alike.
    pub(super) fn was_refused(&self, number: u64, bytes: &Bytes) {
        let (mut sent, manifest) = (self.sent.lock(), (number, self.hash(bytes)));
        if let Some(times) = sent.get_mut(&manifest) {
            *times -= 1;
            if *times == 0 {
                sent.remove(&manifest);
            }
        }
    }

    /// It is written.
    pub(super) async fn has_sent(&self, number: u64, path: &Path, bytes: &Bytes) {
        let Some(epoch) = epoch_of(number, path, bytes).await else { return };
        let mut begun = self.begun.lock();
        let first = begun.map_or(number, |(first, _)| first);
        *begun = Some((first, epoch));
    }

    /// Whether it matters what the manifest `number` is: those before the first of this writer are judged when it opens.
    pub(super) fn concerns(&self, number: u64) -> bool {
        let sent = self.sent.lock();
        let is_remembered = sent.first_key_value().is_some_and(|((oldest, _), _)| number >= *oldest);
        match *self.begun.lock() {
            Some((first, _)) => is_remembered && number >= first,
            None => sent.range((number, 0)..=(number, u64::MAX)).next().is_some(),
        }
    }

    /// Whether a manifest that has been read is this writer's own, or a successor's.
    pub(super) async fn may_be_read(&self, number: u64, path: &Path, bytes: &Bytes) -> bool {
        let is_own = self.sent.lock().contains_key(&(number, self.hash(bytes)));
        if is_own {
            self.has_sent(number, path, bytes).await;
            return true;
        }
        let Some((_, epoch)) = *self.begun.lock() else { return true };
        epoch_of(number, path, bytes).await.is_none_or(|theirs| theirs > epoch)
    }

    fn hash(&self, bytes: &Bytes) -> u64 {
        self.hasher.hash_one(bytes.as_ref())
    }
}

/// The epoch of the writer that a manifest tells of; `None` if it tells nothing. Boxed, so that those who read do not carry
/// its state on their stacks.
fn epoch_of<'a>(number: u64, path: &'a Path, bytes: &'a Bytes) -> BoxFuture<'a, Option<u64>> {
    let read = async move {
        let alone = InMemory::new();
        alone.put(path, PutPayload::from_bytes(bytes.clone())).await.ok()?;
        let manifest = AdminBuilder::new(DATABASE, Arc::new(alone)).build().read_manifest(Some(number)).await;
        Some(manifest.ok()??.writer_epoch())
    };
    read.boxed()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_remembered_any_more_is_not_taken_for_anothers() {
        let own = Own::default();
        *own.begun.lock() = Some((5, 1));
        for number in 5..5 + MANIFESTS_MAX as u64 {
            own.sends(number, &Bytes::from_static(b"a manifest"));
        }
        assert!(!own.concerns(4) && own.concerns(5) && own.concerns(u64::MAX));
        own.sends(5 + MANIFESTS_MAX as u64, &Bytes::from_static(b"a manifest"));
        assert!(!own.concerns(5) && own.concerns(6));
    }
}
