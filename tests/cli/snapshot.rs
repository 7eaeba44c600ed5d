//! Every refusal that these tests provoke, kept word for word, so that a change of any message is seen and read.
//!
//! With `COFFER_TEST_ACCEPT` set, what is said now is what is expected from then on: read the difference first.

use std::cell::RefCell;
use std::fmt::Write as _;
use std::path::{Path, PathBuf};

thread_local! {
    /// What the test of this thread has seen so far.
    static SEEN: RefCell<String> = const { RefCell::new(String::new()) };
}

/// What a snapshot is kept in.
fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/cli/messages")
}

/// The text at `path`, or `text` if that is to be accepted.
pub(crate) fn expected(path: &Path, text: &str) -> String {
    if std::env::var_os("COFFER_TEST_ACCEPT").is_some() {
        std::fs::create_dir_all(path.parent().unwrap()).unwrap();
        std::fs::write(path, text).unwrap();
    }
    std::fs::read_to_string(path).unwrap_or_default()
}

/// Compares the next refusal of the test that calls with the one that was read last.
#[track_caller]
pub(crate) fn compare(code: i32, stderr: &str) {
    let thread = std::thread::current();
    let name = thread.name().unwrap().replace("::", "-");
    let seen = SEEN.with_borrow_mut(|seen| {
        let _ = write!(seen, "{}exit {code}\n{}", if seen.is_empty() { "" } else { "\n" }, plain(stderr));
        seen.clone()
    });
    let path = folder().join(name).with_extension("txt");
    let expected = expected(&path, &seen);
    assert!(expected.starts_with(&seen), "{}:\n--- says\n{seen}\n--- said\n{expected}", path.display());
}

/// Without what is another each time: directories, hosts, processes and ports, ids, hashes, fingerprints, times.
fn plain(stderr: &str) -> String {
    stderr
        .lines()
        .map(|line| fingerprints(line).split(' ').map(word).collect::<Vec<_>>().join(" ") + "\n")
        .collect()
}

/// Twelve words between backticks, or in a line of their own, are a fingerprint.
fn fingerprints(line: &str) -> String {
    let host = rustix::system::uname().nodename().to_string_lossy().into_owned();
    let line = line.replace(&format!(" on {host} since "), " on HOST since ");
    let parts = line.split('`').map(|part| match part.split_whitespace().count() == 12 && is_words(part) {
        true => "TWELVE WORDS",
        false => part,
    });
    parts.collect::<Vec<_>>().join("`")
}

fn is_words(part: &str) -> bool {
    part.chars().all(|c| c.is_ascii_lowercase() || c == ' ')
}

fn word(word: &str) -> String {
    let temporary = std::env::temp_dir();
    if let Some((before, inside)) = word.split_once(temporary.to_str().unwrap()) {
        // Below the test's own directory, names are the same each time.
        let below = inside.trim_start_matches('/').split_once('/').map_or("", |(_, below)| below);
        let names: Vec<String> = below.split('/').map(changing).collect();
        return format!("{before}DIR/{}", names.join("/"));
    }
    if let Some((before, port)) = word.split_once("127.0.0.1:") {
        return format!("{before}127.0.0.1:PORT{}", port.trim_start_matches(|c: char| c.is_ascii_digit()));
    }
    changing(word)
}

/// A star for what an id, a hash, a number of several digits, a date or a time is.
fn changing(word: &str) -> String {
    let core = word.trim_matches(|c: char| !c.is_ascii_alphanumeric());
    let only = |kind: fn(char) -> bool| core.chars().all(kind);
    let is_id = core.len() >= 26 && only(|c| c.is_ascii_lowercase() || c.is_ascii_digit());
    let is_hash = core.rsplit_once(':').is_some_and(|(_, hash)| hash.len() == 32);
    let is_number = core.len() >= 3 && only(|c| c.is_ascii_digit() || "-:.".contains(c));
    let is_span = core.starts_with(|c: char| c.is_ascii_digit()) && core.contains('.') && core.ends_with('s');
    match is_id || is_hash || is_number || is_span {
        true => word.replace(core, "*"),
        false => word.to_owned(),
    }
}

#[test]
fn no_exit_code_is_without_a_message_that_was_read() {
    use coffer::cli::exit::Exit;
    let mut read = String::new();
    for file in std::fs::read_dir(folder()).unwrap() {
        read.push_str(&std::fs::read_to_string(file.unwrap().path()).unwrap());
        read.push('\n');
    }
    // Those that these tests do not compare, and why.
    let elsewhere = [
        Exit::Success,
        // Says with its own output, not with a message.
        Exit::NotSafeYet,
        Exit::Untidy,
        Exit::FilesDamaged,
        Exit::TreeDamaged,
        Exit::Interrupted,
        // Only a mount, or a store with faults, can meet them: `--test mounted`.
        Exit::TakenOver,
        Exit::NotUnmounted,
        Exit::StoreUnfit,
        Exit::Partial,
        Exit::NotRepaired,
        Exit::NothingToRecover,
        Exit::Tampered,
        // Only a mount that was there before a rotation can meet it: `--test hostile`.
        Exit::NewKey,
    ];
    let missing: Vec<Exit> = Exit::ALL
        .into_iter()
        .map(|(exit, _)| exit)
        .filter(|exit| !read.contains(&format!("exit {}\n", exit.code())))
        .filter(|exit| !elsewhere.contains(exit))
        .collect();
    assert_eq!(missing, [], "a code whose message nobody has read");
}
