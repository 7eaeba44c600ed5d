//! What was acknowledged is in the bucket, however the mount ends.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, RngCore, SeedableRng};
use rustix::process::Signal;

use crate::support::command::{command, run, run_ok, wait_until};
use crate::support::manifest::Manifest;
use crate::support::mount::Mount;
use crate::support::tree::Tree;
use crate::support::volume::Volume;
use crate::support::{extended, seed};

/// Fills a mount, ends it, and looks whether everything is there when it is mounted with no local state.
fn drains(end: impl FnOnce(Mount<'_>)) {
    let volume = Volume::local();
    let mount = volume.mount();
    Tree::SMALL.grow(&mount.dir, seed("tree"));
    // Written last and never synced: it can only be in memory when the end begins.
    let mut noise = vec![0; 20 << 20];
    SmallRng::seed_from_u64(1).fill_bytes(&mut noise);
    fs::write(mount.path("last"), &noise).unwrap();
    let wanted = Manifest::of(&mount.dir);
    end(mount);
    // A mount that crashed still holds the volume; one that ended well makes no difference.
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    wanted.assert_same(&Manifest::of(&mount.dir), "after the end");
    mount.unmount();
}

#[test]
fn umount_returns_when_everything_is_in_the_bucket() {
    drains(|mount| mount.unmount());
}

#[test]
fn sigterm_saves_everything_before_the_daemon_ends() {
    drains(|mount| {
        mount.signal(Signal::TERM);
        mount.wait_until_gone();
        assert!(!mount.is_mounted(), "the daemon ended and left the mount behind");
    });
}

#[test]
fn an_unmount_by_others_succeeds_only_when_everything_is_in_the_bucket() {
    drains(|mount| {
        wait_until("fusermount3 succeeds", Duration::from_secs(60), || {
            run(command("fusermount3", ["-u".as_ref(), mount.dir.as_os_str()])).status.success()
        });
        // Nothing that it might still do may be needed.
        for daemon in mount.daemons() {
            let _ = rustix::process::kill_process(daemon, Signal::KILL);
        }
        mount.wait_until_gone();
    });
}

#[test]
fn an_unmount_by_others_is_refused_while_something_is_not_saved() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let unmount = || run(command("fusermount3", ["-u".as_ref(), mount.dir.as_os_str()]));
    fs::write(mount.path("file"), "x").unwrap();
    let refused = unmount();
    assert!(!refused.status.success() && mount.is_mounted(), "{refused}");
    assert!(refused.stderr.contains("busy"), "{refused}");
    mount.sync();
    let unmounted = unmount();
    assert!(unmounted.status.success(), "{unmounted}");
    mount.wait_until_gone();
}

#[test]
fn without_hold_the_daemon_outlives_an_unmount_by_others_until_everything_is_saved() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h", "-o", "nohold"]).mount();
    fs::write(mount.path("file"), "x").unwrap();
    run_ok("fusermount3", ["-u".as_ref(), mount.dir.as_os_str()]);
    mount.wait_until_gone();
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "x");
    mount.unmount();
}

#[test]
fn an_unmount_that_fails_for_open_files_leaves_the_hold() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let mut open = File::create(mount.path("file")).unwrap();
    let refused = volume.try_verb("umount", &mount.dir, &[]);
    assert_eq!(refused.status.code(), Some(31), "{refused}");
    open.write_all(b"later").unwrap();
    drop(open);
    let refused = run(command("fusermount3", ["-u".as_ref(), mount.dir.as_os_str()]));
    assert!(!refused.status.success() && mount.is_mounted(), "{refused}");
    mount.unmount();
}

#[test]
fn sync_returns_when_everything_is_in_the_bucket() {
    drains(|mount| {
        mount.sync();
        mount.crash();
    });
}

#[test]
fn a_killed_mount_leaves_no_lock_for_its_own_machine() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), "x").unwrap();
    File::open(mount.path("file")).unwrap().sync_all().unwrap();
    let state_dir = mount.state_dir.clone();
    mount.crash();
    let mount = volume.mount_spec().state_dir(&state_dir).args(&["--takeover"]).mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"x");
    mount.unmount();
    volume.mount_spec().state_dir(&state_dir).mount().unmount();
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

#[test]
fn what_was_synced_survives_a_kill_and_nothing_is_torn() {
    let mut dice = SmallRng::seed_from_u64(seed("kills"));
    let volume = Volume::local();
    let noted: Vec<AtomicU32> = (0..FILES).map(|_| AtomicU32::new(0)).collect();
    let rounds = if extended() { 25 } else { 4 };
    for round in 0..rounds {
        let mount = volume.mount_spec().args(&["--takeover"]).mount();
        check_versions(&mount.dir, &noted, round);
        let target: u32 =
            noted.iter().map(|noted| noted.load(Ordering::SeqCst)).sum::<u32>() + dice.random_range(8..40);
        let stop = AtomicBool::new(false);
        let dir = mount.dir.clone();
        std::thread::scope(|scope| {
            for (file, noted) in noted.iter().enumerate() {
                let (dir, stop) = (&dir, &stop);
                scope.spawn(move || replace_until_killed(dir, file as u32, noted, stop));
            }
            wait_until("enough was synced", Duration::from_secs(120), || {
                noted.iter().map(|noted| noted.load(Ordering::SeqCst)).sum::<u32>() >= target
            });
            stop.store(true, Ordering::SeqCst);
            mount.crash();
        });
    }
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    check_versions(&mount.dir, &noted, rounds);
    mount.unmount();
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
