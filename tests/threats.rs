//! The page of threats says of each attack what a test shows: the rows are all there, and the tests exist.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The rows, by letter and how many.
const ROWS: [(char, usize); 4] = [('A', 11), ('B', 10), ('C', 11), ('D', 16)];

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/THREATS.md")).unwrap()
}

/// The names of all functions in sources and tests.
fn functions() -> BTreeSet<String> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut folders: Vec<_> = ["src", "tests", "fuse-tests"].map(|folder| root.join(folder)).into();
    let mut names = BTreeSet::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                let text = fs::read_to_string(path).unwrap();
                let name = |part: &str| part.split(['(', '<']).next().unwrap_or_default().trim().to_owned();
                names.extend(text.split("fn ").skip(1).map(name));
            }
        }
    }
    names
}

/// What is between backticks and looks like the name of a test.
fn tests_named_in(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.matches('_').count() >= 3 && !name.contains([' ', '/', '-', '.', '=']))
}

#[test]
fn every_attack_has_its_row_once_and_in_order() {
    let page = page();
    let rows: Vec<&str> = page
        .lines()
        .filter_map(|line| line.strip_prefix("| ")?.split(" | ").next())
        .filter(|row| !row.starts_with('|'))
        .collect();
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

#[test]
fn a_row_that_says_defeated_names_a_test() {
    let page = page();
    for row in page.lines().filter(|line| line.starts_with("| ") && line.contains("| Defeated")) {
        let by_construction = row.contains("No such feature");
        assert!(by_construction || tests_named_in(row).next().is_some(), "{row}");
    }
}
