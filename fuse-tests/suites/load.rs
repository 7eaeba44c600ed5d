//! fio, dbench and stress-ng: many processes at once, every byte and every return value looked at, nothing left over.

use std::path::Path;
use std::time::{Duration, Instant};

use crate::support::command::{command, run_ok, run_within, wait_until};
use crate::support::mount::Mount;
use crate::support::volume::Volume;
use crate::support::{extended, seed};

const LIMIT: Duration = Duration::from_secs(3600);

/// Runs `load` in a mount, and looks whether it left anything behind: contents after a remount are checked by `after`;
/// then everything is removed, and neither inodes nor descriptors may remain.
fn under_load(load: impl FnOnce(&Mount<'_>), after: impl FnOnce(&Mount<'_>)) {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["-o", "suid,dev"]).mount();
    let before = open_descriptors(&mount);
    load(&mount);
    mount.unmount();
    let mount = volume.mount_spec().args(&["-o", "suid,dev"]).mount();
    after(&mount);
    run_ok("find", [mount.dir.as_os_str(), "-mindepth".as_ref(), "1".as_ref(), "-delete".as_ref()]);
    // The kernel forgets inodes in its own time; the superuser can hurry it.
    let _ = std::fs::write("/proc/sys/vm/drop_caches", "2");
    wait_until("every inode but the root is gone", Duration::from_secs(60), || {
        mount.status()["mounts"][0]["volume"]["files"] == 1
    });
    mount.sync();
    let start = Instant::now();
    while open_descriptors(&mount).len() > before.len() {
        let after = open_descriptors(&mount);
        assert!(start.elapsed() < Duration::from_secs(60), "open before: {before:#?}\nand after: {after:#?}");
        std::thread::yield_now();
    }
    mount.unmount();
}

/// Each daemon's open descriptors, and what they lead to.
fn open_descriptors(mount: &Mount<'_>) -> Vec<String> {
    let mut open = Vec::new();
    for daemon in mount.daemons() {
        let dir = format!("/proc/{}/fd", daemon.as_raw_nonzero());
        for descriptor in std::fs::read_dir(dir).into_iter().flatten().flatten() {
            let leads_to = std::fs::read_link(descriptor.path()).unwrap_or_default();
            // Each of its threads that serve the kernel opens the device when it starts. And a daemon keeps its own mount busy while
            // something is to be committed, be it by the housekeeping.
            if leads_to == Path::new("/dev/fuse") || leads_to == mount.dir {
                continue;
            }
            open.push(format!("{daemon:?} {}", leads_to.display()));
        }
    }
    open.sort();
    open
}

fn seconds() -> &'static str {
    if extended() { "60" } else { "3" }
}

/// Every way to write that fio knows and a mount can tell apart: direct, buffered, mapped, asynchronous; several at once.
const JOBS: &str = "
[global]
verify=crc32c
verify_fatal=1
verify_state_save=0
[random-direct]
rw=randwrite
bs=4k
direct=1
numjobs=2
stonewall
[random-buffered]
rw=randrw
bsrange=1k-200k
numjobs=2
fsync=200
stonewall
[sequential-direct]
rw=write
bs=1m
direct=1
numjobs=2
[sequential-buffered]
rw=write
bs=13k
numjobs=2
stonewall
[asynchronous]
ioengine=libaio
iodepth=16
rw=randwrite
bs=64k
direct=1
[mapped]
ioengine=mmap
rw=randwrite
bs=4k
";

fn fio(mount: &Mount<'_>, seed: u64, more: &[&str]) {
    let size = if extended() { "512m" } else { "24m" };
    let jobs = mount.state_dir.with_extension("fio");
    let places = format!("[global]\ndirectory={}\nsize={size}\nrandseed={seed}\n", mount.dir.display());
    std::fs::write(&jobs, places + JOBS).unwrap();
    let mut fio = command("fio", more);
    fio.arg(&jobs).current_dir(jobs.parent().unwrap());
    run_within(fio, LIMIT).ok();
}

#[test]
fn fio_reads_what_it_wrote_also_after_a_remount() {
    let seed = seed("fio");
    under_load(|mount| fio(mount, seed, &[]), |mount| fio(mount, seed, &["--verify_only"]));
}

#[test]
fn dbench_gets_no_error() {
    let clients = |mount: &Mount<'_>| {
        let mut dbench = command("dbench", ["-t", seconds(), "-D"]);
        dbench.arg(&mount.dir).arg("4");
        let finished = run_within(dbench, LIMIT).ok();
        let said = finished.text();
        assert!(said.contains("Throughput"), "{finished}");
        println!("{}", said.lines().last().unwrap_or_default());
    };
    under_load(clients, |_| {});
}

/// All of stress-ng's class `filesystem` that works on the files of one filesystem.
const STRESSORS: &[&str] = &[
    "access",
    "chattr",
    "chdir",
    "chmod",
    "chown",
    "copy-file",
    "dentry",
    "dir",
    "dirdeep",
    "dirmany",
    "dup",
    "fallocate",
    "fcntl",
    "fiemap",
    "file-ioctl",
    "filename",
    "flock",
    "fpunch",
    "fsize",
    "fstat",
    "getdent",
    "handle",
    "hdd",
    "inode-flags",
    "io",
    "lease",
    "link",
    "locka",
    "lockf",
    "lockofd",
    "mknod",
    "mmap",
    "msync",
    "open",
    "readahead",
    "rename",
    "revio",
    "seek",
    "symlink",
    "sync-file",
    "touch",
    "utime",
    "verity",
    "xattr",
];

#[test]
fn stress_ng_finds_no_fault() {
    let stress = |mount: &Mount<'_>| {
        let place = mount.path("stress");
        std::fs::create_dir(&place).unwrap();
        stress(&place, STRESSORS);
    };
    under_load(stress, |_| {});
}

fn stress(place: &Path, stressors: &[&str]) {
    for pair in stressors.chunks(4) {
        let mut stress =
            command("stress-ng", ["--verify", "--oomable", "--timeout", seconds(), "--temp-path"]);
        stress.arg(place);
        for stressor in pair {
            stress.arg(format!("--{stressor}")).arg("1");
        }
        let finished = run_within(stress, LIMIT).ok();
        assert!(!finished.stderr.contains("fail:"), "{finished}");
    }
}
