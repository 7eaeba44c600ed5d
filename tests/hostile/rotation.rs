//! A store that works together with somebody who has had a key, against a volume whose key was rotated.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use coffer::base::{OsEntropy, SegmentId, Time};
use coffer::crypto::{KdfCost, KeyRing, Secret};
use coffer::keys::{self, Factor, NewSlot, Role, Unlocked};
use coffer::meta::engine::{Engine, EngineMode, EngineOptions};
use coffer::meta::{Key, Record, Segment, decode};
use coffer::vault::{Vault, VaultError, peek};
use coffer::vfs::Vfs;
use coffer::volume::{self, OpenOptions, Rotated, VolumeError};
use object_store::{ObjectStoreExt, PutPayload, path};

use crate::store::{Hostile, Objects};
use crate::world::{
    BLOCK, START_SECS, Seen, World, agrees, bucket, factors, options, read, runtime, second, tree,
};

/// Begins a new epoch; the key of [`factors`] stays, and that of [`second`] if it is there.
pub async fn begin(store: &Arc<Hostile>, options: &OpenOptions) -> Result<(), VolumeError> {
    let rekeying = volume::rekey(bucket(store), &factors(), options).await?;
    let (own, other) = (factors(), second());
    let mut kept = vec![(0, &own[..])];
    if rekeying.unlocked.header.slot(2).is_some() {
        kept.push((2, &other[..]));
    }
    Box::pin(volume::begin_epoch(rekeying, &own, &kept, KdfCost::Fixed { log_n: 15 }, options)).await
}

/// Goes on until the rotation has ended.
pub async fn end(store: &Arc<Hostile>, options: &OpenOptions) -> Result<Rotated, VolumeError> {
    Box::pin(volume::end_rotation(&bucket(store), &factors(), options, &|_| ())).await
}

pub async fn rotate(store: &Arc<Hostile>, state: Option<&Path>, seed: u64) -> Rotated {
    let options = options(state.map(Path::to_owned), seed);
    begin(store, &options).await.unwrap();
    end(store, &options).await.unwrap()
}

pub fn unlock(store: &Arc<Hostile>) -> Unlocked {
    let objects = store.objects();
    let newest =
        objects.keys().filter_map(|name| name.strip_prefix("header/")?.parse::<u64>().ok()).max().unwrap();
    keys::unlock(&objects[&format!("header/{newest}")], &factors()).unwrap()
}

pub fn vault(store: &Arc<Hostile>, ring: KeyRing) -> Vault {
    Vault::new(bucket(store), Arc::new(ring), Arc::new(OsEntropy))
}

pub async fn engine(vault: &Vault, mode: EngineMode) -> Engine {
    let clock = options(None, 5).clock;
    let store = vault.meta_store(1 << 20);
    Box::pin(Engine::open(store, mode, EngineOptions::default(), clock)).await.unwrap()
}

/// Everything that is in use: objects of the records, and segments with their records.
pub struct Live {
    pub objects: Vec<String>,
    pub segments: BTreeMap<SegmentId, Segment>,
}

pub async fn live(store: &Arc<Hostile>) -> (Vault, Live) {
    let vault = vault(store, unlock(store).ring);
    let engine = engine(&vault, EngineMode::Reader).await;
    let objects = engine.live_objects().await.unwrap();
    let mut segments = BTreeMap::new();
    for (key, value) in engine.scan(b"S".to_vec(), b"T".to_vec(), 10_000).await.unwrap() {
        let key = Key::decode(&key).unwrap();
        if let (Key::Segment(id), Record::Segment(segment)) = (key, decode(&key, &value).unwrap()) {
            segments.insert(id, segment);
        }
    }
    engine.close().await.unwrap();
    (vault, Live { objects, segments })
}

pub fn copy_of(machine: &Path) -> tempfile::TempDir {
    let copy = tempfile::tempdir().unwrap();
    let status = std::process::Command::new("cp").arg("-a").arg(machine.join(".")).arg(copy.path()).status();
    assert!(status.unwrap().success());
    copy
}

