//! Whether one file is in the bucket, asked of the file itself.

use std::fs;
use std::path::Path;
use std::time::Duration;

use rustix::fs::{XattrFlags, getxattr, listxattr, removexattr, setxattr};
use rustix::io::Errno;

use crate::support::command::{run_ok, shell, wait_until, wait_within};
use crate::support::volume::Volume;

const NAME: &str = "user.coffer.state";
const PATIENCE: Duration = Duration::from_secs(60);

fn state(path: &Path) -> String {
    let mut room = [0; 16];
    let bytes = getxattr(path, NAME, &mut room).unwrap();
    String::from_utf8(room[..bytes].to_vec()).unwrap()
}

/// > the extended attribute `user.coffer.state` of a file or directory is `dirty` while changes to it wait for the next
/// > commit, `queued` while all that are not in the bucket are in the commit under way, and `stored` when they are in the
/// > bucket
#[test]
fn a_file_tells_whether_it_is_dirty_queued_or_stored() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    // Nothing is committed unless somebody asks for it.
    let mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let (first, later, dir) = (mount.path("first"), mount.path("later"), mount.path("dir"));
    fs::write(&first, "for the bucket").unwrap();
    fs::create_dir(&dir).unwrap();
    assert_eq!((state(&first), state(&dir)), ("dirty".into(), "dirty".into()));

    fs::rename(&bucket, &hidden).unwrap();
    let mut syncing = volume.coffer(["sync"]).arg(&mount.dir).spawn().unwrap();
    wait_until("the commit is under way", PATIENCE, || state(&first) == "queued");
    assert_eq!(state(&dir), "queued");
    fs::write(&later, "for the next commit").unwrap();
    assert_eq!((state(&later), state(&first)), ("dirty".into(), "queued".into()));
    fs::write(&first, "written again").unwrap();
    assert_eq!(state(&first), "dirty", "the commit under way has not all of it");

    fs::rename(&hidden, &bucket).unwrap();
    let (ended, late) = wait_within(&mut syncing, PATIENCE);
    assert!(ended.success() && !late, "{ended}");
    assert_eq!((state(&dir), state(&later)), ("stored".into(), "dirty".into()));
    mount.sync();
    assert_eq!((state(&first), state(&later)), ("stored".into(), "stored".into()));
    mount.unmount();
}

/// > It is not listed, cannot be set or removed (`EPERM`), and is not stored: no copy takes it along.
#[test]
fn the_state_of_a_file_is_copied_by_nobody() {
    let volume = Volume::local();
    let mount = volume.mount();
    let file = mount.path("file");
    fs::write(&file, "contents").unwrap();
    assert_eq!(setxattr(&file, NAME, b"stored", XattrFlags::empty()), Err(Errno::PERM));
    assert_eq!(removexattr(&file, NAME), Err(Errno::PERM));
    setxattr(&file, "user.colour", b"blue", XattrFlags::empty()).unwrap();
    let mut room = [0; 256];
    let bytes = listxattr(&file, &mut room).unwrap();
    assert_eq!(&room[..bytes], b"user.colour\0");
    let mut short = [0; 3];
    assert_eq!(getxattr(&file, NAME, &mut short), Err(Errno::RANGE));

    let elsewhere = volume.new_dir("elsewhere");
    run_ok("rsync", ["-aX".as_ref(), file.as_os_str(), elsewhere.as_os_str()]);
    shell(
        &mount.dir,
        "cp -a file copy && tar --xattrs --xattrs-include='*' -cf tar file && mkdir out && tar --xattrs --xattrs-include='*' -xf tar -C out",
    );
    for copy in [mount.path("copy"), mount.path("out/file")] {
        let bytes = listxattr(&copy, &mut room).unwrap();
        assert_eq!(&room[..bytes], b"user.colour\0", "{}", copy.display());
    }
    mount.unmount();
}
