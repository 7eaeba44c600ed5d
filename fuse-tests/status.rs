//! What `coffer status` says of a mount, and that the page says what it means.

use std::collections::BTreeSet;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::Stdio;
use std::time::Duration;

use serde_json::Value;

use crate::support::command::{run, wait_until, wait_within};
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATING: &str = include_str!("../docs/OPERATING.md");
/// What is there only where there is something to tell: what lies beneath is not looked for.
const SOMETIMES: [&str; 2] = ["mounts[].cost.", "mounts[].volume.rescue."];

/// Every name in `value`, as the page writes them.
fn names(value: &Value, at: &str, found: &mut BTreeSet<String>) {
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let at = if at.is_empty() { name.clone() } else { format!("{at}.{name}") };
                names(value, &at, found);
            }
        }
        Value::Array(values) if values.iter().any(Value::is_object) => {
            for value in values {
                names(value, &format!("{at}[]"), found);
            }
        }
        _ => drop(found.insert(at.to_owned())),
    }
}

#[test]
fn every_figure_of_the_status_is_documented_and_every_documented_one_is_there() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), [7; 100_000]).unwrap();
    let mut given = BTreeSet::new();
    names(&mount.status(), "", &mut given);
    mount.unmount();
    let (_, section) = OPERATING.split_once("### Figures\n").expect("the section");
    let section = section.split("\n##").next().unwrap();
    let mut documented = BTreeSet::new();
    for row in section.lines().filter_map(|line| line.strip_prefix("| `")) {
        let cell = row.split(" | ").next().unwrap();
        let cell_names: Vec<&str> =
            cell.split('`').filter(|part| !part.is_empty() && *part != ", ").collect();
        let (first, rest) = cell_names.split_first().unwrap();
        let stem = &first[..first.rfind('.').map_or(0, |dot| dot + 1)];
        documented.insert((*first).to_owned());
        documented.extend(rest.iter().map(|name| format!("{stem}{name}")));
    }
    let undocumented: Vec<_> = given
        .difference(&documented)
        .filter(|name| *name != "mounts[].cost" && *name != "mounts[].volume.rescue")
        .collect();
    assert!(undocumented.is_empty(), "not in docs/OPERATING.md: {undocumented:#?}");
    let missing: Vec<_> = documented
        .difference(&given)
        .filter(|name| !SOMETIMES.iter().any(|some| name.starts_with(some)))
        .collect();
    assert!(missing.is_empty(), "in docs/OPERATING.md only: {missing:#?}");
}

#[test]
fn the_queue_is_told_by_stage_and_age_while_the_bucket_is_away() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    fs::write(mount.path("first"), [1; 300_000]).unwrap();
    let volume_of = |status: &Value| status["mounts"][0]["volume"].clone();
    let before = volume_of(&mount.status());
    assert_eq!(before["queue"]["waiting_bytes"], 300_000, "{before}");
    assert_eq!(before["queue"]["committing_bytes"], 0);
    assert!(before["dirty_age"].as_f64().is_some_and(|age| age < 60.0), "{before}");

    fs::rename(&bucket, &hidden).unwrap();
    let mut syncing = volume.coffer(["sync"]).arg(&mount.dir).spawn().unwrap();
    wait_until("the commit is under way", PATIENCE, || {
        volume_of(&mount.status())["queue"]["committing_bytes"] == 300_000
    });
    fs::write(mount.path("later"), [2; 100_000]).unwrap();
    let status = mount.status();
    let during = volume_of(&status);
    assert_eq!(during["dirty_bytes"], 400_000, "{during}");
    assert_eq!(during["queue"]["waiting_bytes"], 100_000, "{during}");
    let (oldest, newest) =
        (during["dirty_age"].as_f64().unwrap(), during["queue"]["waiting_age"].as_f64().unwrap());
    assert!(oldest >= newest, "what is being committed is older than what waits: {during}");
    assert_eq!(
        during["queue"]["committing_age"], during["dirty_age"],
        "the oldest is what a commit cannot bring in"
    );
    let ages: u64 = during["queue"]["ages"]
        .as_array()
        .unwrap()
        .iter()
        .map(|class| class["bytes"].as_u64().unwrap())
        .sum();
    assert_eq!(ages, 400_000, "{during}");
    assert_eq!(status["mounts"][0]["time_left"], Value::Null, "nobody knows while nothing goes: {status}");

    fs::rename(&hidden, &bucket).unwrap();
    let (ended, late) = wait_within(&mut syncing, PATIENCE);
    assert!(ended.success() && !late, "{ended}");
    mount.sync();
    let after = volume_of(&mount.status());
    assert_eq!((&after["dirty_bytes"], &after["dirty_age"]), (&Value::from(0), &Value::Null));
    mount.unmount();
}

