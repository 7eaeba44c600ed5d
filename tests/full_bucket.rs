//! A bucket that is full: a commit does not wait for what has been removed meanwhile, and what is dead makes room.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod dammed;
mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, ManualClock};
use coffer::store::fault::Fault;
use coffer::vfs::{CleanOptions, SetAttr, Vfs, VfsOptions};
use coffer::volume::{OpenOptions, Opened};
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

/// Bytes of segments in the bucket.
async fn segments_bytes(dammed: &Dammed) -> u64 {
    let prefix = object_store::path::Path::from("d");
    let listed = dammed.world.0.list(Some(&prefix)).try_collect::<Vec<_>>().await.unwrap();
    listed.iter().map(|object| object.size).sum()
}

/// A mount that cleans only when it is told to, of segments of eight blocks.
async fn mounted_by(dammed: &Dammed, clock: &Arc<ManualClock>) -> Opened {
    let clean = CleanOptions { is_automatic: false, slack_bytes: 0, ..CleanOptions::default() };
    let vfs = VfsOptions { clean, segment_room_bytes: 8 * 65_536 + 1024, ..VfsOptions::default() };
    dammed.mount_with(OpenOptions { vfs, clock: clock.clone(), ..OpenOptions::default() }).await
}

async fn remove(vfs: &Vfs, name: &[u8], ino: Ino) {
    vfs.unlink(Ino::ROOT, name).await.unwrap();
    vfs.forget(ino, 1);
}

/// A commit of removals sends no contents: it waits for its records alone.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_dead_is_deleted_while_a_commit_of_removals_waits_for_room() {
    let dammed = Dammed::new().await;
    let clock = Arc::new(ManualClock::new(1));
    let opened = mounted_by(&dammed, &clock).await;
    let vfs = &opened.vfs;
    let dead = make(vfs, b"dead", &stream(2 * MIB)).await;
    let last = make(vfs, b"last", b"last").await;
    vfs.sync_all().await.unwrap();
    remove(vfs, b"dead", dead).await;
    vfs.sync_all().await.unwrap();
    assert!(segments_bytes(&dammed).await >= 2 * MIB as u64);

    dammed.fill();
    remove(vfs, b"last", last).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    clock.advance(2 * CleanOptions::default().grace);
    let emptied = async {
        while segments_bytes(&dammed).await > 0 {
            assert!(futures::poll!(&mut saving).is_pending());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), emptied).await.expect("nothing is deleted");
    dammed.open_gates();
    saving.await.unwrap();
}

/// The cleaner was the one who deletes, and waited for the room that its deletions would have made.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_cleaner_gives_up_its_copies_where_a_bucket_is_full_and_deletes_all_the_same() {
    let dammed = Dammed::new().await;
    let clock = Arc::new(ManualClock::new(1));
    let opened = mounted_by(&dammed, &clock).await;
    let vfs = &opened.vfs;
    let dead = make(vfs, b"dead", &stream(2 * MIB)).await;
    vfs.sync_all().await.unwrap();
    let sparse = make(vfs, b"sparse", &stream(4 * MIB)).await;
    vfs.sync_all().await.unwrap();
    for block in (0..64_u64).filter(|block| block % 4 != 3) {
        vfs.write(sparse, block * 65_536, &[7; 65_536], true).await.unwrap();
    }
    remove(vfs, b"dead", dead).await;
    vfs.sync_all().await.unwrap();
    clock.advance(2 * CleanOptions::default().grace);
    let before = (segments_bytes(&dammed).await, contents(vfs, b"sparse").await);

    dammed.shut_by(Fault::Full);
    let reclaim = tokio::time::timeout(Duration::from_secs(60), vfs.reclaim());
    let error = reclaim.await.expect("it waits for ever").unwrap_err();
    assert!(format!("{error:?}").contains("Full"), "{error:?}");
    assert!(before.0 - segments_bytes(&dammed).await >= 2 * MIB as u64);
    assert!(vfs.status().waiting.count > 0, "what was given up may be there");

    dammed.open_gates();
    assert!(vfs.reclaim().await.unwrap().rewritten.count > 0);
    assert!(contents(vfs, b"sparse").await == before.1);
    opened.close().await.unwrap();
}

/// Nobody else looks: the commit that would is the one that waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_been_dead_for_long_enough_is_deleted_from_a_full_bucket() {
    let dammed = Dammed::new().await;
    let clock = Arc::new(ManualClock::new(1));
    let opened = mounted_by(&dammed, &clock).await;
    let vfs = &opened.vfs;
    let dead = make(vfs, b"dead", &stream(8 * MIB)).await;
    vfs.sync_all().await.unwrap();
    remove(vfs, b"dead", dead).await;
    vfs.sync_all().await.unwrap();
    assert!(segments_bytes(&dammed).await >= 8 * MIB as u64);

    dammed.shut_by(Fault::Full);
    make(vfs, b"new", &stream(MIB)).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    clock.advance(2 * CleanOptions::default().grace);
    while segments_bytes(&dammed).await > 0 {
        assert!(futures::poll!(&mut saving).is_pending());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    dammed.open_gates();
    saving.await.unwrap();
}
