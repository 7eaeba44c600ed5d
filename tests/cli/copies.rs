//! Files that come out of a volume are those that went in.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};

use coffer::base::{FileKind, Ino, Time};
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, SetAttr, SetTime, XattrMode};

use crate::support::Bench;

const MIB: usize = 1024 * 1024;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn populated() -> Bench {
    let bench = Bench::with_volume();
    let me = Caller {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..Caller::default()
    };
    bench.change(async |vfs| {
        let root = Ino::ROOT;
        let dir = vfs.mkdir(&me, root, b"dir", 0o750).await.unwrap().ino;
        let file = vfs.create(&me, dir, b"file", 0o640, true).await.unwrap().ino;
        vfs.write(file, 0, &pattern(3 * MIB + 7), false).await.unwrap();
        vfs.set_xattr(file, b"user.note", b"\0value\xFF", XattrMode::Set).await.unwrap();
        vfs.link(file, root, b"hard").await.unwrap();
        vfs.symlink(&me, root, b"soft", b"dir/file").await.unwrap();
        vfs.symlink(&me, root, b"outside", b"/etc/passwd").await.unwrap();
        vfs.symlink(&me, root, b"loop", b"loop").await.unwrap();
        vfs.mknod(&me, root, b"pipe", FileKind::Fifo, 0o600, 0).await.unwrap();
        let sparse = vfs.create(&me, root, b"sparse", 0o600, true).await.unwrap().ino;
        vfs.write(sparse, 5 * MIB as u64, b"middle", false).await.unwrap();
        vfs.setattr(&me, sparse, &SetAttr { size: Some(64 * MIB as u64), ..SetAttr::default() })
            .await
            .unwrap();
        vfs.create(&me, root, b"a\nb\x1b\xFF", 0o600, true).await.unwrap();
        let old = SetTime::At(Time { secs: -7, nanos: 5 });
        let times = SetAttr { atime: Some(old), mtime: Some(old), ..SetAttr::default() };
        vfs.setattr(&me, file, &times).await.unwrap();
        vfs.setattr(&me, dir, &times).await.unwrap();
    });
    bench
}

#[test]
fn an_export_is_the_tree_with_all_its_attributes() {
    let bench = populated();
    bench.on_volume("export", &["/", "out"]).ok();
    let out = bench.path("out");
    let file = fs::metadata(out.join("dir/file")).unwrap();
    assert_eq!(fs::read(out.join("dir/file")).unwrap(), pattern(3 * MIB + 7));
    assert_eq!((file.mode() & 0o7777, file.mtime(), file.mtime_nsec()), (0o640, -7, 5));
    let dir = fs::metadata(out.join("dir")).unwrap();
    assert_eq!((dir.mode() & 0o7777, dir.mtime()), (0o750, -7));
    assert_eq!((file.nlink(), file.ino()), (2, fs::metadata(out.join("hard")).unwrap().ino()));
    assert_eq!(fs::read_link(out.join("soft")).unwrap().to_str(), Some("dir/file"));
    assert!(fs::symlink_metadata(out.join("pipe")).unwrap().file_type().is_fifo());
    let sparse = fs::read(out.join("sparse")).unwrap();
    assert_eq!((sparse.len(), &sparse[5 * MIB..5 * MIB + 6]), (64 * MIB, &b"middle"[..]));
    assert!(fs::metadata(out.join("sparse")).unwrap().blocks() < 2048, "holes were written out");
    let mut note = [0; 16];
    if let Ok(bytes) = rustix::fs::getxattr(out.join("dir/file"), "user.note", &mut note) {
        assert_eq!(&note[..bytes], b"\0value\xFF");
    }
    bench.on_volume("export", &["/", "out"]).refused(Exit::LocalWrite, "not empty");
}

