//! A mount that another one took over: what it had not sent comes back byte for byte, and the newer state stays.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::Path;
use std::sync::mpsc;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::process::Signal;

use crate::support::command::{Finished, run, wait_until};
use crate::support::mount::Mount;
use crate::support::volume::Volume;

/// The documented exit codes of a mount that was taken over, and of nothing to recover.
const TAKEN_OVER: i32 = 30;
const NOTHING_TO_RECOVER: i32 = 47;

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

fn recover(volume: &Volume, state_dir: &Path, args: &[&str]) -> Finished {
    let mut coffer = volume.coffer(["recover", &volume.url, "--passphrase-file"]);
    coffer.arg(volume.passphrase_file()).arg("--state-dir").arg(state_dir).args(args);
    run(coffer)
}

/// Every file below `dir`: its path and contents.
fn files(dir: &Path) -> BTreeMap<String, Vec<u8>> {
    let mut found = BTreeMap::new();
    let mut waiting = vec![dir.to_owned()];
    while let Some(at) = waiting.pop() {
        for entry in fs::read_dir(at).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                waiting.push(path);
            } else {
                let below = path.strip_prefix(dir).unwrap().to_str().unwrap().to_owned();
                found.insert(below, fs::read(&path).unwrap());
            }
        }
    }
    found
}

/// Waits until the mount knows that it was taken over and has kept what it had.
fn wait_until_kept(mount: &Mount<'_>) -> serde_json::Value {
    let rescue = |status: &serde_json::Value| status["mounts"][0]["volume"]["rescue"].clone();
    wait_until("the first mount has kept what it had", Duration::from_secs(120), || {
        !rescue(&mount.status()).is_null()
    });
    rescue(&mount.status())
}

