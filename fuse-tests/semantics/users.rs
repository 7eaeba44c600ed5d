//! Two users and one mount: who sees what, and what it takes to let others in.

use std::fs;
use std::path::Path;

use crate::support::command::{Finished, command, run, run_ok};
use crate::support::mount::Mount;
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

const NOBODY: &str = "65534";

fn as_user(user: &str, script: &str, dir: &Path) -> Finished {
    let mut setpriv = command("setpriv", ["--reuid", user, "--regid", user, "--clear-groups"]);
    setpriv.args(["sh", "-c", script, "sh"]).arg(dir).current_dir("/");
    run(setpriv)
}

/// Nothing below `dir` and nothing about it is told to `user`.
fn sees_nothing(user: &str, dir: &Path) {
    let scripts = [
        "ls \"$1\"",
        "stat \"$1/file\"",
        "cat \"$1/file\"",
        "stat \"$1\"",
        "find \"$1\"",
        "echo x > \"$1/new\"",
    ];
    for script in scripts {
        let tried = as_user(user, script, dir);
        assert!(!tried.status.success(), "user {user}: {tried}");
        assert!(tried.stderr.contains("Permission denied"), "user {user}: {tried}");
        assert!(!tried.text().contains("file"), "user {user}: {tried}");
    }
}

fn sees_all(user: &str, dir: &Path) {
    let seen = as_user(user, "set -e; cd \"$1\"; ls; cat file", dir).ok();
    assert_eq!(seen.text(), "dir\nfile\ncontents", "user {user}");
}

/// Puts something there that anybody may read, looks at all of it so that the kernel knows it, and saves it.
fn fill(mount: &Mount<'_>, user: &str) {
    let script =
        "set -e; umask 022; cd \"$1\"; chmod 755 .; printf contents > file; mkdir dir; ls -lR; cat file";
    as_user(user, script, &mount.dir).ok();
}

/// > **Other users** see nothing of a mount, not even its root: the kernel answers `EACCES`.
#[test]
fn without_allow_other_nobody_else_sees_anything() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount();
    fill(&mount, "0");
    sees_all("0", &mount.dir);
    sees_nothing(NOBODY, &mount.dir);
    mount.unmount();
}

/// > With `allow_root` root is let in besides the user who mounts, with `allow_other` everybody: then modes and access
/// > lists decide. Of a mount with `allow_root` the kernel is told to remember nothing, because it would show it to others.
#[test]
fn allow_root_lets_nobody_but_root_in_even_to_what_the_kernel_knows() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_root"]).mount();
    fill(&mount, "0");
    sees_all("0", &mount.dir);
    sees_nothing(NOBODY, &mount.dir);
    mount.unmount();
    let mount = volume.mount_spec().args(&["-o", "allow_other"]).mount();
    sees_all(NOBODY, &mount.dir);
    run_ok("chmod", ["700".as_ref(), mount.path("file").as_os_str()]);
    assert!(!as_user(NOBODY, "cat \"$1/file\"", &mount.dir).status.success(), "the mode does not count");
    run_ok("setfacl", ["-m".as_ref(), "u:65534:r".as_ref(), mount.path("file").as_os_str()]);
    assert_eq!(as_user(NOBODY, "cat \"$1/file\"", &mount.dir).ok().text(), "contents");
    mount.unmount();
}

/// What the user `daemon` does in a mount namespace of its own, in which it may use FUSE; and who sees what comes of it.
const ORDINARY: &str = r#"
set -eu
as() { user=$1; shift; setpriv --reuid "$user" --regid "$user" --clear-groups -- "$@"; }
# The namespace begins with copies of all mounts, and a copy keeps its daemon from ending.
grep ' fuse.coffer ' /proc/self/mountinfo | cut -d ' ' -f 5 | while read -r copy; do umount -l "$copy"; done
if ! as 1 test -w /dev/fuse; then
    mknod "$HERE/fuse" c 10 229
    chmod 666 "$HERE/fuse"
    mount --bind "$HERE/fuse" /dev/fuse
fi
printf '%s\n' "$CONF" > "$HERE/fuse.conf"
touch /etc/fuse.conf
mount --bind "$HERE/fuse.conf" /etc/fuse.conf
as 1 "$COFFER" init "$URL" --passphrase-file "$PASS" --kdf-log-n 15 >/dev/null
trap 'umount -l "$HERE/mnt" 2>/dev/null || true' EXIT
as 1 "$COFFER" mount "$URL" "$HERE/mnt" --passphrase-file "$PASS" --state-dir "$HERE/state" -o "$OPTIONS"
as 1 sh -c 'chmod 755 "$1"; printf "seen\n" > "$1/file"; ls -l "$1"; cat "$1/file"' sh "$HERE/mnt" >/dev/null
seen() { as "$1" sh -c 'ls "$1" >/dev/null && stat "$1/file" >/dev/null && cat "$1/file"' sh "$HERE/mnt" 2>/dev/null || echo refused; }
echo "daemon $(seen 1), root $(seen 0), nobody $(seen 65534)"
if as 65534 sh -c 'ls "$1" || stat "$1" || stat "$1/file"' sh "$HERE/mnt" 2>/dev/null; then echo "nobody sees names"; fi
as 1 "$COFFER" umount "$HERE/mnt"
"#;

/// Runs it with these options and this `/etc/fuse.conf`.
fn ordinary(options: &str, conf: &str) -> Finished {
    let volume = Volume::local_without_init();
    volume.let_others_through();
    let here = volume.new_dir("here");
    fs::create_dir(here.join("mnt")).unwrap();
    // The program under test may lie where only root goes.
    fs::copy(COFFER, here.join("coffer")).unwrap();
    let all = volume.bucket().parent().unwrap().to_owned();
    run_ok("chown", ["-R".as_ref(), "1:1".as_ref(), all.as_os_str()]);
    let mut unshare =
        volume.program("unshare", ["--mount", "--propagation", "private", "sh", "-c", ORDINARY]);
    unshare.env("COFFER", here.join("coffer")).env("HERE", &here).env("URL", &volume.url).current_dir("/");
    unshare.env("PASS", volume.passphrase_file()).env("OPTIONS", options).env("CONF", conf);
    run(unshare)
}

/// > **An ordinary user** mounts with the help of `fusermount3`, which must be setuid root. Root then is another user too,
/// > and sees nothing.
#[test]
fn an_ordinary_user_mounts_and_root_sees_nothing_of_it() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let finished = ordinary("rw", "").ok();
    assert_eq!(finished.text().trim(), "daemon seen, root refused, nobody refused", "{finished}");
}

/// > To ordinary users `allow_other` and `allow_root` are refused unless `user_allow_other` stands in `/etc/fuse.conf`, and
/// > the error says so.
#[test]
fn what_lets_others_in_must_be_allowed_to_ordinary_users() {
    if !is_root() {
        return println!("only root can become another user");
    }
    for option in ["allow_other", "allow_root"] {
        let refused = ordinary(option, "");
        assert!(!refused.status.success(), "{refused}");
        assert!(refused.stderr.contains("user_allow_other"), "{refused}");
        assert!(refused.stderr.contains("/etc/fuse.conf"), "{refused}");
    }
    for (option, seen) in [
        ("allow_root", "daemon seen, root seen, nobody refused"),
        ("allow_other", "daemon seen, root seen, nobody seen"),
    ] {
        let finished = ordinary(option, "user_allow_other").ok();
        assert_eq!(finished.text().lines().next(), Some(seen), "{finished}");
        assert_eq!(finished.text().contains("nobody sees names"), option == "allow_other", "{finished}");
    }
}
