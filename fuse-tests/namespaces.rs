//! Mount namespaces other than the one it was mounted in: containers, and services that systemd shields.

use std::process::Child;
use std::time::Duration;

use crate::support::command::{command, wait_until};
use crate::support::tree::is_root;
use crate::support::volume::Volume;

const LIMIT: Duration = Duration::from_secs(60);

/// Waits for a line, so that the test knows when the namespace is there; what other tests have mounted is not for it.
const ELSEWHERE: &str = r#"
here=$1
grep ' fuse.coffer ' /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r copy; do
  [ "$copy" = "$here" ] || umount -i -l "$copy"
done
touch "$2"
exec sleep 600
"#;

/// Ends with the test, whatever becomes of it.
struct Container(Child);

impl Drop for Container {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn a_mount_that_another_namespace_keeps_is_told_and_not_waited_for_without_end() {
    if !is_root() {
        return println!("only root can make a mount namespace");
    }
    let volume = Volume::local();
    let mount = volume.mount();
    let there = volume.new_dir("elsewhere").join("ready");
    let words = ["--mount", "--propagation", "private", "sh", "-c", ELSEWHERE, "sh"];
    let container = Container(command("unshare", words).arg(&mount.dir).arg(&there).spawn().unwrap());
    wait_until("the namespace is there", LIMIT, || there.exists());
    std::fs::write(mount.path("file"), "safe").unwrap();

    let finished = volume.try_verb("umount", &mount.dir, &[]);
    assert_eq!(finished.code(), 31, "{finished}");
    let who = format!("but process {} (sleep) still has it in another mount namespace", container.0.id());
    assert!(finished.stderr.contains(&who), "{finished}");
    assert!(!mount.is_mounted(), "here it is unmounted");
    assert_eq!(mount.status()["is_safe"], true, "everything is in the bucket");

    drop(container);
    mount.wait_until_gone();
    let mount = volume.mount();
    assert_eq!(std::fs::read_to_string(mount.path("file")).unwrap(), "safe");
    mount.unmount();
}
