//! The filesystem without a mount, over a bucket in all weathers, in processes that die at any request: nothing
//! acknowledged is ever lost, and everything follows from a seed.
//!
//! After a death the tree must be, whole, one of those that the mount showed since its last acknowledgement. So
//! no operation is there without those before it, no file renamed into place without its data, no entry without
//! its inode. At the end of a seed every number in the records is counted anew.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod actor;
mod birth;
mod busy;
mod clock;
mod contents;
mod crash;
mod deeds;
mod disk;
mod door;
mod finale;
mod follower;
mod history;
mod recount;
mod rescue;
mod totals;
mod trace;
mod tree;
mod weather;
mod world;

use std::time::{Duration, Instant};

use totals::Totals;
use trace::Log;
use world::{Crashes, Outcome, Templates, World};

/// Simulations make and drop much that is small.
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Seeds of the tests, in parts that end well within the time that a test has.
const SEEDS: u64 = 1000;

/// Says which seed it was when a test fails.
struct Telling(u64);

impl Drop for Telling {
    fn drop(&mut self) {
        if std::thread::panicking() {
            println!("COFFER_TEST_SEED={}", self.0);
        }
    }
}

fn run(seed: u64, templates: &Templates, crashes: Crashes) -> Outcome {
    let _telling = Telling(seed);
    World::new(seed, templates, Log::Forget, crashes).run()
}

fn given_seed() -> Option<u64> {
    std::env::var("COFFER_TEST_SEED").ok().and_then(|seed| seed.parse().ok())
}

fn seeds(part: u64, parts: u64) -> Vec<u64> {
    match given_seed() {
        Some(seed) => vec![seed],
        None => (SEEDS * part / parts..SEEDS * (part + 1) / parts).collect(),
    }
}

fn run_part(part: u64, parts: u64) {
    let (templates, mut totals) = (Templates::new(), Totals::default());
    let crashes = if given_seed().is_some() { Crashes::All } else { Crashes::Few };
    seeds(part, parts).into_iter().for_each(|seed| totals.add(&run(seed, &templates, crashes)));
    totals.show();
}

#[test]
fn nothing_acknowledged_is_lost_in_the_first_quarter_of_the_seeds() {
    run_part(0, 4);
}

#[test]
fn nothing_acknowledged_is_lost_in_the_second_quarter_of_the_seeds() {
    run_part(1, 4);
}

#[test]
fn nothing_acknowledged_is_lost_in_the_third_quarter_of_the_seeds() {
    run_part(2, 4);
}

#[test]
fn nothing_acknowledged_is_lost_in_the_fourth_quarter_of_the_seeds() {
    run_part(3, 4);
}

#[test]
fn a_seed_repeats_itself_to_the_last_request() {
    let templates = Templates::new();
    for seed in seeds(0, 20) {
        let _telling = Telling(seed);
        let [first, second] = [(); 2].map(|()| World::new(seed, &templates, Log::Keep, Crashes::None).run());
        if first.trace != second.trace {
            let at = first.log.iter().zip(&second.log).position(|(a, b)| a != b);
            let at = at.unwrap_or(first.log.len().min(second.log.len()));
            let around = at.saturating_sub(5)..at + 3;
            let show = |log: &[String]| {
                log.get(around.start..around.end.min(log.len())).unwrap_or_default().join("\n")
            };
            panic!("seed {seed} differs at event {at}:\n{}\n\n{}", show(&first.log), show(&second.log));
        }
    }
}

#[test]
fn a_volume_is_there_whole_or_can_be_made_again_whenever_its_making_dies() {
    let deaths = birth::die_at_every_request();
    println!("{deaths} deaths");
    assert!(deaths > 20);
}

/// For scripts/soak: goes through seeds until it is told to stop, and says how far it is once a minute.
#[test]
#[ignore = "runs until it is told to stop"]
fn soak() {
    let text = |name: &str| std::env::var(name).ok();
    let number = |name: &str| text(name).and_then(|text| text.parse::<u64>().ok());
    let seconds = number("COFFER_SOAK_SECONDS").filter(|seconds| *seconds > 0).unwrap_or(u64::MAX);
    let (first, step) =
        (number("COFFER_SOAK_FIRST").unwrap_or(SEEDS), number("COFFER_SOAK_STEP").unwrap_or(1));
    let is_stopped = || text("COFFER_SOAK_STOP").is_some_and(|file| std::path::Path::new(&file).exists());
    let (templates, mut totals) = (Templates::new(), Totals::default());
    let (started, mut shown) = (Instant::now(), Instant::now());
    for seed in (first..).step_by(step as usize) {
        if started.elapsed() >= Duration::from_secs(seconds) || is_stopped() {
            break;
        }
        match std::panic::catch_unwind(|| run(seed, &templates, Crashes::All)) {
            Ok(outcome) => totals.add(&outcome),
            Err(_) => totals.violations.push(seed),
        }
        if shown.elapsed() > Duration::from_secs(20) {
            shown = Instant::now();
            println!("soak: {}", totals.line());
        }
    }
    println!("\nsoak: {}", totals.line());
    assert!(totals.violations.is_empty(), "{:?}", totals.violations);
}

#[test]
#[ignore = "prints what the seed COFFER_TEST_SEED does, for a person to read"]
fn show() {
    let seed = seeds(0, 1)[0];
    let _telling = Telling(seed);
    World::new(seed, &Templates::new(), Log::Print, Crashes::All).run();
}
