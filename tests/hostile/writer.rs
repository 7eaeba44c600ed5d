//! A writer in the hands of the store: when it is done, either the volume is right or the writer has an error.

use std::fs;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer::base::Ino;
use coffer::vfs::Vfs;

use crate::each_object::{folder, kinds};
use crate::store::{Hostile, Lie, Objects};
use crate::world::{BLOCK, Seen, Tree, World, agrees, open, options, pattern, put, read, runtime};

/// Paths of which a writer changes contents or attributes.
const CHANGED: [&str; 5] = ["", "/run", "/dir/link", "/dir/sub/late", "/new"];
const NEW_BYTES: usize = 3000;
/// Of simulated time.
const PATIENCE: Duration = Duration::from_secs(90);

/// What the writer writes: a new file, and parts of blocks, for which it needs the blocks that are there.
async fn changes(vfs: &Vfs) -> Result<(), String> {
    let told = |error: coffer::vfs::VfsError| error.to_string();
    let run = vfs.lookup(Ino::ROOT, b"run").await.map_err(told)?;
    vfs.write(run.ino, 10, &[0xEE; 50], true).await.map_err(told)?;
    let dir = vfs.lookup(Ino::ROOT, b"dir").await.map_err(told)?;
    let sub = vfs.lookup(dir.ino, b"sub").await.map_err(told)?;
    let late = vfs.lookup(sub.ino, b"late").await.map_err(told)?;
    vfs.write(late.ino, BLOCK as u64 + 5, &[0xDD; 20], true).await.map_err(told)?;
    match vfs.lookup(Ino::ROOT, b"new").await {
        Err(error) if error.errno() == libc::ENOENT => {}
        other => return Err(format!("the new file is there already: {other:?}")),
    }
    put(vfs, Ino::ROOT, "new", &pattern(90, NEW_BYTES)).await;
    vfs.sync_all().await.map_err(told)?;
    vfs.tidy_records().await.map_err(told)?;
    vfs.reclaim().await.map_err(told)?;
    vfs.sync_all().await.map_err(told)
}

/// Mounts, writes, unmounts; what of it failed first. A bucket that fails to answer is waited for without end, which is
/// for the user to end.
async fn write(store: &Arc<Hostile>, state_dir: &Path) -> Result<(), String> {
    let working = async {
        let options = options(Some(state_dir.to_owned()), 77);
        let opened = open(store, options).await.map_err(|error| error.to_string())?;
        let changed = changes(&opened.vfs).await;
        let closed = opened.close().await.map_err(|error| error.to_string());
        // A write into a block that could not be completed is lost, and the unmount says so.
        changed.and(closed)
    };
    tokio::time::timeout(PATIENCE, working).await.unwrap_or_else(|_| Err("still waiting".to_owned()))
}

/// The newest tree with what the writer has changed. Times of what it changed are its own.
fn expected(world: &World) -> Tree {
    let mut tree = world.newest().clone();
    for path in ["/run", "/dir/link"] {
        let block = tree.get_mut(path).unwrap().contents[0].as_mut().unwrap();
        block[10..60].fill(0xEE);
    }
    tree.get_mut("/dir/sub/late").unwrap().contents[1].as_mut().unwrap()[5..25].fill(0xDD);
    let mut new = tree["/tiny"].clone();
    new.contents = vec![Ok(pattern(90, NEW_BYTES))];
    new.xattrs = Ok(Vec::new());
    tree.insert("/new".to_owned(), new);
    tree
}

/// As both trees must have it, so that times of what was changed do not count.
fn without_times(mut tree: Tree) -> Tree {
    for path in CHANGED {
        if let Some(seen) = tree.get_mut(path)
            && seen.attr.is_ok()
        {
            seen.attr = Ok("changed".to_owned());
        }
    }
    tree
}

/// Whether each path of `seen` is of one of the two trees, before the change or after it, and none has vanished.
fn is_before_or_after(seen: &Tree, before: &Tree, after: &Tree) -> Result<(), String> {
    for (path, here) in seen {
        let alone = Tree::from([(path.clone(), Seen { listed: Err(0), ..here.clone() })]);
        agrees(&alone, after).or_else(|error| agrees(&alone, before).map_err(|_| error))?;
    }
    for path in before.keys().filter(|path| !path.is_empty()) {
        let parent = path.rsplit_once('/').map_or("", |(parent, _)| parent);
        if seen.get(parent).is_some_and(|seen| seen.listed.is_ok()) && !seen.contains_key(path) {
            return Err(format!("{path} has vanished from a listing"));
        }
    }
    Ok(())
}

#[derive(Default, Debug)]
pub struct Tally {
    pub done: usize,
    pub failed: usize,
    pub unreadable: usize,
}

