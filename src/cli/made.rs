//! How far a piece of work is: what is done, how fast, how long the rest takes. In words and as JSON.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::units::{show_count, show_duration, show_number, show_size};

/// Rates are taken over the last looks within this time.
const WINDOW: Duration = Duration::from_secs(15);
/// Looks that are remembered.
const LOOKS_MAX: usize = 128;
/// Characters of a bar.
const BAR_WIDTH: usize = 20;

/// How far it is.
#[derive(Debug)]
pub struct Made {
    what: String,
    begun: Instant,
    /// What is being done at present; empty if there is only one thing.
    pub step: String,
    /// What is being looked at; empty if that is not told.
    pub part: &'static str,
    /// Files done.
    pub files: u64,
    /// Bytes done.
    pub bytes: u64,
    /// Bytes to be done in all, if that is known.
    pub total: Option<u64>,
    /// Records looked at.
    pub records: u64,
    /// Records to be looked at, if that is known; the work is measured by them where no bytes are to be done.
    records_total: Option<u64>,
    /// How often all was looked at from the beginning.
    looks_begun: u32,
    looks: VecDeque<(Instant, u64, u64)>,
}

impl Made {
    /// Work that begins.
    #[must_use]
    pub fn begun(what: String, now: Instant) -> Self {
        Self {
            what,
            begun: now,
            step: String::new(),
            part: "",
            files: 0,
            bytes: 0,
            total: None,
            records: 0,
            records_total: None,
            looks_begun: 0,
            looks: VecDeque::from([(now, 0, 0)]),
        }
    }

    /// Records are looked at from the beginning, perhaps not for the first time.
    pub fn begin(&mut self, records: u64, bytes: u64, now: Instant) {
        self.looks_begun += 1;
        if self.looks_begun > 1 {
            self.step = format!("look {}", self.looks_begun);
        }
        (self.records, self.bytes) = (0, 0);
        self.records_total = Some(records).filter(|records| *records > 0);
        self.total = Some(bytes).filter(|bytes| *bytes > 0);
        self.looks = VecDeque::from([(now, 0, 0)]);
    }

    /// So many bytes are left. More may have come meanwhile; what was done stays done.
    pub fn set_left(&mut self, left: u64) {
        let total = self.total.unwrap_or(0).max(left);
        self.bytes = self.bytes.max(total - left);
        self.total = Some(self.bytes + left);
    }

    /// Remembers how far it is, for the rate.
    pub fn look(&mut self, now: Instant) {
        self.looks.push_back((now, self.bytes, self.records));
        let is_old = |at: &Instant| now.saturating_duration_since(*at) > WINDOW;
        while self.looks.len() > LOOKS_MAX || self.looks.get(1).is_some_and(|(at, ..)| is_old(at)) {
            self.looks.pop_front();
        }
    }

    /// Bytes a second of late; none before there is anything to tell.
    fn rate(&self, now: Instant) -> Option<u64> {
        let (at, before, _) = self.looks.front()?;
        a_second(self.bytes.saturating_sub(*before), now.saturating_duration_since(*at))
    }

    /// Records a second of late.
    fn record_rate(&self, now: Instant) -> Option<u64> {
        let (at, _, before) = self.looks.front()?;
        a_second(self.records.saturating_sub(*before), now.saturating_duration_since(*at))
    }

    fn left(&self, now: Instant) -> Option<Duration> {
        let (done, total) = self.measure()?;
        let rate = if self.total.is_some() { self.rate(now) } else { self.record_rate(now) };
        let rate = rate.filter(|rate| *rate > 0)?;
        Some(Duration::from_secs_f64(total.saturating_sub(done) as f64 / rate as f64))
    }

    /// Of how many bytes: those that were foretold, or are done by now.
    fn total_bytes(&self) -> Option<u64> {
        self.total.map(|total| total.max(self.bytes))
    }

    /// Of how many records, likewise.
    fn total_records(&self) -> Option<u64> {
        self.records_total.map(|total| total.max(self.records))
    }

