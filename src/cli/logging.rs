//! Sets up the log: where it goes, how it is written, and from which level; from warnings up unless asked for more.

use std::io::IsTerminal;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use tracing_journald::{Priority, PriorityMappings};
use tracing_subscriber::filter::Directive;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

use super::error::{CommandError, CommandResult};
use super::exit::Exit;
use super::log_file::LogFile;
use super::quiet::Quiet;
use super::stderr;

/// What a user has asked for is logged whatever the filter says.
const ASKED: &str = "coffer::asked";
/// Fields of messages are called so in the journal: `COFFER_URL`.
const JOURNAL_PREFIX: &str = "COFFER";

/// Where the log goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogTo {
    /// --log-file if given; the journal if standard error is connected to it; of a mount in the background
    /// mount.log in the state directory; else standard error
    #[default]
    Auto,
    /// Standard error, also in the background
    Stderr,
    /// --log-file, or of a mount mount.log in the state directory
    File,
    /// The journal of systemd, with priorities and fields
    Journal,
}

/// How the log is written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum LogFormat {
    /// Lines for people
    #[default]
    Text,
    /// An object a line
    Json,
}

/// How much is logged, where and how.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Log more: -v what happens, -vv every request, -vvv everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Log by filter, as in `coffer::store=debug,warn`
    #[arg(long = "log", value_name = "FILTER", env = "COFFER_LOG", global = true, hide_env_values = true)]
    pub filter: Option<String>,
    /// Where the log goes
    #[arg(
        long,
        value_enum,
        value_name = "WHERE",
        default_value_t,
        global = true,
        env = "COFFER_LOG_TO",
        hide_env_values = true
    )]
    pub log_to: LogTo,
    /// How the log is written to a file or to standard error
    #[arg(
        long,
        value_enum,
        value_name = "HOW",
        default_value_t,
        global = true,
        env = "COFFER_LOG_FORMAT",
        hide_env_values = true
    )]
    pub log_format: LogFormat,
    /// Log to this file, which is opened anew when it has been moved away or removed
    #[arg(long, value_name = "FILE", global = true, env = "COFFER_LOG_FILE", hide_env_values = true)]
    pub log_file: Option<PathBuf>,
}

/// Where a log goes that has been set up.
#[derive(Clone, Debug)]
pub enum Log {
    /// Standard error.
    Stderr,
    /// A file, and its path.
    File(Arc<LogFile>, PathBuf),
    /// The journal of systemd.
    Journal,
}

impl Log {
    /// The place in words.
    #[must_use]
    pub fn place(&self) -> String {
        match self {
            Self::Stderr => "standard error".to_owned(),
            Self::File(_, path) => path.display().to_string(),
            Self::Journal => "the journal".to_owned(),
        }
    }
}

impl LogArgs {
    /// Takes a long flag from `-o name=value`; false if it is none of these.
    ///
    /// # Errors
    /// Why the value cannot be used.
    pub fn set(&mut self, name: &str, value: &str) -> Result<bool, String> {
        use clap::ValueEnum;
        match name {
            "log-to" => self.log_to = LogTo::from_str(value, false)?,
            "log-format" => self.log_format = LogFormat::from_str(value, false)?,
            "log-file" if value.is_empty() => return Err("needs =VALUE".to_owned()),
            "log-file" => self.log_file = Some(PathBuf::from(value)),
            _ => return Ok(false),
        }
        Ok(true)
    }

    fn filter(&self) -> CommandResult<EnvFilter> {
        let text = match (&self.filter, self.verbose) {
            (Some(filter), _) => filter.as_str(),
            (None, 0) => "warn,slatedb=error",
            (None, 1) => "warn,slatedb=error,coffer=info",
            (None, 2) => "info,slatedb=warn,coffer=debug",
            // The FUSE library's own lines name files.
            (None, _) => "debug,fuser=info,coffer=trace",
        };
        let filter = EnvFilter::try_new(text)
            .map_err(|e| CommandError::usage(format!("cannot use --log {text:?}: {e}")))?;
        Ok(match format!("{ASKED}=info").parse::<Directive>() {
            Ok(asked) => filter.add_directive(asked),
            Err(_) => filter,
        })
    }

