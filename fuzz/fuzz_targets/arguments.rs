//! What people type: command lines, mount options, URLs, sizes, spans, fingerprints, commits, recovery codes.
#![no_main]

use clap::Parser;
use coffer::cli::args::Cli;
use coffer::cli::mount_options::MountOptions;
use coffer::cli::units::{parse_duration, parse_size, show_duration, show_size};
use coffer::keys::{Fingerprint, RecoveryCode};
use coffer::store::fault::FaultPlan;
use coffer::volume::ExpectedCommit;
use libfuzzer_sys::fuzz_target;

fuzz_target!(|data: &[u8]| {
    let _ = RecoveryCode::parse(data);
    let Ok(text) = std::str::from_utf8(data) else { return };
    let _ = Cli::try_parse_from(std::iter::once("coffer").chain(text.lines()));
    let _ = MountOptions::parse(&text.lines().collect::<Vec<_>>());
    coffer::fuzzing::url(text);
    let _ = parse_size(text).map(show_size);
    let _ = parse_duration(text).map(show_duration);
    let _ = text.parse::<FaultPlan>();
    let _ = ExpectedCommit::parse(text);
    if let Ok(fingerprint) = Fingerprint::parse(text) {
        assert_eq!(Fingerprint::parse(&fingerprint.to_string()), Ok(fingerprint));
    }
});
