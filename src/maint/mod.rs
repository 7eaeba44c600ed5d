//! Check and repair: works on a volume's records and objects without a mount.
//!
//! A check streams over the ordered records and keeps one small entry for each inode and each segment;
//! what it finds are [`Finding`]s. (`docs/OPERATING.md`, "Checking and repairing")

mod blocks;
mod check;
mod contents;
mod desk;
mod error;
mod finding;
mod history;
mod lost_found;
mod mend_history;
mod mend_inode;
mod mend_pages;
mod mend_segments;
mod mender;
mod nodes;
mod objects;
mod overlap;
mod paths;
mod read;
mod repair;
mod rows;
mod salvage;
mod segments;
mod tree;
mod words;

pub use check::{CheckOptions, Part, Report, Step, Totals, Watch, check};
pub use error::MaintError;
pub use finding::{Finding, LostBecause, Problem, Severity, Subject};
pub use mender::Deed;
pub use repair::{Outcome, Plan, RepairOptions, plan, repair};
pub use words::kind_word;
