//! Run lists against a map from block to place.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;

const BLOCKS_MAX: u32 = 96;

type Model = BTreeMap<u32, BlockPlace>;

#[derive(Clone, Debug)]
enum Op {
    /// Blocks `first..`, each of a shape, sealed one after the other into a segment.
    Write {
        first: u32,
        segment: u8,
        shapes: Vec<(u8, u8)>,
    },
    Remove {
        first: u32,
        count: u32,
    },
    /// Shares a range at another place of the same list.
    Copy {
        first: u32,
        count: u32,
        to: u32,
    },
}

fn op() -> impl Strategy<Value = Op> {
    let shape = (0u8..4, 0u8..3);
    prop_oneof![
        4 => (0..BLOCKS_MAX, 0u8..3, prop::collection::vec(shape, 1..12))
            .prop_map(|(first, segment, shapes)| Op::Write { first, segment, shapes }),
        2 => (0..BLOCKS_MAX, 0..40u32).prop_map(|(first, count)| Op::Remove { first, count }),
        2 => (0..BLOCKS_MAX, 0..40u32, 0..BLOCKS_MAX)
            .prop_map(|(first, count, to)| Op::Copy { first, count, to }),
    ]
}

fn piece(shape: u8) -> Piece {
    match shape {
        0 => Piece { plain: 100, stored: 100, codec: Codec::Raw },
        1 => Piece { plain: 65_536, stored: 9_000, codec: Codec::Lz4 },
        _ => Piece::FULL,
    }
}

/// The blocks that `shapes` write; a gap of 0 lets the next index follow at once.
fn written(first: u32, segment: u8, shapes: &[(u8, u8)], cursors: &mut [u32; 3]) -> Vec<(u32, BlockPlace)> {
    let cursor = &mut cursors[usize::from(segment)];
    let mut index = first;
    let mut blocks = Vec::new();
    for (shape, gap) in shapes {
        let place = BlockPlace { segment: SegmentId([segment; 16]), pos: *cursor, piece: piece(*shape) };
        *cursor = place.sealed_range().end;
        if index < BLOCKS_MAX {
            blocks.push((index, place));
        }
        index += 1 + u32::from(gap.saturating_sub(1));
    }
    blocks
}

fn live(model: &Model) -> LiveDelta {
    let mut live = LiveDelta::new();
    for place in model.values() {
        live.gain(place.segment, u64::from(place.piece.sealed_bytes()));
    }
    live
}

fn assert_same(list: &RunList, model: &Model, delta: &LiveDelta) {
    assert_eq!(list.iter().collect::<Vec<_>>(), model.iter().map(|(i, p)| (*i, *p)).collect::<Vec<_>>());
    assert_eq!(list.validate(BLOCKS_MAX).map_err(|e| e.to_string()), Ok(()));
    assert_eq!(*delta, live(model));
    assert_eq!(list.block_count(), model.len() as u64);
    for pair in list.runs().windows(2) {
        assert!(!pair[0].continues_in(&pair[1]), "not joined: {pair:?}");
    }
    for run in list.runs() {
        assert_ne!(run.rest.first(), Some(&Piece::FULL), "a whole block stands among the others");
    }
    for block in 0..BLOCKS_MAX + 2 {
        assert_eq!(list.lookup(block), model.get(&block).copied());
        let data = (block..BLOCKS_MAX).find(|b| model.contains_key(b));
        assert_eq!(list.next_data(block).map(|r| r.start), data);
        let hole = (block..).find(|b| !model.contains_key(b)).unwrap();
        assert_eq!(list.next_hole(block), hole);
        if let Some(range) = list.next_data(block) {
            assert!(range.clone().all(|b| model.contains_key(&b)) && !model.contains_key(&range.end));
        }
    }
    let part = list.iter_range(10..30).collect::<Vec<_>>();
    assert_eq!(part, model.range(10..30).map(|(i, p)| (*i, *p)).collect::<Vec<_>>());
}

