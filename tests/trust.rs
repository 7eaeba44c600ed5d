//! What a machine has seen, without a mount: rollbacks that an admin accepts, machines that were copied, histories that
//! grow old, and looking without remembering.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod in_memory;

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use coffer::base::{Ino, ManualClock, OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Factor, KeyError, NewSlot, Role};
use coffer::maint::{self, CheckOptions, RepairOptions, Report};
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::meta::{Acceptance, Key, Record, decode, encode};
use coffer::vault::{Vault, header};
use coffer::vfs::{Vfs, VfsError, VfsOptions};
use coffer::volume::{self, OpenOptions, Opened, TrustOptions, VolumeError};
use futures::TryStreamExt;
use object_store::{ObjectStore, ObjectStoreExt, PutPayload, path};
use tempfile::TempDir;

use in_memory::{CALLER, World, factors};

/// What opens the volume as a user who is no admin.
fn reader() -> Vec<Factor> {
    vec![Factor::KeyFile(Secret::new(b"the key file of a user who is no admin".to_vec()))]
}

/// A machine: its state folder.
struct Machine(TempDir);

impl Machine {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    /// A machine whose disk is a copy of this one's.
    fn copied(&self) -> Self {
        let copy = Self::new();
        copy_all(self.0.path(), copy.0.path());
        copy
    }

    fn options(&self) -> OpenOptions {
        OpenOptions { state_dir: Some(self.0.path().to_owned()), ..OpenOptions::default() }
    }

    fn reading(&self) -> OpenOptions {
        OpenOptions { vfs: VfsOptions { read_only: true, ..VfsOptions::default() }, ..self.options() }
    }

    fn accepting(&self) -> OpenOptions {
        let trust = TrustOptions { accept_rollback: true, ..TrustOptions::default() };
        OpenOptions { trust, ..self.options() }
    }

    /// Every file with its bytes.
    fn files(&self) -> BTreeMap<PathBuf, Vec<u8>> {
        let mut found = BTreeMap::new();
        let mut folders = vec![self.0.path().to_owned()];
        while let Some(folder) = folders.pop() {
            for entry in fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                match path.is_dir() {
                    true => folders.push(path),
                    false => drop(found.insert(path.clone(), fs::read(path).unwrap())),
                }
            }
        }
        found
    }
}

fn copy_all(from: &Path, to: &Path) {
    for entry in fs::read_dir(from).unwrap() {
        let path = entry.unwrap().path();
        let target = to.join(path.file_name().unwrap());
        match path.is_dir() {
            true => {
                fs::create_dir_all(&target).unwrap();
                copy_all(&path, &target);
            }
            false => drop(fs::copy(path, target).unwrap()),
        }
    }
}

type Snapshot = Vec<(path::Path, Bytes)>;

async fn snapshot(world: &World) -> Snapshot {
    let objects: Vec<_> = world.0.list(None).try_collect().await.unwrap();
    let mut found = Vec::new();
    for object in objects {
        let bytes = world.0.get(&object.location).await.unwrap().bytes().await.unwrap();
        found.push((object.location, bytes));
    }
    found
}

async fn put_back(world: &World, snapshot: &Snapshot) {
    for object in world.0.list(None).try_collect::<Vec<_>>().await.unwrap() {
        world.0.delete(&object.location).await.unwrap();
    }
    for (path, bytes) in snapshot {
        world.0.put(path, PutPayload::from_bytes(bytes.clone())).await.unwrap();
    }
}

async fn try_open(world: &World, options: OpenOptions) -> Result<Opened, VolumeError> {
    volume::open(world.bucket(), &factors(), options).await
}

async fn open(world: &World, options: OpenOptions) -> Opened {
    try_open(world, options).await.unwrap()
}

async fn refusal(world: &World, options: OpenOptions) -> VolumeError {
    match try_open(world, options).await {
        Ok(_) => panic!("it was opened"),
        Err(error) => error,
    }
}

/// Makes a directory and closes again; gives the number of the last commit.
async fn commit(world: &World, options: OpenOptions, name: &str) -> u64 {
    let opened = open(world, options).await;
    opened.vfs.mkdir(&CALLER, Ino::ROOT, name.as_bytes(), 0o755).await.unwrap();
    opened.vfs.sync_all().await.unwrap();
    let vfs = Arc::clone(&opened.vfs);
    opened.close().await.unwrap();
    vfs.head().0
}

