//! What a gigabyte costs in CPU, written and read: of whoever serves the mount, and of the program that uses it.

use rustix::process::getpid;

use super::Asked;
use super::ground::{Coffer, Site, Subject, cpu_seconds, drop_page_cache};
use super::peers::LocalGocryptfs;
use super::report::{Goal, Row, Series};
use super::streams;
use crate::support::volume::Volume;

const STREAM_BYTES: usize = 1 << 30;

/// CPU seconds for a gigabyte in, synced, and out again.
fn in_and_out(site: &Site<'_>) -> f64 {
    let all: Vec<_> = site.daemons.iter().copied().chain([getpid()]).collect();
    let before = cpu_seconds(&all);
    let path = site.path("stream");
    streams::write(&path, STREAM_BYTES).sync_all().expect("fsync");
    drop_page_cache();
    assert_eq!(streams::read(&path), STREAM_BYTES, "all of it is read");
    let used = cpu_seconds(&all) - before;
    std::fs::remove_file(&path).expect("remove");
    used
}

/// Both keep what they write in a local directory.
pub(crate) fn per_gigabyte(asked: &Asked) -> Vec<Row> {
    let (coffer, gocryptfs) = (Coffer::new(Volume::local(), &[]), LocalGocryptfs::new());
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        coffer.mounted(&mut |site| ours.push(in_and_out(site)));
        gocryptfs.mounted(&mut |site| theirs.push(in_and_out(site)));
    }
    vec![Row {
        work: "CPU for 1 GiB written, synced and read, local bucket".into(),
        unit: "CPU s",
        coffer: Series::new("coffer", ours),
        others: vec![Series::new(gocryptfs.name(), theirs)],
        goal: Goal::Cost(1.2),
    }]
}
