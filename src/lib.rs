//! Coffer: an untrusted bucket, mounted as a private POSIX drive.
//!
//! The rooms and the direction of their dependencies are told in `docs/ARCHITECTURE.md`; the bytes
//! they leave in the bucket in `docs/FORMAT.md`.

// The macros panic where nobody reads any more what is printed. (`cli/stderr.rs`)
#![deny(clippy::print_stdout, clippy::print_stderr)]

pub mod base;
pub mod cache;
pub mod cli;
pub mod control;
pub mod crypto;
pub mod data;
pub mod fuse;
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub mod fuzzing;
pub mod keys;
pub mod maint;
pub mod meta;
pub mod store;
pub mod vault;
pub mod vfs;
pub mod volume;
pub mod web;
