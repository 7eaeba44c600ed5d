//! Files that come out of a volume are those that went in.

use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};

use coffer::base::{FileKind, Ino, Time};
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, SetAttr, SetTime, Vfs, XattrMode};

use crate::support::Bench;

const MIB: usize = 1024 * 1024;

fn pattern(bytes: usize) -> Vec<u8> {
    (0..bytes).map(|at| (at % 251) as u8).collect()
}

fn me() -> Caller {
    Caller {
        uid: rustix::process::getuid().as_raw(),
        gid: rustix::process::getgid().as_raw(),
        ..Caller::default()
    }
}

fn populated() -> Bench {
    let bench = Bench::with_volume();
    let me = me();
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

/// A local directory that no copy may reach, although a link in the volume leads there.
fn victim(bench: &Bench) -> PathBuf {
    let victim = bench.path("victim");
    fs::create_dir(&victim).unwrap();
    fs::write(victim.join("authorized_keys"), "own").unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
    victim
}

#[track_caller]
fn assert_untouched(victim: &Path) {
    assert_eq!(fs::metadata(victim).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(victim).unwrap().count(), 1);
    assert_eq!(fs::read_to_string(victim.join("authorized_keys")).unwrap(), "own");
}

/// A directory that anybody may write to, with a file for [`victim`] and another directory in it.
async fn put_bait(vfs: &Vfs, dir: Ino, name: &[u8]) {
    let bait = vfs.mkdir(&me(), dir, name, 0o777).await.unwrap().ino;
    let file = vfs.create(&me(), bait, b"authorized_keys", 0o666, true).await.unwrap().ino;
    vfs.write(file, 0, b"theirs", false).await.unwrap();
    vfs.mkdir(&me(), bait, b"below", 0o755).await.unwrap();
}

/// What [`put_bait`] made is at `copied`, with its modes, and no link leads there.
#[track_caller]
fn assert_is_bait(copied: &Path) {
    let about = fs::symlink_metadata(copied).unwrap();
    assert!(about.is_dir(), "{about:?}");
    assert_eq!(about.mode() & 0o7777, 0o777);
    assert_eq!(fs::read_to_string(copied.join("authorized_keys")).unwrap(), "theirs");
    assert_eq!(fs::metadata(copied.join("authorized_keys")).unwrap().mode() & 0o7777, 0o666);
    assert!(copied.join("below").is_dir());
}

#[test]
fn a_second_copy_never_goes_through_a_link_that_the_first_has_made() {
    let bench = Bench::with_volume();
    let victim = victim(&bench);
    bench.change(async |vfs| {
        let src = vfs.mkdir(&me(), Ino::ROOT, b"src", 0o755).await.unwrap().ino;
        vfs.symlink(&me(), src, b"x", victim.as_os_str().as_bytes()).await.unwrap();
    });
    fs::create_dir(bench.path("into")).unwrap();
    bench.on_volume("cp", &["-rp", "src", "into"]).ok();
    assert_eq!(fs::read_link(bench.path("into/src/x")).unwrap(), victim);
    bench.change(async |vfs| {
        let src = vfs.lookup(Ino::ROOT, b"src").await.unwrap().ino;
        vfs.unlink(src, b"x").await.unwrap();
        put_bait(vfs, src, b"x").await;
    });
    bench.on_volume("cp", &["-rp", "src", "into"]).ok();
    assert_untouched(&victim);
    assert_is_bait(&bench.path("into/src/x"));
}

#[test]
fn a_copy_never_goes_through_a_link_of_the_same_command() {
    let bench = Bench::with_volume();
    let victim = victim(&bench);
    bench.change(async |vfs| {
        for (top, is_link) in [(b"a", true), (b"b", false)] {
            let top = vfs.mkdir(&me(), Ino::ROOT, top, 0o755).await.unwrap().ino;
            let dir = vfs.mkdir(&me(), top, b"dir", 0o755).await.unwrap().ino;
            if is_link {
                vfs.symlink(&me(), dir, b"y", victim.as_os_str().as_bytes()).await.unwrap();
            } else {
                put_bait(vfs, dir, b"y").await;
            }
        }
    });
    for (number, (below, copied)) in [("dir/y", "y"), ("dir", "dir/y")].into_iter().enumerate() {
        let [link, directory] = ["a", "b"].map(|top| format!("{top}/{below}"));
        let into = format!("later directory {number}");
        fs::create_dir(bench.path(&into)).unwrap();
        let ended = bench.on_volume("cp", &["-rp", &link, &directory, &into]);
        assert_untouched(&victim);
        ended.ok();
        assert_is_bait(&bench.path(&into).join(copied));

        let into = format!("later link {number}");
        fs::create_dir(bench.path(&into)).unwrap();
        let ended = bench.on_volume("cp", &["-rp", &directory, &link, &into]);
        assert_untouched(&victim);
        assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
        assert_is_bait(&bench.path(&into).join(copied));
    }
}

#[test]
fn kept_permissions_are_never_those_of_what_a_link_leads_to() {
    let bench = Bench::with_volume();
    let victim = victim(&bench);
    bench.change(async |vfs| {
        let src = vfs.mkdir(&me(), Ino::ROOT, b"src", 0o755).await.unwrap().ino;
        vfs.mkdir(&me(), src, b"dir", 0o777).await.unwrap();
        vfs.create(&me(), src, b"file", 0o666, true).await.unwrap();
        vfs.mknod(&me(), src, b"pipe", FileKind::Fifo, 0o622, 0).await.unwrap();
    });
    let key = victim.join("authorized_keys");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).unwrap();
    let src = bench.path("into/src");
    fs::create_dir_all(&src).unwrap();
    for (name, target) in [("dir", &victim), ("file", &key), ("pipe", &key)] {
        symlink(target, src.join(name)).unwrap();
    }
    let ended = bench.on_volume("cp", &["-rp", "src", "into"]);
    assert!(!ended.stderr.contains("warning: "), "{}", ended.stderr);
    ended.ok();
    assert_untouched(&victim);
    assert_eq!(fs::metadata(&key).unwrap().mode() & 0o7777, 0o600);
    for (name, mode) in [("dir", 0o777), ("file", 0o666), ("pipe", 0o622)] {
        assert_eq!(fs::symlink_metadata(src.join(name)).unwrap().mode() & 0o7777, mode, "{name}");
    }
}

