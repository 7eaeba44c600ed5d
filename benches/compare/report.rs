//! What was measured, as a table, as JSON and as a chart.

use std::fmt::Write as _;
use std::path::Path;

use serde_json::{Value, json};

/// What a row promises.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Goal {
    /// So many times the speed of the limit.
    Speed(f64),
    /// At most so many times what the limit takes.
    Cost(f64),
    /// At most so many of the unit.
    Count(f64),
}

/// The values of one subject, one for each round.
pub(crate) struct Series {
    pub(crate) who: String,
    pub(crate) values: Vec<f64>,
}

impl Series {
    pub(crate) fn new(who: impl Into<String>, values: Vec<f64>) -> Self {
        Self { who: who.into(), values }
    }

    pub(crate) fn median(&self) -> f64 {
        let mut values = self.values.clone();
        values.sort_unstable_by(f64::total_cmp);
        values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
    }

    fn spread(&self) -> (f64, f64) {
        let least = self.values.iter().copied().fold(f64::INFINITY, f64::min);
        (least, self.values.iter().copied().fold(f64::NEG_INFINITY, f64::max))
    }
}

/// One line of the table: Coffer's series, and what it is held against.
pub(crate) struct Row {
    pub(crate) work: String,
    pub(crate) unit: &'static str,
    pub(crate) coffer: Series,
    /// The limit first; then others, for what they are worth.
    pub(crate) others: Vec<Series>,
    pub(crate) goal: Goal,
}

impl Row {
    /// What the goal speaks of.
    pub(crate) fn figure(&self) -> f64 {
        let limit = self.others.first().map_or(f64::NAN, Series::median);
        match self.goal {
            Goal::Speed(_) => limit / self.coffer.median(),
            Goal::Cost(_) => self.coffer.median() / limit,
            Goal::Count(_) => self.coffer.median(),
        }
    }

    pub(crate) fn is_reached(&self) -> bool {
        match self.goal {
            Goal::Speed(least) => self.figure() >= least,
            Goal::Cost(most) | Goal::Count(most) => self.figure() <= most,
        }
    }

    fn goal_text(&self) -> String {
        match self.goal {
            Goal::Speed(least) => format!("≥ {least}"),
            Goal::Cost(most) | Goal::Count(most) => format!("≤ {most}"),
        }
    }

    /// As it is printed when it is there, before all others are.
    pub(crate) fn line(&self) -> String {
        let mut line = format!(
            "| {:58} | {:>7.2} | {:>6} | {} |",
            self.work,
            self.figure(),
            self.goal_text(),
            if self.is_reached() { "yes" } else { "no " },
        );
        for series in std::iter::once(&self.coffer).chain(&self.others) {
            let (least, most) = series.spread();
            let _ = write!(
                line,
                " {} {:.4} {} ({least:.4} to {most:.4});",
                series.who,
                series.median(),
                self.unit
            );
        }
        line
    }

    fn json(&self) -> Value {
        let series = |series: &Series| json!({ "who": series.who, "median": series.median(), "values": series.values });
        json!({
            "work": self.work,
            "unit": self.unit,
            "figure": self.figure(),
            "goal": self.goal_text(),
            "reached": self.is_reached(),
            "coffer": series(&self.coffer),
            "others": self.others.iter().map(series).collect::<Vec<_>>(),
        })
    }
}

/// Writes everything to `path`, with what it was measured with.
pub(crate) fn write_json(path: &Path, versions: &Value, rows: &[Row]) {
    let all = json!({ "versions": versions, "rows": rows.iter().map(Row::json).collect::<Vec<_>>() });
    std::fs::write(path, format!("{all:#}\n")).expect("the file can be written");
}

const WIDTH: u32 = 900;
const LEFT: u32 = 430;
const LINE: u32 = 22;

/// A bar for each row that has a limit, relative to its goal: what reaches the line in the middle is as promised.
pub(crate) fn write_svg(path: &Path, rows: &[Row]) {
    let height = LINE * (rows.len() as u32 + 3);
    let scale = f64::from(WIDTH - LEFT - 20) / 2.0;
    let middle = f64::from(LEFT) + scale;
    let mut svg = format!(
        "<svg xmlns=\"http://www.w3.org/2000/svg\" width=\"{WIDTH}\" height=\"{height}\" font-family=\"sans-serif\" \
         font-size=\"12\">\n<rect width=\"100%\" height=\"100%\" fill=\"white\"/>\n\
         <text x=\"10\" y=\"{LINE}\" font-weight=\"bold\">Coffer against what it promises (longer is better)</text>\n"
    );
    for (number, row) in rows.iter().enumerate() {
        let better = match row.goal {
            Goal::Speed(least) => row.figure() / least,
            Goal::Cost(most) | Goal::Count(most) => most / row.figure(),
        };
        let (y, colour) = (LINE * (number as u32 + 2), if row.is_reached() { "#2a7" } else { "#c63" });
        let _ = writeln!(
            svg,
            "<text x=\"{}\" y=\"{}\" text-anchor=\"end\">{}</text>\
             <rect x=\"{LEFT}\" y=\"{y}\" width=\"{:.0}\" height=\"{}\" fill=\"{colour}\"/>\
             <text x=\"{}\" y=\"{}\" fill=\"white\">{:.2} (goal {})</text>",
            LEFT - 8,
            y + 13,
            escaped(&row.work),
            (better.clamp(0.02, 2.0)) * scale,
            LINE - 5,
            LEFT + 5,
            y + 13,
            row.figure(),
            escaped(&row.goal_text()),
        );
    }
    let _ = writeln!(
        svg,
        "<line x1=\"{middle:.0}\" y1=\"{}\" x2=\"{middle:.0}\" y2=\"{}\" stroke=\"black\" stroke-dasharray=\"4 3\"/>\
         <text x=\"{middle:.0}\" y=\"{}\" text-anchor=\"middle\">the goal</text>\n</svg>",
        LINE + 10,
        height - LINE,
        height - 6,
    );
    std::fs::write(path, svg).expect("the file can be written");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;")
}
