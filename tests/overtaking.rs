//! An `fsync` does not wait for strangers: what a commit leaves behind for it, and what it does not.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod dammed;
mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, ManualClock};
use coffer::vfs::{Handle, RenameMode, SetAttr, Vfs, VfsOptions, XattrMode};
use coffer::volume::OpenOptions;

use dammed::{Dammed, MIB, contents, make, stream};
use in_memory::CALLER;

/// Blocks are 64 KiB, and a file is cut between two of them.
const BLOCK: usize = 64 << 10;

/// > **An `fsync` does not wait for strangers.** Contents and sizes of files that nobody waits for are left to the next
/// > commit, if there are more than 128 KiB of them. After a crash in between such a file is as the commit before had it, a
/// > new one empty;
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_fsync_is_done_while_nothing_of_another_files_stream_gets_through() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    dammed.shut();
    let data = stream(20 * MIB);
    let streamed = make(&opened.vfs, b"stream", &data).await;
    let small = make(&opened.vfs, b"small", b"four kilobytes").await;
    opened.vfs.fsync(small, false).await.unwrap();
    // Now there is an older version of it, and a commit that brings the stream is under way.
    opened.vfs.write(small, 0, b"FOUR", true).await.unwrap();
    opened.vfs.fsync(small, false).await.unwrap();
    let status = opened.vfs.status();
    assert!(!status.is_safe && status.put_off >= 2, "{status:?}");
    assert_eq!(contents(&opened.vfs, b"stream").await, data, "who reads it sees it whole");

    let after_a_crash = dammed.mount().await;
    assert_eq!(contents(&after_a_crash.vfs, b"small").await, b"FOUR kilobytes");
    assert_eq!(contents(&after_a_crash.vfs, b"stream").await, b"");
    assert_eq!(after_a_crash.vfs.lookup(Ino::ROOT, b"stream").await.unwrap().ino, streamed);
    after_a_crash.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_put_off_is_saved_with_the_next_commit() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let old = make(&opened.vfs, b"old", &[1; 3 * MIB]).await;
    opened.vfs.sync_all().await.unwrap();
    dammed.shut();
    let data = stream(9 * MIB);
    make(&opened.vfs, b"stream", &data).await;
    opened.vfs.write(old, 100, &[2; 2 * MIB], true).await.unwrap();
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();
    opened.vfs.write(old, 3 * MIB as u64, &[3; 5], true).await.unwrap();
    dammed.open_gates();
    opened.vfs.sync_all().await.unwrap();
    assert!(opened.vfs.status().is_safe);
    drop(opened);

    let later = dammed.mount().await;
    assert_eq!(contents(&later.vfs, b"stream").await, data);
    let mut expected = vec![1; 3 * MIB];
    expected[100..100 + 2 * MIB].fill(2);
    expected.extend([3; 5]);
    assert_eq!(contents(&later.vfs, b"old").await, expected);
    later.close().await.unwrap();
}

/// > one that only grew is there as far as it had come, cut between two blocks of 64 KiB.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_committed_as_far_as_it_has_come() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let data = stream(30 * MIB);
    let ino = make(&opened.vfs, b"stream", &data[..20 * MIB]).await;
    while opened.vfs.dirty_bytes() > 12 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    dammed.shut();
    opened.vfs.write(ino, 20 * MIB as u64, &data[20 * MIB..], true).await.unwrap();
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();

    let after_a_crash = dammed.mount().await;
    let found = contents(&after_a_crash.vfs, b"stream").await;
    assert!(!found.is_empty() && found.len() < data.len() && found.len() % BLOCK == 0, "{}", found.len());
    assert_eq!(found, data[..found.len()]);
    after_a_crash.close().await.unwrap();
}

/// What is overwritten may name what was appended before: an index, a header.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_overwritten_and_grows_is_the_old_one_until_all_of_it_comes() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let ino = make(&opened.vfs, b"file", &[1; 2 * MIB]).await;
    opened.vfs.sync_all().await.unwrap();
    opened.vfs.write(ino, 0, &[2; MIB], true).await.unwrap();
    for part in 2..20 {
        opened.vfs.write(ino, part * MIB as u64, &[3; MIB], true).await.unwrap();
    }
    while opened.vfs.dirty_bytes() > 12 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    dammed.shut();
    opened.vfs.write(ino, 20 * MIB as u64, &[3; 9 * MIB], true).await.unwrap();
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();

    let after_a_crash = dammed.mount().await;
    assert!(contents(&after_a_crash.vfs, b"file").await == [1; 2 * MIB]);
    after_a_crash.close().await.unwrap();
}

