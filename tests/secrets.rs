//! What a process that has opened a volume keeps of its keys, and what is left when it has closed it.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "support/secrets.rs"]
#[allow(dead_code)]
mod secrets;

use std::fs::{self, File};
use std::io::{BufRead, BufReader, Write};
use std::path::Path;
use std::process::{ChildStdin, Command, Stdio};
use std::sync::Arc;

use coffer::base::{Ino, OsEntropy, SystemClock};
use coffer::crypto::{KdfCost, Secret};
use coffer::keys::{Compression, Factor, NewVolume};
use coffer::store::{self, StoreOptions};
use coffer::vfs::Caller;
use coffer::volume::{self, NewVolumeSpec, OpenOptions};
use secrets::Opener;

const CHILD: &str = "COFFER_TEST_CHILD";
const CALLER: Caller = Caller { uid: 0, gid: 0, pid: 1, umask: 0o022 };

fn factor(dir: &Path) -> Vec<Factor> {
    let secret = Secret::read(File::open(dir.join("secret")).unwrap(), 1 << 20).unwrap();
    vec![if dir.join("is-passphrase").exists() {
        Factor::Passphrase(secret)
    } else {
        Factor::KeyFile(secret)
    }]
}

/// Says how far it is, and waits to be looked at.
fn wait(what: &str) {
    println!("\n{what}");
    std::io::stdout().flush().unwrap();
    std::io::stdin().lock().read_line(&mut String::new()).unwrap();
}

/// The process that is looked at: makes a volume, uses it, closes it.
fn child(dir: &Path) {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let url = dir.join("bucket").display().to_string();
    let options = StoreOptions { create: true, ..StoreOptions::default() };
    let opened = runtime.block_on(async {
        let bucket = store::open(&url, &options).unwrap();
        let header = NewVolume { compression: Compression::None, kdf_cost: KdfCost::Fixed { log_n: 15 } };
        let spec = NewVolumeSpec { header, quota_bytes: 0, owner: (0, 0) };
        let clock = Arc::new(SystemClock::default());
        volume::create(&bucket, &spec, &factor(dir), Arc::new(OsEntropy), clock).await.unwrap();
        let options = OpenOptions { state_dir: Some(dir.join("state")), ..OpenOptions::default() };
        let opened = volume::open(bucket, &factor(dir), options).await.unwrap();
        for number in 0..20 {
            let name = format!("file{number}");
            let file = opened.vfs.create(&CALLER, Ino::ROOT, name.as_bytes(), 0o644, true).await.unwrap();
            opened.vfs.write(file.ino, 0, &vec![number; 200_000], true).await.unwrap();
            opened.vfs.sync_all().await.unwrap();
        }
        opened
    });
    wait("open");
    runtime.block_on(opened.close()).unwrap();
    drop(runtime);
    wait("closed");
}

/// Runs the test `name` of this file in a process of its own, and what follows in this one, which looks at it.
fn look_at_a_child(name: &str, is_passphrase: bool) {
    if let Some(dir) = std::env::var_os(CHILD) {
        return child(Path::new(&dir));
    }
    let dir = tempfile::tempdir().unwrap();
    let secret: Vec<u8> = format!("what opens it is {:032x}", rand::random::<u128>()).into();
    fs::write(dir.path().join("secret"), &secret).unwrap();
    if is_passphrase {
        fs::write(dir.path().join("is-passphrase"), "").unwrap();
    }
    let mut looked_at = Command::new(std::env::current_exe().unwrap())
        .args(["--exact", name, "--nocapture"])
        .env(CHILD, dir.path())
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let pid = looked_at.id();
    let mut lines = BufReader::new(looked_at.stdout.take().unwrap()).lines();
    let mut until = |what: &str| lines.any(|line| line.unwrap() == what);
    let go_on = |stdin: &mut ChildStdin| stdin.write_all(b"\n").unwrap();
    let mut stdin = looked_at.stdin.take().unwrap();

    assert!(until("open"), "it ended before");
    let header = fs::read(dir.path().join("bucket/header/1")).unwrap();
    let opener = if is_passphrase { Opener::Passphrase(&secret) } else { Opener::KeyFile(&secret) };
    let (behind, working) = secrets::of_volume(&header, &opener);
    let left = secrets::search(pid, &behind);
    let used = secrets::search(pid, &working);
    go_on(&mut stdin);
    assert!(until("closed"), "it ended before");
    let after = secrets::search(pid, &[behind, working.clone()].concat());
    go_on(&mut stdin);
    assert!(looked_at.wait().unwrap().success());

    assert!(left.is_empty(), "while it was open: {left:#?}");
    for (what, _) in &working {
        assert!(
            used.iter().any(|found| found.what == *what),
            "{what} was not found: the search finds nothing"
        );
    }
    let astray: Vec<_> = used.iter().filter(|found| !found.region.is_locked()).collect();
    assert!(astray.is_empty(), "while it was open: {astray:#?}");
    assert!(after.is_empty(), "after it was closed: {after:#?}");
}

#[test]
fn no_byte_of_a_key_outlives_a_volume_that_a_key_file_opened() {
    look_at_a_child("no_byte_of_a_key_outlives_a_volume_that_a_key_file_opened", false);
}

#[test]
fn no_byte_of_a_key_outlives_a_volume_that_a_passphrase_opened() {
    look_at_a_child("no_byte_of_a_key_outlives_a_volume_that_a_passphrase_opened", true);
}
