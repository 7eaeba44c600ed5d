//! The table of what the simulation found has a test for each row, and the tests exist.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/named.rs"]
mod named;

use std::fs;
use std::path::Path;

use named::{functions, tests_named_in};

/// The head of the table, after which its rows follow.
const HEAD: &str = "| What went wrong | Found | Held by |\n|---|---|---|\n";

/// The rows: what went wrong, what found it, and the tests that hold it.
fn rows() -> Vec<[String; 3]> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md");
    let page = fs::read_to_string(page).unwrap();
    let (_, after) = page.split_once(HEAD).expect("the table of what the simulation found");
    let lines = after.lines().take_while(|line| line.starts_with('|'));
    let cells = lines.map(|line| line.trim_matches('|').split(" | ").map(str::trim).map(str::to_owned));
    cells.map(|cells| cells.collect::<Vec<_>>().try_into().expect("three cells")).collect()
}

#[test]
fn all_that_the_simulation_found_is_held_by_a_test_that_exists() {
    let (rows, functions) = (rows(), functions());
    assert!(rows.len() >= 7, "{rows:#?}");
    for [what, _, tests] in &rows {
        let named: Vec<&str> = tests_named_in(tests).collect();
        assert!(!named.is_empty(), "nothing holds: {what}");
        for test in named {
            assert!(functions.contains(test), "there is no {test}, which is to hold: {what}");
        }
    }
}

#[test]
fn each_row_says_what_went_wrong_and_which_seed_or_commit_tells_of_it() {
    for row in rows() {
        let [what, found, _] = &row;
        let (kind, number) = found.split_once(' ').unwrap_or_default();
        let is_told = match kind {
            "seed" => number.parse::<u64>().is_ok(),
            "commit" => number.len() == 7 && u32::from_str_radix(number, 16).is_ok(),
            _ => false,
        };
        assert!(is_told && !what.is_empty(), "{row:?}");
    }
}