/// A block of which a hundred bytes were written is sent as a whole.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn strangers_are_left_behind_by_what_is_to_be_sent_of_them_not_by_what_was_written() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let ino = make(&opened.vfs, b"file", &[1; 4 * MIB]).await;
    opened.vfs.sync_all().await.unwrap();
    dammed.shut();
    for block in 0..64 {
        opened.vfs.write(ino, block * BLOCK as u64, &[2; 100], true).await.unwrap();
    }
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();
    assert!(!opened.vfs.status().is_safe, "6,400 bytes have gone along as four megabytes");
    dammed.open_gates();
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_cut_and_written_anew_is_the_old_one_until_the_new_one_comes() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let ino = make(&opened.vfs, b"file", &[1; 2 * MIB]).await;
    opened.vfs.sync_all().await.unwrap();
    dammed.shut();
    let cut = SetAttr { size: Some(0), ..SetAttr::default() };
    opened.vfs.setattr(&CALLER, ino, &cut).await.unwrap();
    for part in 0..9 {
        opened.vfs.write(ino, part * MIB as u64, &[2; MIB], true).await.unwrap();
    }
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();

    let after_a_crash = dammed.mount().await;
    assert!(contents(&after_a_crash.vfs, b"file").await == [1; 2 * MIB]);
    after_a_crash.close().await.unwrap();
}

/// Nothing older is left of it, but it was never as short as what of it has been sent.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_file_that_is_written_anew_over_holes_is_the_old_one_until_the_new_one_comes() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let ino = make(&opened.vfs, b"file", &[1; 21 * MIB]).await;
    opened.vfs.sync_all().await.unwrap();
    let hole = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
    opened.vfs.fallocate(ino, hole, 0, 21 * MIB as u64).await.unwrap();
    for part in 0..20 {
        opened.vfs.write(ino, part * MIB as u64, &[2; MIB], true).await.unwrap();
    }
    let shorter = SetAttr { size: Some(20 * MIB as u64), ..SetAttr::default() };
    opened.vfs.setattr(&CALLER, ino, &shorter).await.unwrap();
    while opened.vfs.dirty_bytes() > 12 * MIB as u64 {
        tokio::task::yield_now().await;
    }
    dammed.shut();
    for part in 18..20 {
        opened.vfs.write(ino, part * MIB as u64, &[3; MIB], true).await.unwrap();
    }
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.fsync(small, false).await.unwrap();

    let after_a_crash = dammed.mount().await;
    let found = contents(&after_a_crash.vfs, b"file").await;
    assert!(found == [1; 21 * MIB], "{} bytes, the first {:?}", found.len(), found.first());
    after_a_crash.close().await.unwrap();
}

/// > This lasts at most the commit age, and begins anew when a growing file has come further.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nothing_is_put_off_for_longer_than_the_commit_age() {
    let dammed = Dammed::new().await;
    let clock = Arc::new(ManualClock::new(1 << 60));
    let opened = dammed.mount_with(OpenOptions { clock: clock.clone(), ..OpenOptions::default() }).await;
    dammed.shut();
    make(&opened.vfs, b"stream", &stream(9 * MIB)).await;
    let small = make(&opened.vfs, b"small", b"small").await;
    for part in 0..5 {
        opened.vfs.write(small, part, b"more", true).await.unwrap();
        opened.vfs.fsync(small, false).await.unwrap();
        clock.advance(Duration::from_secs(1));
    }
    assert_eq!(opened.vfs.status().dirty_age, Some(5.0), "what was put off is as old as it was");
    opened.vfs.write(small, 0, b"last", true).await.unwrap();
    let mut syncing = Box::pin(opened.vfs.fsync(small, false));
    assert!(futures::poll!(&mut syncing).is_pending());
    dammed.open_gates();
    syncing.await.unwrap();
    assert_eq!(opened.vfs.status().dirty_age, None);
    assert!(opened.vfs.status().is_safe, "the stream was five seconds late, and has come with the rest");
    opened.close().await.unwrap();
}

