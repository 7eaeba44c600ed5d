//! The `coffer` command as a user meets it: what it prints, what it asks for, how it exits. Nothing is mounted here.
#![allow(clippy::unwrap_used, clippy::indexing_slicing)] // a test that meets the unexpected is to fail there

mod beside;
mod cleaning;
mod config;
mod copied;
mod copies;
mod exhaustion;
mod help;
mod import;
mod keys;
mod maintenance;
mod progress;
mod refusals;
mod rotation;
mod snapshot;
mod stopping;
mod store;
mod support;
mod swapped;
mod terminal;
mod trust;
