//! When what was written is in the bucket: synchronous writes, commits by age, and the calls that do not reach a daemon.

use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::time::Duration;

use rustix::fs::OFlags;

use crate::support::command::{run_ok, wait_until};
use crate::support::volume::Volume;

/// > **`O_SYNC`, `O_DSYNC`**, `RWF_SYNC` and the mount option `sync` make each write wait likewise.
#[test]
fn a_synchronous_write_survives_a_kill() {
    let volume = Volume::local();
    let never = ["--takeover", "--commit-age", "1h"];
    for (name, flags, options) in
        [("sync", OFlags::SYNC, "rw"), ("dsync", OFlags::DSYNC, "rw"), ("option", OFlags::empty(), "sync")]
    {
        let mount = volume.mount_spec().args(&never).args(&["-o", options]).mount();
        let flags = flags.bits().cast_signed();
        let mut file = OpenOptions::new().write(true).create(true).custom_flags(flags).open(mount.path(name));
        file.as_mut().unwrap().write_all(name.as_bytes()).unwrap();
        mount.crash();
    }
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    for name in ["sync", "dsync", "option"] {
        assert_eq!(fs::read_to_string(mount.path(name)).unwrap(), name);
    }
    mount.unmount();
}

/// The kernel follows a cached write by an `fsync` of its own, and no other.
///
/// > **`O_SYNC`, `O_DSYNC`**, `RWF_SYNC` and the mount option `sync` make each write wait likewise.
#[test]
fn a_synchronous_write_beside_one_that_goes_past_the_pages_survives_a_kill() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let stream = File::create(mount.path("file")).unwrap();
    let dsync = OFlags::DSYNC.bits().cast_signed();
    let both =
        OpenOptions::new().read(true).write(true).custom_flags(dsync).open(mount.path("file")).unwrap();
    both.write_all_at(b"written", 0).unwrap();
    mount.crash();
    drop((stream, both));
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "written");
    mount.unmount();
}

/// > **`close`** promises nothing. Changes are committed at most 5 s after the first of them (`--commit-age`) and as long
/// > as the upload then takes.
#[test]
fn changes_are_committed_by_age_alone() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1s"]).mount();
    fs::write(mount.path("file"), "x").unwrap();
    assert_eq!(mount.status()["is_safe"], false, "closing a file waited for the bucket");
    wait_until("the change is committed", Duration::from_secs(60), || mount.status()["is_safe"] == true);
    mount.crash();
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "x");
    mount.unmount();
}

/// > **`sync(2)` and `syncfs(2)` never reach a FUSE daemon** through the library used here: the kernel hands over the pages
/// > it holds, and returns. `coffer sync DIR` returns when everything written so far is in the bucket.
#[test]
fn sync_and_syncfs_are_not_coffer_sync() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    fs::write(mount.path("file"), "x").unwrap();
    rustix::fs::syncfs(File::open(&mount.dir).unwrap()).unwrap();
    run_ok("sync", ["-f".as_ref(), mount.dir.as_os_str()]);
    assert_eq!(mount.status()["is_safe"], false, "syncfs reaches the daemon now: say so in SEMANTICS.md");
    mount.sync();
    assert_eq!(mount.status()["is_safe"], true);
    mount.unmount();
}

/// > **After a crash** of the process, the machine or the network the volume is as some commit left it: every change of
/// > that commit and before, none after,
/// > but for contents that the commit had put off (above).
#[test]
fn what_no_commit_has_taken_is_gone_after_a_kill_and_nothing_else_is() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    fs::write(mount.path("kept"), "old").unwrap();
    fs::write(mount.path("renamed"), "old").unwrap();
    mount.sync();
    fs::write(mount.path("kept"), "new").unwrap();
    fs::rename(mount.path("renamed"), mount.path("elsewhere")).unwrap();
    fs::create_dir(mount.path("dir")).unwrap();
    mount.crash();
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    assert_eq!(fs::read_to_string(mount.path("kept")).unwrap(), "old");
    let mut names: Vec<_> =
        fs::read_dir(&mount.dir).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    names.sort();
    assert_eq!(names, ["kept", "renamed"]);
    mount.unmount();
}
