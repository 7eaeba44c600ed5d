//! Whatever is done to any one object: every operator, on every object, each on a copy of its own.

use std::collections::BTreeMap;

use bytes::Bytes;

use crate::store::{Hostile, Lie, Objects};
use crate::world::{AFTER_ALL, BEFORE_ALL, BLOCK, EPOCH, Verdict, World, runtime};

/// What became of the copies that were attacked.
#[derive(Default, Debug)]
pub struct Tally {
    pub cases: usize,
    pub refused: usize,
    pub partly: usize,
    pub whole: usize,
}

impl Tally {
    pub fn add(&mut self, verdict: &Verdict) {
        self.cases += 1;
        match verdict {
            Verdict::Refused(_) => self.refused += 1,
            Verdict::Read(_) if verdict.spoiled().is_empty() => self.whole += 1,
            Verdict::Read(_) => self.partly += 1,
        }
    }
}

/// The folder of an object: objects of one folder are of one kind.
pub fn folder(name: &str) -> String {
    match name.split_once('/') {
        Some(("m", _)) => name.rsplit_once('/').unwrap().0.to_owned(),
        Some((top, _)) => top.to_owned(),
        None => String::new(),
    }
}

/// The objects of each kind, in the order of their names.
pub fn kinds(objects: &Objects) -> BTreeMap<String, Vec<String>> {
    let mut kinds: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for name in objects.keys() {
        kinds.entry(folder(name)).or_default().push(name.clone());
    }
    kinds
}

/// Alters each object by each of `ways`, and expects that what does not depend on it reads.
fn attack(ways: impl Fn(&World, &str, &Bytes) -> Vec<(String, Objects)>) -> Tally {
    let world = World::new();
    let mut tally = Tally::default();
    for (name, bytes) in &world.objects {
        // What needs the object is what is not whole without it.
        let mut without = world.objects.clone();
        without.remove(name);
        let needs = needs(&world, without, &format!("{name} deleted"));
        for (how, objects) in ways(&world, name, bytes) {
            let what = format!("{name}, {} bytes: {how}", bytes.len());
            let verdict = one(&world, &Hostile::of(objects), &what);
            spares(&verdict, &needs, &what);
            tally.add(&verdict);
        }
    }
    println!("{tally:?}");
    tally
}

fn one(world: &World, store: &std::sync::Arc<Hostile>, what: &str) -> Verdict {
    runtime().block_on(world.judge(store, what))
}

fn needs(world: &World, without: Objects, what: &str) -> Vec<String> {
    one(world, &Hostile::of(without), what).spoiled()
}

/// Of a segment, nothing is spoiled but what is in it. Of records, each may be needed for everything.
fn spares(verdict: &Verdict, needs: &[String], what: &str) {
    // A second header that is none, and a swap, concern more than this object.
    if !what.starts_with("d/") || what.contains("header/") || what.contains(" swapped") {
        return;
    }
    for path in verdict.spoiled() {
        assert!(needs.contains(&path), "{what}: {path} does not need it");
    }
}

fn with(objects: &Objects, name: &str, bytes: impl Into<Bytes>) -> Objects {
    let mut objects = objects.clone();
    objects.insert(name.to_owned(), bytes.into());
    objects
}

/// A byte of every region: magic, kind, suite, epoch, salt, commitment, each sealed piece and its tag, footer.
fn regions(name: &str, bytes: &Bytes) -> Vec<usize> {
    let len = bytes.len();
    let mut at = vec![0, 4, 5, 7, 8, 32, 64, 80];
    match name.starts_with("m/") {
        // Pieces of 16,384 bytes and their tags.
        true => (0..len.saturating_sub(64) / 16_400)
            .for_each(|piece| at.extend([64 + piece * 16_400, 64 + piece * 16_400 + 16_399])),
        false => at.extend((1..8).map(|step| len * step / 8)),
    }
    at.push(len / 2);
    at.extend([20, 16, 4, 1].map(|back| len.saturating_sub(back)));
    at.retain(|at| *at < len);
    at.sort_unstable();
    at.dedup();
    at
}

