//! Whole volumes out of mutated records and objects: mounted, read, checked, repaired, written to. The mutator holds the keys,
//! so that it reaches what no store can: the code behind the seals must not panic either, nor go on without end.
#![no_main]
#![allow(dead_code)]

#[path = "../../tests/damaged/mod.rs"]
mod damaged;

use std::sync::LazyLock;

use coffer::base::{FileKind, Ino};
use coffer::maint::{self, CheckOptions};
use coffer::meta::encode;
use coffer::vfs::{Handle, Vfs};
use coffer::volume::{self, OpenOptions};
use damaged::{CALLER, World, factors, repair_options};
use libfuzzer_sys::fuzz_target;
use tokio::runtime::{Builder, Runtime};

/// Of simulated time, in which nobody waits.
const HANG: std::time::Duration = std::time::Duration::from_secs(24 * 3600);

type Rows = Vec<(Vec<u8>, Vec<u8>)>;

/// A volume, its records as they are stored, and the names of its objects.
static START: LazyLock<(World, Rows, Vec<String>)> = LazyLock::new(|| {
    runtime().block_on(async {
        let world = World::with_everything().await;
        let records = world.records().await;
        let rows = records.iter().map(|(key, record)| (key.encode(), encode(record).unwrap())).collect();
        let objects = world.objects().await.into_iter().map(|(name, _)| name).collect();
        (world, rows, objects)
    })
});

/// One thread, whose time passes only where everybody waits for it.
fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().start_paused(true).build().unwrap()
}

/// Takes the input apart.
struct Input<'a>(&'a [u8]);

impl Input<'_> {
    fn byte(&mut self) -> u8 {
        match self.0.split_first() {
            Some((byte, rest)) => {
                self.0 = rest;
                *byte
            }
            None => 0,
        }
    }

    fn bytes(&mut self) -> Vec<u8> {
        let len = usize::from(self.byte()).min(self.0.len());
        let (bytes, rest) = self.0.split_at(len);
        self.0 = rest;
        bytes.to_vec()
    }

    fn pick<'t, T>(&mut self, from: &'t [T]) -> &'t T {
        let number = usize::from(self.byte()) << 8 | usize::from(self.byte());
        &from[number % from.len()]
    }
}

/// A changed record: altered in places, cut, replaced by another, deleted, or one under any key at all.
fn change(input: &mut Input<'_>, rows: &Rows) -> (Vec<u8>, Option<Vec<u8>>) {
    let (key, value) = input.pick(rows);
    let mut value = value.clone();
    match input.byte() % 8 {
        0 => return (key.clone(), None),
        1 => return (key.clone(), Some(input.pick(rows).1.clone())),
        2 => value.truncate(usize::from(input.byte())),
        3 => return (key.clone(), Some([&[1], &input.bytes()[..]].concat())),
        4 => {
            // Another key of the same kind: the last bytes differ.
            let mut key = key.clone();
            let (at, by) = (usize::from(input.byte()), input.byte());
            let len = key.len();
            if let Some(byte) = key.get_mut(len - 1 - at % len) {
                *byte ^= by;
            }
            return (key, Some(value));
        }
        5 => return (input.bytes(), Some(input.bytes())),
        _ => {
            for _ in 0..=input.byte() % 8 {
                let (at, by) = (usize::from(input.byte()), input.byte());
                let len = value.len().max(1);
                if let Some(byte) = value.get_mut(at % len) {
                    *byte = by;
                }
            }
        }
    }
    (key.clone(), Some(value))
}

async fn spoil_object(world: &World, input: &mut Input<'_>, objects: &[String]) {
    let all = world.objects().await;
    let name = input.pick(objects);
    if !all.iter().any(|(there, _)| there == name) {
        return;
    }
    let mut bytes = world.get(name).await.to_vec();
    let at = usize::from(input.byte()) << 8 | usize::from(input.byte());
    match input.byte() % 4 {
        0 => world.delete(name).await,
        1 => {
            bytes.truncate(at);
            world.put(name, bytes).await;
        }
        2 => world.put(name, world.get(&input.pick(&all).0).await).await,
        _ => {
            let len = bytes.len().max(1);
            if let Some(byte) = bytes.get_mut(at % len) {
                *byte ^= input.byte() | 1;
            }
            world.put(name, bytes).await;
        }
    }
}