/// > **What gives contents a name waits for them.** A file that was renamed, linked, or given another owner, mode, time or
/// > attribute since the last commit is committed with its contents, whoever waits.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_gives_contents_a_name_or_an_attribute_waits_for_them() {
    for case in ["rename", "link", "chmod", "attribute"] {
        let dammed = Dammed::new().await;
        let opened = dammed.mount().await;
        let small = make(&opened.vfs, b"small", b"small").await;
        opened.vfs.sync_all().await.unwrap();
        dammed.shut();
        let data = stream(9 * MIB);
        let ino = make(&opened.vfs, b"stream", &data).await;
        match case {
            "rename" => {
                let mode = RenameMode::Replace;
                opened.vfs.rename(Ino::ROOT, b"stream", Ino::ROOT, b"named", mode).await.unwrap();
            }
            "link" => drop(opened.vfs.link(ino, Ino::ROOT, b"named").await.unwrap()),
            "chmod" => {
                let set = SetAttr { perm: Some(0o600), ..SetAttr::default() };
                opened.vfs.setattr(&CALLER, ino, &set).await.unwrap();
            }
            _ => {
                opened.vfs.set_xattr(ino, b"user.name", b"value", XattrMode::Set).await.unwrap();
            }
        }
        opened.vfs.write(small, 0, b"SMALL", true).await.unwrap();
        let syncing = opened.vfs.fsync(small, false);
        tokio::pin!(syncing);
        // The gates open only now, and everything that the fsync is told must hold with what came through.
        assert!(futures::poll!(&mut syncing).is_pending(), "{case}");
        dammed.open_gates();
        syncing.await.unwrap();
        assert_eq!(opened.vfs.status().put_off, 0, "{case}");

        let after_a_crash = dammed.mount().await;
        let name = if matches!(case, "rename" | "link") { &b"named"[..] } else { b"stream" };
        assert!(contents(&after_a_crash.vfs, name).await == data, "{case}");
        assert_eq!(contents(&after_a_crash.vfs, b"small").await, b"SMALL", "{case}");
        after_a_crash.close().await.unwrap();
    }
}

/// A directory with a new file in it, `entry`.
async fn directory(vfs: &Vfs, name: &[u8], data: &[u8]) -> Ino {
    let dir = vfs.mkdir(&CALLER, Ino::ROOT, name, 0o755).await.unwrap().ino;
    let ino = vfs.create(&CALLER, dir, b"entry", 0o644, true).await.unwrap().ino;
    for (number, part) in data.chunks(MIB).enumerate() {
        vfs.write(ino, (number * MIB) as u64, part, true).await.unwrap();
    }
    ino
}

