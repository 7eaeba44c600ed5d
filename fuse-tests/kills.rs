//! `kill -9` at random moments: of mounts, of commands, of the bucket's server. What was acknowledged is there afterwards.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};

use crate::support::command::{run, run_ok, wait_until};
use crate::support::servers;
use crate::support::volume::Volume;
use crate::support::{extended, seed};

/// Rounds of a test of kills, of which a normal run takes a few and an extended one hundreds.
pub(crate) fn rounds(few: u32) -> u32 {
    if extended() { 200 } else { few }
}

/// Contents that tell which version of which file they are, so that torn or mixed ones are noticed.
fn contents(file: u32, version: u32) -> Vec<u8> {
    let mut dice = SmallRng::seed_from_u64(u64::from(file) << 32 | u64::from(version));
    let mut bytes = vec![0; dice.random_range(1..150_000)];
    dice.fill_bytes(&mut bytes);
    bytes
}

/// Replaces `name` in the way that is meant to be safe: write beside it, sync, rename; sometimes sync the directory.
fn replace(dir: &Path, file: u32, version: u32) {
    let (new, name) = (dir.join(format!("{file}.new")), dir.join(file.to_string()));
    let mut out = File::create(&new).unwrap();
    out.write_all(&contents(file, version)).unwrap();
    out.sync_all().unwrap();
    fs::rename(&new, &name).unwrap();
}

const FILES: u32 = 6;

/// Replaces files over and over until the mount dies under it; notes each version when its directory is synced.
fn replace_until_killed(dir: &Path, file: u32, noted: &AtomicU32, stop: &AtomicBool) {
    let mut version = noted.load(Ordering::SeqCst);
    let quiet = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        while !stop.load(Ordering::SeqCst) {
            version += 1;
            replace(dir, file, version);
            File::open(dir).unwrap().sync_all().unwrap();
            noted.store(version, Ordering::SeqCst);
        }
    }));
    assert!(quiet.is_ok() || stop.load(Ordering::SeqCst), "a write failed before the kill");
}

/// Each file holds, whole, the last version that was noted or one that came after it.
fn check_versions(dir: &Path, noted: &[AtomicU32], round: u32) {
    for (file, noted) in noted.iter().enumerate() {
        let (file, least) = (file as u32, noted.load(Ordering::SeqCst));
        let found = fs::read(dir.join(file.to_string())).ok();
        let version = (least..least + 3).find(|version| match &found {
            Some(found) => *version > 0 && *found == contents(file, *version),
            None => *version == 0,
        });
        let version = version.unwrap_or_else(|| {
            panic!(
                "round {round}: file {file} is not version {least} or later, but {:?} bytes",
                found.map(|f| f.len())
            )
        });
        noted.store(version, Ordering::SeqCst);
    }
}

/// Notes all objects that are in the bucket now. None may have the salt of another, and none may have changed.
fn note_objects(
    bucket: &Path,
    objects: &mut HashMap<PathBuf, Vec<u8>>,
    salts: &mut HashMap<Vec<u8>, PathBuf>,
) {
    let mut waiting = vec![bucket.join("d"), bucket.join("m")];
    while let Some(dir) = waiting.pop() {
        for path in fs::read_dir(dir).into_iter().flatten().map(|entry| entry.unwrap().path()) {
            if path.is_dir() {
                waiting.push(path);
                continue;
            }
            // What a kill leaves of an upload has another name, and may vanish.
            let Ok(bytes) = fs::read(&path) else { continue };
            if path.to_string_lossy().contains('#') || bytes.len() < 64 {
                continue;
            }
            let salt = bytes[8..32].to_vec();
            if let Some(other) = salts.insert(salt, path.clone()) {
                assert_eq!(other, path, "two objects have one salt");
            }
            if let Some(before) = objects.insert(path.clone(), bytes) {
                assert!(before == objects[&path], "{} was sealed twice", path.display());
            }
        }
    }
}

/// Each mount begins with the state folder of the first, as a restored virtual machine does.
#[test]
fn b7_no_salt_comes_twice_though_mounts_are_killed_in_mid_write_and_begin_with_an_old_state() {
    let volume = Volume::local();
    let (mut objects, mut salts) = (HashMap::new(), HashMap::new());
    let first = volume.mount();
    let kept = first.state_dir.clone();
    first.unmount();
    for round in 0..rounds(5) {
        let state = volume.new_dir("restored");
        run_ok("cp", ["-a".into(), kept.join("."), state.clone()]);
        let mount = volume.mount_spec().state_dir(&state).args(&["--takeover"]).mount();
        let before = objects.len();
        let (dir, stop) = (mount.dir.clone(), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for writer in 0..3 {
                let (dir, stop) = (&dir, &stop);
                // The same bytes in every round: only the salts keep what is sealed apart.
                scope.spawn(move || {
                    let mut file = 0;
                    while !stop.load(Ordering::SeqCst) {
                        let name = dir.join(format!("{writer}-{file}"));
                        let Ok(mut out) = File::create(name) else { return };
                        if out.write_all(&contents(writer, file)).and_then(|()| out.sync_all()).is_err() {
                            return;
                        }
                        file += 1;
                    }
                });
            }
            wait_until("enough was written", Duration::from_secs(120), || {
                note_objects(&volume.bucket(), &mut objects, &mut salts);
                objects.len() >= before + 12
            });
            mount.crash();
            stop.store(true, Ordering::SeqCst);
        });
        note_objects(&volume.bucket(), &mut objects, &mut salts);
        println!("round {round}: {} objects", objects.len());
    }
    assert!(objects.len() > 50 && salts.len() == objects.len());
}