/// Everything reads as it did before.
pub async fn is_whole(world: &World, store: &Arc<Hostile>, state: Option<&Path>) {
    let seen = read(store, state.map(Path::to_owned)).await.unwrap();
    agrees(&seen, world.newest()).unwrap();
    assert!(seen.values().all(Seen::is_whole) && seen.len() == world.newest().len());
}

#[test]
fn a9_after_a_rotation_the_old_key_opens_nothing_that_is_in_use() {
    let world = World::new();
    let (store, machine) = (world.store(), copy_of(world.machine.path()));
    let old = unlock(&store);
    runtime().block_on(async {
        let (_, before) = live(&store).await;
        let rotated = rotate(&store, Some(machine.path()), 1).await;
        assert_eq!(rotated.renewed.segments.count, before.segments.len() as u64);
        let (new_vault, live) = live(&store).await;
        let old_vault = vault(&store, old.ring);
        println!(
            "{} objects of the records and {} segments are in use",
            live.objects.len(),
            live.segments.len()
        );
        assert!(live.objects.len() >= 3 && !live.segments.is_empty());
        for object in &live.objects {
            assert_eq!(peek::engine_epoch(&new_vault, object).await.unwrap(), 2, "{object}");
            let refused = peek::engine_object(&old_vault, object).await;
            assert!(
                matches!(refused, Err(VaultError::NewKey { found: 2, newest: 1, .. })),
                "{object}: {refused:?}"
            );
        }
        for (id, segment) in &live.segments {
            assert!(new_vault.segment_key(*id, &segment.seal).is_ok() && segment.seal.epoch == 2);
            assert!(old_vault.segment_key(*id, &segment.seal).is_err());
            assert!(!before.segments.contains_key(id), "{id} is one of before");
        }
        is_whole(&world, &store, Some(machine.path())).await;
        is_whole(&world, &store, None).await;
        // A second key that stayed opens the volume, and reads the same.
        let other = second();
        let opened =
            volume::open(bucket(&store), &other, OpenOptions { vfs: read_only(), ..options(None, 3) });
        let opened = Box::pin(opened).await.unwrap();
        agrees(&tree(&opened.vfs).await, world.newest()).unwrap();
        opened.close().await.unwrap();
    });
}

pub fn read_only() -> coffer::vfs::VfsOptions {
    coffer::vfs::VfsOptions { read_only: true, ..options(None, 0).vfs }
}

/// A bucket after a rotation, what the thief has had before, and a machine that has seen the new key.
struct Robbed {
    world: World,
    objects: Objects,
    thief: Unlocked,
    machine: tempfile::TempDir,
}

impl Robbed {
    fn new() -> Self {
        let world = World::new();
        let (store, machine) = (world.store(), copy_of(world.machine.path()));
        let thief = unlock(&store);
        runtime().block_on(rotate(&store, Some(machine.path()), 1));
        Self { world, objects: store.objects(), thief, machine }
    }

    fn store(&self) -> Arc<Hostile> {
        Hostile::of(self.objects.clone())
    }

    /// The thief's way to make objects: the volume key of before.
    fn forge(&self, store: &Arc<Hostile>) -> Vault {
        vault(store, unlock(&self.world.store()).ring)
    }

    /// Whether machines that know the new key, and such as know nothing, read the newest tree or an error.
    async fn read(&self, store: &Arc<Hostile>, what: &str) -> Vec<String> {
        let mut told = Vec::new();
        for state in [Some(self.machine.path()), None] {
            match read(store, state.map(Path::to_owned)).await {
                Err(error) => told.push(error.to_string()),
                Ok(seen) => {
                    agrees(&seen, self.world.newest()).unwrap_or_else(|error| panic!("{what}: {error}"));
                    told.push(format!(
                        "{} are spoiled",
                        seen.values().filter(|seen| !seen.is_whole()).count()
                    ));
                }
            }
        }
        println!("{what}: {told:?}");
        told
    }
}

