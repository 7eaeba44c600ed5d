//! A small set of half-open ranges of integers.

use std::ops::Range;

/// Disjoint, non-adjacent, sorted ranges. Looking is logarithmic; adding in the middle moves those after it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RangeSet(Vec<Range<u64>>);

impl RangeSet {
    /// Adds `range`.
    pub fn insert(&mut self, range: Range<u64>) {
        if range.is_empty() {
            return;
        }
        if let Some(last) = self.0.last_mut()
            && last.start <= range.start
            && range.start <= last.end
        {
            last.end = last.end.max(range.end);
            return;
        }
        let from = self.0.partition_point(|old| old.end < range.start);
        let to = self.0.partition_point(|old| old.start <= range.end);
        let touched = self.0.get(from..to).unwrap_or_default();
        let start = touched.first().map_or(range.start, |first| first.start.min(range.start));
        let end = touched.last().map_or(range.end, |last| last.end.max(range.end));
        self.0.splice(from..to, std::iter::once(start..end));
    }

    /// Whether `point` is in the set.
    #[must_use]
    pub fn contains(&self, point: u64) -> bool {
        self.around(point).is_some()
    }

    /// Whether all of `range` is in the set.
    #[must_use]
    pub fn covers(&self, range: &Range<u64>) -> bool {
        range.is_empty() || self.around(range.start).is_some_and(|own| range.end <= own.end)
    }

    /// The end of the range that holds `point`, if one does.
    #[must_use]
    pub fn end_of(&self, point: u64) -> Option<u64> {
        self.around(point).map(|range| range.end)
    }

    fn around(&self, point: u64) -> Option<&Range<u64>> {
        let range = self.0.get(self.0.partition_point(|own| own.end <= point))?;
        range.contains(&point).then_some(range)
    }

    /// The ranges in order.
    pub fn iter(&self) -> impl Iterator<Item = &Range<u64>> {
        self.0.iter()
    }

    /// Whether the set is empty.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn it_is_the_set_of_its_points(inserts in proptest::collection::vec((0u64..64, 0u64..16), 0..20)) {
            let (mut set, mut model) = (RangeSet::default(), BTreeSet::new());
            for (start, len) in inserts {
                set.insert(start..start + len);
                model.extend(start..start + len);
            }
            let points: BTreeSet<u64> = set.iter().flat_map(Clone::clone).collect();
            prop_assert_eq!(&points, &model);
            for pair in set.0.windows(2) {
                prop_assert!(pair[0].end < pair[1].start);
            }
            for point in 0..80 {
                prop_assert_eq!(set.contains(point), model.contains(&point));
                prop_assert_eq!(set.covers(&(point..point + 5)), (point..point + 5).all(|p| model.contains(&p)));
            }
        }
    }
}
