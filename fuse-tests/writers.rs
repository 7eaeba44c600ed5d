//! One writer at a time, and readers beside it.

use std::fs::{self, File};
use std::time::Duration;

use crate::support::command::wait_until;
use crate::support::volume::Volume;

/// The documented exit code of a volume that another mount writes to.
const VOLUME_IN_USE: i32 = 18;

/// > **One mount writes.** A second one is refused (code 18), or takes over (`--takeover`)
#[test]
fn a_second_mount_is_refused_and_told_who_holds_the_volume() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), "x").unwrap();
    let Err(refused) = volume.mount_spec().try_mount() else { panic!("two mounts write to one volume") };
    assert_eq!(refused.code(), VOLUME_IN_USE, "{refused}");
    let host = fs::read_to_string("/proc/sys/kernel/hostname").unwrap();
    assert!(refused.stderr.contains(host.trim()), "the refusal does not say who: {refused}");
    assert!(refused.stderr.contains("--takeover"), "the refusal does not say what to do: {refused}");
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"x", "the refused mount disturbed the first");
    fs::write(mount.path("file"), "y").unwrap();
    mount.unmount();
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"y");
    mount.unmount();
}

/// > from its next commit on changes through the first fail with `EROFS`, and it shows what it showed before.
#[test]
fn a_mount_that_was_taken_over_turns_read_only_and_overwrites_nothing() {
    let volume = Volume::local();
    let first = volume.mount();
    fs::write(first.path("file"), "of the first").unwrap();
    first.sync();
    let second = volume.mount_spec().args(&["--takeover"]).mount();
    fs::write(second.path("file"), "of the second").unwrap();
    second.sync();
    let mut late = File::create(first.path("late")).ok();
    wait_until("the first mount refuses to write", Duration::from_secs(60), || {
        let written = fs::write(first.path("late"), "too late");
        let synced = late.as_mut().map_or(Ok(()), |late| late.sync_all());
        let refused = written.and(synced).err().and_then(|error| error.raw_os_error());
        refused == Some(rustix::io::Errno::ROFS.raw_os_error())
    });
    drop(late);
    // It holds data that can no longer be sent, so it may well say that it did not end well.
    first.end();
    second.unmount();
    let mount = volume.mount();
    assert_eq!(fs::read_to_string(mount.path("file")).unwrap(), "of the second");
    assert!(!mount.path("late").exists(), "the fenced mount wrote to the newer state");
    mount.unmount();
}

/// > **A reader** (`--read-only`) may run beside the writer.
#[test]
fn a_read_only_mount_follows_the_writer_and_changes_nothing() {
    let volume = Volume::local();
    let writer = volume.mount();
    fs::write(writer.path("before"), "1").unwrap();
    writer.sync();
    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    assert_eq!(fs::read_to_string(reader.path("before")).unwrap(), "1");
    let refused = fs::write(reader.path("mine"), "x").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(rustix::io::Errno::ROFS.raw_os_error()));
    fs::write(writer.path("before"), "2, and longer").unwrap();
    fs::create_dir(writer.path("dir")).unwrap();
    fs::write(writer.path("dir/after"), "3").unwrap();
    writer.sync();
    wait_until("the reader sees what was committed", Duration::from_secs(60), || {
        let read = |name: &str| fs::read_to_string(reader.path(name)).ok();
        read("before").as_deref() == Some("2, and longer") && read("dir/after").as_deref() == Some("3")
    });
    reader.unmount();
    writer.unmount();
}
