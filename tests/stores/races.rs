//! A store that keeps every promise but one, and who notices.

use crate::backends::{bucket_on, run};
use crate::conformance::{RACES, probed, races};
use crate::support::servers;

/// s3s-fs looks whether the name is free and then writes, with nothing between. Whoever writes alone sees nothing of
/// it: the probe that a mount makes, of one writer, passes.
#[test]
fn s3s_fs_lets_several_writers_win_a_race_and_the_suite_sees_it() {
    let server = servers::s3s_fs();
    let bucket = bucket_on(&server, "prefix");
    run(async {
        probed(&bucket).await.unwrap();
        let winners = races(&bucket, RACES).await;
        println!("winners, race by race: {winners:?}");
        assert!(
            winners.iter().any(|winners| *winners > 1),
            "s3s-fs decides races now: make this an ordinary store of the suite, and mend docs/OPERATING.md"
        );
    });
}
