//! Whole commits: a writer moves and swaps files without pause, and a reader's mount never shows parts of two commits.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use rustix::fs::{CWD, RenameFlags, renameat_with};

use crate::support::command::wait_until;
use crate::support::extended;
use crate::support::volume::Volume;

const PAIRS: u64 = 60;
/// In many requests, of which the kernel asks one after the other.
const CROWD: u64 = 1500;
const WHOLE_BYTES: usize = 500_000;
/// So often everything must have been seen within one commit, however slow the machine is.
const LOOKS_MIN: u64 = 20;

fn duration() -> Duration {
    Duration::from_secs(if extended() { 60 } else { 10 })
}

fn pair(number: u64, side: u64) -> String {
    format!("{number}-{side}")
}

/// The writer's side. After each commit, `generation` tells how many there were, and all else follows from it.
struct Writer<'a>(&'a Path);

impl Writer<'_> {
    fn begin(&self) {
        let root = self.0;
        for dir in ["even", "odd", "pairs", "names", "crowd"] {
            fs::create_dir(root.join(dir)).unwrap();
        }
        fs::write(root.join("even/moved"), "moved").unwrap();
        for number in 0..PAIRS {
            for side in 0..2 {
                fs::write(root.join("pairs").join(pair(number, side)), format!("{number} {side}")).unwrap();
            }
        }
        for number in 0..CROWD {
            File::create(root.join(format!("crowd/one of a crowd of many, number {number}"))).unwrap();
        }
        fs::write(root.join("names/0"), "").unwrap();
        self.finish(0);
    }

    /// One commit: nothing is committed by age.
    fn go_to(&self, generation: u64) {
        let root = self.0;
        let (from, to) = if generation.is_multiple_of(2) { ("odd", "even") } else { ("even", "odd") };
        fs::rename(root.join(from).join("moved"), root.join(to).join("moved")).unwrap();
        for number in 0..PAIRS {
            let [one, two] = [0, 1].map(|side| root.join("pairs").join(pair(number, side)));
            renameat_with(CWD, one, CWD, two, RenameFlags::EXCHANGE).unwrap();
        }
        // One of the crowd is another file under the same name; the number of files stays.
        let name = format!("one of a crowd of many, number {}", generation % CROWD);
        File::create(root.join("new")).unwrap();
        fs::rename(root.join("new"), root.join("crowd").join(name)).unwrap();
        let links = root.join("names");
        match generation % 8 {
            0 => (1..8).for_each(|number| fs::remove_file(links.join(number.to_string())).unwrap()),
            number => fs::hard_link(links.join("0"), links.join(number.to_string())).unwrap(),
        }
        self.finish(generation);
    }

    fn finish(&self, generation: u64) {
        let words = generation.to_le_bytes().repeat(WHOLE_BYTES / 8);
        let whole =
            File::options().write(true).create(true).truncate(false).open(self.0.join("whole")).unwrap();
        whole.write_all_at(&words, 0).unwrap();
        fs::write(self.0.join("generation"), format!("{generation:08}")).unwrap();
        whole.sync_all().unwrap();
    }
}

/// The reader's side.
struct Reader<'a> {
    root: &'a Path,
    latest: u64,
}

