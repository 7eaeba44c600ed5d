//! Small files that the kernel is given as they are opened: how many requests that saves, and that it is never given what they were.

// There is no safe call for mapping a file, nor for cutting one that is not open.
#![allow(unsafe_code)]

use std::ffi::{CString, c_void};
use std::fs::{self, File, OpenOptions};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::ptr::null_mut;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::mm::{Advice, MapFlags, ProtFlags, madvise, mmap, munmap};

use crate::contents::noise;
use crate::figures::{address, operations};
use crate::place::on_a_mount;
use crate::support::command::wait_until;
use crate::support::volume::Volume;
use crate::support::{extended, seed};

const PATIENCE: Duration = Duration::from_secs(60);
const FILES: u64 = 200;

#[test]
fn small_files_in_memory_are_read_without_a_request() {
    let volume = Volume::local();
    // Nothing is committed meanwhile: what is written stays in memory.
    let mount = volume.mount_spec().args(&["--http", "127.0.0.1:0", "--commit-age", "1h"]).mount();
    let figures = address(&mount);
    let count = |what: &str| operations(figures, what);
    // Who opens a file while another has it open is given nothing, and the kernel tells of a closing in its own time.
    let all_closed = || {
        wait_until("everything is closed", PATIENCE, || count("open") + count("create") == count("release"));
    };
    let path = |number: u64| mount.path(format!("file {number}"));
    let contents = |number: u64| noise(1 + number as usize * 300, number);
    for number in 0..FILES {
        fs::write(path(number), contents(number)).unwrap();
    }
    for _ in 0..2 {
        all_closed();
        for number in 0..FILES {
            assert!(fs::read(path(number)).unwrap() == contents(number), "{number}");
        }
    }
    assert_eq!(count("read"), 0);
    all_closed();
    fs::write(path(7), "other contents").unwrap();
    all_closed();
    assert_eq!(fs::read(path(7)).unwrap(), b"other contents");
    assert_eq!(count("read"), 0);
    fs::write(path(8), noise(100_000, 8)).unwrap();
    all_closed();
    assert!(fs::read(path(8)).unwrap() == noise(100_000, 8));
    assert!(count("read") > 0, "larger files are asked for as they are read");
    mount.unmount();
}

/// Changes files in every way that needs no reader's consent, and after each looks at them, while others open them all the time.
#[test]
fn the_kernel_is_never_given_what_a_file_was() {
    let seed = seed("given");
    let rounds = if extended() { 50_000 } else { 3000 };
    on_a_mount(|root| {
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            for number in 0..4 {
                let (path, is_over) = (root.join(number.to_string()), &is_over);
                fs::write(&path, "").unwrap();
                let read = path.clone();
                scope.spawn(move || {
                    while !is_over.load(Ordering::Relaxed) {
                        drop(fs::read(&read).unwrap());
                    }
                });
                scope.spawn(move || {
                    let _over = Over(is_over);
                    change(&path, &mut SmallRng::seed_from_u64(seed + number), rounds);
                });
            }
        });
    });
}

fn change(path: &Path, rng: &mut SmallRng, rounds: u64) {
    let mut model = Vec::new();
    for round in 0..rounds {
        let len = rng.random_range(0..9000);
        match rng.random_range(0..4) {
            0 | 1 => {
                truncate(path, len);
                model.resize(len, 0);
            }
            2 => {
                fs::write(path, noise(len, round)).unwrap();
                model = noise(len, round);
            }
            _ => {
                let (at, bytes) = (rng.random_range(0..9000), noise(len % 500 + 1, round));
                let file = OpenOptions::new().write(true).open(path).unwrap();
                file.write_all_at(&bytes, at as u64).unwrap();
                model.resize(model.len().max(at + bytes.len()), 0);
                model[at..at + bytes.len()].copy_from_slice(&bytes);
            }
        }
        assert_eq!(fs::metadata(path).unwrap().len(), model.len() as u64, "round {round}");
        assert!(fs::read(path).unwrap() == model, "round {round}");
    }
}

