//! Trees copied into a volume without a mount, compared by rsync when they have come out again.

use std::fs;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use coffer::base::Ino;
use coffer::cli::deep::Near;
use coffer::cli::exit::Exit;
use coffer::vfs::Caller;

use crate::support::{Bench, Ended};

fn import(bench: &Bench, from: &str, path: &str) -> Ended {
    bench.run(&["import", "--passphrase-file", "right", "vol", from, path])
}

/// Every kind of file that a user can make.
fn grow(top: &Path) {
    fs::create_dir_all(top.join("deep/er")).unwrap();
    fs::write(top.join("small"), "few bytes").unwrap();
    fs::write(top.join("empty"), "").unwrap();
    fs::write(top.join("deep/large"), vec![7; 3_000_001]).unwrap();
    let sparse = fs::File::create(top.join("deep/sparse")).unwrap();
    sparse.write_all_at(b"island", 5 << 20).unwrap();
    sparse.set_len(64 << 20).unwrap();
    symlink("../small", top.join("deep/link")).unwrap();
    symlink("nowhere", top.join("dangling")).unwrap();
    fs::hard_link(top.join("small"), top.join("deep/er/second name")).unwrap();
    fs::hard_link(top.join("small"), top.join("third name")).unwrap();
    Command::new("mkfifo").arg(top.join("pipe")).status().unwrap();
    Command::new("setfattr")
        .args(["-n", "user.note", "-v", "read me"])
        .arg(top.join("small"))
        .status()
        .unwrap();
    Command::new("setfacl").args(["-m", "u:12345:rw"]).arg(top.join("empty")).status().unwrap();
    fs::set_permissions(top.join("deep/large"), fs::Permissions::from_mode(0o640)).unwrap();
    let old = SystemTime::UNIX_EPOCH - Duration::from_millis(1_234_567);
    fs::File::open(top.join("small")).unwrap().set_modified(old).unwrap();
    fs::set_permissions(top.join("deep/er"), fs::Permissions::from_mode(0o550)).unwrap();
    fs::File::open(top.join("deep/er")).unwrap().set_modified(old).unwrap();
}

/// What rsync would have to do to make `to` like `from`: nothing, if it is.
#[track_caller]
fn assert_same(from: &Path, to: &Path) {
    let mut rsync = Command::new("rsync");
    rsync.args(["-aHAX", "--checksum", "--delete", "--dry-run", "--itemize-changes"]);
    let output = rsync.arg(from.join("")).arg(to.join("")).output().unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert_eq!(String::from_utf8_lossy(&output.stdout), "");
}

#[test]
fn what_goes_in_comes_out_the_same() {
    let bench = Bench::with_volume();
    grow(&bench.path("from"));
    let said = import(&bench, "from", "/a/b");
    assert!(said.stderr.starts_with("imported 9 files, "), "{}", said.stderr);
    said.ok();
    bench.run(&["export", "--passphrase-file", "right", "vol", "/a/b", "out"]).ok();
    assert_same(&bench.path("from"), &bench.path("out"));
    let sparse = fs::metadata(bench.path("out/deep/sparse")).unwrap();
    assert!(sparse.blocks() * 512 < 1 << 20, "{} blocks", sparse.blocks());
    assert_eq!(fs::metadata(bench.path("out/small")).unwrap().nlink(), 3);
}

/// The deepest of 100 directories below `top`, whose path is longer than the system takes.
fn depth_below(top: &Path) -> PathBuf {
    (0..100).fold(top.to_owned(), |path, level| path.join(format!("{level:060}")))
}

#[test]
fn trees_deeper_than_a_path_may_be_long_go_in_and_come_out_the_same() {
    let bench = Bench::with_volume();
    let deepest = depth_below(&bench.path("from"));
    let mut above: Vec<&Path> = deepest.ancestors().take(101).collect();
    above.reverse();
    for directory in above {
        fs::create_dir(Near::of(directory).unwrap().path()).unwrap();
    }
    let near = Near::of(&deepest.join("file")).unwrap();
    fs::write(near.path(), "deep").unwrap();
    fs::hard_link(near.path(), Near::of(&deepest.join("second name")).unwrap().path()).unwrap();
    symlink("file", Near::of(&deepest.join("link")).unwrap().path()).unwrap();
    assert!(fs::read(deepest.join("file")).is_err(), "the test needs a path that is too long");

    import(&bench, "from", "/a").ok();
    bench.run(&["export", "--passphrase-file", "right", "vol", "/a", "out"]).ok();
    let out = depth_below(&bench.path("out"));
    let near = Near::of(&out.join("file")).unwrap();
    assert_eq!(fs::read(near.path()).unwrap(), b"deep");
    assert_eq!(fs::metadata(near.path()).unwrap().nlink(), 2);
    let link = Near::of(&out.join("link")).unwrap();
    assert_eq!(fs::read_link(link.path()).unwrap(), Path::new("file"));
    // Directories as well have the times of those they were made from.
    let modified = |path: &Path| fs::metadata(Near::of(path).unwrap().path()).unwrap().modified().unwrap();
    assert_eq!(modified(&out), modified(&deepest));
}