    /// Starts logging. `file` is where a mount logs to if nothing else is said, and `is_background` whether it will leave
    /// its terminal. Only the first call in a process has an effect.
    ///
    /// # Errors
    /// When the filter cannot be read, the file not be opened, or the journal does not answer.
    pub fn start(&self, file: Option<&Path>, is_background: bool) -> CommandResult<Log> {
        let filter = self.filter()?;
        let log = self.open(file, is_background)?;
        let layer: Box<dyn Layer<Registry> + Send + Sync> = match &log {
            Log::Stderr => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                self.lines(std::io::stderr, colour)
            }
            Log::File(file, _) => self.lines(Arc::clone(file), false),
            Log::Journal => Box::new(journal().map_err(|e| no_journal(&e))?),
        };
        // Who asks for everything gets it.
        let quiet = (self.verbose < 3).then_some(Quiet);
        if let Err(error) = tracing_subscriber::registry().with(layer).with(filter).with(quiet).try_init() {
            tracing::debug!(%error, "logging was set up before");
        } else if matches!(log, Log::Journal) || self.log_format == LogFormat::Json {
            std::panic::set_hook(Box::new(|panic| tracing::error!("{panic}")));
        }
        if matches!(log, Log::Journal) && is_stderr_the_journal() {
            IS_OF_JOURNAL.store(true, Ordering::Relaxed);
        }
        Ok(log)
    }

    fn open(&self, file: Option<&Path>, is_background: bool) -> CommandResult<Log> {
        let of_file = |path: &Path| {
            let path = absolute(path)?;
            Ok(Log::File(Arc::new(LogFile::open(&path)?), path))
        };
        match (self.log_to, &self.log_file) {
            (LogTo::Stderr, _) => Ok(Log::Stderr),
            (LogTo::Journal, _) => Ok(Log::Journal),
            (LogTo::Auto | LogTo::File, Some(path)) => of_file(path),
            (LogTo::Auto, None) if is_stderr_the_journal() && journal().is_ok() => Ok(Log::Journal),
            (LogTo::Auto, None) if !is_background => Ok(Log::Stderr),
            (LogTo::Auto | LogTo::File, None) => match file {
                Some(file) => of_file(file),
                None => Err(CommandError::usage("--log-to file: which file?").hint("give --log-file FILE")),
            },
        }
    }

    fn lines<W>(&self, writer: W, colour: bool) -> Box<dyn Layer<Registry> + Send + Sync>
    where
        W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
    {
        let lines = tracing_subscriber::fmt::layer().with_writer(writer);
        match self.log_format {
            LogFormat::Text => Box::new(lines.with_ansi(colour).with_target(self.verbose > 1)),
            LogFormat::Json => {
                Box::new(lines.with_ansi(false).json().with_current_span(false).with_span_list(false))
            }
        }
    }
}

/// What sends to the journal. Levels have the priorities that journalctl(1) names so.
fn journal() -> std::io::Result<tracing_journald::Layer> {
    let priorities = PriorityMappings {
        error: Priority::Error,
        warn: Priority::Warning,
        info: Priority::Informational,
        debug: Priority::Debug,
        trace: Priority::Debug,
    };
    let layer = tracing_journald::layer()?.with_priority_mappings(priorities);
    let layer = layer.with_field_prefix(Some(JOURNAL_PREFIX.to_owned()));
    Ok(layer.with_syslog_identifier("coffer".to_owned()))
}

fn no_journal(error: &std::io::Error) -> CommandError {
    CommandError::new(Exit::Failure, format!("cannot log to the journal: {error}"))
        .hint("`--log-to file` and `--log-to stderr` need no systemd")
}

/// Whether a service manager has connected standard error to the journal: the variable may be inherited by whoever has
/// been given another standard error since. (systemd.exec(5), `JOURNAL_STREAM`)
fn is_stderr_the_journal() -> bool {
    let told = std::env::var("JOURNAL_STREAM").unwrap_or_default();
    rustix::fs::fstat(std::io::stderr().as_fd())
        .is_ok_and(|stat| told == format!("{}:{}", stat.st_dev, stat.st_ino))
}

/// Set when standard error is the journal's, and the log as well.
static IS_OF_JOURNAL: AtomicBool = AtomicBool::new(false);

/// Says why the process fails: on standard error, or with a priority where that is the journal.
pub fn complain(error: &CommandError) {
    match IS_OF_JOURNAL.load(Ordering::Relaxed) {
        true if error.is_silent() => {}
        true => {
            let (exit, hint) = (error.exit().code(), error.hints().join("; "));
            tracing::error!(target: ASKED, exit, hint, "{error}");
        }
        false => stderr::text(error.render()),
    }
}

/// Set when standard error is no longer anybody's.
static IS_ALONE: AtomicBool = AtomicBool::new(false);

/// From now on what is said to the user goes to the log: nobody reads standard error.
pub fn leave_the_user() {
    IS_ALONE.store(true, Ordering::Relaxed);
}

/// Says a line to whoever has started the process: on standard error, or in the log of one in the background.
pub fn tell(line: &str) {
    match IS_ALONE.load(Ordering::Relaxed) {
        true => tracing::info!(target: ASKED, "{line}"),
        false => stderr::line(line),
    }
}

/// `path` from the root, so that it stays true after the process has left its directory.
///
/// # Errors
/// When the current directory is gone.
pub fn absolute(path: &Path) -> CommandResult<PathBuf> {
    std::path::absolute(path).map_err(|e| CommandError::reading(path, &e))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_asked_for_passes_every_filter() {
        for text in ["off", "coffer::store=debug", "warn"] {
            let args = LogArgs { filter: Some(text.to_owned()), ..LogArgs::default() };
            let filter = args.filter().unwrap().to_string();
            assert!(filter.contains("coffer::asked=info"), "{filter}");
        }
    }

    #[test]
    fn whoever_says_where_is_not_overruled_by_a_file_from_afar() {
        let dir = tempfile::tempdir().unwrap();
        let (given, usual) = (dir.path().join("given"), dir.path().join("usual"));
        let place = |log_to, log_file: Option<&PathBuf>, is_background| {
            let args = LogArgs { log_to, log_file: log_file.cloned(), ..LogArgs::default() };
            args.open(Some(&usual), is_background).unwrap().place()
        };
        let [given_place, usual_place] = [&given, &usual].map(|path| path.display().to_string());
        assert_eq!(place(LogTo::Stderr, Some(&given), true), "standard error");
        assert_eq!(place(LogTo::Journal, Some(&given), true), "the journal");
        assert_eq!(place(LogTo::Auto, Some(&given), false), given_place);
        assert_eq!(place(LogTo::Auto, None, false), "standard error");
        assert_eq!(place(LogTo::Auto, None, true), usual_place);
        assert_eq!(place(LogTo::File, None, false), usual_place);
        assert!(LogArgs { log_to: LogTo::File, ..LogArgs::default() }.open(None, false).is_err());
    }
}
