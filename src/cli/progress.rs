//! Shows how far a long command is: a live line on a terminal, nothing elsewhere.

use std::io::IsTerminal;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};

use super::units::{show_count, show_duration, show_size};

/// Counts files and bytes and keeps the live line true.
#[derive(Debug)]
pub struct Progress {
    bar: ProgressBar,
    files: AtomicU64,
    bytes: AtomicU64,
    started: Instant,
}

impl Progress {
    /// Starts a line on standard error, if that is a terminal.
    #[must_use]
    pub fn start() -> Self {
        let bar = spinner();
        Self { bar, files: AtomicU64::new(0), bytes: AtomicU64::new(0), started: Instant::now() }
    }

    /// Counts bytes that are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.bytes.fetch_add(bytes, Ordering::Relaxed);
        self.show();
    }

    /// Counts one file that is done.
    pub fn add_file(&self) {
        self.files.fetch_add(1, Ordering::Relaxed);
        self.show();
    }

    /// Prints a line to standard error above the live one.
    pub fn say(&self, line: &str) {
        self.bar.suspend(|| eprintln!("{line}"));
    }

    /// What was done so far, in one phrase: `12 files, 3.4 MiB in 0.8 s`.
    #[must_use]
    pub fn summary(&self) -> String {
        let files = self.files.load(Ordering::Relaxed);
        let bytes = self.bytes.load(Ordering::Relaxed);
        let took = self.started.elapsed();
        format!("{}, {} in {}", show_count(files, "file", "files"), show_size(bytes), show_duration(took))
    }

    /// Removes the live line.
    pub fn finish(&self) {
        self.bar.finish_and_clear();
    }

    fn show(&self) {
        if self.bar.is_hidden() {
            return;
        }
        let bytes = self.bytes.load(Ordering::Relaxed);
        let secs = self.started.elapsed().as_secs_f64().max(0.001);
        let rate = show_size((bytes as f64 / secs) as u64);
        let files = show_count(self.files.load(Ordering::Relaxed), "file", "files");
        self.bar.set_message(format!("{files}, {}, {rate}/s", show_size(bytes)));
    }
}

/// A live line on standard error with a message to be set; hidden where there is no terminal.
#[must_use]
pub fn spinner() -> ProgressBar {
    if !std::io::stderr().is_terminal() {
        return ProgressBar::hidden();
    }
    let bar = ProgressBar::new_spinner();
    bar.set_draw_target(ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(Duration::from_millis(120));
    bar
}