proptest! {
    #[test]
    fn a_run_list_is_a_map_from_block_to_place(ops in prop::collection::vec(op(), 1..40)) {
        let (mut list, mut model, mut delta) = (RunList::new(), Model::new(), LiveDelta::new());
        let mut cursors = [64u32; 3];
        for op in ops {
            match op {
                Op::Write { first, segment, shapes } => {
                    let blocks = written(first, segment, &shapes, &mut cursors);
                    list.replace(&blocks, &mut delta);
                    model.extend(blocks);
                }
                Op::Remove { first, count } => {
                    list.remove(first..first + count, &mut delta);
                    model.retain(|index, _| !(first..first + count).contains(index));
                }
                Op::Copy { first, count, to } => {
                    let count = count.min(BLOCKS_MAX - to).min(BLOCKS_MAX - first);
                    let runs = list.clone_range(first..first + count, to);
                    list.remove(to..to + count, &mut delta);
                    runs.into_iter().for_each(|run| list.put(run, &mut delta));
                    let moved: Vec<_> =
                        model.range(first..first + count).map(|(i, p)| (i - first + to, *p)).collect();
                    model.retain(|index, _| !(to..to + count).contains(index));
                    model.extend(moved);
                }
            }
            assert_same(&list, &model, &delta);
        }
    }

    /// Whatever a record decodes to, checking it and working on it never panics.
    #[test]
    fn d11_lists_from_hostile_records_never_panic(
        runs in prop::collection::vec((any::<u32>(), any::<u32>(), any::<Option<u32>>(),
            prop::collection::vec((any::<u32>(), any::<u32>(), 0u8..3), 0..4)), 0..4),
        at in any::<u32>(), to in any::<u32>(),
    ) {
        let runs: Vec<Run> = runs.into_iter().map(|(first, pos, full, pieces)| Run {
            first, pos, segment: SegmentId([7; 16]),
            full: full.unwrap_or(0),
            rest: pieces.into_iter().map(|(plain, stored, codec)| Piece {
                plain, stored, codec: Codec::from_number(codec).unwrap(),
            }).collect(),
        }).collect();
        if let Ok(mut list) = RunList::from_runs(runs, 1024) {
            let mut delta = LiveDelta::new();
            let (at, to) = (at % 2048, to % 2048);
            let _ = (list.lookup(at), list.next_data(at), list.next_hole(at), list.clone_range(at..to, to));
            list.remove(at..to, &mut delta);
            list.validate(1024).unwrap();
        }
    }
}

#[test]
fn a_file_of_full_blocks_in_one_segment_is_one_small_run() {
    let (mut list, mut delta, mut cursors) = (RunList::new(), LiveDelta::new(), [64; 3]);
    for first in (0..64).rev() {
        // Written backward in the file but forward in the segment: nothing can be joined.
        list.replace(&written(first, 0, &[(3, 0)], &mut cursors), &mut delta);
    }
    assert_eq!(list.runs().len(), 64);
    list.replace(&written(0, 1, &[(3, 0); 64], &mut cursors), &mut delta);
    assert_eq!(list.runs().len(), 1);
    assert_eq!((list.runs()[0].full, list.runs()[0].rest.len()), (64, 0));
    assert_eq!(delta.iter().collect::<Vec<_>>(), [(SegmentId([1; 16]), 64 * (65_536 + 16))]);
}

#[test]
fn records_that_break_a_rule_are_refused() {
    let good = Run { first: 0, segment: SegmentId([1; 16]), pos: 64, full: 2, rest: vec![] };
    let each =
        |plain, stored, codec| Run { full: 0, rest: vec![Piece { plain, stored, codec }], ..good.clone() };
    let bad = [
        Run { full: 0, ..good.clone() },
        Run { full: u32::MAX, ..good.clone() },
        Run { first: 1023, ..good.clone() },
        Run { first: u32::MAX, ..good.clone() },
        Run { pos: 63, ..good.clone() },
        Run { pos: u32::MAX - 100, ..good.clone() },
        each(0, 0, Codec::Raw),
        each(65_537, 65_537, Codec::Raw),
        each(100, 99, Codec::Raw),
        each(100, 0, Codec::Zstd),
        each(100, 100, Codec::Lz4),
        each(100, u32::MAX, Codec::Lz4),
    ];
    for run in bad {
        assert!(RunList::from_runs(vec![run.clone()], 1024).is_err(), "{run:?}");
    }
    let second = Run { first: 1, ..good.clone() };
    assert!(RunList::from_runs(vec![good.clone(), second], 1024).is_err());
    assert!(RunList::from_runs(vec![good], 1024).is_ok());
}
