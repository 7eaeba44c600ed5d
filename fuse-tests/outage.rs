//! A bucket that goes away is a delay and not an error: writes wait, what is cached is read, and it drains when it is back.

use std::cell::RefCell;
use std::fs::{self, File};
use std::io::{Seek, Write};
use std::path::{Path, PathBuf};
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread::JoinHandle;
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{RngCore, SeedableRng};
use rustix::process::Signal;

use crate::mapping::Mapping;
use crate::support::command::{Finished, run, run_ok, wait_until};
use crate::support::mount::Mount;
use crate::support::servers;
use crate::support::tree::is_root;
use crate::support::volume::{COFFER, Volume};

/// How long a write is watched to see that it waits.
const PATIENCE: Duration = Duration::from_secs(4);
/// How long it may take until everything is sent once the bucket is back: the pauses between attempts grow.
const RECOVERY: Duration = Duration::from_secs(180);

fn noise(seed: u64) -> Vec<u8> {
    let mut bytes = vec![0; 3 << 20];
    SmallRng::seed_from_u64(seed).fill_bytes(&mut bytes);
    bytes
}

/// Runs a mount through an outage that `away` begins and `back` ends, and that `status` calls `name` by then.
fn outage(volume: &Volume, name: Option<&str>, away: impl FnOnce(), back: impl FnOnce()) {
    let mount = volume.mount();
    fs::write(mount.path("before"), noise(1)).unwrap();
    mount.sync();
    assert!(fs::read(mount.path("before")).unwrap() == noise(1));

    away();
    let (finished, writer) = mpsc::channel();
    let during = mount.path("during");
    let thread = std::thread::spawn(move || {
        let mut file = File::create(during)?;
        file.write_all(&noise(2))?;
        let synced = file.sync_all();
        let _ = finished.send(());
        synced
    });
    let early = writer.recv_timeout(PATIENCE);
    assert_eq!(early, Err(RecvTimeoutError::Timeout), "fsync returned with no bucket to write to");
    assert!(fs::read(mount.path("before")).unwrap() == noise(1), "what was read before can be read again");
    fs::write(mount.path("small"), "written meanwhile").unwrap();
    assert_eq!(fs::read(mount.path("small")).unwrap(), b"written meanwhile");
    let status = mount.status();
    assert_eq!(status["is_safe"], false, "{status}");
    if let Some(name) = name {
        assert_eq!(status["mounts"][0]["store"]["outage"], name, "{status}");
    }

    back();
    writer
        .recv_timeout(RECOVERY)
        .unwrap_or_else(|_| panic!("nothing was sent after the bucket came back\n{}", mount.said()));
    thread.join().unwrap().unwrap();
    mount.unmount();
    let mount = volume.mount();
    assert!(
        fs::read(mount.path("before")).unwrap() == noise(1)
            && fs::read(mount.path("during")).unwrap() == noise(2)
    );
    assert_eq!(fs::read(mount.path("small")).unwrap(), b"written meanwhile");
    mount.unmount();
}

/// > A bucket in a local directory that goes away, as with an unplugged disk, is an outage too, until the same
/// > directory is back.
#[test]
fn a_bucket_directory_that_vanishes_is_waited_for() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    outage(
        &volume,
        None,
        || fs::rename(&bucket, &hidden).unwrap(),
        || {
            // Nobody may put a new, empty bucket where the real one was: a disk that is not mounted looks like this.
            assert!(!bucket.exists(), "the mount made a bucket of its own");
            fs::rename(&hidden, &bucket).unwrap();
        },
    );
}

#[test]
fn a_bucket_directory_that_refuses_writes_is_waited_for() {
    let volume = Volume::local();
    let deny = Denial(volume.bucket());
    outage(&volume, Some("denied"), || deny.set(true), || deny.set(false));
}

/// > A bucket that is merely away loses no write.
#[test]
fn a_server_that_is_killed_and_started_again_is_waited_for() {
    let server = RefCell::new(servers::seaweedfs());
    let volume = Volume::on(&server.borrow());
    outage(&volume, Some("unreachable"), || server.borrow_mut().kill(), || server.borrow_mut().start_again());
}

#[test]
fn a_server_that_takes_requests_and_does_not_answer_is_waited_for() {
    let server = servers::azurite();
    let volume = Volume::on(&server);
    // A request that got no answer yet may still get one, so it has no name for a while.
    outage(&volume, None, || server.freeze(), || server.thaw());
}

#[test]
fn umount_during_an_outage_says_that_data_would_be_lost() {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount();
    fs::rename(&bucket, &hidden).unwrap();
    fs::write(mount.path("waiting"), "for the bucket").unwrap();
    let waits = umount_for_a_while(&volume, &mount);
    assert!(
        waits.is_none_or(|finished| !finished.status.success()),
        "umount claims success with data unsent"
    );
    fs::rename(&hidden, &bucket).unwrap();
    if mount.is_mounted() {
        mount.unmount();
    } else {
        mount.wait_until_gone();
        drop(mount);
    }
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("waiting")).unwrap(), b"for the bucket");
    mount.unmount();
}

