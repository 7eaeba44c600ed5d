//! Segments in the bucket of which no record knows: what a crash or a takeover leaves.
//!
//! A listing is the provider's word and no reason to delete anything. What it shows and no record
//! knows gets a record of its own, which waits for a day: long enough for whoever has mounted an old
//! state of the volume to notice.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt;

use crate::base::{SegmentId, Time};
use crate::meta::{Key, Leftover, Record};

use super::state::State;
use super::waiting::WAITING_MAX;
use super::{Amount, Vfs, VfsError};

/// Listed objects that are looked at. More than 128 TiB of segments are not expected; an endless list is.
const LISTED_MAX: usize = 1 << 24;
/// Leftovers noted at a time: the rest is found by the next listing.
const LEFTOVERS_MAX: usize = 65_536;

/// How long a writer that was taken over may go on sending.
pub(super) const STRAGGLERS: Duration = Duration::from_secs(10 * 60);

/// A record under this key, which is no segment's, says that the bucket is still to be listed: since the crash or the takeover
/// that it tells the time of, no list was made after the last that an earlier writer may have sent.
pub(super) const UNLISTED: Key = Key::Leftover(SegmentId([0xFF; 16]));

/// What the records say of a listed segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Standing {
    Used,
    Dead,
    Leftover,
    Unknown,
}

/// The segments in the bucket, by what the records say of them.
#[derive(Debug, Default)]
pub(super) struct Listing {
    pub(super) used: Amount,
    pub(super) dead: Amount,
    /// Leftovers that have a record already.
    pub(super) noted: Amount,
    /// Segments of which no record knows, and which are none of this mount's; with their lengths.
    pub(super) unknown: Vec<(SegmentId, u64)>,
    /// Lengths of those that wait to be deleted, as many as are kept in memory.
    waiting: HashMap<SegmentId, u64>,
    /// Something was not looked at.
    pub(super) is_cut: bool,
}

impl Vfs {
    /// Asks the bucket for its segments and the records for what they are. What is listed is the
    /// provider's word, and no reason to delete anything.
    pub(super) async fn list(&self) -> Result<Listing, VfsError> {
        let mut listed = self.vault.list_segments();
        let (mut listing, mut unknown, mut listed_count) = (Listing::default(), Vec::new(), 0);
        while let Some(item) = listed.next().await {
            listed_count += 1;
            if unknown.len() >= LEFTOVERS_MAX || listed_count > LISTED_MAX {
                tracing::warn!(
                    listed_count,
                    "the bucket lists more than is looked at; the rest is left for later"
                );
                listing.is_cut = true;
                break;
            }
            match item {
                // Nobody can make a segment by this name.
                Ok((id, _)) if Key::Leftover(id) == UNLISTED => {}
                Ok((id, bytes)) => {
                    let amount = match self.standing(id).await? {
                        Standing::Unknown => {
                            unknown.push((id, bytes));
                            continue;
                        }
                        Standing::Used => {
                            listing.used.add(bytes);
                            continue;
                        }
                        Standing::Dead => &mut listing.dead,
                        Standing::Leftover => &mut listing.noted,
                    };
                    amount.add(bytes);
                    if listing.waiting.len() < WAITING_MAX {
                        listing.waiting.insert(id, bytes);
                    }
                }
                Err(error) => {
                    tracing::warn!(%error, "the bucket cannot be listed; leftovers of a crash stay for now");
                    return Ok(Listing { is_cut: true, ..listing });
                }
            }
        }
        if self.options.read_only {
            self.follow().await?;
        } else {
            // Who is still the writer now was so when the list was made: nothing in it is a newer writer's.
            self.engine.refresh().await.map_err(|error| self.told(error))?;
        }
        // Asked again after the list was made: what has been on its way is known by now.
        for (id, bytes) in unknown {
            if self.standing(id).await? == Standing::Unknown {
                listing.unknown.push((id, bytes));
            }
        }
        Ok(listing)
    }

    async fn standing(&self, id: SegmentId) -> Result<Standing, VfsError> {
        self.read_txn(|txn| {
            if txn.state().knows_segment(id) || txn.get(Key::Segment(id))?.is_some() {
                return Ok(Standing::Used);
            }
            if txn.get(Key::Garbage(id))?.is_some() {
                return Ok(Standing::Dead);
            }
            Ok(if txn.get(Key::Leftover(id))?.is_some() { Standing::Leftover } else { Standing::Unknown })
        })
        .await
    }

    /// Gives every leftover a record, with the next commit; it is deleted when that has aged. Says as well whether the bucket
    /// could not be listed whole.
    pub(super) async fn note_leftovers(&self) -> Result<(Amount, bool), VfsError> {
        let begun = self.clock.now();
        let mut listing = self.list().await?;
        let is_cut = listing.is_cut;
        let (staged, staged_until) = self.remove_staged().await;
        listing.is_cut |= staged_until.is_some();
        let found = self.clock.now();
        let mut state = self.state.lock();
        state.check_writable()?;
        if let Some(wait) = staged_until {
            let again = self.clock.elapsed().saturating_add(wait);
            state.list_again_at = Some(state.list_again_at.map_or(again, |at| at.min(again)));
        }
        state.waiting.learn(&listing.waiting);
        let mut amount = staged;
        if let Some(Some(Record::Leftover(due))) = state.overlay.get(&UNLISTED)
            && !listing.is_cut
            && begun.secs - due.found.secs >= STRAGGLERS.as_secs() as i64
        {
            state.overlay.put(UNLISTED, None);
        }
        for (id, bytes) in listing.unknown {
            amount.add(bytes);
            self.note_leftover(&mut state, id, bytes, found);
        }
        self.note_change(&mut state);
        Ok((amount, is_cut))
    }

    /// Removes files that a write has left half done and that nobody has written to for as long as leftovers wait: nobody
    /// refers to them, so that no record is needed. Gives what stays, and for how long that is to be waited for.
    async fn remove_staged(&self) -> (Amount, Option<Duration>) {
        let grace = self.options.clean.leftover_grace;
        let staged = self.vault.staged().await;
        let staged = staged.inspect_err(|error| tracing::warn!(%error, "unfinished files stay for now"));
        let (mut stays, mut longest) = (Amount::default(), None);
        for file in staged.unwrap_or_default() {
            if file.age < grace {
                stays.add(file.bytes);
                longest = longest.max(Some(grace.saturating_sub(file.age)));
                continue;
            }
            match self.vault.remove_staged(&file).await {
                Ok(()) => {
                    let mut state = self.state.lock();
                    state.cleaned.deleted_count += 1;
                    state.cleaned.deleted_bytes += file.bytes;
                }
                Err(error) => tracing::warn!(file = file.path, %error, "an unfinished file stays for now"),
            }
        }
        (stays, longest)
    }

    /// Gives a segment of which no record knows, or may know, one of its own.
    pub(super) fn note_leftover(&self, state: &mut State, id: SegmentId, bytes: u64, found: Time) {
        let due = self.clock.elapsed().saturating_add(self.options.clean.leftover_grace);
        state.overlay.put(Key::Leftover(id), Some(Record::Leftover(Leftover { found })));
        state.waiting.leftover(id, bytes, due);
    }

    /// Segments that the cleaner has begun and will not hand over any more become leftovers.
    pub(super) fn give_up_moving(&self) {
        let found = self.clock.now();
        let mut state = self.state.lock();
        state.is_closing = true;
        for id in std::mem::take(&mut state.moving) {
            state.overlay.put(Key::Leftover(id), Some(Record::Leftover(Leftover { found })));
        }
    }
}