#[test]
fn status_and_sync_take_any_path_inside_a_mount_and_none_outside_and_umount_takes_none() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::create_dir_all(mount.path("a/b")).unwrap();
    fs::write(mount.path("a/b/file"), "x").unwrap();
    for inside in ["a", "a/b", "a/b/file", "a/../a/b/."] {
        for verb in ["status", "sync"] {
            let finished = volume.try_verb(verb, &mount.path(inside), &[]);
            assert!([0, 23].contains(&finished.code()), "{finished}");
        }
    }
    // As umount(8), not from within; and what is seen there is the volume's, not its bucket's.
    let refused = volume.try_verb("umount", &mount.path("a/b"), &[]);
    assert_eq!(refused.code(), 24, "{refused}");
    assert!(refused.stderr.contains("a/b is not a mount point"), "{refused}");
    let no_bucket = run(volume.coffer(["ls", mount.path("a").to_str().unwrap()]));
    assert!(no_bucket.stderr.contains(&format!("{} is mounted there", volume.url)), "{no_bucket}");
    let outside = volume.try_verb("status", mount.dir.parent().unwrap(), &[]);
    assert_eq!(outside.code(), 24, "{outside}");
    mount.unmount();
}

#[test]
fn a_watch_ends_as_soon_as_everything_is_in_the_bucket() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount();
    fs::rename(&bucket, &hidden).unwrap();
    fs::write(mount.path("file"), "for the bucket").unwrap();
    let mut watch = volume.coffer(["status", "--watch=100ms", "--until-safe"]);
    let mut watch = watch.arg(&mount.dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(watch.stdout.take().unwrap()).lines();
    for _ in 0..3 {
        let line = lines.next().unwrap().unwrap();
        assert!(line.contains("Not safe yet. "), "a line each time: {line}");
    }
    fs::rename(&hidden, &bucket).unwrap();
    let last = lines.map(Result::unwrap).last().unwrap();
    assert!(last.ends_with("Safe: everything written is in the bucket."), "{last}");
    let (ended, late) = wait_within(&mut watch, PATIENCE);
    assert!(ended.success() && !late, "{ended}");

    let mut json = volume.coffer(["status", "--watch=100ms", "--json"]);
    let mut json = json.arg(&mount.dir).stdout(Stdio::piped()).spawn().unwrap();
    let mut lines = BufReader::new(json.stdout.take().unwrap()).lines();
    for _ in 0..2 {
        let seen: Value = serde_json::from_str(&lines.next().unwrap().unwrap()).unwrap();
        assert_eq!(seen["is_safe"], true);
    }
    let pid = rustix::process::Pid::from_child(&json);
    rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
    let (ended, late) = wait_within(&mut json, PATIENCE);
    assert!(!late && ended.code() == Some(130), "{ended}");
    mount.unmount();
    let mut gone = volume.coffer(["status", "--watch", "--until-safe"]);
    gone.arg(volume.bucket());
    assert_eq!(run(gone).code(), 24, "what is not mounted is not watched");
}