/// Of the next mount the kernel may number the device as it did that of the last one that has ended.
#[test]
fn a_mount_that_is_unmounted_and_waits_for_its_bucket_is_not_taken_for_the_next_one() {
    let (volume, other) = (Volume::local(), Volume::local());
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let waiting = volume.mount();
    fs::rename(&bucket, &hidden).unwrap();
    fs::write(waiting.path("waiting"), "for the bucket").unwrap();
    waiting.signal(Signal::TERM);
    wait_until("it is unmounted", RECOVERY, || !waiting.is_mounted());
    wait_until("it says so", RECOVERY, || {
        let told: serde_json::Value =
            serde_json::from_slice(&run(volume.coffer(["status", "--json"])).stdout).unwrap();
        told["mounts"][0]["volume"]["state"] == "ending"
    });
    let next = other.mount();
    let status = next.status();
    let told: Vec<_> =
        status["mounts"].as_array().unwrap().iter().map(|m| &m["mount"]["mountpoint"]).collect();
    assert_eq!(told, [next.dir.to_str().unwrap()]);
    next.unmount();
    fs::rename(&hidden, &bucket).unwrap();
    waiting.wait_until_gone();
    drop(waiting);
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("waiting")).unwrap(), b"for the bucket");
    mount.unmount();
}

/// A volume whose bucket is away until the test brings it back.
fn without_bucket(args: &[&str], during: impl FnOnce(&Mount<'_>)) -> Volume {
    let volume = Volume::local();
    let (bucket, hidden) = (volume.bucket(), volume.bucket().with_extension("away"));
    let mount = volume.mount_spec().args(args).mount();
    fs::rename(&bucket, &hidden).unwrap();
    during(&mount);
    fs::rename(&hidden, &bucket).unwrap();
    mount.unmount();
    volume
}

/// > With `--fsync-timeout` they fail with `EIO` after that time, and the log says so: nothing is lost, and saving goes
/// > on.
#[test]
fn an_fsync_with_a_time_limit_fails_and_loses_nothing() {
    let volume = without_bucket(&["--fsync-timeout", "1s"], |mount| {
        let mut file = File::create(mount.path("file")).unwrap();
        file.write_all(b"for the bucket").unwrap();
        assert_eq!(file.sync_all().unwrap_err().raw_os_error(), Some(libc::EIO));
        assert!(mount.said().contains("fsync was not done in time"), "{}", mount.said());
    });
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"for the bucket");
    mount.unmount();
}

/// Python handles SIGINT, so the kernel does not kill it: it gets its turn only when the call it is in returns.
const SYNC_UNTIL_ASKED: &str = "
import os, sys
file = os.open(sys.argv[1], os.O_WRONLY | os.O_CREAT)
os.write(file, b'for the bucket')
print('waiting', flush=True)
try:
    os.fsync(file)
except KeyboardInterrupt:
    sys.exit(42)
";

/// > after five seconds in one call, those that ask it to end do (`SIGINT`, `SIGTERM`, `SIGHUP`, `SIGQUIT`: `EINTR`).
#[test]
fn a_program_that_handles_ctrl_c_gets_its_turn_during_an_outage() {
    let volume = without_bucket(&[], |mount| {
        let mut python = std::process::Command::new("python3");
        python.args(["-c", SYNC_UNTIL_ASKED]).arg(mount.path("file")).stdout(std::process::Stdio::piped());
        let mut waiting = python.spawn().unwrap();
        let mut line = String::new();
        std::io::BufRead::read_line(&mut std::io::BufReader::new(waiting.stdout.take().unwrap()), &mut line)
            .unwrap();
        assert_eq!(line.trim(), "waiting");
        let call = format!("/proc/{}/syscall", waiting.id());
        crate::support::command::wait_until("the fsync", Duration::from_secs(60), || {
            fs::read_to_string(&call).unwrap().starts_with(&format!("{} ", libc::SYS_fsync))
        });
        let pid = rustix::process::Pid::from_child(&waiting);
        rustix::process::kill_process(pid, rustix::process::Signal::INT).unwrap();
        let (status, late) = crate::support::command::wait_within(&mut waiting, Duration::from_secs(60));
        assert!(!late && status.code() == Some(42), "{status}");
    });
    let mount = volume.mount();
    assert_eq!(fs::read(mount.path("file")).unwrap(), b"for the bucket");
    mount.unmount();
}

