//! Forgets which pages shared blocks of a segment once they share none any more.

use crate::meta::Key;

use super::Vfs;
use super::layout::Layout;
use super::survey::ASKED_MAX;

/// Most that goes with one commit, which looks at each once more.
const DROPPED_MAX: usize = 2048;
/// So many commits take along what is noted at most; the next survey finds the rest.
pub(super) const STALE_COMMITS: usize = 8;
const NOTED_MAX: usize = STALE_COMMITS * DROPPED_MAX;

impl Vfs {
    /// Notes `R` records of pages in which the last commit had nothing of the segment.
    pub(super) fn note_stale(&self, references: Vec<Key>) {
        let mut state = self.state.lock();
        let room = NOTED_MAX.saturating_sub(state.stale.len());
        state.stale.extend(references.into_iter().take(room));
    }

    /// Has a commit remove what was noted, if it is still so, and the commit itself changes nothing about it. Commits come one
    /// after the other: nobody comes to share a block between this look and its end. What cannot be looked at stays.
    pub(super) async fn drop_stale(&self, layout: &mut Layout) {
        let noted: Vec<Key> = {
            let mut state = self.state.lock();
            let more = state.stale.iter().nth(DROPPED_MAX).copied();
            let rest = more.map(|key| state.stale.split_off(&key)).unwrap_or_default();
            std::mem::replace(&mut state.stale, rest).into_iter().collect()
        };
        for asked in noted.chunks(ASKED_MAX) {
            let Ok(sharing) = self.sharing(asked).await else { return };
            for (key, places) in asked.iter().zip(sharing) {
                if places.is_empty() && !touches(layout, *key) {
                    layout.records.insert(*key, None);
                }
            }
        }
    }
}

/// Whether a commit says where blocks of the page of an `R` record lie, or that they are shared.
fn touches(layout: &Layout, key: Key) -> bool {
    let Key::Reference(_, ino, page) = key else { return true };
    let puts = |key: &Key| matches!(layout.records.get(key), Some(Some(_)));
    puts(&key) || puts(&Key::Extents(ino, page)) || layout.bodies.contains_key(&ino)
}
