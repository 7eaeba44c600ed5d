//! Large directories: complete, each entry once, and steady while entries come and go.

use std::collections::HashSet;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::Path;

use crate::place::{across_a_remount, on_a_mount};
use crate::support::extended;

fn entries() -> u32 {
    if extended() { 100_000 } else { 20_000 }
}

fn name(number: u32) -> String {
    format!("entry {number} of a large directory")
}

fn fill(dir: &Path, count: u32) {
    fs::create_dir(dir).unwrap();
    for number in 0..count {
        File::create(dir.join(name(number))).unwrap();
    }
}

fn names(dir: &Path) -> Vec<OsString> {
    fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name()).collect()
}

fn assert_complete(dir: &Path, count: u32) {
    let listed = names(dir);
    assert_eq!(listed.len() as u32, count);
    let listed: HashSet<_> = listed.into_iter().collect();
    assert_eq!(listed.len() as u32, count, "an entry was listed twice");
    for number in (0..count).step_by(97) {
        assert!(listed.contains(&OsString::from(name(number))), "{} is missing", name(number));
    }
}

#[test]
fn a_large_directory_is_listed_completely() {
    let count = entries();
    across_a_remount(
        |root| {
            fill(&root.join("dir"), count);
            assert_complete(&root.join("dir"), count);
        },
        |root| assert_complete(&root.join("dir"), count),
    );
}

#[test]
fn removing_while_listing_removes_everything() {
    across_a_remount(
        |root| fill(&root.join("dir"), entries()),
        |root| {
            let dir = root.join("dir");
            let mut removed = 0;
            for entry in fs::read_dir(&dir).unwrap() {
                fs::remove_file(entry.unwrap().path()).unwrap();
                removed += 1;
            }
            assert_eq!(removed, entries());
            fs::remove_dir(&dir).unwrap();
        },
    );
}

/// > entries that are neither added nor removed meanwhile are shown exactly once.
#[test]
fn what_stays_is_listed_once_while_others_come_and_go() {
    const COUNT: u32 = 6_000;
    on_a_mount(|root| {
        let dir = root.join("dir");
        fill(&dir, COUNT);
        let mut seen: Vec<OsString> = Vec::new();
        let mut listing = fs::read_dir(&dir).unwrap();
        seen.extend(listing.by_ref().take(500).map(|entry| entry.unwrap().file_name()));
        // Every third entry goes, and as many new ones come, in the middle of the listing.
        for number in (0..COUNT).step_by(3) {
            fs::remove_file(dir.join(name(number))).unwrap();
            File::create(dir.join(format!("new {number}"))).unwrap();
        }
        seen.extend(listing.map(|entry| entry.unwrap().file_name()));
        let once: HashSet<_> = seen.iter().cloned().collect();
        assert_eq!(once.len(), seen.len(), "an entry was listed twice");
        for number in (0..COUNT).filter(|number| number % 3 != 0) {
            assert!(
                once.contains(&OsString::from(name(number))),
                "{} stayed and was not listed",
                name(number)
            );
        }
    });
}

#[test]
fn many_threads_can_work_in_one_directory() {
    const THREADS: u32 = 8;
    const EACH: u32 = 400;
    across_a_remount(
        |root| {
            std::thread::scope(|scope| {
                for thread in 0..THREADS {
                    scope.spawn(move || {
                        for number in 0..EACH {
                            let path = root.join(format!("{thread}-{number}"));
                            fs::write(&path, format!("{thread} {number}")).unwrap();
                            match number % 4 {
                                0 => fs::remove_file(&path).unwrap(),
                                1 => fs::rename(&path, path.with_extension("moved")).unwrap(),
                                _ => {}
                            }
                        }
                    });
                }
            });
        },
        |root| {
            assert_eq!(names(root).len() as u32, THREADS * EACH * 3 / 4);
            for thread in 0..THREADS {
                for number in 0..EACH {
                    let name = format!("{thread}-{number}{}", if number % 4 == 1 { ".moved" } else { "" });
                    let wanted = (number % 4 != 0).then(|| format!("{thread} {number}"));
                    assert_eq!(fs::read_to_string(root.join(name)).ok(), wanted);
                }
            }
        },
    );
}
