//! Where measuring happens: an S3 server behind a wire, or a local directory, and what can be mounted over it.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use rustix::process::Pid;

use crate::net::{self, Wire};
use crate::support::command::{command, run, wait_until};
use crate::support::mount::Mount;
use crate::support::servers::{Server, seaweedfs};
use crate::support::volume::Volume;

/// What the wire carries each way, where there is one.
pub(crate) const WIRE_BYTES_PER_SECOND: f64 = 100e6;
/// Of `/proc/PID/stat`; the same on every Linux (`USER_HZ`).
const TICKS_PER_SECOND: f64 = 100.0;
const READY_WITHIN: Duration = Duration::from_secs(60);

/// A server and the way to it. Every volume on it has a prefix of its own.
pub(crate) struct Ground {
    pub(crate) server: Server,
    pub(crate) round_trip: Duration,
    wire: Wire,
    volumes: AtomicU32,
}

impl Ground {
    /// At a latency of nought the wire only counts requests.
    pub(crate) fn new(round_trip: Duration) -> Self {
        let mut server = seaweedfs();
        let limit = if round_trip.is_zero() { f64::INFINITY } else { WIRE_BYTES_PER_SECOND };
        let wire = net::wire(server.address(), round_trip, limit);
        for (name, value) in &mut server.env {
            if *name == "AWS_ENDPOINT_URL" {
                *value = format!("http://{}", wire.address);
            }
        }
        Self { server, round_trip, wire, volumes: AtomicU32::new(0) }
    }

    /// Of the store, as everybody on this ground reaches it.
    pub(crate) fn endpoint(&self) -> String {
        format!("http://{}", self.wire.address)
    }

    /// Requests that have passed the wire.
    pub(crate) fn requests(&self) -> u64 {
        self.wire.requests.load(Ordering::Relaxed)
    }

    /// A new volume.
    pub(crate) fn volume(&self) -> Volume {
        let number = self.volumes.fetch_add(1, Ordering::Relaxed);
        Volume::at(&self.server, &format!("s3://coffer/volume{number}"))
    }

    /// A prefix that nobody else uses.
    pub(crate) fn prefix(&self) -> String {
        format!("other{}", self.volumes.fetch_add(1, Ordering::Relaxed))
    }
}

/// A mounted filesystem, as the work on it sees it.
pub(crate) struct Site<'a> {
    pub(crate) dir: &'a Path,
    /// Who serves it.
    pub(crate) daemons: Vec<Pid>,
    settle: &'a dyn Fn(),
}

impl<'a> Site<'a> {
    pub(crate) fn new(dir: &'a Path, daemons: Vec<Pid>, settle: &'a dyn Fn()) -> Self {
        Self { dir, daemons, settle }
    }

    /// Of a mount of Coffer's.
    pub(crate) fn of<'m: 'a>(mount: &'a Mount<'m>, settle: &'a dyn Fn()) -> Self {
        Self::new(&mount.dir, mount.daemons(), settle)
    }

    /// Returns when everything written is in the store.
    pub(crate) fn settle(&self) {
        (self.settle)();
    }

    pub(crate) fn path(&self, below: &str) -> PathBuf {
        self.dir.join(below)
    }
}

/// Something that can be mounted again and again over the same store.
pub(crate) trait Subject {
    fn name(&self) -> String;
    /// Mounts with nothing remembered, lets `work` use it, waits until everything is in the store and unmounts.
    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>));
}

/// Coffer, over one volume.
pub(crate) struct Coffer {
    volume: Volume,
    args: &'static [&'static str],
}

impl Coffer {
    pub(crate) fn new(volume: Volume, args: &'static [&'static str]) -> Self {
        Self { volume, args }
    }

    pub(crate) fn volume(&self) -> &Volume {
        &self.volume
    }
}

impl Subject for Coffer {
    fn name(&self) -> String {
        "coffer".into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        let mount = self.volume.mount_spec().args(self.args).mount();
        work(&Site::of(&mount, &|| mount.sync()));
        mount.unmount();
    }
}

/// The null filesystem, in a process of its own as Coffer is.
pub(crate) struct Null {
    pub(crate) buffered: bool,
}

impl Subject for Null {
    fn name(&self) -> String {
        if self.buffered { "null, buffered" } else { "null" }.into()
    }

    fn mounted(&self, work: &mut dyn FnMut(&Site<'_>)) {
        let place = tempfile::tempdir().expect("a directory");
        let mut null = Command::new(std::env::current_exe().expect("this program"));
        null.arg(if self.buffered { "null-buffered" } else { "null" }).arg(place.path());
        let daemon = Daemon::start(null, place.path());
        work(&Site::new(place.path(), daemon.pids(), &|| {}));
        daemon.unmount();
    }
}

/// A filesystem that runs as a child of this process. Dropping it leaves neither mount nor process.
pub(crate) struct Daemon {
    child: Child,
    dir: PathBuf,
}

impl Daemon {
    /// Starts `command`, which must mount at `dir` and stay in the foreground, and waits until it is mounted.
    pub(crate) fn start(mut command: Command, dir: &Path) -> Self {
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut daemon = Self { child: child.expect("the filesystem starts"), dir: dir.to_owned() };
        wait_until("the filesystem is mounted", READY_WITHIN, || {
            assert!(matches!(daemon.child.try_wait(), Ok(None)), "{command:?} ended before it was mounted");
            is_mounted(dir)
        });
        daemon
    }

    pub(crate) fn pids(&self) -> Vec<Pid> {
        vec![Pid::from_child(&self.child)]
    }

    /// Unmounts and waits for the end of the process.
    pub(crate) fn unmount(mut self) {
        let mut umount = command("umount", [] as [&str; 0]);
        umount.arg(&self.dir);
        run(umount).ok();
        self.child.wait().expect("it ends when it is unmounted");
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        if is_mounted(&self.dir) {
            let mut umount = command("umount", ["-l"]);
            umount.arg(&self.dir);
            run(umount);
        }
        if matches!(self.child.try_wait(), Ok(None)) {
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
    }
}

fn is_mounted(dir: &Path) -> bool {
    let mounts = std::fs::read_to_string("/proc/self/mounts").expect("the list of mounts");
    let dir = dir.canonicalize().unwrap_or_else(|_| dir.to_owned());
    mounts.lines().any(|line| line.split(' ').nth(1).is_some_and(|place| Path::new(place) == dir))
}

/// Seconds that `work` takes.
pub(crate) fn seconds(work: impl FnOnce()) -> f64 {
    let start = Instant::now();
    work();
    start.elapsed().as_secs_f64()
}

/// Seconds of CPU that `pids` have used so far.
pub(crate) fn cpu_seconds(pids: &[Pid]) -> f64 {
    let ticks = |pid: &Pid| -> u64 {
        let stat =
            std::fs::read_to_string(format!("/proc/{}/stat", pid.as_raw_nonzero())).unwrap_or_default();
        // Behind the name, which is in parentheses: the state, ten fields, then user and system time.
        let rest = stat.rsplit(')').next().unwrap_or_default();
        rest.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum()
    };
    pids.iter().map(ticks).sum::<u64>() as f64 / TICKS_PER_SECOND
}

/// Tells the kernel to forget what it caches of files.
pub(crate) fn drop_page_cache() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "1").expect("only root may measure");
}

/// The same, and names and attributes too.
pub(crate) fn drop_kernel_caches() {
    rustix::fs::sync();
    std::fs::write("/proc/sys/vm/drop_caches", "3").expect("only root may measure");
}
