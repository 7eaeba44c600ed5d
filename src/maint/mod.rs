//! Check and repair: works on a volume's records and objects without a mount.
//!
//! A check streams over the ordered records and keeps one small entry for each inode and each segment;
//! what it finds are [`Finding`]s. (`docs/OPERATING.md`, "Checking and repairing")

mod blocks;
mod check;
mod contents;
mod error;
mod finding;
mod history;
mod nodes;
mod objects;
mod overlap;
mod paths;
mod read;
mod rows;
mod segments;
mod tree;
mod words;

pub use check::{CheckOptions, Report, Step, Totals, Watch, check};
pub use error::MaintError;
pub use finding::{Finding, LostBecause, Problem, Severity, Subject};
pub use words::kind_word;
