//! Which files are copied and which are written to at present.
//!
//! A copy may read its source and write its target in two steps. What it has copied can be told only if nobody writes
//! to the source meanwhile.

use std::cell::RefCell;
use std::collections::{BTreeMap, BTreeSet};
use std::rc::Rc;

#[derive(Default)]
struct Files {
    copied: BTreeSet<u64>,
    written: BTreeMap<u64, u32>,
}

/// The files of one mount that somebody is at.
#[derive(Clone, Default)]
pub struct Busy(Rc<RefCell<Files>>);

/// Somebody writes to a file, for as long as this lives.
pub struct Writing(Busy, u64);

/// Somebody copies from a file, for as long as this lives.
pub struct Copying(Busy, u64);

impl Busy {
    /// `None` while it is copied from.
    pub fn write(&self, ino: u64) -> Option<Writing> {
        let mut files = self.0.borrow_mut();
        if files.copied.contains(&ino) {
            return None;
        }
        *files.written.entry(ino).or_default() += 1;
        Some(Writing(self.clone(), ino))
    }

    /// `None` while somebody writes to it or copies from it.
    pub fn copy(&self, ino: u64) -> Option<Copying> {
        let mut files = self.0.borrow_mut();
        if files.written.contains_key(&ino) || !files.copied.insert(ino) {
            return None;
        }
        Some(Copying(self.clone(), ino))
    }
}

impl Drop for Writing {
    fn drop(&mut self) {
        let mut files = self.0.0.borrow_mut();
        if let Some(count) = files.written.get_mut(&self.1) {
            *count -= 1;
            if *count == 0 {
                files.written.remove(&self.1);
            }
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        self.0.0.borrow_mut().copied.remove(&self.1);
    }
}
