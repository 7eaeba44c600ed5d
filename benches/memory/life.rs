//! What a volume goes through while its processes are measured.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, Scope};
use std::time::Duration;

use super::MIB;
use super::session::Session;

/// Writers of large files in an outage, and as many of small ones.
const WRITERS: usize = 2;
/// Writers that get no further for so long wait for the bucket.
const STILL: Duration = Duration::from_secs(5);
/// Longest that writers take to fill what a mount holds back for an absent bucket.
const FILLED_WITHIN: Duration = Duration::from_secs(600);
/// Of a file that is overwritten in places.
const HOLE_BYTES: usize = 65_536;
/// One of so many segments is lost before the repair.
const LOST_ONE_OF: usize = 20;
/// What a check ends with that finds nothing, or what another mount will do or has left (`docs/OPERATING.md`).
const SOUND: &[i32] = &[0, 33];
/// The same when parts of files are lost.
const DAMAGED: &[i32] = &[34];

/// Takes a new volume through all of it. The most that each kind of process had, in bytes.
pub(crate) fn lived(mut session: Session, stream_bytes: u64) -> BTreeMap<&'static str, u64> {
    let stream = session.drive("stream");
    used(&mut session, &stream, stream_bytes);
    session.unmount();
    session.mount();
    used_cold(&mut session, &stream, stream_bytes);
    outage(&mut session);
    session.stage("thin out", |session| thin_out(session, &stream, 2));
    session.stage("gc", |session| {
        let told = session.coffer(&["gc", "--now", "--json", "drive"]);
        let told: serde_json::Value = serde_json::from_str(&told).expect("JSON");
        let found = ["rewritten", "deleted", "waiting"].map(|what| told[what]["count"].as_u64().unwrap());
        assert_ne!(found, [0; 3], "there was nothing to clean: {told}");
    });
    session.stage("thin out", |session| thin_out(session, &stream, 3));
    session.unmount();
    commanded(&mut session);
    session.mount();
    session.stage("remove", |session| session.each(|path, _| drop(fs::remove_file(renamed(path)))));
    session.stage("sync", |session| session.coffer(&["sync", "drive"]));
    session.unmount();
    session.end()
}

fn used(session: &mut Session, stream: &Path, stream_bytes: u64) {
    session.stage("create", |session| {
        session.each(|path, number| fs::write(path, contents(number)).unwrap());
    });
    session.stage("sync", |session| session.coffer(&["sync", "drive"]));
    session.stage("stat", |session| session.each(|path, _| assert!(fs::metadata(path).unwrap().is_file())));
    session.stage("read", |session| {
        session.each(|path, number| assert!(fs::read(path).unwrap() == contents(number)));
    });
    session.stage("rename", |session| session.each(|path, _| fs::rename(path, renamed(path)).unwrap()));
    session.stage("overwrite", |session| {
        session.each(|path, number| fs::write(renamed(path), contents(number)).unwrap());
    });
    session.stage("stream in", |_| stream_in(stream, stream_bytes));
    session.stage("stream out", |_| stream_out(stream, stream_bytes));
}

fn used_cold(session: &mut Session, stream: &Path, stream_bytes: u64) {
    session.stage("cold list", |session| {
        let listed = Command::new("ls").args(["-lRU", "--"]).arg(session.drive("")).output().unwrap();
        assert!(listed.status.success());
    });
    session.stage("cold read", |session| {
        session.each(|path, number| assert!(fs::read(renamed(path)).unwrap() == contents(number)));
    });
    session.stage("cold out", |_| stream_out(stream, stream_bytes));
}

/// The bucket goes away while some write until they must wait and others read on; then it comes back.
fn outage(session: &mut Session) {
    let (bucket, hidden) = (session.bucket(), session.bucket().with_extension("away"));
    let (written, is_over) = (AtomicU64::new(0), AtomicBool::new(false));
    let writers = Writers::new(session);
    thread::scope(|scope| {
        session.stage("outage", |session| {
            fs::rename(&bucket, &hidden).expect("the bucket goes away");
            writers.go_on(scope, &written, &is_over);
            // What is not at hand fails after the read timeout; the files that follow are read all the same.
            scope.spawn({
                let (drive, is_over) = (session.drive(""), &is_over);
                move || read_on(&drive, is_over)
            });
            wait_until_still(&written);
        });
        session.stage("recovery", |session| {
            is_over.store(true, Ordering::Relaxed);
            fs::rename(&hidden, &bucket).expect("the bucket is back");
            session.coffer(&["sync", "drive"]);
        });
    });
    let bytes = written.load(Ordering::Relaxed);
    println!("{:>9}  {:>8}  {} MiB written in the outage", "", "", bytes / MIB);
}

/// Where writers are at work when the bucket goes away. Who only begins then may need records that are not in memory.
struct Writers {
    large: Vec<File>,
    small: Vec<PathBuf>,
}

impl Writers {
    fn new(session: &Session) -> Self {
        let place = |kind: &str, number: usize| session.drive(&format!("{kind}{number}"));
        let small: Vec<_> = (0..WRITERS).map(|number| place("small", number)).collect();
        small.iter().for_each(|small| fs::create_dir(small).expect("a directory"));
        let large =
            (0..WRITERS).map(|number| File::create(place("large", number)).expect("a file")).collect();
        Self { large, small }
    }

