//! Segments: their records against the bucket, and what files refer to.

use std::collections::HashMap;
use std::ops::Range;

use futures::{StreamExt, TryStreamExt, stream};

use super::MaintError;
use super::finding::{Findings, LostBecause, Problem, Subject};
use super::rows::Rows;
use crate::base::{Run, SegmentId, SegmentSeal};
use crate::meta::engine::Engine;
use crate::meta::{Key, Record, Segment};
use crate::vault::Vault;

/// Requests under way at once.
const ASKED_AT_ONCE: usize = 32;

/// One segment, as everybody speaks of it.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Known {
    pub(super) record: Option<Segment>,
    /// It has a record that cannot be decoded.
    pub(super) is_broken: bool,
    /// The record opens this segment and no other.
    pub(super) is_own_seal: bool,
    /// A record names it as one that is to be deleted.
    pub(super) is_garbage: bool,
    /// Its length in the bucket; `None` if it is not there.
    pub(super) object: Option<u64>,
    /// Bytes that files refer to.
    pub(super) counted: u64,
    /// A later commit has let it go, so that it may be gone by now.
    pub(super) is_overtaken: bool,
}

/// All segments.
#[derive(Debug, Default)]
pub(super) struct Segments {
    places: HashMap<SegmentId, u32>,
    all: Vec<(SegmentId, Known)>,
}

impl Segments {
    pub(super) fn of(&mut self, id: SegmentId) -> (u32, &mut Known) {
        let next = u32::try_from(self.all.len()).unwrap_or(u32::MAX);
        let place = *self.places.entry(id).or_insert(next);
        if place == next {
            self.all.push((id, Known::default()));
        }
        let at = (place as usize).min(self.all.len() - 1);
        #[allow(clippy::indexing_slicing)] // `at` is below the length, which is not 0 here
        (place, &mut self.all[at].1)
    }

    pub(super) fn get(&self, id: SegmentId) -> Option<&Known> {
        self.all.get(*self.places.get(&id)? as usize).map(|(_, known)| known)
    }

    pub(super) fn is_there(&self, id: SegmentId) -> bool {
        self.get(id).is_some_and(|known| known.object.is_some())
    }

    pub(super) fn id(&self, place: u32) -> Option<SegmentId> {
        self.all.get(place as usize).map(|(id, _)| *id)
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (SegmentId, &Known)> {
        self.all.iter().map(|(id, known)| (*id, known))
    }

    pub(super) fn seal(&self, id: SegmentId) -> Option<SegmentSeal> {
        self.get(id)?.record.map(|record| record.seal)
    }

    /// Takes in the `S`, `G`, `L` and `R` records.
    pub(super) async fn load(
        &mut self,
        engine: &Engine,
        vault: &Vault,
        findings: &mut Findings,
    ) -> Result<(), MaintError> {
        for letter in *b"SGLR" {
            let mut rows = Rows::of(engine, letter);
            while let Some(row) = rows.next().await? {
                match (row.key, row.record) {
                    (Some(Key::Segment(id)), Ok(Record::Segment(record))) => {
                        let is_own_seal = vault.segment_key(id, &record.seal).is_ok();
                        let known = self.of(id).1;
                        (known.record, known.is_own_seal) = (Some(record), is_own_seal);
                    }
                    (Some(Key::Segment(id)), Err(why)) => {
                        self.of(id).1.is_broken = true;
                        findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                    }
                    // Not a segment: the bucket is still to be listed.
                    (Some(Key::Leftover(NO_SEGMENT)), Ok(_)) => {}
                    (Some(Key::Garbage(id) | Key::Leftover(id)), record) => {
                        self.of(id).1.is_garbage = true;
                        if let Err(why) = record {
                            findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                        }
                    }
                    // A hint for cleaning, which looks for itself.
                    (Some(Key::Reference(..)), Ok(_)) => {}
                    (Some(Key::Reference(..)), Err(why)) => {
                        findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordBroken { why });
                    }
                    _ => findings.add(Subject::Record(row.raw.to_vec()), Problem::RecordStray),
                }
            }
        }
        Ok(())
    }

    /// Asks the bucket for each segment of which the listing said something else than the records:
    /// nothing is judged by a listing alone.
    pub(super) async fn ask(&mut self, vault: &Vault) -> Result<(), MaintError> {
        let doubtful: Vec<SegmentId> = self
            .iter()
            .filter(|(_, known)| match (known.record, known.object) {
                (Some(record), object) => object != Some(u64::from(record.len)),
                (None, object) => object.is_none() && (known.counted > 0 || known.is_broken),
            })
            .map(|(id, _)| id)
            .collect();
        let answers = stream::iter(doubtful)
            .map(|id| async move { Ok::<_, MaintError>((id, vault.segment_len(id).await?)) })
            .buffer_unordered(ASKED_AT_ONCE);
        let answers: Vec<_> = answers.try_collect().await?;
        for (id, len) in answers {
            self.of(id).1.object = len;
        }
        Ok(())
    }

