//! How a mount ends: with everything saved that it has taken, and a word about what is not as it should be.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use coffer::base::Ino;
use coffer::vfs::{Handle, OnCommit, VfsError};
use coffer::volume::{OpenOptions, VolumeError};

use in_memory::{CALLER, World};

const PART: usize = 64 * 1024;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_goes_on_writing_while_a_mount_ends_is_refused_and_what_was_taken_is_saved() {
    let world = World::new().await;
    let (opened, _) = world.open(OpenOptions::default()).await;
    let vfs = Arc::clone(&opened.vfs);
    let file = vfs.create(&CALLER, Ino::ROOT, b"log", 0o644, true).await.unwrap().ino;
    let taken = Arc::new(AtomicU64::new(0));
    let counted = Arc::clone(&taken);
    let writer = tokio::spawn(async move {
        loop {
            let at = counted.load(Ordering::SeqCst);
            if let Err(error) = vfs.write(file, at * PART as u64, &vec![at as u8; PART], true).await {
                return error;
            }
            counted.store(at + 1, Ordering::SeqCst);
        }
    });
    while taken.load(Ordering::SeqCst) < 10 {
        tokio::task::yield_now().await;
    }
    opened.close().await.unwrap();
    assert!(matches!(writer.await.unwrap(), VfsError::ShutDown));
    let taken = taken.load(Ordering::SeqCst);
    let (opened, _) = world.open(OpenOptions::default()).await;
    assert_eq!(opened.vfs.getattr(file).await.unwrap().size, taken * PART as u64);
    let last = opened.vfs.read(Handle(0), file, (taken - 1) * PART as u64, PART).await.unwrap();
    assert_eq!(last, vec![(taken - 1) as u8; PART]);
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_cannot_be_noted_is_told_and_noted_before_the_end_if_it_can_be() {
    for is_noted_in_time in [true, false] {
        let world = World::new().await;
        let (is_full, noted) = (Arc::new(AtomicBool::new(false)), Arc::new(AtomicU64::new(0)));
        let (full, last) = (Arc::clone(&is_full), Arc::clone(&noted));
        let note: OnCommit = Arc::new(move |made| match full.load(Ordering::SeqCst) {
            true => Err("no space left".to_owned()),
            false => {
                last.fetch_max(made.number, Ordering::SeqCst);
                Ok(())
            }
        });
        let mut options = OpenOptions::default();
        options.vfs.on_commit = Some(note);
        let (opened, _) = world.open(options).await;
        let file = opened.vfs.create(&CALLER, Ino::ROOT, b"file", 0o644, true).await.unwrap().ino;
        assert_eq!(opened.vfs.status().unnoted, None);
        is_full.store(true, Ordering::SeqCst);
        opened.vfs.fsync(file, false).await.expect("it is in the bucket");
        assert_eq!(opened.vfs.status().unnoted.as_deref(), Some("no space left"));
        is_full.store(!is_noted_in_time, Ordering::SeqCst);
        let vfs = Arc::clone(&opened.vfs);
        match opened.close().await {
            Ok(()) => {
                assert!(is_noted_in_time);
                assert_eq!(noted.load(Ordering::SeqCst), vfs.status().commit);
            }
            Err(VolumeError::Vfs(VfsError::Unnoted(why))) => {
                assert!(!is_noted_in_time && why == "no space left", "{why}");
            }
            Err(error) => panic!("{error}"),
        }
    }
}
