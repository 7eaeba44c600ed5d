//! A mount that is seen under another path than the one it was made at: bound, or moved with the directory that holds it.

use std::fs;
use std::path::{Path, PathBuf};

use crate::support::command::{command, run, run_ok};
use crate::support::tree::is_root;
use crate::support::volume::Volume;

/// Taken away with the test, whatever becomes of it.
struct Place(PathBuf);

impl Drop for Place {
    fn drop(&mut self) {
        let _ = command("umount", ["-i", "-l", self.0.to_str().unwrap()]).output();
    }
}

fn mount(words: &[&str], place: &Path) -> Place {
    let mut mount = command("mount", words);
    mount.arg(place);
    run(mount).ok();
    Place(place.to_owned())
}

fn is_mounted(place: &Path) -> bool {
    run(command("mountpoint", ["-q", place.to_str().unwrap()])).status.success()
}

#[test]
fn a_mount_is_addressed_by_any_of_its_places_and_ends_with_the_last() {
    if !is_root() {
        return println!("only root can bind a mount");
    }
    let volume = Volume::local();
    let mounted = volume.mount();
    let copy = volume.new_dir("copy");
    fs::create_dir(mounted.path("dir")).unwrap();
    let place = mount(&["--bind", mounted.dir.to_str().unwrap()], &copy);
    volume.try_verb("sync", &copy.join("dir"), &[]).ok();
    let status = volume.try_verb("status", &copy, &["--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["mounts"][0]["mount"]["mountpoint"], mounted.dir.to_str().unwrap());

    let finished = volume.try_verb("umount", &mounted.dir, &[]);
    assert_eq!(finished.code(), 31, "{finished}");
    assert!(finished.stderr.contains(&format!("is also mounted at {}", copy.display())), "{finished}");
    assert!(mounted.is_mounted() && is_mounted(&copy));
    let finished = volume.try_verb("umount", &copy.join("dir"), &[]);
    assert_eq!(finished.code(), 24, "{finished}");

    let finished = volume.try_verb("umount", &copy, &[]).ok();
    assert!(finished.stderr.contains("still mounted at"), "{finished}");
    assert!(mounted.is_mounted() && !is_mounted(&copy));
    drop(place);
    mounted.unmount();
}

#[test]
fn a_mount_whose_directory_was_renamed_is_found_and_unmounted() {
    let volume = Volume::local();
    let (before, after) = (volume.new_dir("before"), volume.new_dir("after"));
    let (made_at, point) = (before.join("m"), after.join("m"));
    fs::create_dir(&made_at).unwrap();
    let mut coffer = volume.coffer(["mount", "--commit-age", "1h", &volume.url]);
    coffer.arg(&made_at).arg("--passphrase-file").arg(volume.passphrase_file());
    coffer.arg("--state-dir").arg(volume.new_dir("state"));
    run(coffer).ok();
    let _place = Place(point.clone());
    fs::rename(&before, &after).unwrap();
    fs::write(point.join("file"), "safe").unwrap();
    volume.try_verb("sync", &point, &[]).ok();
    volume.try_verb("umount", &point, &[]).ok();
    assert!(!is_mounted(&point));
    let again = volume.mount();
    assert_eq!(fs::read_to_string(again.path("file")).unwrap(), "safe");
    again.unmount();
}

#[test]
fn what_is_mounted_inside_a_mount_is_named_when_it_keeps_it_busy() {
    if !is_root() {
        return println!("only root can mount a tmpfs");
    }
    let volume = Volume::local();
    let mounted = volume.mount();
    let inside = mounted.path("inside");
    fs::create_dir(&inside).unwrap();
    let place = mount(&["-t", "tmpfs", "none"], &inside);
    let finished = volume.try_verb("umount", &mounted.dir, &[]);
    assert_eq!(finished.code(), 31, "{finished}");
    assert!(finished.stderr.contains(&format!("{} is mounted inside", inside.display())), "{finished}");
    run_ok("umount", [inside.to_str().unwrap()]);
    drop(place);
    mounted.unmount();
}
