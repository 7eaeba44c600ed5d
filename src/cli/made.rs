//! How far a piece of work is: what is done, how fast, how long the rest takes. In words and as JSON.

use std::collections::VecDeque;
use std::fmt::Write as _;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::units::{show_count, show_duration, show_size};

/// Rates are taken over the last looks within this time.
const WINDOW: Duration = Duration::from_secs(15);
/// Looks that are remembered.
const LOOKS_MAX: usize = 128;
/// Characters of a bar.
const BAR_WIDTH: u64 = 20;

/// How far it is.
#[derive(Debug)]
pub struct Made {
    what: String,
    begun: Instant,
    /// What is being done at present; empty if there is only one thing.
    pub step: String,
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes to be done in all, if that is known.
    pub total: Option<u64>,
    looks: VecDeque<(Instant, u64)>,
}

impl Made {
    /// Work that begins.
    #[must_use]
    pub fn begun(what: String, now: Instant) -> Self {
        let looks = VecDeque::from([(now, 0)]);
        Self { what, begun: now, step: String::new(), files: 0, bytes: 0, total: None, looks }
    }

    /// So many bytes are left. More may have come meanwhile; what was done stays done.
    pub fn set_left(&mut self, left: u64) {
        let total = self.total.unwrap_or(0).max(left);
        self.bytes = self.bytes.max(total - left);
        self.total = Some(self.bytes + left);
    }

    /// Remembers how far it is, for the rate.
    pub fn look(&mut self, now: Instant) {
        self.looks.push_back((now, self.bytes));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > WINDOW;
        while self.looks.len() > LOOKS_MAX || self.looks.get(1).is_some_and(|(at, _)| is_old(at)) {
            self.looks.pop_front();
        }
    }

    /// Bytes a second of late; none before there is anything to tell.
    fn rate(&self, now: Instant) -> Option<u64> {
        let (at, before) = self.looks.front()?;
        let secs = now.saturating_duration_since(*at).as_secs_f64();
        let bytes = self.bytes.saturating_sub(*before);
        (secs >= 0.1 && bytes > 0).then(|| (bytes as f64 / secs) as u64)
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let left = self.total?.saturating_sub(self.bytes);
        let rate = self.rate(now).filter(|rate| *rate > 0)?;
        Some(Duration::from_secs_f64(left as f64 / rate as f64))
    }

    /// One line: `export: [=====>    ] 12 files, 1.0 GiB of 4.0 GiB, 30 MiB/s, about 1 min 42 s left`.
    #[must_use]
    pub fn line(&self, now: Instant) -> String {
        let mut text = format!("{}: ", self.what);
        if let Some(total) = self.total.filter(|total| *total > 0) {
            let full = self.bytes.min(total) * BAR_WIDTH / total;
            let (full, rest) = (full as usize, (BAR_WIDTH - full) as usize);
            let _ = write!(text, "[{}{}] ", "=".repeat(full), " ".repeat(rest));
        }
        let mut parts = Vec::new();
        if !self.step.is_empty() {
            parts.push(self.step.clone());
        }
        if self.files > 0 {
            parts.push(show_count(self.files, "file", "files"));
        }
        match self.total.filter(|total| *total > 0) {
            Some(total) => parts.push(format!("{} of {}", show_size(self.bytes), show_size(total))),
            None if self.bytes > 0 => parts.push(show_size(self.bytes)),
            None => {}
        }
        parts.extend(self.rate(now).map(|rate| format!("{}/s", show_size(rate))));
        match self.left(now) {
            Some(left) => parts.push(format!("about {} left", show_duration(left))),
            None => parts.push(format!("for {}", show_duration(now.saturating_duration_since(self.begun)))),
        }
        text + &parts.join(", ")
    }

    /// The same for programs. (`docs/OPERATING.md`, "Long work")
    #[must_use]
    pub fn object(&self, now: Instant, is_done: bool) -> Value {
        json!({
            "what": self.what,
            "step": self.step,
            "files": self.files,
            "bytes": self.bytes,
            "total_bytes": self.total,
            "rate": self.rate(now),
            "time_left": self.left(now).map(|left| left.as_secs_f64()),
            "elapsed": now.saturating_duration_since(self.begun).as_secs_f64(),
            "is_done": is_done,
        })
    }

    /// What was done, in one phrase: `12 files, 3.4 MiB in 0.8 s`.
    #[must_use]
    pub fn summary(&self, now: Instant) -> String {
        let took = show_duration(now.saturating_duration_since(self.begun));
        format!("{}, {} in {took}", show_count(self.files, "file", "files"), show_size(self.bytes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    #[test]
    fn a_line_tells_what_is_done_how_fast_and_for_how_long_yet() {
        let begun = Instant::now();
        let mut made = Made::begun("export".into(), begun);
        assert_eq!(made.line(begun + SECOND), "export: for 1.0 s");
        made.total = Some(40 << 20);
        made.bytes = 10 << 20;
        made.files = 2;
        let want = "export: [=====               ] 2 files, 10.0 MiB of 40.0 MiB, 1.0 MiB/s, about 30 s left";
        assert_eq!(made.line(begun + SECOND * 10), want);
        assert_eq!(made.summary(begun + SECOND * 10), "2 files, 10.0 MiB in 10 s");
        let object = made.object(begun + SECOND * 10, true);
        assert_eq!((&object["rate"], &object["time_left"]), (&json!(1 << 20), &json!(30.0)));
        assert_eq!((&object["total_bytes"], &object["is_done"]), (&json!(40 << 20), &json!(true)));
    }

    #[test]
    fn a_rate_is_that_of_late() {
        let begun = Instant::now();
        let mut made = Made::begun("sync".into(), begun);
        for second in 1..=100 {
            made.bytes += if second <= 50 { 1_000_000 } else { 1_000 };
            made.look(begun + SECOND * second);
        }
        assert_eq!(made.rate(begun + SECOND * 100), Some(1_000));
        assert!(made.looks.len() <= LOOKS_MAX);
        assert_eq!(made.rate(begun + SECOND * 200), Some(137), "it falls while nothing goes");
    }

    #[test]
    fn what_is_left_may_grow_and_what_is_done_stays_done() {
        let mut made = Made::begun("sync".into(), Instant::now());
        for (left, bytes, total) in [(100, 0, 100), (40, 60, 100), (90, 60, 150), (0, 150, 150)] {
            made.set_left(left);
            assert_eq!((made.bytes, made.total), (bytes, Some(total)), "{left} left");
        }
    }
}
