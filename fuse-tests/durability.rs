//! What was acknowledged is in the bucket, however the mount ends.

use std::fs::{self, File};
use std::io::Write;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::process::Signal;

use crate::support::command::{Finished, command, run, run_ok, wait_until};
use crate::support::manifest::Manifest;
use crate::support::mount::Mount;
use crate::support::seed;
use crate::support::tree::Tree;
use crate::support::volume::Volume;

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

/// > `coffer umount` syncs first, unmounts, waits for the last commit and for the end of the process, and says so.
#[test]
fn umount_returns_when_everything_is_in_the_bucket() {
    drains(|mount| mount.unmount());
}

/// > SIGTERM, SIGHUP and Ctrl-C unmount, even if files are open (they fail from then on), and save everything.
#[test]
fn sigterm_saves_everything_before_the_daemon_ends() {
    drains(|mount| {
        mount.signal(Signal::TERM);
        mount.wait_until_gone();
        assert!(!mount.is_mounted(), "the daemon ended and left the mount behind");
    });
}

/// > When they succeed, everything is in the bucket.
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

/// > while changes are not in the bucket, the daemon keeps its own root directory open, and `fusermount3 -u` and
/// > `umount` fail with «busy» (`EBUSY`).
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

/// > The mount option `nohold` gives this up: `fusermount3 -u` and `umount` then succeed at once, the process goes on
/// > until everything is in the bucket, and only then ends.
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

/// > If files are open it fails with code 31 and the mount stays.
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

/// > `coffer sync DIR` returns when everything written so far is in the bucket.
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

/// The kernel goes on answering for the root of a mount whose process has died, for as long as it remembers its
/// attributes. What it asks of nobody must not pass for life.
#[test]
fn a_mount_whose_process_has_died_is_told_though_the_kernel_remembers_its_root() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), "x").unwrap();
    mount.sync();
    let (dir, state_dir) = (mount.dir.clone(), mount.state_dir.clone());
    assert!(fs::read_dir(&dir).unwrap().count() == 1 && fs::metadata(&dir).unwrap().is_dir());
    mount.signal(Signal::KILL);
    mount.wait_until_gone();
    println!("the kernel remembers the root: {}", fs::metadata(&dir).is_ok());

    let words =
        |finished: &Finished| String::from_utf8_lossy(&finished.stdout).into_owned() + &finished.stderr;
    let all = run(volume.coffer(["status"]));
    for status in [
        &all,
        &volume.try_verb("status", &dir, &[]),
        &volume.try_verb("status", &dir, &["--watch=1s", "--until-safe"]),
    ] {
        assert_eq!(status.status.code(), Some(23), "{status}");
        let said = words(status);
        assert!(said.starts_with("Not safe yet. ") || said.contains("  Not safe yet. "), "{said}");
        assert!(
            said.contains(&format!("{}: nothing is known of it: its process has died", dir.display())),
            "{said}"
        );
        assert!(said.contains("what it had not sent may be lost"), "{said}");
    }
    let synced = volume.try_verb("sync", &dir, &[]);
    assert_eq!(synced.status.code(), Some(24), "{synced}");
    assert!(words(&synced).contains("has died"), "{synced}");

    let mut again = volume.coffer(["mount"]);
    again.arg(&volume.url).arg(&dir).arg("--passphrase-file").arg(volume.passphrase_file());
    again.arg("--state-dir").arg(&state_dir);
    let again = run(again);
    assert_eq!(again.status.code(), Some(19), "{again}");
    assert!(words(&again).contains("a mount whose process has died is still at"), "{again}");

    let removed = volume.try_verb("umount", &dir, &[]);
    assert_eq!(removed.status.code(), Some(31), "{removed}");
    assert!(
        words(&removed).contains("has died") && words(&removed).contains("the mount was removed"),
        "{removed}"
    );
    assert!(!mount.is_mounted());
    assert_eq!(volume.try_verb("status", &dir, &[]).status.code(), Some(24));
    volume.mount_spec().state_dir(&state_dir).args(&["--takeover"]).mount().unmount();
}
