//! The tree as records: their keys and encoding, the overlay of what is not committed, the engine
//! that stores them, the chain of commits.

pub mod chain;
mod codec;
pub mod engine;
mod error;
mod key;
pub mod links;
pub mod lost_logs;
mod opened;
mod overlay;
mod record;
mod whole;

pub use codec::{decode, encode};
pub use error::MetaError;
pub use key::Key;
pub use opened::Opened;
pub use overlay::{Load, Overlay};
pub use record::{
    Acceptance, Body, Commit, DeviceRun, Entry, Garbage, History, Holder, Inode, Leftover, Machine, Page,
    Record, Segment, Superblock, Xattr,
};
