//! What many seeds came to.

use std::collections::BTreeMap;

use crate::world::Outcome;

#[derive(Default)]
pub struct Totals {
    seeds: u64,
    lives: u64,
    operations: u64,
    requests: u64,
    cuts: u64,
    takeovers: u64,
    kept: u64,
    absent: u64,
    looks: u64,
    behind: u64,
    /// Crashes at a request, by what was asked for and whether it took effect.
    deaths: BTreeMap<String, u64>,
    /// Crashes tried between two changes, by the change that would have come next.
    tried: BTreeMap<String, u64>,
    /// Seeds in which a promise was broken.
    pub violations: Vec<u64>,
}

impl Totals {
    pub fn add(&mut self, outcome: &Outcome) {
        self.seeds += 1;
        self.lives += outcome.lives;
        self.operations += outcome.operations;
        self.requests += outcome.requests;
        self.cuts += outcome.cuts;
        self.takeovers += outcome.takeovers;
        self.kept += outcome.kept;
        self.absent += outcome.absent;
        self.looks += outcome.looks;
        self.behind += outcome.behind;
        for (verb, class) in &outcome.crashes {
            *self.tried.entry(format!("before {verb:?} {class:?}")).or_default() += 1;
        }
        for (verb, class, takes_effect) in &outcome.deathbeds {
            let when = if *takes_effect { "after" } else { "before" };
            *self.deaths.entry(format!("{when} {verb:?} {class:?}")).or_default() += 1;
        }
    }

    /// One line; `scripts/soak` adds up several of them.
    pub fn line(&self) -> String {
        format!(
            "{} seeds {} lives {} operations {} requests {} crashes {} takeovers {} violations",
            self.seeds + self.violations.len() as u64,
            self.lives,
            self.operations,
            self.requests,
            self.crashes(),
            self.takeovers,
            self.violations.len()
        )
    }

    fn crashes(&self) -> u64 {
        self.deaths.values().chain(self.tried.values()).sum::<u64>() + self.cuts
    }

    pub fn show(&self) {
        println!("{}", self.line());
        println!("crash points covered: {}, of which", self.crashes());
        println!("{:6} between requests", self.cuts);
        println!("{} whole trees seen by readers beside a writer", self.looks);
        println!("{} unsent files kept by mounts taken over, {} parts gone", self.kept, self.absent);
        println!("mounts that found contents put off for somebody else's fsync: {}", self.behind);
        self.deaths.iter().for_each(|(kind, count)| println!("{count:6} died {kind}"));
        self.tried.iter().for_each(|(kind, count)| println!("{count:6} tried {kind}"));
    }
}
