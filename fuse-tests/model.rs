//! Random writes, cuts, holes and mappings of one file, against the bytes it should hold.

use std::cell::RefCell;
use std::fs::{self, File};
use std::os::unix::fs::FileExt;

use rand::rngs::SmallRng;
use rand::{Rng, SeedableRng};
use rustix::fs::{FallocateFlags, fallocate};

use crate::contents::{noise, read_write};
use crate::mapping::Mapping;
use crate::place::across_a_remount;
use crate::support::{extended, seed};

/// One file and what it should hold.
struct Model {
    rng: SmallRng,
    file: File,
    bytes: Vec<u8>,
}

const MODEL_BYTES_MAX: usize = 700_000;

impl Model {
    fn step(&mut self) {
        let at = self.rng.random_range(0..MODEL_BYTES_MAX - 1);
        let len = match self.rng.random_range(0..3) {
            0 => self.rng.random_range(1..200),
            1 => self.rng.random_range(1..70_000),
            _ => self.rng.random_range(1..200_000),
        }
        .min(MODEL_BYTES_MAX - at);
        match self.rng.random_range(0..12) {
            0..=4 => {
                let data = noise(len, self.rng.random());
                self.file.write_all_at(&data, at as u64).unwrap();
                self.grow(at + len);
                self.bytes[at..at + len].copy_from_slice(&data);
            }
            5..=7 => self.check_range(at, len),
            8 => {
                self.file.set_len(at as u64).unwrap();
                self.bytes.resize(at, 0);
            }
            9 => {
                let flags = FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE;
                fallocate(&self.file, flags, at as u64, len as u64).unwrap();
                let end = (at + len).min(self.bytes.len());
                if at < end {
                    self.bytes[at..end].fill(0);
                }
            }
            10 => self.through_a_mapping(len),
            _ => self.file.sync_data().unwrap(),
        }
    }

    fn grow(&mut self, len: usize) {
        if self.bytes.len() < len {
            self.bytes.resize(len, 0);
        }
    }

    fn check_range(&self, at: usize, len: usize) {
        let mut back = vec![0; len];
        let mut filled = 0;
        loop {
            match self.file.read_at(&mut back[filled..], (at + filled) as u64).unwrap() {
                0 => break,
                count => filled += count,
            }
        }
        let wanted = &self.bytes[at.min(self.bytes.len())..(at + len).min(self.bytes.len())];
        assert_same(&back[..filled], wanted, at);
    }

    fn through_a_mapping(&mut self, len: usize) {
        let all = self.bytes.len();
        if all == 0 {
            return;
        }
        let mapping = Mapping::of(&self.file, all).unwrap();
        let at = self.rng.random_range(0..all);
        let len = len.min(all - at);
        assert_same(&mapping.read(at, len), &self.bytes[at..at + len], at);
        let data = noise(len, self.rng.random());
        mapping.write(at, &data);
        mapping.sync();
        self.bytes[at..at + len].copy_from_slice(&data);
    }
}

fn assert_same(found: &[u8], wanted: &[u8], at: usize) {
    assert_eq!(found.len(), wanted.len(), "length of what is at {at}");
    if let Some(offset) = found.iter().zip(wanted).position(|(a, b)| a != b) {
        panic!("byte {} is {} and should be {}", at + offset, found[offset], wanted[offset]);
    }
}

#[test]
fn random_writes_cuts_holes_and_mappings_match_a_model() {
    let seed = seed("steps");
    let rounds = if extended() { 20_000 } else { 1_500 };
    let kept = RefCell::new(Vec::new());
    across_a_remount(
        |root| {
            let file = read_write(&root.join("file"));
            let mut model = Model { rng: SmallRng::seed_from_u64(seed), file, bytes: Vec::new() };
            (0..rounds).for_each(|_| model.step());
            kept.replace(model.bytes);
        },
        |root| assert_same(&fs::read(root.join("file")).unwrap(), &kept.borrow(), 0),
    );
}
