//! Two directories of one shape, each written by commits of its own: what belongs to the one is put where the other has its.

use std::collections::BTreeSet;

use coffer::base::Ino;
use coffer::keys::Compression;

use crate::each_object::{Tally, folder};
use crate::store::{Hostile, Objects};
use crate::world::{BLOCK, Tree, Verdict, World, create, mkdir, open, options, put, runtime, tree};

/// A directory that the store's owner may read by other means, and one that it may not.
const DIRECTORIES: [&str; 2] = ["public", "secret"];
const STEPS: usize = 3;

/// The volume, and the objects that were made for either directory.
struct Two {
    world: World,
    made: [BTreeSet<String>; 2],
}

impl Two {
    fn new() -> Self {
        let store = Hostile::of(Objects::new());
        let (mut states, mut made) = (Vec::new(), [BTreeSet::new(), BTreeSet::new()]);
        runtime().block_on(live(&store, &mut states, &mut made));
        let objects = store.objects();
        made.iter_mut().for_each(|made| made.retain(|name| objects.contains_key(name)));
        for made in &made {
            let logs = made.iter().filter(|name| name.starts_with("m/")).count();
            assert!(logs >= STEPS && made.len() >= 2 * STEPS, "{made:?}");
        }
        let machine = tempfile::tempdir().unwrap();
        let world = World { objects, ever: store.ever(), states, other: Objects::new(), machine };
        runtime().block_on(world.read(&world.store(), true)).unwrap();
        Self { world, made }
    }

    /// Reads what is left when each pair of `pairs` was exchanged, or the second was put over the first only.
    fn attack(&self, pairs: Vec<(&String, &String)>, is_exchanged: bool) -> Tally {
        let mut tally = Tally::default();
        for (one, other) in pairs {
            let mut objects = self.world.objects.clone();
            objects.insert(one.clone(), self.world.objects[other].clone());
            if is_exchanged {
                objects.insert(other.clone(), self.world.objects[one].clone());
            }
            let what = format!("{other} in the place of {one}, exchanged: {is_exchanged}");
            let verdict = runtime().block_on(self.world.judge(&Hostile::of(objects), &what));
            if let Verdict::Read(tree) = &verdict {
                shows_no_secret(tree, &what);
            }
            tally.add(&verdict);
        }
        println!("{tally:?}");
        tally
    }

    /// All pairs of one kind within `ones` and `others`.
    fn pairs<'a>(ones: &'a BTreeSet<String>, others: &'a BTreeSet<String>) -> Vec<(&'a String, &'a String)> {
        let all = ones.iter().flat_map(|one| others.iter().map(move |other| (one, other)));
        all.filter(|(one, other)| folder(one) == folder(other) && one != other).collect()
    }
}

async fn live(
    store: &std::sync::Arc<Hostile>,
    states: &mut Vec<(Objects, Tree)>,
    made: &mut [BTreeSet<String>; 2],
) {
    create(store, Compression::None, 41).await;
    let opened = open(store, options(None, 42)).await.unwrap();
    let vfs = &opened.vfs;
    let mut inos = Vec::new();
    states.push((store.objects(), tree(vfs).await));
    for name in DIRECTORIES {
        inos.push(mkdir(vfs, Ino::ROOT, name).await);
        vfs.sync_all().await.unwrap();
        states.push((store.objects(), tree(vfs).await));
    }
    for step in 0..STEPS {
        for ((dir, name), made) in inos.iter().zip(DIRECTORIES).zip(made.iter_mut()) {
            let before = store.objects();
            let sub = mkdir(vfs, *dir, &format!("sub{step}")).await;
            put(vfs, sub, "small", name.repeat(50).as_bytes()).await;
            put(vfs, *dir, &format!("large{step}"), name.repeat(BLOCK / 2).as_bytes()).await;
            vfs.sync_all().await.unwrap();
            made.extend(store.objects().into_keys().filter(|name| !before.contains_key(name)));
            states.push((store.objects(), tree(vfs).await));
        }
    }
    // A process that is gone without a word.
    std::mem::forget(opened);
}

fn shows_no_secret(tree: &Tree, what: &str) {
    for (path, seen) in tree.iter().filter(|(path, _)| path.starts_with("/public")) {
        for block in seen.contents.iter().flatten() {
            assert!(!block.windows(6).any(|window| window == b"secret"), "{what}: {path} shows a secret");
        }
    }
}

#[test]
fn c1_what_two_commits_to_one_directory_made_cannot_be_exchanged() {
    let two = Two::new();
    for made in &two.made {
        let pairs = Two::pairs(made, made).into_iter().filter(|(one, other)| one < other).collect();
        let tally = two.attack(pairs, true);
        assert!(tally.refused > 0 && tally.whole == 0, "{tally:?}");
    }
}

#[test]
fn c3_the_metadata_of_two_directories_cannot_be_exchanged() {
    let two = Two::new();
    let is_metadata = |(one, _): &(&String, &String)| one.starts_with("m/");
    let pairs: Vec<_> = Two::pairs(&two.made[0], &two.made[1]).into_iter().filter(is_metadata).collect();
    for is_exchanged in [false, true] {
        let tally = two.attack(pairs.clone(), is_exchanged);
        assert_eq!((tally.refused, tally.partly, tally.whole), (pairs.len(), 0, 0));
    }
}

#[test]
fn d10_nothing_of_a_secret_directory_is_read_where_a_public_one_has_its_objects() {
    let two = Two::new();
    let [public, secret] = &two.made;
    let all = public.iter().flat_map(|one| secret.iter().map(move |other| (one, other))).collect();
    let tally = two.attack(all, false);
    assert!(tally.whole == 0 && tally.partly > 0 && tally.refused > 0, "{tally:?}");
}
