//! Whether a volume of a million files is slower than one of ten thousand.

use std::fs;
use std::path::Path;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use super::Asked;
use super::ground::{Coffer, Site, Subject, drop_kernel_caches, seconds};
use super::report::{Goal, Row, Series};
use super::small;
use crate::support::seed;
use crate::support::volume::Volume;

const SIZES: [usize; 3] = [10_000, 100_000, 1_000_000];
const PROBES: usize = 2000;

/// Microseconds for each of: making a file, `stat` of one the kernel has forgotten, looking for one that is not there.
fn probe(site: &Site<'_>, files: usize, round: usize, rng: &mut SmallRng) -> [f64; 3] {
    let each = |seconds: f64| seconds * 1e6 / PROBES as f64;
    let (tree, new) = (site.path("tree"), site.path(&format!("new{files}-{round}")));
    let made = seconds(|| small::make(&new, PROBES));
    fs::remove_dir_all(&new).expect("rm -rf");
    site.settle();
    let chosen: Vec<String> = (0..PROBES).map(|_| small::name(rng.random_range(0..files))).collect();
    drop_kernel_caches();
    let seen = seconds(|| look(&tree, &chosen, "", true));
    drop_kernel_caches();
    let missed = seconds(|| look(&tree, &chosen, ".no", false));
    [made, seen, missed].map(each)
}

fn look(tree: &Path, names: &[String], ending: &str, is_there: bool) {
    for name in names {
        assert_eq!(fs::symlink_metadata(tree.join(format!("{name}{ending}"))).is_ok(), is_there, "{name}");
    }
}

pub(crate) fn measure(asked: &Asked) -> Vec<Row> {
    let mut rng = SmallRng::seed_from_u64(seed("growth"));
    let coffer = Coffer::new(Volume::local(), &[]);
    let mut all: Vec<Vec<[f64; 3]>> = Vec::new();
    for files in SIZES {
        coffer.mounted(&mut |site| {
            small::make(&site.path("tree"), files);
            site.settle();
        });
        // Mounted anew, so that none has more in memory than the others.
        coffer.mounted(&mut |site| {
            let probes = (0..asked.rounds).map(|round| probe(site, files, round, &mut rng));
            all.push(probes.collect());
        });
    }
    let works = ["create, write 4 KiB, close", "stat of a file", "stat of what is not there"];
    let row = |(index, work): (usize, &str)| {
        let mut series = SIZES.iter().zip(&all).map(|(files, probes)| {
            Series::new(format!("{files} files"), probes.iter().map(|probe| probe[index]).collect())
        });
        let (small, middle) = (series.next(), series.next());
        Row {
            work: format!("{work}, among 1,000,000 files and 10,000"),
            unit: "µs",
            coffer: series.next().expect("three sizes"),
            others: small.into_iter().chain(middle).collect(),
            goal: Goal::Cost(1.5),
        }
    };
    works.into_iter().enumerate().map(row).collect()
}
