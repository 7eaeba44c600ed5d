//! What `coffer cp` makes of what is there before, and of several sources.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

use coffer::base::{FileKind, Ino};
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, Vfs};

use crate::support::Bench;

fn me() -> Caller {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Caller { uid, gid, ..Caller::default() }
}

async fn mkdir(vfs: &Vfs, dir: Ino, name: &str) -> Ino {
    vfs.mkdir(&me(), dir, name.as_bytes(), 0o755).await.unwrap().ino
}

async fn put(vfs: &Vfs, dir: Ino, name: &str, text: &str) -> Ino {
    let file = vfs.create(&me(), dir, name.as_bytes(), 0o644, true).await.unwrap().ino;
    vfs.write(file, 0, text.as_bytes(), false).await.unwrap();
    file
}

#[track_caller]
fn assert_is(path: &Path, text: &str) {
    assert_eq!(fs::read_to_string(path).unwrap(), text, "{}", path.display());
}

/// `a` and `b` have a directory `s` each, in which files have the same names; `z` has further names of those in `a`.
fn with_names() -> Bench {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let [a, b, z] = ["a", "b", "z"].map(|name| async move { mkdir(vfs, Ino::ROOT, name).await });
        let (a, b, z) = (a.await, b.await, z.await);
        let (a, b) = (mkdir(vfs, a, "s").await, mkdir(vfs, b, "s").await);
        let one = put(vfs, a, "f", "one").await;
        vfs.link(one, a, b"second").await.unwrap();
        put(vfs, b, "f", "two").await;
        vfs.link(one, b, b"third").await.unwrap();
        vfs.link(one, z, b"g").await.unwrap();
        vfs.link(one, z, b"h").await.unwrap();
    });
    bench
}

#[test]
fn a_hard_link_is_never_one_to_the_file_that_has_replaced_the_first_name() {
    let bench = with_names();
    let into = |name: &str| bench.path("into").join(name);
    fs::create_dir(bench.path("into")).unwrap();
    bench.on_volume("cp", &["a/s/f", "b/s/f", "z/g", "z/h", "into"]).ok();
    assert_is(&into("f"), "two");
    assert_is(&into("g"), "one");
    assert_eq!(fs::metadata(into("g")).unwrap().ino(), fs::metadata(into("h")).unwrap().ino());

    bench.on_volume("cp", &["-r", "a/s", "b/s", "into"]).ok();
    assert_is(&into("s/f"), "two");
    for name in ["s/second", "s/third"] {
        assert_is(&into(name), "one");
    }
    // The whole volume, and then a part of it over what came with it.
    bench.on_volume("cp", &["-r", "/", "b/s", "into"]).ok();
    assert_is(&into("a/s/f"), "one");
    assert_is(&into("a/s/second"), "one");
    assert_is(&into("z/g"), "one");
}

#[test]
fn a_link_is_none_to_an_older_file_where_the_first_name_was_not_copied() {
    let bench = with_names();
    fs::create_dir_all(bench.path("into/f")).unwrap();
    let ended = bench.on_volume("cp", &["a/s/f", "z/g", "z/h", "into"]);
    assert_eq!(ended.code, 28, "{}", ended.stderr);
    assert!(ended.stderr.contains("error: into/f: "), "{}", ended.stderr);
    for name in ["into/g", "into/h"] {
        assert_is(&bench.path(name), "one");
        assert_eq!(fs::metadata(bench.path(name)).unwrap().permissions().mode() & 0o777, 0o644);
    }
}

/// A local pipe, and as root a local device that is `/dev/full` by another name.
fn make_special(at: &Path) {
    assert!(Command::new("mkfifo").arg(at.join("pipe")).status().unwrap().success());
    if rustix::process::geteuid().is_root() {
        let made = Command::new("mknod").arg(at.join("full")).args(["c", "1", "7"]).status().unwrap();
        assert!(made.success());
    }
}

fn is_special(path: &Path) -> bool {
    let kind = fs::symlink_metadata(path).unwrap().file_type();
    kind.is_fifo() || kind.is_char_device()
}