#[test]
fn b1_a_flipped_bit_in_any_region_of_any_object_is_an_error_or_not_needed() {
    let tally = attack(|world, name, bytes| {
        let flip = |at: usize| {
            let mut flipped = bytes.to_vec();
            flipped[at] ^= 0x04;
            (format!("bit flipped in byte {at}"), with(&world.objects, name, flipped))
        };
        regions(name, bytes).into_iter().map(flip).collect()
    });
    assert!(tally.refused > 40 && tally.partly > 20, "{tally:?}");
}

#[test]
fn b3_a_truncated_or_extended_object_of_any_kind_is_an_error_or_not_needed() {
    let tally = attack(|world, name, bytes| {
        let mut ways = Vec::new();
        let len = bytes.len();
        for keep in [0, 1, 63, 64, 80, 64 + 16_400, len / 2, len - 1] {
            if keep < len {
                ways.push((format!("cut to {keep}"), with(&world.objects, name, bytes.slice(..keep))));
            }
        }
        for more in [1, 4, 16, 16_400] {
            // More of the same, or of its beginning.
            let longer = [&bytes[..], &bytes.repeat(more / len + 1)[..more]].concat();
            ways.push((format!("{more} bytes longer"), with(&world.objects, name, longer)));
        }
        ways
    });
    assert!(tally.refused > 40 && tally.partly > 15, "{tally:?}");
}

#[test]
fn b4_c2_an_object_put_in_the_place_of_another_is_an_error_or_not_needed() {
    let tally = attack(|world, name, bytes| {
        let kinds = kinds(&world.objects);
        let mut others: Vec<&String> = kinds[&folder(name)].iter().filter(|other| *other != name).collect();
        // Of the other kinds one each.
        others.extend(kinds.iter().filter(|(kind, _)| **kind != folder(name)).map(|(_, all)| &all[0]));
        let mut ways = Vec::new();
        for other in others {
            let mut swapped = with(&world.objects, name, world.objects[other].clone());
            ways.push((format!("{other} in its place"), swapped.clone()));
            if folder(other) == folder(name) {
                continue;
            }
            swapped.insert(other.clone(), bytes.clone());
            ways.push((format!("{other} and it swapped"), swapped));
        }
        ways
    });
    assert!(tally.refused > 100 && tally.partly > 10, "{tally:?}");
}

/// What the segments among two objects hold is all that may be spoiled, if segments are all that was touched.
fn spares_all_but(verdict: &Verdict, needs: &BTreeMap<&String, Vec<String>>, two: [&String; 2], what: &str) {
    let [Some(one), Some(other)] = two.map(|name| needs.get(name)) else { return };
    for path in verdict.spoiled() {
        assert!(one.contains(&path) || other.contains(&path), "{what}: {path} needs neither");
    }
}

#[test]
fn b4_c2_any_two_objects_of_a_kind_exchanged_with_each_other_are_an_error_or_not_needed() {
    let (world, mut tally) = (World::new(), Tally::default());
    let mut segment_needs = BTreeMap::new();
    for name in world.objects.keys().filter(|name| name.starts_with("d/")) {
        let mut without = world.objects.clone();
        without.remove(name);
        segment_needs.insert(name, needs(&world, without, &format!("{name} deleted")));
    }
    for all in kinds(&world.objects).values() {
        for (number, one_of_two) in all.iter().enumerate() {
            for other in &all[number + 1..] {
                let mut objects = world.objects.clone();
                objects.insert(one_of_two.clone(), world.objects[other].clone());
                objects.insert(other.clone(), world.objects[one_of_two].clone());
                let what = format!("{one_of_two} and {other} exchanged");
                let verdict = one(&world, &Hostile::of(objects), &what);
                spares_all_but(&verdict, &segment_needs, [one_of_two, other], &what);
                tally.add(&verdict);
            }
        }
    }
    println!("{tally:?}");
    assert!(tally.refused > 20 && tally.partly > 5, "{tally:?}");
}

