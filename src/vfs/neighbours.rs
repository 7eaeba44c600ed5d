//! Reads on ahead of whoever reads one small file after the other.
//!
//! Files made one after the other have inode numbers that follow each other, and lie one after the other in segments. Whoever reads
//! many files of one neighbourhood of a segment, goes from it to the next, or from a segment to the beginning of the one that was
//! made next, is taken for somebody who will go on, and what follows is fetched before he asks. Who goes back to where he has been, as
//! who reads the files of a directory in the order of its listing, has not gone elsewhere. All of this is guessing: errors are left to be
//! found by who reads.

use std::collections::VecDeque;

use crate::base::{BlockPlace, Ino};
use crate::data::{BlockReader, Neighbourhood, Want};
use crate::meta::{Body, Key, Record};

use super::read::SMALL_FILE_BYTES;
use super::{Vfs, VfsError, locate};

/// Inodes looked at in one scan.
const SCAN_COUNT: usize = 512;
/// Inodes looked at for what follows, beyond which nothing does.
const LOOK_COUNT_MAX: usize = 16 * 1024;
/// Between the last file of a segment and the first of the next there may be directories, links, and files too small for
/// segments.
const INODE_GAP_MAX: u64 = 64 * 1024;
/// So many reads in a row from one neighbourhood, each of a later file, make the next worth fetching.
const RUN_MIN: u32 = 16;
/// Neighbourhoods that a reader may go back to.
const RECENT_MAX: usize = 8;

/// Where readers of small files are, and what has been asked for ahead of them.
#[derive(Debug, Default)]
pub(super) struct Neighbours {
    last: Option<(Neighbourhood, Ino)>,
    /// How many reads in a row were from there, each of a later file than the one before.
    run: u32,
    /// Where readers have been, or have passed by, the latest last.
    recent: VecDeque<Neighbourhood>,
    /// How often in a row somebody went on to the next.
    steps: u32,
    /// Asked for and not reached yet, in order.
    ahead: VecDeque<Neighbourhood>,
    /// The file after which to look for more.
    frontier: Option<Ino>,
    is_looking: bool,
}

/// What to look for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Look {
    after: Ino,
    count: usize,
}

impl Neighbours {
    /// Takes note that a block of `ino` is read from `here`; tells what to look for now, at most `count_max` at a time.
    fn enter(&mut self, here: Neighbourhood, ino: Ino, count_max: usize) -> Option<Look> {
        let before = self.last.replace((here, ino));
        if let Some((_, last)) = before.filter(|(there, _)| *there == here) {
            // In any other order he may be at the end of a directory, and go on elsewhere.
            self.run = if ino > last { self.run.saturating_add(1) } else { 1 };
            let is_due = self.run == RUN_MIN && self.ahead.is_empty() && !self.is_looking;
            return if is_due { self.next_look(ino, count_max) } else { None };
        }
        self.run = 1;
        let reached = self.ahead.iter().position(|ahead| *ahead == here);
        let is_back = self.recent.contains(&here);
        if reached.is_some() || !is_back && before.is_some_and(|before| is_next(before, (here, ino))) {
            self.steps = self.steps.saturating_add(1);
            let passed: Vec<_> = self.ahead.drain(..reached.map_or(0, |index| index + 1)).collect();
            passed.into_iter().for_each(|place| self.remember(place));
        } else if !is_back {
            (self.steps, self.frontier) = (0, None);
            self.ahead.clear();
        }
        self.remember(here);
        if self.is_looking { None } else { self.next_look(ino, count_max) }
    }

    fn remember(&mut self, place: Neighbourhood) {
        self.recent.retain(|recent| *recent != place);
        self.recent.push_back(place);
        if self.recent.len() > RECENT_MAX {
            self.recent.pop_front();
        }
    }

    /// How many are worth fetching before they are reached.
    fn wanted(&self) -> usize {
        match self.steps {
            0 => usize::from(self.run >= RUN_MIN),
            steps => 1_usize.checked_shl(steps).unwrap_or(usize::MAX),
        }
    }

    /// What to look for after `ino`, if there is room for more: the link is never idle while there is more to come.
    fn next_look(&mut self, ino: Ino, count_max: usize) -> Option<Look> {
        let count = self.wanted().min(count_max).saturating_sub(self.ahead.len());
        self.is_looking = count > 0;
        self.is_looking
            .then(|| Look { after: self.frontier.map_or(ino, |frontier| frontier.max(ino)), count })
    }

    /// Whether it is neither asked for nor where the reader is.
    fn is_new(&self, place: Neighbourhood) -> bool {
        !self.recent.contains(&place) && !self.ahead.contains(&place)
    }

