//! A mount that only reads: it changes nothing anywhere, and shows what the writer commits.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, lchown, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::fs::{
    AtFlags, CWD, FileType, Mode, RenameFlags, Timestamps, XattrFlags, mknodat, renameat_with, utimensat,
};
use rustix::io::Errno;

use crate::support::command::wait_until;
use crate::support::manifest::Manifest;
use crate::support::tree::{Tree, is_root};
use crate::support::volume::Volume;

/// Every file below `dir`, with its contents and when it was changed.
fn everything(dir: &Path) -> BTreeMap<PathBuf, (Vec<u8>, (i64, i64))> {
    let mut found = BTreeMap::new();
    let mut dirs = vec![dir.to_owned()];
    while let Some(dir) = dirs.pop() {
        for entry in fs::read_dir(&dir).unwrap() {
            let path = entry.unwrap().path();
            let about = fs::symlink_metadata(&path).unwrap();
            if about.is_dir() {
                dirs.push(path);
            } else {
                found.insert(path.clone(), (fs::read(&path).unwrap(), (about.mtime(), about.mtime_nsec())));
            }
        }
    }
    found
}

fn io<T>(result: std::io::Result<T>) -> Option<i32> {
    result.err().and_then(|error| error.raw_os_error())
}

fn sys<T>(result: rustix::io::Result<T>) -> Option<i32> {
    result.err().map(Errno::raw_os_error)
}

/// What each call that would change something answers.
fn refusals(root: &Path) -> Vec<(&'static str, Option<i32>)> {
    let path = |name: &str| root.join(name);
    let (file, dir, new) = (path("file"), path("dir"), path("new"));
    let now = rustix::fs::Timespec { tv_sec: 1, tv_nsec: 0 };
    let both = Timestamps { last_access: now, last_modification: now };
    let xattr = |name: &str| sys(rustix::fs::setxattr(&file, name, b"x", XattrFlags::empty()));
    let open = |options: &mut OpenOptions| io(options.open(&file));
    let mut answers = vec![
        ("create", io(File::create(&new))),
        ("mkdir", io(fs::create_dir(&new))),
        ("mknod", sys(mknodat(CWD, &new, FileType::Fifo, Mode::RUSR, 0))),
        ("symlink", io(symlink("x", &new))),
        ("link", io(fs::hard_link(&file, &new))),
        ("unlink", io(fs::remove_file(&file))),
        ("rmdir", io(fs::remove_dir(&dir))),
        ("rename", io(fs::rename(&file, &new))),
        ("rename over", io(fs::rename(&file, path("other")))),
        ("exchange", sys(renameat_with(CWD, &file, CWD, &dir, RenameFlags::EXCHANGE))),
        ("chmod", io(fs::set_permissions(&file, PermissionsExt::from_mode(0o600)))),
        ("chown", io(lchown(&file, Some(0), Some(0)))),
        ("utimensat", sys(utimensat(CWD, &file, &both, AtFlags::empty()))),
        ("open to write", open(OpenOptions::new().write(true))),
        ("open to read and write", open(OpenOptions::new().read(true).write(true))),
        ("open to append", open(OpenOptions::new().append(true))),
        ("open to truncate", open(OpenOptions::new().write(true).truncate(true))),
        ("setxattr", xattr("user.name")),
        ("removexattr", sys(rustix::fs::removexattr(&file, "user.kept"))),
    ];
    if is_root() {
        answers.push(("setxattr of root", xattr("trusted.name")));
    }
    let acl =
        crate::support::command::command("setfacl", ["-m".as_ref(), "u:1:r".as_ref(), file.as_os_str()]);
    let said = crate::support::command::run(acl).stderr;
    answers.push(("setfacl", said.contains("Read-only file system").then_some(Errno::ROFS.raw_os_error())));
    answers
}

