//! A Unix socket on a running mount: status, flush, unmount.
//!
//! Every mount leaves a small file in a directory of its user's that says where its socket is (`registry`). Requests
//! and replies are lines of JSON (`protocol`); only the mount's owner and root are answered (`server`).

mod client;
mod error;
mod live;
mod lookup;
mod meant;
mod path_text;
mod process;
mod protocol;
mod registry;
mod server;

pub use client::Client;
pub use error::ControlError;
pub use live::Live;
pub use lookup::{find, look, mounts};
pub use protocol::{Failure, FailureKind, Progress, Request, Step};
pub use registry::{MountEntry, Registry};
pub use server::{Server, Subject, limits_status};

/// For the fuzz targets: reads a line of an answer.
#[cfg(any(fuzzing, debug_assertions))]
#[doc(hidden)]
pub fn fuzz_reply(line: &[u8]) {
    if let Ok(reply) = serde_json::from_slice::<protocol::Reply>(line) {
        assert!(serde_json::to_vec(&reply).is_ok());
    }
}
