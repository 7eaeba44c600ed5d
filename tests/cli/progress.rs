//! How far long work is: a bar on a terminal and nowhere else, and nothing where a program reads what comes out.

use coffer::base::Ino;
use coffer::cli::exit::Exit;
use coffer::vfs::Caller;
use serde_json::Value;

use crate::cleaning::overwritten;
use crate::support::Bench;
use crate::terminal::Session;

/// A store so slow that a bar is drawn more than once while the contents are read.
const SLOW: [&str; 2] = ["--fault", "bandwidth=1M"];
const UNLOCK: [&str; 3] = ["--passphrase-file", "right", "vol"];

/// A volume of which there is something to read, and something to clean.
fn populated() -> Bench {
    let bench = Bench::with_volume();
    bench.change(async |vfs| {
        for name in ["one", "two", "three", "four", "five", "gone"] {
            let attr = vfs.create(&Caller::default(), Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
            // In a segment of its own.
            vfs.write(attr.ino, 0, &vec![name.as_bytes()[0]; 400_000], true).await.unwrap();
            vfs.sync_all().await.unwrap();
            vfs.forget(attr.ino, 1);
        }
        vfs.unlink(Ino::ROOT, b"gone").await.unwrap();
    });
    bench
}

/// What a terminal has been shown by `args`, which ended with 0.
fn on_a_terminal(bench: &Bench, args: &[&str]) -> String {
    let (seen, code) = Session::start(bench, &[args, &UNLOCK].concat()).end();
    assert_eq!(code, i32::from(Exit::Success.code()), "{seen}");
    seen
}

/// The shares that bars of `what` have shown, in hundredths.
fn shares(seen: &str, what: &str) -> Vec<u64> {
    let begin = format!("{what}: [");
    let share = |bar: &str| bar.split_once("] ")?.1.split_once(" %")?.0.parse().ok();
    seen.split(&begin).skip(1).filter_map(share).collect()
}

/// What follows the last state, which is a line of its own with nothing drawn over it.
fn after_the_last_state<'a>(seen: &'a str, what: &str) -> &'a str {
    let last = format!("{what}: [====================] 100 %");
    assert!(seen.contains(&last), "never at its end: {seen:?}");
    let (_, rest) = seen.rsplit_once(&last).unwrap();
    let (line, report) = rest.split_once("\r\n").unwrap();
    assert!(!rest.contains('\x1b') && line.contains(" in "), "{seen:?}");
    report
}

#[test]
fn a_check_on_a_terminal_shows_what_is_looked_at_and_a_share_that_grows_to_the_whole() {
    let bench = populated();
    let seen = on_a_terminal(&bench, &[&["check", "--read-data"], &SLOW[..]].concat());
    let shown = shares(&seen, "check");
    assert!(shown.is_sorted() && shown.last() == Some(&100), "{shown:?} in {seen:?}");
    assert!(shown.iter().any(|share| (1..100).contains(share)), "{shown:?} in {seen:?}");
    assert!(seen.contains(" %, contents, "), "{seen:?}");
    let report = after_the_last_state(&seen, "check");
    assert!(report.starts_with("checked commit ") && report.contains(": nothing is wrong"), "{seen:?}");
}

#[test]
fn without_a_terminal_a_check_draws_nothing() {
    let bench = populated();
    let ended = bench.on_volume("check", &[&["--read-data"], &SLOW[..]].concat());
    assert_eq!((ended.code, ended.stderr.as_str()), (0, ""));
}

#[test]
fn on_a_terminal_that_cannot_draw_a_check_draws_nothing() {
    let bench = populated();
    let args = [&["check", "--read-data"], &SLOW[..], &UNLOCK].concat();
    let (seen, code) = Session::start_on("dumb", &bench, &args).end();
    assert!(code == 0 && seen.starts_with("checked commit ") && !seen.contains('\x1b'), "{code}: {seen:?}");
}

#[test]
fn a_repair_and_a_cleaning_end_in_a_whole_bar_and_their_report() {
    let bench = populated();
    for (what, args, report) in [
        ("repair", &["repair", "--yes"][..], "0 things done; "),
        ("check", &["repair", "--dry-run"], "nothing is to be done"),
        ("gc", &["gc", "--now"], "  waiting "),
    ] {
        let seen = on_a_terminal(&bench, args);
        assert_eq!(shares(&seen, what).last(), Some(&100), "{seen:?}");
        assert!(after_the_last_state(&seen, what).starts_with(report), "{seen:?}");
    }
}

#[test]
fn a_cleaning_on_a_terminal_shows_a_share_of_what_is_to_be_rewritten() {
    let (bench, ..) = overwritten();
    let seen = on_a_terminal(&bench, &["gc", "--now", "--fault", "bandwidth=4M"]);
    let shown = shares(&seen, "gc");
    assert!(shown.is_sorted() && shown.last() == Some(&100), "{shown:?} in {seen:?}");
    assert!(shown.iter().any(|share| (1..100).contains(share)), "{shown:?} in {seen:?}");
    assert!(after_the_last_state(&seen, "gc").starts_with("  rewritten "), "{seen:?}");
}

/// Standard output and standard error are the same terminal.
#[test]
fn with_json_nothing_but_json_is_shown_on_a_terminal_either() {
    let bench = populated();
    for args in [
        &["check", "--read-data", "--notes", "--json"][..],
        &["repair", "--yes", "--json"],
        &["gc", "--now", "--json"],
        &["gc", "--dry-run", "--json"],
    ] {
        let seen = on_a_terminal(&bench, &[args, &SLOW].concat());
        let objects: Result<Vec<Value>, _> = serde_json::Deserializer::from_str(&seen).into_iter().collect();
        let is_pure = objects.is_ok_and(|all| !all.is_empty() && all.iter().all(Value::is_object));
        assert!(is_pure, "{args:?}: {seen:?}");
    }
}

#[test]
fn a_check_that_fails_leaves_no_bar_behind() {
    let bench = populated();
    let fails = ["check", "--read-data", "--read-timeout", "1s", "--fault", "hang=1:get:segment"];
    let (seen, code) = Session::start(&bench, &[&fails[..], &UNLOCK].concat()).end();
    assert!(code != 0 && seen.contains("check: ") && !seen.contains("100 %"), "{code}: {seen:?}");
    let (_, error) = seen.rsplit_once('\x1b').unwrap();
    assert!(error.contains("error: "), "the bar is gone before the error: {seen:?}");
}

#[test]
fn programs_are_told_which_work_it_is() {
    let bench = populated();
    let works: [(&str, &[&str], &str); 2] =
        [("cp", &["-rp", "/", "copied"], "copy"), ("export", &["/", "exported"], "export")];
    for (command, paths, work) in works {
        let ended = bench.on_volume(command, &[paths, &["--progress", "json"]].concat());
        let told = ended.stderr.lines().filter_map(|line| serde_json::from_str::<Value>(line).ok());
        let works: Vec<_> = told.map(|state| state["what"].clone()).collect();
        assert!(!works.is_empty() && works.iter().all(|told| told == work), "{works:?}: {}", ended.stderr);
    }
}
