//! Figures over HTTP: what Prometheus reads, what programs read, what a person sees.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use serde_json::Value;

use crate::support::command::{run, run_within, wait_until, wait_within};
use crate::support::extended;
use crate::support::mount::Mount;
use crate::support::volume::Volume;

const PATIENCE: Duration = Duration::from_secs(60);
const OPERATING: &str = include_str!("../docs/OPERATING.md");

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn tools() -> PathBuf {
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root().join("target"), PathBuf::from).join("tools")
}

/// Where the mount shows its figures.
pub(crate) fn address(mount: &Mount<'_>) -> SocketAddr {
    mount.status()["mounts"][0]["http"].as_str().expect("an address").parse().unwrap()
}

/// The head and the body of the answer to a GET of `path`.
fn get(address: SocketAddr, path: &str, host: &str) -> (String, String) {
    let mut stream = TcpStream::connect(address).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: {host}\r\n\r\n").unwrap();
    let mut answer = String::new();
    stream.read_to_string(&mut answer).unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or_else(|| panic!("no answer: {answer}"));
    (head.to_owned(), body.to_owned())
}

/// How many requests of a kind the kernel has made.
pub(crate) fn operations(address: SocketAddr, kind: &str) -> u64 {
    let (_, text) = get(address, "/metrics", "localhost");
    let name = format!("coffer_fuse_operations_total{{operation=\"{kind}\"}} ");
    let count = text.lines().find_map(|line| line.strip_prefix(&name));
    count.unwrap_or_else(|| panic!("no {name}in {text}")).parse().unwrap()
}

/// What a real parser makes of the figures.
fn parsed(address: SocketAddr) -> Value {
    let (head, text) = get(address, "/metrics", "localhost");
    assert!(head.starts_with("HTTP/1.1 200 ") && head.contains("text/plain; version=0.0.4"), "{head}");
    let python = tools().join("figures/bin/python");
    let mut parser = Command::new(&python);
    parser.arg(root().join("scripts/read-figures.py")).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut parser =
        parser.spawn().unwrap_or_else(|error| panic!("{}: {error} (scripts/deps test)", python.display()));
    parser.stdin.take().unwrap().write_all(text.as_bytes()).unwrap();
    let mut json = String::new();
    parser.stdout.take().unwrap().read_to_string(&mut json).unwrap();
    let (ended, late) = wait_within(&mut parser, PATIENCE);
    assert!(ended.success() && !late, "{ended}: {text}");
    let read: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(read["complaints"], serde_json::json!([]), "{text}");
    read
}

/// The objects of a bucket and their bytes.
fn stored(bucket: &Path) -> (f64, f64) {
    let mut sum = (0.0, 0.0);
    let mut folders = vec![bucket.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).unwrap() {
            let (path, meta) = (entry.as_ref().unwrap().path(), entry.unwrap().metadata().unwrap());
            if meta.is_dir() {
                folders.push(path);
            } else {
                sum = (sum.0 + 1.0, sum.1 + meta.len() as f64);
            }
        }
    }
    sum
}

/// A bucket whose objects are written once and deleted only after ten minutes is its own witness of what was sent.
#[test]
fn what_prometheus_reads_is_what_the_bucket_has_seen() {
    let volume = Volume::local();
    volume.mount().unmount();
    let before = stored(&volume.bucket());
    let mount = volume.mount_spec().args(&["--http", "127.0.0.1:0"]).mount();
    let address = address(&mount);
    for number in 0..20 {
        fs::write(mount.path(format!("secret name {number}")), vec![number; 100_000]).unwrap();
    }
    mount.sync();
    assert_eq!(fs::read(mount.path("secret name 7")).unwrap(), [7; 100_000]);
    wait_until("the counts and the bucket agree", PATIENCE, || {
        let read = parsed(address);
        let figure =
            |name: &str| read["samples"][name].as_f64().unwrap_or_else(|| panic!("{name} in {read}"));
        let after = stored(&volume.bucket());
        // One write was refused as it should be: the proof that the store does not overwrite.
        figure("coffer_store_requests_total{verb=put}") == after.0 - before.0 + 1.0
            && figure("coffer_store_sent_bytes_total") == after.1 - before.1 + 32.0
    });
    let read = parsed(address);
    let figure = |name: &str| read["samples"][name].as_f64().unwrap_or_else(|| panic!("{name} in {read}"));
    assert_eq!(figure("coffer_safe"), 1.0);
    assert_eq!(figure("coffer_dirty_bytes"), 0.0);
    assert_eq!(figure("coffer_files"), 21.0);
    assert_eq!(figure("coffer_stored_bytes"), 2_000_000.0);
    assert_eq!(figure("coffer_store_errors_total{verb=put}"), 0.0);
    assert_eq!(figure("coffer_store_outage_seconds{kind=unreachable}"), 0.0);
    assert_eq!(figure("coffer_fuse_operations_total{operation=create}"), 20.0);
    assert!(figure("coffer_commit_duration_seconds_count") >= 1.0);
    let puts = figure("coffer_store_requests_total{verb=put}");
    assert_eq!(
        figure("coffer_store_request_duration_seconds_count{verb=put}"),
        puts,
        "each was answered once"
    );
    for path in ["/metrics", "/status.json", "/"] {
        let (head, body) = get(address, path, "localhost");
        assert!(
            head.starts_with("HTTP/1.1 200 ") && head.contains("content-security-policy: default-src 'none'"),
            "{head}"
        );
        assert!(!body.contains("secret"), "{path} tells the name of a file");
    }
    let (head, _) = get(address, "/status.json", "evil.example");
    assert!(head.starts_with("HTTP/1.1 421 "), "{head}");
    let status: Value = serde_json::from_str(&get(address, "/status.json", "localhost").1).unwrap();
    assert_eq!(status["volume"]["files"], 21, "{status}");
    mount.unmount();
    assert!(TcpStream::connect(address).is_err(), "nobody listens when the mount is gone");
}