    /// Takes note of what was found, in files up to `frontier`. Tells what to look for next, as the reader has gone on
    /// meanwhile.
    fn found(&mut self, places: Vec<Neighbourhood>, frontier: Ino, count_max: usize) -> Option<Look> {
        self.is_looking = false;
        let is_end = places.is_empty();
        // Who has meanwhile gone elsewhere has begun anew.
        if self.wanted() > 0 {
            self.ahead.extend(places);
            self.frontier = self.frontier.max(Some(frontier));
        }
        let (_, ino) = self.last.filter(|_| !is_end)?;
        self.next_look(ino, count_max)
    }
}

fn is_next(before: (Neighbourhood, Ino), here: (Neighbourhood, Ino)) -> bool {
    let (((segment, span), last), ((next_segment, next_span), ino)) = (before, here);
    if segment == next_segment {
        return next_span == span.saturating_add(1);
    }
    next_span == 0 && ino > last && ino.0 - last.0 <= INODE_GAP_MAX
}

impl Vfs {
    /// To be told of each block of a small file that is not in the cache.
    pub(super) fn enter_neighbourhood(&self, ino: Ino, place: &BlockPlace) {
        let count_max = self.reader.neighbourhoods_ahead_max();
        let look = self.neighbours.lock().enter(BlockReader::neighbourhood(place), ino, count_max);
        if let (Some(mut look), Some(this)) = (look, self.me.upgrade()) {
            tokio::spawn(async move {
                loop {
                    let mut found = Vec::new();
                    let reached = this.look_ahead(look, &mut found).await.unwrap_or(look.after);
                    let next = this.neighbours.lock().found(found, reached, count_max);
                    let Some(next) = next else { break };
                    look = next;
                }
            });
        }
    }

    /// Starts fetching the neighbourhoods of the files that come next, and says which and how far it has looked.
    async fn look_ahead(&self, look: Look, found: &mut Vec<Neighbourhood>) -> Result<Ino, VfsError> {
        let (mut reached, mut looked) = (look.after, 0);
        while looked < LOOK_COUNT_MAX {
            let (from, to) = (Key::Inode(Ino(reached.0.saturating_add(1))), Key::Inode(Ino(u64::MAX)));
            let (records, more) = self.scan(from, to, SCAN_COUNT).await?;
            looked += records.len();
            for (key, record) in records {
                let Key::Inode(ino) = key else { continue };
                for place in places(&record) {
                    let neighbourhood = BlockReader::neighbourhood(&place);
                    if found.contains(&neighbourhood) || !self.neighbours.lock().is_new(neighbourhood) {
                        continue;
                    }
                    if found.len() == look.count {
                        return Ok(reached);
                    }
                    let want = self.want_of(place).await?;
                    self.reader.prefetch_neighbourhood(&want);
                    found.push(neighbourhood);
                }
                reached = ino;
            }
            if more.is_none() {
                break;
            }
        }
        Ok(reached)
    }

    async fn want_of(&self, place: BlockPlace) -> Result<Want, VfsError> {
        let (seal, len) = self.read_txn(|txn| locate::segment(txn, place.segment)).await?;
        Ok((place, seal, len.into()))
    }
}