/// Starts `command` and kills it after a random part of `span`, if it has not ended by then. Says whether it succeeded.
pub(crate) fn kill_at_random(mut command: Command, dice: &mut SmallRng, span: Duration) -> bool {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let mut child = command.spawn().unwrap();
    // The pause is the fault that is injected, not a way to wait for anything.
    std::thread::sleep(span.mul_f64(dice.random_range(0.0..1.0)));
    let _ = child.kill();
    child.wait().unwrap().success()
}

/// How long a command takes when nobody kills it.
pub(crate) fn time_of(command: Command) -> Duration {
    let start = std::time::Instant::now();
    run(command).ok();
    start.elapsed()
}

#[test]
fn a_killed_init_leaves_a_whole_volume_or_none() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of init"));
    let span = time_of(Volume::local_without_init().init_command());
    let (mut whole, mut none) = (0, 0);
    for round in 0..rounds(8) {
        let volume = Volume::local_without_init();
        if kill_at_random(volume.init_command(), &mut dice, span) {
            whole += 1;
        } else {
            // Either there is a volume, which a second init refuses to touch, or there is none and it makes one.
            let again = run(volume.init_command());
            match again.code() {
                0 => none += 1,
                14 => whole += 1,
                _ => panic!("round {round}: {again}"),
            }
        }
        let mount = volume.mount();
        fs::write(mount.path("file"), "x").unwrap();
        mount.unmount();
    }
    println!("killed inits: {whole} volumes were whole, {none} were not there");
}

#[test]
fn a_mount_killed_while_it_unmounts_keeps_what_was_synced_and_tears_nothing() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of unmounts"));
    let volume = Volume::local();
    for round in 0..rounds(5) {
        let mount = volume.mount_spec().args(&["--takeover"]).mount();
        if round > 0 {
            let synced = fs::read(mount.path("synced")).unwrap();
            assert!(synced == contents(0, round), "round {round}: what was synced is not there");
            // Written together and never synced: each is there as it was written before, or as it is now.
            for file in 1..4 {
                let found = fs::read(mount.path(file.to_string())).unwrap_or_default();
                let whole = (0..=round).any(|version| found == contents(file, version)) || found.is_empty();
                assert!(whole, "round {round}: file {file} is torn");
            }
        }
        for file in 1..4 {
            let (new, name) = (mount.path("new"), mount.path(file.to_string()));
            fs::write(&new, contents(file, round + 1)).unwrap();
            fs::rename(&new, &name).unwrap();
        }
        let mut synced = File::create(mount.path("synced.new")).unwrap();
        synced.write_all(&contents(0, round + 1)).unwrap();
        drop(synced);
        fs::rename(mount.path("synced.new"), mount.path("synced")).unwrap();
        File::open(mount.path("synced")).unwrap().sync_all().unwrap();
        for file in 1..4 {
            fs::write(mount.path(format!("more {file}")), contents(file, round)).unwrap();
        }
        let mut umount = volume.coffer(["umount"]);
        umount.arg(&mount.dir).stdout(Stdio::null()).stderr(Stdio::null());
        let mut child = umount.spawn().unwrap();
        std::thread::sleep(Duration::from_micros(dice.random_range(0..120_000)));
        for daemon in mount.daemons() {
            let _ = rustix::process::kill_process(daemon, rustix::process::Signal::KILL);
        }
        child.wait().unwrap();
        mount.wait_until_gone();
        mount.end();
    }
}

#[test]
fn what_was_synced_survives_a_bucket_whose_server_is_killed_again_and_again() {
    let mut dice = SmallRng::seed_from_u64(seed("kills of the server"));
    let mut server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let noted: Vec<AtomicU32> = (0..FILES).map(|_| AtomicU32::new(0)).collect();
    let mount = volume.mount();
    let total = || noted.iter().map(|noted| noted.load(Ordering::SeqCst)).sum::<u32>();
    let stop = AtomicBool::new(false);
    std::thread::scope(|scope| {
        for (file, noted) in noted.iter().enumerate() {
            let (dir, stop) = (&mount.dir, &stop);
            scope.spawn(move || replace_until_killed(dir, file as u32, noted, stop));
        }
        for _ in 0..rounds(2) {
            let target = total() + dice.random_range(8..40);
            wait_until("enough was synced", Duration::from_secs(240), || total() >= target);
            server.kill();
            server.start_again();
        }
        let target = total() + 8;
        wait_until("writing goes on", Duration::from_secs(240), || total() >= target);
        stop.store(true, Ordering::SeqCst);
    });
    mount.crash();
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    check_versions(&mount.dir, &noted, 0);
    mount.unmount();
}
