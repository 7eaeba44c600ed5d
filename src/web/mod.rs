//! Shows a running mount's figures over HTTP: for Prometheus, for programs, and as a page for people.
//!
//! Whoever can reach the port sees figures and no names of files. It answers on loopback addresses unless told otherwise
//! (`place`), to requests that were meant for it (`guard`), in bounded time and memory (`server`).

mod exposition;
mod guard;
mod metrics;
mod place;
mod server;

pub use exposition::{Exposition, Kind};
pub use metrics::{Sample, metrics};
pub use place::{Place, PlaceError};
pub use server::{Door, Server, Source};
