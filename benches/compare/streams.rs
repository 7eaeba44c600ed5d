//! Streams of a gigabyte: into the mount, into the store, out of the store, out of the block cache.

use std::fs::File;
use std::io::{Read, Write};
use std::path::Path;

use super::Asked;
use super::bare::Bare;
use super::ground::{Coffer, Ground, Null, Site, Subject, drop_page_cache, seconds};
use super::report::{Goal, Row, Series};
use crate::support::volume::Volume;

const STREAM_BYTES: usize = 1 << 30;
const PIECE_BYTES: usize = 1 << 20;
/// Room for the whole stream, in whichever part of memory the row is about.
const ROOM: &[&str] = &["--memory", "6GiB", "--dirty-limit", "2GiB", "--cache-size", "2GiB"];

/// As `dd` and `cp` write: a new file, one piece after the other.
pub(crate) fn write(path: &Path, bytes: usize) -> File {
    let mut file = File::create(path).expect("create");
    let mut piece = vec![0; PIECE_BYTES];
    for number in 0..bytes / PIECE_BYTES {
        // No two blocks alike, at no cost to speak of.
        for (block, start) in piece.chunks_exact_mut(4096).enumerate() {
            start[..8].copy_from_slice(&(number * 256 + block).to_le_bytes());
        }
        file.write_all(&piece).expect("write");
    }
    file
}

/// To the end; how many bytes there were.
pub(crate) fn read(path: &Path) -> usize {
    let mut file = File::open(path).expect("open");
    let mut piece = vec![0; PIECE_BYTES];
    let mut total = 0;
    loop {
        match file.read(&mut piece).expect("read") {
            0 => return total,
            bytes => total += bytes,
        }
    }
}

fn timed_write(site: &Site<'_>) -> f64 {
    let path = site.path("stream");
    let time = seconds(|| drop(write(&path, STREAM_BYTES)));
    site.settle();
    std::fs::remove_file(&path).expect("remove");
    site.settle();
    time
}

fn timed_read(site: &Site<'_>) -> f64 {
    drop_page_cache();
    let mut bytes = 0;
    let time = seconds(|| bytes = read(&site.path("stream")));
    assert_eq!(bytes, STREAM_BYTES, "all of it is read");
    time
}

/// Both mounted at once, taking turns.
pub(crate) fn against_null(asked: &Asked) -> Vec<Row> {
    let coffer = Coffer::new(Volume::local(), ROOM);
    let (mut ours, mut direct, mut buffered) = (Vec::new(), Vec::new(), Vec::new());
    let (mut our_reads, mut null_reads) = (Vec::new(), Vec::new());
    coffer.mounted(&mut |site| {
        Null { buffered: true }.mounted(&mut |null_buffered| {
            Null { buffered: false }.mounted(&mut |null| {
                for _ in 0..asked.rounds {
                    ours.push(timed_write(site));
                    direct.push(timed_write(null));
                    buffered.push(timed_write(null_buffered));
                }
                for site in [site, null] {
                    drop(write(&site.path("stream"), STREAM_BYTES));
                    site.settle();
                    timed_read(site);
                }
                for _ in 0..asked.rounds {
                    our_reads.push(timed_read(site));
                    null_reads.push(timed_read(null));
                }
            });
        });
    });
    vec![
        Row {
            work: "write 1 GiB into the mount, below the dirty limit".into(),
            unit: "s",
            coffer: Series::new("coffer", ours),
            others: vec![Series::new("null, buffered", buffered), Series::new("null, direct", direct)],
            goal: Goal::Speed(1.0),
        },
        Row {
            work: "read 1 GiB, block cache warm, page cache dropped".into(),
            unit: "s",
            coffer: Series::new("coffer", our_reads),
            others: vec![Series::new("null", null_reads)],
            goal: Goal::Speed(0.9),
        },
    ]
}

/// Written durably, and read by a mount that has just begun.
pub(crate) fn against_store(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let bare = Bare::new(ground, STREAM_BYTES);
    let coffer = Coffer::new(ground.volume(), &[]);
    let (mut writes, mut puts, mut reads, mut gets) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    for round in 0..asked.rounds {
        coffer.mounted(&mut |site| {
            let path = site.path(&format!("stream{round}"));
            writes.push(seconds(|| write(&path, STREAM_BYTES).sync_all().expect("fsync")));
        });
        puts.push(bare.put());
        coffer.mounted(&mut |site| {
            let path = site.path(&format!("stream{round}"));
            reads.push(seconds(|| assert_eq!(read(&path), STREAM_BYTES, "all of it is read")));
            std::fs::remove_file(&path).expect("remove");
        });
        gets.push(bare.get());
    }
    let (ms, goal) = (ground.round_trip.as_millis(), if ground.round_trip.is_zero() { 0.8 } else { 0.9 });
    let row = |work: &str, ours, limit: Series| Row {
        work: format!("{work}, {ms} ms"),
        unit: "s",
        coffer: Series::new("coffer", ours),
        others: vec![limit],
        goal: Goal::Speed(goal),
    };
    vec![
        row("write 1 GiB and fsync", writes, Series::new("bare PUT", puts)),
        row("read 1 GiB, cold", reads, Series::new("bare GET", gets)),
    ]
}
