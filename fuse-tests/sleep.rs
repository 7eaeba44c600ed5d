//! A machine that sleeps and wakes, and a clock that is set while a mount is at work: neither changes anything.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::process::Signal;

use crate::support::command::{run, wait_until};
use crate::support::mount::Mount;
use crate::support::servers;
use crate::support::volume::Volume;

/// The time of day becomes what a file beside the state folder says; the clock that only goes on stays as it is.
const WITH_A_CLOCK_TO_SET: &str = r#"
for word; do
  [ "$before" != --state-dir ] || export FAKETIME_TIMESTAMP_FILE="$word.clock"
  before=$word
done
export LD_PRELOAD="$(echo /usr/lib/*/faketime/libfaketimeMT.so.1)" FAKETIME_NO_CACHE=1 FAKETIME_DONT_FAKE_MONOTONIC=1
exec "$@"
"#;
const DAY_SECS: i64 = 24 * 3600;
const COMMITTED_WITHIN: Duration = Duration::from_secs(60);

fn set_clock(mount: &Mount<'_>, days: i64) {
    fs::write(mount.state_dir.with_extension("clock"), format!("{days:+}d\n")).unwrap();
}

fn write_synced(path: &Path, contents: &str) -> std::io::Result<()> {
    let mut file = File::create(path)?;
    file.write_all(contents.as_bytes())?;
    file.sync_all()
}

/// > **Clocks.** Setting the clock
/// > changes no more than the times of files.
#[test]
fn a_clock_that_is_set_changes_nothing_but_times() {
    let volume = Volume::local();
    let mount = volume.mount_spec().wrapped_in(WITH_A_CLOCK_TO_SET).mount();
    let names = [400_i64, 0, -400, 3, 0];
    for (number, days) in names.into_iter().enumerate() {
        set_clock(&mount, days);
        write_synced(&mount.path(format!("synced{number}")), "synced").unwrap();
        // What is dead by the clock of a year hence is garbage at once.
        fs::write(mount.path("again"), vec![number as u8; 100_000]).unwrap();
        fs::write(mount.path(format!("left{number}")), "left to a commit by age").unwrap();
        wait_until("a commit by age", COMMITTED_WITHIN, || mount.status()["is_safe"] == true);

        let made = fs::metadata(mount.path(format!("left{number}"))).unwrap().mtime();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as i64;
        let ahead = made - now;
        assert!(
            (ahead - days * DAY_SECS).abs() < DAY_SECS / 2,
            "the clock of the mount was not set: {ahead} s"
        );
        let status = mount.status();
        assert!(status["mounts"][0]["store"]["outage"].is_null(), "{status}");
    }
    mount.unmount();

    let mount = volume.mount();
    for number in 0..names.len() {
        assert_eq!(fs::read(mount.path(format!("synced{number}"))).unwrap(), b"synced");
        assert_eq!(fs::read(mount.path(format!("left{number}"))).unwrap(), b"left to a commit by age");
    }
    assert!(fs::read(mount.path("again")).unwrap() == vec![names.len() as u8 - 1; 100_000]);
    mount.unmount();
    let mut check = volume.coffer(["check", "--read-data", &volume.url, "--passphrase-file"]);
    check.arg(volume.passphrase_file());
    run(check).ok();
}

/// > **Sleep.** A machine that sleeps goes on where it was when it wakes: what was on its way is asked for again.
#[test]
fn a_machine_that_sleeps_goes_on_where_it_was() {
    let mut server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let mount = volume.mount();
    let dir = mount.dir.clone();
    let (told, seen) = std::sync::mpsc::channel();
    let writer = std::thread::spawn(move || {
        for number in 0_u32..40 {
            write_synced(&dir.join(number.to_string()), &"synced".repeat(number as usize * 1000))?;
            let _ = told.send(number);
        }
        std::io::Result::Ok(())
    });
    // In the middle of its work it is stopped, and none of its connections is there any more when it goes on.
    seen.iter().find(|number| *number == 7).unwrap();
    mount.signal(Signal::STOP);
    server.kill();
    server.start_again();
    mount.signal(Signal::CONT);
    writer.join().unwrap().expect("no write notices");
    assert_eq!(mount.status()["is_safe"], true);
    mount.unmount();

    let mount = volume.mount();
    for number in 0..40 {
        let found = fs::read_to_string(mount.path(number.to_string())).unwrap();
        assert!(found == "synced".repeat(number * 1000), "{number}");
    }
    mount.unmount();
}

/// > Ages are counted by a clock that nobody sets. The big providers refuse requests of a machine
/// > whose clock is a quarter of an hour wrong, which is an outage by the name `denied` until it is right.
#[test]
fn a_clock_that_the_store_does_not_accept_is_an_outage_until_it_is_right() {
    let server = servers::seaweedfs();
    let volume = Volume::on(&server);
    let mount = volume.mount_spec().wrapped_in(WITH_A_CLOCK_TO_SET).mount();
    set_clock(&mount, 1);
    let path = mount.path("file");
    let writer = std::thread::spawn(move || write_synced(&path, "synced"));
    wait_until("an outage", COMMITTED_WITHIN, || mount.status()["mounts"][0]["store"]["outage"] == "denied");
    wait_until("the log tells why, and how much waits", COMMITTED_WITHIN, || {
        mount.said().contains("6 B wait for it: this machine's clock is wrong, says the provider")
    });
    set_clock(&mount, 0);
    writer.join().unwrap().expect("it is only late");
    wait_until("the log tells of the end", COMMITTED_WITHIN, || mount.said().contains("answers again"));
    mount.unmount();
}
