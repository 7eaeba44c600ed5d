//! What Coffer asks of a bucket, asked of every kind of store through the code by which Coffer asks.
//!
//! One suite (`conformance`), and a test for each store. What a store lacks is a test of its own, with its reason.

// Helpers outside `#[test]` functions fail a test by panicking too.
#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/mod.rs"]
mod support;

mod aws;
mod azure_and_google;
mod backends;
mod conformance;
mod keys;
mod pages;
mod races;
mod redirects;
mod requests;
mod told;
mod user;
