//! What happened, in order, as one number: two runs of a seed must agree in it.
//!
//! Compared are the simulated time of every request and answer, its process, kind, name, length and success, and
//! every operation of every actor with its outcome. Not compared are the bytes of objects: the salt of each is
//! drawn from the operating system as well, on purpose, so that no two are ever sealed alike.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::Arc;

use coffer::base::Clock;
use parking_lot::Mutex;

use crate::clock::SimClock;

/// What becomes of the events themselves.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Log {
    Forget,
    Keep,
    Print,
}

pub struct Trace {
    hasher: Mutex<DefaultHasher>,
    clock: Arc<SimClock>,
    log: Log,
    pub kept: Mutex<Vec<String>>,
}

impl Trace {
    pub fn new(clock: Arc<SimClock>, log: Log) -> Self {
        Self { hasher: Mutex::default(), clock, log, kept: Mutex::default() }
    }

    pub fn event(&self, parts: &[&[u8]]) {
        let now = self.clock.elapsed().as_nanos();
        let mut hasher = self.hasher.lock();
        now.hash(&mut *hasher);
        parts.hash(&mut *hasher);
        if self.log == Log::Forget {
            return;
        }
        let words: Vec<_> = parts.iter().map(|part| part.escape_ascii().to_string()).collect();
        let line = format!("{:.6} {}", now as f64 / 1e9, words.join(" "));
        match self.log {
            Log::Print => println!("{line}"),
            _ => self.kept.lock().push(line),
        }
    }

    pub fn hash(&self) -> u64 {
        self.hasher.lock().finish()
    }
}
