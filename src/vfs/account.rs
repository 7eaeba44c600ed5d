//! What a commit does to segments: which come into use, what they weigh then, which are dead.

use std::collections::{BTreeMap, BTreeSet};

use crate::base::{LiveDelta, NewSegment, SegmentId};
use crate::data::Weight;
use crate::meta::{Garbage, Key, MetaError, Record, Segment};

use super::{Vfs, VfsError};

/// What becomes of the segments that a commit knows of.
#[derive(Debug, Default)]
pub(super) struct Accounted {
    /// New ones that have records now.
    pub(super) recorded: Vec<SegmentId>,
    /// Those of which no block is in use any more, and their lengths.
    pub(super) dead: Vec<(SegmentId, u32)>,
    /// Those of which no committed block is in use, but uncommitted ones of the next group are.
    pub(super) idle: Vec<SegmentId>,
    /// Those that are not idle, whatever they were.
    pub(super) settled: BTreeSet<SegmentId>,
    /// What they weighed before, and weigh now.
    pub(super) weights: Vec<(SegmentId, Option<Weight>, Option<Weight>)>,
}

impl Accounted {
    fn bury(
        &mut self,
        id: SegmentId,
        segment: &Segment,
        number: u64,
        records: &mut BTreeMap<Key, Option<Record>>,
    ) {
        self.dead.push((id, segment.len));
        records.insert(Key::Segment(id), None);
        let garbage = Garbage { died: number, born: segment.born };
        records.insert(Key::Garbage(id), Some(Record::Garbage(garbage)));
    }
}

impl Vfs {
    /// Adds to `records` what the commit `number` says of segments: those whose bytes in use change by `live`, `new` ones, and
    /// those that were idle. A segment in which uncommitted blocks of the next group lie never dies; a new one of which
    /// nothing else is in use is left to that group.
    pub(super) async fn account(
        &self,
        live: &LiveDelta,
        new: Vec<(SegmentId, NewSegment)>,
        number: u64,
        records: &mut BTreeMap<Key, Option<Record>>,
    ) -> Result<Accounted, VfsError> {
        let mut accounted = Accounted::default();
        let (needed, idle) = {
            let state = self.state.lock();
            (state.dirty.open_segments(), state.idle.clone())
        };
        let idle = idle.into_iter().filter(|id| !needed.contains(id));
        let mut changes: BTreeMap<SegmentId, i64> = idle.map(|id| (id, 0)).collect();
        changes.extend(live.iter());
        let mut unused: BTreeMap<SegmentId, NewSegment> = new.into_iter().collect();
        for (id, change) in changes {
            let is_needed = needed.contains(&id);
            if !is_needed {
                accounted.settled.insert(id);
            }
            let (old, was) = match unused.remove(&id) {
                Some(new) => {
                    accounted.recorded.push(id);
                    (Segment { len: new.len, live: 0, born: number, seal: new.seal }, None)
                }
                None => match self.read_txn(|txn| txn.committed(Key::Segment(id))).await {
                    Ok(Some(Record::Segment(segment))) => (segment, Some(weigh(&segment))),
                    Err(error) if !error.is_damage() => return Err(error),
                    // Blocks that were lost with their segment's record: they are let go, and that is all. One that cannot be
                    // read now counts more than is in use, until a repair.
                    _ if change <= 0 => continue,
                    Err(error) => return Err(error),
                    Ok(_) => return Err(MetaError::Missing(Key::Segment(id)).into()),
                },
            };
            let segment = Segment { live: old.live.saturating_add_signed(change), ..old };
            if segment.live == 0 && !is_needed {
                accounted.bury(id, &segment, number, records);
                accounted.weights.push((id, was, None));
                continue;
            }
            match segment.live {
                0 => accounted.idle.push(id),
                _ => {
                    accounted.settled.insert(id);
                }
            }
            records.insert(Key::Segment(id), Some(Record::Segment(segment)));
            accounted.weights.push((id, was, Some(weigh(&segment))));
        }
        for (id, new) in unused.into_iter().filter(|(id, _)| !needed.contains(id)) {
            accounted.recorded.push(id);
            let segment = Segment { len: new.len, live: 0, born: number, seal: new.seal };
            accounted.bury(id, &segment, number, records);
        }
        Ok(accounted)
    }
}

/// What a segment weighs.
pub(super) const fn weigh(segment: &Segment) -> Weight {
    Weight { len: segment.len, live: segment.live, born: segment.born }
}
