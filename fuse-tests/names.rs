//! Names: renames, links, and what a name may be.

use std::ffi::OsString;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{MetadataExt, symlink};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;

use rustix::fs::{AtFlags, CWD, FileType, Mode, RenameFlags, renameat_with};
use rustix::io::Errno;

use crate::place::{across_a_remount, on_a_mount};
use crate::support::tree::{is_root, long_name};

fn rename(from: &Path, to: &Path) -> rustix::io::Result<()> {
    rustix::fs::rename(from, to)
}

/// > **`rename`** is atomic to everyone, over an existing target too, within and across directories
#[test]
fn rename_replaces_what_it_may_and_refuses_the_rest() {
    on_a_mount(|root| {
        let path = |name: &str| root.join(name);
        fs::write(path("file"), "new").unwrap();
        fs::write(path("other"), "old").unwrap();
        rename(&path("file"), &path("other")).unwrap();
        assert_eq!(fs::read(path("other")).unwrap(), b"new");
        assert!(!path("file").exists());

        for dir in ["a", "a/b", "empty", "full"] {
            fs::create_dir(path(dir)).unwrap();
        }
        fs::write(path("full/file"), "").unwrap();
        assert_eq!(rename(&path("a"), &path("full")), Err(Errno::NOTEMPTY));
        assert_eq!(rename(&path("a"), &path("other")), Err(Errno::NOTDIR));
        assert_eq!(rename(&path("other"), &path("a")), Err(Errno::ISDIR));
        assert_eq!(rename(&path("a"), &path("a/b/c")), Err(Errno::INVAL));
        assert_eq!(rename(&path("absent"), &path("x")), Err(Errno::NOENT));
        rename(&path("a"), &path("empty")).unwrap();
        assert!(path("empty/b").is_dir());
        rename(&path("full/file"), &path("empty/b/moved")).unwrap();
        fs::remove_dir(path("full")).unwrap();
        assert!(path("empty/b/moved").exists());
    });
}

#[test]
fn renaming_one_link_of_a_file_over_another_does_nothing() {
    on_a_mount(|root| {
        let (one, two) = (root.join("one"), root.join("two"));
        fs::write(&one, "both").unwrap();
        fs::hard_link(&one, &two).unwrap();
        rename(&one, &two).unwrap();
        assert!(one.exists() && two.exists());
        assert_eq!(fs::metadata(&one).unwrap().nlink(), 2);
    });
}

/// > `RENAME_NOREPLACE` and `RENAME_EXCHANGE` work
#[test]
fn rename_can_spare_or_exchange_its_target() {
    let (one, two) = ("one", "two");
    across_a_remount(
        |root| {
            fs::write(root.join(one), "1").unwrap();
            fs::create_dir(root.join(two)).unwrap();
            fs::write(root.join("two/inside"), "2").unwrap();
            let flagged =
                |from: &str, to: &str, flags| renameat_with(CWD, root.join(from), CWD, root.join(to), flags);
            assert_eq!(flagged(one, two, RenameFlags::NOREPLACE), Err(Errno::EXIST));
            assert_eq!(flagged(one, "absent", RenameFlags::EXCHANGE), Err(Errno::NOENT));
            assert_eq!(flagged(one, two, RenameFlags::NOREPLACE | RenameFlags::EXCHANGE), Err(Errno::INVAL));
            flagged(one, "three", RenameFlags::NOREPLACE).unwrap();
            flagged("three", two, RenameFlags::EXCHANGE).unwrap();
        },
        |root| {
            assert_eq!(fs::read(root.join(two)).unwrap(), b"1");
            assert_eq!(fs::read(root.join("three/inside")).unwrap(), b"2");
            assert!(!root.join(one).exists());
        },
    );
}

/// > **Names** are bytes: 1 to 255 of them, any but `/` and NUL.
#[test]
fn every_byte_but_slash_and_nul_may_stand_in_a_name() {
    let names: Vec<OsString> = (1..=255u8)
        .filter(|byte| *byte != b'/' && *byte != b'.')
        .map(|byte| OsString::from_vec(vec![byte]))
        .chain([long_name(1), OsString::from("...")])
        .collect();
    across_a_remount(
        |root| names.iter().for_each(|name| fs::write(root.join(name), name.as_encoded_bytes()).unwrap()),
        |root| {
            let mut seen: Vec<_> =
                fs::read_dir(root).unwrap().map(|entry| entry.unwrap().file_name()).collect();
            let mut wanted = names.clone();
            seen.sort();
            wanted.sort();
            assert_eq!(seen, wanted);
            for name in &names {
                assert_eq!(fs::read(root.join(name)).unwrap(), name.as_encoded_bytes());
            }
        },
    );
}

#[test]
fn a_name_of_256_bytes_is_too_long_everywhere() {
    on_a_mount(|root| {
        let long = root.join("n".repeat(256));
        let file = root.join("file");
        fs::write(&file, "").unwrap();
        let refused = |result: std::io::Result<()>| {
            assert_eq!(result.unwrap_err().raw_os_error(), Some(Errno::NAMETOOLONG.raw_os_error()));
        };
        refused(File::create(&long).map(drop));
        refused(fs::create_dir(&long));
        refused(fs::rename(&file, &long));
        refused(fs::hard_link(&file, &long));
        refused(symlink("x", &long));
        refused(fs::metadata(&long).map(drop));
        refused(fs::remove_file(&long));
    });
}

