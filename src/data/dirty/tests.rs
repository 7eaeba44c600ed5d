//! Uncommitted contents against a plain byte array.

use std::collections::{BTreeMap, HashMap};

use proptest::prelude::*;

use super::*;
use crate::base::{Codec, Piece, SegmentSeal};

const INO: Ino = Ino(2);
/// Contents reach a little over three blocks.
const SIZE_MAX: usize = 3 * BLOCK_BYTES + 1000;

#[test]
fn a_cut_in_the_middle_of_a_block_leaves_no_old_bytes_behind() {
    let mut dirty = Dirty::default();
    dirty.write(INO, 0, &[7; 100], 0);
    dirty.truncate(INO, 100, 40);
    dirty.write(INO, 60, &[9; 10], 40);
    let mut seen = vec![1; 80];
    dirty.paint_of(INO, 0).apply(&mut seen, 0);
    assert_eq!(seen[..40], [7; 40]);
    assert_eq!(seen[40..60], [0; 20]);
    assert_eq!(seen[60..70], [9; 10]);
    assert_eq!(seen[70..], [0; 10]);
}

/// What happens to a file. Offsets and lengths are taken modulo what is possible.
#[derive(Clone, Debug)]
enum Step {
    Write(usize, usize, u8),
    Resize(usize),
    Punch(usize, usize),
    /// Copy a stored block over another one.
    Share(u64, u64),
    SendFull,
    /// The `n`th segment under way arrives.
    Arrive(usize),
    Seal,
    /// The sealed layer is committed; few enough blocks ride in records.
    Commit(bool),
    Repack,
    /// The commit does not wait for the blocks from this one on.
    PutOff(u64),
    Unseal,
    Withdraw(usize),
    Read(usize, usize),
}

fn offset() -> impl Strategy<Value = usize> {
    prop_oneof![0..SIZE_MAX, (0usize..4).prop_map(|block| block * BLOCK_BYTES), 0usize..200]
}

fn length() -> impl Strategy<Value = usize> {
    prop_oneof![1usize..200, Just(BLOCK_BYTES), Just(2 * BLOCK_BYTES), 1..SIZE_MAX]
}

fn step() -> impl Strategy<Value = Step> {
    prop_oneof![
        6 => (offset(), length(), 1u8..).prop_map(|(at, len, byte)| Step::Write(at, len, byte)),
        3 => offset().prop_map(Step::Resize),
        2 => (offset(), length()).prop_map(|(from, len)| Step::Punch(from, len)),
        1 => (0u64..4, 0u64..4).prop_map(|(from, to)| Step::Share(from, to)),
        2 => Just(Step::SendFull),
        2 => any::<usize>().prop_map(Step::Arrive),
        2 => Just(Step::Seal),
        2 => any::<bool>().prop_map(Step::Commit),
        1 => Just(Step::Repack),
        2 => (0u64..4).prop_map(Step::PutOff),
        1 => Just(Step::Unseal),
        1 => any::<usize>().prop_map(Step::Withdraw),
        3 => (offset(), length()).prop_map(|(from, len)| Step::Read(from, len)),
    ]
}

/// Blocks as the last commit left them, and all segments.
#[derive(Default)]
struct Bucket {
    committed: BTreeMap<u64, Vec<u8>>,
    /// Where a committed block lies, if not in a record.
    places: BTreeMap<u64, BlockPlace>,
    segments: HashMap<(SegmentId, u32), Vec<u8>>,
    next: u8,
}

struct Harness {
    dirty: Dirty,
    bucket: Bucket,
    model: Vec<u8>,
    underway: Vec<Batch>,
}

impl Harness {
    fn new() -> Self {
        let (dirty, bucket) = (Dirty::default(), Bucket::default());
        Self { dirty, bucket, model: Vec::new(), underway: Vec::new() }
    }

    fn segment(&mut self) -> SegmentId {
        self.bucket.next += 1;
        SegmentId([self.bucket.next; 16])
    }

    fn fetch(&self, beneath: Beneath, index: u64) -> Vec<u8> {
        match beneath {
            Beneath::Zeros => Vec::new(),
            Beneath::Bytes(bytes) => bytes.to_vec(),
            Beneath::Place(place) => self.bucket.segments[&(place.segment, place.pos)].clone(),
            Beneath::Committed => self.bucket.committed.get(&index).cloned().unwrap_or_default(),
        }
    }

