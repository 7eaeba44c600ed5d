//! No salt and no key comes twice, though a process is forked or killed in the middle of writing.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use std::collections::HashSet;
use std::io::{Read, Write};

use coffer::base::{Entropy, VolumeId};
use coffer::crypto::{Epoch, Key, KeyRing, ObjectKind};

/// A generator that repeats itself, as one does whose state was copied.
struct Stuck;

impl Entropy for Stuck {
    fn fill(&self, bytes: &mut [u8]) {
        bytes.fill(0x11);
    }
}

const SALTS: usize = 2000;

fn salts(ring: &KeyRing) -> Vec<u8> {
    (0..SALTS).flat_map(|_| ring.new_object(ObjectKind::Segment, b"name", &Stuck).0.salt).collect()
}

/// The randomness repeats, the name is the same, and everything that the process has drawn before is shared.
#[test]
fn b7_parent_and_child_of_a_fork_never_make_the_same_salt() {
    let ring = KeyRing::new(VolumeId([1; 16]), Epoch::FIRST, &Key::from_bytes([2; 32]));
    salts(&ring);
    let (mut read, mut write) = std::io::pipe().unwrap();
    // SAFETY: the child makes salts, writes to a pipe and ends by _exit; no other thread of this process is at work.
    #[allow(unsafe_code)]
    let child = unsafe { libc::fork() };
    if child == 0 {
        let done = write.write_all(&salts(&ring)).is_ok();
        // SAFETY: ends the process.
        #[allow(unsafe_code)]
        unsafe {
            libc::_exit(i32::from(!done))
        };
    }
    drop(write);
    let mut all = salts(&ring);
    let mut of_child = Vec::new();
    read.read_to_end(&mut of_child).unwrap();
    assert_eq!(of_child.len(), SALTS * 24, "the child has not made its salts");
    all.extend(of_child);
    let different: HashSet<&[u8]> = all.chunks(24).collect();
    assert_eq!(different.len(), 2 * SALTS);
}
