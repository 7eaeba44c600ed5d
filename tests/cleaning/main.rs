//! Cleaning: what it gives back, what it costs, and that nobody sees it, whatever happens meanwhile.

#![allow(
    missing_docs,
    unreachable_pub,
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing
)]

mod accidents;
mod amounts;
mod budget;
mod history;
mod shared;
mod store;
mod unseen;
mod waiting;
mod world;