/// > none for directories (`EPERM`).
#[test]
fn hard_links_are_names_of_one_file() {
    across_a_remount(
        |root| {
            fs::create_dir(root.join("dir")).unwrap();
            fs::write(root.join("one"), "first").unwrap();
            fs::hard_link(root.join("one"), root.join("dir/two")).unwrap();
            fs::hard_link(root.join("one"), root.join("three")).unwrap();
            fs::write(root.join("three"), "changed").unwrap();
            fs::remove_file(root.join("one")).unwrap();
            assert_eq!(rustix::fs::link(root.join("dir"), root.join("no")), Err(Errno::PERM));
            assert_eq!(rustix::fs::link(root.join("three"), root.join("dir")), Err(Errno::EXIST));
        },
        |root| {
            let (two, three) = (root.join("dir/two"), root.join("three"));
            assert_eq!(fs::read(&two).unwrap(), b"changed");
            let (about_two, about_three) = (fs::metadata(&two).unwrap(), fs::metadata(&three).unwrap());
            assert_eq!((about_two.ino(), about_two.nlink()), (about_three.ino(), 2));
            fs::remove_file(&two).unwrap();
            assert_eq!(fs::metadata(&three).unwrap().nlink(), 1);
        },
    );
}

/// > **Symbolic links** have targets of up to 4,095 bytes.
#[test]
fn a_symlink_keeps_its_target_byte_for_byte() {
    let targets = [b"x".to_vec(), b"a\xff\xfe/../b".to_vec(), vec![b'l'; 4095]];
    across_a_remount(
        |root| {
            for (number, target) in targets.iter().enumerate() {
                symlink(OsString::from_vec(target.clone()), root.join(number.to_string())).unwrap();
            }
            symlink("loop", root.join("loop")).unwrap();
            // A hard link to the link itself, not to what it points at.
            rustix::fs::linkat(CWD, root.join("0"), CWD, root.join("hard"), AtFlags::empty()).unwrap();
        },
        |root| {
            for (number, target) in targets.iter().enumerate() {
                let path = root.join(number.to_string());
                assert_eq!(fs::read_link(&path).unwrap().into_os_string().into_vec(), *target);
                assert_eq!(fs::symlink_metadata(&path).unwrap().len(), target.len() as u64);
            }
            assert_eq!(fs::read_link(root.join("hard")).unwrap(), Path::new("x"));
            assert_eq!(fs::symlink_metadata(root.join("hard")).unwrap().nlink(), 2);
            let error = fs::read(root.join("loop")).unwrap_err();
            assert_eq!(error.raw_os_error(), Some(Errno::LOOP.raw_os_error()));
        },
    );
}

#[test]
fn making_and_removing_the_wrong_kind_of_thing_is_refused() {
    on_a_mount(|root| {
        let path = |name: &str| root.join(name);
        fs::create_dir(path("dir")).unwrap();
        fs::write(path("dir/file"), "").unwrap();
        assert_eq!(rustix::fs::mkdir(path("dir"), Mode::RWXU), Err(Errno::EXIST));
        assert_eq!(rustix::fs::rmdir(path("dir")), Err(Errno::NOTEMPTY));
        assert_eq!(rustix::fs::rmdir(path("dir/file")), Err(Errno::NOTDIR));
        assert_eq!(rustix::fs::unlink(path("dir")), Err(Errno::ISDIR));
        assert_eq!(rustix::fs::unlink(path("absent")), Err(Errno::NOENT));
        assert_eq!(rustix::fs::unlink(path("dir/file/below")), Err(Errno::NOTDIR));
        let exclusive = fs::OpenOptions::new().write(true).create_new(true).open(path("dir/file"));
        assert_eq!(exclusive.unwrap_err().kind(), std::io::ErrorKind::AlreadyExists);
        assert_eq!(fs::write(path("dir"), "").unwrap_err().kind(), std::io::ErrorKind::IsADirectory);
    });
}

#[test]
fn pipes_sockets_and_devices_are_what_they_are() {
    let device = rustix::fs::makedev(240, 0x12345);
    across_a_remount(
        |root| {
            let pipe = root.join("pipe");
            rustix::fs::mknodat(CWD, &pipe, FileType::Fifo, Mode::from_raw_mode(0o640), 0).unwrap();
            let reader = std::thread::spawn({
                let pipe = pipe.clone();
                move || fs::read_to_string(pipe).unwrap()
            });
            fs::write(&pipe, "through the pipe").unwrap();
            assert_eq!(reader.join().unwrap(), "through the pipe");

            let listener = UnixListener::bind(root.join("socket")).unwrap();
            let mut sender = UnixStream::connect(root.join("socket")).unwrap();
            sender.write_all(b"hello").unwrap();
            drop(sender);
            let mut heard = String::new();
            listener.accept().unwrap().0.read_to_string(&mut heard).unwrap();
            assert_eq!(heard, "hello");

            if is_root() {
                let mode = Mode::from_raw_mode(0o600);
                rustix::fs::mknodat(CWD, root.join("device"), FileType::BlockDevice, mode, device).unwrap();
            }
        },
        |root| {
            let kind = |name: &str| {
                let about = fs::symlink_metadata(root.join(name)).unwrap();
                (FileType::from_raw_mode(about.mode()), about.rdev())
            };
            assert_eq!(kind("pipe").0, FileType::Fifo);
            assert_eq!(kind("socket").0, FileType::Socket);
            if is_root() {
                assert_eq!(kind("device"), (FileType::BlockDevice, device));
            }
        },
    );
}
