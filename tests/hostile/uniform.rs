//! One failure for every reason: neither requests nor errors tell why an object did not open.

use std::collections::{BTreeMap, BTreeSet};

use bytes::Bytes;
use coffer::cli::explain;

use crate::store::{Hostile, Objects};
use crate::world::{World, factors, runtime};

/// What shows of an attempt to read a volume.
type Outcome = (Vec<String>, String);

/// What a machine does that knows the volume, and what its caller is told: the exit code, or the error of each part.
fn outcome(world: &World, name: &str, altered: Vec<u8>) -> Outcome {
    let mut objects: Objects = world.objects.clone();
    objects.insert(name.to_owned(), altered.into());
    let store = Hostile::of(objects);
    let told = match runtime().block_on(world.read(&store, true)) {
        Err(error) => format!("exit code {}", explain::volume(&error, &factors()).exit().code()),
        Ok(tree) => {
            let parts = tree.iter().filter(|(_, seen)| !seen.is_whole()).map(|(path, seen)| {
                let blocks: Vec<_> = seen.contents.iter().map(|block| block.as_ref().err()).collect();
                let rest = (seen.attr.as_ref().err(), seen.xattrs.as_ref().err(), seen.listed.err());
                format!("{path} {blocks:?} {rest:?}\n")
            });
            parts.collect()
        }
    };
    (store.take_trace(), told)
}

/// Every one of these is something else to the code that opens an object: a head of no format, of another kind, suite
/// or epoch, a key that does not fit, a piece that is altered, another's, or at another place.
fn ten_ways(bytes: &Bytes, other: &Bytes) -> Vec<(&'static str, Vec<u8>)> {
    let flipped = |at: usize, by: u8| {
        let mut altered = bytes.to_vec();
        altered[at] ^= by;
        altered
    };
    let body = |change: &dyn Fn(&mut [u8])| {
        let mut altered = bytes.to_vec();
        change(&mut altered[64..]);
        altered
    };
    let mut with_head_of_other = bytes.to_vec();
    with_head_of_other[..64].copy_from_slice(&other[..64]);
    vec![
        ("another magic", flipped(0, 1)),
        ("another kind", flipped(4, 3)),
        ("another suite", flipped(5, 2)),
        ("another epoch", flipped(7, 2)),
        ("another salt", flipped(20, 1)),
        ("another commitment", flipped(40, 1)),
        ("the head of another object", with_head_of_other),
        ("every piece altered", body(&|body| body.iter_mut().for_each(|byte| *byte ^= 1))),
        ("every piece nought", body(&|body| body.fill(0))),
        ("every piece moved", body(&|body| body.rotate_left(1))),
    ]
}

/// Reading asks for blocks by what the records say. So a head that is altered in whichever field changes nothing, blocks
/// fail alike however they are altered, and with the same errors if they are cut off: then only the store's own
/// knowledge of how much is left shows in what it is asked for.
#[test]
fn a7_a_segment_fails_alike_for_each_part_of_it_that_is_altered() {
    let world = World::new();
    let segments: Vec<&String> = world.objects.keys().filter(|name| name.starts_with("d/")).collect();
    assert!(segments.len() > 1);
    for (at, name) in segments.iter().enumerate() {
        let (bytes, other) = (&world.objects[*name], &world.objects[segments[(at + 1) % segments.len()]]);
        let sound = outcome(&world, name, bytes.to_vec());
        assert_eq!(sound.1, "", "{name} reads as it is");
        let ways = ten_ways(bytes, other);
        let (heads, bodies) = ways.split_at(7);
        for (why, altered) in heads {
            assert_eq!(outcome(&world, name, altered.clone()), sound, "{name}: {why}");
        }
        let failed = outcome(&world, name, bodies[0].1.clone());
        assert!(failed.1.contains("Some(5)"), "{name}: {failed:?}");
        for (why, altered) in bodies {
            assert_eq!(outcome(&world, name, altered.clone()), failed, "{name}: {why}");
        }
        // Whether the store answers that nothing is left of the first block, or a part of it.
        for lens in [[1, 63, 64], [65, 66, 80]] {
            let cut: BTreeSet<Outcome> =
                lens.map(|len| outcome(&world, name, bytes[..len].to_vec())).into_iter().collect();
            assert_eq!(cut.len(), 1, "{name} cut to {lens:?}: {cut:#?}");
            assert_eq!(cut.first().unwrap().1, failed.1, "{name} cut to {lens:?}");
        }
    }
}

