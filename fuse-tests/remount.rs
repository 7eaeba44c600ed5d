//! `mount -o remount` through the helper that mount(8) calls.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use crate::support::command::{Finished, command, run};
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

/// `$1` a directory to hide things in, `$2` the program, `$3` its bucket, `$4` its passphrase. Nobody else sees the fstab and
/// the helper that are put in place.
const BY_FSTAB: &str = r#"set -eu
grep ' fuse.coffer ' /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r copy; do umount -i -l "$copy"; done
mount -t tmpfs none "$1"
cd "$1"
mkdir upper work vault
mount -t overlay overlay -o "lowerdir=/usr/sbin,upperdir=$1/upper,workdir=$1/work" /usr/sbin
for name in mount.coffer mount.fuse.coffer; do ln -sf "$2" "/usr/sbin/$name"; done
echo "$3 $1/vault coffer passphrase-file=$4,allow_other,commit_age=1m,noatime,_netdev,nofail,noexec 0 0" >fstab
mount --bind fstab /etc/fstab
shows() { findmnt -no OPTIONS "$1/vault" | tr , '\n' | grep -qx "$2"; }
refused() { if mount "$@" 2>said; then exit 1; fi; cat said; }

mount vault
echo before >vault/file
mount -o remount,ro vault
shows "$1" ro && shows "$1" noexec && shows "$1" nosuid
if echo meanwhile >vault/file; then exit 1; fi
mount -o remount,rw,exec vault
if shows "$1" noexec; then exit 1; fi
shows "$1" nosuid && shows "$1" nodev
mount -o remount vault
shows "$1" noexec
echo after >vault/file
refused -o remount,ro,commit-age=2s vault | grep 'commit-age cannot be changed'
refused -o remount,ro,cache-size=1G vault | grep 'cache-size cannot be changed'
echo "$3 $1/vault coffer passphrase-file=/other 0 0" >fstab
refused -o remount,ro vault | grep 'passphrase-file cannot be changed'
shows "$1" rw

echo '--- in no fstab'
: >fstab
mount -o remount,ro vault
shows "$1" ro && shows "$1" noexec && shows "$1" nosuid
mount -o remount,rw vault
refused -o remount,nonsense=hunter2 vault | grep 'nonsense cannot be changed'
if grep hunter2 said; then exit 1; fi
echo last >vault/file
"$2" umount vault
echo 'all of it holds'
"#;

#[test]
fn mount_8_remounts_by_the_line_of_fstab_that_mounted() {
    if !is_root() {
        return println!("only root may remount");
    }
    let volume = Volume::local();
    let words = ["--mount", "--propagation", "private", "sh", "-c", BY_FSTAB, "sh"];
    let mut unshare = volume.program("unshare", words);
    unshare.arg(volume.new_dir("hidden")).args([COFFER, &volume.url]).arg(volume.passphrase_file());
    unshare.env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin").env("LC_ALL", "C.UTF-8");
    let said = run(unshare).ok().text();
    assert!(said.ends_with("all of it holds\n"), "{said}");
}

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