/// Where the first and last block of a small file are.
fn places(record: &Record) -> Vec<BlockPlace> {
    let Record::Inode(inode) = record else { return Vec::new() };
    match &inode.body {
        Body::Run(run) if inode.size <= SMALL_FILE_BYTES => {
            let mut places = run.places().map(|(_, place)| place);
            places.next().into_iter().chain(places.last()).collect()
        }
        _ => Vec::new(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::SegmentId;

    fn at(segment: u8, span: u32) -> Neighbourhood {
        (SegmentId([segment; 16]), span)
    }

    #[test]
    fn who_goes_from_one_to_the_next_gets_more_and_more() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.enter(at(1, 0), Ino(10), 6), None);
        assert_eq!(neighbours.enter(at(1, 0), Ino(11), 6), None);
        assert_eq!(neighbours.enter(at(1, 1), Ino(500), 6), Some(Look { after: Ino(500), count: 2 }));
        assert_eq!(neighbours.found(vec![at(1, 2), at(1, 3)], Ino(1500), 6), None);
        assert_eq!(neighbours.enter(at(1, 2), Ino(1000), 6), Some(Look { after: Ino(1500), count: 3 }));
        // What is looked for already is not looked for twice, but what the reader has used up meanwhile is made good for.
        assert_eq!(neighbours.enter(at(1, 3), Ino(1400), 6), None);
        let more = neighbours.found(vec![at(2, 0), at(2, 1), at(2, 2)], Ino(3000), 6);
        assert_eq!(more, Some(Look { after: Ino(3000), count: 3 }));
        assert_eq!(neighbours.found(vec![at(2, 3), at(3, 0), at(3, 1)], Ino(4000), 6), None);
        assert_eq!(neighbours.enter(at(2, 0), Ino(1600), 6), Some(Look { after: Ino(4000), count: 1 }));
        assert_eq!(neighbours.found(vec![], Ino(9000), 6), None, "there is no more");
    }

    #[test]
    fn the_next_segment_is_one_that_was_made_soon_after() {
        let after = |span, ino| {
            let mut neighbours = Neighbours::default();
            neighbours.enter(at(1, 3), Ino(1000), 6);
            neighbours.enter(at(2, span), Ino(ino), 6)
        };
        assert_eq!(after(0, 1001), Some(Look { after: Ino(1001), count: 2 }));
        assert_eq!(after(1, 1001), None);
        assert_eq!(after(0, 999), None);
        assert_eq!(after(0, 1001 + INODE_GAP_MAX), None);
    }

    #[test]
    fn who_jumps_about_gets_nothing() {
        let mut neighbours = Neighbours::default();
        for (number, span) in [3, 1, 0, 2, 0, 3, 1].into_iter().enumerate() {
            assert_eq!(neighbours.enter(at(1, span), Ino(100 - number as u64), 6), None, "{span}");
        }
        assert_eq!(neighbours.enter(at(2, 5), Ino(200), 6), None);
        assert_eq!(neighbours.enter(at(2, 6), Ino(201), 6), Some(Look { after: Ino(201), count: 2 }));
        assert_eq!(neighbours.enter(at(3, 5), Ino(5), 6), None);
        // What was found meanwhile is nobody's way any more.
        assert_eq!(neighbours.found(vec![at(2, 7)], Ino(250), 6), None);
        assert_eq!(neighbours.enter(at(2, 7), Ino(240), 6), None);
    }

    #[test]
    fn who_reads_many_files_of_one_neighbourhood_gets_the_next() {
        let mut neighbours = Neighbours::default();
        for ino in 1..u64::from(RUN_MIN) {
            assert_eq!(neighbours.enter(at(1, 0), Ino(ino), 6), None, "{ino}");
        }
        assert_eq!(neighbours.enter(at(1, 0), Ino(30), 6), Some(Look { after: Ino(30), count: 1 }));
        assert_eq!(neighbours.found(vec![at(1, 1)], Ino(700), 6), None);
        assert_eq!(neighbours.enter(at(1, 0), Ino(31), 6), None, "it is on its way");
        // As a directory is listed, which says nothing about what comes after it.
        let mut others = Neighbours::default();
        assert!((1..100).all(|ino| others.enter(at(1, 0), Ino(ino * 37 % 101), 6).is_none()));
        assert_eq!(neighbours.enter(at(1, 1), Ino(500), 6), Some(Look { after: Ino(700), count: 2 }));
    }

    #[test]
    fn who_goes_back_to_where_he_was_has_not_gone_elsewhere() {
        let mut neighbours = Neighbours::default();
        assert_eq!(neighbours.enter(at(1, 0), Ino(10), 6), None);
        assert_eq!(neighbours.enter(at(1, 1), Ino(500), 6), Some(Look { after: Ino(500), count: 2 }));
        assert_eq!(neighbours.found(vec![at(1, 2), at(1, 3)], Ino(1500), 6), None);
        for ino in [12, 13] {
            assert_eq!(neighbours.enter(at(1, 0), Ino(ino), 6), None);
            assert_eq!(neighbours.enter(at(1, 1), Ino(500 + ino), 6), None);
        }
        // The one before it was passed by.
        assert_eq!(neighbours.enter(at(1, 3), Ino(1400), 6), Some(Look { after: Ino(1500), count: 4 }));
        assert_eq!(
            neighbours.found(vec![at(2, 0), at(2, 1)], Ino(2500), 6),
            Some(Look { after: Ino(2500), count: 2 })
        );
        assert_eq!(neighbours.enter(at(1, 2), Ino(1000), 6), None);
        assert_eq!(neighbours.found(vec![], Ino(2500), 6), None);
        assert_eq!(neighbours.enter(at(2, 0), Ino(1600), 6), Some(Look { after: Ino(2500), count: 5 }));
    }

    #[test]
    fn without_room_nothing_is_looked_for() {
        let mut neighbours = Neighbours::default();
        assert!((0..4).all(|span| neighbours.enter(at(1, span), Ino(u64::from(span)), 0).is_none()));
    }
}
