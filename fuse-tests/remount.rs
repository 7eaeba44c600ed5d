//! `mount -o remount` through the helper that mount(8) calls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::command::{Finished, command, run};
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

#[test]
fn a_remount_changes_what_the_kernel_decides_and_refuses_all_else() {
    if !is_root() {
        return println!("only root may remount");
    }
    let volume = Volume::local();
    let helper = volume.new_dir("sbin").join("mount.fuse.coffer");
    symlink(COFFER, &helper).unwrap();
    let remount = |dir: &Path, list: &str| -> Finished {
        let mut called = volume.program(helper.to_str().unwrap(), ["/some/source"]);
        called.arg(dir).args(["-o", list]);
        run(called)
    };
    let mount = volume.mount();
    fs::write(mount.path("file"), "before").unwrap();
    remount(&mount.dir, "rw,remount,ro").ok();
    let refused = fs::write(mount.path("file"), "meanwhile").unwrap_err();
    assert_eq!(refused.raw_os_error(), Some(libc::EROFS));
    remount(&mount.dir, "rw,remount,noexec").ok();
    fs::write(mount.path("file"), "after").unwrap();
    let kept = run(command("findmnt", ["-no", "OPTIONS", mount.dir.to_str().unwrap()])).ok().text();
    assert!(
        ["rw", "nosuid", "nodev", "noexec"].iter().all(|word| kept.split(',').any(|has| has == *word)),
        "{kept}"
    );
    let finished = remount(&mount.dir, "rw,remount,cache-size=1G");
    assert_eq!(finished.code(), 2, "{finished}");
    assert!(finished.stderr.contains("cache-size cannot be changed"), "{finished}");
    mount.unmount();

    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    let finished = remount(&reader.dir, "rw,remount");
    assert_eq!(finished.code(), 2, "{finished}");
    assert!(finished.stderr.contains("for reading only"), "{finished}");
    assert_eq!(fs::read_to_string(reader.path("file")).unwrap(), "after");
    reader.unmount();
    let finished = remount(&volume.new_dir("none"), "remount,ro");
    assert_eq!(finished.code(), 24, "{finished}");
}