/// Objects of each folder of the engine: manifests, logs, tables, states of compaction.
fn metadata(world: &World) -> BTreeMap<String, Vec<&String>> {
    let mut folders: BTreeMap<String, Vec<&String>> = BTreeMap::new();
    for name in world.objects.keys().filter(|name| name.starts_with("m/")) {
        folders.entry(name.rsplit_once('/').unwrap().0.to_owned()).or_default().push(name);
    }
    folders
}

#[test]
fn a7_a_metadata_object_fails_alike_for_ten_reasons() {
    let world = World::new();
    let mut failed = 0;
    for names in metadata(&world).into_values() {
        for name in &names {
            let other = names.iter().find(|other| *other != name).unwrap_or(name);
            let other = if other == name { world.objects.keys().next().unwrap() } else { *other };
            let mut outcomes: BTreeMap<Outcome, Vec<&str>> = BTreeMap::new();
            for (why, altered) in ten_ways(&world.objects[*name], &world.objects[other]) {
                outcomes.entry(outcome(&world, name, altered)).or_default().push(why);
            }
            // The number of the epoch is in the clear: that it is none this machine has a key of is told as that.
            let mut told: Vec<_> = outcomes.iter().map(|((trace, told), why)| (why, trace, told)).collect();
            let epoch =
                told.iter().position(|(why, _, told)| **why == ["another epoch"] && *told == "exit code 48");
            if let Some(at) = epoch {
                let (_, trace, _) = told.remove(at);
                assert!(
                    told.iter().all(|(_, other, _)| *other == trace),
                    "{name}: requests tell of the epoch"
                );
            }
            assert_eq!(told.len(), 1, "{name}: {told:#?}");
            failed += usize::from(!told[0].2.is_empty());
        }
    }
    println!("{failed} of {} objects were needed", world.objects.len());
    assert!(failed > 5);
}

#[test]
fn a7_a_header_fails_alike_for_twelve_reasons() {
    let world = World::new();
    let name = world.objects.keys().rfind(|name| name.starts_with("header/")).unwrap();
    let bytes = &world.objects[name];
    let body = std::str::from_utf8(&bytes[12..bytes.len() - 96]).unwrap();
    // The digit or letter that follows `after`, as another one.
    let inside = |after: &str| {
        let at = 12 + body.find(after).unwrap() + after.len();
        let mut altered = bytes.to_vec();
        altered[at] = if altered[at] == b'1' { b'2' } else { b'1' };
        altered
    };
    let flipped = |back: usize| {
        let mut altered = bytes.to_vec();
        let at = altered.len() - back;
        altered[at] ^= 1;
        altered
    };
    let mut shorter_body = bytes.to_vec();
    shorter_body[11] ^= 1;
    let ways = [
        ("another label", inside("\"label\": \"fir")),
        ("another salt", inside("\"salt\": \"")),
        ("another commitment", inside("\"commitment\": \"")),
        ("another wrapped key", inside("\"wrapped_vmk\": \"")),
        ("another wrapped admin key", inside("\"wrapped_admin_key\": \"")),
        ("another commitment to the volume key", inside("\"vmk_commitment\": \"")),
        ("a body that is no JSON", inside("\"slots\": ")),
        ("another length", shorter_body),
        ("another MAC", flipped(96)),
        ("another signature", flipped(1)),
        ("a byte less", bytes[..bytes.len() - 1].to_vec()),
        ("a byte more", [&bytes[..], &[0]].concat()),
    ];
    let mut outcomes: BTreeMap<Outcome, Vec<&str>> = BTreeMap::new();
    for (why, altered) in ways {
        let (trace, told) = outcome(&world, name, altered);
        // Lengths of what is read are the store's own doing.
        outcomes.entry((trace, told)).or_default().push(why);
    }
    let told: BTreeSet<_> = outcomes.iter().map(|((trace, told), why)| (why, trace, told)).collect();
    assert_eq!(outcomes.len(), 1, "{told:#?}");
    assert_eq!(outcomes.keys().next().unwrap().1, "exit code 13");
}
