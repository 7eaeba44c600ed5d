//! Modes, owners, times, extended attributes, ACLs, locks, and what `df` sees.

use std::ffi::OsStr;
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{MetadataExt, PermissionsExt, lchown, symlink};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FlockOperation, Mode, Timespec, Timestamps, XattrFlags, utimensat};
use rustix::io::Errno;

use crate::mapping::Mapping;
use crate::place::{across_a_remount, on_a_mount};
use crate::support::command::{command, run, run_ok, shell};
use crate::support::manifest::xattrs;
use crate::support::tree::is_root;
use crate::support::volume::Volume;

fn mode_of(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

fn chmod(path: &Path, mode: u32) {
    fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
}

/// > **Owners** are numbers; nothing is mapped.
#[test]
fn modes_and_owners_stay_as_they_were_set() {
    let modes = [0o000, 0o400, 0o644, 0o777, 0o1777, 0o2755, 0o4755, 0o7777];
    across_a_remount(
        |root| {
            for mode in modes {
                let (file, dir) = (root.join(format!("file{mode:o}")), root.join(format!("dir{mode:o}")));
                fs::write(&file, "").unwrap();
                fs::create_dir(&dir).unwrap();
                if is_root() {
                    lchown(&file, Some(3_000_000_000), Some(65_534)).unwrap();
                }
                chmod(&file, mode);
                chmod(&dir, mode);
            }
            symlink("absent", root.join("link")).unwrap();
            if is_root() {
                lchown(root.join("link"), Some(12), Some(34)).unwrap();
            }
        },
        |root| {
            for mode in modes {
                assert_eq!(mode_of(&root.join(format!("file{mode:o}"))), mode);
                assert_eq!(mode_of(&root.join(format!("dir{mode:o}"))), mode);
                let about = fs::metadata(root.join(format!("file{mode:o}"))).unwrap();
                if is_root() {
                    assert_eq!((about.uid(), about.gid()), (3_000_000_000, 65_534));
                }
            }
            let link = fs::symlink_metadata(root.join("link")).unwrap();
            if is_root() {
                assert_eq!((link.uid(), link.gid()), (12, 34));
            }
        },
    );
}

/// > **Setgid directories** give their group to what is made in them, and setgid to the directories among it.
#[test]
fn a_new_file_takes_umask_and_a_setgid_directory_into_account() {
    on_a_mount(|root| {
        shell(root, "umask 027; touch file; mkdir dir; umask 0; mkdir open; mkfifo pipe");
        assert_eq!(mode_of(&root.join("file")), 0o640);
        assert_eq!(mode_of(&root.join("dir")), 0o750);
        assert_eq!(mode_of(&root.join("open")), 0o777);
        assert_eq!(mode_of(&root.join("pipe")), 0o666);
        if is_root() {
            lchown(root.join("open"), None, Some(4_321)).unwrap();
            chmod(&root.join("open"), 0o2775);
            shell(&root.join("open"), "touch file; mkdir dir");
            assert_eq!(fs::metadata(root.join("open/file")).unwrap().gid(), 4_321);
            assert_eq!(fs::metadata(root.join("open/dir")).unwrap().gid(), 4_321);
            assert_eq!(mode_of(&root.join("open/dir")) & 0o2000, 0o2000, "a directory hands setgid down");
        }
    });
}

/// > and all three by `chown`
#[test]
fn a_new_owner_does_not_inherit_setuid() {
    if !is_root() {
        return println!("only root can give files away");
    }
    on_a_mount(|root| {
        let file = root.join("file");
        fs::write(&file, "#!/bin/sh\n").unwrap();
        chmod(&file, 0o6755);
        lchown(&file, Some(1_000), Some(1_000)).unwrap();
        assert_eq!(mode_of(&file), 0o755);
    });
}

/// The kernel sends it when it likes, and may do so long after the program was given them.
///
/// > What is written through a map takes nothing.
#[test]
fn what_was_written_through_a_map_before_takes_no_privileges_when_it_comes() {
    const LEN: usize = 100_000;
    if !is_root() {
        return println!("only root can give capabilities");
    }
    on_a_mount(|root| {
        let path = root.join("file");
        fs::write(&path, vec![0; LEN]).unwrap();
        let file = OpenOptions::new().read(true).write(true).open(&path).unwrap();
        let mapping = Mapping::of(&file, LEN).unwrap();
        mapping.write(70_000, b"through the mapping");
        run_ok("setcap", ["cap_net_raw+ep".as_ref(), path.as_os_str()]);
        chmod(&path, 0o6755);
        mapping.sync();
        assert_eq!(mode_of(&path), 0o6755);
        assert!(run_ok("getcap", [&path]).text().contains("cap_net_raw"));
    });
}

/// > **Permissions** are checked by the kernel (`default_permissions`), access lists included.
#[test]
fn modes_bind_other_users() {
    if !is_root() {
        return println!("only root can become another user");
    }
    let volume = Volume::local();
    volume.let_others_through();
    let mount = volume.mount_spec().args(&["-o", "allow_other"]).mount();
    fs::write(mount.path("mine"), "private").unwrap();
    chmod(&mount.path("mine"), 0o600);
    fs::write(mount.path("ours"), "public").unwrap();
    chmod(&mount.path("ours"), 0o644);
    fs::create_dir(mount.path("shared")).unwrap();
    chmod(&mount.path("shared"), 0o1777);
    fs::write(mount.path("shared/kept"), "").unwrap();
    chmod(&mount.dir, 0o755);
    let other = |script: &str| {
        let mut other =
            command("setpriv", ["--reuid", "65534", "--regid", "65534", "--clear-groups", "sh", "-c"]);
        other.arg(script).current_dir(&mount.dir);
        run(other).status.success()
    };
    assert!(other("grep -q public ours"));
    assert!(!other("cat mine"), "a private file was read by another user");
    assert!(!other("echo x >> ours"), "a file was changed by a user with no right to");
    assert!(!other("touch new"), "a file was made in a directory of another user");
    assert!(other("echo x > shared/theirs && mv shared/theirs shared/again"));
    assert!(!other("rm -f shared/kept"), "the sticky bit did not protect a file");
    assert!(!other("chmod 777 ours"), "a mode was changed by another user");
    assert_eq!(fs::metadata(mount.path("shared/again")).unwrap().uid(), 65_534);
    mount.unmount();
}

/// > **Times** have nanoseconds
#[test]
fn times_are_kept_to_the_nanosecond() {
    let times =
        [(1, 1), (86_400, 999_999_999), (2_147_483_652, 5), (1_700_000_000, 0), (7_258_118_400, 123_456_789)];
    let name = |secs: i64| format!("at{secs}");
    across_a_remount(
        |root| {
            for (secs, nanos) in times {
                let path = root.join(name(secs));
                symlink("absent", &path).unwrap();
                let time = Timespec { tv_sec: secs, tv_nsec: nanos };
                let both = Timestamps { last_access: time, last_modification: time };
                utimensat(CWD, &path, &both, AtFlags::SYMLINK_NOFOLLOW).unwrap();
            }
        },
        |root| {
            for (secs, nanos) in times {
                let about = fs::symlink_metadata(root.join(name(secs))).unwrap();
                assert_eq!((about.mtime(), about.mtime_nsec()), (secs, nanos));
                assert_eq!((about.atime(), about.atime_nsec()), (secs, nanos));
            }
        },
    );
}

/// > `mtime` and `ctime` are kept as POSIX asks.
#[test]
fn what_is_done_to_a_file_shows_in_its_times() {
    on_a_mount(|root| {
        let (file, dir) = (root.join("dir/file"), root.join("dir"));
        fs::create_dir(&dir).unwrap();
        fs::write(&file, "x").unwrap();
        let past = Timespec { tv_sec: 1_000_000_000, tv_nsec: 0 };
        let set_past = |path: &Path| {
            let both = Timestamps { last_access: past, last_modification: past };
            utimensat(CWD, path, &both, AtFlags::empty()).unwrap();
        };
        let times = |path: &Path| {
            let about = fs::metadata(path).unwrap();
            (about.mtime(), (about.ctime(), about.ctime_nsec()))
        };
        set_past(&file);
        set_past(&dir);
        let (_, ctime) = times(&file);
        chmod(&file, 0o600);
        assert!(
            times(&file).0 == past.tv_sec && times(&file).1 > ctime,
            "chmod changes ctime and nothing else"
        );
        let (_, ctime) = times(&file);
        lchown(&file, None, None).unwrap();
        assert!(times(&file).0 == past.tv_sec && times(&file).1 > ctime, "so does chown, to whomever");
        fs::read(&file).unwrap();
        assert_eq!(times(&file).0, past.tv_sec, "reading changes no mtime");
        assert_eq!(times(&dir).0, past.tv_sec, "nor does it change the directory's");
        OpenOptions::new().append(true).open(&file).unwrap().write_all(b"y").unwrap();
        assert_ne!(times(&file).0, past.tv_sec, "writing changes mtime");
        assert_eq!(times(&dir).0, past.tv_sec, "writing to a file leaves its directory alone");
        set_past(&file);
        OpenOptions::new().write(true).open(&file).unwrap().set_len(0).unwrap();
        assert_ne!(times(&file).0, past.tv_sec, "truncating changes mtime");
        fs::rename(&file, dir.join("renamed")).unwrap();
        assert_ne!(times(&dir).0, past.tv_sec, "renaming changes the directory's mtime");
        set_past(&dir);
        fs::remove_file(dir.join("renamed")).unwrap();
        assert_ne!(times(&dir).0, past.tv_sec, "removing changes the directory's mtime");
    });
}

/// > **Extended attributes**: `user.`, `trusted.`, `security.` and the two lists
#[test]
fn extended_attributes_come_back_byte_for_byte() {
    let long_name = format!("user.{}", "n".repeat(250));
    // What ext4 holds is less than what the kernel allows; a mount must hold what the kernel allows.
    let large = if std::env::var_os("COFFER_TEST_REFERENCE").is_some() { 2_000 } else { 65_536 };
    let wanted: Vec<(Vec<u8>, Vec<u8>)> = vec![
        (b"user.empty".to_vec(), Vec::new()),
        (b"user.\xff\xfe".to_vec(), vec![0, 255, 0]),
        (long_name.clone().into_bytes(), b"x".to_vec()),
        (b"user.large".to_vec(), vec![7; large]),
    ];
    across_a_remount(
        |root| {
            let file = root.join("file");
            fs::write(&file, "").unwrap();
            let set = |name: &[u8], value: &[u8], flags| {
                rustix::fs::lsetxattr(&file, OsStr::from_bytes(name), value, flags)
            };
            assert_eq!(set(b"user.empty", b"", XattrFlags::REPLACE), Err(Errno::NODATA));
            for (name, value) in &wanted {
                set(name, value, XattrFlags::CREATE).unwrap();
            }
            assert_eq!(set(b"user.empty", b"", XattrFlags::CREATE), Err(Errno::EXIST));
            set(b"user.gone", b"soon", XattrFlags::empty()).unwrap();
            rustix::fs::lremovexattr(&file, "user.gone").unwrap();
            assert_eq!(rustix::fs::lremovexattr(&file, "user.gone"), Err(Errno::NODATA));
            let mut short = [0; 2];
            assert_eq!(rustix::fs::lgetxattr(&file, long_name.as_str(), &mut short), Ok(1));
            let name = OsStr::from_bytes(b"user.\xff\xfe");
            assert_eq!(rustix::fs::lgetxattr(&file, name, &mut short), Err(Errno::RANGE));
            assert_eq!(rustix::fs::llistxattr(&file, &mut short), Err(Errno::RANGE));
        },
        |root| assert!(xattrs(&root.join("file")).into_iter().eq(sorted(wanted.clone()))),
    );
}

fn sorted(mut pairs: Vec<(Vec<u8>, Vec<u8>)>) -> Vec<(Vec<u8>, Vec<u8>)> {
    pairs.sort();
    pairs
}

#[test]
fn a_directory_and_a_device_can_carry_attributes_of_the_superuser() {
    if !is_root() {
        return println!("trusted attributes are for root");
    }
    across_a_remount(
        |root| {
            symlink("absent", root.join("link")).unwrap();
            rustix::fs::lsetxattr(root.join("link"), "trusted.note", b"of a link", XattrFlags::empty())
                .unwrap();
            let user = rustix::fs::lsetxattr(root.join("link"), "user.note", b"", XattrFlags::empty());
            assert_eq!(user, Err(Errno::PERM), "user attributes are for files and directories");
        },
        |root| {
            let wanted = [(b"trusted.note".to_vec(), b"of a link".to_vec())];
            assert!(xattrs(&root.join("link")).into_iter().eq(wanted));
        },
    );
}

/// > are stored, enforced by the kernel, kept in step with `chmod`, and handed down to new entries in the umask's
/// > place.
#[test]
fn acls_are_kept_handed_down_and_part_of_the_mode() {
    across_a_remount(
        |root| {
            shell(
                root,
                "umask 022; touch file; setfacl -m u:1234:rwx,g:4321:r file
                 mkdir dir; setfacl -d -m u:1234:rw dir; setfacl -m u:1234:rwx dir; touch dir/new; mkdir dir/sub",
            );
        },
        |root| {
            let acl = |name: &str| {
                let mut getfacl = command("getfacl", ["-cpn", name]);
                getfacl.current_dir(root);
                run(getfacl).ok().text()
            };
            assert_eq!(
                acl("file"),
                "user::rw-\nuser:1234:rwx\ngroup::r--\ngroup:4321:r--\nmask::rwx\nother::r--\n\n"
            );
            assert_eq!(mode_of(&root.join("file")), 0o674, "the mask is the group part of the mode");
            assert!(acl("dir/new").contains("user:1234:rw-"), "{}", acl("dir/new"));
            assert!(acl("dir/sub").contains("default:user:1234:rw-"), "{}", acl("dir/sub"));
        },
    );
}

#[test]
fn locks_hold_between_processes() {
    on_a_mount(|root| {
        let path = root.join("lock");
        let file = File::create(&path).unwrap();
        rustix::fs::flock(&file, FlockOperation::LockExclusive).unwrap();
        let flock =
            |script: &str| run(command("sh", ["-c", script, "sh", path.to_str().unwrap()])).status.success();
        assert!(!flock("flock -n \"$1\" true"), "two processes hold one lock");
        drop(file);
        assert!(flock("flock -n \"$1\" true"), "the lock outlived its holder");
    });
}

#[test]
fn the_volume_tells_its_size() {
    on_a_mount(|root| {
        let about = rustix::fs::statvfs(root).unwrap();
        assert_eq!(about.f_namemax, 255);
        assert!(about.f_frsize >= 512 && about.f_blocks > 0 && about.f_bavail <= about.f_blocks);
        assert!(about.f_files > 0 && about.f_ffree <= about.f_files);
        run_ok("df", [OsStr::new("-P"), root.as_os_str()]);
        run_ok("df", [OsStr::new("-i"), root.as_os_str()]);
    });
}

#[test]
fn a_directory_with_mode_zero_stays_shut_but_can_be_opened_again() {
    on_a_mount(|root| {
        let dir = root.join("dir");
        fs::create_dir(&dir).unwrap();
        fs::write(dir.join("file"), "x").unwrap();
        rustix::fs::chmod(&dir, Mode::empty()).unwrap();
        assert_eq!(fs::read(dir.join("file")).is_ok(), is_root());
        chmod(&dir, 0o700);
        assert_eq!(fs::read(dir.join("file")).unwrap(), b"x");
    });
}

#[test]
fn an_attribute_without_a_name_is_an_invalid_argument_as_on_ext4() {
    on_a_mount(|root| {
        let file = root.join("file");
        fs::write(&file, "x").unwrap();
        let set = |name: &str| rustix::fs::setxattr(&file, name, b"x", XattrFlags::empty());
        assert_eq!(set("user."), Err(Errno::INVAL));
        assert_eq!(rustix::fs::removexattr(&file, "user."), Err(Errno::INVAL));
        assert_eq!(rustix::fs::getxattr(&file, "user.", &mut [0_u8; 8][..]), Err(Errno::INVAL));
        assert_eq!(set("bare"), Err(Errno::OPNOTSUPP));
        assert_eq!(set("user.n"), Ok(()));
    });
}