#[test]
fn the_destination_itself_may_be_a_link_to_a_directory() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| put_bait(vfs, Ino::ROOT, b"src").await);
    let copies: [(&str, &[&str]); 4] =
        [("cp", &["-rp", "src"]), ("cp", &["-rp", "/"]), ("export", &["/src"]), ("export", &["/"])];
    for (command, args) in copies {
        let name = [&[command], args].concat().join(" ").replace('/', "root");
        let (real, link) = (bench.path(&format!("{name} real")), bench.path(&name));
        fs::create_dir(&real).unwrap();
        symlink(&real, &link).unwrap();
        let ended = bench.on_volume(command, &[args, &[name.as_str()]].concat());
        assert!(!ended.stderr.contains("cannot keep permissions"), "{}", ended.stderr);
        ended.ok();
        assert_eq!(fs::read_link(&link).unwrap(), real);
        let copied = if args.contains(&"/src") { real } else { real.join("src") };
        assert_is_bait(&copied);
    }
    symlink("nowhere", bench.path("dangling")).unwrap();
    let ended = bench.on_volume("cp", &["-r", "src", "dangling"]);
    assert_eq!(ended.code, i32::from(Exit::LocalWrite.code()), "{}", ended.stderr);
    assert!(bench.path("dangling").is_symlink());
}

#[test]
fn an_error_about_a_name_cannot_drive_the_terminal() {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let src = vfs.mkdir(&me(), Ino::ROOT, b"src", 0o755).await.unwrap().ino;
        vfs.create(&me(), src, b"file\x1b[2J", 0o600, true).await.unwrap();
        vfs.mkdir(&me(), src, b"dir\x1b[2J", 0o700).await.unwrap();
    });
    fs::create_dir_all(bench.path("into/src/file\x1b[2J")).unwrap();
    fs::write(bench.path("into/src/dir\x1b[2J"), "kept").unwrap();
    let says = |command: &str, args: &[&str], exit: Exit, words: &[&str]| {
        let ended = bench.on_volume(command, args);
        let told = ended.stderr.escape_debug();
        assert_eq!(ended.code, i32::from(exit.code()), "{told}");
        assert!(!ended.stderr.contains('\x1b'), "{told}");
        for line in words {
            assert!(ended.stderr.contains(*line), "{line} is not in: {told}");
        }
    };
    let words = ["error: into/src/file\\u{1b}[2J: ", "error: into/src/dir\\u{1b}[2J: "];
    says("cp", &["-r", "src", "into"], Exit::Partial, &words);
    assert_eq!(fs::read_to_string(bench.path("into/src/dir\x1b[2J")).unwrap(), "kept");
    says("cp", &["src/dir\x1b[2J", "into"], Exit::NoSuchPath, &["src/dir\\u{1b}[2J is a directory"]);
    says("export", &["src/file\x1b[2J", "out"], Exit::NoSuchPath, &["src/file\\u{1b}[2J is not a directory"]);
}
