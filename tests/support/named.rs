//! What pages say that tests show: the names of tests that they give, and those that there are.

mod sources;

use std::collections::BTreeSet;

/// The names of all functions in sources and tests.
pub(crate) fn functions() -> BTreeSet<String> {
    let name = |part: &str| part.split(['(', '<']).next().unwrap_or_default().trim().to_owned();
    let files = sources::sources(&["src", "tests", "fuse-tests"]);
    files.iter().flat_map(|(_, text)| text.split("fn ").skip(1).map(name)).collect()
}

/// What is between backticks and looks like the name of a test.
pub(crate) fn tests_named_in(text: &str) -> impl Iterator<Item = &str> {
    let quoted = text.split('`').skip(1).step_by(2);
    quoted.filter(|name| name.matches('_').count() >= 3 && !name.contains([' ', '/', '-', '.', '=']))
}
