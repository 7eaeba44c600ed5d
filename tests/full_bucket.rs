//! A bucket that is full: a commit does not wait for what has been removed meanwhile, and what is dead makes room.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod dammed;
mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, ManualClock};
use coffer::store::fault::Fault;
use coffer::vfs::{CleanOptions, SetAttr, VfsOptions};
use coffer::volume::OpenOptions;
use futures::TryStreamExt;

use dammed::{Dammed, MIB, contents, make, stream};
use in_memory::CALLER;

/// > A local disk that is full is an outage as well, of its own kind. Whoever removes a file that does not fit there, or cuts
/// > it, has everything else saved.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn removing_what_does_not_fit_into_a_full_bucket_lets_everything_else_be_saved() {
    for case in ["removed", "cut"] {
        let dammed = Dammed::new().await;
        let opened = dammed.mount().await;
        let vfs = &opened.vfs;
        dammed.shut_by(Fault::Full);
        let large = make(vfs, b"large", &stream(40 * MIB)).await;
        make(vfs, b"small", b"small").await;
        let earlier = vfs.sync_all();
        tokio::pin!(earlier);
        while !vfs.status().is_committing {
            assert!(futures::poll!(&mut earlier).is_pending(), "{case}");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        make(vfs, b"later", b"later").await;
        let later = vfs.sync_all();
        tokio::pin!(later);
        assert!(futures::poll!(&mut later).is_pending(), "{case}");
        if case == "removed" {
            vfs.unlink(Ino::ROOT, b"large").await.unwrap();
            vfs.forget(large, 1);
        } else {
            let cut = SetAttr { size: Some(0), ..SetAttr::default() };
            vfs.setattr(&CALLER, large, &cut).await.unwrap();
        }
        let both = futures::future::try_join(earlier, later);
        tokio::time::timeout(Duration::from_secs(60), both).await.expect(case).unwrap();
        vfs.sync_all().await.unwrap();

        let after_a_crash = dammed.mount().await;
        let vfs = &after_a_crash.vfs;
        assert_eq!(contents(vfs, b"small").await, b"small", "{case}");
        assert_eq!(contents(vfs, b"later").await, b"later", "{case}");
        match case {
            "removed" => assert!(vfs.lookup(Ino::ROOT, b"large").await.is_err()),
            _ => assert_eq!(contents(vfs, b"large").await, b""),
        }
        after_a_crash.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lay_beside_it_is_sent_without_it() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let vfs = &opened.vfs;
    dammed.shut_by(Fault::Full);
    let kept = stream(MIB);
    make(vfs, b"kept", &kept).await;
    let large = make(vfs, b"large", &stream(15 * MIB)).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    while vfs.status().queue.sending_bytes < 15 * MIB as u64 {
        assert!(futures::poll!(&mut saving).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    vfs.unlink(Ino::ROOT, b"large").await.unwrap();
    vfs.forget(large, 1);
    while vfs.status().queue.sending_bytes > 2 * MIB as u64 {
        assert!(futures::poll!(&mut saving).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dammed.open_gates();
    saving.await.unwrap();
    let sent = dammed.world.0.list(None).try_collect::<Vec<_>>().await.unwrap();
    let sent: u64 = sent.iter().map(|object| object.size).sum();
    assert!(sent < 2 * MIB as u64, "{sent} bytes are in the bucket");

    let after_a_crash = dammed.mount().await;
    assert!(contents(&after_a_crash.vfs, b"kept").await == kept);
    after_a_crash.close().await.unwrap();
}

/// Makes files beside one that does not fit, each with `contents`, until no more may be made; at least `count_min`. Then removes
/// the one, with which everything is saved.
async fn remove_at_the_limit(limits: VfsOptions, contents: &[u8], count_min: usize) {
    let dammed = Dammed::new().await;
    let opened = dammed.mount_with(OpenOptions { vfs: limits, ..OpenOptions::default() }).await;
    let vfs = &opened.vfs;
    dammed.shut_by(Fault::Full);
    let large = make(vfs, b"large", &stream(MIB / 2)).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    assert!(futures::poll!(&mut saving).is_pending());
    for number in 0.. {
        let name = format!("{number}").into_bytes();
        let making = make(vfs, &name, contents);
        if tokio::time::timeout(Duration::from_secs(2), making).await.is_err() {
            assert!(number > count_min, "{number} files");
            break;
        }
    }
    let removing = vfs.unlink(Ino::ROOT, b"large");
    tokio::time::timeout(Duration::from_secs(60), removing).await.expect("it waits").unwrap();
    vfs.forget(large, 1);
    tokio::time::timeout(Duration::from_secs(60), saving).await.expect("it waits").unwrap();
    vfs.sync_all().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_can_be_removed_although_no_more_may_be_written() {
    // The tables of a small file take more than its contents, so that the limit is passed in the end.
    remove_at_the_limit(VfsOptions { dirty_bytes_max: MIB, ..VfsOptions::default() }, b"x", 100).await;
}

/// Records have a limit of their own, which empty files reach.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_can_be_removed_although_no_more_may_be_made() {
    remove_at_the_limit(VfsOptions { dirty_records_max: 200, ..VfsOptions::default() }, b"", 50).await;
}

/// Nobody else looks: the commit that would is the one that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_been_dead_for_long_enough_is_deleted_from_a_full_bucket() {
    let dammed = Dammed::new().await;
    let clock = Arc::new(ManualClock::new(1));
    let clean = CleanOptions { is_automatic: false, ..CleanOptions::default() };
    let vfs = VfsOptions { clean, ..VfsOptions::default() };
    let options = OpenOptions { vfs, clock: clock.clone(), ..OpenOptions::default() };
    let opened = dammed.mount_with(options).await;
    let vfs = &opened.vfs;
    let dead = make(vfs, b"dead", &stream(8 * MIB)).await;
    vfs.sync_all().await.unwrap();
    vfs.unlink(Ino::ROOT, b"dead").await.unwrap();
    vfs.forget(dead, 1);
    vfs.sync_all().await.unwrap();
    let segments_bytes = async || {
        let prefix = object_store::path::Path::from("d");
        let listed = dammed.world.0.list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap();
        listed.iter().map(|object| object.size).sum::<u64>()
    };
    assert!(segments_bytes().await >= 8 * MIB as u64);

    dammed.shut_by(Fault::Full);
    make(vfs, b"new", &stream(MIB)).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    clock.advance(2 * CleanOptions::default().grace);
    while segments_bytes().await > 0 {
        assert!(futures::poll!(&mut saving).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dammed.open_gates();
    saving.await.unwrap();
}