    /// How much is done of how much, in whatever the work is measured by.
    fn measure(&self) -> Option<(u64, u64)> {
        let bytes = self.total_bytes().map(|total| (self.bytes, total));
        bytes.or_else(|| self.total_records().map(|total| (self.records, total)))
    }

    /// How much of it is done, in hundredths. All is only done when it has ended, so that there are never more than 99.
    fn percent(&self) -> Option<u64> {
        let (done, total) = self.measure().filter(|(_, total)| *total > 0)?;
        Some(((u128::from(done) * 100 / u128::from(total)) as u64).min(99))
    }

    /// One line for a terminal: `export: [=====     ] 25 %, 12 files, 1.0 GiB of 4.0 GiB, 30 MiB/s, about 1 min 42 s left`.
    #[must_use]
    pub fn bar_line(&self, now: Instant) -> String {
        let drawn = self.percent().map_or(String::new(), |percent| format!("{} {percent} %, ", bar(percent)));
        format!("{}: {drawn}{}", self.what, self.details(now))
    }

    /// The same without a bar, for logs.
    #[must_use]
    pub fn line(&self, now: Instant) -> String {
        let share = self.percent().map_or(String::new(), |percent| format!("{percent} %, "));
        format!("{}: {share}{}", self.what, self.details(now))
    }

    /// How it has ended: `check: [==========] 100 %, 12,345 records in 0.8 s`.
    #[must_use]
    pub fn last_line(&self, now: Instant) -> String {
        let mut parts = vec![format!("{} 100 %", bar(100))];
        if !self.step.is_empty() {
            parts.push(self.step.clone());
        }
        if self.files > 0 {
            parts.push(show_count(self.files, "file", "files"));
        }
        if self.records > 0 {
            parts.push(show_count(self.records, "record", "records"));
        }
        if self.bytes > 0 {
            parts.push(show_size(self.bytes));
        }
        let took = show_duration(now.saturating_duration_since(self.begun));
        format!("{}: {} in {took}", self.what, parts.join(", "))
    }

    fn details(&self, now: Instant) -> String {
        let mut parts = Vec::new();
        if !self.step.is_empty() {
            parts.push(self.step.clone());
        }
        if !self.part.is_empty() {
            parts.push(self.part.to_owned());
        }
        if self.files > 0 {
            parts.push(show_count(self.files, "file", "files"));
        }
        match self.total_records() {
            Some(total) => parts.push(format!(
                "{} of about {}",
                show_number(self.records),
                show_count(total, "record", "records")
            )),
            None if self.records > 0 => parts.push(show_count(self.records, "record", "records")),
            None => {}
        }
        match self.total_bytes().filter(|total| *total > 0) {
            Some(total) => parts.push(format!("{} of {}", show_size(self.bytes), show_size(total))),
            None if self.bytes > 0 => parts.push(show_size(self.bytes)),
            None => {}
        }
        parts.extend(self.rate(now).map(|rate| format!("{}/s", show_size(rate))));
        if self.total.is_none() {
            parts.extend(
                self.record_rate(now).map(|rate| format!("{}/s", show_count(rate, "record", "records"))),
            );
        }
        match self.left(now) {
            Some(left) => parts.push(format!("about {} left", show_duration(left))),
            None => parts.push(format!("for {}", show_duration(now.saturating_duration_since(self.begun)))),
        }
        parts.join(", ")
    }

