//! A bucket that was put back, as a mount meets it: refused, looked at, accepted.

use std::fs;
use std::io::Write;
use std::path::Path;

use crate::support::command::{Finished, run_ok};
use crate::support::volume::Volume;

/// The documented exit codes.
const ROLLED_BACK: i32 = 21;
const UNEXPECTED: i32 = 46;

fn copy(from: &Path, to: &Path) {
    let _ = fs::remove_dir_all(to);
    run_ok("cp", ["-a".as_ref(), from.as_os_str(), to.as_os_str()]);
}

fn refused(attempt: Result<crate::support::mount::Mount<'_>, Finished>, code: i32) {
    match attempt {
        Ok(_) => panic!("it was mounted"),
        Err(finished) => assert_eq!(finished.code(), code, "{finished}"),
    }
}

#[test]
fn a_bucket_that_was_put_back_is_refused_shown_when_asked_and_accepted_by_an_admin() {
    let volume = Volume::local();
    let (bucket, backup) = (volume.bucket(), volume.new_dir("backup"));
    let mount = volume.mount();
    let state_dir = mount.state_dir.clone();
    let again = |args: &[&str]| volume.mount_spec().state_dir(&state_dir).args(args);
    fs::write(mount.path("old"), "old").unwrap();
    mount.unmount();
    copy(&bucket, &backup);
    let mount = again(&[]).mount();
    fs::write(mount.path("new"), "new").unwrap();
    mount.unmount();
    copy(&backup, &bucket);

    refused(again(&[]).try_mount(), ROLLED_BACK);
    refused(again(&["--read-only"]).try_mount(), ROLLED_BACK);
    let looking = again(&["--read-only", "--forensic"]).mount();
    assert_eq!(fs::read(looking.path("old")).unwrap(), b"old");
    assert!(!looking.path("new").exists() && fs::write(looking.path("x"), "x").is_err());
    looking.unmount();
    refused(again(&[]).try_mount(), ROLLED_BACK);

    let mount = again(&["--accept-rollback"]).mount();
    assert_eq!(fs::read(mount.path("old")).unwrap(), b"old");
    fs::write(mount.path("after"), "after").unwrap();
    mount.sync();
    let words = volume.try_verb("fingerprint", Path::new(&volume.url), &[]).ok().text();
    let told = volume.try_verb("fingerprint", &mount.dir, &["--commit"]).ok().text();
    let commit = told.strip_prefix(&words).expect("the mount tells the same volume").trim().to_owned();
    mount.unmount();
    again(&[]).mount().unmount();

    let expect = format!("expect={},expect-commit={commit}", words.trim());
    let elsewhere = volume.mount_spec().args(&["-o", &expect]).mount();
    assert_eq!(fs::read(elsewhere.path("after")).unwrap(), b"after");
    elsewhere.unmount();
    copy(&backup, &bucket);
    refused(volume.mount_spec().args(&["-o", &expect]).try_mount(), UNEXPECTED);
}

/// The note of what was seen is written after each commit, and not only when a mount ends.
#[test]
fn a_killed_mount_remembers_the_commit_of_its_last_fsync() {
    let volume = Volume::local();
    let (bucket, before, after) = (volume.bucket(), volume.new_dir("before"), volume.new_dir("after"));
    let mount = volume.mount();
    let state_dir = mount.state_dir.clone();
    let again = |args: &[&str]| volume.mount_spec().state_dir(&state_dir).args(args);
    let saved = |name: &str| {
        let mut file = fs::File::create(mount.path(name)).unwrap();
        file.write_all(name.as_bytes()).unwrap();
        file.sync_all().unwrap();
        let told = volume.try_verb("fingerprint", &mount.dir, &["--commit"]).ok().text();
        let number =
            told.lines().nth(1).and_then(|line| line.split_once(':')).map(|(number, _)| number.parse());
        number.expect("NUMBER:HASH").unwrap()
    };
    let first: u64 = saved("first");
    copy(&bucket, &before);
    assert_eq!(saved("second"), first + 1, "one commit later");
    mount.crash();
    copy(&bucket, &after);
    copy(&before, &bucket);
    refused(again(&[]).try_mount(), ROLLED_BACK);
    refused(again(&["--takeover"]).try_mount(), ROLLED_BACK);

    copy(&after, &bucket);
    let mount = again(&[]).mount();
    assert_eq!(fs::read(mount.path("second")).unwrap(), b"second", "the newer state still opens");
    mount.unmount();
}

/// An older state folder knows less than this machine has seen: the user is told that it begins anew as another one.
#[test]
fn a_restored_state_folder_is_told_in_one_line() {
    let volume = Volume::local();
    let backup = volume.new_dir("backup");
    let mount = volume.mount();
    let state_dir = mount.state_dir.clone();
    let again = || volume.mount_spec().state_dir(&state_dir);
    mount.unmount();
    copy(&state_dir, &backup);
    let mount = again().mount();
    for name in ["one", "two", "three"] {
        fs::create_dir(mount.path(name)).unwrap();
        mount.sync();
    }
    mount.unmount();
    let told = |mount: &crate::support::mount::Mount<'_>| mount.told.matches("is an old copy").count();
    let mount = again().mount();
    assert_eq!(told(&mount), 0, "this machine remembers all of its commits");
    mount.unmount();
    copy(&backup, &state_dir);
    let mount = again().mount();
    assert!(mount.path("three").exists());
    assert_eq!(told(&mount), 1, "{}", mount.told);
    mount.unmount();
    let mount = again().mount();
    assert_eq!(told(&mount), 0, "once: {}", mount.told);
    mount.unmount();
}
