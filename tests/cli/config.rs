//! Configuration files, and which of several places counts.

use std::fs;

use coffer::cli::exit::Exit;

use crate::support::Bench;

const FILE: &str = "home/.config/coffer/config.toml";

/// A bench with a volume at `vol` and this configuration file.
fn bench(text: &str) -> Bench {
    let bench = Bench::with_volume();
    fs::create_dir_all(bench.path(FILE).parent().unwrap()).unwrap();
    bench.secret(FILE, text);
    bench
}

fn photos(bench: &Bench, more: &str) -> String {
    format!("[volume.photos]\nurl = {:?}\n{more}", bench.path("vol"))
}

#[test]
fn a_name_stands_for_a_url_and_its_key() {
    let bench = bench("");
    let right = bench.path("right");
    bench.secret(FILE, &photos(&bench, &format!("passphrase-file = {right:?}\n")));
    bench.run(&["ls", "photos"]).ok();
    // Directories of other commands are none of the mountpoint's business.
    let point = bench.path("home");
    bench.secret(FILE, &photos(&bench, &format!("passphrase-file = {right:?}\nmountpoint = {point:?}\n")));
    bench.run(&["export", "photos", "/", "out"]).ok();
    bench.run(&["import", "photos", "out", "/copy"]).ok();
    for command in ["status", "sync", "umount", "pause", "resume", "limit"] {
        let refused = bench.run(&[command, "photos"]);
        refused.refused(Exit::NotMounted, &format!("no volume is mounted at {}", point.display()));
    }
    // A directory of that name is still to be had, by a path.
    bench.run(&["ls", "./photos"]).refused(Exit::BucketMissing, "photos");
}

#[test]
fn the_nearer_place_wins_for_the_way_to_the_key() {
    let bench = bench("");
    let wrong = bench.path("wrong");
    bench.secret(FILE, &photos(&bench, &format!("passphrase-file = {wrong:?}\n")));
    bench.run(&["ls", "photos"]).refused(Exit::WrongKey, "wrong passphrase");
    bench.run(&["ls", "photos", "--passphrase-file", "right"]).ok();
    bench.run(&["ls", "photos", "--passphrase-command", "cat right"]).ok();
    let with = |name: &str, value: &str, args: &[&str]| {
        let output = bench.command(args).env(name, value).output().unwrap();
        crate::support::Ended::of(output)
    };
    with("COFFER_PASSPHRASE_COMMAND", "cat right", &["ls", "photos"]).ok();
    // Not even a variable for another way to it is in the way of what is typed.
    let typed = ["ls", "photos", "--passphrase-command", "cat right"];
    with("COFFER_PASSPHRASE_FILE", "wrong", &typed).ok();
    with("COFFER_RECOVERY_CODE_FILE", "wrong", &typed).ok();
    // Nor is a slot that was meant for another secret.
    with("COFFER_KEY_SLOT", "1", &typed).ok();
    let right = bench.path("right");
    bench.secret(FILE, &photos(&bench, &format!("passphrase-file = {right:?}\nkey-slot = 1\n")));
    bench.run(&["ls", "photos"]).refused(Exit::WrongKey, "slot 1 takes recovery code");
    bench.run(&typed).ok();
}

#[test]
fn show_tells_where_each_setting_comes_from() {
    let bench = bench("");
    let defaults = "[defaults]\nmemory = \"300MiB\"\ncommit-age = \"9s\"\ncache-size = \"1MiB\"\n";
    bench.secret(FILE, &format!("{defaults}{}", photos(&bench, "commit-age = \"3s\"\n")));
    let output =
        bench.command(&["config", "show", "--json", "photos"]).env("COFFER_CACHE_SIZE", "2MiB").output();
    let shown: serde_json::Value = serde_json::from_slice(&output.unwrap().stdout).unwrap();
    let of = |name: &str| {
        let setting = &shown["settings"][name];
        let source = setting["source"].as_str().unwrap().rsplit('/').next().unwrap();
        (setting["value"].as_str().unwrap_or("-").to_owned(), source.to_owned())
    };
    let pair = |value: &str, source: &str| (value.to_owned(), source.to_owned());
    assert_eq!(of("memory"), pair("300MiB", "config.toml:2 [defaults]"));
    assert_eq!(of("commit-age"), pair("3s", "config.toml:7 [volume.photos]"));
    assert_eq!(of("cache-size"), pair("2MiB", "COFFER_CACHE_SIZE"));
    assert_eq!(of("poll-interval"), pair("5s", "built in"));
    assert_eq!(of("heartbeat"), pair("-", "not set"));
    let listed = bench.run(&["config", "list"]).ok();
    assert_eq!(listed, format!("photos  {}\n", bench.path("vol").display()));
    bench.run(&["config", "show", "phots"]).refused(Exit::Usage, "no volume has the name \"phots\"");
}

