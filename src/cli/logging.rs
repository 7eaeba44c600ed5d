//! Sets up the log: to standard error or a file, from warnings up unless asked for more.

use std::fs::File;
use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use tracing_subscriber::EnvFilter;

use super::error::{CommandError, CommandResult};

/// How much is logged.
#[derive(clap::Args, Clone, Debug, Default)]
#[command(next_help_heading = "Logging")]
pub struct LogArgs {
    /// Log more: -v what happens, -vv every request, -vvv everything
    #[arg(short, long, action = clap::ArgAction::Count, global = true)]
    pub verbose: u8,
    /// Log by filter, as in `coffer::store=debug,warn`
    #[arg(long = "log", value_name = "FILTER", env = "COFFER_LOG", global = true, hide_env_values = true)]
    pub filter: Option<String>,
}

impl LogArgs {
    fn filter(&self) -> CommandResult<EnvFilter> {
        let text = match (&self.filter, self.verbose) {
            (Some(filter), _) => filter.as_str(),
            (None, 0) => "warn,slatedb=error",
            (None, 1) => "warn,slatedb=error,coffer=info",
            (None, 2) => "info,slatedb=warn,coffer=debug",
            (None, _) => "debug,coffer=trace",
        };
        EnvFilter::try_new(text).map_err(|e| CommandError::usage(format!("cannot use --log {text:?}: {e}")))
    }

    /// Starts logging into `file`, or to standard error without one. Only the first call has an effect.
    ///
    /// # Errors
    /// When the filter cannot be read.
    pub fn start(&self, file: Option<&Arc<File>>) -> CommandResult {
        let builder = tracing_subscriber::fmt().with_env_filter(self.filter()?).with_target(self.verbose > 1);
        let started = match file {
            Some(file) => builder.with_ansi(false).with_writer(Arc::clone(file)).try_init(),
            None => {
                let colour = std::io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
                builder.with_ansi(colour).with_writer(std::io::stderr).try_init()
            }
        };
        if let Err(error) = started {
            tracing::debug!(%error, "logging was set up before");
        }
        Ok(())
    }
}

/// Opens a log file for appending; only its owner can read it.
///
/// # Errors
/// Names the file and what the system said.
pub fn open_log(path: &Path) -> CommandResult<Arc<File>> {
    use std::os::unix::fs::OpenOptionsExt;
    let file = File::options().create(true).append(true).mode(0o600).open(path);
    file.map(Arc::new).map_err(|e| CommandError::writing(path, &e))
}

/// `path` from the root, so that it stays true after the process has left its directory.
///
/// # Errors
/// When the current directory is gone.
pub fn absolute(path: &Path) -> CommandResult<PathBuf> {
    std::path::absolute(path).map_err(|e| CommandError::reading(path, &e))
}
