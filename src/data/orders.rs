//! Candidates for cleaning, in the orders in which they are picked.

use std::collections::BTreeMap;

use crate::base::SegmentId;

use super::ledger::{TINY_CLASS_ENDS, TINY_COUNT_MIN, Weight, fitting};
use super::{Pick, Reason};

/// The candidates, each put in order once however many picks are taken.
#[derive(Debug, Default)]
pub(super) struct Orders {
    /// Those of each tiny class, the oldest first: what was written together stays together.
    tiny: [BTreeMap<(u64, SegmentId), Weight>; TINY_CLASS_ENDS.len()],
    /// The worst first.
    sparse: BTreeMap<(u64, u64, SegmentId), Weight>,
}

impl Orders {
    pub(super) fn of(candidates: &BTreeMap<SegmentId, Weight>) -> Self {
        let mut orders = Self::default();
        for (id, weight) in candidates {
            if let Some(class) = weight.tiny_class().and_then(|class| orders.tiny.get_mut(class)) {
                class.insert((weight.born, *id), *weight);
            }
            if weight.is_sparse() {
                orders.sparse.insert((weight.badness(), weight.born, *id), *weight);
            }
        }
        orders
    }

    pub(super) fn leave(&mut self, id: SegmentId, weight: Weight) {
        if let Some(class) = weight.tiny_class().and_then(|class| self.tiny.get_mut(class)) {
            class.remove(&(weight.born, id));
        }
        self.sparse.remove(&(weight.badness(), weight.born, id));
    }

    pub(super) fn pick_tiny(&self, room_bytes: u64) -> Option<Pick> {
        let class = self.tiny.iter().find(|class| class.len() >= TINY_COUNT_MIN)?;
        let victims = fitting(class.iter().map(|((_, id), weight)| (*id, *weight)), room_bytes);
        (victims.len() > 1).then_some(Pick { reason: Reason::Tiny, victims })
    }

    pub(super) fn pick_sparse(&self, room_bytes: u64) -> Option<Pick> {
        let victims = fitting(self.sparse.iter().map(|((_, _, id), weight)| (*id, *weight)), room_bytes);
        (!victims.is_empty()).then_some(Pick { reason: Reason::Sparse, victims })
    }
}
