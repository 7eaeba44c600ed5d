//! How many live bytes an edit of extents gave to segments and took from them.

use std::collections::BTreeMap;

use crate::base::SegmentId;

/// Changes of segments' live bytes (stored bytes and tags), summed over edits.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LiveDelta(BTreeMap<SegmentId, i64>);

impl LiveDelta {
    /// No change.
    #[must_use]
    pub const fn new() -> Self {
        Self(BTreeMap::new())
    }

    /// Bytes of `segment` that came into use.
    pub fn gain(&mut self, segment: SegmentId, bytes: u64) {
        self.change(segment, i64::try_from(bytes).unwrap_or(i64::MAX));
    }

    /// Bytes of `segment` that died.
    pub fn lose(&mut self, segment: SegmentId, bytes: u64) {
        self.change(segment, i64::try_from(bytes).map_or(i64::MIN, |bytes| -bytes));
    }

    /// Adds all of `other`.
    pub fn merge(&mut self, other: &Self) {
        other.iter().for_each(|(segment, change)| self.change(segment, change));
    }

    /// Segments whose live bytes changed, with the change; in the order of their ids.
    pub fn iter(&self) -> impl Iterator<Item = (SegmentId, i64)> + '_ {
        self.0.iter().map(|(segment, change)| (*segment, *change))
    }

    /// Whether nothing changed.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    fn change(&mut self, segment: SegmentId, change: i64) {
        let sum = self.0.entry(segment).or_default();
        *sum = sum.saturating_add(change);
        if *sum == 0 {
            self.0.remove(&segment);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gained_and_lost_again_leaves_no_trace() {
        let (a, b) = (SegmentId([1; 16]), SegmentId([2; 16]));
        let mut sum = LiveDelta::new();
        sum.gain(b, 10);
        sum.gain(a, 7);
        let mut other = LiveDelta::new();
        other.lose(a, 7);
        other.lose(b, 4);
        sum.merge(&other);
        assert_eq!(sum.iter().collect::<Vec<_>>(), [(b, 6)]);
        sum.lose(b, 6);
        assert!(sum.is_empty());
    }
}
