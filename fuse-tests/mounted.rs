//! Real mounts of the real program, used by the kernel and by other people's programs.

// Helpers outside `#[test]` functions fail a test by panicking too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/mod.rs"]
mod support;

mod access;
mod attributes;
mod bad_input;
mod cleaning;
mod containers;
mod contents;
mod credentials;
mod directories;
mod durability;
mod figures;
mod gc_kills;
mod given;
mod harness;
mod installed;
mod kept;
mod key_kills;
mod kills;
mod limits;
mod logs;
mod mapping;
mod memory;
mod model;
mod moved;
mod names;
mod namespaces;
mod outage;
mod outage_limit;
mod place;
mod programs;
mod progress;
mod recipes;
mod recover;
mod remount;
mod restic;
mod rotation;
mod rsync;
mod secrecy;
mod secrets;
mod server_kills;
mod settled;
mod sleep;
mod status;
mod sudo;
mod supervised;
mod trust;
mod writer_kills;
mod writers;