/// What `coffer umount` says, if it ends within [`PATIENCE`]; it may as well wait.
fn umount_for_a_while(volume: &Volume, mount: &Mount<'_>) -> Option<Finished> {
    let mut umount = volume.program("timeout", [&PATIENCE.as_secs().to_string(), COFFER, "umount"]);
    umount.arg(&mount.dir);
    let finished = run(umount);
    // 124 is timeout's own word for "it was still running".
    (finished.code() != 124).then_some(finished)
}

/// A directory tree in which nothing can be made or removed, not even by root.
struct Denial(PathBuf);

impl Denial {
    fn set(&self, denied: bool) {
        let (program, flag) = match (is_root(), denied) {
            (true, true) => ("chattr", "+i"),
            (true, false) => ("chattr", "-i"),
            (false, true) => ("chmod", "a-w"),
            (false, false) => ("chmod", "u+w"),
        };
        run_ok(program, ["-R".as_ref(), flag.as_ref(), self.0.as_os_str()]);
    }
}

impl Drop for Denial {
    fn drop(&mut self) {
        // Or the directory could not be removed after a failure.
        self.set(false);
    }
}

/// A mount of a volume whose bucket is away.
struct Stuck<'v> {
    mount: Mount<'v>,
    maps: Vec<(File, Mapping)>,
    filling: JoinHandle<()>,
}

/// Programs write to their maps while there is no room, and ask where data is: the kernel would hand the pages over first,
/// and waits in that until there is room. Each call keeps a thread of the mount's.
fn with_seeks_that_cannot_be_served<'v>(volume: &'v Volume, hidden: &Path) -> Stuck<'v> {
    const FILES: usize = 12;
    let mount = volume.mount_spec().args(&["--memory", "64MiB", "--dirty-limit", "16MiB"]).mount();
    fs::write(mount.path("known"), "as before").unwrap();
    let map = |number| {
        let path = mount.path(format!("mapped{number}"));
        let file = File::options().read(true).write(true).create_new(true).open(path).unwrap();
        file.set_len(1 << 20).unwrap();
        let map = Mapping::of(&file, 1 << 20).unwrap();
        (file, map)
    };
    let maps: Vec<_> = (0..FILES).map(map).collect();
    mount.sync();
    fs::rename(volume.bucket(), hidden).unwrap();
    let filler = mount.path("filler");
    // It waits until the bucket is back, or is told that the mount is gone.
    let filling = std::thread::spawn(move || {
        let mut filler = File::create(filler).unwrap();
        while filler.write_all(&[1; 4096]).is_ok() && filler.stream_position().unwrap() < 32 << 20 {}
    });
    let waiting = || mount.status()["mounts"][0]["volume"]["dirty_bytes"].as_u64().unwrap();
    let mut before = 0;
    wait_until("there is no room", Duration::from_secs(60), || {
        let last = std::mem::replace(&mut before, waiting());
        before > 12 << 20 && last == before
    });
    std::thread::scope(|scope| {
        for (file, map) in &maps {
            map.write(5, b"through a map");
            scope.spawn(move || assert_eq!(rustix::fs::seek(file, rustix::fs::SeekFrom::Data(0)), Ok(0)));
        }
    });
    assert_eq!(fs::read(mount.path("known")).unwrap(), b"as before");
    Stuck { mount, maps, filling }
}

#[test]
fn seeks_in_maps_that_cannot_be_saved_hold_up_nobody() {
    let volume = Volume::local();
    let hidden = volume.bucket().with_extension("away");
    let Stuck { mount, maps, filling } = with_seeks_that_cannot_be_served(&volume, &hidden);
    fs::rename(&hidden, volume.bucket()).unwrap();
    filling.join().unwrap();
    drop(maps);
    mount.sync();
    assert_eq!(&fs::read(mount.path("mapped11")).unwrap()[5..18], b"through a map");
    mount.unmount();
}

#[test]
fn a_mount_that_was_killed_while_the_kernel_held_one_of_its_threads_is_taken_away_by_an_unmount() {
    let volume = Volume::local();
    let hidden = volume.bucket().with_extension("away");
    let Stuck { mount, maps, filling } = with_seeks_that_cannot_be_served(&volume, &hidden);
    mount.signal(Signal::KILL);
    wait_until("it is known to have died", Duration::from_secs(60), || {
        let said = volume.try_verb("status", &mount.dir, &[]);
        String::from_utf8_lossy(&said.stdout).contains("has died")
    });
    let removed = volume.try_verb("umount", &mount.dir, &[]);
    assert_eq!(removed.status.code(), Some(31), "{removed}");
    assert!(
        removed.stderr.contains("has died") && removed.stderr.contains("the mount was removed"),
        "{removed}"
    );
    mount.wait_until_gone();
    drop(maps);
    filling.join().unwrap();
    fs::rename(&hidden, volume.bucket()).unwrap();
    let again = volume.mount_spec().state_dir(&mount.state_dir).mount();
    assert_eq!(fs::read(again.path("known")).unwrap(), b"as before");
    again.unmount();
}