/// The bytes of an object of the records as the thief would seal them.
async fn sealed_by(vault: &Vault, store: &Arc<Hostile>, name: &str, plain: Bytes) -> (String, Bytes) {
    let before = store.objects();
    let (at, forge) = (path::Path::from(name), vault.meta_store(1 << 20));
    let sealed = at.parts().fold((String::from("m"), String::new()), |(sealed, above), part| {
        let part = part.as_ref();
        let below = if above.is_empty() { part.to_owned() } else { format!("{above}/{part}") };
        (format!("{sealed}/{}", vault.ring().seal_component(&above, part)), below)
    });
    forge.put(&at, PutPayload::from_bytes(plain)).await.unwrap();
    let bytes = store.objects()[&sealed.0].clone();
    for name in store.objects().keys().filter(|name| !before.contains_key(*name)) {
        assert_eq!(*name, sealed.0);
    }
    (sealed.0, bytes)
}

#[test]
fn a9_objects_that_are_forged_with_the_old_key_are_refused_by_name() {
    let robbed = Robbed::new();
    runtime().block_on(async {
        // What a log, a manifest and a table say that are good by themselves: those of before.
        let old_store = robbed.world.store();
        let old_vault = robbed.forge(&old_store);
        let old_engine = engine(&old_vault, EngineMode::Reader).await;
        let old_objects = old_engine.live_objects().await.unwrap();
        old_engine.close().await.unwrap();
        let store = robbed.store();
        let (_, live) = live(&store).await;
        let number =
            |name: &str| name.rsplit('/').next().unwrap().split('.').next().unwrap().parse::<u64>().unwrap();
        let new_vault = vault(&store, unlock(&store).ring);
        let known: Vec<String> =
            robbed.objects.keys().filter_map(|name| peek::engine_path(&new_vault, name)).collect();
        let last = |folder: &str| known.iter().filter(|name| name.contains(folder)).map(|n| number(n)).max();
        let (manifest, log) = (last("/manifest/").unwrap(), last("/wal/").unwrap());
        let mut refused = [0; 3];
        for old_object in &old_objects {
            let plain = peek::engine_object(&old_vault, old_object).await.unwrap();
            let (kind, names) = match old_object.split('/').nth(1).unwrap() {
                "manifest" => (
                    0,
                    [manifest, manifest + 1]
                        .map(|number| format!("db/manifest/{number:020}.manifest"))
                        .to_vec(),
                ),
                "wal" => (1, vec![format!("db/wal/{:020}.sst", log + 1)]),
                "compacted" => {
                    (2, live.objects.iter().filter(|name| name.contains("/compacted/")).cloned().collect())
                }
                _ => continue,
            };
            for name in names {
                let store = robbed.store();
                let (sealed, bytes) = sealed_by(&robbed.forge(&store), &store, &name, plain.clone()).await;
                assert_eq!(bytes[7], 1, "{sealed} names the old epoch");
                for told in robbed.read(&store, &format!("{name} forged")).await {
                    assert!(told.contains("epoch 1, which was rotated away"), "{name}: {told}");
                    refused[kind] += 1;
                }
            }
        }
        assert!(refused.iter().all(|count| *count > 0), "manifests, logs, tables: {refused:?}");
        // A segment under the name of one that is in use.
        for id in live.segments.keys() {
            let store = robbed.store();
            let (head, key) = robbed.forge(&store).new_segment(*id);
            let name = robbed.objects.keys().find(|name| name.ends_with(&id.to_string())).unwrap();
            let mut bytes = head.encode().to_vec();
            let mut piece = vec![0x66; BLOCK];
            key.seal_piece(64, false, &mut piece);
            bytes.extend(piece);
            bytes.resize(robbed.objects[name].len().max(bytes.len()), 0);
            store.plant(name, bytes.into());
            robbed.read(&store, "a segment forged").await;
        }
    });
}

