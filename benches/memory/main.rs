//! What a mount and the commands hold in memory, against the number of files and `--memory`: a table of measured RSS.
//!
//! `cargo bench --bench memory -- [--files N]... [--memory SIZE]... [--stream MIB] [--dir DIR]`

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod life;
mod process;
mod session;

use std::path::PathBuf;

use session::Session;

/// What a process may take beyond its `--memory`: the program itself, threads, the records engine.
const BEYOND_BYTES: u64 = 150 << 20;
const MIB: u64 = 1 << 20;

struct Asked {
    files: Vec<usize>,
    memory: Vec<String>,
    stream_bytes: u64,
    dir: PathBuf,
}

fn asked() -> Asked {
    let mut asked = Asked { files: vec![], memory: vec![], stream_bytes: 1 << 30, dir: std::env::temp_dir() };
    let mut words = std::env::args().skip(1).filter(|word| word != "--bench");
    while let Some(word) = words.next() {
        let value = words.next().unwrap_or_else(|| panic!("{word} needs a value"));
        match word.as_str() {
            "--files" => asked.files.push(value.parse().expect("a number of files")),
            "--memory" => asked.memory.push(value),
            "--stream" => asked.stream_bytes = value.parse::<u64>().expect("MiB") * MIB,
            "--dir" => asked.dir = value.into(),
            _ => panic!("{word}: not an argument of this benchmark"),
        }
    }
    if asked.files.is_empty() {
        asked.files = vec![10_000, 100_000];
    }
    if asked.memory.is_empty() {
        asked.memory = vec!["256MiB".into(), "default".into()];
    }
    asked
}

fn main() {
    let asked = asked();
    let mut measured = Vec::new();
    println!(
        "{:>9}  {:>8}  {:<24} {:>9} {:>9} {:>8}",
        "files", "memory", "stage", "rss MiB", "peak MiB", "s"
    );
    for memory in &asked.memory {
        for files in &asked.files {
            measured.push((
                *files,
                memory,
                life::lived(Session::start(&asked.dir, memory, *files), asked.stream_bytes),
            ));
        }
    }
    println!("\n{:>9}  {:>8}  {:<24} {:>9}", "files", "memory", "most of", "peak MiB");
    let mut has_passed = true;
    for (files, memory, peaks) in measured {
        for (who, peak) in peaks {
            let limit = limit_of(memory, who) + BEYOND_BYTES;
            has_passed &= peak <= limit;
            let verdict = if peak <= limit { "" } else { "  over!" };
            println!("{files:>9}  {memory:>8}  {who:<24} {:>9}{verdict}", peak / MIB);
        }
    }
    assert!(has_passed, "a process took more than its --memory and {} MiB", BEYOND_BYTES / MIB);
}

/// What `--memory` allows; the defaults are as `coffer mount --help` and `docs/OPERATING.md` say.
fn limit_of(memory: &str, who: &str) -> u64 {
    match memory.trim_end_matches("MiB").parse::<u64>() {
        Ok(mib) => mib * MIB,
        Err(_) if who == session::MOUNT => 1024 * MIB,
        Err(_) => 256 * MIB,
    }
}
