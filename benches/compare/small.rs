//! Ten thousand small files: made, looked at, listed and read, warm against nothing and cold against the store.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use super::Asked;
use super::bare::Bare;
use super::ground::{Coffer, Ground, Null, Site, Subject, drop_kernel_caches, drop_page_cache, seconds};
use super::report::{Goal, Row, Series};
use crate::support::command::{command, run};
use crate::support::volume::Volume;

const FILES: usize = 10_000;
const FILE_BYTES: usize = 4096;
/// Files of one directory.
const SPREAD: usize = 1000;
const ROOM: &[&str] = &["--memory", "2GiB"];

/// Where the file of a number is.
pub(crate) fn name(number: usize) -> String {
    format!("{}/file-{number:06}", number / SPREAD)
}

/// Makes them all below `dir`.
pub(crate) fn make(dir: &Path, files: usize) {
    for part in 0..files.div_ceil(SPREAD) {
        fs::create_dir_all(dir.join(part.to_string())).expect("mkdir");
    }
    let mut body = [7; FILE_BYTES];
    for number in 0..files {
        body[..8].copy_from_slice(&number.to_le_bytes());
        File::create(dir.join(name(number))).and_then(|mut file| file.write_all(&body)).expect("create");
    }
}

fn stat_all(dir: &Path) {
    for number in 0..FILES {
        fs::metadata(dir.join(name(number))).expect("stat");
    }
}

/// As `find` and `ls -l` do.
fn walk(dir: &Path) {
    let mut found = 0;
    for part in 0..FILES.div_ceil(SPREAD) {
        for entry in fs::read_dir(dir.join(part.to_string())).expect("readdir") {
            entry.expect("an entry").metadata().expect("stat");
            found += 1;
        }
    }
    assert_eq!(found, FILES, "every file is listed");
}

fn read_all(dir: &Path) {
    let mut body = Vec::with_capacity(FILE_BYTES);
    for number in 0..FILES {
        body.clear();
        File::open(dir.join(name(number))).and_then(|mut file| file.read_to_end(&mut body)).expect("read");
        assert_eq!(body.len(), FILE_BYTES, "a file is whole");
    }
}

/// Seconds for: making, stat, walking, reading and removing.
fn all(site: &Site<'_>, round: usize) -> [f64; 5] {
    let dir = site.path(&format!("small{round}"));
    let made = seconds(|| make(&dir, FILES));
    site.settle();
    // The kernel remembers attributes for both alike; what is measured is the way to the filesystem.
    drop_kernel_caches();
    let stat = seconds(|| stat_all(&dir));
    drop_kernel_caches();
    let walked = seconds(|| walk(&dir));
    drop_page_cache();
    let read = seconds(|| read_all(&dir));
    let removed = seconds(|| fs::remove_dir_all(&dir).expect("rm -rf"));
    site.settle();
    [made, stat, walked, read, removed]
}

pub(crate) fn against_null(asked: &Asked) -> Vec<Row> {
    let coffer = Coffer::new(Volume::local(), ROOM);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    coffer.mounted(&mut |site| {
        Null { buffered: false }.mounted(&mut |null| {
            for round in 0..asked.rounds {
                ours.push(all(site, round));
                theirs.push(all(null, round));
            }
        });
    });
    let works = [
        ("create, write 4 KiB, close: 10,000 files", 0.6),
        ("stat of 10,000 files the kernel has forgotten", 0.8),
        ("readdir and stat of 10,000 files", 0.8),
        ("open, read, close of 10,000 warm files of 4 KiB", 0.8),
        ("rm -rf of 10,000 files", 0.5),
    ];
    let row = |(index, (work, goal)): (usize, (&str, f64))| Row {
        work: work.into(),
        unit: "s",
        coffer: Series::new("coffer", ours.iter().map(|times| times[index]).collect()),
        others: vec![Series::new("null", theirs.iter().map(|times| times[index]).collect())],
        goal: Goal::Speed(goal),
    };
    works.into_iter().enumerate().map(row).collect()
}

pub(crate) fn cold(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let bare = Bare::new(ground, FILES * FILE_BYTES);
    let coffer = Coffer::new(ground.volume(), &[]);
    coffer.mounted(&mut |site| {
        make(&site.path("small"), FILES);
        site.settle();
    });
    let (mut lists, mut requests) = (Vec::new(), Vec::new());
    let (mut reads, mut fetches, mut gets) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        coffer.mounted(&mut |site| {
            let before = ground.requests();
            let mut list = command("ls", ["-lR"]);
            list.arg(site.path("small"));
            let time = seconds(|| drop(run(list).ok()));
            lists.push(time / ground.round_trip.as_secs_f64());
            requests.push((ground.requests() - before) as f64);
        });
        coffer.mounted(&mut |site| {
            let before = ground.requests();
            reads.push(seconds(|| read_all(&site.path("small"))));
            fetches.push((ground.requests() - before) as f64);
        });
        gets.push(bare.get());
    }
    vec![
        Row {
            work: "ls -lR of 10,000 files, cold, 30 ms".into(),
            unit: "round trips",
            coffer: Series::new("coffer", lists),
            others: vec![Series::new("requests", requests)],
            goal: Goal::Count(40.0),
        },
        Row {
            work: "read 10,000 files of 4 KiB, cold, 30 ms".into(),
            unit: "s",
            coffer: Series::new("coffer", reads),
            others: vec![Series::new("bare GET", gets), Series::new("requests", fetches)],
            goal: Goal::Speed(0.5),
        },
    ]
}
