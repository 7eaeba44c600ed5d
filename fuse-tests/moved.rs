//! A mount that is seen under another path than the one it was made at: bound, or moved with the directory that holds it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use rustix::process::Signal;

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

/// Mounts a volume at `point`, with a state folder of its own.
fn mounting(volume: &Volume, point: &Path, state: &str) -> Command {
    let mut coffer = volume.coffer(["mount", "--commit-age", "1h", &volume.url]);
    coffer.arg(point).arg("--passphrase-file").arg(volume.passphrase_file());
    coffer.arg("--state-dir").arg(volume.new_dir(state));
    coffer
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
    run(mounting(&volume, &made_at, "state")).ok();
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

/// > When they succeed, everything is in the bucket
#[test]
fn a_copy_that_is_all_that_is_left_of_a_mount_is_busy_while_something_is_not_saved() {
    if !is_root() {
        return println!("only root can bind a mount");
    }
    let volume = Volume::local();
    let mounted = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let copy = volume.new_dir("copy");
    let place = mount(&["--bind", mounted.dir.to_str().unwrap()], &copy);
    run_ok("umount", ["-i", mounted.dir.to_str().unwrap()]);
    fs::write(copy.join("file"), "written to the copy").unwrap();
    let refused = run(command("umount", ["-i", copy.to_str().unwrap()]));
    assert!(!refused.status.success() && refused.stderr.contains("busy"), "{refused}");
    volume.try_verb("umount", &copy, &[]).ok();
    assert!(!is_mounted(&copy));
    drop(place);
    mounted.wait_until_gone();
    let again = volume.mount();
    assert_eq!(fs::read_to_string(again.path("file")).unwrap(), "written to the copy");
    again.unmount();
}

#[test]
fn of_two_volumes_at_one_place_the_one_that_shows_is_meant_whichever_was_mounted_last() {
    if !is_root() {
        return println!("only root can move a mount");
    }
    let (above, below) = (Volume::local(), Volume::local());
    // In the list of mounts, what was moved stands before what it was moved over.
    let (upper, lower) = (above.mount(), below.mount());
    fs::write(upper.path("which"), "upper").unwrap();
    fs::write(lower.path("which"), "lower").unwrap();
    let place = mount(&["--move", upper.dir.to_str().unwrap()], &lower.dir);
    let shown = || fs::read_to_string(lower.path("which")).unwrap();
    assert_eq!(shown(), "upper");
    let status = above.try_verb("status", &lower.dir, &["--json"]);
    let status: serde_json::Value = serde_json::from_slice(&status.stdout).unwrap();
    assert_eq!(status["mounts"][0]["mount"]["mountpoint"], upper.dir.to_str().unwrap());
    above.try_verb("umount", &lower.dir, &[]).ok();
    upper.wait_until_gone();
    assert_eq!(shown(), "lower");
    std::mem::forget(place);
    lower.unmount();
    let again = above.mount();
    assert_eq!(fs::read_to_string(again.path("which")).unwrap(), "upper");
    again.unmount();
}

#[test]
fn of_two_volumes_that_are_mounted_at_one_place_at_once_one_is_refused() {
    let volumes = [Volume::local(), Volume::local()];
    let place = volumes[0].new_dir("place");
    for round in 0..8 {
        let start = |volume: &Volume| mounting(volume, &place, &format!("state{round}"));
        let codes = std::thread::scope(|scope| {
            let mounting = volumes.each_ref().map(|volume| scope.spawn(|| run(start(volume)).code()));
            mounting.map(|mounting| mounting.join().unwrap())
        });
        let finished = volumes[0].try_verb("umount", &place, &[]).ok();
        assert!(!is_mounted(&place), "{codes:?}: {finished}");
        assert!(codes == [0, 19] || codes == [19, 0], "round {round}: {codes:?}");
    }
}

#[test]
fn of_several_mounts_to_be_unmounted_a_dead_one_stops_none() {
    let (volume, other) = (Volume::local(), Volume::local());
    let (dead, living) = (volume.mount(), other.mount());
    fs::write(living.path("file"), "saved").unwrap();
    dead.signal(Signal::KILL);
    dead.wait_until_gone();
    let mut umount = other.coffer(["umount"]);
    umount.args([&living.dir, &dead.dir]);
    let finished = run(umount);
    assert_eq!(finished.code(), 31, "{finished}");
    let said = &finished.stderr;
    assert!(
        said.contains("unmounted; everything is in the bucket") && said.contains("has died"),
        "{finished}"
    );
    assert!(!living.is_mounted() && !dead.is_mounted());
    living.wait_until_gone();
    let again = other.mount();
    assert_eq!(fs::read_to_string(again.path("file")).unwrap(), "saved");
    again.unmount();
}