/// Reads what there is, however little sense it makes.
async fn read_all(vfs: &Vfs) {
    let (mut waiting, mut seen) = (vec![Ino::ROOT], std::collections::BTreeSet::new());
    while let Some(ino) = waiting.pop() {
        if !seen.insert(ino) || seen.len() > 200 {
            continue;
        }
        let _ = vfs.list_xattr(ino).await;
        let _ = vfs.get_xattr(ino, b"user.note").await;
        let Ok(attr) = vfs.getattr(ino).await else { continue };
        match attr.kind {
            FileKind::Directory => {
                let entries = vfs.readdir(ino, 0, 100).await.unwrap_or_default();
                waiting.extend(entries.iter().filter(|entry| entry.name != b"..").map(|entry| entry.ino));
            }
            FileKind::Symlink => drop(vfs.readlink(ino).await),
            _ => {
                for at in [0, 65_536, attr.size / 2, attr.size.saturating_sub(10), 70 << 20] {
                    let _ = vfs.read(Handle(0), ino, at, 70_000).await;
                }
            }
        }
    }
}

/// Writes to whatever a writer finds.
async fn write_to(world: &World) {
    let Ok(opened) = world.try_mount(false).await else { return };
    let vfs = &opened.vfs;
    if let Ok(file) = vfs.create(&CALLER, Ino::ROOT, b"new", 0o644, true).await {
        let _ = vfs.write(file.ino, 0, &[7; 70_000], true).await;
    }
    if let Ok(run) = vfs.lookup(Ino::ROOT, b"run").await {
        let _ = vfs.write(run.ino, 65_000, &[8; 1000], true).await;
        let _ = vfs.copy_file_range(run.ino, 0, run.ino, 1 << 20, 70_000).await;
    }
    let _ = vfs.unlink(Ino::ROOT, b"pages").await;
    let _ = vfs.unlink(Ino::ROOT, b"clone").await;
    let _ = tokio::time::timeout(HANG, vfs.sync_all()).await;
    let _ = tokio::time::timeout(HANG, vfs.reclaim()).await;
    let _ = tokio::time::timeout(HANG, opened.close()).await;
}

async fn check(world: &World) {
    let Ok(examined) = volume::examine(world.bucket(), &factors(), OpenOptions::default()).await else {
        return;
    };
    let options = CheckOptions { read_data: true, ..CheckOptions::default() };
    if let Ok(report) = maint::check(&examined, &options, &|_| ()).await {
        let words: usize = report.findings.iter().map(|found| found.sentence().len()).sum();
        assert!(words < 100 << 20);
    }
    examined.close().await;
}

async fn repair(world: &World) {
    let options = OpenOptions { takeover: true, ..OpenOptions::default() };
    let Ok(mut seized) = volume::seize(world.bucket(), &factors(), options).await else { return };
    let _ = maint::repair(&mut seized, &repair_options(true), None, &|_| ()).await;
    let _ = seized.close().await;
}

async fn drive(data: &[u8]) {
    let (start, rows, objects) = &*START;
    let world = start.fork().await;
    let mut input = Input(data);
    let spoiled_count = input.byte() % 3;
    let mut changes = Vec::new();
    for _ in 0..=input.byte() % 6 {
        changes.push(change(&mut input, rows));
    }
    changes.retain(|(key, value)| {
        !key.is_empty() && key.len() < 1000 && value.as_ref().is_none_or(|v| !v.is_empty())
    });
    changes.sort();
    changes.dedup_by(|a, b| a.0 == b.0);
    if !changes.is_empty() {
        world.write_raw(changes).await;
    }
    for _ in 0..spoiled_count {
        spoil_object(&world, &mut input, objects).await;
    }
    if let Ok(opened) = world.try_mount(true).await {
        read_all(&opened.vfs).await;
        let _ = opened.close().await;
    }
    check(&world).await;
    let repaired = world.fork().await;
    repair(&repaired).await;
    write_to(&repaired).await;
    write_to(&world).await;
}

fuzz_target!(|data: &[u8]| {
    LazyLock::force(&START);
    runtime().block_on(async {
        tokio::time::timeout(100 * HANG, drive(data)).await.expect("it goes on without end");
    });
});
