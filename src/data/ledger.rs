//! Which segments are worth cleaning: an account of their lengths and live bytes.
//!
//! A pure data structure. It is fed once by a scan of all segments and then by every commit, and
//! knows only candidates one by one; of the others it keeps sums. What it says is a hint: whoever
//! cleans looks again.

use std::collections::BTreeMap;

use crate::base::SegmentId;

use super::orders::Orders;

/// A segment is tiny below this length, and merged with others of its kind.
const TINY_BYTES: u32 = 1024 * 1024;
/// Each class of tiny segments begins at a sixteenth of the next, so that a merge of sixteen leaves
/// its class, and a block is merged at most so many times.
pub(super) const TINY_CLASS_ENDS: [u32; 3] = [TINY_BYTES / 256, TINY_BYTES / 16, TINY_BYTES];
/// Tiny segments of one class that are merged.
pub(super) const TINY_COUNT_MIN: usize = 16;
/// Candidates known one by one. Beyond, the first to come stay.
const CANDIDATES_MAX: usize = 65_536;
/// Segments cleaned together.
const PICK_COUNT_MAX: usize = 256;
/// Looks in a row that found nothing to gain, after which it takes more garbage to go on.
const FRUITLESS_MAX: u32 = 32;

/// What a segment weighs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Weight {
    /// The object's length.
    pub len: u32,
    /// Sealed bytes in use, each reference counted: shared blocks count more than once.
    pub live: u64,
    /// The commit that brought it.
    pub born: u64,
}

impl Weight {
    /// Bytes that nobody refers to, head, footer and padding included.
    #[must_use]
    pub fn dead(&self) -> u64 {
        u64::from(self.len).saturating_sub(self.live)
    }

    /// Whether a rewrite gives back a tenth of it.
    pub(super) fn is_sparse(&self) -> bool {
        self.dead() >= u64::from(self.len) / 10
    }

    pub(super) fn tiny_class(&self) -> Option<usize> {
        TINY_CLASS_ENDS.iter().position(|end| self.len < *end)
    }

    /// The less of it lives, the lower this is.
    pub(super) fn badness(&self) -> u64 {
        self.live * 1024 / u64::from(self.len.max(1))
    }

    /// What is left of it after a rewrite, at most.
    pub fn kept(&self) -> u64 {
        self.live.min(self.len.into())
    }
}

/// Why segments are cleaned.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Much of them is dead.
    Sparse,
    /// They are many and small.
    Tiny,
    /// They are sealed with an older key.
    Outdated,
}

/// Segments to be cleaned together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pick {
    /// Why.
    pub reason: Reason,
    /// Which.
    pub victims: Vec<(SegmentId, Weight)>,
}

/// Sums over all segments.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Segments.
    pub count: u64,
    /// Their lengths.
    pub len: u64,
    /// Bytes of them that nobody refers to.
    pub dead: u64,
}

/// How far the scan has come.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Scan {
    #[default]
    NotBegun,
    UpTo(SegmentId),
    Complete,
}

/// The account.
#[derive(Clone, Debug)]
pub struct Ledger {
    candidates: BTreeMap<SegmentId, Weight>,
    totals: Totals,
    scan: Scan,
    /// Dead bytes that are not worth a rewrite.
    slack_bytes: u64,
    /// Once begun, cleaning goes on until less is dead than it takes to begin.
    is_at_it: bool,
    fruitless_count: u32,
    /// Cleaning has been given up until more than this is dead.
    tired_until: u64,
}

impl Ledger {
    /// An empty account, for a volume in which `slack_bytes` may be dead for good.
    #[must_use]
    pub const fn new(slack_bytes: u64) -> Self {
        Self {
            candidates: BTreeMap::new(),
            totals: Totals { count: 0, len: 0, dead: 0 },
            scan: Scan::NotBegun,
            slack_bytes,
            is_at_it: false,
            fruitless_count: 0,
            tired_until: 0,
        }
    }

