//! A limit that depends on the time of day.

use serde::{Deserialize, Serialize};

/// Minutes of a day.
const DAY: u16 = 24 * 60;

/// How many bytes a second may go, by the local time of day.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Timetable {
    /// As the user has written it.
    pub text: String,
    /// Times of their own; of those that overlap the first counts.
    pub spans: Vec<Span>,
    /// Bytes a second at all other times; none for no limit.
    pub otherwise: Option<u64>,
}

/// A time of day and its limit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Span {
    /// Its first minute, counted from midnight.
    pub from: u16,
    /// The minute after its last; not after `from` if it goes past midnight.
    pub to: u16,
    /// Bytes a second; none for no limit.
    pub rate: Option<u64>,
}

impl Timetable {
    /// Least limit: below it, single requests would take longer than reads are waited for.
    pub const RATE_MIN: u64 = 64 * 1024;

    /// Whether it never limits anything.
    #[must_use]
    pub fn is_off(&self) -> bool {
        self.otherwise.is_none() && self.spans.iter().all(|span| span.rate.is_none())
    }

    /// Bytes a second at `minute` of the day.
    #[must_use]
    pub fn rate_at(&self, minute: u16) -> Option<u64> {
        let rate = match self.spans.iter().find(|span| span.holds(minute)) {
            Some(span) => span.rate,
            None => self.otherwise,
        };
        rate.map(|rate| rate.max(Self::RATE_MIN))
    }
}

impl Span {
    fn holds(&self, minute: u16) -> bool {
        let minute = minute % DAY;
        match self.from < self.to {
            true => (self.from..self.to).contains(&minute),
            false => minute >= self.from || minute < self.to,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_time_that_fits_counts_and_nights_go_past_midnight() {
        let span = |from, to, rate| Span { from, to, rate };
        let table = Timetable {
            text: String::new(),
            spans: vec![
                span(8 * 60, 18 * 60, Some(1 << 20)),
                span(22 * 60, 6 * 60, None),
                span(0, 10 * 60, Some(2 << 20)),
            ],
            otherwise: Some(3 << 20),
        };
        for (hour, rate) in [
            (8, Some(1 << 20)),
            (17, Some(1 << 20)),
            (18, Some(3 << 20)),
            (22, None),
            (0, None),
            (5, None),
            (6, Some(2 << 20)),
            (7, Some(2 << 20)),
        ] {
            assert_eq!(table.rate_at(hour * 60), rate, "{hour}:00");
        }
        assert!(!table.is_off() && Timetable::default().is_off());
        let tiny = Timetable { otherwise: Some(1), ..Timetable::default() };
        assert_eq!(tiny.rate_at(0), Some(Timetable::RATE_MIN));
    }
}
