//! Suites that nobody here wrote, run against real mounts: pjdfstest, fsx, fio, dbench, stress-ng.

// Helpers outside `#[test]` functions fail a test by panicking too.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../tests/support/mod.rs"]
mod support;

#[path = "suites/load.rs"]
mod load;

#[path = "suites/fsx.rs"]
mod fsx;

#[path = "suites/pjdfstest.rs"]
mod pjdfstest;
