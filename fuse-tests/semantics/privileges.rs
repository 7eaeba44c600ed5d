//! Set-id bits, capabilities, setgid and sticky directories: what an owner keeps and what others cannot take.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown};
use std::path::Path;

use rustix::fs::{FallocateFlags, XattrFlags, copy_file_range, fallocate, getxattr, setxattr};

use crate::place::across_a_remount;
use crate::support::command::{Finished, command, run, run_ok};
use crate::support::mount::Mount;
use crate::support::tree::is_root;
use crate::support::volume::Volume;

const STRANGER: u32 = 65_534;

/// A shell script as a user without privileges.
fn as_stranger(dir: &Path, script: &str) -> Finished {
    let mut setpriv = command("setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups"]);
    setpriv.args(["sh", "-ec", script]).current_dir(dir);
    run(setpriv)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// A mount that other users may use.
fn shared(check: impl FnOnce(&Mount<'_>)) {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_other"]).mount();
    chmod(&mount.dir, 0o777);
    check(&mount);
    mount.unmount();
}

fn has_capability(path: &Path) -> bool {
    run_ok("getcap", [path]).text().contains("cap_net_raw")
}

/// > Who does not own a file takes none by a `chown` that changes nothing.
#[test]
fn a_stranger_takes_no_set_id_bits_by_a_chown_that_changes_nothing() {
    shared(|mount| {
        let file = mount.path("file");
        fs::write(&file, "#!/bin/true\n").unwrap();
        for perm in [0o6755, 0o4711, 0o2711] {
            chmod(&file, perm);
            let refused = as_stranger(&mount.dir, "chown : file");
            assert!(!refused.status.success() && refused.stderr.contains("not permitted"), "{refused}");
            assert_eq!(mode(&file), perm);
        }
        chmod(&file, 0o755);
        as_stranger(&mount.dir, "chown : file").ok();
        lchown(&file, Some(STRANGER), None).unwrap();
        chmod(&file, 0o6755);
        as_stranger(&mount.dir, "chown : file").ok();
        assert_eq!(mode(&file), 0o755, "it is his own");
    });
}

/// > **Setuid, setgid, capabilities** are cleared when an unprivileged process writes or truncates, and all three by
/// > `chown`; capabilities by anybody's write. Setgid stays where the group may not execute.
#[test]
fn writing_truncating_and_chown_take_set_id_bits_and_capabilities() {
    shared(|mount| {
        let file = mount.path("file");
        let make = |perm: u32| {
            fs::write(&file, "#!/bin/true\n").unwrap();
            lchown(&file, None, None).unwrap();
            run_ok("setcap", ["cap_net_raw+ep".as_ref(), file.as_os_str()]);
            chmod(&file, perm);
            assert_eq!(mode(&file), perm);
            assert!(has_capability(&file));
        };
        let takes = [
            "printf x >> file",
            "printf x > file",
            "truncate -s 3 file",
            "printf x | dd of=file conv=notrunc oflag=direct status=none",
            "fallocate -l 100 file",
        ];
        for script in takes {
            make(0o6777);
            as_stranger(&mount.dir, script).ok();
            assert_eq!(mode(&file), 0o777, "{script}");
            assert!(!has_capability(&file), "{script}");
        }
        make(0o6767);
        as_stranger(&mount.dir, takes[0]).ok();
        assert_eq!(mode(&file), 0o2767, "without group execution it is no set-id bit");
        make(0o6777);
        as_stranger(&mount.dir, "cat file > /dev/null").ok();
        assert!(mode(&file) == 0o6777 && has_capability(&file), "reading takes nothing");
        drop(OpenOptions::new().write(true).open(&file).unwrap());
        assert!(mode(&file) == 0o6777 && has_capability(&file), "opening takes nothing");
        lchown(&file, Some(STRANGER), Some(STRANGER)).unwrap();
        assert!(mode(&file) == 0o777 && !has_capability(&file));
        make(0o777);
        let append = || run_ok("sh", ["-c", "printf x >> \"$1\"", "sh", file.to_str().unwrap()]);
        append();
        assert!(!has_capability(&file), "a capability belongs to what the program was");
        chmod(&file, 0o6777);
        append();
        assert_eq!(mode(&file), 0o6777, "root keeps the bits, as on a local disk");
    });
}

/// Changes a file in the working directory by what needs a program of one's own, as the user and in the way named.
const CHANGE: &str = r#"
import os, sys
user, way = int(sys.argv[1]), sys.argv[2]
source, file = os.open("source", os.O_RDONLY), os.open("file", os.O_WRONLY)
if user:
    os.setgroups([])
    os.setgid(user)
    os.setuid(user)
if way == "fallocate":
    os.posix_fallocate(file, 0, 300000)
elif way == "a shared block":
    assert os.copy_file_range(source, file, 65536, 0, 0) == 65536
else:
    assert os.copy_file_range(source, file, 100, 1, 1) == 100
"#;

/// > **Setuid, setgid, capabilities** are cleared when an unprivileged process writes or truncates
#[test]
fn only_others_take_set_id_bits_by_what_they_copy_and_allocate() {
    shared(|mount| {
        let file = mount.path("file");
        File::create(mount.path("source")).unwrap().set_len(1_000_000).unwrap();
        for way in ["fallocate", "a shared block", "a copy through memory"] {
            for (user, wanted) in [(0, 0o6777), (STRANGER, 0o777)] {
                fs::write(&file, vec![1; 200_000]).unwrap();
                chmod(&file, 0o6777);
                let mut python = command("python3", ["-c", CHANGE, &user.to_string(), way]);
                python.current_dir(&mount.dir);
                run(python).ok();
                assert_eq!(mode(&file), wanted, "{way}, by user {user}");
            }
        }
    });
}

/// > capabilities by anybody's write.
#[test]
fn capabilities_end_with_a_change_through_a_descriptor_that_was_there_before_them() {
    if !is_root() {
        return println!("only root can give capabilities");
    }
    across_a_remount(
        |root| {
            let path = root.join("file");
            fs::write(&path, vec![1; 200_000]).unwrap();
            fs::write(root.join("data"), vec![2; 200_000]).unwrap();
            File::create(root.join("holes")).unwrap().set_len(1_000_000).unwrap();
            let open = |name: &str| File::open(root.join(name)).unwrap();
            let (data, holes) = (open("data"), open("holes"));
            let file = OpenOptions::new().write(true).open(&path).unwrap();
            setxattr(&path, "user.note", b"stays", XattrFlags::empty()).unwrap();
            let copy = |from: &File, at: u64, bytes: usize| {
                let (mut from_at, mut to_at) = (at, at);
                let copied = copy_file_range(from, Some(&mut from_at), &file, Some(&mut to_at), bytes);
                assert_eq!(copied, Ok(bytes));
            };
            let ways: [(&str, &dyn Fn()); 6] = [
                ("write", &|| file.write_all_at(b"changed", 5).unwrap()),
                ("truncate", &|| file.set_len(190_000).unwrap()),
                ("lengthen", &|| fallocate(&file, FallocateFlags::empty(), 0, 200_000).unwrap()),
                ("zero", &|| fallocate(&file, FallocateFlags::ZERO_RANGE, 10, 20).unwrap()),
                ("share", &|| copy(&holes, 0, 65_536)),
                ("copy", &|| copy(&data, 1, 100)),
            ];
            for (way, change) in ways {
                run_ok("setcap", ["cap_net_raw+ep".as_ref(), path.as_os_str()]);
                assert!(has_capability(&path));
                change();
                assert!(!has_capability(&path), "{way}");
            }
        },
        |root| {
            let mut room = [0; 8];
            assert_eq!(getxattr(root.join("file"), "user.note", &mut room), Ok(5));
            assert!(!has_capability(&root.join("file")));
        },
    );
}

/// > Mounts are `nosuid` and `nodev` unless asked otherwise.
#[test]
fn set_id_programs_and_devices_do_nothing_unless_asked_for() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    for (options, uid) in [("allow_other", "65534"), ("allow_other,suid,dev", "0")] {
        let mount = volume.mount_spec().args(&["-o", options]).mount();
        chmod(&mount.dir, 0o755);
        fs::copy("/usr/bin/id", mount.path("id")).unwrap();
        chmod(&mount.path("id"), 0o4755);
        assert_eq!(as_stranger(&mount.dir, "./id -u").ok().text().trim(), uid, "{options}");
        if !mount.path("null").exists() {
            run_ok("mknod", [mount.path("null").as_os_str(), "c".as_ref(), "1".as_ref(), "3".as_ref()]);
        }
        assert_eq!(fs::read(mount.path("null")).is_ok(), uid == "0", "{options}");
        mount.unmount();
    }
}

