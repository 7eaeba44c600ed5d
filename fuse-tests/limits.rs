//! Limits and pauses of a running mount, as its user sets and sees them.

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Read, Write};
use std::process::Stdio;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{run, wait_until, wait_within};
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(60);

#[test]
fn while_uploads_are_paused_reads_and_writes_go_on_and_fsync_waits() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("before"), [1; 200_000]).unwrap();
    mount.unmount();
    let mount = volume.mount();
    let paused = volume.try_verb("pause", &mount.dir, &[]).ok();
    assert!(paused.stderr.contains("uploads are paused"), "{paused}");
    let puts = || mount.status()["mounts"][0]["store"]["puts"].as_u64().unwrap();
    let before = puts();
    fs::write(mount.path("during"), [2; 200_000]).unwrap();
    assert_eq!(fs::read(mount.path("before")).unwrap(), [1; 200_000], "reads ask the bucket");
    let (tell, told) = channel();
    let during = mount.path("during");
    let syncing = std::thread::spawn(move || {
        let mut file = File::options().append(true).open(during).unwrap();
        file.write_all(&[3; 100]).unwrap();
        let synced = file.sync_all();
        tell.send(()).unwrap();
        synced
    });
    assert_eq!(
        told.recv_timeout(Duration::from_secs(2)),
        Err(RecvTimeoutError::Timeout),
        "fsync did not wait"
    );
    assert_eq!(puts(), before, "something was sent");
    let status = volume.try_verb("status", &mount.dir, &[]);
    assert_eq!(status.code(), 23, "{status}");
    assert!(
        status.text().starts_with("Not safe yet. ") && status.text().contains(", and uploads are paused"),
        "{status}"
    );

    let resumed = volume.try_verb("resume", &mount.dir, &[]).ok();
    assert!(resumed.stderr.ends_with(": uploads go on\n"), "{resumed}");
    told.recv_timeout(PATIENCE).expect("fsync returns when uploads go on");
    syncing.join().unwrap().unwrap();

    // Whoever unmounts wants everything saved, paused or not.
    volume.try_verb("pause", &mount.path("before"), &["--for", "1h"]).ok();
    fs::write(mount.path("last"), "of all").unwrap();
    let left = mount.status()["mounts"][0]["limits"]["paused_left"].as_f64().unwrap();
    assert!(left > 3000.0 && left <= 3600.0, "{left}");
    let open = File::open(mount.path("last")).unwrap();
    assert_eq!(volume.try_verb("umount", &mount.dir, &[]).code(), 31);
    let limits = &mount.status()["mounts"][0]["limits"];
    assert_eq!(limits["is_paused"], true, "a pause goes on after an unmount that was refused");
    assert!(limits["paused_left"].as_f64().is_some_and(|left| left <= 3600.0));
    drop(open);
    mount.unmount();
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("last")).unwrap(), b"of all");
    assert_eq!(fs::read(mount.path("during")).unwrap().len(), 200_100);
    assert_eq!(mount.status()["mounts"][0]["limits"]["is_paused"], false, "a pause ends with its mount");
    mount.unmount();
}

#[test]
fn who_ends_the_waiting_is_told_what_goes_on_and_ends_no_pause() {
    let volume = Volume::local();
    let mount = volume.mount();
    volume.try_verb("pause", &mount.dir, &[]).ok();
    fs::write(mount.path("file"), "waits").unwrap();
    let is_paused = || mount.status()["mounts"][0]["limits"]["is_paused"] == true;
    for (verb, words) in [
        ("sync", "interrupted; the mount goes on saving"),
        ("umount", "interrupted; it stays mounted, and goes on saving"),
    ] {
        // The last commit of an unmount, which ends the pause, waits for a bucket that is not there.
        let hidden = (verb == "umount").then(|| volume.bucket().with_extension("hidden"));
        hidden.iter().for_each(|hidden| fs::rename(volume.bucket(), hidden).unwrap());
        let mut waiting = volume.coffer([verb, "--progress", "json"]);
        let mut child = waiting.arg(&mount.dir).stderr(Stdio::piped()).spawn().unwrap();
        // The mount tells how far it is.
        let mut told = BufReader::new(child.stderr.take().unwrap());
        let mut said = String::new();
        while !said.contains("\"step\"") {
            assert!(told.read_line(&mut said).unwrap() > 0, "{verb}: {said}");
        }
        kill_process(Pid::from_child(&child), Signal::INT).unwrap();
        let (ended, late) = wait_within(&mut child, PATIENCE);
        assert!(!late && ended.code() == Some(130), "{verb}: {ended}");
        told.read_to_string(&mut said).unwrap();
        assert!(said.contains(words), "{verb}: {said}");
        wait_until("the pause goes on", PATIENCE, is_paused);
        assert!(mount.is_mounted());
        hidden.iter().for_each(|hidden| fs::rename(hidden, volume.bucket()).unwrap());
    }
    volume.try_verb("resume", &mount.dir, &[]).ok();
    mount.unmount();
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"waits");
    mount.unmount();
}

#[test]
fn a_pause_with_a_time_ends_by_itself() {
    let volume = Volume::local();
    let mount = volume.mount();
    let mut pause = volume.coffer(["pause", "--for", "1s"]);
    pause.arg(&mount.dir);
    run(pause).ok();
    fs::write(mount.path("file"), "waits a second").unwrap();
    mount.sync();
    wait_until("everything is safe", PATIENCE, || mount.status()["is_safe"] == true);
    mount.unmount();
}

#[test]
fn limits_are_set_shown_and_taken_away_while_the_mount_runs() {
    let volume = Volume::local();
    let mount = volume
        .mount_spec()
        .args(&["--upload-limit", "00:00-24:00=3M,else=off", "-o", "download-limit=5M"])
        .mount();
    let limits = || mount.status()["mounts"][0]["limits"].clone();
    let first = limits();
    assert_eq!(
        (&first["upload"], &first["upload_rate"]),
        (&"00:00-24:00=3M,else=off".into(), &(3 << 20).into()),
        "{first}"
    );
    assert_eq!(first["download_rate"], 5 << 20, "{first}");
    let shown = volume.try_verb("limit", &mount.dir, &[]).ok();
    assert!(
        shown.text().contains("upload 3.0 MiB/s (00:00-24:00=3M,else=off); download 5.0 MiB/s (5M)"),
        "{shown}"
    );
    volume.try_verb("limit", &mount.dir, &["--upload", "off"]).ok();
    let second = limits();
    assert_eq!((&second["upload"], &second["upload_rate"]), (&Value::Null, &Value::Null), "{second}");
    assert_eq!(second["download_rate"], 5 << 20, "what is not named stays: {second}");
    let wrong = volume.try_verb("limit", &mount.dir, &["--upload", "1K"]);
    assert!(wrong.code() == 2 && wrong.stderr.contains("the least is 64.0 KiB"), "{wrong}");
    mount.unmount();
}
