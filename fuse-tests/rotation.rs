//! The key of a volume is rotated beside a mount that reads it.

use std::fs;
use std::time::Duration;

use rustix::io::Errno;

use crate::support::command::{run, wait_until};
use crate::support::volume::Volume;

#[test]
fn a_mount_from_before_a_rotation_says_so_and_the_next_one_reads_and_writes() {
    let volume = Volume::local();
    let mount = volume.mount();
    fs::write(mount.path("file"), [7; 300_000]).unwrap();
    mount.unmount();
    let reader = volume.mount_spec().args(&["--read-only", "-o", "poll-interval=100ms"]).mount();
    assert_eq!(fs::read(reader.path("file")).unwrap(), [7; 300_000]);

    let mut rotate = volume.coffer(["key", "rotate", "--drop-others", "--passphrase-file"]);
    rotate.arg(volume.passphrase_file()).arg(&volume.url);
    run(rotate).ok();
    wait_until("the mount notices", Duration::from_secs(60), || fs::read(reader.path("file")).is_err());
    for error in [fs::read(reader.path("file")).unwrap_err(), fs::metadata(reader.path("other")).unwrap_err()]
    {
        assert_eq!(error.raw_os_error(), Some(Errno::KEYREVOKED.raw_os_error()), "{error}");
    }
    reader.unmount();

    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), [7; 300_000]);
    fs::write(mount.path("other"), "after").unwrap();
    mount.unmount();
    assert_eq!(fs::read(volume.mount().path("other")).unwrap(), b"after");
}
