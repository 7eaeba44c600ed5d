//! Coffer against what limits it: a filesystem that stores nothing, the store without a filesystem, and its peers.
//!
//! `cargo bench --bench compare -- [--list] [--only WORD]... [--rounds N] [--json FILE] [--svg FILE]`, as root;
//! `scripts/bench` installs what it needs. Every figure is a ratio of medians of runs that take turns, in this one
//! process, so that what else the machine does hits both alike.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../../tests/support/mod.rs"]
mod support;

#[path = "../net/mod.rs"]
mod net;

mod bare;
mod cpu;
mod ground;
mod growth;
mod latency;
mod null;
mod peers;
mod programs;
mod random;
mod report;
mod small;
mod streams;
mod trees;

use std::path::PathBuf;
use std::time::Duration;

use ground::Ground;
use report::Row;

/// A wire's latency, and what the rows that need one are called after.
const FAR: Duration = Duration::from_millis(30);

/// What was asked for.
pub(crate) struct Asked {
    pub(crate) rounds: usize,
    only: Vec<String>,
    /// Those to measure beside; all if empty.
    peers: Vec<String>,
    is_list: bool,
    json: Option<PathBuf>,
    svg: Option<PathBuf>,
}

impl Asked {
    pub(crate) fn takes_peer(&self, name: &str) -> bool {
        self.peers.is_empty() || self.peers.iter().any(|peer| peer == name)
    }
}

/// Some rows, measured together because they need the same things.
struct Part {
    name: &'static str,
    measure: fn(&Asked) -> Vec<Row>,
}

const PARTS: &[Part] = &[
    Part { name: "stream-null", measure: streams::against_null },
    Part {
        name: "stream-near",
        measure: |asked| streams::against_store(asked, &Ground::new(Duration::ZERO)),
    },
    Part { name: "stream-far", measure: |asked| streams::against_store(asked, &Ground::new(FAR)) },
    Part { name: "random-warm", measure: random::warm },
    Part { name: "random-cold", measure: |asked| random::cold(asked, &Ground::new(FAR)) },
    Part { name: "small-null", measure: small::against_null },
    Part { name: "small-far", measure: |asked| small::cold(asked, &Ground::new(FAR)) },
    Part { name: "fsync", measure: |asked| latency::fsync(asked, &Ground::new(FAR)) },
    Part { name: "trees", measure: |asked| trees::measure(asked, &Ground::new(FAR)) },
    Part { name: "cpu", measure: cpu::per_gigabyte },
    Part { name: "growth", measure: growth::measure },
    Part {
        name: "peers-near",
        measure: |asked| programs::against_peers(asked, &Ground::new(Duration::ZERO)),
    },
    Part { name: "peers-far", measure: |asked| programs::against_peers(asked, &Ground::new(FAR)) },
];

fn main() {
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    let mut asked =
        Asked { rounds: 5, only: Vec::new(), peers: Vec::new(), is_list: false, json: None, svg: None };
    while let Some(word) = words.next() {
        let mut value = || words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "null" => return null::serve(&PathBuf::from(value()), false),
            "null-buffered" => return null::serve(&PathBuf::from(value()), true),
            "--rounds" => asked.rounds = value().parse().expect("a number of rounds"),
            "--only" => asked.only.push(value()),
            "--peer" => asked.peers.push(value()),
            "--json" => asked.json = Some(value().into()),
            "--svg" => asked.svg = Some(value().into()),
            "--list" => asked.is_list = true,
            _ => panic!("{word}: not an argument of this benchmark"),
        }
    }
    let mut rows = Vec::new();
    for part in PARTS {
        if !asked.only.is_empty() && !asked.only.iter().any(|only| part.name.contains(only.as_str())) {
            continue;
        }
        if asked.is_list {
            println!("{}", part.name);
            continue;
        }
        for row in (part.measure)(&asked) {
            println!("{}", row.line());
            rows.push(row);
        }
    }
    if let Some(path) = &asked.json {
        report::write_json(path, &versions(&asked), &rows);
    }
    if let Some(path) = &asked.svg {
        report::write_svg(path, &rows);
    }
}

/// Of whatever took part.
fn versions(asked: &Asked) -> serde_json::Value {
    let kernel = std::fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let first_line = |program: &str, args: &[&str]| {
        let mut command = std::process::Command::new(program);
        let said = command.args(args).output().map(|output| output.stdout).unwrap_or_default();
        String::from_utf8_lossy(&said).lines().next().unwrap_or("not there").to_owned()
    };
    let tool = |path: &str| support::servers::tool(path).to_string_lossy().into_owned();
    serde_json::json!({
        "coffer": env!("CARGO_PKG_VERSION"),
        "linux": kernel.trim(),
        "cores": cores,
        "rounds": asked.rounds,
        "rclone": first_line(&tool("peers/bin/rclone"), &["version"]),
        "juicefs": first_line(&tool("peers/bin/juicefs"), &["version"]),
        "gocryptfs": first_line("gocryptfs", &["-version"]),
        "seaweedfs": first_line(&tool("seaweedfs/bin/weed"), &["version"]),
        "rsync": first_line("rsync", &["--version"]),
        "restic": first_line("restic", &["version"]),
        "git": first_line("git", &["--version"]),
    })
}