/// The original is gone: its place is empty, and it is nowhere else but where it was moved to.
#[test]
fn b4_c4_an_object_moved_to_another_name_is_gone_for_whoever_needs_it() {
    let tally = attack(|world, name, bytes| {
        let kinds = kinds(&world.objects);
        let all = &kinds[&folder(name)];
        let at = all.iter().position(|each| each == name).unwrap();
        let (parent, last) = name.rsplit_once('/').unwrap();
        let unused = format!("{parent}/{}", last.chars().rev().collect::<String>());
        let next = all[(at + 1) % all.len()].clone();
        let elsewhere = kinds.iter().find(|(kind, _)| **kind != folder(name)).map(|(_, all)| all[0].clone());
        let moved = |to: String| {
            let mut objects = world.objects.clone();
            objects.remove(name);
            objects.insert(to.clone(), bytes.clone());
            let is_alone = !world.objects.contains_key(&to);
            (format!("moved to {to}{}", if is_alone { "" } else { ", which is swapped out" }), objects)
        };
        [Some(unused), Some(next), elsewhere]
            .into_iter()
            .flatten()
            .filter(|to| to != name)
            .map(moved)
            .collect()
    });
    assert!(tally.refused > 20 && tally.partly > 20, "{tally:?}");
}

/// Nothing that is there is ever taken for a hole, and no length of zeros for an object.
#[test]
fn b5_zeros_for_any_range_of_any_object_or_for_all_of_it_are_an_error_or_not_needed() {
    let tally = attack(|world, name, bytes| {
        let len = bytes.len();
        let quarters = (0..4).map(|part| part * len / 4..(part + 1) * len / 4);
        // The head, the last tag, everything but the head, and everything.
        let regions = [0..64, len.saturating_sub(16)..len, 64..len, 0..len];
        let zeroed = |range: std::ops::Range<usize>| {
            let mut zeroed = bytes.to_vec();
            zeroed.get_mut(range.start..range.end.min(len))?.fill(0);
            let is_other = zeroed != bytes[..];
            is_other.then(|| (format!("zeros in {range:?}"), with(&world.objects, name, zeroed)))
        };
        let mut ways: Vec<_> = quarters.chain(regions).filter_map(zeroed).collect();
        for other_len in [BLOCK, 2 * len].into_iter().filter(|other| *other != len) {
            ways.push((format!("{other_len} zeros"), with(&world.objects, name, vec![0; other_len])));
        }
        ways
    });
    assert!(tally.refused > 40 && tally.partly > 20, "{tally:?}");
}

#[test]
fn d4_an_object_of_another_volume_with_the_same_key_file_is_an_error_or_not_needed() {
    let other = |world: &World, name: &str| -> Vec<Bytes> {
        let (here, there) = (kinds(&world.objects), kinds(&world.other));
        // Folders of records have other names there, but come in some order too.
        let metas = |kinds: &BTreeMap<String, Vec<String>>| {
            kinds
                .iter()
                .filter(|(kind, _)| kind.starts_with("m/"))
                .map(|(_, all)| all.clone())
                .collect::<Vec<_>>()
        };
        let names = match name.starts_with("m/") {
            true => metas(&there).into_iter().filter_map(|all| all.first().cloned()).collect(),
            false => {
                let at = here[&folder(name)].iter().position(|each| each == name).unwrap();
                there[&folder(name)].get(at).cloned().into_iter().collect::<Vec<_>>()
            }
        };
        names.iter().map(|name| world.other[name].clone()).collect()
    };
    let tally = attack(|world, name, _| {
        let foreign = other(world, name).into_iter().enumerate();
        foreign.map(|(n, bytes)| (format!("foreign object {n}"), with(&world.objects, name, bytes))).collect()
    });
    assert!(tally.refused > 20, "{tally:?}");
}

/// Of each kind, the first and the last: there is no other key for what claims to be of another format, kind, suite or
/// epoch. Heads of segments are in their records too, and those are what counts.
#[test]
fn d5_a_head_that_claims_another_format_kind_suite_or_epoch_is_an_error_or_not_needed() {
    let tally = attack(|world, name, bytes| {
        let all = &kinds(&world.objects)[&folder(name)];
        if ![all.first(), all.last()].contains(&Some(&name.to_owned())) {
            return Vec::new();
        }
        let claims = [(3, b'2'), (4, 1), (4, 2), (4, 3), (4, 4), (5, 0), (5, 2), (6, 255), (7, 0), (7, 2)];
        let claim = |(at, byte): (usize, u8)| {
            let mut other = bytes.to_vec();
            *other.get_mut(at)? = byte;
            let is_other = other != bytes[..];
            is_other.then(|| (format!("byte {at} is {byte}"), with(&world.objects, name, other)))
        };
        claims.into_iter().filter_map(claim).collect()
    });
    assert!(tally.refused > 20 && tally.whole > 0, "{tally:?}");
}

