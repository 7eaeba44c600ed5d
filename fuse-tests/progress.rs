//! Long work says how far it is: on a signal, in a log, to programs. And reading ahead of use.

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Stdio};
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{run, wait_until, wait_within};
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATING: &str = include_str!("../docs/OPERATING.md");

fn lines_of(child: &mut Child) -> impl Iterator<Item = String> + use<> {
    BufReader::new(child.stderr.take().unwrap()).lines().map(Result::unwrap)
}

#[test]
fn a_sync_that_waits_tells_programs_and_whoever_asks_by_a_signal_how_far_it_is() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    fs::write(mount.path("file"), vec![1; 1_048_576]).unwrap();
    fs::rename(&bucket, &hidden).unwrap();

    let start = |args: &[&str]| {
        let mut sync = volume.coffer(args);
        sync.arg(&mount.dir).stderr(Stdio::piped()).spawn().unwrap()
    };
    let mut json = start(&["sync", "--progress", "json"]);
    let mut objects = lines_of(&mut json);
    // Until the mount has found out, it is saving.
    let told = objects.by_ref().take(1000).map(|line| serde_json::from_str::<Value>(&line).unwrap());
    let object = told.into_iter().find(|object| object["step"] != "saving").expect("it says that it waits");
    let why = Value::from("waiting, because the store does not answer");
    assert_eq!((&object["step"], &object["total_bytes"]), (&why, &1_048_576.into()), "{object}");
    assert_eq!(object["is_done"], false);
    let (_, section) = OPERATING.split_once("## Long work").expect("the section");
    let section = section.split("\n## ").next().unwrap();
    for name in object.as_object().unwrap().keys() {
        assert!(section.contains(&format!("`{name}`")), "{name} is not in docs/OPERATING.md");
    }

    let mut quiet = start(&["sync"]);
    let mut told = lines_of(&mut quiet);
    // Until it listens, the signal would end it.
    let pid = Pid::from_child(&quiet);
    wait_until("it listens", PATIENCE, || catches(pid, Signal::USR1));
    // It listens before the mount has told it how far it is; then it says so and is asked again.
    let line = std::iter::repeat_with(|| {
        kill_process(pid, Signal::USR1).unwrap();
        told.next().unwrap()
    });
    let line = line
        .take(1000)
        .find(|line| line.contains("waiting, because"))
        .expect("a line that tells how far it is");
    assert!(line.contains("0 B of 1.0 MiB"), "{line}");

    fs::rename(&hidden, &bucket).unwrap();
    let last = objects.filter_map(|line| serde_json::from_str::<Value>(&line).ok()).last().unwrap();
    assert_eq!((&last["is_done"], &last["bytes"]), (&true.into(), &1_048_576.into()), "{last}");
    for child in [&mut json, &mut quiet] {
        let (ended, late) = wait_within(child, PATIENCE);
        assert!(ended.success() && !late, "{ended}");
    }
    mount.signal(Signal::USR1);
    wait_until("the mount says how it is", PATIENCE, || {
        mount.said().contains("Safe: everything written is in the bucket.")
    });
    mount.unmount();
}

/// Whether a process handles a signal by itself.
fn catches(pid: Pid, signal: Signal) -> bool {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.as_raw_nonzero())).unwrap_or_default();
    let mask = status.lines().find_map(|line| line.strip_prefix("SigCgt:")).unwrap_or("0");
    u64::from_str_radix(mask.trim(), 16).is_ok_and(|mask| mask & (1 << (signal.as_raw() - 1)) != 0)
}

#[test]
fn a_tree_that_was_warmed_is_read_without_asking_the_bucket() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::create_dir(mount.path("dir")).unwrap();
    for number in 0..8 {
        fs::write(mount.path(format!("dir/file{number}")), vec![number; 300_000]).unwrap();
    }
    mount.unmount();
    let mount = volume.mount();
    let gets = || mount.status()["mounts"][0]["store"]["gets"].as_u64().unwrap();
    let before = gets();
    let warmed = volume.try_verb("warm", &mount.path("dir"), &["--contents"]).ok();
    assert!(warmed.stderr.contains("warmed 8 files, 2.3 MiB in "), "{warmed}");
    let after = gets();
    assert!(after > before, "warming reads from the bucket");
    for number in 0..8 {
        assert_eq!(fs::read(mount.path(format!("dir/file{number}"))).unwrap(), vec![number; 300_000]);
    }
    assert_eq!(gets(), after, "what was warmed is in memory");
    assert_eq!(volume.try_verb("warm", &volume.bucket(), &[]).code(), 24, "no mount is there");
    let mut names_only = volume.coffer(["warm"]);
    names_only.arg(&mount.dir);
    assert!(run(names_only).ok().stderr.contains("warmed 9 files, 0 B in "));
    mount.unmount();
}
