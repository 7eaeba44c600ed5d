//! The page of threats says of each attack what a test shows: the rows are all there, and the tests exist.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/named.rs"]
mod named;

use std::fs;
use std::path::Path;

use named::{functions, tests_named_in};

/// The rows, by letter and how many.
const ROWS: [(char, usize); 4] = [('A', 11), ('B', 10), ('C', 11), ('D', 16)];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/THREATS.md")).unwrap()
}

/// The rows after which a test is named: `b4_c2_…` after two.
fn rows_of(test: &str) -> impl Iterator<Item = String> + '_ {
    let is_row = |word: &&str| {
        let (letter, number) = word.split_at(1.min(word.len()));
        ROWS.iter().any(|(known, count)| {
            letter == known.to_ascii_lowercase().to_string()
                && number.parse::<usize>().is_ok_and(|number| (1..=*count).contains(&number))
        })
    };
    test.split('_').take_while(is_row).map(str::to_uppercase)
}

/// The lines of the table with the names of their rows.
fn table(page: &str) -> impl Iterator<Item = (&str, &str)> {
    page.lines().filter_map(|line| {
        let row = line.strip_prefix("| ")?.split(" | ").next()?;
        (!row.starts_with('|')).then_some((row, line))
    })
}

#[test]
fn every_attack_has_its_row_once_and_in_order() {
    let page = page();
    let rows: Vec<&str> = table(&page).map(|(row, _)| row).collect();
    let expected = ROWS.iter().flat_map(|(letter, count)| (1..=*count).map(move |n| format!("{letter}{n}")));
    assert_eq!(rows, expected.collect::<Vec<_>>());
}

#[test]
fn every_test_that_the_page_names_exists() {
    let (page, functions) = (page(), functions());
    let missing: Vec<&str> = tests_named_in(&page).filter(|name| !functions.contains(*name)).collect();
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(tests_named_in(&page).count() > 100);
}

/// Or it says at once why there can be none.
#[test]
fn every_row_names_a_test_that_is_called_by_it() {
    let (page, functions) = (page(), functions());
    for (row, line) in table(&page) {
        let mut tests = tests_named_in(line).filter(|name| functions.contains(*name));
        let is_tested = tests.any(|test| rows_of(test).any(|of| of == row));
        let has_reason =
            ["| No such feature.", "| Not defeated: "].iter().any(|reason| line.contains(reason));
        assert!(is_tested || has_reason, "{line}");
    }
}

#[test]
fn a_test_that_is_called_by_a_row_is_named_in_it() {
    let (page, functions) = (page(), functions());
    let mut called = 0;
    for test in &functions {
        for row in rows_of(test) {
            let (_, line) = table(&page).find(|(of, _)| *of == row).expect("a row");
            assert!(tests_named_in(line).any(|named| named == test), "{row} does not name {test}");
            called += 1;
        }
    }
    assert!(called > 70, "{called}");
}

#[test]
fn a_row_that_says_defeated_names_a_test() {
    let page = page();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("| Defeated")) {
        let by_construction = row.contains("No such feature");
        assert!(by_construction || tests_named_in(row).next().is_some(), "{row}");
    }
}
