//! Writes to standard error. Nobody need be there to read it: a process that holds what is not saved must outlive that.

use std::fmt::Display;
use std::io::Write;

/// Writes `text` and the end of its line.
pub fn line(text: impl Display) {
    write(&format!("{text}\n"));
}

/// Writes `text`, whose lines end themselves.
pub fn text(text: impl Display) {
    write(&text.to_string());
}

fn write(text: &str) {
    let _ = std::io::stderr().write_all(text.as_bytes());
}