    /// Marks segments that are gone because a commit after the one that is checked let them go.
    pub(super) async fn forgive_overtaken(&mut self, newest: &Engine) -> Result<(), MaintError> {
        let gone: Vec<SegmentId> = self.absent().collect();
        for id in gone {
            let is_kept = newest.get(&Key::Segment(id).encode()).await?.is_some();
            self.of(id).1.is_overtaken = !is_kept;
        }
        Ok(())
    }

    /// Marks segments without a record that a commit after the one that is checked has taken in.
    pub(super) async fn welcome_late(&mut self, newest: &Engine) -> Result<(), MaintError> {
        let unknown: Vec<SegmentId> = self.unknown().collect();
        for id in unknown {
            let mut is_known = false;
            for key in [Key::Segment(id), Key::Garbage(id), Key::Leftover(id)] {
                is_known |= newest.get(&key.encode()).await?.is_some();
            }
            self.of(id).1.is_overtaken = is_known;
        }
        Ok(())
    }

    pub(super) fn absent(&self) -> impl Iterator<Item = SegmentId> {
        self.iter().filter(|(_, known)| known.record.is_some() && known.object.is_none()).map(|(id, _)| id)
    }

    pub(super) fn unknown(&self) -> impl Iterator<Item = SegmentId> {
        let is_unknown =
            |known: &Known| known.record.is_none() && !known.is_garbage && known.object.is_some();
        self.iter().filter(move |(_, known)| is_unknown(known)).map(|(id, _)| id)
    }

    /// Judges every segment. To be called when all references are counted.
    pub(super) fn judge(&self, commit: u64, is_held: bool, findings: &mut Findings) {
        for (id, known) in self.iter() {
            for problem in known.problems(commit, is_held) {
                findings.add(Subject::Segment(id), problem);
            }
        }
    }
}

impl Known {
    fn problems(&self, commit: u64, is_held: bool) -> Vec<Problem> {
        let mut found = Vec::new();
        let live = self.counted;
        match (&self.record, self.object) {
            (Some(_), None) if !self.is_overtaken => found.push(Problem::SegmentMissing { live }),
            (Some(record), Some(actual)) if actual != u64::from(record.len) => {
                found.push(Problem::SegmentLength { recorded: record.len.into(), actual });
            }
            (None, object) if live > 0 => {
                found.push(Problem::SegmentUnrecorded { live, is_there: object.is_some() });
            }
            (None, Some(bytes)) if !self.is_garbage && !self.is_broken && !self.is_overtaken => {
                found.push(Problem::Leftover { bytes, is_held });
            }
            _ => {}
        }
        if let Some(record) = &self.record {
            if !self.is_own_seal {
                found.push(Problem::SegmentSeal);
            }
            if record.live != live {
                found.push(Problem::LiveBytes { recorded: record.live, counted: live });
            }
            if record.born > commit {
                found.push(Problem::BornAhead);
            }
        }
        if self.is_garbage {
            let is_used = self.record.is_some() || live > 0;
            found.push(if is_used { Problem::GarbageInUse } else { Problem::Garbage });
        }
        found
    }

    /// Which blocks of `run`, counted from its first, cannot be read, and why.
    pub(super) fn lost(&self, run: &Run) -> Option<(LostBecause, Range<u32>)> {
        let all = 0..run.block_count();
        if run.segment == LOST {
            return Some((LostBecause::Given, all));
        }
        if self.record.is_none() {
            return Some((LostBecause::SegmentUnknown, all));
        }
        if !self.is_own_seal {
            return Some((LostBecause::SegmentSeal, all));
        }
        match self.object {
            _ if self.is_overtaken => None,
            None => Some((LostBecause::SegmentMissing, all)),
            Some(len) => {
                // A mount reads nothing beyond the length in the record.
                let recorded = self.record.map_or(len, |record| u64::from(record.len));
                let is_whole = |end: u32| u64::from(end) <= len.min(recorded);
                let whole = run.places().take_while(|(_, place)| is_whole(place.sealed_range().end)).count();
                let because = match len > recorded {
                    true => LostBecause::SegmentLength,
                    false => LostBecause::SegmentShort,
                };
                (!is_whole(run.end_pos())).then_some((because, whole as u32..all.end))
            }
        }
    }
}

/// A leftover by this name says that the bucket is still to be listed. (`docs/FORMAT.md`, "Segment")
const NO_SEGMENT: SegmentId = SegmentId([0xFF; 16]);

/// Extents in this segment, which never exists, stand for blocks that are lost.
/// (`docs/FORMAT.md`, "Extents")
pub(super) const LOST: SegmentId = SegmentId([0; 16]);
