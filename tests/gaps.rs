//! Gaps in the history of a volume: what a check says of them, and who may close them. A store that withholds a commit
//! leaves the same gap as one that has lost it, so that nothing closes one by itself.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod damaged;

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use async_trait::async_trait;
use coffer::base::{FileKind, Ino, OsEntropy, Time};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Factor, KeyError, NewSlot, Role};
use coffer::maint::{self, Outcome, Problem, Severity, Subject};
use coffer::meta::{Key, Record, decode};
use coffer::store::Bucket;
use coffer::volume::{self, OpenOptions, TrustOptions, VolumeError};
use damaged::{CALLER, World, factors, repair_options, told};
use futures::stream::BoxStream;
use object_store::memory::InMemory;
use object_store::path::Path;
use object_store::{
    CopyOptions, GetOptions, GetResult, ListResult, MultipartUpload, ObjectMeta, ObjectStore,
    PutMultipartOptions, PutOptions, PutPayload, PutResult, Result,
};
use tempfile::TempDir;

/// What opens the volume as a user who is no admin.
fn user() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of a user who is no admin".to_vec()))]
}

fn on(machine: &TempDir, accept_rollback: bool) -> OpenOptions {
    let trust = TrustOptions { accept_rollback, ..TrustOptions::default() };
    let state_dir = Some(machine.path().to_owned());
    OpenOptions { state_dir, trust, takeover: true, ..OpenOptions::default() }
}

async fn mounts(world: &World, options: OpenOptions) -> std::result::Result<(), VolumeError> {
    let opened = Box::pin(volume::open(world.bucket(), &factors(), options)).await?;
    opened.close().await.unwrap();
    Ok(())
}

async fn repair(world: &World, options: OpenOptions) -> std::result::Result<Outcome, VolumeError> {
    let mut seized = world.seize_with(&factors(), options).await?;
    let repaired = Box::pin(maint::repair(&mut seized, &repair_options(false), None, &|_| ())).await.unwrap();
    seized.close().await.unwrap();
    Ok(repaired)
}

async fn newest(world: &World) -> u64 {
    match &world.records().await[&Key::Super] {
        Record::Super(superblock) => superblock.commit,
        _ => unreachable!(),
    }
}

