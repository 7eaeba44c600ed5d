//! What `coffer probe` says of each store, and of one that lies.

use crate::support::relay::{Answer, Relay, forward};
use crate::support::servers::{self, Server};
use crate::support::{command, google};
use crate::user::{Told, User};

fn asked(server: &Server, args: &[&str]) -> Told {
    let mut user = User::new();
    user.set_all(&server.env);
    user.probe(&server.url, args)
}

fn is_told_to_fit(server: &Server, credentials: &str) {
    let told = asked(server, &["--traffic", "1M"]);
    told.fits(credentials);
    for name in ["put", "get", "list", "delete"] {
        assert!(told.json["latency_ms"][name].as_f64().unwrap() > 0.0, "{}", told.json);
    }
    assert_eq!(told.json["bandwidth"]["bytes"], 1 << 20, "{}", told.json);
    assert!(told.json["traffic"]["requests"].as_u64().unwrap() <= 160, "{}", told.json);
    assert!(told.json["clock_ahead_ms"].as_i64().unwrap().abs() < 60_000, "{}", told.json);
    assert!(told.json["left_behind"].is_null(), "{}", told.json);
    let left = crate::backends::objects_of(server);
    assert_eq!(left, Vec::<String>::new(), "the probe leaves something behind");
}

#[test]
fn seaweedfs_is_told_to_fit() {
    is_told_to_fit(&servers::seaweedfs(), "keys in the environment");
}

#[test]
fn azurite_is_told_to_fit() {
    is_told_to_fit(&servers::azurite(), "the account's key");
}

#[test]
fn fake_gcs_server_is_told_to_fit() {
    is_told_to_fit(&google::fake_gcs(), "none: STORAGE_EMULATOR_HOST");
}

#[test]
fn a_local_directory_is_told_to_fit_in_words_too() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().to_str().unwrap();
    User::new().probe(url, &[]).fits("the directory's permissions");
    let left: Vec<_> = walkdir::WalkDir::new(url).min_depth(1).into_iter().flatten().collect();
    assert!(left.is_empty(), "{left:?}");
    let said = command::run_ok(env!("CARGO_BIN_EXE_coffer"), ["probe", "--traffic", "1M", url]).text();
    for words in [
        "writes once  yes",
        "races        yes",
        "ranges       yes",
        "listing      yes",
        "deletes      yes",
        "MB/s",
    ] {
        assert!(said.contains(words), "{words:?} is not in: {said}");
    }
    assert!(said.ends_with("It can hold a volume.\n"), "{said}");
    assert_eq!(crate::backends::files_below(directory.path()), 0, "the probe leaves something behind");
}

/// One writer at a time sees nothing wrong with it.
#[test]
fn s3s_fs_is_told_to_lose_races() {
    let server = servers::s3s_fs();
    // It may decide all of a few races by luck.
    let told =
        (0..20).map(|_| asked(&server, &[])).find(|told| told.code != 0).expect("it decides races now");
    assert_eq!(told.code, 29, "{}", told.stderr);
    assert_eq!(told.json["abilities"]["writes_once"]["ok"], true, "{}", told.json);
    assert_eq!(told.json["abilities"]["races"]["ok"], false, "{}", told.json);
    assert_eq!(told.json["fit"], false);
}

/// The condition is lost on the way: what comes back is «written».
#[test]
fn a_store_that_forgets_the_condition_is_told_so() {
    let server = google::fake_gcs();
    let backend = server.relay_address();
    let relay = Relay::start(move |mut request| {
        request.headers.retain(|(name, _)| name != "x-goog-if-generation-match");
        forward(backend, &request).unwrap()
    });
    let mut user = User::new();
    user.set("STORAGE_EMULATOR_HOST", relay.url());
    let told = user.probe(&server.url, &[]);
    assert_eq!(told.code, 29, "{}", told.stderr);
    assert_eq!(told.json["abilities"]["writes_once"]["ok"], false, "{}", told.json);
    assert_eq!(told.json["abilities"]["ranges"]["ok"], true, "{}", told.json);
    assert!(told.json["latency_ms"].is_null(), "nothing is measured of a store of no use: {}", told.json);
    assert_eq!(crate::backends::objects_of(&server), Vec::<String>::new());
}

#[test]
fn a_store_whose_listings_are_late_is_told_so() {
    let directory = tempfile::tempdir().unwrap();
    let url = directory.path().to_str().unwrap();
    let told = User::new().probe(url, &["--fault", "stale-list=1@1m"]);
    assert_eq!(told.code, 29, "{}", told.stderr);
    assert_eq!(told.json["abilities"]["listing"]["ok"], false, "{}", told.json);
    let words = told.json["abilities"]["listing"]["told"].as_str().unwrap();
    assert!(words.contains("just written"), "{words}");
    assert_eq!(crate::backends::files_below(directory.path()), 0, "the probe leaves something behind");
}

#[test]
fn a_store_that_is_not_there_ends_as_with_every_command() {
    let empty = Relay::start(|_| Answer::new(404, "<Error><Code>NoSuchBucket</Code></Error>"));
    let mut user = User::new();
    user.set_all(&servers::s3_environment(empty.url()));
    user.probe("s3://bucket/prefix", &[]).fails(15, "does not exist");
    user.probe("s3://bucket", &["--endpoint", "http://127.0.0.1:1", "--read-timeout", "1s"])
        .fails(17, "reached");
}