/// > **A reader** (`--read-only`) may run beside the writer. It refuses every change with `EROFS` and writes nothing to the
/// > bucket.
#[test]
fn a_reader_refuses_every_change_and_leaves_the_bucket_as_it_is() {
    let volume = Volume::local();
    let mount = volume.mount();
    Tree::SMALL.grow(&mount.path("."), 7);
    fs::create_dir(mount.path("dir")).unwrap();
    for name in ["file", "other"] {
        fs::write(mount.path(name), "contents").unwrap();
    }
    rustix::fs::setxattr(mount.path("file"), "user.kept", b"x", XattrFlags::empty()).unwrap();
    let wanted = Manifest::of(&mount.dir);
    mount.unmount();
    let before = everything(&volume.bucket());
    let mount = volume.mount_spec().args(&["--read-only"]).mount();
    wanted.assert_same(&Manifest::of(&mount.dir), "read by a reader");
    for (call, answer) in refusals(&mount.dir) {
        assert_eq!(answer, Some(Errno::ROFS.raw_os_error()), "{call}");
    }
    mount.sync();
    wanted.assert_same(&Manifest::of(&mount.dir), "after all that was refused");
    mount.unmount();
    let after = everything(&volume.bucket());
    assert!(before.keys().eq(after.keys()), "objects came or went");
    assert!(before == after, "an object was changed");
}

/// > It follows the writer's commits: what it shows is at most `--poll-interval` (5 s) old while the bucket answers, and
/// > the time that looking takes. It looks only while it is used; after a pause it looks before it answers.
#[test]
fn a_reader_that_was_idle_looks_before_it_answers() {
    const INTERVAL: Duration = Duration::from_millis(500);
    let volume = Volume::local();
    let writer = volume.mount();
    let reader = volume.mount_spec().args(&["--read-only", "--poll-interval", "500ms"]).mount();
    fs::create_dir(writer.path("dir")).unwrap();
    for round in 0..5 {
        let text = format!("round {round}");
        fs::write(writer.path("file"), &text).unwrap();
        fs::write(writer.path(format!("dir/{round}")), "").unwrap();
        writer.sync();
        let committed = Instant::now();
        wait_until("the reader is idle for an interval", Duration::from_secs(20), || {
            committed.elapsed() > INTERVAL
        });
        assert_eq!(fs::read_dir(reader.path("dir")).unwrap().count(), round + 1);
        assert_eq!(fs::read_to_string(reader.path("file")).unwrap(), text);
        let requests = || reader.status()["mounts"][0]["store"]["requests"].as_u64().unwrap();
        let before = requests();
        let looked = Instant::now();
        wait_until("several intervals pass", Duration::from_secs(20), || looked.elapsed() > 3 * INTERVAL);
        assert_eq!(requests(), before, "a reader that nobody uses asks the bucket");
    }
    reader.unmount();
    writer.unmount();
}

/// > What the writer has removed is gone for a reader too: descriptors that were opened before answer `ESTALE`.
#[test]
fn what_is_gone_is_stale_for_those_who_have_it_open() {
    let volume = Volume::local();
    let writer = volume.mount();
    for name in ["removed", "replaced"] {
        fs::write(writer.path(name), "old").unwrap();
    }
    writer.sync();
    let reader = volume.mount_spec().args(&["--read-only", "--poll-interval", "500ms"]).mount();
    let open = |name: &str| File::open(reader.path(name)).unwrap();
    let files = [open("removed"), open("replaced")];
    fs::remove_file(writer.path("removed")).unwrap();
    fs::write(writer.path("new"), "new").unwrap();
    fs::rename(writer.path("new"), writer.path("replaced")).unwrap();
    writer.sync();
    wait_until("the reader follows", Duration::from_secs(60), || !reader.path("removed").exists());
    for file in &files {
        assert_eq!(io(file.read_at(&mut [0; 3], 0)), Some(Errno::STALE.raw_os_error()));
        assert_eq!(io(file.metadata()), Some(Errno::STALE.raw_os_error()));
    }
    assert_eq!(fs::read_to_string(reader.path("replaced")).unwrap(), "new");
    drop(files);
    reader.unmount();
    writer.unmount();
}

/// > **Contents a reader shows** bypass the kernel's cache in favour of the mount's own. Programs run and files can be
/// > mapped; what is mapped may be of several commits.
#[test]
fn programs_run_from_a_reader() {
    let volume = Volume::local();
    let writer = volume.mount();
    fs::copy("/bin/cat", writer.path("cat")).unwrap();
    fs::write(writer.path("text"), "shown").unwrap();
    writer.sync();
    let reader = volume.mount_spec().args(&["--read-only"]).mount();
    let cat = crate::support::command::command(reader.path("cat").to_str().unwrap(), [reader.path("text")]);
    assert_eq!(crate::support::command::run(cat).ok().text(), "shown");
    reader.unmount();
    writer.unmount();
}