#[test]
fn cp_replaces_files_in_one_step_and_copies_trees_only_when_told() {
    let bench = populated();
    fs::create_dir(bench.path("into")).unwrap();
    fs::write(bench.path("into/file"), "old").unwrap();
    bench.on_volume("cp", &["soft", "dir/file", "into"]).ok();
    assert_eq!(fs::read(bench.path("into/file")).unwrap(), pattern(3 * MIB + 7));
    assert_eq!(fs::read(bench.path("into/soft")).unwrap(), pattern(3 * MIB + 7), "a link is followed");
    bench.on_volume("cp", &["dir", "into"]).refused(Exit::NoSuchPath, "-r");
    bench.on_volume("cp", &["-rp", "dir", "into"]).ok();
    assert_eq!(fs::metadata(bench.path("into/dir/file")).unwrap().mtime(), -7);
    bench.on_volume("cp", &["dir/file", "hard", "new"]).refused(Exit::Usage, "not a directory");
    bench.on_volume("cp", &["dir/file", "no/such/place"]).refused(Exit::LocalWrite, "no directory");
}

#[test]
fn cat_prints_bytes_and_follows_links_within_the_volume_only() {
    let bench = populated();
    let ended = bench.on_volume("cat", &["soft", "dir/../hard"]);
    assert_eq!(ended.code, 0, "{}", ended.stderr);
    assert!(ended.stdout == [pattern(3 * MIB + 7), pattern(3 * MIB + 7)].concat());
    bench.on_volume("cat", &["outside"]).refused(Exit::NoSuchPath, "out of the volume");
    bench.on_volume("cat", &["loop"]).refused(Exit::NoSuchPath, "too many symbolic links");
    bench.on_volume("cat", &["dir"]).refused(Exit::NoSuchPath, "directory");
    bench.on_volume("cat", &["dir/file/below"]).refused(Exit::NoSuchPath, "not a directory");
    bench.on_volume("cat", &["absent"]).refused(Exit::NoSuchPath, "no such file");
}

#[test]
fn ls_lists_names_as_they_are_and_long_lines_as_ls_does() {
    let bench = populated();
    let names = bench.on_volume("ls", &["-R"]).stdout;
    let want = b"a\nb\x1b\xFF\ndir\nhard\nloop\noutside\npipe\nsoft\nsparse\ndir/file\n";
    assert_eq!(names.escape_ascii().to_string(), want.escape_ascii().to_string());
    let long = bench.on_volume("ls", &["-l", "dir"]).ok();
    assert!(long.starts_with("-rw-r-----   2 "), "{long}");
    assert!(long.ends_with(" 3145735 1969-12-31 23:59 file\n"), "{long}");
    assert_eq!(bench.on_volume("ls", &["-d", "dir"]).ok(), "dir\n");
}

#[test]
fn inspect_shows_what_the_provider_sees_and_with_a_key_what_is_inside() {
    let bench = populated();
    let provider = bench.run(&["inspect", "vol"]).ok();
    assert!(!provider.contains("wal") && provider.contains("metadata"), "{provider}");
    assert!(bench.on_volume("inspect", &[]).ok().contains("/wal/"));
    let header = bench.on_volume("inspect", &["header/1"]).ok();
    assert!(header.contains("valid, and the volume's own"), "{header}");
    let segment = bench.objects("d").pop().unwrap();
    let object = segment.strip_prefix(bench.path("vol")).unwrap().to_str().unwrap();
    assert!(!bench.run(&["inspect", "vol", object]).ok().contains("BLOCKS"));
    assert!(bench.on_volume("inspect", &[object]).ok().contains("BLOCKS"));
    // Its head and its footer are as they were: what is altered is in a block.
    let good = fs::read(&segment).unwrap();
    let mut altered = good.clone();
    altered[coffer::base::HEAD_BYTES + 5] ^= 1;
    fs::write(&segment, altered).unwrap();
    bench.on_volume("inspect", &[object]).refused(Exit::Tampered, "block");
    fs::write(&segment, good).unwrap();
    let renamed = segment.with_file_name("0".repeat(26));
    fs::rename(&segment, &renamed).unwrap();
    let object = renamed.strip_prefix(bench.path("vol")).unwrap().to_str().unwrap();
    assert_eq!(bench.on_volume("inspect", &[object]).code, i32::from(Exit::Tampered.code()));
    bench.run(&["inspect", "vol", "d/none"]).refused(Exit::NoSuchPath, "no object d/none");
    bench.run(&["inspect", "vol", "../p"]).refused(Exit::NoSuchPath, "no object ../p");
}
