//! What `coffer cp` makes of what is there before, and of several sources.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

use coffer::base::Ino;
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
