//! A bucket that is away until there is no more room: who writes waits and can be ended, and nothing written is lost.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::OpenOptionsExt;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

use crate::support::command::{wait_until, wait_within};
use crate::support::mount::Mount;
use crate::support::servers;
use crate::support::volume::Volume;

const LIMIT_BYTES: u64 = 8 << 20;
/// What one writer writes: alone more than the limit, so that none is done before the bucket is back.
const STREAM_BYTES: usize = 9 << 20;
/// What each of them hands over at once.
const REQUEST_BYTES: u64 = 128 << 10;
/// A hang is what it ends; the pauses between attempts grow.
const PATIENCE: Duration = Duration::from_secs(180);

fn noise(seed: u64, len: usize) -> Vec<u8> {
    let mut bytes = vec![0; len];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// The contents as the daemon has them, past the kernel's own cache.
fn read_of_the_daemon(path: &Path) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut file = File::options().read(true).custom_flags(libc::O_DIRECT).open(path).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    bytes
}

/// A program that writes a stream of noise into a file of the mount.
struct Writer {
    name: &'static str,
    number: u64,
    child: Child,
}

impl Writer {
    /// `cat` leaves a Ctrl-C to the kernel, `dd` handles it. The file is there before the program is.
    fn start(volume: &Volume, mount: &Mount<'_>, program: &str, name: &'static str, number: u64) -> Writer {
        let source = volume.new_dir("source").join("stream");
        fs::write(&source, noise(number, STREAM_BYTES)).unwrap();
        // A test that is run in the background may have been told to ignore Ctrl-C, and its children with it.
        let mut writer = volume.program("env", ["--default-signal=INT", program]);
        if program == "dd" {
            writer.args(["bs=128k", "iflag=fullblock", "status=none"]);
        }
        writer.stdin(File::open(&source).unwrap()).stdout(File::create(mount.path(name)).unwrap());
        let child = writer.stderr(Stdio::null()).spawn().unwrap();
        Writer { name, number, child }
    }

    fn waits(&self) -> bool {
        let call = fs::read_to_string(format!("/proc/{}/syscall", self.child.id())).unwrap_or_default();
        call.starts_with(&format!("{} 0x1 ", libc::SYS_write))
    }

    /// The program ends of `signal` itself, although it waits for the bucket.
    fn end(mut self, signal: Signal) -> (&'static str, u64) {
        kill_process(Pid::from_child(&self.child), signal).unwrap();
        let (status, late) = wait_within(&mut self.child, PATIENCE);
        assert!(!late && status.signal() == Some(signal.as_raw()), "{}: {status}", self.name);
        (self.name, self.number)
    }

    fn finish(mut self) -> (&'static str, u64) {
        let (status, late) = wait_within(&mut self.child, PATIENCE);
        assert!(!late && status.success(), "{}: {status}", self.name);
        (self.name, self.number)
    }
}

/// What the status says, and that what it says waits for the bucket is within the limit.
fn status_within_the_limit(mount: &Mount<'_>) -> Value {
    let status = mount.status()["mounts"][0].clone();
    for bytes in [&status["volume"]["dirty_bytes"], &status["memory"]["parts"]["dirty"]["used"]] {
        assert!(bytes.as_u64().unwrap() <= LIMIT_BYTES, "more waits than may: {status}");
    }
    status
}

/// Between which two moments the bucket went, by the age that the status gives.
fn began(mount: &Mount<'_>) -> (Instant, Instant) {
    let before = Instant::now();
    let status = status_within_the_limit(mount);
    let age = Duration::from_secs_f64(status["store"]["outage_age"].as_f64().expect("an age"));
    (before - age, Instant::now() - age)
}

fn wait_at_the_limit(mount: &Mount<'_>, writers: &[&Writer]) {
    wait_until("everybody waits for room", PATIENCE, || {
        let status = status_within_the_limit(mount);
        let used = status["memory"]["parts"]["dirty"]["used"].as_u64().unwrap();
        used + REQUEST_BYTES > LIMIT_BYTES && writers.iter().all(|writer| writer.waits())
    });
}