async fn has(vfs: &Vfs, name: &str) -> bool {
    match vfs.lookup(Ino::ROOT, name.as_bytes()).await {
        Ok(_) => true,
        Err(VfsError::NoEntry) => false,
        Err(error) => panic!("{error}"),
    }
}

/// Adds the key of [`reader`].
async fn add_reader(world: &World) {
    let mut opened = volume::rekey(world.bucket(), &factors(), &OpenOptions::default()).await.unwrap();
    let factors = reader();
    let kdf_cost = KdfCost::Fixed { log_n: 15 };
    let new = NewSlot { label: "reader", role: Role::Data, factors: &factors, kdf_cost };
    let now = coffer::base::Clock::now(&SystemClock::default());
    let bytes = opened.unlocked.add_slot(&new, &OsEntropy, now).unwrap();
    opened.store(bytes).await.unwrap();
}

/// The records, opened by whoever has the volume key.
async fn records(world: &World, factors: &[Factor], mode: EngineMode) -> Engine {
    let unlocked = volume::unlock(&world.bucket(), factors).await.unwrap();
    let vault = Vault::new(world.bucket(), Arc::new(unlocked.ring), Arc::new(OsEntropy));
    let (options, clock) = (EngineOptions::default(), Arc::new(SystemClock::default()));
    Box::pin(Engine::open(vault.meta_store(1 << 20), mode, options, clock)).await.unwrap()
}

async fn acceptance(world: &World) -> Option<Acceptance> {
    let engine = Box::pin(records(world, &factors(), EngineMode::Reader)).await;
    let bytes = engine.get(&Key::Acceptance.encode()).await.unwrap();
    engine.close().await.unwrap();
    match decode(&Key::Acceptance, &bytes?).unwrap() {
        Record::Acceptance(acceptance) => Some((*acceptance).clone()),
        _ => None,
    }
}

/// A volume that two machines know, as it was before and after three more commits that both have seen.
struct Rolled {
    world: World,
    admin: Machine,
    other: Machine,
    new: Snapshot,
    newest: u64,
}

