//! Shows how far long work is: a bar on a terminal, a line now and then in a log, objects for programs.

use std::io::IsTerminal;
use std::sync::{Arc, OnceLock, Weak};
use std::time::{Duration, Instant};

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use parking_lot::Mutex;
use tokio::runtime::Handle;
use tokio::signal::unix::{SignalKind, signal};
use tokio::task::JoinHandle;

use super::logging::tell;
use super::made::Made;

/// How often a line is printed where there is no terminal.
const LINE_EVERY: Duration = Duration::from_secs(10);
/// How often an object is.
const OBJECT_EVERY: Duration = Duration::from_secs(1);
/// How often the bar is drawn.
const DRAW_EVERY: Duration = Duration::from_millis(200);

/// How progress is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Show {
    /// A bar on a terminal, elsewhere a line every ten seconds; nothing with --json.
    #[default]
    Auto,
    /// An object of JSON on standard error, each second and at the end.
    Json,
    /// Not at all.
    None,
}

/// How progress is shown, for every command.
#[derive(clap::Args, Clone, Copy, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct ProgressArgs {
    /// How long work shows how far it is, on standard error
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t,
        global = true,
        env = "COFFER_PROGRESS",
        hide_env_values = true
    )]
    pub progress: Show,
}

static CHOSEN: OnceLock<Show> = OnceLock::new();
/// The work that was begun last, whose bar may be on the terminal.
static LATEST: Mutex<Weak<Inner>> = Mutex::new(Weak::new());

/// Says a line to the user, above the bar if there is one.
pub fn say(line: &str) {
    let latest = LATEST.lock().upgrade();
    match latest {
        Some(inner) => Progress(inner).say(line),
        None => tell(line),
    }
}

impl ProgressArgs {
    /// Has everything that follows in this process shown so; not at all, unless it was asked for, where a program reads what
    /// comes out. Only the first call has an effect.
    pub fn choose(self, is_for_program: bool) {
        let shown = match self.progress {
            Show::Auto if is_for_program => Show::None,
            shown => shown,
        };
        let _ = CHOSEN.set(shown);
    }
}

