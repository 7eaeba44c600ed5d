//! Random reads of 4 KiB: from the block cache, and from the store with sixteen in flight.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use rand::rngs::SmallRng;
use rand::seq::SliceRandom;
use rand::{Rng, SeedableRng};

use super::Asked;
use super::bare::Bare;
use super::ground::{Coffer, Ground, Null, Site, Subject, drop_page_cache, seconds};
use super::report::{Goal, Row, Series};
use super::streams;
use crate::support::seed;
use crate::support::volume::Volume;

const READ_BYTES: usize = 4096;
const BLOCK_BYTES: u64 = 64 << 10;
const WARM_BYTES: usize = 256 << 20;
const WARM_READS: usize = 20_000;
const COLD_BYTES: usize = 1 << 30;
const COLD_READS: usize = 960;
const IN_FLIGHT: usize = 16;
const ROOM: &[&str] = &["--memory", "2GiB", "--cache-size", "512MiB"];

fn open(path: &Path) -> File {
    let file = File::open(path).expect("open");
    rustix::fs::fadvise(&file, 0, None, rustix::fs::Advice::Random).expect("fadvise");
    file
}

fn warm_reads(site: &Site<'_>, rng: &mut SmallRng) -> f64 {
    drop_page_cache();
    let file = open(&site.path("file"));
    let mut buffer = [0; READ_BYTES];
    let pages = WARM_BYTES / READ_BYTES;
    seconds(|| {
        for _ in 0..WARM_READS {
            let page = rng.random_range(0..pages) as u64;
            file.read_exact_at(&mut buffer, page * READ_BYTES as u64).expect("read");
        }
    })
}

pub(crate) fn warm(asked: &Asked) -> Vec<Row> {
    let mut rng = SmallRng::seed_from_u64(seed("random reads"));
    let coffer = Coffer::new(Volume::local(), ROOM);
    let (mut ours, mut theirs) = (Vec::new(), Vec::new());
    coffer.mounted(&mut |site| {
        Null { buffered: false }.mounted(&mut |null| {
            for site in [site, null] {
                drop(streams::write(&site.path("file"), WARM_BYTES));
                site.settle();
                streams::read(&site.path("file"));
            }
            for _ in 0..asked.rounds {
                ours.push(warm_reads(site, &mut rng));
                theirs.push(warm_reads(null, &mut rng));
            }
        });
    });
    vec![Row {
        work: format!("{WARM_READS} random reads of 4 KiB, warm"),
        unit: "s",
        coffer: Series::new("coffer", ours),
        others: vec![Series::new("null", theirs)],
        goal: Goal::Speed(0.7),
    }]
}

/// Each in a block of its own, so that none finds what another has fetched.
pub(crate) fn cold(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let mut rng = SmallRng::seed_from_u64(seed("random reads"));
    let bare = Bare::new(ground, COLD_BYTES);
    let coffer = Coffer::new(ground.volume(), &[]);
    coffer.mounted(&mut |site| streams::write(&site.path("file"), COLD_BYTES).sync_all().expect("fsync"));
    let mut blocks: Vec<u64> = (0..COLD_BYTES as u64 / BLOCK_BYTES).collect();
    let (mut ours, mut requests, mut ranges) = (Vec::new(), Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        blocks.shuffle(&mut rng);
        coffer.mounted(&mut |site| {
            drop_page_cache();
            let file = open(&site.path("file"));
            let next = AtomicUsize::new(0);
            let before = ground.requests();
            ours.push(seconds(|| {
                std::thread::scope(|scope| {
                    for _ in 0..IN_FLIGHT {
                        scope.spawn(|| {
                            let mut buffer = [0; READ_BYTES];
                            while let Some(block) =
                                blocks[..COLD_READS].get(next.fetch_add(1, Ordering::Relaxed))
                            {
                                file.read_exact_at(&mut buffer, block * BLOCK_BYTES + 8192).expect("read");
                            }
                        });
                    }
                });
            }));
            requests.push((ground.requests() - before) as f64);
        });
        ranges.push(bare.get_ranges(COLD_READS, BLOCK_BYTES as usize, IN_FLIGHT));
    }
    let limit = ground.round_trip.as_secs_f64() * (COLD_READS / IN_FLIGHT) as f64;
    vec![Row {
        work: format!("{COLD_READS} random reads of 4 KiB, cold, {IN_FLIGHT} in flight, 30 ms"),
        unit: "s",
        coffer: Series::new("coffer", ours),
        others: vec![
            Series::new("16 in each round trip", vec![limit]),
            Series::new("bare GET of as many blocks", ranges),
            Series::new("requests", requests),
        ],
        goal: Goal::Speed(0.9),
    }]
}