    /// Whether every segment is accounted for.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.scan == Scan::Complete
    }

    /// The segment after which the scan goes on; `None` at its start.
    #[must_use]
    pub const fn scanned_to(&self) -> Option<SegmentId> {
        match self.scan {
            Scan::UpTo(id) => Some(id),
            Scan::NotBegun | Scan::Complete => None,
        }
    }

    /// Takes the next segments of the scan. `upto` is the last of them if there may be more.
    pub fn scanned(&mut self, rows: impl IntoIterator<Item = (SegmentId, Weight)>, upto: Option<SegmentId>) {
        for (id, weight) in rows {
            self.enter(id, weight);
        }
        self.scan = upto.map_or(Scan::Complete, Scan::UpTo);
    }

    /// A commit has changed a segment. One that the scan has yet to come by is left to it.
    pub fn changed(&mut self, id: SegmentId, old: Option<Weight>, new: Option<Weight>) {
        let is_known = match self.scan {
            Scan::NotBegun => false,
            Scan::UpTo(upto) => id <= upto,
            Scan::Complete => true,
        };
        if !is_known {
            return;
        }
        if let Some(old) = old {
            self.leave(id, old);
        }
        if let Some(new) = new {
            self.enter(id, new);
        }
    }

    fn enter(&mut self, id: SegmentId, weight: Weight) {
        self.totals.count += 1;
        self.totals.len += u64::from(weight.len);
        self.totals.dead += weight.dead();
        let is_candidate = weight.is_sparse() || weight.tiny_class().is_some();
        if is_candidate && self.candidates.len() < CANDIDATES_MAX {
            self.candidates.insert(id, weight);
        }
    }

    fn leave(&mut self, id: SegmentId, weight: Weight) {
        self.totals.count = self.totals.count.saturating_sub(1);
        self.totals.len = self.totals.len.saturating_sub(weight.len.into());
        self.totals.dead = self.totals.dead.saturating_sub(weight.dead());
        self.candidates.remove(&id);
    }

    /// Sums over all segments seen so far.
    #[must_use]
    pub const fn totals(&self) -> Totals {
        self.totals
    }

    /// A segment cannot be cleaned, or not with gain: it is no candidate until a commit changes it.
    pub fn pass_over(&mut self, id: SegmentId) {
        self.candidates.remove(&id);
    }

    /// Says whether the last pick was worth it.
    pub fn judge(&mut self, was_fruitful: bool) {
        self.fruitless_count = if was_fruitful { 0 } else { self.fruitless_count + 1 };
        if self.fruitless_count >= FRUITLESS_MAX {
            self.fruitless_count = 0;
            self.tired_until = self.totals.dead + self.totals.len / 16;
        }
    }

    /// The next segments to clean: their live bytes fit into `room_bytes`.
    pub fn pick(&mut self, room_bytes: u64) -> Option<Pick> {
        if !self.is_complete() {
            return None;
        }
        self.pick_tiny(room_bytes).or_else(|| self.pick_sparse(room_bytes))
    }

    /// Rewriting pays as long as much is dead: with an eighth of all bytes dead, the worst segment costs
    /// at most seven bytes written for each one given back.
    fn is_due(&mut self) -> bool {
        let Totals { len, dead, .. } = self.totals;
        let share = if self.is_at_it { 8 } else { 5 };
        self.is_at_it = dead > self.slack_bytes && dead.saturating_mul(share) > len;
        self.is_at_it && dead >= self.tired_until
    }

    fn pick_sparse(&mut self, room_bytes: u64) -> Option<Pick> {
        if !self.is_due() {
            return None;
        }
        let sparse = self.candidates.iter().filter(|(_, weight)| weight.is_sparse());
        let mut worst: Vec<(SegmentId, Weight)> = sparse.map(|(id, weight)| (*id, *weight)).collect();
        worst.sort_by_key(|(_, weight)| (weight.badness(), weight.born));
        let victims = fitting(worst, room_bytes);
        (!victims.is_empty()).then_some(Pick { reason: Reason::Sparse, victims })
    }

    fn pick_tiny(&self, room_bytes: u64) -> Option<Pick> {
        let mut classes = [const { Vec::new() }; TINY_CLASS_ENDS.len()];
        for (id, weight) in &self.candidates {
            if let Some(class) = weight.tiny_class().and_then(|class| classes.get_mut(class)) {
                class.push((*id, *weight));
            }
        }
        let mut class = classes.into_iter().find(|class| class.len() >= TINY_COUNT_MIN)?;
        // The oldest together: what was written together stays together.
        class.sort_by_key(|(_, weight)| weight.born);
        let victims = fitting(class, room_bytes);
        (victims.len() > 1).then_some(Pick { reason: Reason::Tiny, victims })
    }

    /// All picks until nothing is left to do, as far as this account can tell. With many candidates this is work for a
    /// while.
    #[must_use]
    pub fn plan(&self, room_bytes: u64) -> Vec<Pick> {
        let (mut ahead, mut orders, mut picks) = (self.clone(), Orders::of(&self.candidates), Vec::new());
        while let Some(pick) = ahead.pick_next(&orders, room_bytes) {
            for (id, weight) in &pick.victims {
                orders.leave(*id, *weight);
                ahead.leave(*id, *weight);
                ahead.totals.len += weight.kept();
            }
            picks.push(pick);
        }
        picks
    }

    /// What [`Self::pick`] would, of candidates that are in order already.
    fn pick_next(&mut self, orders: &Orders, room_bytes: u64) -> Option<Pick> {
        if !self.is_complete() {
            return None;
        }
        let tiny = orders.pick_tiny(room_bytes);
        tiny.or_else(|| self.is_due().then(|| orders.pick_sparse(room_bytes)).flatten())
    }
}