/// Work under way. Clones are the same work; SIGUSR1 has it shown once, wherever it is shown.
#[derive(Clone, Debug)]
pub struct Progress(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    way: Way,
    bar: ProgressBar,
    made: Mutex<Made>,
    teller: Mutex<Option<JoinHandle<()>>>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Way {
    Bar,
    Lines,
    Objects,
    Nothing,
}

impl Way {
    fn chosen() -> Self {
        match CHOSEN.get().copied().unwrap_or_default() {
            Show::Json => Self::Objects,
            Show::None => Self::Nothing,
            Show::Auto if is_drawable() => Self::Bar,
            Show::Auto => Self::Lines,
        }
    }

    const fn every(self) -> Duration {
        match self {
            Self::Bar => DRAW_EVERY,
            Self::Lines | Self::Nothing => LINE_EVERY,
            Self::Objects => OBJECT_EVERY,
        }
    }
}

impl Progress {
    /// Begins to show work called `what`, such as `export`. It is told from time to time on the current runtime, if there
    /// is one.
    #[must_use]
    pub fn start(what: impl Into<String>) -> Self {
        let way = Way::chosen();
        let bar = if way == Way::Bar { bar() } else { ProgressBar::hidden() };
        let made = Mutex::new(Made::begun(what.into(), Instant::now()));
        let progress = Self(Arc::new(Inner { way, bar, made, teller: Mutex::default() }));
        *LATEST.lock() = Arc::downgrade(&progress.0);
        if way == Way::Bar {
            progress.0.show();
        }
        if let Ok(runtime) = Handle::try_current() {
            *progress.0.teller.lock() = Some(runtime.spawn(watch(Arc::downgrade(&progress.0), way)));
        }
        progress
    }

    /// Counts bytes that are done.
    pub fn add_bytes(&self, bytes: u64) {
        self.0.made.lock().bytes += bytes;
    }

    /// Counts one file that is done.
    pub fn add_file(&self) {
        self.0.made.lock().files += 1;
    }

    /// Says what is being done at present.
    pub fn note(&self, step: impl Into<String>) {
        self.0.made.lock().step = step.into();
    }

    /// Says what is being looked at.
    pub fn set_part(&self, part: &'static str) {
        self.0.made.lock().part = part;
    }

    /// A look begins at so many records, in which so many bytes are opened; what an earlier one has done is done again.
    pub fn begin(&self, records: u64, bytes: u64) {
        self.0.made.lock().begin(records, bytes, Instant::now());
    }

    /// So many records are done.
    pub fn set_records(&self, records: u64) {
        self.0.made.lock().records = records;
    }

    /// So many bytes are done.
    pub fn set_bytes(&self, bytes: u64) {
        self.0.made.lock().bytes = bytes;
    }

    /// So many bytes are to be done in all.
    pub fn set_total(&self, bytes: u64) {
        self.0.made.lock().total = Some(bytes);
    }

    /// So many bytes are left to be done.
    pub fn set_left(&self, bytes: u64) {
        self.0.made.lock().set_left(bytes);
    }

    /// Prints a line to standard error, above the bar.
    pub fn say(&self, line: &str) {
        self.0.bar.suspend(|| tell(line));
    }

    /// What was done so far, in one phrase: `12 files, 3.4 MiB in 0.8 s`.
    #[must_use]
    pub fn summary(&self) -> String {
        self.0.made.lock().summary(Instant::now())
    }

    /// Ends what has succeeded: as [`Self::finish`], and on a terminal the last state stays, above what follows.
    pub fn complete(&self) {
        self.finish();
        if self.0.way == Way::Bar {
            tell(&self.0.made.lock().last_line(Instant::now()));
        }
    }

    /// Ends it: removes the bar, or tells for the last time.
    pub fn finish(&self) {
        if let Some(teller) = self.0.teller.lock().take() {
            teller.abort();
            if self.0.way == Way::Objects {
                tell(&self.0.made.lock().object(Instant::now(), true).to_string());
            }
        }
        self.0.bar.finish_and_clear();
    }
}

impl Drop for Inner {
    fn drop(&mut self) {
        if let Some(teller) = self.teller.lock().take() {
            teller.abort();
        }
        self.bar.finish_and_clear();
    }
}

impl Inner {
    fn show(&self) {
        let now = Instant::now();
        let mut made = self.made.lock();
        made.look(now);
        match self.way {
            Way::Bar => self.bar.set_message(made.bar_line(now)),
            Way::Lines => tell(&made.line(now)),
            Way::Objects => tell(&made.object(now, false).to_string()),
            Way::Nothing => {}
        }
    }

    /// Because somebody has asked by a signal.
    fn show_once(&self) {
        let line = self.made.lock().line(Instant::now());
        match self.way {
            Way::Objects => self.show(),
            Way::Bar | Way::Lines | Way::Nothing => self.bar.suspend(|| tell(&line)),
        }
    }
}

async fn watch(work: Weak<Inner>, way: Way) {
    let mut ticks = tokio::time::interval_at(tokio::time::Instant::now() + way.every(), way.every());
    let mut asked = signal(SignalKind::user_defined1()).ok();
    loop {
        let is_asked = tokio::select! {
            _ = ticks.tick() => false,
            () = async { match &mut asked { Some(asked) => drop(asked.recv().await), None => std::future::pending().await } } => true,
        };
        let Some(work) = work.upgrade() else { return };
        if is_asked { work.show_once() } else { work.show() }
    }
}

/// Whether standard error is a terminal on which something can be drawn again in its place.
fn is_drawable() -> bool {
    let is_able = std::env::var_os("TERM").is_some_and(|term| term != "dumb");
    is_able && std::io::stderr().is_terminal()
}

fn bar() -> ProgressBar {
    let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stderr_with_hz(10));
    if let Ok(style) = ProgressStyle::with_template("{spinner} {wide_msg}") {
        bar.set_style(style);
    }
    bar.enable_steady_tick(DRAW_EVERY);
    bar
}