/// Who opened a file while it was written past the kernel's pages reads past them, too, but through a map: the kernel then reads
/// a page, and waits for it, whoever is given the file.
#[test]
fn a_map_of_who_reads_past_the_pages_stops_nobody() {
    const BYTES: usize = 60_000;
    on_a_mount(|root| {
        let path = root.join("file");
        let mut writer = File::create(&path).unwrap();
        writer.write_all(&noise(BYTES, 1)).unwrap();
        let reader = File::open(&path).unwrap();
        drop(writer);
        let map = PrivateMap::of(&reader, BYTES);
        let is_over = AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    rustix::fs::fadvise(&reader, 0, None, rustix::fs::Advice::DontNeed).unwrap();
                    map.touch_anew();
                }
            });
            scope.spawn(|| {
                while !is_over.load(Ordering::Relaxed) {
                    truncate(&path, BYTES);
                }
            });
            scope.spawn(|| {
                let _over = Over(&is_over);
                for _ in 0..5000 {
                    assert!(fs::read(&path).unwrap() == noise(BYTES, 1));
                }
            });
        });
    });
}

/// A file mapped for reading, by one process alone.
struct PrivateMap {
    start: *mut c_void,
    len: usize,
}

// SAFETY: whoever reads it may do so at once with others.
unsafe impl Sync for PrivateMap {}

impl PrivateMap {
    fn of(file: &File, len: usize) -> Self {
        // SAFETY: a fresh mapping at an address of the kernel's choice overlaps nothing.
        let start = unsafe { mmap(null_mut(), len, ProtFlags::READ, MapFlags::PRIVATE, file, 0) }.unwrap();
        Self { start, len }
    }

    /// Has the kernel find each page again.
    fn touch_anew(&self) {
        // SAFETY: exactly the range that was mapped; it is read only, so that nothing is lost.
        unsafe { madvise(self.start, self.len, Advice::LinuxDontNeed) }.unwrap();
        for at in (0..self.len).step_by(4096) {
            // SAFETY: the byte lies within the mapping, which lives as long as `self`.
            std::hint::black_box(unsafe { self.start.cast::<u8>().add(at).read_volatile() });
        }
    }
}

impl Drop for PrivateMap {
    fn drop(&mut self) {
        // SAFETY: exactly the range that was mapped; nothing borrowed from it can be left.
        let _ = unsafe { munmap(self.start, self.len) };
    }
}

/// Cuts or lengthens a file that nobody need have open.
fn truncate(path: &Path, len: usize) {
    let path = CString::new(path.as_os_str().as_bytes()).unwrap();
    // SAFETY: it is a string that ends with a nought, and lives as long as the call.
    let result = unsafe { libc::truncate(path.as_ptr(), len as libc::off_t) };
    assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
}

/// Says that it is over, be it by a panic.
struct Over<'a>(&'a AtomicBool);

impl Drop for Over<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}

/// > a file counts as read when it is opened for reading, be it for writing too
#[test]
fn opening_a_file_for_reading_counts_as_reading_it() {
    on_a_mount(|root| {
        let accessed = |path: &Path| fs::metadata(path).unwrap().accessed().unwrap();
        let reading = OpenOptions::new().read(true).clone();
        let both = OpenOptions::new().read(true).write(true).clone();
        let writing = OpenOptions::new().write(true).clone();
        for (name, len) in [("small", 8), ("large", 65_537)] {
            let path = root.join(name);
            for how in [&reading, &both] {
                fs::write(&path, noise(len, 1)).unwrap();
                let before = accessed(&path);
                drop(writing.open(&path).unwrap());
                assert_eq!(accessed(&path), before, "{name}: who only writes reads nothing");
                drop(how.open(&path).unwrap());
                let changed = fs::metadata(&path).unwrap().modified().unwrap();
                wait_until("an opening has counted", PATIENCE, || accessed(&path) > changed);
            }
        }
    });
}