#[test]
fn every_figure_for_prometheus_is_documented() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--http", "127.0.0.1:0"]).mount();
    let read = parsed(address(&mount));
    mount.unmount();
    let (_, section) = OPERATING.split_once("### Figures for Prometheus").expect("the section");
    let section = section.split("\n## ").next().unwrap();
    let documented: Vec<&str> = section
        .split('`')
        .filter(|word| word.starts_with("coffer_") || word.starts_with("process_"))
        .map(|word| word.split('{').next().unwrap())
        .collect();
    let types = read["types"].as_object().unwrap();
    for (name, kind) in types {
        let full = if kind == "counter" { format!("{name}_total") } else { name.clone() };
        assert!(documented.contains(&full.as_str()), "{full} is not in docs/OPERATING.md");
    }
    for name in documented {
        assert!(types.contains_key(name.trim_end_matches("_total")), "{name} is in docs/OPERATING.md only");
    }
}

#[test]
fn figures_are_not_shown_to_other_machines_unless_asked_for() {
    let volume = Volume::local();
    let refused = volume.mount_spec().args(&["--http", "0.0.0.0:0"]).try_mount().err().expect("a refusal");
    assert_eq!(refused.code(), 2, "{refused}");
    assert!(refused.stderr.contains("--http-anywhere"), "{refused}");
    let mount = volume.mount_spec().args(&["--http", "0.0.0.0:0", "--http-anywhere"]).mount();
    let port = address(&mount).port();
    let taken = Volume::local()
        .mount_spec()
        .args(&["--http", &port.to_string()])
        .try_mount()
        .err()
        .expect("a refusal");
    assert!(taken.code() == 1 && taken.stderr.contains("cannot show figures at"), "{taken}");
    mount.unmount();
}

/// What the page says in a browser, and what the browser complains of. The picture stays where `COFFER_TEST_PICTURES` says.
fn looked_at(address: SocketAddr, seconds: u32, picture: &Path, scheme: &str) -> Value {
    let mut node = Command::new("node");
    node.arg(root().join("scripts/look-at-page.js")).arg(format!("http://{address}/"));
    node.arg(seconds.to_string()).arg(picture).arg(scheme);
    node.env("NODE_PATH", tools().join("page/node_modules"));
    serde_json::from_str(&run_within(node, 2 * PATIENCE).ok().text()).unwrap()
}

#[test]
fn the_page_tells_a_person_in_a_browser_whether_everything_is_safe() {
    if !extended() {
        return println!("needs Chromium: a longer test");
    }
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount_spec().args(&["--http", "127.0.0.1:0"]).mount();
    let address = address(&mount);
    let pictures =
        std::env::var_os("COFFER_TEST_PICTURES").map_or_else(|| volume.new_dir("pictures"), PathBuf::from);
    for scheme in ["light", "dark"] {
        let idle = looked_at(address, 5, &pictures.join(format!("idle-{scheme}.png")), scheme);
        assert_eq!(idle["first"], "Safe: everything written is in the bucket.", "{idle}");
        assert_eq!((&idle["how"], &idle["complaints"]), (&"safe".into(), &serde_json::json!([])), "{idle}");
    }
    fs::rename(&bucket, &hidden).unwrap();
    fs::write(mount.path("file"), vec![1; 2_097_152]).unwrap();
    wait_until("the outage is known", PATIENCE, || !mount.status()["mounts"][0]["store"]["outage"].is_null());
    for scheme in ["light", "dark"] {
        let away = looked_at(address, 5, &pictures.join(format!("away-{scheme}.png")), scheme);
        assert_eq!(away["first"], "Not safe yet. 2.0 MiB not in the bucket.", "{away}");
        assert_eq!(
            (&away["how"], &away["complaints"]),
            (&"trouble".into(), &serde_json::json!([])),
            "{away}"
        );
        let alarm = away["alarm"].as_str().unwrap();
        assert!(alarm.starts_with("The store does not answer, for "), "{away}");
    }
    fs::rename(&hidden, &bucket).unwrap();
    mount.unmount();
    let mut left = Command::new("chromium");
    left.arg("--version");
    run(left).ok();
}