#[test]
fn b6_what_was_deleted_and_is_put_back_is_never_read_in_place_of_what_is_there() {
    let world = World::new();
    let mut versions: BTreeMap<&String, Vec<&Bytes>> = BTreeMap::new();
    for (name, bytes) in &world.ever {
        let all = versions.entry(name).or_default();
        all.push(bytes);
        assert!(all.iter().all(|version| *version == bytes), "{name} was written twice");
    }
    let gone: Vec<_> = versions.iter().filter(|(name, _)| !world.objects.contains_key(**name)).collect();
    assert!(gone.len() > 5, "{} objects were ever deleted or came later", gone.len());
    let mut all = world.objects.clone();
    for (name, versions) in &gone {
        let verdict = one(&world, &Hostile::of(with(&world.objects, name, versions[0].clone())), name);
        println!("{name}: {:?}", verdict.spoiled());
        all.insert((**name).clone(), versions[0].clone());
        // In the place of each of its kind.
        for other in kinds(&world.objects).get(&folder(name)).into_iter().flatten() {
            let what = format!("{name}, which was deleted, in place of {other}");
            one(&world, &Hostile::of(with(&world.objects, other, versions[0].clone())), &what);
        }
    }
    one(&world, &Hostile::of(all), "everything put back");
}

#[test]
fn c4_objects_put_under_names_that_nobody_uses_are_never_shown() {
    let tally = attack(|world, name, bytes| {
        let (parent, last) = name.rsplit_once('/').unwrap();
        let turned: String = last.chars().rev().collect();
        let mut names =
            vec![format!("{parent}/{turned}"), format!("{parent}/{last}/{last}"), last.to_owned()];
        if kinds(&world.objects)[&folder(name)][0] == name {
            let others = ["header/3", "header/03", "header/99", "probe/more", "a/1"];
            names.extend(others.map(str::to_owned));
            names.push("d/00/00000000000000000000000000".to_owned());
        }
        let unused = names.into_iter().filter(|name| !world.objects.contains_key(name));
        unused
            .map(|unused| (format!("copied to {unused}"), with(&world.objects, &unused, bytes.clone())))
            .collect()
    });
    assert!(tally.whole > 100, "{tally:?}");
}

#[test]
fn c6_dates_tags_and_attributes_that_the_store_tells_of_an_object_change_nothing() {
    let told = [EPOCH, BEFORE_ALL, AFTER_ALL].map(Lie::Date).into_iter().chain([Lie::Attributes]).collect();
    let tally = lies(|_| Vec::clone(&told));
    assert_eq!(tally.whole, tally.cases, "{tally:?}");
}

#[test]
fn c5_an_object_hidden_from_listings_heads_and_reads_in_any_combination_is_an_error_or_not_needed() {
    let tally = lies(|_| {
        let bits = [false, true];
        let pairs = bits.into_iter().flat_map(|list| bits.map(|head| (list, head)));
        let all = pairs.flat_map(|(list, head)| bits.map(|get| Lie::Hidden { list, head, get }));
        all.skip(1).collect()
    });
    assert!(tally.refused > 30, "{tally:?}");
}

#[test]
fn d12_lies_about_lengths_ranges_and_bodies_are_errors_or_not_needed() {
    let tally = lies(|_| {
        let mut lies = vec![Lie::OtherRange, Lie::Listed(1000), Lie::Endless];
        lies.extend([1, -1].map(Lie::ShiftedBytes));
        lies.extend([-1, 1 << 22].map(Lie::BodyLength));
        lies.extend([1, -1, 1 << 40].map(Lie::Length));
        lies
    });
    assert!(tally.refused > 80, "{tally:?}");
}

/// Tells each of `lies` about each object.
fn lies(lies: impl Fn(&str) -> Vec<Lie>) -> Tally {
    let world = World::new();
    let mut tally = Tally::default();
    for name in world.objects.keys() {
        let mut without = world.objects.clone();
        without.remove(name);
        let needs = needs(&world, without, name);
        for lie in lies(name) {
            let what = format!("{name}: {lie:?}");
            let verdict = one(&world, &Hostile::lying(world.objects.clone(), name, lie), &what);
            spares(&verdict, &needs, &what);
            tally.add(&verdict);
        }
    }
    println!("{tally:?}");
    tally
}
