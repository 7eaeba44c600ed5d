//! pjdfstest: what POSIX says of each call, its errors and the times it changes.

use std::os::unix::fs::{PermissionsExt, chown, symlink};
use std::path::Path;

use crate::support::command::{Finished, command, run, run_ok};
use crate::support::servers::tool;
use crate::support::volume::Volume;

/// Two users that every Debian machine has, and all features but those of other systems (file flags, NFSv4 ACLs).
const CONFIGURATION: &str = r#"
[features]
posix_fallocate = {}
rename_ctime = {}
stat_st_birthtime = {}
utime_now = {}
utimensat = {}
[settings]
naptime = 0.001
allow_remount = REMOUNT
[dummy_auth]
entries = [["daemon", "daemon"], ["bin", "bin"]]
"#;
const DAEMON: u32 = 1;

/// mount(8) without its helper program: nothing is installed on this machine for a volume that is mounted already.
const MOUNT: &str = "#!/bin/sh\nexec /bin/mount -i \"$@\"\n";

/// Runs the cases that `filter` names in `place`, with `runner` before the command line.
fn cases(volume: &Volume, place: &Path, runner: &[&str], filter: Option<&str>) -> Finished {
    let tools = volume.new_dir("pjdfstest");
    let binary = tools.join("pjdfstest");
    std::fs::copy(tool("bin/pjdfstest"), &binary).unwrap();
    let configuration = tools.join("configuration.toml");
    let text = CONFIGURATION.replace("REMOUNT", if filter == Some("erofs") { "true" } else { "false" });
    std::fs::write(&configuration, text).unwrap();
    std::fs::write(tools.join("mount"), MOUNT).unwrap();
    std::fs::set_permissions(tools.join("mount"), PermissionsExt::from_mode(0o755)).unwrap();
    let elsewhere = volume.new_dir("elsewhere");
    std::fs::set_permissions(&elsewhere, PermissionsExt::from_mode(0o777)).unwrap();
    // The path of a socket has room for 108 bytes, of which the suite's own names take about half. A mount point that is
    // to be remounted must go by its own name.
    let short = tempfile::Builder::new().prefix("c").rand_bytes(4).tempdir_in("/tmp").unwrap();
    std::fs::set_permissions(short.path(), PermissionsExt::from_mode(0o711)).unwrap();
    let link = short.path().join("p");
    symlink(place, &link).unwrap();
    let place = if filter == Some("erofs") { place } else { &link };
    let mut words = runner.to_vec();
    words.push(binary.to_str().unwrap());
    let mut suite = command(words[0], &words[1..]);
    suite.arg("-c").arg(&configuration).arg("-p").arg(place).arg("-s").arg(&elsewhere).args(filter);
    suite.env("PATH", format!("{}:{}", tools.display(), std::env::var("PATH").unwrap())).current_dir("/");
    run(suite)
}

/// How many cases failed, were skipped, and passed, by the suite's own count.
fn counts(finished: &Finished) -> (u32, u32, u32) {
    let text = finished.text();
    let summary = text.lines().find_map(|line| line.strip_prefix("Summary: "));
    let summary = summary.unwrap_or_else(|| panic!("no summary: {finished}"));
    let count = |what: &str| {
        let part = summary.split(", ").find(|part| part.ends_with(what)).unwrap();
        part.split(' ').next().unwrap().parse().unwrap()
    };
    println!("pjdfstest: {summary}");
    (count(" failed"), count(" skipped"), count(" passed"))
}

fn skipped(finished: &Finished) -> Vec<String> {
    let text = finished.text();
    let lines = text.lines().filter(|line| line.trim_end().ends_with("skipped"));
    lines.filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
}

fn failures(finished: &Finished) -> String {
    let text = finished.text();
    text.lines()
        .filter(|line| line.contains("FAILED") || line.contains("assertion"))
        .collect::<Vec<_>>()
        .join("\n")
}

#[test]
fn every_case_passes_for_the_superuser() {
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_other,suid,dev"]).mount();
    let finished = cases(&volume, &mount.dir, &["env"], None);
    let (failed, _, passed) = counts(&finished);
    assert_eq!(failed, 0, "{}", failures(&finished));
    assert!(passed >= 384, "{passed}");
    // Remounting is in a run of its own: on any filesystem it fails with EBUSY once the suite has run other cases in the same
    // process, as that keeps deleted files open.
    let unexpected: Vec<String> =
        skipped(&finished).into_iter().filter(|name| !name.contains("erofs")).collect();
    assert_eq!(unexpected, ["link::link_count_max"]);
    let read_only = cases(&volume, &mount.dir, &["env"], Some("erofs"));
    let (failed, skipped, passed) = counts(&read_only);
    assert_eq!((failed, skipped), (0, 0), "{}", failures(&read_only));
    assert!(passed >= 13, "{passed}");
    mount.unmount();
}

#[test]
fn every_case_that_needs_no_superuser_passes_for_another_user() {
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_other,suid,dev"]).mount();
    let place = mount.path("d");
    std::fs::create_dir(&place).unwrap();
    chown(&place, Some(DAEMON), Some(DAEMON)).unwrap();
    let runner = ["setpriv", "--reuid", "1", "--regid", "1", "--clear-groups", "--"];
    let finished = cases(&volume, &place, &runner, None);
    let (failed, _, passed) = counts(&finished);
    assert_eq!(failed, 0, "{}", failures(&finished));
    assert!(passed >= 254, "{passed}");
    run_ok("find", ["-P".as_ref(), place.as_os_str()]);
    mount.unmount();
}
