//! The Debian package, installed into a copy of this system that nobody else sees, and used as an administrator would:
//! fstab, mount(8), umount(8), units, manual, completions.

use std::path::Path;

use crate::support::command::{command, run_ok, shell};
use crate::support::tree::is_root;

/// Where the source is.
const SOURCE: &str = env!("CARGO_MANIFEST_DIR");

/// Run as root in a mount namespace of its own: what is below `$1` hides the system from the package, and goes with it.
const OUTSIDE: &str = r#"set -eu
# The namespace begins with copies of all mounts, and a copy keeps its daemon from ending.
grep ' fuse.coffer ' /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r copy; do umount -i -l "$copy"; done
mount -t tmpfs none "$1"
mkdir "$1/upper" "$1/work" "$1/root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$1/upper,workdir=$1/work" "$1/root"
for dir in dev proc sys; do mount --rbind /$dir "$1/root/$dir"; done
cp "$2" "$1/root/coffer.deb"
cp "$3" "$1/root/inside.sh"
exec chroot "$1/root" /bin/sh /inside.sh
"#;

const INSIDE: &str = include_str!("installed.sh");

#[test]
fn the_package_brings_all_that_a_system_needs_to_mount_at_boot() {
    assert!(is_root(), "the test installs a package into a copy of the system: that is for root");
    let dir = tempfile::tempdir().unwrap();
    let script = dir.path().join("inside.sh");
    std::fs::write(&script, INSIDE).unwrap();
    let package = package(dir.path());
    let top = dir.path().join("system");
    std::fs::create_dir(&top).unwrap();
    let words = ["--mount", "--propagation", "private", "sh", "-c", OUTSIDE, "sh"];
    let mut unshare = command("unshare", words);
    unshare.arg(&top).arg(&package).arg(&script);
    unshare.env_clear().env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    let said = crate::support::command::run(unshare).ok().text();
    assert!(said.ends_with("all of it holds\n"), "{said}");
}

#[test]
fn the_same_sources_make_the_same_package() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (one, two) = (package(one.path()), package(two.path()));
    run_ok("cmp", [one, two]);
}

/// Makes the package of the program under test in `dir`.
fn package(dir: &Path) -> std::path::PathBuf {
    let program = env!("CARGO_BIN_EXE_coffer");
    let line = format!("PACKAGE_COMPRESSION=0 '{SOURCE}/scripts/package' --binary '{program}' .");
    let said = shell(dir, &line).ok().text();
    said.trim().into()
}
