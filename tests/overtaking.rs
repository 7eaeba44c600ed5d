//! An `fsync` does not wait for strangers: what a commit leaves behind for it, and what it does not. Nor does a commit wait
//! for what has been removed, where the bucket is full.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::sync::Arc;
use std::time::Duration;

use coffer::base::{Ino, ManualClock, OsEntropy, SystemClock};
use coffer::store::fault::{Fault, FaultPlan, FaultStore, KeyClass, Rule, Verb};
use coffer::vfs::{Handle, RenameMode, SetAttr, Vfs, VfsOptions, XattrMode};
use coffer::volume::{self, OpenOptions, Opened};
use futures::TryStreamExt;
use object_store::memory::InMemory;

use in_memory::{CALLER, World, factors, spec};

const MIB: usize = 1 << 20;
/// Blocks are 64 KiB, and a file is cut between two of them.
const BLOCK: usize = 64 << 10;

/// A volume in a bucket that can be told to take no segments any more.
struct Dammed {
    faults: FaultStore,
    world: World,
}

impl Dammed {
    async fn new() -> Self {
        let clock = Arc::new(SystemClock::default());
        let faults = FaultStore::new(Arc::new(InMemory::new()), FaultPlan::default(), clock.clone());
        let world = World(Arc::new(faults.clone()));
        volume::create(&world.bucket(), &spec(), &factors(), Arc::new(OsEntropy), clock).await.unwrap();
        Self { faults, world }
    }

    /// From now on no segment can be put.
    fn shut(&self) {
        self.shut_by(Fault::Reset);
    }

    fn shut_by(&self, fault: Fault) {
        let rule = Rule { verb: Some(Verb::Put), class: Some(KeyClass::Segment), ..Rule::new(fault, 1.0) };
        self.faults.set_plan(FaultPlan { rules: vec![rule], ..FaultPlan::default() });
    }

    fn open_gates(&self) {
        self.faults.set_plan(FaultPlan::default());
    }

    async fn mount(&self) -> Opened {
        self.mount_with(OpenOptions::default()).await
    }

    async fn mount_with(&self, options: OpenOptions) -> Opened {
        self.world.open(OpenOptions { takeover: true, ..options }).await.0
    }
}

async fn make(vfs: &Vfs, name: &[u8], data: &[u8]) -> Ino {
    let ino = vfs.create(&CALLER, Ino::ROOT, name, 0o644, true).await.unwrap().ino;
    for (number, part) in data.chunks(MIB).enumerate() {
        vfs.write(ino, (number * MIB) as u64, part, true).await.unwrap();
    }
    ino
}

async fn contents(vfs: &Vfs, name: &[u8]) -> Vec<u8> {
    let attr = vfs.lookup(Ino::ROOT, name).await.unwrap();
    vfs.read(Handle(0), attr.ino, 0, attr.size as usize + 1).await.unwrap()
}

fn stream(len: usize) -> Vec<u8> {
    (0..len).map(|at| (at / 4096) as u8 ^ at as u8).collect()
}

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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_does_not_fit_can_be_removed_although_no_more_may_be_written() {
    let dammed = Dammed::new().await;
    let vfs = VfsOptions { dirty_bytes_max: MIB, ..VfsOptions::default() };
    let opened = dammed.mount_with(OpenOptions { vfs, ..OpenOptions::default() }).await;
    let vfs = &opened.vfs;
    dammed.shut_by(Fault::Full);
    let large = make(vfs, b"large", &stream(MIB / 2)).await;
    let saving = vfs.sync_all();
    tokio::pin!(saving);
    assert!(futures::poll!(&mut saving).is_pending());
    // The tables of a small file take more than its contents, so that the limit is passed in the end.
    for number in 0.. {
        let name = format!("{number}").into_bytes();
        let making = make(vfs, &name, b"x");
        if tokio::time::timeout(Duration::from_secs(2), making).await.is_err() {
            assert!(number > 100, "{number} files");
            break;
        }
    }
    let removing = vfs.unlink(Ino::ROOT, b"large");
    tokio::time::timeout(Duration::from_secs(60), removing).await.expect("it waits").unwrap();
    vfs.forget(large, 1);
    tokio::time::timeout(Duration::from_secs(60), saving).await.expect("it waits").unwrap();
    vfs.sync_all().await.unwrap();
}
