//! What tests of the whole program share: commands with deadlines, servers, volumes, mounts, trees and manifests.

// Each test binary uses its own part of this.
#![allow(dead_code)]

pub(crate) mod command;
pub(crate) mod google;
pub(crate) mod manifest;
pub(crate) mod mount;
pub(crate) mod relay;
pub(crate) mod secrets;
pub(crate) mod servers;
pub(crate) mod tls;
pub(crate) mod tree;
pub(crate) mod volume;

/// Where random trees and schedules start: `COFFER_TEST_SEED`, or the clock. Printed, so that a failure can be run again.
pub(crate) fn seed(what: &str) -> u64 {
    let seed = match std::env::var("COFFER_TEST_SEED") {
        Ok(text) => text.parse().expect("COFFER_TEST_SEED is a number"),
        Err(_) => std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .map(|since| since.as_nanos() as u64 % 1_000_000_000)
            .expect("the clock is past 1970"),
    };
    println!("{what}: COFFER_TEST_SEED={seed}");
    seed
}

/// Whether the longer variants of the tests were asked for (`scripts/test --extended`).
pub(crate) fn extended() -> bool {
    std::env::var_os("COFFER_TEST_EXTENDED").is_some()
}
