//! The tree as records: the open transaction group, the engine that stores it, commits.

pub mod engine;