/// > from its next commit on changes through the first fail with `EROFS`, and it shows what it showed before. What it had not sent
/// > it keeps, sealed, in its state folder, before it ends (code 30): `coffer recover` gives it back, whole files with
/// > attributes, and the rest in words.
#[test]
fn what_a_mount_had_not_sent_when_it_was_taken_over_is_recovered_byte_for_byte() {
    let volume = Volume::local();
    let state = volume.new_dir("first");
    let first = volume.mount_spec().state_dir(&state).args(&["--commit-age", "1h"]).mount();
    fs::create_dir(first.path("dir")).unwrap();
    let old = noise(1, 400_000);
    fs::write(first.path("dir/changed"), &old).unwrap();
    fs::write(first.path("dir/renamed"), "as it was").unwrap();
    fs::write(first.path("kept"), noise(2, 300_000)).unwrap();
    first.sync();

    let mut wanted = old;
    wanted[70_000..70_007].copy_from_slice(b"changed");
    File::options()
        .write(true)
        .open(first.path("dir/changed"))
        .unwrap()
        .write_all_at(b"changed", 70_000)
        .unwrap();
    fs::write(first.path("dir/new"), noise(3, 9_000_000)).unwrap();
    fs::set_permissions(first.path("dir/new"), fs::Permissions::from_mode(0o751)).unwrap();
    fs::rename(first.path("dir/renamed"), first.path("elsewhere")).unwrap();
    let shown = files(&first.dir);

    // The first sleeps, as a laptop does; meanwhile another takes over and goes on.
    first.signal(Signal::STOP);
    let second = volume.mount_spec().args(&["--takeover"]).mount();
    fs::write(second.path("dir/changed"), "of the second").unwrap();
    fs::remove_file(second.path("kept")).unwrap();
    second.sync();
    let newer = files(&second.dir);
    first.signal(Signal::CONT);

    let synced = File::open(first.path("dir/new")).unwrap().sync_all().unwrap_err();
    assert_eq!(synced.raw_os_error(), Some(libc::EROFS));
    let refused = fs::write(first.path("late"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    let rescue = wait_until_kept(&first);
    assert_eq!(rescue["is_saved"], true, "{rescue}");
    assert_eq!((&rescue["files"], &rescue["changes"]), (&2.into(), &1.into()), "{rescue}");
    assert!(rescue["paths"].to_string().contains("dir/new"), "{rescue}");
    assert_eq!(files(&first.dir), shown, "the fenced mount reads as before");
    let ended = volume.try_verb("umount", &first.dir, &[]);
    assert_eq!(ended.code(), TAKEN_OVER, "{ended}");
    assert!(ended.stderr.contains("coffer recover"), "{ended}");
    first.wait_until_gone();
    drop(first);
    assert_eq!(files(&second.dir), newer, "the successor's files are untouched");

    let listed = recover(&volume, &state, &["--list"]).ok().text();
    for told in ["2 files", "dir/changed", "dir/new", "renamed: dir/renamed -> elsewhere"] {
        assert!(listed.contains(told), "{told} is not in {listed}");
    }
    let target = volume.new_dir("recovered");
    recover(&volume, &state, &["--to", target.to_str().unwrap()]).ok();
    let want =
        BTreeMap::from([("dir/changed".to_owned(), wanted), ("dir/new".to_owned(), noise(3, 9_000_000))]);
    assert!(files(&target) == want, "{:?}", files(&target).keys());
    assert_eq!(fs::metadata(target.join("dir/new")).unwrap().permissions().mode() & 0o7777, 0o751);
    let again = recover(&volume, &state, &["--to", target.to_str().unwrap()]);
    assert_eq!(again.code(), 27, "nothing is written over what is there: {again}");

    // Who mounts again on that machine is told, until it is discarded.
    second.unmount();
    let third = volume.mount_spec().state_dir(&state).mount();
    assert_eq!(third.status()["mounts"][0]["to_recover"], 1);
    assert_eq!(files(&third.dir), newer);
    recover(&volume, &state, &["--discard"]).ok();
    assert_eq!(third.status()["mounts"][0]["to_recover"], 0);
    assert_eq!(recover(&volume, &state, &[]).code(), NOTHING_TO_RECOVER);
    third.unmount();
}

/// The longest outage is no excuse: what waited through it is kept as well.
#[test]
fn what_waited_for_an_absent_bucket_is_kept_when_another_took_over_meanwhile() {
    let volume = Volume::local();
    let state = volume.new_dir("first");
    let args = ["--fault", "seed=1,outage=5s+45s", "--commit-age", "1h", "--read-timeout", "5s"];
    let first = volume.mount_spec().state_dir(&state).args(&args).mount();
    let path = first.path("file");
    let (tell, told) = mpsc::channel();
    let writer = std::thread::spawn(move || {
        // Over and over, until one is caught by the outage.
        for version in 0.. {
            fs::write(&path, noise(version, 200_000)).unwrap();
            tell.send(version).unwrap();
            if let Err(error) = File::open(&path).unwrap().sync_all() {
                return (version, error);
            }
        }
        unreachable!("there is an outage");
    });
    let mut caught = told.recv().unwrap();
    while let Ok(version) = told.recv_timeout(Duration::from_secs(5)) {
        caught = version;
    }
    let second = volume.mount_spec().args(&["--takeover"]).mount();
    fs::write(second.path("file"), "of the second").unwrap();
    second.sync();
    let (version, error) = writer.join().unwrap();
    assert_eq!((version, error.raw_os_error()), (caught, Some(libc::EROFS)));
    assert_eq!(wait_until_kept(&first)["is_saved"], true);
    assert!(fs::read(first.path("file")).unwrap() == noise(version, 200_000));
    assert_eq!(volume.try_verb("umount", &first.dir, &[]).code(), TAKEN_OVER);
    first.wait_until_gone();
    drop(first);
    let target = volume.new_dir("recovered");
    recover(&volume, &state, &["--to", target.to_str().unwrap()]).ok();
    assert!(files(&target) == BTreeMap::from([("file".to_owned(), noise(version, 200_000))]));
    assert_eq!(fs::read_to_string(second.path("file")).unwrap(), "of the second");
    second.unmount();
}

#[test]
fn a_taken_over_mount_that_is_asked_to_end_keeps_first_what_it_had() {
    let volume = Volume::local();
    for how in [Signal::TERM, Signal::HUP] {
        let state = volume.new_dir("first");
        let args = ["--takeover", "--commit-age", "1h"];
        let first = volume.mount_spec().state_dir(&state).args(&args).mount();
        let mut file = File::create(first.path("file")).unwrap();
        file.write_all(&noise(5, 3_000_000)).unwrap();
        drop(file);
        let second = volume.mount_spec().args(&["--takeover"]).mount();
        first.signal(how);
        first.wait_until_gone();
        drop(first);
        let target = volume.new_dir("recovered");
        recover(&volume, &state, &["--to", target.to_str().unwrap()]).ok();
        assert!(fs::read(target.join("file")).unwrap() == noise(5, 3_000_000));
        assert!(!second.path("file").exists());
        second.unmount();
    }
}

#[test]
fn what_is_kept_shows_nothing_to_who_has_no_key() {
    let volume = Volume::local();
    let state = volume.new_dir("first");
    let first = volume.mount_spec().state_dir(&state).args(&["--commit-age", "1h"]).mount();
    fs::write(first.path("a telling name"), "a telling secret".repeat(5000)).unwrap();
    let second = volume.mount_spec().args(&["--takeover"]).mount();
    first.signal(Signal::TERM);
    first.wait_until_gone();
    let log = fs::read(&first.log).unwrap();
    drop(first);
    second.unmount();
    let mut kept = files(&state);
    assert!(kept.keys().any(|path| path.contains("/unsent/")), "{:?}", kept.keys());
    kept.insert("the log".to_owned(), log);
    for (path, bytes) in kept {
        for plain in [&b"telling"[..], b"secret"] {
            assert!(!bytes.windows(plain.len()).any(|window| window == plain), "{path} holds plaintext");
        }
    }
}

#[test]
fn a_mount_that_had_sent_everything_says_so_when_another_has_taken_over() {
    let volume = Volume::local();
    let first = volume.mount_spec().state_dir(&volume.new_dir("first")).mount();
    fs::write(first.path("file"), "sent").unwrap();
    first.sync();
    let second = volume.mount_spec().args(&["--takeover"]).mount();
    fs::write(second.path("file"), "of the second").unwrap();
    second.sync();
    first.signal(Signal::TERM);
    first.wait_until_gone();
    let log = fs::read_to_string(&first.log).unwrap();
    assert!(log.contains("everything had been sent"), "{log}");
    assert!(!log.contains("not everything"), "{log}");
    drop(first);
    second.unmount();
}