#[test]
fn a_second_run_reads_only_what_has_changed_and_removes_nothing() {
    let bench = Bench::with_volume();
    grow(&bench.path("from"));
    import(&bench, "from", "/").ok();
    let before: usize = bench.objects("").len();
    fs::write(bench.path("from/new"), "new").unwrap();
    fs::write(bench.path("from/deep/large"), vec![8; 2_000_000]).unwrap();
    fs::remove_file(bench.path("from/empty")).unwrap();
    let again = import(&bench, "from", "/");
    // The links, the pipe and two files are made; those that are the same count as well, but not their bytes.
    assert!(again.stderr.contains("; 2 files were there already"), "{}", again.stderr);
    assert!(again.stderr.contains(", 1.9 MiB in "), "{}", again.stderr);
    again.ok();
    assert!(bench.objects("").len() < before + 12, "{} objects of {before}", bench.objects("").len());
    bench.run(&["export", "--passphrase-file", "right", "vol", "/", "out"]).ok();
    fs::remove_file(bench.path("out/empty")).expect("what is only in the volume stays");
    fs::File::open(bench.path("out")).unwrap().set_modified(modified(&bench.path("from"))).unwrap();
    assert_same(&bench.path("from"), &bench.path("out"));
}

fn modified(path: &Path) -> SystemTime {
    fs::metadata(path).unwrap().modified().unwrap()
}

#[test]
fn what_a_broken_run_left_is_taken_up_by_the_next() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("from")).unwrap();
    fs::write(bench.path("from/file"), vec![1; 100_000]).unwrap();
    let about = fs::metadata(bench.path("from/file")).unwrap();
    let partial = format!(".coffer-import-{:x}-{:x}", about.dev(), about.ino());
    bench.change(async |vfs| {
        let made = vfs.create(&Caller::default(), Ino::ROOT, partial.as_bytes(), 0o600, true).await.unwrap();
        vfs.write(made.ino, 0, &[1; 50_000], true).await.unwrap();
    });
    import(&bench, "from", "/").ok();
    assert_eq!(bench.on_volume("ls", &[]).ok(), "file\n");
    assert_eq!(bench.on_volume("cat", &["/file"]).stdout, vec![1; 100_000]);
}

#[test]
fn what_is_of_another_kind_gives_way_as_rsync_has_it_unless_it_holds_something() {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path("first/clash/inside")).unwrap();
    fs::create_dir_all(bench.path("first/empty")).unwrap();
    fs::write(bench.path("first/other"), "a file").unwrap();
    import(&bench, "first", "/").ok();
    fs::create_dir_all(bench.path("second/other/deep")).unwrap();
    for name in ["clash", "empty", "fine"] {
        fs::write(bench.path("second").join(name), name).unwrap();
    }
    fs::hard_link(bench.path("second/fine"), bench.path("second/link")).unwrap();
    let ended = import(&bench, "second", "/");
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    let line = "second/clash: a directory that is not empty is in its place in the volume";
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
    assert!(ended.stderr.contains("1 file was not copied in full"), "{}", ended.stderr);
    assert!(!ended.stderr.contains("hint"), "it would fail again: {}", ended.stderr);
    for name in ["empty", "fine"] {
        assert_eq!(bench.on_volume("cat", &[name]).ok(), name);
    }
    assert_eq!(bench.on_volume("ls", &["/other"]).ok(), "deep\n");
    // What PATH goes through does not give way.
    let through = import(&bench, "second", "/fine/below");
    assert_eq!(through.code, i32::from(Exit::Failure.code()), "{}", through.stderr);
    assert_eq!(bench.on_volume("cat", &["/fine"]).ok(), "fine");
}