#[test]
fn a_value_that_cannot_be_used_is_told_with_its_place() {
    let bench = bench("");
    bench.secret(FILE, &photos(&bench, "memory = \"5 apples\"\n"));
    let refused = bench.run(&["ls", "photos"]);
    refused.refused(Exit::Usage, "config.toml:3 [volume.photos]: memory = \"5 apples\"");
    bench.secret(FILE, "[volume]\nphotos = 3\n");
    bench.run(&["ls", "photos"]).refused(Exit::Usage, "config.toml");
}

#[test]
fn a_broken_file_is_no_reason_not_to_look_at_a_mount() {
    let bench = bench("what is this\n");
    let ended = bench.run(&["status", "home"]);
    assert_eq!(ended.code, i32::from(Exit::NotMounted.code()), "{}", ended.stderr);
    assert!(ended.stderr.starts_with("warning: cannot use the configuration file"), "{}", ended.stderr);
}

#[test]
fn another_file_is_read_instead_if_it_is_named() {
    let bench = bench("what is this\n");
    bench.secret("other.toml", &photos(&bench, ""));
    bench.run(&["--config", "other.toml", "ls", "--passphrase-file", "right", "photos"]).ok();
    let output = bench.command(&["config", "list"]).env("COFFER_CONFIG", "other.toml").output().unwrap();
    assert!(String::from_utf8(output.stdout).unwrap().starts_with("photos  "));
    bench.run(&["--config", "none.toml", "config", "list"]).refused(Exit::Usage, "none.toml");
}

#[test]
fn options_that_all_commands_have_are_settings_too() {
    let bench = bench("");
    let defaults = "[defaults]\nlog-format = \"json\"\nlog-file = \"all.log\"\nprogress = \"none\"\n";
    bench.secret(FILE, &format!("{defaults}{}", photos(&bench, "log = \"debug\"\n")));
    bench.run(&["ls", "--passphrase-file", "right", "photos"]).ok();
    let log = bench.path("home/.config/coffer/all.log");
    let lines = fs::read_to_string(&log).unwrap();
    assert!(lines.lines().count() > 0);
    for line in lines.lines() {
        let line: serde_json::Value = serde_json::from_str(line).unwrap();
        assert!(line["target"].is_string() && line["fields"]["message"].is_string(), "{line}");
    }
    let shown = bench.run(&["config", "show", "photos"]).ok();
    for (name, value) in [("log ", "[volume.photos]"), ("log-file", "[defaults]"), ("progress", "none")] {
        assert!(shown.lines().any(|line| line.starts_with(name) && line.contains(value)), "{name}: {shown}");
    }
    // The command line is nearer; and no file says which file is read.
    let ended = bench.run(&["ls", "--log-format", "text", "--passphrase-file", "right", "photos"]);
    ended.ok();
    assert!(!fs::read_to_string(&log).unwrap().ends_with("}\n"));
    bench.secret(FILE, "[defaults]\nconfig = \"other.toml\"\n");
    bench.run(&["config", "list"]).refused(Exit::Usage, "there is no setting \"config\"");
    bench.secret(FILE, &format!("[defaults]\nlog-to = \"moon\"\n{}", photos(&bench, "")));
    bench.run(&["ls", "photos"]).refused(Exit::Usage, "config.toml:2 [defaults]: log-to = \"moon\"");
}
