//! What pages say that tests show: the names of tests that they give, and those that there are.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// The names of all functions in sources and tests.
pub(crate) fn functions() -> BTreeSet<String> {
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
pub(crate) fn tests_named_in(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.matches('_').count() >= 3 && !name.contains([' ', '/', '-', '.', '=']))
}