impl Reader<'_> {
    fn generation(&mut self) -> u64 {
        let found: u64 = fs::read_to_string(self.root.join("generation")).unwrap().parse().unwrap();
        assert!(found >= self.latest, "generation {found} after {}", self.latest);
        self.latest = found;
        found
    }

    fn names(&self, dir: &str) -> BTreeMap<String, u64> {
        use std::os::unix::fs::DirEntryExt;
        let listed: Vec<_> = fs::read_dir(self.root.join(dir)).unwrap().map(Result::unwrap).collect();
        let count = listed.len();
        let name = |entry: &fs::DirEntry| entry.file_name().into_string().unwrap();
        let names: BTreeMap<_, _> = listed.iter().map(|entry| (name(entry), entry.ino())).collect();
        assert_eq!(names.len(), count, "{dir}: a name was listed twice");
        names
    }

    /// Each holds for one operation, whatever the writer does meanwhile.
    fn check_each(&self) {
        let pairs = self.names("pairs");
        let inodes: BTreeSet<_> = pairs.values().collect();
        assert_eq!(
            (pairs.len() as u64, inodes.len() as u64),
            (2 * PAIRS, 2 * PAIRS),
            "one file under two names"
        );
        let crowd = self.names("crowd");
        let inodes: BTreeSet<_> = crowd.values().collect();
        assert_eq!((crowd.len() as u64, inodes.len() as u64), (CROWD, CROWD));
        let file = File::open(self.root.join("whole")).unwrap();
        let mut back = vec![0; WHOLE_BYTES];
        assert_eq!(file.read_at(&mut back, 0).unwrap(), WHOLE_BYTES);
        assert!(back.chunks(8).all(|word| word == &back[..8]), "one read shows two generations");
        for name in ["one of a crowd of many, number 0", "one of a crowd of many, number 7"] {
            File::open(self.root.join("crowd").join(name)).expect("a name that is always there");
        }
    }

    /// If the generation is the same before and after, then everything between is of that commit.
    fn check_together(&mut self) -> bool {
        let root = self.root;
        let before = self.generation();
        let (even, odd) = (root.join("even/moved").exists(), root.join("odd/moved").exists());
        let listed = (self.names("even").len(), self.names("odd").len());
        let of_pair: Vec<_> = (0..4)
            .flat_map(|number| [(number, 0), (number, 1)])
            .map(|(number, side)| fs::read_to_string(root.join("pairs").join(pair(number, side))).unwrap())
            .collect();
        let links = fs::metadata(root.join("names/0")).unwrap().nlink();
        let names = self.names("names").len();
        let mut word = [0; 8];
        File::open(root.join("whole")).unwrap().read_exact_at(&mut word, 400_000).unwrap();
        if self.generation() != before {
            return false;
        }
        let is_even = before.is_multiple_of(2);
        assert_eq!((even, odd), (is_even, !is_even), "generation {before}");
        assert_eq!(listed, (usize::from(is_even), usize::from(!is_even)), "generation {before}");
        let wanted = (0..4).flat_map(|number| [0, 1].map(|side| format!("{number} {}", (side + before) % 2)));
        assert!(of_pair.iter().cloned().eq(wanted), "generation {before}: {of_pair:?}");
        assert_eq!((links, names as u64), (before % 8 + 1, before % 8 + 1), "generation {before}");
        assert_eq!(u64::from_le_bytes(word), before);
        true
    }
}

/// > **One commit at a time.** A reader goes from one commit to a later one in one step, and never back. What one operation
/// > shows is of one commit: what a name leads to, what `stat` tells, a read of up to 512 KiB, a listing of up to 4,096
/// > entries (of a longer one, each 4,096). Of two operations the second may be of a later commit, never of an earlier one;
/// > the kernel is told names and attributes for no longer than until the reader looks again.
#[test]
fn a_reader_never_shows_parts_of_two_commits() {
    let volume = Volume::local();
    let writer_mount = volume.mount_spec().args(&["--commit-age", "1h"]).mount();
    let writer = Writer(&writer_mount.dir);
    writer.begin();
    let reader_mount = volume.mount_spec().args(&["--read-only", "--poll-interval", "1s"]).mount();
    let (done, judged) = (AtomicBool::new(false), AtomicU64::new(0));
    let generations = std::thread::scope(|scope| {
        let readers = [(); 2].map(|()| {
            scope.spawn(|| {
                let mut reader = Reader { root: &reader_mount.dir, latest: 0 };
                while !done.load(Ordering::SeqCst) {
                    reader.check_each();
                    judged.fetch_add(u64::from(reader.check_together()), Ordering::SeqCst);
                }
            })
        });
        let end = Instant::now() + duration();
        let mut generation = 0;
        // A reader that has failed has failed the test.
        while !readers.iter().any(|reader| reader.is_finished())
            && (Instant::now() < end || judged.load(Ordering::SeqCst) < LOOKS_MIN)
        {
            generation += 1;
            writer.go_to(generation);
        }
        done.store(true, Ordering::SeqCst);
        generation
    });
    println!("{generations} commits, {} looks at one of them", judged.load(Ordering::SeqCst));
    let mut reader = Reader { root: &reader_mount.dir, latest: 0 };
    wait_until("the last commit is seen", Duration::from_secs(60), || reader.generation() == generations);
    reader_mount.unmount();
    writer_mount.unmount();
}
