//! What a seed draws: the faults of the bucket, the limits of a mount, where a process dies.

use std::time::Duration;

use coffer::store::fault::{Fault, FaultPlan, KeyClass, Outage, Rule, Verb};
use coffer::vfs::{CleanOptions, VfsOptions};
use rand::Rng;
use rand::rngs::SmallRng;

use crate::door::Death;

/// How a life ends, if nothing ends it before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// With an unmount.
    Close,
    /// The power fails when the actors have done their work.
    Cut,
}

/// Faults of the bucket for one life: none, a few kinds, or all sorts.
pub fn faults(rng: &mut SmallRng) -> FaultPlan {
    let mut plan = FaultPlan { seed: rng.random(), ..FaultPlan::default() };
    if rng.random_bool(0.7) {
        plan.latency = Duration::from_millis(rng.random_range(1..80));
        plan.jitter = Duration::from_millis(rng.random_range(0..200));
    }
    if rng.random_bool(0.2) {
        plan.bandwidth = Some(rng.random_range(100_000..4_000_000));
    }
    if rng.random_bool(0.15) {
        let from = Duration::from_secs(rng.random_range(0..40));
        plan.outages.push(Outage { from, len: Duration::from_secs(rng.random_range(1..200)) });
    }
    if rng.random_bool(0.15) {
        // What a mount looks for in the background takes so long that everything else is over by then.
        let slow = Rule { class: Some(KeyClass::Segment), ..Rule::new(Fault::Hang, 0.5) };
        plan.rules.push(Rule { verb: Some(Verb::List), ..slow });
    }
    if rng.random_bool(0.5) {
        return plan;
    }
    let kinds = [
        Fault::Throttle,
        Fault::Broken,
        Fault::Full,
        Fault::Reset,
        Fault::Hang,
        Fault::Ambiguous,
        Fault::Silent,
        Fault::Late,
        Fault::Straggler,
        Fault::StaleList,
        Fault::RepeatList,
        Fault::ShortBody,
    ];
    for fault in kinds {
        if rng.random_bool(0.35) {
            // What is never answered costs half a minute each time.
            let is_slow = matches!(fault, Fault::Hang | Fault::Silent);
            let chance = if is_slow { 0.02 } else { [0.02, 0.05, 0.2][rng.random_range(0..3)] };
            let delay = Duration::from_millis(rng.random_range(10..60_000));
            let verb = if fault.befalls(Verb::Put) && rng.random_bool(0.3) { Some(Verb::Put) } else { None };
            let class = match rng.random_range(0..4) {
                0 => Some(KeyClass::Meta),
                1 => Some(KeyClass::Segment),
                _ => None,
            };
            plan.rules.push(Rule { fault, chance, delay, verb, class });
        }
    }
    plan
}

/// Whether writes may take effect that nobody waits for any more.
pub fn leaves_stragglers(plan: &FaultPlan) -> bool {
    plan.rules.iter().any(|rule| matches!(rule.fault, Fault::Late | Fault::Straggler))
}

pub fn options(rng: &mut SmallRng) -> VfsOptions {
    // Every other mount cleans as soon as there is anything to clean, and deletes at once what is dead.
    let eager = CleanOptions { grace: Duration::ZERO, slack_bytes: 0, ..CleanOptions::default() };
    let clean = if rng.random_bool(0.5) { eager } else { CleanOptions::default() };
    VfsOptions { clean, overtakes: rng.random_bool(0.8), ..limits(rng) }
}

fn limits(rng: &mut SmallRng) -> VfsOptions {
    match rng.random_range(0..4) {
        0 => VfsOptions::default(),
        1 => VfsOptions { segment_room_bytes: 140_000, inline_commit_bytes: 1_000, ..VfsOptions::default() },
        2 => VfsOptions {
            dirty_bytes_max: 400_000,
            record_cache_bytes: 8192,
            inline_commit_bytes: 70_000,
            segment_room_bytes: 140_000,
            ..VfsOptions::default()
        },
        _ => VfsOptions {
            commit_age: Duration::from_millis(300),
            dirty_records_max: 20,
            ..VfsOptions::default()
        },
    }
}

/// Mostly somewhere in the work, often while the volume is being opened.
pub fn death(rng: &mut SmallRng) -> Option<Death> {
    if rng.random_bool(0.25) {
        return None;
    }
    let counts_writes = rng.random_bool(0.6);
    let request = match counts_writes {
        true => rng.random_range(1..50),
        false if rng.random_bool(0.4) => rng.random_range(1..30),
        false => rng.random_range(15..130),
    };
    Some(Death { request, counts_writes, takes_effect: rng.random_bool(0.5) })
}
