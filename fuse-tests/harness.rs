//! The tools of these tests, tried on plain directories and bare servers before anything is built on them.

use crate::support::manifest::Manifest;
use crate::support::servers;
use crate::support::tree::Tree;
use crate::support::{command, seed};

#[test]
fn a_manifest_notices_every_change_and_rsync_none_after_a_copy() {
    let (from, to) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    Tree::SMALL.grow(from.path(), seed("tree"));
    let before = Manifest::of(from.path());
    assert!(before.len() > 400, "{} files", before.len());
    command::run_ok(
        "rsync",
        ["-aHAX".as_ref(), from.path().join("").as_os_str(), to.path().join("").as_os_str()],
    );
    before.assert_same(&Manifest::of(to.path()), "the copy");
    std::fs::write(to.path().join("deep/new"), "x").unwrap();
    let noticed =
        std::panic::catch_unwind(|| before.assert_same(&Manifest::of(to.path()), "changed on purpose"));
    assert!(noticed.is_err());
}

#[test]
fn a_seed_grows_the_same_tree_twice() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for dir in [one.path(), two.path()] {
        Tree::SMALL.grow(dir, 7);
    }
    Manifest::of(one.path()).assert_same(&Manifest::of(two.path()), "the second tree");
}

#[test]
fn seaweedfs_comes_back_after_a_kill() {
    let mut server = servers::seaweedfs();
    server.kill();
    server.start_again();
}

#[test]
fn azurite_starts_with_a_container() {
    drop(servers::azurite());
}