    fn read(&self, from: usize, to: usize) -> Vec<u8> {
        let mut out = vec![0; to - from];
        let mut at = from;
        while at < to {
            let index = (at / BLOCK_BYTES) as u64;
            let within = at % BLOCK_BYTES;
            let len = (BLOCK_BYTES - within).min(to - at);
            let block = self.fetch(self.dirty.beneath(INO, index), index);
            let target = &mut out[at - from..][..len];
            let source = &block[within.min(block.len())..];
            let have = source.len().min(len);
            target[..have].copy_from_slice(&source[..have]);
            self.dirty.paint_of(INO, index).apply(target, within);
            at += len;
        }
        out
    }

    fn arrive(&mut self, number: usize) {
        if self.underway.is_empty() {
            return;
        }
        let batch = self.underway.swap_remove(number % self.underway.len());
        let mut places = Vec::new();
        for (pos, block) in (1u32..).zip(&batch.blocks) {
            let len = block.bytes.len() as u32;
            let piece = Piece { plain: len, stored: len, codec: Codec::Raw };
            places.push(BlockPlace { segment: batch.segment, pos, piece });
            self.bucket.segments.insert((batch.segment, pos), block.bytes.to_vec());
        }
        let seal = SegmentSeal { epoch: 1, salt: [0; 24], commitment: [0; 32] };
        self.dirty.stored(&batch, NewSegment { len: 1, seal }, &places);
    }

    /// What a commit does, in the order in which it does it.
    fn commit(&mut self, rides: bool) {
        if self.dirty.sealed().is_none() {
            return;
        }
        for (ino, index, _) in self.dirty.sealed_unsent() {
            if !self.dirty.is_sealed_whole(ino, index) {
                let older = self.fetch(self.dirty.beneath_sealed(ino, index), index);
                self.dirty.complete_sealed(ino, index, &older);
            }
        }
        let (empty, unsent): (Vec<_>, Vec<_>) =
            self.dirty.sealed_unsent().into_iter().partition(|(_, _, bytes)| *bytes == 0);
        for (ino, index, _) in empty {
            self.dirty.void_sealed(ino, index);
        }
        let mut inline = Vec::new();
        if rides {
            for (ino, index, _) in unsent {
                inline.push((index, self.dirty.sealed_whole(ino, index).unwrap()));
            }
        } else if !unsent.is_empty() {
            let segment = self.segment();
            let blocks: Vec<_> = unsent.iter().map(|(ino, index, _)| (*ino, *index)).collect();
            let batch = self.dirty.send_sealed(segment, &blocks);
            self.underway.extend(batch);
        }
        while !self.dirty.is_sealed_up() {
            self.arrive(0);
        }
        for (_, edit) in self.dirty.sealed_edits() {
            for range in edit.void.iter() {
                self.bucket.committed.retain(|index, _| !range.contains(index));
                self.bucket.places.retain(|index, _| !range.contains(index));
            }
            for (index, place) in edit.stored {
                let bytes = self.bucket.segments[&(place.segment, place.pos)].clone();
                self.bucket.committed.insert(index, bytes);
                self.bucket.places.insert(index, place);
            }
        }
        let mut repack = Vec::new();
        for (index, bytes) in inline {
            self.bucket.committed.insert(index, bytes.to_vec());
            self.bucket.places.remove(&index);
            repack.push((INO, index));
        }
        let needed = self.dirty.open_segments();
        let segments: Vec<_> = self.dirty.new_segments().into_iter().map(|(id, _)| id).collect();
        let done: Vec<_> = segments.into_iter().filter(|id| !needed.contains(id)).collect();
        self.dirty.settle(&repack, &done);
    }

    fn share(&mut self, from: u64, to: u64) {
        let start = from as usize * BLOCK_BYTES;
        let place = match self.dirty.beneath(INO, from) {
            Beneath::Place(place) => Some(place),
            Beneath::Committed => self.bucket.places.get(&from).copied(),
            _ => None,
        };
        let Some(place) = place else { return };
        if self.dirty.has_paint(INO, from) || start + BLOCK_BYTES > self.model.len() {
            return;
        }
        self.dirty.share(INO, to, place);
        let bytes = self.model[start..start + BLOCK_BYTES].to_vec();
        let end = (to as usize + 1) * BLOCK_BYTES;
        self.model.resize(self.model.len().max(end), 0);
        self.model[end - BLOCK_BYTES..end].copy_from_slice(&bytes);
    }