async fn rolled_back() -> Rolled {
    let (world, admin, other) = (World::new().await, Machine::new(), Machine::new());
    add_reader(&world).await;
    commit(&world, admin.options(), "old").await;
    let old = snapshot(&world).await;
    let newest = commit(&world, admin.options(), "new").await;
    open(&world, other.reading()).await.close().await.unwrap();
    let new = snapshot(&world).await;
    put_back(&world, &old).await;
    Rolled { world, admin, other, new, newest }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_admin_accepts_a_rollback_and_every_machine_goes_on_from_there() {
    let Rolled { world, admin, other, new, newest } = rolled_back().await;
    let refused = refusal(&world, admin.options()).await;
    assert!(matches!(refused, VolumeError::Rollback { expected, .. } if expected == newest), "{refused}");
    let refused = refusal(&world, other.reading()).await;
    assert!(matches!(refused, VolumeError::Rollback { .. }), "{refused}");

    let accepted = open(&world, admin.accepting()).await;
    assert!(has(&accepted.vfs, "old").await && !has(&accepted.vfs, "new").await);
    accepted.vfs.mkdir(&CALLER, Ino::ROOT, b"after", 0o755).await.unwrap();
    accepted.close().await.unwrap();
    let signed = acceptance(&world).await.unwrap();
    assert_eq!((signed.ordinal, signed.abandoned_commit), (1, newest));

    // The machine itself has a new pin; the other one believes the admin's signature.
    for options in [admin.options(), other.reading(), other.options()] {
        let opened = open(&world, options).await;
        assert!(has(&opened.vfs, "after").await && !has(&opened.vfs, "new").await);
        opened.close().await.unwrap();
    }
    // What was given up is now the foreign history.
    put_back(&world, &new).await;
    for machine in [&admin, &other] {
        let refused = refusal(&world, machine.reading()).await;
        assert!(matches!(refused, VolumeError::Rollback { .. } | VolumeError::Fork { .. }), "{refused}");
    }
}

/// What a check finds that a machine makes.
async fn checked(world: &World, options: OpenOptions) -> Result<Report, VolumeError> {
    let examined = Box::pin(volume::examine(world.bucket(), &factors(), options)).await?;
    let report = Box::pin(maint::check(&examined, &CheckOptions::default(), &|_| ())).await.unwrap();
    examined.close().await;
    Ok(report)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_check_and_a_repair_go_on_from_a_rollback_that_was_accepted_elsewhere() {
    let Rolled { world, admin, other, newest, .. } = rolled_back().await;
    assert!(checked(&world, other.options()).await.unwrap().is_rollback());
    let accepted = open(&world, admin.accepting()).await;
    let crashed = snapshot(&world).await;
    accepted.close().await.unwrap();
    put_back(&world, &crashed).await;
    let before = other.files();
    let report = checked(&world, other.options()).await.unwrap();
    assert!(report.is_clean() && !report.is_rollback(), "{:?}", report.findings);
    assert_eq!(other.files(), before, "who only looks notes nothing");

    // It lets go of what the machine that crashed holds, which is a commit.
    let options = OpenOptions { takeover: true, ..other.options() };
    let mut seized = Box::pin(volume::seize(world.bucket(), &factors(), options)).await.unwrap();
    let (findings_max, clock) = (CheckOptions::default().findings_max, Arc::new(SystemClock::default()));
    let how = RepairOptions { salvage: false, accepts: false, findings_max, clock };
    let left = Box::pin(maint::repair(&mut seized, &how, None, &|_| ())).await.unwrap().left;
    seized.close().await.unwrap();
    assert!(left.is_clean() && left.commit < Some(newest), "{:?}", left.commit);
    for options in [other.reading(), other.options()] {
        open(&world, options).await.close().await.unwrap();
    }
    assert!(checked(&world, other.options()).await.unwrap().is_clean());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_rollback_excuses_no_second_one() {
    let Rolled { world, admin, other, newest, .. } = rolled_back().await;
    commit(&world, admin.accepting(), "after").await;
    let middle = snapshot(&world).await;
    // Beyond what was given up, and once not beyond it: a machine that has taken note of it is not fooled with it.
    open(&world, other.reading()).await.close().await.unwrap();
    let last = commit(&world, admin.options(), "last").await;
    assert!(last > newest, "{last} {newest}");
    open(&world, other.reading()).await.close().await.unwrap();
    put_back(&world, &middle).await;
    for machine in [&admin, &other] {
        let refused = refusal(&world, machine.reading()).await;
        assert!(matches!(refused, VolumeError::Rollback { expected, .. } if expected == last), "{refused}");
    }
    // A machine that has seen more than the admin gave up is not excused either.
    let third = Machine::new();
    let Rolled { world, admin, new, newest, .. } = rolled_back().await;
    let old = snapshot(&world).await;
    put_back(&world, &new).await;
    commit(&world, third.options(), "seen by the third only").await;
    put_back(&world, &old).await;
    commit(&world, admin.accepting(), "after").await;
    let refused = refusal(&world, third.reading()).await;
    assert!(matches!(refused, VolumeError::Rollback { expected, .. } if expected > newest), "{refused}");
}

/// The admin key that has signed it counts no more after a rotation; who rotates signs it anew.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_accepted_rollback_is_believed_after_the_key_was_rotated() {
    let Rolled { world, admin, other, .. } = rolled_back().await;
    commit(&world, admin.accepting(), "after").await;
    let before = acceptance(&world).await.unwrap();
    let (options, factors) = (admin.options(), factors());
    let rekeying = volume::rekey(world.bucket(), &factors, &options).await.unwrap();
    let (kept, cost) = ([(0, &factors[..])], KdfCost::Fixed { log_n: 15 });
    Box::pin(volume::begin_epoch(rekeying, &factors, &kept, cost, &options)).await.unwrap();
    assert_eq!(acceptance(&world).await.unwrap(), before);
    let copy = other.copied();
    open(&world, copy.reading()).await.close().await.unwrap();
    Box::pin(volume::end_rotation(&world.bucket(), &factors, &options, &|_| ())).await.unwrap();
    let after = acceptance(&world).await.unwrap();
    assert_ne!(after.signature, before.signature);
    assert_eq!(Acceptance { signature: before.signature, ..after }, before);
    let opened = open(&world, other.reading()).await;
    assert!(has(&opened.vfs, "after").await && !has(&opened.vfs, "new").await);
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn who_is_no_admin_can_neither_accept_a_rollback_nor_make_others_believe_one() {
    let Rolled { world, admin, other, .. } = rolled_back().await;
    let refused = volume::open(world.bucket(), &reader(), admin.accepting()).await.err();
    assert!(matches!(refused, Some(VolumeError::Key(KeyError::NotAdmin))), "{refused:?}");
    assert!(acceptance(&world).await.is_none());

    // He knows the volume key, and writes what he likes; all but the signature is as it should be.
    commit(&world, admin.accepting(), "after").await;
    let signed = acceptance(&world).await.unwrap();
    for forged in [
        Acceptance { signature: [7; 64], ..signed.clone() },
        Acceptance { abandoned_commit: u64::MAX, ..signed.clone() },
        Acceptance { ordinal: 99, ..signed.clone() },
    ] {
        let engine = records(&world, &reader(), EngineMode::Writer).await;
        let bytes = encode(&Record::Acceptance(Arc::new(forged))).unwrap();
        engine.write_durable(vec![(Key::Acceptance.encode(), Some(bytes))]).await.unwrap();
        engine.close().await.unwrap();
        let refused = refusal(&world, other.reading()).await;
        assert!(matches!(refused, VolumeError::Rollback { .. } | VolumeError::Fork { .. }), "{refused}");
    }
    let engine = records(&world, &reader(), EngineMode::Writer).await;
    let bytes = encode(&Record::Acceptance(Arc::new(signed))).unwrap();
    engine.write_durable(vec![(Key::Acceptance.encode(), Some(bytes))]).await.unwrap();
    engine.close().await.unwrap();
    open(&world, other.reading()).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_older_header_is_accepted_with_the_state_that_it_came_with() {
    let (world, admin, other) = (World::new().await, Machine::new(), Machine::new());
    commit(&world, admin.options(), "old").await;
    let old = snapshot(&world).await;
    add_reader(&world).await;
    commit(&world, admin.options(), "new").await;
    open(&world, other.reading()).await.close().await.unwrap();
    put_back(&world, &old).await;
    let refused = refusal(&world, admin.options()).await;
    assert!(matches!(refused, VolumeError::HeaderRolledBack { expected: 2, found: 1, .. }), "{refused}");
    let refused = checked(&world, other.options()).await.map(drop);
    assert!(matches!(refused, Err(VolumeError::HeaderRolledBack { .. })), "{refused:?}");
    commit(&world, admin.accepting(), "after").await;
    open(&world, admin.options()).await.close().await.unwrap();
    assert!(checked(&world, other.options()).await.unwrap().is_clean());
    // The next header takes the number that was given up.
    add_reader(&world).await;
    assert_eq!(header::list(&world.bucket()).await.unwrap(), [1, 2]);
    open(&world, admin.options()).await.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn looking_at_what_is_offered_changes_neither_the_bucket_nor_what_is_remembered() {
    let Rolled { world, admin, new, .. } = rolled_back().await;
    let (files, objects) = (admin.files(), snapshot(&world).await);
    let mut options = admin.reading();
    options.trust.forensic = true;
    let looking = open(&world, options).await;
    assert!(has(&looking.vfs, "old").await && !has(&looking.vfs, "new").await);
    looking.close().await.unwrap();
    assert_eq!(admin.files(), files);
    assert_eq!(snapshot(&world).await, objects);
    let refused = refusal(&world, admin.options()).await;
    assert!(matches!(refused, VolumeError::Rollback { .. }), "{refused}");
    put_back(&world, &new).await;
    open(&world, admin.options()).await.close().await.unwrap();
}

/// The id under which a machine writes.
async fn writes_as(world: &World, machine: &Machine, name: &str) -> [u8; 16] {
    let number = commit(world, machine.options(), name).await;
    let engine = records(world, &factors(), EngineMode::Reader).await;
    let key = Key::Commit(number);
    let bytes = engine.get(&key.encode()).await.unwrap().unwrap();
    engine.close().await.unwrap();
    match decode(&key, &bytes).unwrap() {
        Record::Commit(commit) => commit.device,
        other => panic!("{other:?}"),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_restored_machine_and_a_copied_one_go_on_as_other_machines() {
    let (world, machine) = (World::new().await, Machine::new());
    let first = writes_as(&world, &machine, "a").await;
    let backup = machine.copied();
    assert_eq!(writes_as(&world, &machine, "b").await, first, "it keeps its id");
    let copied = writes_as(&world, &backup, "c").await;
    assert_ne!(copied, first, "a copy of its disk is another machine");
    assert_eq!(writes_as(&world, &backup, "d").await, copied);
    assert_eq!(writes_as(&world, &machine, "e").await, first, "the original goes on");
    assert_eq!(writes_as(&world, &backup, "f").await, copied);
    // A reader learns of commits, and is not taken for a copy by that.
    open(&world, machine.reading()).await.close().await.unwrap();
    assert_eq!(writes_as(&world, &machine, "g").await, first);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn d7_a_copy_does_not_take_a_volume_over_from_the_machine_it_was_copied_from() {
    let (world, machine) = (World::new().await, Machine::new());
    commit(&world, machine.options(), "a").await;
    let copy = machine.copied();
    let held = open(&world, machine.options()).await;
    // Same host, same id, and its own lock is free; it looks like a mount that crashed here.
    let refused = refusal(&world, copy.options()).await;
    assert!(matches!(refused, VolumeError::InUse { .. }), "{refused}");
    let busy = machine.copied();
    for name in [&b"b"[..], b"c"] {
        held.vfs.mkdir(&CALLER, Ino::ROOT, name, 0o755).await.unwrap();
        held.vfs.sync_all().await.unwrap();
    }
    let refused = refusal(&world, busy.options()).await;
    assert!(matches!(refused, VolumeError::InUse { .. }), "{refused}");
    held.close().await.unwrap();
    let opened = open(&world, copy.options()).await;
    assert!(has(&opened.vfs, "c").await);
    opened.close().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_machine_that_crashed_between_commit_and_note_is_still_itself() {
    let (world, machine) = (World::new().await, Machine::new());
    let first = writes_as(&world, &machine, "a").await;
    let crashing = open(&world, machine.options()).await;
    crashing.vfs.mkdir(&CALLER, Ino::ROOT, b"b", 0o755).await.unwrap();
    let before = machine.copied();
    crashing.vfs.sync_all().await.unwrap();
    let after = snapshot(&world).await;
    crashing.close().await.unwrap();
    put_back(&world, &after).await;
    // The note lacks the last commit, and the volume is still held by the process that died.
    assert_eq!(writes_as(&world, &before, "c").await, first);
}

#[tokio::test]
async fn d3_a_reader_says_when_nothing_new_comes_any_more() {
    let world = World::new().await;
    let clock = Arc::new(ManualClock::new(1_700_000_000_000_000_000));
    let writing = OpenOptions { clock: Arc::clone(&clock) as _, ..OpenOptions::default() };
    commit(&world, writing.clone(), "a").await;
    let withheld = snapshot(&world).await;
    let max_staleness = Some(Duration::from_secs(3600));
    let trust = TrustOptions { max_staleness, ..TrustOptions::default() };
    let vfs = VfsOptions { read_only: true, max_staleness, ..VfsOptions::default() };
    let reading = OpenOptions { clock: Arc::clone(&clock) as _, trust, vfs, ..OpenOptions::default() };
    let reader = open(&world, reading.clone()).await;
    reader.vfs.look_at_age().await.unwrap();
    assert!(!reader.vfs.status().is_stale);
    clock.advance(Duration::from_secs(3599));
    commit(&world, writing.clone(), "b").await;
    let new = snapshot(&world).await;
    put_back(&world, &withheld).await;
    clock.advance(Duration::from_secs(2));
    reader.vfs.look_at_age().await.unwrap();
    assert!(reader.vfs.status().is_stale, "{:?}", reader.vfs.status().newest_age);
    let refused = refusal(&world, reading.clone()).await;
    let VolumeError::Stale { age_secs: 3601, allowed_secs: 3600, .. } = refused else { panic!("{refused}") };
    put_back(&world, &new).await;
    reader.vfs.look_at_age().await.unwrap();
    assert!(!reader.vfs.status().is_stale);
    open(&world, reading).await.close().await.unwrap();
    reader.close().await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn an_idle_writer_commits_as_often_as_its_heartbeat_says_and_not_without() {
    for heartbeat in [None, Some(Duration::from_secs(600))] {
        let world = World::new().await;
        let vfs = VfsOptions { heartbeat, ..VfsOptions::default() };
        let opened = open(&world, OpenOptions { vfs, ..OpenOptions::default() }).await;
        let before = opened.vfs.head().0;
        tokio::time::sleep(Duration::from_secs(3660)).await;
        let commits = opened.vfs.head().0 - before;
        assert_eq!(commits, if heartbeat.is_some() { 6 } else { 0 });
        assert!(opened.vfs.status().is_safe);
        opened.close().await.unwrap();
    }
}
