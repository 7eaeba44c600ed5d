//! Somebody else can write to the directory that a tree is exported to, and changes names there meanwhile.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::vfs::{Caller, SetAttr};

use crate::support::{Bench, Ended};

fn me() -> Caller {
    let (uid, gid) = (rustix::process::getuid().as_raw(), rustix::process::getgid().as_raw());
    Caller { uid, gid, ..Caller::default() }
}

/// `dir` with modes for everybody, and a program in it that runs as its owner.
fn with_program() -> Bench {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        let dir = vfs.mkdir(&me(), Ino::ROOT, b"dir", 0o777).await.unwrap().ino;
        let open = SetAttr { perm: Some(0o777), ..SetAttr::default() };
        vfs.setattr(&me(), dir, &open).await.unwrap();
        let file = vfs.create(&me(), dir, b"program", 0o755, true).await.unwrap().ino;
        vfs.write(file, 0, &vec![1; 3_000_000], false).await.unwrap();
        let set = SetAttr { perm: Some(0o4755), ..SetAttr::default() };
        vfs.setattr(&me(), file, &set).await.unwrap();
    });
    bench
}

/// Exports from a slow store, with `swap` done as soon as `find` finds something.
fn export(bench: &Bench, find: impl Fn() -> Option<PathBuf> + Send, swap: impl Fn(&Path) + Send) -> Ended {
    std::thread::scope(|scope| {
        let swapped = scope.spawn(move || {
            let began = Instant::now();
            loop {
                if let Some(found) = find() {
                    return swap(&found);
                }
                assert!(began.elapsed() < Duration::from_secs(60), "there was nothing to swap");
            }
        });
        let ended = bench.on_volume("export", &["--fault", "latency=100ms", "/", "out"]);
        swapped.join().unwrap();
        ended
    })
}

#[test]
fn a_directory_that_is_swapped_for_a_link_leads_nowhere() {
    let bench = with_program();
    let (victim, dir, moved) = (bench.path("victim"), bench.path("out/dir"), bench.path("out/moved"));
    fs::create_dir(&victim).unwrap();
    fs::set_permissions(&victim, fs::Permissions::from_mode(0o700)).unwrap();
    let find = || dir.exists().then(|| dir.clone());
    let ended = export(&bench, find, |dir| {
        fs::rename(dir, &moved).unwrap();
        symlink(&victim, dir).unwrap();
    });
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: out/dir: "), "{}", ended.stderr);
    assert_eq!(fs::metadata(&victim).unwrap().mode() & 0o7777, 0o700);
    assert_eq!(fs::read_dir(&victim).unwrap().count(), 0);
    // What had begun went where the directory is by now.
    assert_eq!(fs::read(moved.join("program")).unwrap(), vec![1; 3_000_000]);
}

#[test]
fn a_file_that_is_swapped_before_it_has_its_name_gets_neither_name_nor_attributes() {
    let bench = with_program();
    let dir = bench.path("out/dir");
    let find = || {
        let mut entries = fs::read_dir(&dir).ok()?.flatten();
        entries
            .find(|entry| entry.file_name().to_string_lossy().starts_with(".coffer-partial-"))
            .map(|e| e.path())
    };
    let ended = export(&bench, find, |partial| {
        fs::rename(partial, bench.path("taken")).unwrap();
        fs::write(partial, "theirs").unwrap();
        fs::hard_link(partial, bench.path("theirs")).unwrap();
    });
    assert_eq!(ended.code, i32::from(Exit::Partial.code()), "{}", ended.stderr);
    assert!(ended.stderr.contains("error: out/dir/program: "), "{}", ended.stderr);
    assert!(!dir.join("program").exists());
    assert_eq!(fs::metadata(bench.path("theirs")).unwrap().mode() & 0o6111, 0);
}
