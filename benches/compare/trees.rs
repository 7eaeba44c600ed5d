//! Large trees: renamed, and mounted.

use super::Asked;
use super::ground::{Coffer, Ground, Subject, seconds};
use super::report::{Goal, Row, Series};
use super::small;

const RENAMED_FILES: usize = 100_000;
const MOUNTED_FILES: usize = 1_000_000;

pub(crate) fn measure(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let coffer = Coffer::new(ground.volume(), &[]);
    let mut renames = Vec::new();
    coffer.mounted(&mut |site| {
        small::make(&site.path("tree0"), RENAMED_FILES);
        site.settle();
        for round in 0..asked.rounds {
            let before = ground.requests();
            let (from, to) = (site.path(&format!("tree{round}")), site.path(&format!("tree{}", round + 1)));
            std::fs::rename(from, to).expect("rename");
            site.settle();
            renames.push((ground.requests() - before) as f64);
        }
        small::make(&site.path("rest"), MOUNTED_FILES - RENAMED_FILES);
    });
    let (mut mounts, mut requests) = (Vec::new(), Vec::new());
    for _ in 0..asked.rounds {
        let before = ground.requests();
        let mut mount = None;
        let time = seconds(|| mount = Some(coffer.volume().mount()));
        mounts.push(time / ground.round_trip.as_secs_f64());
        requests.push((ground.requests() - before) as f64);
        if let Some(mount) = mount {
            mount.unmount();
        }
    }
    vec![
        Row {
            work: "rename a directory of 100,000 files, and sync".into(),
            unit: "requests",
            coffer: Series::new("coffer", renames),
            others: vec![],
            goal: Goal::Count(4.0),
        },
        Row {
            work: "mount a volume of 1,000,000 files, 30 ms".into(),
            unit: "round trips",
            coffer: Series::new("coffer", mounts),
            others: vec![Series::new("requests", requests)],
            goal: Goal::Count(20.0),
        },
    ]
}
