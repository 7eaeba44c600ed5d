//! What `docs/SEMANTICS.md` promises is held by tests that quote it, word for word.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/sources.rs"]
mod sources;

use std::fs;
use std::path::Path;

use sources::sources;

const PAGE: &str = "docs/SEMANTICS.md";
/// The section that reports what other people's suites found; it names the suites.
const REPORT: &str = "## What other people's suites say";
const QUOTE: &str = "/// >";

/// How paragraphs begin that no test quotes, and why.
const UNQUOTED: [(&str, &str); 1] = [("A Coffer mount behaves as", "it introduces the page")];

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// Words in a row, without the marks of bold type.
fn plain(text: &str) -> String {
    text.replace("**", "").split_whitespace().collect::<Vec<_>>().join(" ")
}

/// The paragraphs of the page that promise something.
fn paragraphs() -> Vec<String> {
    let page = fs::read_to_string(root().join(PAGE)).unwrap();
    let (promises, _) = page.split_once(REPORT).expect("the report on other people's suites");
    let parts = promises.split("\n\n").filter(|part| !part.starts_with('#'));
    parts.map(plain).filter(|part| !part.is_empty()).collect()
}

/// A quote, and the test that it stands over.
struct Quote {
    text: String,
    place: String,
}

/// The quotes in a source, each of which must stand over a test.
fn quotes(path: &Path, source: &str) -> Vec<Quote> {
    let lines: Vec<&str> = source.lines().map(str::trim).collect();
    let mut found = Vec::new();
    let mut at = 0;
    while at < lines.len() {
        if !lines[at].starts_with(QUOTE) {
            at += 1;
            continue;
        }
        let first = at;
        while lines[at].starts_with(QUOTE) {
            at += 1;
        }
        let text = lines[first..at].iter().map(|line| &line[QUOTE.len()..]).collect::<Vec<_>>().join(" ");
        let place = format!("{}:{}", path.strip_prefix(root()).unwrap().display(), first + 1);
        let next = lines[at..].iter().find(|line| !line.starts_with("///")).expect("something after a quote");
        assert!(next.contains("test]") || next.contains("test("), "{place}: no test follows, but {next}");
        found.push(Quote { text: plain(&text), place });
    }
    found
}

fn all_quotes() -> Vec<Quote> {
    let quotes: Vec<_> =
        sources(&["fuse-tests", "tests"]).iter().flat_map(|(path, source)| quotes(path, source)).collect();
    assert!(quotes.len() > 40, "only {} quotes: they are written in another way now", quotes.len());
    quotes
}

#[test]
fn every_quote_stands_on_the_page() {
    let paragraphs = paragraphs();
    let strangers: Vec<String> = all_quotes()
        .into_iter()
        .filter(|quote| !paragraphs.iter().any(|paragraph| paragraph.contains(&quote.text)))
        .map(|quote| format!("{}: {}", quote.place, quote.text))
        .collect();
    assert!(strangers.is_empty(), "{PAGE} does not say (in one paragraph)\n{}", strangers.join("\n"));
}

#[test]
fn every_paragraph_is_quoted_by_a_test() {
    let quotes = all_quotes();
    let is_held = |paragraph: &String| quotes.iter().any(|quote| paragraph.contains(&quote.text));
    let is_excused = |paragraph: &String| UNQUOTED.iter().any(|(start, _)| paragraph.starts_with(start));
    let unheld: Vec<String> =
        paragraphs().into_iter().filter(|paragraph| !is_held(paragraph) && !is_excused(paragraph)).collect();
    assert!(unheld.is_empty(), "nothing holds\n{}", unheld.join("\n\n"));
}

#[test]
fn every_excuse_is_needed() {
    let (paragraphs, quotes) = (paragraphs(), all_quotes());
    for (start, reason) in UNQUOTED {
        let excused = paragraphs.iter().find(|paragraph| paragraph.starts_with(start));
        let excused = excused.unwrap_or_else(|| panic!("no paragraph starts with {start:?} ({reason})"));
        assert!(!quotes.iter().any(|quote| excused.contains(&quote.text)), "{start:?} is quoted");
    }
}

#[test]
fn a_quote_without_a_test_is_found() {
    let source = "/// > A promise.\nfn helper() {}\n";
    let judged = std::panic::catch_unwind(|| quotes(&root().join("x.rs"), source));
    assert!(judged.is_err());
    let source = "/// > A **promise**\n/// > in two lines.\n/// Said of it.\n#[test]\nfn holds_it() {}\n";
    let quotes = quotes(&root().join("x.rs"), source);
    assert_eq!(quotes.len(), 1);
    assert_eq!(quotes[0].text, "A promise in two lines.");
}
