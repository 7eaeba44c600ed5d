//! rsync copies a tree with everything in it, finds nothing to do afterwards, and neither does it after a new mount.

use std::ffi::OsString;
use std::path::Path;

use crate::place::Place;
use crate::support::command::{Finished, run_ok, shell};
use crate::support::manifest::Manifest;
use crate::support::servers;
use crate::support::tree::Tree;
use crate::support::{extended, google, seed};

/// `rsync FLAGS FROM/ TO/`
fn rsync(flags: &[&str], from: &Path, to: &Path) -> Finished {
    let mut args: Vec<OsString> = flags.iter().map(OsString::from).collect();
    args.extend([from.join("").into_os_string(), to.join("").into_os_string()]);
    run_ok("rsync", args)
}

/// What rsync would still do to make `to` equal to `from`, comparing every byte.
fn left_to_do(from: &Path, to: &Path) -> String {
    rsync(&["-aHAXc", "--delete", "--dry-run", "--itemize-changes"], from, to).text()
}

fn round_trip(place: &Place) {
    let source = tempfile::tempdir().unwrap();
    Tree::FULL.grow(source.path(), seed("tree"));
    let wanted = Manifest::of(source.path());
    assert!(wanted.len() > 5_000, "{} files", wanted.len());

    place.mounted(|root| {
        rsync(&["-aHAX"], source.path(), root);
        wanted.assert_same(&Manifest::of(root), "right after the copy");
    });
    place.mounted(|root| {
        assert_eq!(left_to_do(source.path(), root), "", "after a mount with no local state");
        wanted.assert_same(&Manifest::of(root), "after a mount with no local state");
        let again = rsync(&["-aHAX", "--itemize-changes", "--stats"], source.path(), root).text();
        assert!(again.contains("Number of regular files transferred: 0"), "{again}");
        assert!(!again.lines().any(|line| line.starts_with(['>', '<', 'c', '*', '.'])), "{again}");
    });
    place.mounted(|root| {
        let back = tempfile::tempdir().unwrap();
        rsync(&["-aHAX"], root, back.path());
        wanted.assert_same(&Manifest::of(back.path()), "copied out again");
    });
}

#[test]
fn a_tree_makes_the_round_trip_through_a_local_directory() {
    round_trip(&Place::new());
}

#[test]
fn a_tree_makes_the_round_trip_through_s3() {
    round_trip(&Place::on(Some(servers::seaweedfs())));
}

#[test]
fn a_tree_makes_the_round_trip_through_azure() {
    round_trip(&Place::on(Some(servers::azurite())));
}

#[test]
fn a_tree_makes_the_round_trip_through_google() {
    round_trip(&Place::on(Some(google::fake_gcs())));
}

/// A store of which one writer at a time asks nothing that it cannot do.
#[test]
fn a_tree_makes_the_round_trip_through_s3_that_keeps_files() {
    round_trip(&Place::on(Some(servers::s3s_fs())));
}

#[test]
fn trees_that_change_under_rsync_stay_equal() {
    let seed = seed("trees");
    let place = Place::new();
    let source = tempfile::tempdir().unwrap();
    let rounds = if extended() { 12 } else { 3 };
    for round in 0..rounds {
        let grown = source.path().join(format!("round {round}"));
        std::fs::create_dir(&grown).unwrap();
        Tree::SMALL.grow(&grown, seed + round);
        shell(
            source.path(),
            "find . -type f -links 1 -size -9k | sort | awk 'NR % 7 == 0' | xargs -d '\\n' -r rm -f
             find . -type f -size +2k -size -20k | sort | awk 'NR % 5 == 0' | while IFS= read -r f; do
               [ ! -w \"$f\" ] || echo changed >> \"$f\"
             done",
        );
        place.mounted(|root| rsync(&["-aHAX", "--delete"], source.path(), root));
        assert_eq!(place.mounted(|root| left_to_do(source.path(), root)), "", "round {round}");
    }
}

#[test]
fn writing_in_place_keeps_the_rest_of_a_file() {
    let place = Place::new();
    let source = tempfile::tempdir().unwrap();
    shell(source.path(), "head -c 9000000 /dev/urandom > big; head -c 70000 /dev/urandom > small");
    place.mounted(|root| {
        rsync(&["-a"], source.path(), root);
        shell(
            source.path(),
            "printf changed | dd of=big bs=1 seek=4194300 conv=notrunc status=none
             truncate -s 8500001 big; echo x >> small",
        );
        rsync(&["-a", "--inplace", "--no-whole-file"], source.path(), root);
    });
    assert_eq!(place.mounted(|root| left_to_do(source.path(), root)), "");
}