/// Parts `all` into picks, each of which fits into `room_bytes` or is one segment.
#[must_use]
pub fn parted(all: &[(SegmentId, Weight)], room_bytes: u64) -> Vec<Pick> {
    let (mut picks, mut rest) = (Vec::new(), all);
    while !rest.is_empty() {
        let victims = fitting(rest.iter().copied(), room_bytes);
        rest = rest.get(victims.len().max(1)..).unwrap_or_default();
        picks.push(Pick { reason: Reason::Outdated, victims });
    }
    picks
}

/// As many of `from` as fit, in order; one at least.
pub(super) fn fitting(
    from: impl IntoIterator<Item = (SegmentId, Weight)>,
    room_bytes: u64,
) -> Vec<(SegmentId, Weight)> {
    let mut bytes = 0;
    let fits = |(_, weight): &(SegmentId, Weight)| {
        let is_first = bytes == 0;
        bytes += weight.kept().max(1);
        is_first || bytes <= room_bytes
    };
    from.into_iter().take(PICK_COUNT_MAX).take_while(fits).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1024 * 1024;
    const ROOM: u64 = 8 * MIB as u64;

    fn id(number: u16) -> SegmentId {
        let mut bytes = [0; 16];
        bytes[..2].copy_from_slice(&number.to_be_bytes());
        SegmentId(bytes)
    }

    fn weight(len: u32, live: u64) -> Weight {
        Weight { len, live, born: 1 }
    }

    fn full() -> Weight {
        weight(8 * MIB, u64::from(8 * MIB) / 128 * 127)
    }

    fn ledger(weights: &[Weight]) -> Ledger {
        let mut ledger = Ledger::new(0);
        let rows = weights.iter().enumerate().map(|(number, weight)| (id(number as u16), *weight));
        ledger.scanned(rows, None);
        ledger
    }

    #[test]
    fn a_clean_volume_is_left_alone() {
        let mut ledger = ledger(&[full(); 100]);
        assert_eq!(ledger.pick(ROOM), None);
        assert_eq!(Ledger::new(0).pick(ROOM), None);
    }

    #[test]
    fn nothing_is_picked_before_all_is_known() {
        let mut ledger = Ledger::new(0);
        ledger.scanned([(id(1), weight(8 * MIB, 1))], Some(id(1)));
        assert_eq!((ledger.pick(ROOM), ledger.scanned_to()), (None, Some(id(1))));
        ledger.scanned([], None);
        assert_eq!(ledger.pick(ROOM).unwrap().victims.len(), 1);
    }

    #[test]
    fn the_worst_go_first_and_cleaning_ends_with_an_eighth_dead() {
        let half = weight(8 * MIB, u64::from(4 * MIB));
        let empty = weight(8 * MIB, 1000);
        let mut all = vec![full(); 10];
        all.extend([half, empty, half, half, half, half, half, half]);
        let mut ledger = ledger(&all);
        let first = ledger.pick(ROOM).unwrap();
        assert_eq!(first.victims.first(), Some(&(id(11), empty)));
        assert_eq!(first.victims.len(), 2, "an empty one, and a half that fits beside it");
        for round in 0..20 {
            let Some(pick) = ledger.pick(ROOM) else { break };
            let kept: u64 = pick.victims.iter().map(|(_, weight)| weight.kept()).sum();
            for (victim, was) in pick.victims {
                ledger.changed(victim, Some(was), None);
            }
            ledger.changed(id(1000 + round), None, Some(weight(kept as u32, kept)));
        }
        let Totals { len, dead, .. } = ledger.totals();
        assert!(dead * 8 <= len, "{dead} of {len}");
        assert_eq!(ledger.pick(ROOM), None);
    }

    #[test]
    fn tiny_segments_are_merged_by_sixteens_of_a_class() {
        let mut few = ledger(&[weight(1000, 900); 15]);
        assert_eq!(few.pick(ROOM), None);
        let mut mixed: Vec<Weight> = vec![weight(1000, 900); 15];
        mixed.extend([weight(500_000, 499_000); 16]);
        let pick = ledger(&mixed).pick(ROOM).unwrap();
        assert_eq!((pick.reason, pick.victims.len()), (Reason::Tiny, 16));
        assert!(pick.victims.iter().all(|(_, weight)| weight.len == 500_000));
    }

    #[test]
    fn commits_and_the_scan_count_a_segment_once() {
        let mut ledger = Ledger::new(0);
        ledger.changed(id(3), None, Some(full()));
        assert_eq!(ledger.totals(), Totals::default(), "the scan will come by");
        ledger.scanned([(id(1), full()), (id(2), full())], Some(id(2)));
        ledger.changed(id(1), Some(full()), Some(weight(8 * MIB, 1)));
        ledger.changed(id(3), Some(full()), Some(weight(8 * MIB, 2)));
        ledger.scanned([(id(3), weight(8 * MIB, 2))], None);
        ledger.changed(id(2), Some(full()), None);
        let expected = Totals { count: 2, len: 16 * u64::from(MIB), dead: 16 * u64::from(MIB) - 3 };
        assert_eq!(ledger.totals(), expected);
    }

    #[test]
    fn it_gives_up_where_nothing_is_gained_until_more_is_dead() {
        // Blocks that compress to nothing: half of each segment is its footer.
        let mut ledger = ledger(&[weight(4 * MIB, u64::from(2 * MIB)); 100]);
        let mut looks = 0;
        while let Some(pick) = ledger.pick(u64::from(2 * MIB)) {
            pick.victims.iter().for_each(|(id, _)| ledger.pass_over(*id));
            ledger.judge(false);
            looks += 1;
        }
        assert_eq!(looks, FRUITLESS_MAX);
        for number in 0..20 {
            ledger.changed(id(number), Some(weight(4 * MIB, u64::from(2 * MIB))), Some(weight(4 * MIB, 1)));
        }
        assert!(ledger.pick(ROOM).is_some());
    }

    #[test]
    fn the_plan_ends_and_names_every_segment_once() {
        let mut all = vec![weight(8 * MIB, u64::from(3 * MIB)); 50];
        all.extend([weight(3000, 2000); 40]);
        let ledger = ledger(&all);
        let mut named: Vec<SegmentId> =
            ledger.plan(ROOM).iter().flat_map(|pick| pick.victims.iter().map(|(id, _)| *id)).collect();
        let count = named.len();
        named.sort();
        named.dedup();
        assert!(count > 30 && named.len() == count, "{count}");
    }

    /// > The plan is what picking one after the other comes to, each time among all that are left.
    #[test]
    fn the_plan_is_what_would_be_picked() {
        use rand::{Rng, SeedableRng};
        for seed in 0..50 {
            let mut rng = rand::rngs::SmallRng::seed_from_u64(seed);
            let all: Vec<Weight> = (0..rng.random_range(0..600))
                .map(|_| {
                    let max = [3000, 60_000, MIB, 8 * MIB][rng.random_range(0..4)];
                    let len = rng.random_range(0..max);
                    let live = rng.random_range(0..=u64::from(len) * 9 / 8);
                    Weight { len, live, born: rng.random_range(0..40) }
                })
                .collect();
            let ledger = ledger(&all);
            let (mut ahead, mut picks) = (ledger.clone(), Vec::new());
            while let Some(pick) = ahead.pick(ROOM) {
                for (id, weight) in &pick.victims {
                    ahead.leave(*id, *weight);
                    ahead.totals.len += weight.kept();
                }
                picks.push(pick);
            }
            assert_eq!(ledger.plan(ROOM), picks, "seed {seed}");
        }
    }
}