#[test]
fn a9_headers_that_are_signed_by_the_old_admin_are_refused_by_who_has_seen_the_new_one() {
    let mut robbed = Robbed::new();
    let newest = unlock(&robbed.store()).header.revision;
    let now = Time { secs: START_SECS, nanos: 0 };
    let (entropy, own) = (OsEntropy, factors());
    let mut forged = Vec::new();
    while robbed.thief.header.revision <= newest + 1 {
        let other = format!("key file {}", robbed.thief.header.revision);
        let other = [Factor::KeyFile(Secret::new(other.into_bytes()))];
        let kdf_cost = KdfCost::Fixed { log_n: 15 };
        let new = NewSlot { label: "mine", role: Role::Data, factors: &other, kdf_cost };
        let added = robbed.thief.add_slot(&new, &entropy, now).unwrap();
        robbed.thief.adopt(&added).unwrap();
        forged.push((robbed.thief.header.revision, added));
        forged.push((
            robbed.thief.header.revision + 1,
            robbed
                .thief
                .next_epoch(&[(0, &own[..])], KdfCost::Fixed { log_n: 15 }, &entropy, now)
                .unwrap()
                .bytes,
        ));
    }
    let mut tried = 0;
    for (revision, bytes) in forged.into_iter().filter(|(revision, _)| *revision > newest) {
        let store = robbed.store();
        store.plant(&format!("header/{revision}"), bytes.into());
        let read = runtime().block_on(read(&store, Some(robbed.machine.path().to_owned())));
        assert!(matches!(read, Err(VolumeError::KeySubstituted { .. })), "header/{revision}: {read:?}");
        tried += 1;
    }
    assert!(tried >= 2);
    // Nor is a header of before the rotation taken for the newest, nor the one before its end.
    for kept in [newest - 2, newest - 1] {
        let mut objects = robbed.objects.clone();
        objects.retain(|name, _| {
            name.strip_prefix("header/").is_none_or(|number| number.parse::<u64>().unwrap() <= kept)
        });
        let store = Hostile::of(objects);
        match runtime().block_on(read(&store, Some(robbed.machine.path().to_owned()))) {
            Err(VolumeError::KeySubstituted { .. }) => assert_eq!(kept, newest - 2),
            Err(VolumeError::HeaderRolledBack { expected, found, .. }) => {
                assert_eq!((expected, found, kept), (newest, newest - 1, newest - 1));
            }
            other => panic!("header/{kept}: {other:?}"),
        }
    }
}

#[test]
fn a_store_that_takes_the_new_header_back_does_not_have_the_rotation_go_on_with_the_old_one() {
    let world = World::new();
    for is_known in [true, false] {
        let (store, new_machine) = (world.store(), tempfile::tempdir().unwrap());
        let machine = if is_known { copy_of(world.machine.path()) } else { new_machine };
        let options = options(Some(machine.path().to_owned()), 1);
        runtime().block_on(async {
            begin(&store, &options).await.unwrap();
            let mut objects = store.objects();
            let newest = unlock(&store).header.revision;
            objects.remove(&format!("header/{newest}")).unwrap();
            let refused = end(&Hostile::of(objects), &options).await;
            assert!(matches!(refused, Err(VolumeError::KeySubstituted { .. })), "{refused:?}");
            end(&store, &options).await.unwrap();
            is_whole(&world, &store, Some(machine.path())).await;
        });
    }
    // Without memory there is no rotation to be ended.
    let store = world.store();
    let refused = runtime().block_on(end(&store, &options(None, 2)));
    assert!(matches!(refused, Err(VolumeError::Key(keys::KeyError::NotTheNext { .. }))), "{refused:?}");
}

/// For the crash tests: everything of `vfs` is as in the newest tree of `world`.
pub async fn holds(world: &World, vfs: &Vfs) {
    let seen = tree(vfs).await;
    agrees(&seen, world.newest()).unwrap();
    assert!(seen.values().all(Seen::is_whole) && seen.len() == world.newest().len());
}
