//! What the store claims of dates, tags and the ends of its listings while a volume is at work.

use std::sync::Arc;
use std::time::Duration;

use coffer::base::Ino;

use crate::each_object::kinds;
use crate::store::{Hostile, Lie};
use crate::world::{
    AFTER_ALL, BEFORE_ALL, BLOCK, EPOCH, Seen, Tree, Verdict, World, agrees, open, options, pattern, put,
    read, runtime, tree,
};
use crate::writer;

/// Of simulated time: long enough for collections that come by themselves.
const SOME_HOURS: Duration = Duration::from_secs(6 * 3600);

fn is_whole(tree: &Tree) -> bool {
    tree.values().all(Seen::is_whole)
}

/// A writer replaces, deletes, merges, cleans and waits; a reader that was there before reads on.
async fn work(world: &World, store: &Arc<Hostile>, what: &str) {
    let machines = [tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap()];
    machines.iter().for_each(|machine| writer::copy_folder(world.machine.path(), machine.path()));
    let mut reading = options(Some(machines[0].path().to_owned()), 66);
    reading.vfs.read_only = true;
    let reader = open(store, reading).await.unwrap();
    let opened = open(store, options(Some(machines[1].path().to_owned()), 77)).await.unwrap();
    let vfs = &opened.vfs;
    let mut truths = vec![world.newest().clone()];
    for round in 0..4 {
        put(vfs, Ino::ROOT, "run", &pattern(100 + round, BLOCK + 17)).await;
        put(vfs, Ino::ROOT, &format!("new{round}"), &pattern(200 + round, 3000)).await;
        vfs.sync_all().await.unwrap();
        if round > 0 {
            vfs.unlink(Ino::ROOT, format!("new{}", round - 1).as_bytes()).await.unwrap();
        }
        vfs.sync_all().await.unwrap();
        vfs.tidy_records().await.unwrap();
        vfs.sweep(true).await.unwrap();
        vfs.reclaim().await.unwrap();
        tokio::time::sleep(SOME_HOURS).await;
        truths.push(tree(vfs).await);
        assert!(is_whole(&truths[truths.len() - 1]), "{what}: the writer has lost something");
        // Whether it can follow is the store's to say; what it reads is of one state or an error.
        let _ = reader.vfs.follow().await;
        let seen = tree(&reader.vfs).await;
        let is_one = truths.iter().any(|truth| agrees(&seen, truth).is_ok());
        assert!(is_one, "{what}: {:?}", agrees(&seen, &truths[truths.len() - 1]));
    }
    opened.close().await.unwrap();
    drop(reader.close().await);
}

#[test]
fn d9_c6_no_date_or_tag_has_anything_deleted_that_is_in_use() {
    let world = World::new();
    let mut told = [EPOCH, BEFORE_ALL, AFTER_ALL].map(|date| (Lie::Date(date), None)).to_vec();
    told.push((Lie::Attributes, None));
    // What is there was always there, and what comes is not yet; and the other way round.
    told.push((Lie::Date(AFTER_ALL), Some(Lie::Date(EPOCH))));
    told.push((Lie::Date(EPOCH), Some(Lie::Date(AFTER_ALL))));
    for (of_all, of_old) in told {
        let what = format!("{of_all:?} of all but {of_old:?} of what was there");
        eprintln!("{what}");
        let store = Hostile::lying_of_all(world.objects.clone(), of_all);
        if let Some(lie) = of_old {
            world.objects.keys().for_each(|name| store.lie(name, lie));
        }
        runtime().block_on(work(&world, &store, &what));
        let deleted = store.take_trace().iter().filter(|request| request.starts_with("DELETE")).count();
        assert!(deleted > 10, "{what}: {deleted} were deleted, which shows nothing");
        let honest = Hostile::of(store.objects());
        let seen = runtime().block_on(read(&honest, None)).unwrap();
        assert!(is_whole(&seen) && seen.contains_key("/new3") && !seen.contains_key("/new2"), "{what}");
        let run = &seen["/run"].contents;
        assert_eq!(run[0].as_ref().unwrap()[..], pattern(103, BLOCK + 17)[..BLOCK], "{what}");
    }
}

/// Readers ask for no listing of segments, and for the others a listing without end is damage.
#[test]
fn d12_a_listing_without_end_ends_in_an_error_or_is_passed_over() {
    let world = World::new();
    let mut tally = writer::Tally::default();
    let first_header = kinds(&world.objects)["header"][0].clone();
    let directories = kinds(&world.objects).into_keys().map(|directory| (directory, None));
    for (directory, repeated) in directories.chain([("header".to_owned(), Some(first_header))]) {
        let what = format!("{directory} lists {repeated:?} without end");
        let without_end = || Hostile::without_end(world.objects.clone(), &directory, repeated.as_deref());
        let verdict = runtime().block_on(world.judge(&without_end(), &what));
        match (directory.as_str(), &verdict) {
            ("d" | "probe", verdict) => assert!(verdict.spoiled().is_empty(), "{what}: {verdict:?}"),
            ("header", Verdict::Refused(error)) => {
                assert!(error.to_string().contains("it lists more than"), "{what}: {error}");
            }
            ("header", other) => panic!("{what}: {other:?}"),
            (_, Verdict::Refused(error)) => println!("{what}: {error}"),
            (_, Verdict::Read(tree)) => assert!(is_whole(tree), "{what}"),
        }
        writer::judge(&world, &without_end(), true, &what, &mut tally);
    }
    println!("{tally:?}");
    assert!(tally.done > 0 && tally.failed > 0, "{tally:?}");
}