    fn take(&mut self, step: Step) {
        let size = self.model.len();
        match step {
            Step::Write(at, len, byte) => {
                let end = (at + len).min(SIZE_MAX).max(at + 1);
                let data: Vec<u8> = (at..end).map(|i| byte.wrapping_add((i / 777) as u8)).collect();
                self.dirty.write(INO, at as u64, &data, size as u64);
                self.model.resize(size.max(end), 0);
                self.model[at..end].copy_from_slice(&data);
            }
            Step::Resize(to) => {
                self.dirty.truncate(INO, size as u64, to as u64);
                self.model.resize(to, 0);
            }
            Step::Punch(from, len) => {
                let to = (from + len).min(size);
                if from < to {
                    self.dirty.punch(INO, from as u64, to as u64, size as u64);
                    self.model[from..to].fill(0);
                }
            }
            Step::Share(from, to) => self.share(from, to),
            Step::SendFull => {
                let segment = self.segment();
                self.underway.extend(self.dirty.take_full(segment, 2 * BLOCK_BYTES));
            }
            Step::Arrive(number) => self.arrive(number),
            Step::Seal => {
                if self.dirty.sealed().is_none() {
                    self.dirty.seal();
                }
            }
            Step::Commit(rides) => self.commit(rides),
            Step::Repack => {
                if self.dirty.sealed().is_some() {
                    for (ino, index) in self.dirty.take_repack() {
                        if let Some(bytes) = self.bucket.committed.get(&index)
                            && !self.bucket.places.contains_key(&index)
                        {
                            self.dirty.repack_sealed(ino, index, bytes.clone());
                        }
                    }
                }
            }
            Step::PutOff(from) => {
                let waits = self.dirty.sealed_waits_for();
                assert!(
                    waits.iter().all(|unsent| unsent.ino == INO && unsent.bytes <= self.dirty.held_bytes())
                );
                let is_plain = waits.first().is_some_and(|unsent| unsent.is_plain);
                self.dirty.put_off(INO, if is_plain { from } else { 0 });
            }
            Step::Unseal => self.dirty.unseal(),
            Step::Withdraw(number) => {
                if !self.underway.is_empty() {
                    let batch = self.underway.swap_remove(number % self.underway.len());
                    self.dirty.withdraw(&batch);
                    assert!(self.dirty.is_outdated(&batch));
                }
            }
            Step::Read(from, len) => {
                let (from, to) = (from.min(size), (from + len).min(size));
                assert!(self.read(from, to.max(from)) == self.model[from..to.max(from)], "a part differs");
            }
        }
    }

    fn check(&self) {
        assert!(self.read(0, self.model.len()) == self.model, "contents differ");
        let layers = [Some(&self.dirty.open), self.dirty.sealed.as_ref()];
        let blocks = layers.into_iter().flatten().flat_map(|layer| layer.files.values());
        let held: Sums = blocks.flat_map(|file| file.blocks.values()).map(Sums::of).sum();
        assert_eq!(self.dirty.sums, held, "the count of what is held drifts");
    }
}

proptest! {
    #[test]
    fn it_is_the_array_of_its_bytes(steps in proptest::collection::vec(step(), 1..60)) {
        let mut harness = Harness::new();
        for step in steps {
            harness.take(step);
            harness.check();
        }
        for _ in 0..2 {
            harness.commit(false);
            harness.check();
            harness.dirty.seal();
        }
        harness.commit(false);
        while !harness.underway.is_empty() {
            harness.arrive(0);
        }
        harness.dirty.seal();
        harness.commit(false);
        prop_assert_eq!(harness.dirty.bytes(), 0);
        prop_assert!(harness.dirty.is_open_empty());
        harness.check();
        let last = harness.bucket.committed.last_key_value().map_or(0, |(index, _)| *index as usize + 1);
        prop_assert!(last <= harness.model.len().div_ceil(BLOCK_BYTES), "blocks lie beyond the end");
    }
}

#[test]
fn a_block_is_counted_with_what_it_grows_by_when_it_is_completed() {
    let mut dirty = Dirty::default();
    let size = 10 * BLOCK_BYTES as u64 + 100;
    for index in 0..11 {
        dirty.write(INO, index * BLOCK_LEN, &[7; 100], size);
    }
    let held = dirty.held_bytes();
    assert!((10 * BLOCK_BYTES + 100..11 * BLOCK_BYTES).contains(&held), "{held}");
    assert_eq!(dirty.bytes(), 1100);
    dirty.seal();
    for index in 0..11_u64 {
        let older = size.saturating_sub(index * BLOCK_LEN).min(BLOCK_LEN) as usize;
        dirty.complete_sealed(INO, index, &vec![1; older]);
    }
    assert_eq!(dirty.held_bytes(), held);
}
