//! The volume in the hands of a store that does whatever it likes: a read gives the last committed bytes or an error.
//!
//! Every operator is applied to every object of a small volume that has something of every kind, each on a copy.
//! The copy is read by a machine that knows the newest commit, and by one that has never seen the volume. Which
//! attacks these are is told in `docs/THREATS.md`.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod claims;
mod collision;
mod each_object;
mod histories;
mod observer;
mod places;
mod rotation;
mod rotation_crash;
mod rotation_life;
mod store;
mod uniform;
mod world;
mod writer;
