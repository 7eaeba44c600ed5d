//! What `--memory` promises: the kernel's own account of a mount's memory, at its highest, whatever the mount is used for.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::support::mount::Mount;
use crate::support::volume::Volume;

const MIB: u64 = 1 << 20;
/// The least that `--memory` takes.
const LIMIT_BYTES: u64 = 64 * MIB;
/// What comes on top: the program, its threads, the unlocking of the volume, what the allocator does not give back. It
/// may be 150 MiB with a million files; these few take some 30.
const BEYOND_BYTES: u64 = 80 * MIB;
const FILES: usize = 20_000;
const STREAM_BYTES: u64 = 256 * MIB;

#[test]
fn the_least_memory_is_kept_to_by_streams_and_by_twenty_thousand_files() {
    let volume = Volume::local();
    let mount = volume.mount_spec().args(&["--memory", "64MiB"]).mount();
    for number in 0..FILES {
        let path = file(&mount.dir, number);
        if number % 1000 == 0 {
            fs::create_dir(path.parent().unwrap()).unwrap();
        }
        fs::write(path, contents(number)).unwrap();
    }
    assert_within(&mount, "files made");
    write_stream(&mount.path("stream"));
    mount.sync();
    assert_within(&mount, "a stream written");
    read_all(&mount);
    assert_within(&mount, "all read");
    mount.unmount();

    let mount = volume.mount_spec().args(&["--memory", "64MiB"]).mount();
    read_all(&mount);
    assert_within(&mount, "all read after a remount");
    for number in 0..FILES / 4 {
        fs::rename(file(&mount.dir, number), mount.path(format!("moved-{number}"))).unwrap();
    }
    assert_within(&mount, "files renamed");
    mount.unmount();
}

fn file(dir: &Path, number: usize) -> PathBuf {
    dir.join(format!("d{}/file-{number}", number / 1000))
}

/// Up to 4 KiB, which differ from file to file; a quarter is small enough to stay in records.
fn contents(number: usize) -> Vec<u8> {
    number.to_le_bytes().iter().copied().cycle().take(1 + number * 577 % 4096).collect()
}

fn write_stream(path: &Path) {
    let mut stream = fs::File::create(path).unwrap();
    for piece in 0..STREAM_BYTES / MIB {
        stream.write_all(&vec![piece as u8; MIB as usize]).unwrap();
    }
}

fn read_all(mount: &Mount<'_>) {
    for number in 0..FILES {
        assert!(fs::read(file(&mount.dir, number)).unwrap() == contents(number), "file {number}");
    }
    let mut stream = fs::File::open(mount.path("stream")).unwrap();
    for piece in 0..STREAM_BYTES / MIB {
        let mut found = vec![0; MIB as usize];
        std::io::Read::read_exact(&mut stream, &mut found).unwrap();
        assert!(found == vec![piece as u8; MIB as usize], "piece {piece}");
    }
}

/// The most that was resident since the mount began.
fn assert_within(mount: &Mount<'_>, what: &str) {
    let [daemon] = mount.daemons()[..] else { panic!("one daemon serves a mount") };
    let status = fs::read_to_string(format!("/proc/{}/status", daemon.as_raw_nonzero())).unwrap();
    let most = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("a line of the status");
    let most_bytes = most.trim().trim_end_matches(" kB").parse::<u64>().unwrap() * 1024;
    println!("{what}: at most {} MiB", most_bytes / MIB);
    assert!(most_bytes <= LIMIT_BYTES + BEYOND_BYTES, "{what}: {} MiB were resident", most_bytes / MIB);
}
