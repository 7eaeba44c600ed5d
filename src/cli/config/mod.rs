//! Reads the command line together with the environment and the configuration files; the nearer one wins.
//!
//! In this order, for every setting: the command line, the `-o` list, `COFFER_*`, the volume's section of the user's file, of
//! the system's, then `[defaults]` of either, and what is built in.

mod apply;
mod file;
mod settings;
mod show;

use std::ffi::OsString;

use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{ArgMatches, Command, CommandFactory, FromArgMatches};

use file::Config;
pub use settings::{ENVIRONMENT_PREFIX, ON_THE_LINE_ONLY, is_setting};
pub use show::{ConfigCommand, EXAMPLES, run};

use super::args::{self, Cli};
use super::error::CommandError;
use super::remount::Remount;
use crate::cli::stderr;

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Refusal {
    /// The command line asks for help, or cannot be understood; clap says so best.
    Clap(clap::Error),
    /// The configuration cannot be used.
    Config(CommandError),
}

/// The command line's definition, with the environment variables that stand for its options.
#[must_use]
pub fn definition() -> Command {
    settings::with_environment(Cli::command(), &[])
}

/// Reads `words` and everything that may stand behind them.
///
/// # Errors
/// What is to be printed instead of running a command.
pub fn parse(words: &[OsString]) -> Result<Cli, Refusal> {
    // What only the files can tell is not asked for yet: a named volume knows where it is mounted.
    let loose = settings::loosened(Cli::command());
    let asked =
        loose.try_get_matches_from(words).map_err(|error| Refusal::Clap(told_in_full(error, words)))?;
    let (path, inner) = innermost(&asked);
    let config = match Config::load(asked.get_one("config")) {
        Ok(config) => config,
        // A mount can be looked at and ended whatever has become of the file.
        Err(error) if !names_a_volume(&path) => {
            stderr::line(format_args!("warning: {error}"));
            Config::default()
        }
        Err(error) => return Err(Refusal::Config(error)),
    };
    let given = apply::Given::of(inner);
    let volume = given.volume.as_deref().and_then(|name| config.volume(name));
    let except: &[&str] = if given.says_a_secret() { &apply::OF_A_SECRET } else { &[] };
    let definition = settings::with_environment(Cli::command(), except);
    let applied = apply::apply(definition, &path, &config, volume, &given);
    let read = |command: Command| {
        let matches = command.try_get_matches_from(words)?;
        Cli::from_arg_matches(&matches)
    };
    let mut cli = read(applied).map_err(|error| blame(error, &config, volume))?;
    if let (args::Command::Mount(mount), Some(words)) = (&mut cli.command, config.options(volume)) {
        // They are the mount's, which has them: a remount asks for what stands on the line.
        if !Remount::is_asked(&mount.options) {
            mount.options.insert(0, words.to_owned());
        }
    }
    Ok(cli)
}

/// Help names the variables too.
fn told_in_full(error: clap::Error, words: &[OsString]) -> clap::Error {
    match error.kind() {
        ErrorKind::DisplayHelp | ErrorKind::DisplayHelpOnMissingArgumentOrSubcommand => {
            settings::loosened(definition()).try_get_matches_from(words).err().unwrap_or(error)
        }
        _ => error,
    }
}

/// The names of the subcommands, and what the last of them was given.
fn innermost(matches: &ArgMatches) -> (Vec<String>, &ArgMatches) {
    let mut path = Vec::new();
    let mut inner = matches;
    while let Some((name, next)) = inner.subcommand() {
        path.push(name.to_owned());
        inner = next;
    }
    (path, inner)
}

fn names_a_volume(path: &[String]) -> bool {
    let mut definition = &Cli::command();
    for name in path {
        match definition.find_subcommand(name) {
            Some(next) => definition = next,
            None => return false,
        }
    }
    path.first().is_some_and(|name| name == "config")
        || definition.get_positionals().any(|arg| arg.get_id() == apply::URL)
}

/// Says where a value that cannot be used stands, if it stands in a file.
fn blame(error: clap::Error, config: &Config, volume: Option<&file::Section>) -> Refusal {
    let text = |kind| match error.get(kind) {
        Some(ContextValue::String(text)) => Some(text.as_str()),
        _ => None,
    };
    if !matches!(error.kind(), ErrorKind::InvalidValue | ErrorKind::ValueValidation) {
        return Refusal::Clap(error);
    }
    let name = text(ContextKind::InvalidArg).unwrap_or_default();
    let name = name.trim_start_matches("--").split(' ').next().unwrap_or_default();
    let value = text(ContextKind::InvalidValue).unwrap_or_default();
    match config.setting(volume, name).filter(|setting| setting.value == value) {
        Some(setting) => {
            let why = std::error::Error::source(&error).map(|why| format!(": {why}")).unwrap_or_default();
            Refusal::Config(CommandError::usage(format!("{}: {name} = {value:?}{why}", setting.place)))
        }
        None => Refusal::Clap(error),
    }
}