/// > **Setgid directories** give their group to what is made in them, and setgid to the directories among it.
#[test]
fn what_is_made_in_a_setgid_directory_has_its_group() {
    shared(|mount| {
        let dir = mount.path("dir");
        fs::create_dir(&dir).unwrap();
        lchown(&dir, None, Some(4_321)).unwrap();
        chmod(&dir, 0o2777);
        as_stranger(&dir, "touch file; mkdir sub; mkfifo pipe; ln -s x link; touch sub/file; mkdir sub/sub")
            .ok();
        for name in ["file", "sub", "pipe", "link", "sub/file", "sub/sub"] {
            let about = fs::symlink_metadata(dir.join(name)).unwrap();
            assert_eq!((about.uid(), about.gid()), (STRANGER, 4_321), "{name}");
            assert_eq!(about.mode() & 0o2000 != 0, about.is_dir(), "{name}");
        }
        as_stranger(&mount.dir, "touch plain; mv plain dir/moved").ok();
        assert_eq!(fs::metadata(dir.join("moved")).unwrap().gid(), STRANGER, "moving is not making");
    });
}

/// > **The sticky bit** of a directory keeps everybody but root and the owners of the entry and of the directory from
/// > removing or renaming the entry, and from replacing it.
#[test]
fn a_sticky_directory_protects_what_belongs_to_others() {
    shared(|mount| {
        let dir = mount.path("dir");
        fs::create_dir(&dir).unwrap();
        chmod(&dir, 0o1777);
        fs::write(dir.join("mine"), "x").unwrap();
        as_stranger(&dir, "echo y > theirs").ok();
        for script in ["rm -f mine", "mv mine other", "mv -f theirs mine", "mv mine ../mine"] {
            let tried = as_stranger(&dir, script);
            assert!(!tried.status.success() && tried.stderr.contains("Operation not permitted"), "{tried}");
        }
        as_stranger(&dir, "mv theirs renamed; rm renamed; echo z > again").ok();
        fs::remove_file(dir.join("again")).unwrap();
        lchown(&dir, Some(STRANGER), None).unwrap();
        as_stranger(&dir, "rm -f mine").ok();
    });
}
