//! A rotation that dies between any two changes of the bucket: nothing is lost, mounts work, and the next one ends it.

use std::sync::Arc;

use coffer::vfs::VfsOptions;
use coffer::volume::OpenOptions;

use crate::rotation::{begin, end, holds, live};
use crate::store::Hostile;
use crate::world::{World, bucket, factors, open, options, runtime};

fn header_of(store: &Arc<Hostile>) -> coffer::keys::Header {
    let unlocked = runtime().block_on(coffer::volume::unlock(&bucket(store), &factors())).unwrap();
    unlocked.header
}

#[test]
fn a_rotation_that_dies_between_any_two_changes_loses_nothing_and_is_ended_by_the_next() {
    let world = World::new();
    let store = world.store();
    store.film();
    runtime().block_on(async {
        begin(&store, &options(None, 1)).await.unwrap();
        end(&store, &options(None, 1)).await.unwrap();
    });
    let film = store.take_film();
    let (mut epochs, mut unfinished) = ([0; 3], 0);
    for (number, (change, objects)) in film.iter().enumerate() {
        let crashed = Hostile::of(objects.clone());
        let header = header_of(&crashed);
        epochs[header.epoch as usize] += 1;
        unfinished += usize::from(header.is_rotating());
        runtime().block_on(async {
            // A mount in between, sometimes for writing: it works as ever.
            let vfs = VfsOptions { read_only: number % 2 == 0, ..options(None, 0).vfs };
            let between = OpenOptions { vfs, ..options(None, 100 + number as u64) };
            let opened = open(&crashed, between).await;
            let opened = opened.unwrap_or_else(|error| panic!("{number}, before {change}: {error}"));
            holds(&world, &opened.vfs).await;
            opened.close().await.unwrap_or_else(|error| panic!("{number}, before {change}: {error}"));
            let options = options(None, 500 + number as u64);
            if !header.is_rotating() && header.epoch == 1 {
                begin(&crashed, &options).await.unwrap();
            }
            if header.is_rotating() || header.epoch == 1 {
                end(&crashed, &options)
                    .await
                    .unwrap_or_else(|error| panic!("{number}, before {change}: {error}"));
            }
            let (_, live) = live(&crashed).await;
            assert!(
                live.segments.values().all(|segment| segment.seal.epoch == 2),
                "{number}, before {change}"
            );
            let reading = VfsOptions { read_only: true, ..options.vfs.clone() };
            let opened = open(&crashed, OpenOptions { vfs: reading, ..options }).await.unwrap();
            holds(&world, &opened.vfs).await;
            opened.close().await.unwrap();
        });
        let header = header_of(&crashed);
        assert!(header.epoch == 2 && !header.is_rotating(), "{number}, before {change}");
    }
    println!("{} crashes, {unfinished} of them with the rotation unfinished", film.len());
    assert!(epochs[1] > 3 && unfinished > 10 && epochs[2] > unfinished);
}
