//! Mounts are killed under processes that write and keep a log elsewhere of what was synced. All that it says is there.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::time::Duration;

use aws_lc_rs::digest::{SHA256, digest};
use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};

use crate::kills::rounds;
use crate::support::command::{wait_until, wait_within};
use crate::support::seed;
use crate::support::volume::Volume;

const WRITERS: u32 = 4;
const PATIENCE: Duration = Duration::from_secs(120);
/// Bytes of a record of a journal, and of what contents are made of.
const PART_BYTES: usize = 32;

/// Replaces a file in the way that is meant to be safe, adds to a journal in place, and then tells the log; until the
/// mount is gone. It holds on to the mount's directory: what lies below the mount point is nobody's business.
const WRITER: &str = r#"
import hashlib, os, sys
file, version, mount, log = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]

def part(of, number):
    return hashlib.sha256(b"%d %d %d" % (file, of, number)).digest()

def write(out, data, at):
    while data:
        done = os.pwrite(out, data, at)
        data, at = data[done:], at + done

log = os.open(log, os.O_WRONLY | os.O_APPEND)
try:
    top = os.open(mount, os.O_RDONLY | os.O_DIRECTORY)
    journal = os.open("journal %d" % file, os.O_WRONLY | os.O_CREAT, 0o600, dir_fd=top)
    while True:
        version += 1
        count = 1 + int.from_bytes(part(version, 0)[:2], "big") % 4096
        new = os.open("%d.new" % file, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600, dir_fd=top)
        write(new, b"".join(part(version, number) for number in range(count)), 0)
        os.fsync(new)
        os.close(new)
        os.rename("%d.new" % file, "%d" % file, src_dir_fd=top, dst_dir_fd=top)
        os.fsync(top)
        write(journal, part(version, 0), (version - 1) * 32)
        os.fdatasync(journal)
        os.write(log, b"%d\n" % version)
        os.fsync(log)
except OSError as error:
    sys.exit(error.errno)
"#;

fn part(file: u32, version: u32, number: u32) -> Vec<u8> {
    digest(&SHA256, format!("{file} {version} {number}").as_bytes()).as_ref().to_vec()
}

fn contents(file: u32, version: u32) -> Vec<u8> {
    let first = part(file, version, 0);
    let count = 1 + u32::from(u16::from_be_bytes([first[0], first[1]])) % 4096;
    (0..count).flat_map(|number| part(file, version, number)).collect()
}

/// The log of one writer, which lies outside of the mount.
struct Log {
    file: u32,
    path: PathBuf,
}

impl Log {
    /// The last version that is known to be synced.
    fn version(&self) -> u32 {
        let text = fs::read_to_string(&self.path).unwrap();
        // The last line may be on its way.
        let whole = text.rsplit_once('\n').map_or("", |(whole, _)| whole);
        whole.lines().last().map_or(0, |line| line.parse().unwrap())
    }

    fn write_on(&self, mount: &Path) -> Child {
        let mut writer = Command::new("python3");
        writer.args(["-c", WRITER, &self.file.to_string(), &self.version().to_string()]);
        writer.arg(mount).arg(&self.path).spawn().unwrap()
    }

    /// The file is whole and of the last version that was logged, or of the one that was under way; so is the journal.
    fn check(&self, mount: &Path, round: u32) {
        let (file, version) = (self.file, self.version());
        let found = fs::read(mount.join(file.to_string())).unwrap_or_default();
        let is_there =
            |version| if version == 0 { found.is_empty() } else { found == contents(file, version) };
        let len = found.len();
        assert!(
            is_there(version) || is_there(version + 1),
            "round {round}: of file {file} {len} bytes are there, not version {version}"
        );
        let journal = fs::read(mount.join(format!("journal {file}"))).unwrap_or_default();
        let wanted: Vec<u8> = (1..=version + 1).flat_map(|version| part(file, version, 0)).collect();
        let len = journal.len();
        assert!(
            wanted.starts_with(&journal) && [0, PART_BYTES].contains(&(wanted.len() - len)),
            "round {round}: journal {file} has {len} bytes and not the records of {version} versions"
        );
    }
}

/// > **`fsync` and `fdatasync`** return when the file as it is now is in the bucket: contents, size, attributes, and
/// > every name it was given before.
///
/// > **`fsync` of a directory** does the same for its entries.
///
/// > So a file that was written and renamed over another, synced or not, is either the old or the new one, whole.
#[test]
fn what_a_log_says_was_synced_survives_kills_and_nothing_is_torn() {
    let mut dice = SmallRng::seed_from_u64(seed("kills under writers"));
    let volume = Volume::local();
    let logs = (0..WRITERS).map(|file| Log { file, path: volume.new_dir("log").join("log") });
    let logs: Vec<Log> = logs.collect();
    logs.iter().for_each(|log| fs::write(&log.path, "").unwrap());
    let total = || logs.iter().map(Log::version).sum::<u32>();
    let rounds = rounds(4);
    for round in 0..rounds {
        let mount = volume.mount_spec().args(&["--takeover"]).mount();
        logs.iter().for_each(|log| log.check(&mount.dir, round));
        let target = total() + dice.random_range(8..40);
        let writers: Vec<Child> = logs.iter().map(|log| log.write_on(&mount.dir)).collect();
        wait_until("enough was synced", PATIENCE, || total() >= target);
        // The pause is the fault that is injected, not a way to wait for anything.
        std::thread::sleep(Duration::from_micros(dice.random_range(0..30_000)));
        mount.crash();
        for mut writer in writers {
            let (status, late) = wait_within(&mut writer, PATIENCE);
            let is_of_the_kill = [libc::ENOTCONN, libc::ECONNABORTED].map(Some).contains(&status.code());
            assert!(!late && is_of_the_kill, "round {round}: a writer failed of something else: {status}");
        }
    }
    let mount = volume.mount_spec().args(&["--takeover"]).mount();
    logs.iter().for_each(|log| log.check(&mount.dir, rounds));
    mount.unmount();
    println!("{} versions of {WRITERS} files were synced, in {rounds} mounts", total());
}