#[test]
fn what_is_no_regular_file_is_not_replaced_and_a_link_that_is_named_is_followed() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let dir = mkdir(vfs, Ino::ROOT, "dir").await;
        for name in ["file", "pipe", "full", "link"] {
            put(vfs, dir, name, "new").await;
        }
        vfs.mknod(&me(), dir, b"own", FileKind::Fifo, 0o600, 0).await.unwrap();
        vfs.symlink(&me(), dir, b"soft", b"file").await.unwrap();
        let linked = put(vfs, Ino::ROOT, "linked", "new").await;
        vfs.link(linked, Ino::ROOT, b"pipe").await.unwrap();
    });
    let into = bench.path("into");
    fs::create_dir(&into).unwrap();
    make_special(&into);
    let specials: Vec<_> = ["pipe", "full"].into_iter().filter(|name| into.join(name).exists()).collect();
    for name in &specials {
        let dest = format!("into/{name}");
        let ended = bench.on_volume("cp", &["dir/file", &dest]);
        assert_eq!(ended.code, i32::from(Exit::LocalWrite.code()), "{}", ended.stderr);
        let ended = bench.on_volume("cp", &[&format!("dir/{name}"), "dir/file", "into"]);
        assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
        assert!(ended.stderr.contains(&format!("error: into/{name}: ")), "{}", ended.stderr);
        assert!(is_special(&into.join(name)));
        assert_is(&into.join("file"), "new");
    }

    let ended = bench.on_volume("cp", &["linked", "pipe", "into"]);
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert!(is_special(&into.join("pipe")), "a hard link took its place");

    fs::write(bench.path("real"), "old").unwrap();
    symlink("real", bench.path("to real")).unwrap();
    symlink("../real", into.join("link")).unwrap();
    bench.on_volume("cp", &["dir/file", "to real"]).ok();
    assert_eq!(fs::read_link(bench.path("to real")).unwrap(), Path::new("real"));
    assert_is(&bench.path("real"), "new");
    fs::write(bench.path("real"), "old").unwrap();
    let ended = bench.on_volume("cp", &["dir/link", "into"]);
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert_eq!(fs::read_link(into.join("link")).unwrap(), Path::new("../real"));
    assert_is(&bench.path("real"), "old");
    symlink("/dev/null", bench.path("nowhere")).unwrap();
    bench.on_volume("cp", &["dir/file", "nowhere"]).refused(Exit::LocalWrite, "no regular file");

    // The same tree once more: its own pipes and links give way to each other.
    for _ in 0..2 {
        bench.on_volume("cp", &["-r", "dir", "tree"]).ok();
    }
    fs::remove_file(bench.path("tree/file")).unwrap();
    fs::rename(into.join("pipe"), bench.path("tree/file")).unwrap();
    let ended = bench.on_volume("cp", &["-r", "dir", "dir/soft", "tree"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    fs::rename(bench.path("tree/file"), bench.path("tree/dir/pipe")).unwrap();
    let ended = bench.on_volume("cp", &["-r", "dir", "tree"]);
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert!(is_special(&bench.path("tree/dir/pipe")));
}

#[test]
fn a_directory_that_was_there_keeps_its_mode_unless_modes_are_kept() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let top = mkdir(vfs, Ino::ROOT, "top").await;
        let below = mkdir(vfs, top, "below").await;
        put(vfs, below, "file", "new").await;
        put(vfs, mkdir(vfs, top, "fresh").await, "file", "new").await;
    });
    let mode = |name: &str| fs::metadata(bench.path(name)).unwrap().mode() & 0o7777;
    fs::create_dir_all(bench.path("into/below")).unwrap();
    for (name, mode) in [("into", 0o1777), ("into/below", 0o700)] {
        fs::set_permissions(bench.path(name), fs::Permissions::from_mode(mode)).unwrap();
    }
    bench.on_volume("cp", &["-r", "top", "/", "into"]).ok();
    bench.on_volume("cp", &["-r", "top/below", "into"]).ok();
    assert_eq!([mode("into"), mode("into/below"), mode("into/top/fresh")], [0o1777, 0o700, 0o755]);
    bench.on_volume("cp", &["-rp", "top/below", "into"]).ok();
    assert_eq!([mode("into"), mode("into/below")], [0o1777, 0o755]);
}

#[test]
fn one_wrong_path_of_several_is_told_and_the_others_are_gone_on_with() {
    let bench = with_names();
    fs::create_dir(bench.path("into")).unwrap();
    let ended = bench.on_volume("cp", &["a/s/f", "absent", "a", "z/g", "into"]);
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    for words in ["error: absent: no such file", "error: a is a directory", "2 files were not copied"] {
        assert!(ended.stderr.contains(words), "{words} is not in: {}", ended.stderr);
    }
    for name in ["into/f", "into/g"] {
        assert_is(&bench.path(name), "one");
        // Finished: further names are links.
        assert_eq!(fs::metadata(bench.path(name)).unwrap().nlink(), 2);
    }
    for (command, args, printed) in
        [("cat", ["a/s/f", "absent", "b/s/f"], "onetwo"), ("ls", ["a", "absent", "b/s"], "s\nf\nthird\n")]
    {
        let ended = bench.on_volume(command, &args);
        assert_eq!(ended.code, i32::from(Exit::NoSuchPath.code()), "{}", ended.stderr);
        assert_eq!(ended.stderr, "error: absent: no such file or directory\n");
        assert_eq!(String::from_utf8(ended.stdout).unwrap(), printed);
    }
}