    fn go_on<'scope>(
        self,
        scope: &'scope Scope<'scope, '_>,
        written: &'scope AtomicU64,
        is_over: &'scope AtomicBool,
    ) {
        let goes_on = move |bytes: usize| {
            written.fetch_add(bytes as u64, Ordering::Relaxed);
            !is_over.load(Ordering::Relaxed)
        };
        for mut file in self.large {
            scope.spawn(move || {
                let piece = piece();
                file.write_all(&piece).expect("written");
                while goes_on(piece.len()) {
                    file.write_all(&piece).expect("written");
                }
            });
        }
        for small in self.small {
            scope.spawn(move || {
                for number in 0.. {
                    fs::write(small.join(number.to_string()), contents(number)).expect("written");
                    if !goes_on(contents(number).len()) {
                        break;
                    }
                }
            });
        }
    }
}

fn read_on(drive: &Path, is_over: &AtomicBool) {
    let mut queue = vec![drive.to_owned()];
    while let Some(place) = queue.pop() {
        for entry in fs::read_dir(&place).into_iter().flatten().flatten() {
            if is_over.load(Ordering::Relaxed) {
                return;
            }
            match entry.file_type() {
                Ok(kind) if kind.is_dir() => queue.push(entry.path()),
                _ => drop(read_through(&entry.path())),
            }
        }
    }
}

fn read_through(path: &Path) -> io::Result<u64> {
    // A buffer of its own, for this process is to stay smaller than those it measures.
    io::copy(&mut File::open(path)?, &mut io::sink())
}

/// Waits until the writers wait.
fn wait_until_still(written: &AtomicU64) {
    let mut last = 0;
    for _ in 0..FILLED_WITHIN.as_secs() / STILL.as_secs() {
        thread::sleep(STILL);
        let now = written.load(Ordering::Relaxed);
        if now > 0 && now == last {
            return;
        }
        last = now;
    }
    panic!("writers go on without a bucket");
}

/// Removes one of `step` files, and overwrites one of `step` blocks of the stream, so that segments are dead in part.
fn thin_out(session: &Session, stream: &Path, step: usize) {
    session.each(|path, number| {
        if number % step == 0 {
            // It may be gone already.
            let _ = fs::remove_file(renamed(path));
        }
    });
    let file = File::options().write(true).open(stream).expect("the stream");
    let len = file.metadata().expect("its length").len();
    for at in (0..len).step_by(step * HOLE_BYTES) {
        file.write_all_at(&vec![step as u8; HOLE_BYTES], at).expect("written");
    }
    session.coffer(&["sync", "drive"]);
}

/// The commands on a volume that is not mounted, of which then a part is lost.
fn commanded(session: &mut Session) {
    session.measured("check", &["check"], SOUND);
    session.measured("check --read-data", &["check", "--read-data"], SOUND);
    session.measured("gc", &["gc", "--now"], &[0]);
    let mut segments = files_below(&session.bucket().join("d"));
    segments.sort();
    for segment in segments.iter().step_by(LOST_ONE_OF) {
        fs::remove_file(segment).expect("a segment is lost");
    }
    session.measured("check", &["check"], DAMAGED);
    session.measured("repair", &["repair", "--yes", "--salvage"], DAMAGED);
    session.measured("check --read-data", &["check", "--read-data"], DAMAGED);
}

fn files_below(dir: &Path) -> Vec<PathBuf> {
    let (mut found, mut queue) = (Vec::new(), vec![dir.to_owned()]);
    while let Some(dir) = queue.pop() {
        for entry in fs::read_dir(dir).expect("a directory").flatten() {
            match entry.file_type().expect("its type").is_dir() {
                true => queue.push(entry.path()),
                false => found.push(entry.path()),
            }
        }
    }
    found
}

fn renamed(path: &Path) -> PathBuf {
    path.with_extension("new")
}

/// Up to 4 KiB, which differ from file to file; a quarter is small enough to stay in records.
fn contents(number: usize) -> Vec<u8> {
    let bytes = (number as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15).to_le_bytes();
    bytes.iter().copied().cycle().take(1 + (number * 577) % 4096).collect()
}

/// A MiB that does not compress away.
fn piece() -> Vec<u8> {
    (0..MIB as u32).map(|byte| (byte.wrapping_mul(2_654_435_761) >> 24) as u8).collect()
}

fn stream_in(path: &Path, bytes: u64) {
    let mut file = File::create(path).expect("a file");
    let piece = piece();
    for _ in 0..bytes / MIB {
        file.write_all(&piece).expect("written");
    }
    file.sync_all().expect("synced");
}

fn stream_out(path: &Path, bytes: u64) {
    let (mut file, mut piece) = (File::open(path).expect("a file"), vec![0; MIB as usize]);
    let mut found = 0;
    loop {
        match file.read(&mut piece).expect("read") {
            0 => break,
            len => found += len as u64,
        }
    }
    assert_eq!(found, bytes / MIB * MIB);
}
