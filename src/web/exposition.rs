//! Writes figures in the text format of Prometheus, version 0.0.4.

use std::fmt::Write as _;

use crate::base::{CLASS_SECS, HistogramSnapshot};

/// What a figure is to Prometheus.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows while the process lives.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Durations by class.
    Histogram,
}

/// The text in the making: families of figures, each with its help and type, then its samples.
#[derive(Debug, Default)]
pub struct Exposition(String);

impl Exposition {
    /// Begins a family. `help` is one line.
    pub fn family(&mut self, name: &str, kind: Kind, help: &str) {
        let kind = match kind {
            Kind::Counter => "counter",
            Kind::Gauge => "gauge",
            Kind::Histogram => "histogram",
        };
        let help = help.replace('\\', "\\\\").replace('\n', "\\n");
        let _ = writeln!(self.0, "# HELP {name} {help}\n# TYPE {name} {kind}");
    }

    /// One figure of the family that was begun last.
    pub fn sample(&mut self, name: &str, labels: &[(&str, &str)], value: f64) {
        self.0.push_str(name);
        self.labels(labels, None);
        let _ = writeln!(self.0, " {value}");
    }

    /// A family of one figure without labels.
    pub fn single(&mut self, name: &str, kind: Kind, help: &str, value: f64) {
        self.family(name, kind, help);
        self.sample(name, &[], value);
    }

    /// The samples of one histogram of the family `name`.
    pub fn histogram(&mut self, name: &str, labels: &[(&str, &str)], counted: &HistogramSnapshot) {
        let mut within = 0;
        let bounds = CLASS_SECS.iter().map(ToString::to_string).chain(["+Inf".to_owned()]);
        for (count, bound) in counted.counts.iter().zip(bounds) {
            within += count;
            let _ = write!(self.0, "{name}_bucket");
            self.labels(labels, Some(&bound));
            let _ = writeln!(self.0, " {within}");
        }
        for (suffix, value) in [("sum", counted.sum_secs), ("count", within as f64)] {
            let _ = write!(self.0, "{name}_{suffix}");
            self.labels(labels, None);
            let _ = writeln!(self.0, " {value}");
        }
    }

    fn labels(&mut self, labels: &[(&str, &str)], bound: Option<&str>) {
        let all = labels.iter().copied().chain(bound.map(|bound| ("le", bound)));
        for (at, (name, value)) in all.enumerate() {
            let value = value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
            let _ = write!(self.0, "{}{name}=\"{value}\"", if at == 0 { "{" } else { "," });
        }
        if !labels.is_empty() || bound.is_some() {
            self.0.push('}');
        }
    }

    /// The text.
    #[must_use]
    pub fn into_text(self) -> String {
        self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::base::Histogram;

    #[test]
    fn figures_stand_below_their_help_and_type() {
        let mut text = Exposition::default();
        text.single("coffer_safe", Kind::Gauge, "Whether.", 1.0);
        text.family("coffer_x_total", Kind::Counter, "One\nline.");
        text.sample("coffer_x_total", &[("verb", "put"), ("why", "a\"b\\c\nd")], 2.5);
        let want = "# HELP coffer_safe Whether.\n# TYPE coffer_safe gauge\ncoffer_safe 1\n# HELP coffer_x_total One\\nline.\n\
                    # TYPE coffer_x_total counter\ncoffer_x_total{verb=\"put\",why=\"a\\\"b\\\\c\\nd\"} 2.5\n";
        assert_eq!(text.into_text(), want);
    }

    #[test]
    fn each_class_of_a_histogram_counts_those_below_it_too() {
        let counted = Histogram::default();
        for secs in [0.001, 0.02, 0.02, 100.0] {
            counted.add(std::time::Duration::from_secs_f64(secs));
        }
        let mut text = Exposition::default();
        text.histogram("h_seconds", &[("verb", "get")], &counted.snapshot());
        let text = text.into_text();
        for line in [
            "h_seconds_bucket{verb=\"get\",le=\"0.005\"} 1\n",
            "h_seconds_bucket{verb=\"get\",le=\"0.025\"} 3\n",
            "h_seconds_bucket{verb=\"get\",le=\"30\"} 3\n",
            "h_seconds_bucket{verb=\"get\",le=\"+Inf\"} 4\n",
            "h_seconds_sum{verb=\"get\"} 100.041\n",
            "h_seconds_count{verb=\"get\"} 4\n",
        ] {
            assert!(text.contains(line), "{line} in {text}");
        }
    }
}