#[test]
fn a_file_alone_goes_into_a_directory_or_to_a_name_of_its_own() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("src")).unwrap();
    fs::write(bench.path("src/Error.pm"), "few").unwrap();
    symlink("nowhere", bench.path("src/link")).unwrap();
    for (path, name) in [
        ("/", "/Error.pm"),
        ("/new/", "/new/Error.pm"),
        ("/new", "/new/Error.pm"),
        ("/new/name", "/new/name"),
        ("top", "/top"),
    ] {
        import(&bench, "src/Error.pm", path).ok();
        assert_eq!(bench.on_volume("cat", &[name]).ok(), "few", "{path}");
    }
    fs::write(bench.path("src/Error.pm"), "more than few").unwrap();
    import(&bench, "src/Error.pm", "/top").ok();
    assert_eq!(bench.on_volume("cat", &["/top"]).ok(), "more than few");
    import(&bench, "src/link", "/new").ok();
    assert_eq!(bench.on_volume("ls", &["/new"]).ok(), "Error.pm\nlink\nname\n");
}

#[test]
fn an_import_beside_a_writer_is_refused() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("from")).unwrap();
    crate::support::runtime().block_on(async {
        let opened = bench.open_for_writing().await;
        import(&bench, "from", "/").refused(Exit::VolumeInUse, &format!("process {}", std::process::id()));
        opened.close().await.unwrap();
    });
    import(&bench, "absent", "/").refused(Exit::Failure, "cannot read absent");
}

#[test]
fn a_further_name_is_never_one_of_what_was_there_where_the_first_was_not_copied() {
    let bench = Bench::with_volume();
    let names = ["one", "two"];
    fs::create_dir(bench.path("from")).unwrap();
    fs::write(bench.path("from/one"), "new").unwrap();
    fs::hard_link(bench.path("from/one"), bench.path("from/two")).unwrap();
    // Whichever comes first cannot be replaced.
    bench.change(async |vfs| {
        for name in names {
            let dir = vfs.mkdir(&Caller::default(), Ino::ROOT, name.as_bytes(), 0o755).await.unwrap().ino;
            vfs.create(&Caller::default(), dir, b"old", 0o600, true).await.unwrap();
        }
    });
    let ended = import(&bench, "from", "/");
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert!(ended.stderr.contains("2 files were not copied in full"), "{}", ended.stderr);
    let line = ": it was not copied under the first of its names";
    assert!(ended.stderr.contains(line), "{}", ended.stderr);
    assert_eq!(bench.on_volume("ls", &["-R"]).ok(), "one\ntwo\none/old\ntwo/old\n");
}

#[test]
fn what_killed_runs_have_left_goes_also_if_the_source_has_other_inodes_by_now() {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path("from/dir")).unwrap();
    fs::write(bench.path("from/dir/.coffer-import-1-2"), "of the source").unwrap();
    fs::write(bench.path("from/file"), "few").unwrap();
    import(&bench, "from", "/").ok();
    bench.change(async |vfs| {
        let dir = vfs.lookup(Ino::ROOT, b"dir").await.unwrap().ino;
        for (dir, name) in [
            (Ino::ROOT, ".coffer-import-fd01-1f"),
            (dir, ".coffer-import-fd01-2e"),
            (dir, ".coffer-import-notes"),
        ] {
            vfs.create(&Caller::default(), dir, name.as_bytes(), 0o600, true).await.unwrap();
        }
        let other = vfs.mkdir(&Caller::default(), Ino::ROOT, b"other", 0o755).await.unwrap().ino;
        vfs.create(&Caller::default(), other, b".coffer-import-1-1", 0o600, true).await.unwrap();
    });
    import(&bench, "from", "/").ok();
    let names =
        "dir\nfile\nother\ndir/.coffer-import-1-2\ndir/.coffer-import-notes\nother/.coffer-import-1-1\n";
    assert_eq!(bench.on_volume("ls", &["-R"]).ok(), names);
    assert_eq!(bench.on_volume("cat", &["/dir/.coffer-import-1-2"]).ok(), "of the source");
}

#[test]
fn an_error_about_a_local_name_cannot_drive_the_terminal() {
    let bench = Bench::with_volume();
    fs::create_dir(bench.path("from")).unwrap();
    fs::write(bench.path("from/file\x1b[2J"), "new").unwrap();
    bench.change(async |vfs| {
        let name = b"file\x1b[2J";
        let dir = vfs.mkdir(&Caller::default(), Ino::ROOT, name, 0o755).await.unwrap().ino;
        vfs.create(&Caller::default(), dir, b"old", 0o600, true).await.unwrap();
    });
    let ended = import(&bench, "from", "/");
    assert!(!ended.stderr.contains('\x1b'), "{}", ended.stderr.escape_debug());
    assert!(ended.stderr.contains("error: from/file\\u{1b}[2J: "), "{}", ended.stderr.escape_debug());
}