/// > A directory that is renamed and holds anything gives a name to all below it: an `fsync` then waits for everything.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_lies_below_a_renamed_directory_is_committed_with_its_new_path() {
    for case in ["new over an empty one", "new for a full one", "old with new contents", "from far below"] {
        let dammed = Dammed::new().await;
        let opened = dammed.mount().await;
        let vfs = &opened.vfs;
        let small = make(vfs, b"small", b"small").await;
        let data = stream(9 * MIB);
        let before = stream(100);
        let mut known = None;
        match case {
            "new over an empty one" => drop(vfs.mkdir(&CALLER, Ino::ROOT, b"old", 0o755).await.unwrap()),
            "new for a full one" => drop(directory(vfs, b"old", &before).await),
            _ => known = Some(directory(vfs, b"new", &before).await),
        }
        vfs.sync_all().await.unwrap();
        dammed.shut();
        match known {
            Some(ino) => {
                for (number, part) in data.chunks(MIB).enumerate() {
                    vfs.write(ino, (number * MIB) as u64, part, true).await.unwrap();
                }
            }
            None => drop(directory(vfs, b"new", &data).await),
        }
        let mode = if case == "new for a full one" { RenameMode::Exchange } else { RenameMode::Replace };
        if case == "from far below" {
            // Two levels up, and within one group with the contents.
            let above = vfs.mkdir(&CALLER, Ino::ROOT, b"above", 0o755).await.unwrap().ino;
            vfs.rename(Ino::ROOT, b"new", above, b"old", mode).await.unwrap();
            vfs.rename(Ino::ROOT, b"above", Ino::ROOT, b"named", mode).await.unwrap();
        } else {
            vfs.rename(Ino::ROOT, b"new", Ino::ROOT, b"old", mode).await.unwrap();
        }
        vfs.write(small, 0, b"SMALL", true).await.unwrap();
        let syncing = vfs.fsync(small, false);
        tokio::pin!(syncing);
        assert!(futures::poll!(&mut syncing).is_pending(), "{case}");
        dammed.open_gates();
        syncing.await.unwrap();
        assert_eq!(vfs.status().put_off, 0, "{case}");

        let after_a_crash = dammed.mount().await;
        let vfs = &after_a_crash.vfs;
        let top = match case {
            "from far below" => vfs.lookup(Ino::ROOT, b"named").await.unwrap().ino,
            _ => Ino::ROOT,
        };
        let old = vfs.lookup(top, b"old").await.unwrap().ino;
        let entry = vfs.lookup(old, b"entry").await.unwrap();
        let found = vfs.read(Handle(0), entry.ino, 0, 10 * MIB).await.unwrap();
        assert!(found == data, "{case}: {} bytes", found.len());
        after_a_crash.close().await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_empty_directory_that_is_renamed_makes_nobody_wait() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    dammed.shut();
    make(&opened.vfs, b"stream", &stream(9 * MIB)).await;
    let small = make(&opened.vfs, b"small", b"small").await;
    opened.vfs.mkdir(&CALLER, Ino::ROOT, b"new", 0o755).await.unwrap();
    opened.vfs.rename(Ino::ROOT, b"new", Ino::ROOT, b"old", RenameMode::Replace).await.unwrap();
    opened.vfs.fsync(small, false).await.unwrap();
    assert!(opened.vfs.status().put_off > 0);

    // What is renamed with something in it binds its own group and no later one.
    dammed.open_gates();
    let dir = opened.vfs.lookup(Ino::ROOT, b"old").await.unwrap().ino;
    opened.vfs.create(&CALLER, dir, b"entry", 0o644, true).await.unwrap();
    opened.vfs.rename(Ino::ROOT, b"old", Ino::ROOT, b"older", RenameMode::Replace).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    dammed.shut();
    make(&opened.vfs, b"second", &stream(9 * MIB)).await;
    opened.vfs.write(small, 0, b"SMALL", true).await.unwrap();
    opened.vfs.fsync(small, false).await.unwrap();

    let after_a_crash = dammed.mount().await;
    assert!(contents(&after_a_crash.vfs, b"stream").await == stream(9 * MIB));
    assert_eq!(contents(&after_a_crash.vfs, b"second").await, b"");
    assert_eq!(contents(&after_a_crash.vfs, b"small").await, b"SMALL");
    after_a_crash.close().await.unwrap();
}

/// > So are all files by `coffer sync` and at an unmount.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whoever_waits_for_everything_gets_everything() {
    let dammed = Dammed::new().await;
    let opened = dammed.mount().await;
    let data = stream(9 * MIB);
    dammed.shut();
    make(&opened.vfs, b"stream", &data).await;
    let small = make(&opened.vfs, b"small", b"small").await;
    let (everything, file) = (opened.vfs.sync_all(), opened.vfs.fsync(small, false));
    tokio::pin!(everything);
    assert!(futures::poll!(&mut everything).is_pending());
    tokio::pin!(file);
    assert!(futures::poll!(&mut file).is_pending());
    dammed.open_gates();
    everything.await.unwrap();
    file.await.unwrap();
    assert_eq!(opened.vfs.status().put_off, 0);

    let after_a_crash = dammed.mount().await;
    assert_eq!(contents(&after_a_crash.vfs, b"stream").await, data);
    after_a_crash.close().await.unwrap();
}

/// A commit by age that carries a stream is under way, and waits for the bucket or for its turn to send.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_that_waits_already_is_overtaken_as_well() {
    for uploads_max in [VfsOptions::default().uploads_max, 1] {
        let dammed = Dammed::new().await;
        let vfs = VfsOptions { uploads_max, commit_age: Duration::from_millis(100), ..VfsOptions::default() };
        let opened = dammed.mount_with(OpenOptions { vfs, ..OpenOptions::default() }).await;
        let vfs = &opened.vfs;
        dammed.shut();
        make(vfs, b"stream", &stream(20 * MIB)).await;
        let is_waiting = || {
            let status = vfs.status();
            status.is_committing && status.queue.sending_bytes >= 7 * MIB as u64
        };
        while !is_waiting() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let small = make(vfs, b"small", b"small").await;
        let syncing = vfs.fsync(small, false);
        tokio::time::timeout(Duration::from_secs(60), syncing)
            .await
            .expect("it waits for a stranger")
            .unwrap();

        let after_a_crash = dammed.mount().await;
        assert_eq!(contents(&after_a_crash.vfs, b"small").await, b"small");
        after_a_crash.close().await.unwrap();
    }
}