fn fill_up(volume: &Volume, away: impl FnOnce(), back: impl FnOnce()) {
    let mount = volume.mount_spec().args(&["--dirty-limit", "8M"]).mount();
    let before = noise(0, 3 << 20);
    fs::write(mount.path("before"), &before).unwrap();
    mount.sync();
    assert!(read_of_the_daemon(&mount.path("before")) == before);

    let earliest = Instant::now();
    away();
    let start = |program, name, number| Writer::start(volume, &mount, program, name, number);
    let stay = [start("dd", "stays", 1), start("cat", "stays too", 2)];
    let ended = [start("cat", "interrupted", 3), start("dd", "handles it", 4), start("dd", "killed", 5)];
    wait_at_the_limit(&mount, &stay.iter().chain(&ended).collect::<Vec<_>>());
    wait_until("the outage is noticed", PATIENCE, || {
        !status_within_the_limit(&mount)["store"]["outage_age"].is_null()
    });

    let first = began(&mount);
    let said = volume.try_verb("status", &mount.dir, &[]);
    assert_eq!(said.code(), 23, "{said}");
    let text = said.text();
    assert!(
        text.starts_with("Not safe yet. ") && text.contains(" MiB not in the bucket, and the store "),
        "{said}"
    );
    let line = |name: &str| {
        text.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_else(|| panic!("{said}"))
    };
    assert!(line("outage ").contains(" for "), "since when: {said}");
    assert!(line("queued ").contains(", the oldest for "), "how much and since when: {said}");

    assert!(read_of_the_daemon(&mount.path("before")) == before, "what is cached can be read");
    assert_eq!(fs::read_dir(&mount.dir).unwrap().count(), 6);
    let [interrupted, handles, killed] = ended;
    let killed = killed.end(Signal::KILL);
    let ended = [interrupted.end(Signal::INT), handles.end(Signal::INT), killed];
    wait_at_the_limit(&mount, &stay.iter().collect::<Vec<_>>());
    let second = began(&mount);
    assert!(first.1 >= earliest && second.1 >= earliest, "it is older than the outage");
    assert!(first.0 <= second.1 && second.0 <= first.1, "it began twice: {first:?}, {second:?}");

    back();
    let whole = stay.map(Writer::finish);
    wait_until("all is sent, unasked", PATIENCE, || {
        let status = status_within_the_limit(&mount);
        status["volume"]["is_safe"] == true && status["store"]["outage"].is_null()
    });
    mount.unmount();
    let mount = volume.mount();
    assert!(fs::read(mount.path("before")).unwrap() == before);
    for (name, number) in whole {
        assert!(fs::read(mount.path(name)).unwrap() == noise(number, STREAM_BYTES), "{name}");
    }
    for (name, number) in ended {
        let found = fs::read(mount.path(name)).unwrap();
        assert!(found.len() < STREAM_BYTES && noise(number, STREAM_BYTES).starts_with(&found), "{name}");
    }
    mount.unmount();
}

/// > Writes wait once the limit of unsent data is reached.
///
/// > A killed process leaves its request within about half a second. Signals that a program handles do not interrupt,
/// > as on a local disk; but after five seconds in one call, those that ask it to end do
#[test]
fn writers_wait_at_the_limit_while_the_bucket_directory_is_away_and_can_be_ended() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    fill_up(&volume, || fs::rename(&bucket, &hidden).unwrap(), || fs::rename(&hidden, &bucket).unwrap());
}

#[test]
fn writers_wait_at_the_limit_while_the_server_is_away_and_can_be_ended() {
    let server = RefCell::new(servers::seaweedfs());
    let volume = Volume::on(&server.borrow());
    fill_up(&volume, || server.borrow_mut().kill(), || server.borrow_mut().start_again());
}

/// Names are kept in memory until the bucket is back, and there is a limit to that, too.
#[test]
fn who_makes_names_waits_in_an_outage_and_can_be_killed() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount_spec().args(&["--memory", "64MiB"]).mount();
    // Who makes a name holds its directory in the kernel.
    let (there, other) = (mount.path("there"), mount.path("other"));
    [&there, &other].into_iter().for_each(|dir| fs::create_dir(dir).unwrap());
    mount.sync();
    fs::rename(&bucket, &hidden).unwrap();
    let script = "i=0; while :; do : > \"$0/f$i\"; i=$((i+1)); done";
    let mut maker = volume.program("sh", ["-c", script, there.to_str().unwrap()]).spawn().unwrap();
    let (mut made, mut looks) = (Value::Null, 0);
    wait_until("the names fill the memory", PATIENCE, || {
        let now = mount.status()["mounts"][0]["volume"]["files"].clone();
        looks = if made == now { looks + 1 } else { 0 };
        made = now;
        made.as_u64().unwrap() > 1000 && looks > 5
    });
    let waits_in = |child: &Child, calls: &[i64]| {
        let call = fs::read_to_string(format!("/proc/{}/syscall", child.id())).unwrap_or_default();
        let number = call.split(' ').next().and_then(|number| number.parse().ok());
        number.is_some_and(|number: i64| calls.contains(&number))
    };
    let mut mkdir = volume.program("mkdir", [other.join("new").to_str().unwrap()]).spawn().unwrap();
    wait_until("mkdir waits", PATIENCE, || waits_in(&mkdir, &[libc::SYS_mkdir, libc::SYS_mkdirat]));
    for child in [&mut mkdir, &mut maker] {
        kill_process(Pid::from_child(child), Signal::KILL).unwrap();
        let (status, late) = wait_within(child, PATIENCE);
        assert!(!late && status.signal() == Some(Signal::KILL.as_raw()), "{status}");
    }
    fs::rename(&hidden, &bucket).unwrap();
    mount.sync();
    assert!(!other.join("new").exists(), "what was killed before it began is done");
    mount.unmount();
}