/// Lets a writer that knows the newest commit work on `store`, and reads what it leaves when the store is honest again.
pub fn judge(world: &World, store: &Arc<Hostile>, is_intact: bool, what: &str, tally: &mut Tally) {
    eprintln!("{what}");
    let machine = tempfile::tempdir().unwrap();
    copy_folder(world.machine.path(), machine.path());
    // The runtime ends with the process that lived on it.
    let wrote = runtime().block_on(write(store, machine.path()));
    let honest = Hostile::of(store.objects());
    let seen = runtime().block_on(read(&honest, Some(machine.path().to_owned())));
    let (before, after) = (without_times(world.newest().clone()), without_times(expected(world)));
    match (wrote, seen.map(without_times)) {
        (Ok(()), Ok(seen)) => {
            tally.done += 1;
            agrees(&seen, &after).unwrap_or_else(|error| panic!("{what}: after a success, {error}"));
            assert!(seen["/new"].is_whole(), "{what}: what was written cannot be read");
            let spoiled: Vec<_> =
                seen.iter().filter(|(_, seen)| !seen.is_whole()).map(|(path, _)| path).collect();
            assert!(!is_intact || spoiled.is_empty(), "{what}: the writer has spoiled {spoiled:?}");
        }
        (Ok(()), Err(error)) => panic!("{what}: after a success nothing can be read: {error}"),
        (Err(_), Ok(seen)) => {
            tally.failed += 1;
            is_before_or_after(&seen, &before, &after)
                .unwrap_or_else(|error| panic!("{what}: after a failure, {error}"));
            let spoiled: Vec<_> =
                seen.iter().filter(|(_, seen)| !seen.is_whole()).map(|(path, _)| path).collect();
            assert!(!is_intact || spoiled.is_empty(), "{what}: the writer has spoiled {spoiled:?}");
        }
        (Err(why), Err(error)) => {
            tally.unreadable += 1;
            assert!(
                !is_intact,
                "{what}: the writer failed ({why}) and nothing can be read any more: {error}"
            );
        }
    }
}

pub fn copy_folder(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap().map(|entry| entry.unwrap()) {
        let to = to.join(entry.file_name());
        if entry.file_type().unwrap().is_dir() {
            fs::create_dir(&to).unwrap();
            copy_folder(&entry.path(), &to);
        } else {
            fs::copy(entry.path(), to).unwrap();
        }
    }
}

#[test]
fn a_writer_whose_store_lies_leaves_the_volume_right_or_has_an_error() {
    let world = World::new();
    let mut tally = Tally::default();
    for name in world.objects.keys() {
        let lies = [
            Lie::Hidden { list: true, head: true, get: true },
            Lie::Hidden { list: true, head: false, get: false },
            Lie::Hidden { list: false, head: true, get: true },
            Lie::ShiftedBytes(1),
            Lie::BodyLength(-1),
            Lie::Length(-1),
            Lie::Length(1 << 40),
            Lie::OtherRange,
        ];
        for lie in lies {
            let store = Hostile::lying(world.objects.clone(), name, lie);
            judge(&world, &store, true, &format!("{name}: {lie:?}"), &mut tally);
        }
    }
    println!("{tally:?}");
    assert!(tally.done > 20 && tally.failed > 20, "{tally:?}");
}

#[test]
fn a_writer_on_altered_objects_leaves_the_rest_right_or_has_an_error() {
    let world = World::new();
    let mut tally = Tally::default();
    let kinds = kinds(&world.objects);
    for (name, bytes) in &world.objects {
        let with = |bytes: Option<Bytes>| -> Objects {
            let mut objects = world.objects.clone();
            match bytes {
                Some(bytes) => objects.insert(name.clone(), bytes),
                None => objects.remove(name),
            };
            objects
        };
        let mut flipped = bytes.to_vec();
        flipped[bytes.len() / 2] ^= 4;
        let other = kinds[&folder(name)].iter().find(|other| *other != name);
        let mut ways = vec![("altered", with(Some(flipped.into()))), ("deleted", with(None))];
        ways.extend(other.map(|other| ("replaced", with(Some(world.objects[other].clone())))));
        for (how, objects) in ways {
            judge(&world, &Hostile::of(objects), false, &format!("{name} {how}"), &mut tally);
        }
    }
    println!("{tally:?}");
    assert!(tally.done > 5 && tally.failed + tally.unreadable > 20, "{tally:?}");
}

/// The objects are those of now, listings those of an earlier time.
#[test]
fn d1_a_listing_of_an_older_time_is_the_newest_state_or_a_refusal_for_readers_and_writers() {
    let world = World::new();
    let mut tally = Tally::default();
    let (_, older) = world.states.split_last().unwrap();
    for (number, (listed, _)) in older.iter().enumerate() {
        let what = format!("listings of state {number}");
        let store = Hostile::listing(world.objects.clone(), listed);
        runtime().block_on(world.judge(&store, &what));
        let store = Hostile::listing(world.objects.clone(), listed);
        judge(&world, &store, true, &what, &mut tally);
    }
    println!("{tally:?}");
}