    /// The same for programs. (`docs/OPERATING.md`, "Long work")
    #[must_use]
    pub fn object(&self, now: Instant, is_done: bool) -> Value {
        json!({
            "what": self.what,
            "step": self.step,
            "part": self.part,
            "files": self.files,
            "bytes": self.bytes,
            "total_bytes": self.total_bytes(),
            "records": self.records,
            "total_records": self.total_records(),
            "rate": self.rate(now),
            "record_rate": self.record_rate(now),
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

/// A bar that is full to so many hundredths.
fn bar(percent: u64) -> String {
    let full = (percent.min(100) as usize * BAR_WIDTH) / 100;
    format!("[{}{}]", "=".repeat(full), " ".repeat(BAR_WIDTH - full))
}

/// So many in this time, as a number a second; none before there is anything to tell.
fn a_second(count: u64, time: Duration) -> Option<u64> {
    let secs = time.as_secs_f64();
    (secs >= 0.1 && count > 0).then(|| (count as f64 / secs) as u64)
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
        let details = "2 files, 10.0 MiB of 40.0 MiB, 1.0 MiB/s, about 30 s left";
        let now = begun + SECOND * 10;
        assert_eq!(made.bar_line(now), format!("export: [=====               ] 25 %, {details}"));
        assert_eq!(made.line(now), format!("export: 25 %, {details}"), "a log has no bars");
        assert_eq!(made.summary(begun + SECOND * 10), "2 files, 10.0 MiB in 10 s");
        let object = made.object(begun + SECOND * 10, true);
        assert_eq!((&object["rate"], &object["time_left"]), (&json!(1 << 20), &json!(30.0)));
        assert_eq!((&object["total_bytes"], &object["is_done"]), (&json!(40 << 20), &json!(true)));
    }

    #[test]
    fn a_check_is_measured_by_bytes_if_it_opens_any_and_by_records_else() {
        let begun = Instant::now();
        let mut made = Made::begun("check".into(), begun);
        made.begin(40_000, 0, begun);
        (made.records, made.part) = (10_000, "names");
        let want = "check: [=====               ] 25 %, names, 10,000 of about 40,000 records, 1,000 records/s, about 30 s left";
        assert_eq!(made.bar_line(begun + SECOND * 10), want);
        let object = made.object(begun + SECOND * 10, false);
        assert_eq!((&object["records"], &object["total_records"]), (&json!(10_000), &json!(40_000)));
        assert_eq!((&object["record_rate"], &object["time_left"]), (&json!(1_000), &json!(30.0)));
        // A second look begins at nothing.
        made.begin(40_000, 100 << 20, begun + SECOND * 20);
        (made.records, made.bytes) = (40_000, 50 << 20);
        let want = "check: [==========          ] 50 %, look 2, names, 40,000 of about 40,000 records, 50.0 MiB of 100 MiB, 5.0 MiB/s, \
                    about 10 s left";
        assert_eq!(made.bar_line(begun + SECOND * 30), want);
    }

    #[test]
    fn all_is_done_at_the_end_and_not_before() {
        let begun = Instant::now();
        let mut made = Made::begun("check".into(), begun);
        made.begin(7, 0, begun);
        // There were more than the volume tells.
        (made.records, made.part) = (9, "segments");
        let want = "check: [=================== ] 99 %, segments, 9 of about 9 records, 9 records/s, about 0.0 s left";
        assert_eq!(made.bar_line(begun + SECOND), want);
        let want = "check: [====================] 100 %, 9 records in 2.0 s";
        assert_eq!(made.last_line(begun + SECOND * 2), want);
        // So is what nobody could foretell.
        let want = "gc: [====================] 100 % in 2.0 s";
        assert_eq!(Made::begun("gc".into(), begun).last_line(begun + SECOND * 2), want);
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
    #[test]
    fn what_comes_to_more_than_was_foretold_is_never_more_than_all() {
        let begun = Instant::now();
        let mut made = Made::begun("gc".into(), begun);
        made.begin(100, 40 << 20, begun);
        (made.bytes, made.records) = (41 << 20, 101);
        let line = made.line(begun + SECOND);
        assert!(line.starts_with("gc: 99 %, 101 of about 101 records, 41.0 MiB of 41.0 MiB, "), "{line}");
        let object = made.object(begun + SECOND, false);
        assert_eq!((&object["total_bytes"], &object["total_records"]), (&json!(41 << 20), &json!(101)));
    }
}
