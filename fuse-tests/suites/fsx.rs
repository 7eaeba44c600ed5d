//! fsx: random reads, writes, maps, cuts, holes and copies of one file, each read compared with what must be there.

use std::path::Path;
use std::time::Duration;

use crate::support::command::{command, run_within};
use crate::support::servers::tool;
use crate::support::volume::Volume;
use crate::support::{extended, seed};

/// Files of several blocks, ranges larger than one; `invalidate` and `posix_fadvise` drop what the kernel caches. fsx never
/// takes its memory maps down, and with tens of thousands of them the kernel is all that is exercised: so they are fewer. Lengths begin at 1, because to allocate
/// nothing is an error (`EINVAL`) that fsx takes for a fault.
const CONFIGURATION: &str = "\
flen = 1048576
[opsize]
min = 1
max = 131072
[weights]
close_open = 1
read = 10
write = 10
mapread = 3
mapwrite = 3
invalidate = 1
truncate = 3
fsync = 0.1
fdatasync = 0.1
posix_fallocate = 2
punch_hole = 3
sendfile = 3
posix_fadvise = 3
copy_file_range = 5
";

/// Far beyond what a run takes; a hang is what it ends.
const LIMIT: Duration = Duration::from_secs(3000);

/// Operations in one run, and runs.
fn amount() -> (u32, u64) {
    if extended() { (200_000, 10) } else { (4_000, 1) }
}

/// One run; fsx compares as it goes, and fails at the first difference.
fn exercise(volume: &Volume, file: &Path, seed: u64, operations: u32) {
    let artifacts = volume.new_dir("fsx");
    let configuration = artifacts.join("fsx.toml");
    std::fs::write(&configuration, CONFIGURATION).unwrap();
    let mut fsx = command(tool("bin/fsx").to_str().unwrap(), ["-q", "-f"]);
    fsx.arg(&configuration).args(["-N", &operations.to_string(), "-S", &seed.to_string(), "-P"]);
    fsx.arg(&artifacts).arg(file);
    run_within(fsx, LIMIT).ok();
}

/// Each run has a volume of its own: what it overwrites stays in the bucket for ten minutes, some gigabytes of it.
fn runs(what: &str, args: &[&str]) {
    let (operations, runs) = amount();
    let first = seed(what);
    for seed in first..first + runs {
        let volume = Volume::local();
        let mount = volume.mount_spec().args(args).mount();
        exercise(&volume, &mount.path("file"), seed, operations);
        mount.unmount();
        println!("fsx: {operations} operations with seed {seed}: no difference");
    }
}

#[test]
fn one_file_is_always_what_was_written() {
    runs("fsx", &[]);
}

#[test]
fn one_file_is_always_what_was_written_with_little_memory() {
    runs("fsx, little memory", &["--cache-size", "4M", "--dirty-limit", "8M"]);
}

#[test]
fn one_file_is_always_what_was_written_across_remounts() {
    let (operations, runs) = amount();
    let (batches, first) = (4, seed("fsx, remounts"));
    for seed in first..first + runs {
        let volume = Volume::local();
        let mut kept: Option<Vec<u8>> = None;
        for batch in 0..batches {
            let mount = volume.mount();
            // fsx begins with an empty file. What the batch before left is what a remount must bring back.
            if let Some(kept) = kept.take() {
                let now = std::fs::read(mount.path("file")).unwrap();
                assert!(kept == now, "seed {seed}: batch {batch} finds other contents than there were");
            }
            exercise(&volume, &mount.path("file"), seed * batches + batch, operations / batches as u32);
            kept = Some(std::fs::read(mount.path("file")).unwrap());
            mount.unmount();
        }
        println!("fsx: {batches} batches of seed {seed}: no difference");
    }
}
