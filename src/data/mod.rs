//! File contents: dirty blocks, segment packing, upload, block reads, read-ahead.

mod error;
pub mod extent;
pub mod reader;
pub mod segment;

pub use error::DataError;
