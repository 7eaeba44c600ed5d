//! Sizes, durations and times of day as people write and read them.

use std::time::Duration;

use chrono::{DateTime, Local, Utc};

use crate::base::Time;
use crate::store::{Span, Timetable};

/// Least interval of what goes on without end, and least time to wait for an answer.
const INTERVAL_MIN: Duration = Duration::from_secs(1);
/// Longest timetable.
const TIMETABLE_BYTES_MAX: usize = 500;

const UNITS: [(&str, u32); 4] = [("k", 10), ("m", 20), ("g", 30), ("t", 40)];

/// Reads `4096`, `64M`, `64MiB` or `1.5G` as bytes. Units are powers of 1024, in either case.
///
/// # Errors
/// Says how a size is written.
pub fn parse_size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is not a size; write it like 512K, 64M or 2G");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| c.is_ascii_alphabetic()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let unit = unit.strip_suffix("ib").or_else(|| unit.strip_suffix('b')).unwrap_or(unit);
    let shift = match unit {
        "" => 0,
        _ => UNITS.iter().find(|(name, _)| *name == unit).map(|(_, shift)| *shift).ok_or_else(wrong)?,
    };
    let number = number.trim();
    if let Ok(whole) = number.parse::<u64>() {
        return whole.checked_mul(1 << shift).ok_or_else(|| format!("{text:?} is too large"));
    }
    let plain = !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    match number.parse::<f64>() {
        Ok(part) if plain && shift > 0 && part < 1e6 => Ok((part * (1_u64 << shift) as f64) as u64),
        _ => Err(wrong()),
    }
}

/// Reads `250ms`, `5s`, `5`, `1m` or `2h`. A bare number counts seconds.
///
/// # Errors
/// Says how a duration is written.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is not a duration; write it like 500ms, 5s, 1m or 2h");
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|c: char| !c.is_ascii_digit()).unwrap_or(lower.len());
    let (number, unit) = lower.split_at(split);
    let number: u64 = number.parse().map_err(|_| wrong())?;
    let millis = match unit {
        "ms" => 1,
        "" | "s" => 1_000,
        "m" | "min" => 60_000,
        "h" => 3_600_000,
        _ => return Err(wrong()),
    };
    let millis = number.checked_mul(millis).ok_or_else(|| format!("{text:?} is too long"))?;
    Ok(Duration::from_millis(millis))
}

/// Reads a duration of a second or more, for what costs requests each time or gives the store time to answer.
///
/// # Errors
/// Says how one is written, and which is the least.
pub fn parse_interval(text: &str) -> Result<Duration, String> {
    let interval = parse_duration(text)?;
    if interval < INTERVAL_MIN {
        return Err(format!("{text:?} is too short; 1s is the least"));
    }
    Ok(interval)
}

/// Reads `5M`, `off`, or a timetable such as `08:00-18:00=1M,else=off`, as bytes a second. Semicolons do as well as
/// commas, which mean something else to mount(8).
///
/// # Errors
/// Says how one is written.
pub fn parse_timetable(text: &str) -> Result<Timetable, String> {
    const HOW: &str = "write a rate like 5M or off, or times like 08:00-18:00=1M,else=off";
    if text.len() > TIMETABLE_BYTES_MAX {
        return Err(format!("it is too long; {HOW}"));
    }
    let mut table = Timetable { text: text.trim().to_owned(), ..Timetable::default() };
    if !text.contains('=') {
        table.otherwise = parse_rate(text)?;
        return Ok(table);
    }
    let mut has_else = false;
    for part in text.split([',', ';']) {
        let wrong = || format!("{part:?} cannot be understood; {HOW}");
        let (times, rate) = part.split_once('=').ok_or_else(wrong)?;
        let rate = parse_rate(rate)?;
        if times.trim() == "else" && !has_else {
            (has_else, table.otherwise) = (true, rate);
            continue;
        }
        let (from, to) = times.split_once('-').ok_or_else(wrong)?;
        let minute = |text: &str| minute_of_day(text).ok_or_else(wrong);
        let (from, to) = (minute(from)?, minute(to)?);
        if from == to {
            return Err(wrong());
        }
        table.spans.push(Span { from, to, rate });
    }
    Ok(table)
}

fn parse_rate(text: &str) -> Result<Option<u64>, String> {
    if text.trim() == "off" {
        return Ok(None);
    }
    let rate = text.trim().strip_suffix("/s").unwrap_or(text);
    match parse_size(rate)? {
        rate if rate < Timetable::RATE_MIN => {
            Err(format!("{text:?} a second is too little; the least is {}", show_size(Timetable::RATE_MIN)))
        }
        rate => Ok(Some(rate)),
    }
}

/// Minutes since midnight of `08:30`; `24:00` is the day's end.
fn minute_of_day(text: &str) -> Option<u16> {
    let (hours, minutes) = text.trim().split_once(':')?;
    let is_plain = |part: &str| part.len() == 2 && part.bytes().all(|byte| byte.is_ascii_digit());
    let (hours, minutes): (u16, u16) = if is_plain(hours) && is_plain(minutes) {
        (hours.parse().ok()?, minutes.parse().ok()?)
    } else {
        return None;
    };
    let minute = hours * 60 + minutes;
    (minutes < 60 && minute <= 24 * 60).then_some(minute)
}

