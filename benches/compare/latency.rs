//! What durability costs: 4 KiB written and synced, in round trips of the store.

use std::fs::File;
use std::os::unix::fs::FileExt;

use super::Asked;
use super::bare::Bare;
use super::ground::{Coffer, Ground, Subject, seconds};
use super::report::{Goal, Row, Series};

const SYNCS: u64 = 50;
/// More than rides in a commit's records.
const LARGE_BYTES: usize = 256 << 10;

pub(crate) fn fsync(asked: &Asked, ground: &Ground) -> Vec<Row> {
    let bare = Bare::new(ground, 1);
    let coffer = Coffer::new(ground.volume(), &[]);
    let (mut small, mut large, mut puts) = (Vec::new(), Vec::new(), Vec::new());
    coffer.mounted(&mut |site| {
        let file = File::create(site.path("file")).expect("create");
        let body = vec![1; LARGE_BYTES];
        for number in 0..asked.rounds as u64 * SYNCS {
            let sync = |bytes: usize| {
                seconds(|| {
                    file.write_all_at(&body[..bytes], number % 8 * 4096).expect("write");
                    file.sync_all().expect("fsync");
                })
            };
            small.push(sync(4096));
            if number % 5 == 0 {
                large.push(sync(LARGE_BYTES));
            }
            puts.push(bare.one_put(4096));
        }
    });
    let row = |work: &str, ours, goal| Row {
        work: work.into(),
        unit: "s",
        coffer: Series::new("coffer", ours),
        others: vec![Series::new("one PUT", puts.clone())],
        goal: Goal::Cost(goal),
    };
    vec![
        row("write 4 KiB and fsync, 30 ms", small, 1.3),
        row("write 256 KiB and fsync (not inline), 30 ms", large, 2.3),
    ]
}