/// A volume that a machine knows, and of which one commit's record is gone.
async fn with_a_gap() -> (World, TempDir, u64) {
    let (world, machine) = (World::with_everything().await, tempfile::tempdir().unwrap());
    mounts(&world, on(&machine, false)).await.unwrap();
    let gap = newest(&world).await - 3;
    world.put_record(Key::Commit(gap), None).await;
    (world, machine, gap)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_is_told_for_what_it_means_and_is_closed_by_an_admins_leave_alone() {
    let (world, machine, gap) = with_a_gap().await;
    let golden = world.tree().await.unwrap();
    let finding = |report: &maint::Report| {
        let found = report.findings.iter().find(|found| found.subject == Subject::Commit(gap));
        found.map(|found| (found.problem.clone(), found.problem.severity(), found.sentence()))
    };
    let missing = |is_accepted| Problem::CommitMissing { is_accepted };
    let (problem, severity, sentence) = finding(&world.check(false).await).unwrap();
    assert_eq!((problem, severity), (missing(false), Severity::Structure));
    assert!(sentence.contains("mounts refuse") && sentence.contains("--accept-rollback"), "{sentence}");
    let refused = mounts(&world, on(&machine, false)).await.unwrap_err();
    assert!(matches!(refused, VolumeError::Woven { number, .. } if number > gap), "{refused}");

    // A repair that nobody has told to leaves it as it is, and mounts refuse as before.
    let outcome = repair(&world, on(&machine, false)).await.unwrap();
    assert_eq!(finding(&outcome.left).unwrap().0, missing(false), "{}", told(&outcome.left));
    assert!(!world.records().await.contains_key(&Key::Acceptance));
    assert!(matches!(mounts(&world, on(&machine, false)).await, Err(VolumeError::Woven { .. })));

    let outcome = repair(&world, on(&machine, true)).await.unwrap();
    assert!(outcome.deeds.iter().any(|deed| deed.what.contains("admin")), "{:?}", outcome.deeds);
    let (problem, severity, sentence) = finding(&outcome.left).unwrap();
    assert_eq!((problem, severity), (missing(true), Severity::Harmless));
    assert!(sentence.contains("accepted"), "{sentence}");
    assert_eq!(outcome.left.worst(), Some(Severity::Harmless), "{}", told(&outcome.left));
    assert_eq!(finding(&world.check(false).await).unwrap().0, missing(true));

    // Every machine goes on from there, and nothing else has changed.
    mounts(&world, on(&machine, false)).await.unwrap();
    mounts(&world, on(&tempfile::tempdir().unwrap(), false)).await.unwrap();
    assert!(world.tree().await.unwrap() == golden);
    // There is nothing to accept any more.
    let accepted = world.records().await.remove(&Key::Acceptance);
    assert!(repair(&world, on(&machine, true)).await.unwrap().deeds.is_empty());
    assert!(world.records().await.remove(&Key::Acceptance) == accepted);
}

/// Makes commits, up to number `upto`, folds what is old, and leaves.
async fn commit_upto(world: &World, machine: &TempDir, upto: u64) {
    let opened = Box::pin(volume::open(world.bucket(), &factors(), on(machine, false))).await.unwrap();
    let ino = match opened.vfs.create(&CALLER, Ino::ROOT, b"counter", 0o644, false).await {
        Ok(found) => found.ino,
        Err(error) => panic!("{error}"),
    };
    while opened.vfs.head().0 < upto {
        opened.vfs.write(ino, 0, &opened.vfs.head().0.to_le_bytes(), true).await.unwrap();
        opened.vfs.fsync(ino, false).await.unwrap();
    }
    opened.vfs.reclaim().await.unwrap();
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_after_an_accepted_gap_is_folded_and_what_is_broken_there_is_found() {
    let (world, machine, gap) = with_a_gap().await;
    repair(&world, on(&machine, true)).await.unwrap();
    let records = world.records().await;
    let Record::Acceptance(accepted) = &records[&Key::Acceptance] else { unreachable!() };
    // A machine that stays away meanwhile, and a reader that stays and looks away.
    let absent = tempfile::tempdir().unwrap();
    commit_upto(&world, &machine, 1500).await;
    mounts(&world, on(&absent, false)).await.unwrap();
    let reader = world.mount(true).await;
    commit_upto(&world, &machine, 3200).await;

    let records = world.records().await;
    let has_own = |number| records.contains_key(&Key::Commit(number));
    assert!(records.contains_key(&Key::History(1025)) && !records.contains_key(&Key::History(1)));
    assert!((1..=1024).all(|number| has_own(number) != (number == gap)), "they stay as they are");
    assert!(!(1025..=2048).any(has_own) && (2049..=3200).all(has_own));
    let report = world.check(false).await;
    let left: Vec<_> = report.findings.iter().filter(|found| found.problem != Problem::Garbage).collect();
    assert!(matches!(&left[..], [found] if found.subject == Subject::Commit(gap)), "{}", told(&report));
    assert_eq!(left[0].problem, Problem::CommitMissing { is_accepted: true });

    assert!(reader.vfs.follow().await.unwrap(), "it follows over what was folded");
    reader.close().await.unwrap();
    for machine in [&machine, &absent, &tempfile::tempdir().unwrap()] {
        mounts(&world, on(machine, false)).await.unwrap();
    }
    let Record::History(history) = &records[&Key::History(1025)] else { unreachable!() };
    let mut other = (**history).clone();
    other.before[0] ^= 1;
    let other = Record::History(Arc::new(other));
    for (what, key, record) in [
        ("a commit after what was accepted", Key::Commit(accepted.commit + 1), None),
        ("the last before those that are folded", Key::Commit(1024), None),
        ("those that are folded", Key::History(1025), None),
        ("where they begin", Key::History(1025), Some(&other)),
        ("the first after them", Key::Commit(2049), None),
        ("a later one", Key::Commit(3000), None),
    ] {
        let world = world.fork().await;
        world.put_record(key, record).await;
        for machine in [machine.path(), tempfile::tempdir().unwrap().path()] {
            let options = OpenOptions { state_dir: Some(machine.to_owned()), ..on(&absent, false) };
            let refused = mounts(&world, options).await;
            assert!(matches!(refused, Err(VolumeError::Woven { .. })), "{what}: {refused:?}");
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_gap_that_an_admin_has_accepted_excuses_no_later_one() {
    let (world, machine, _) = with_a_gap().await;
    repair(&world, on(&machine, true)).await.unwrap();
    for _ in 0..3 {
        mounts(&world, on(&machine, false)).await.unwrap();
    }
    let gap = newest(&world).await - 2;
    world.put_record(Key::Commit(gap), None).await;
    let report = world.check(false).await;
    let later = report.findings.iter().find(|found| found.subject == Subject::Commit(gap)).unwrap();
    assert_eq!(later.problem, Problem::CommitMissing { is_accepted: false });
    assert!(matches!(mounts(&world, on(&machine, false)).await, Err(VolumeError::Woven { .. })));
    repair(&world, on(&machine, false)).await.unwrap();
    assert!(matches!(mounts(&world, on(&machine, false)).await, Err(VolumeError::Woven { .. })));
}

/// A machine that finds commits of its own which it does not remember goes on as another one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_remembers_the_commits_of_its_own_repairs() {
    for accept_rollback in [false, true] {
        let (world, machine, _) = with_a_gap().await;
        if !accept_rollback {
            // Something to do in several commits, and no gap.
            mounts(&world, on(&machine, true)).await.unwrap();
            for (key, record) in world.records().await {
                if matches!(&record, Record::Entry(entry) if entry.kind == FileKind::Directory) {
                    world.put_record(key, None).await;
                }
            }
        }
        let made = async || -> BTreeMap<Key, u64> {
            let machines = world.records().await.into_iter().filter_map(|(key, record)| match record {
                Record::Machine(machine) => Some((key, machine.counter)),
                _ => None,
            });
            machines.collect()
        };
        let before = made().await;
        assert_eq!(before.len(), 1);
        assert!(!repair(&world, on(&machine, accept_rollback)).await.unwrap().deeds.is_empty());
        let after: u64 = made().await.values().sum();
        assert!(after > before.values().sum::<u64>() + u64::from(!accept_rollback), "{after} commits");
        mounts(&world, on(&machine, false)).await.unwrap();
        assert_eq!(made().await.len(), 1, "it is still one machine");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_admin_closes_no_gap_and_has_changed_nothing_when_he_learns_it() {
    let (world, machine, _) = with_a_gap().await;
    let mut opened = volume::rekey(world.bucket(), &factors(), &OpenOptions::default()).await.unwrap();
    let (user, kdf_cost) = (user(), KdfCost::Fixed { log_n: 15 });
    let new = NewSlot { label: "user", role: Role::Data, factors: &user, kdf_cost };
    let bytes = opened.unlocked.add_slot(&new, &OsEntropy, Time { secs: 1_700_000_000, nanos: 0 }).unwrap();
    opened.store(bytes).await.unwrap();
    let before = world.objects().await;
    let refused = world.seize_with(&user, on(&machine, true)).await.err();
    assert!(matches!(refused, Some(VolumeError::Key(KeyError::NotAdmin))), "{refused:?}");
    assert_eq!(world.objects().await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_is_no_way_round_what_a_machine_has_seen() {
    let (world, machine) = (World::with_everything().await, tempfile::tempdir().unwrap());
    mounts(&world, on(&machine, false)).await.unwrap();
    let old = world.fork().await;
    let opened = world.mount(false).await;
    opened.vfs.create(&CALLER, Ino::ROOT, b"newer", 0o644, true).await.unwrap();
    opened.close().await.unwrap();
    mounts(&world, on(&machine, false)).await.unwrap();
    let seen = newest(&world).await;
    // The old state; the same without its superblock; and without any commit, as if everything had been lost.
    let bare = old.fork().await;
    bare.put_record(Key::Super, None).await;
    let empty = old.fork().await;
    let rows = empty.records().await.into_keys().map(|key| (key.encode(), None));
    empty.write_raw(rows.collect()).await;
    for (what, world) in [("old", &old), ("without a superblock", &bare), ("empty", &empty)] {
        let refused = world.seize_with(&factors(), on(&machine, false)).await.err();
        let is_rollback = matches!(refused, Some(VolumeError::Rollback { expected, .. }) if expected == seen);
        assert!(is_rollback, "{what}: {refused:?}");
    }
    mounts(&world, on(&machine, false)).await.unwrap();

    // An admin may accept it, by a signature that the volume keeps, and no mount asks again.
    let outcome = repair(&bare, on(&machine, true)).await.unwrap();
    assert!(outcome.deeds.iter().any(|deed| deed.what.contains("admin")), "{:?}", outcome.deeds);
    assert!(bare.records().await.contains_key(&Key::Acceptance));
    mounts(&bare, on(&machine, false)).await.unwrap();
}

/// A store that shows an old state from its `listings`-th listing on.
#[derive(Debug)]
struct Turncoat {
    new: Arc<InMemory>,
    old: Arc<InMemory>,
    listings: AtomicUsize,
}

impl Turncoat {
    fn store(&self) -> &dyn ObjectStore {
        let is_new = self.listings.load(Ordering::SeqCst) > 0;
        if is_new { self.new.as_ref() } else { self.old.as_ref() }
    }

    fn count(&self) {
        let less = |left: usize| Some(left.saturating_sub(1));
        let _ = self.listings.fetch_update(Ordering::SeqCst, Ordering::SeqCst, less);
    }
}

impl fmt::Display for Turncoat {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("turncoat")
    }
}

#[async_trait]
impl ObjectStore for Turncoat {
    async fn put_opts(&self, path: &Path, payload: PutPayload, options: PutOptions) -> Result<PutResult> {
        self.store().put_opts(path, payload, options).await
    }

    async fn put_multipart_opts(
        &self,
        path: &Path,
        options: PutMultipartOptions,
    ) -> Result<Box<dyn MultipartUpload>> {
        self.store().put_multipart_opts(path, options).await
    }

    async fn get_opts(&self, path: &Path, options: GetOptions) -> Result<GetResult> {
        self.store().get_opts(path, options).await
    }

    fn delete_stream(&self, paths: BoxStream<'static, Result<Path>>) -> BoxStream<'static, Result<Path>> {
        self.store().delete_stream(paths)
    }

    fn list(&self, prefix: Option<&Path>) -> BoxStream<'static, Result<ObjectMeta>> {
        self.count();
        self.store().list(prefix)
    }

    async fn list_with_delimiter(&self, prefix: Option<&Path>) -> Result<ListResult> {
        self.count();
        self.store().list_with_delimiter(prefix).await
    }

    async fn copy_opts(&self, from: &Path, to: &Path, options: CopyOptions) -> Result<()> {
        self.store().copy_opts(from, to, options).await
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_repair_works_on_no_older_state_than_it_was_shown_at_first() {
    let new = World::with_everything().await;
    let old = new.fork().await;
    let opened = new.mount(false).await;
    opened.vfs.create(&CALLER, Ino::ROOT, b"newer", 0o644, true).await.unwrap();
    opened.close().await.unwrap();
    let seen = newest(&new).await;
    let (mut taken, mut refused) = (0, 0);
    for listings in 1..12 {
        let (new, old) = (new.fork().await, old.fork().await);
        let machine = tempfile::tempdir().unwrap();
        mounts(&new, on(&machine, false)).await.unwrap();
        let store = Arc::new(Turncoat { new: new.0, old: old.0, listings: AtomicUsize::new(listings) });
        let factors = factors();
        let seizing = volume::seize(Bucket::from_store(store), &factors, on(&machine, false));
        match Box::pin(seizing).await {
            Err(_) => refused += 1,
            Ok(seized) => {
                taken += 1;
                let bytes = seized.engine.get(&Key::Super.encode()).await.unwrap().unwrap();
                let Record::Super(superblock) = decode(&Key::Super, &bytes).unwrap() else { unreachable!() };
                assert!(superblock.commit >= seen, "{} after {listings} listings", superblock.commit);
            }
        }
    }
    assert!(taken > 0 && refused > 0, "{taken} taken, {refused} refused");
}