/// `n` bytes with a unit that leaves one to four digits: `17 B`, `1.2 KiB`, `340 MiB`.
#[must_use]
pub fn show_size(bytes: u64) -> String {
    if bytes < 1024 {
        return format!("{bytes} B");
    }
    let mut value = bytes as f64 / 1024.0;
    for unit in ["KiB", "MiB", "GiB", "TiB"] {
        if value < 1023.95 {
            let decimals = usize::from(value < 99.95);
            return format!("{value:.decimals$} {unit}");
        }
        value /= 1024.0;
    }
    format!("{value:.1} PiB")
}

/// A span of time in at most two units: `0.3 s`, `42 s`, `5 min 3 s`, `2 h 10 min`, `3 d 4 h`.
#[must_use]
pub fn show_duration(span: Duration) -> String {
    let secs = span.as_secs();
    match secs {
        0..10 => format!("{:.1} s", span.as_secs_f64()),
        10..60 => format!("{secs} s"),
        60..3_600 => format!("{} min {} s", secs / 60, secs % 60),
        3_600..86_400 => format!("{} h {} min", secs / 3_600, secs % 3_600 / 60),
        _ => format!("{} d {} h", secs / 86_400, secs % 86_400 / 3_600),
    }
}

/// `count` things: `1 file`, `2,048 files`.
#[must_use]
pub fn show_count(count: u64, one: &str, many: &str) -> String {
    format!("{} {}", show_number(count), if count == 1 { one } else { many })
}

/// A number in groups of three digits: `2,048`.
#[must_use]
pub fn show_number(count: u64) -> String {
    let digits = count.to_string();
    let mut text = String::new();
    for (at, digit) in digits.chars().enumerate() {
        if at > 0 && (digits.len() - at).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// The local time of day to the minute, or to the nanosecond with its zone for machines (`precise`).
#[must_use]
pub fn show_time(time: Time, precise: bool) -> String {
    let Some(utc) = DateTime::<Utc>::from_timestamp(time.secs, time.nanos) else {
        return format!("@{}", time.secs);
    };
    let format = if precise { "%Y-%m-%d %H:%M:%S.%f %z" } else { "%Y-%m-%d %H:%M" };
    utc.with_timezone(&Local).format(format).to_string()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_read_as_powers_of_1024() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("64M", 64 << 20),
            ("64 MiB", 64 << 20),
            ("1gib", 1 << 30),
            ("1.5G", 3 << 29),
            ("512kb", 512 << 10),
            ("7B", 7),
        ] {
            assert_eq!(parse_size(text), Ok(bytes), "{text}");
        }
        for text in ["", "M", "-1", "1e3", "nan", "inf", "1.5", "12 parsecs", "1..2M", "99999999999T", "1x"] {
            assert!(parse_size(text).is_err(), "{text}");
        }
    }

    #[test]
    fn a_limit_is_a_rate_or_a_timetable() {
        let read = |text: &str| parse_timetable(text).unwrap();
        assert_eq!(
            (read("5M").otherwise, read("5M/s").otherwise, read("off").otherwise),
            (Some(5 << 20), Some(5 << 20), None)
        );
        let table = read("08:00-18:00=1M, 22:00-06:30=off,else=4M");
        let spans =
            [Span { from: 480, to: 1080, rate: Some(1 << 20) }, Span { from: 1320, to: 390, rate: None }];
        assert_eq!((table.spans.as_slice(), table.otherwise), (&spans[..], Some(4 << 20)));
        assert_eq!(read("22:00-06:30=off;else=4M").otherwise, Some(4 << 20));
        assert_eq!(read("00:00-24:00=1M").spans, [Span { from: 0, to: 1440, rate: Some(1 << 20) }]);
        for wrong in [
            "",
            "fast",
            "1K",
            "5M,",
            "8-18=1M",
            "08:00-18:00",
            "08:00-08:00=1M",
            "25:00-26:00=1M",
            "08:60-09:00=1M",
            "else=1M,else=2M",
            "08:00-18:00=1M,5M",
            "-1M",
            "+8:00-09:00=1M",
        ] {
            assert!(parse_timetable(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn durations_read_in_their_units() {
        for (text, millis) in [("5", 5_000), ("5s", 5_000), ("250ms", 250), ("1m", 60_000), ("2h", 7_200_000)]
        {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "s", "-5s", "1.5s", "5 parsecs", "99999999999999999999h", "9999999999999999h"] {
            assert!(parse_duration(text).is_err(), "{text}");
        }
    }

    #[test]
    fn figures_show_with_few_digits() {
        let sizes = [0, 1023, 1024, 1536, 102_400, 1 << 20, (1 << 30) - 1, u64::MAX];
        let shown: Vec<String> = sizes.into_iter().map(show_size).collect();
        let want = ["0 B", "1023 B", "1.0 KiB", "1.5 KiB", "100 KiB", "1.0 MiB", "1.0 GiB", "16384.0 PiB"];
        assert_eq!(shown, want);
        assert_eq!(show_duration(Duration::from_millis(300)), "0.3 s");
        assert_eq!(show_duration(Duration::from_secs(303)), "5 min 3 s");
        assert_eq!(show_duration(Duration::from_secs(100_000)), "1 d 3 h");
        assert_eq!(show_count(1, "file", "files"), "1 file");
        assert_eq!(show_count(1_234_567, "file", "files"), "1,234,567 files");
    }
}
